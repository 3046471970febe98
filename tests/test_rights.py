"""Which markets an account may ask for: what is believed, what is not, and how it ends."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.markets.hk import HONG_KONG
from poller.markets.us import UNITED_STATES
from poller.model import Code, market_of
from poller.schedule.evidence import ALIKE, EXPLICIT, UNPROVEN, Refusal
from poller.schedule.rights import FIRST_PAUSE, HINT_PAUSE, LONGEST_PAUSE, Rights

NOW = datetime(2026, 11, 20, 2, tzinfo=UTC)
SECOND = timedelta(seconds=1)
NO_RIGHT, TIMEOUT, ODD, OTHER = "no right", "timeout", "HK.00001 or US.A is odd", "something else"
ANSWERED = ""
HK = "HK.00001"


def refusal(code: Code, words: str) -> Refusal:
    """Return a refusal in these words."""
    return Refusal(code, words, explicit=words == NO_RIGHT)


class Asking:
    """Accounts that ask one symbol after the other, a second apart."""

    def __init__(self) -> None:
        self.rights = Rights()
        self.now = NOW

    def ask(self, account: str, code: str, outcome: str) -> None:
        """Ask for a symbol; `outcome`: the words of a refusal, or ANSWERED."""
        asked_at, self.now = self.now, self.now + SECOND
        self.rights.asked(account, Code(code), asked_at)
        self.rights.ended(account, Code(code))
        if outcome == ANSWERED:
            self.rights.answered(account, Code(code), self.now)
        else:
            self.rights.refused(account, refusal(Code(code), outcome), self.now, asked_at)

    def resting(self) -> set[str]:
        """Return what rests, as `account market`."""
        return {f"{each.account} {each.market}" for each in self.rights.resting()}


Look = tuple[str, str, str]


def us(*names: str, words: str = TIMEOUT, account: str = "main") -> list[Look]:
    """Return looks at US symbols that all end alike."""
    return [(account, f"US.{name}", words) for name in names]


HK_ANSWERED: Look = ("main", HK, ANSWERED)


@pytest.mark.parametrize(
    ("looks", "rest"),
    [
        ([*us("A", words=NO_RIGHT)], set()),
        ([*us("A", "A", "A", words=NO_RIGHT)], set()),  # one symbol, however often
        ([*us("A", "B", words=NO_RIGHT)], {"main US"}),
        ([*us("A", words=NO_RIGHT), *us("B"), *us("C", words=NO_RIGHT)], {"main US"}),
        ([*us("A", words=NO_RIGHT), *us("C", words=ANSWERED), *us("B", words=NO_RIGHT)], set()),
        ([*us("A", "B", "C")], set()),  # it may be the gateway
        ([HK_ANSWERED, *us("A", "B", "C", "D", "E")], set()),  # which may have failed since
        ([*us("A", "B", "C"), HK_ANSWERED], set()),  # and may be well again
        ([*us("A", "B", "C"), HK_ANSWERED, *us("D")], {"main US"}),
        ([*us("A", "B", "C"), HK_ANSWERED, *us("A")], {"main US"}),
        ([*us("A", "B"), HK_ANSWERED, *us("A")], set()),
        ([*us("A"), HK_ANSWERED, *us("B", "C")], {"main US"}),
        ([*us("A", "B", "C"), ("other", "US.Z", ANSWERED), *us("D")], {"main US"}),
        ([*us("A", "B", "C"), ("other", HK, ANSWERED), *us("D")], set()),
        ([*us("A", "B", "C", words=ODD), HK_ANSWERED, *us("D", words=ODD)], {"main US"}),
        ([*us("A"), *us("B", words=ODD), *us("C", words=OTHER), HK_ANSWERED, *us("D")], set()),
        ([*us("A", "B", "C"), HK_ANSWERED, *us("D"), *us("Z", words=ANSWERED)], set()),
        # who was refused while others were answered says nothing of the market
        (
            [*us("A", "B", words=ODD), *us("Z", words=ANSWERED), *us("A", "B", words=NO_RIGHT)],
            set(),
        ),
    ],
)
def test_what_is_believed(looks: list[Look], rest: set[str]) -> None:
    """Two that name a right; else three alike, an answer to others after that, and one more."""
    asking = Asking()
    for look in looks:
        asking.ask(*look)
    assert asking.resting() == rest


def test_the_code_in_a_text_does_not_count() -> None:
    """OpenD names the symbol it refuses, with its market or without."""
    texts = {
        refusal(Code(f"US.{name}"), text.format(f"US.{name}", name)).likeness
        for name in ("AAPL", "B", "NVDA2")
        for text in ("{} cannot be shown, says server 7", "{1} cannot be shown, says server 12")
    }
    assert len(texts) == 1


def learned() -> Asking:
    """Return a state in which US rests for one account."""
    asking = Asking()
    for look in (*us("A", "B", "C"), HK_ANSWERED, *us("D")):
        asking.ask(*look)
    assert asking.resting() == {"main US"}
    return asking


def test_a_market_that_rests_is_tried_ever_more_rarely() -> None:
    """After a minute, then twice as late each time, and once a day in the end; never not at all."""
    asking, pauses = learned(), list[timedelta]()
    for n in range(15):
        due = asking.rights.access("main", asking.now).resting[UNITED_STATES]
        pauses.append(due - asking.now)
        asking.now = due
        asking.ask("main", f"US.T{n}", TIMEOUT)
    assert pauses[0] == FIRST_PAUSE
    for pause, later in pairwise(pauses[1:]):
        assert later == min(2 * pause, LONGEST_PAUSE)
    assert pauses[-1] == LONGEST_PAUSE


def test_what_was_under_way_is_no_trial() -> None:
    """Refusals of requests sent before the market rested put no trial off."""
    asking = learned()
    due = asking.rights.access("main", asking.now).resting[UNITED_STATES]
    for name in "EFG":
        refused = refusal(Code(f"US.{name}"), TIMEOUT)
        assert asking.rights.refused("main", refused, asking.now, NOW) is None
    assert asking.rights.access("main", asking.now).resting[UNITED_STATES] == due


def test_a_trial_of_which_nothing_is_learned_is_repeated() -> None:
    """One that never reached OpenD comes again after the same pause."""
    asking = learned()
    for _ in range(3):
        asking.now = asking.rights.access("main", asking.now).resting[UNITED_STATES]
        asking.rights.asked("main", Code("US.A"), asking.now)
        assert asking.rights.access("main", asking.now).resting[UNITED_STATES] == (
            asking.now + FIRST_PAUSE
        )


def test_answers_while_a_request_is_under_way_do_not_hide_each_other() -> None:
    """The other market may be answered many times until a request is given up."""
    asking = Asking()
    rights = asking.rights
    for name in "ABC":
        rights.refused("main", refusal(Code(f"US.{name}"), TIMEOUT), asking.now, NOW)
    asking.ask(*HK_ANSWERED)
    asked_at = asking.now
    for _ in range(12):
        asking.ask(*HK_ANSWERED)
    assert rights.refused("main", refusal(Code("US.D"), TIMEOUT), asking.now, asked_at)


def test_after_an_outage_what_rests_is_tried_at_once() -> None:
    """Where every market failed together, it may have been one trouble."""
    asking = learned()
    for _ in range(6):
        asking.now = asking.rights.access("main", asking.now).resting[UNITED_STATES]
        asking.ask("main", "US.A", TIMEOUT)
    for n in range(ALIKE):
        asking.ask("main", f"HK.0000{n}", OTHER)
    asking.ask(*HK_ANSWERED)
    assert asking.rights.access("main", asking.now).resting[UNITED_STATES] <= asking.now


def test_a_clock_put_back_puts_no_trial_off() -> None:
    """A trial waits for as long as was meant, and not for the step as well."""
    asking = learned()
    earlier = asking.now - timedelta(days=9)
    due = asking.rights.access("main", earlier).resting[UNITED_STATES]
    assert due <= earlier + FIRST_PAUSE


def test_a_hint_hurries_a_trial_and_no_more_than_that() -> None:
    """However often it comes, some seconds lie between two trials."""
    asking = learned()
    for n in range(5):
        asking.now = asking.rights.access("main", asking.now).resting[UNITED_STATES]
        asking.ask("main", f"US.T{n}", TIMEOUT)
    last = asking.now - SECOND  # when it was asked for
    for _ in range(9):
        asking.rights.hurry("other", asking.now)
    assert asking.rights.access("main", asking.now).resting[UNITED_STATES] > last + HINT_PAUSE
    for _ in range(9):
        asking.rights.hurry("main", asking.now)
    assert asking.rights.access("main", asking.now).resting[UNITED_STATES] == last + HINT_PAUSE
    asking.rights.hurry("main", last + timedelta(hours=1))
    assert asking.rights.access("main", asking.now).resting[UNITED_STATES] == last + HINT_PAUSE


def test_a_control_is_asked_once_in_a_while() -> None:
    """Where nothing else is asked anyway, another market tells whether the gateway answers."""
    asking = Asking()
    asking.ask(*HK_ANSWERED)
    for look in us("A", "B"):
        asking.ask(*look)
        assert not asking.rights.access("main", asking.now).controls
    asking.ask(*us("C")[0])
    assert asking.rights.access("main", asking.now).controls == {HONG_KONG}
    assert not asking.rights.access("other", asking.now).controls
    asking.ask("main", HK, OTHER)  # the gateway's trouble, it seems
    assert not asking.rights.access("main", asking.now).controls
    asking.now += FIRST_PAUSE
    assert asking.rights.access("main", asking.now).controls == {HONG_KONG}
    asking.ask(*HK_ANSWERED)
    assert not asking.rights.access("main", asking.now + FIRST_PAUSE).controls
    asking.ask(*us("D")[0])
    assert asking.resting() == {"main US"}


def test_a_market_that_was_not_answered_is_asked_by_few() -> None:
    """At first, and after a refusal, not more than it takes; then as many as the budget bears."""
    rights = Rights()

    def under_way(count: int) -> bool:
        for n in range(count):
            rights.asked("main", Code(f"US.{n}"), NOW)
        return UNITED_STATES in rights.access("main", NOW).full

    assert not under_way(UNPROVEN - 1)
    assert under_way(1)
    assert not rights.access("other", NOW).full
    rights.answered("main", Code("US.0"), NOW)
    rights.ended("main", Code("US.0"))
    assert not under_way(40)
    rights.refused("main", refusal(Code("US.1"), TIMEOUT), NOW, NOW)
    assert under_way(0)


def test_what_a_control_decides_waits_for_it() -> None:
    """Meanwhile the market would be asked in vain; then by one symbol, which decides."""
    rights = Rights()

    def is_full() -> bool:
        return UNITED_STATES in rights.access("main", NOW).full

    rights.answered("main", Code(HK), NOW)
    for name in "ABC":
        rights.refused("main", refusal(Code(f"US.{name}"), TIMEOUT), NOW, NOW)
    assert not is_full()  # there may be nobody to ask as a control
    rights.asked("main", Code(HK), NOW)
    assert is_full()
    rights.answered("main", Code(HK), NOW)
    rights.ended("main", Code(HK))
    assert not is_full()
    rights.asked("main", Code("US.D"), NOW)
    assert is_full()
    assert rights.refused("main", refusal(Code("US.D"), TIMEOUT), NOW, NOW)


looks = st.tuples(
    st.sampled_from(["main", "other"]),
    st.builds("{}.{}".format, st.sampled_from(["HK", "US"]), st.integers(1, 6)),
    st.sampled_from([ANSWERED, NO_RIGHT, TIMEOUT, ODD]),
)


@given(st.lists(looks, max_size=60))
def test_never_without_evidence(course: list[Look]) -> None:
    """Whatever is answered: who rests was refused for enough symbols since its last answer.

    For words that name no right, others were answered meanwhile, too.
    """
    asking = Asking()
    for n, look in enumerate(course):
        before = asking.resting()
        asking.ask(*look)
        account, code, outcome = look
        name = f"{account} {market_of(Code(code))}"
        assert asking.resting() - before <= {name}
        if outcome == ANSWERED:
            assert name not in asking.resting()
        if name not in asking.resting() - before:
            continue
        own = [
            (number, c, o)
            for number, (a, c, o) in enumerate(course[: n + 1])
            if a == account and c[:2] == code[:2]
        ]
        last = max((number for number, _, o in own if o == ANSWERED), default=-1)
        refused = [(number, c, o) for number, c, o in own if number > last]
        explicit = {c for _, c, o in refused if o == NO_RIGHT}
        if len(explicit) >= EXPLICIT:
            continue
        assert max(len({c for _, c, o in refused if o == w}) for w in (TIMEOUT, ODD)) >= ALIKE
        assert any(
            o == ANSWERED and (a == account) != (c[:2] == code[:2])
            for a, c, o in course[refused[0][0] : n]
        )


@given(st.lists(looks, max_size=60))
def test_a_right_that_comes_back_is_found(course: list[Look]) -> None:
    """From any state, answers to the trials alone end every rest within a day."""
    asking = Asking()
    for look in course:
        asking.ask(*look)
    until = asking.now + LONGEST_PAUSE + SECOND
    while resting := list(asking.rights.resting()):
        first = min(resting, key=lambda each: each.next_at)
        asking.now = max(asking.now, first.next_at)
        assert asking.now <= until
        asking.ask(first.account, f"{first.market}.1", ANSWERED)
