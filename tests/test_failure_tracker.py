"""Whose trouble a look without a usable answer is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.errors import GatewayError, Malformed, Silent, Unavailable
from poller.model import Code
from poller.polling.failures import IN_A_ROW, LOSSES, FailureTracker, Loss
from poller.telemetry.observe import Fact, Recovered, Trouble

A, B, C, D = (Code(f"HK.0000{n}") for n in range(1, 5))
GATEWAY = "answers of OpenD one"

BAD, MUTE = Unavailable("not logged in"), Silent("PacketErr.Timeout")


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        ([(A, BAD)], []),  # once and not again
        ([(A, BAD), (B, None), (A, BAD)], [(A, "not logged in")]),
        ([(A, BAD), (B, None), (A, BAD), (B, None), (A, BAD)], [(A, "not logged in")] * 2),
        ([(A, BAD), (B, BAD), (A, BAD)], [(GATEWAY, "not logged in")]),
        ([(code, Malformed(f"{code}: odd")) for code in (A, B, C, D, A)], [(GATEWAY, f"{C}: odd")]),
        ([(A, BAD), (B, BAD), (C, None), (C, BAD), (D, BAD)], []),
        ([(A, MUTE)] * 5, []),  # who watches the connection tells of it
        ([(A, MUTE), (B, None), (A, MUTE)], [(A, "PacketErr.Timeout")]),
        ([(A, MUTE)] * 3 + [(A, BAD)], [(GATEWAY, "not logged in")]),
    ],
)
def test_whose_trouble_it_is(
    looks: list[tuple[Code, GatewayError | None]], told: list[tuple[str, str]]
) -> None:
    """A symbol's when it fails again while others do not, the gateway's when nobody is answered."""
    facts: list[Fact] = []
    tracker = FailureTracker(facts.append)
    for code, problem in looks:
        tracker.asked("one", code)
        if problem is None:
            tracker.answered("one", code)
        else:
            tracker.failed("one", code, problem)
    troubles = [fact for fact in facts if isinstance(fact, Trouble)]
    assert [trouble.subject for trouble in troubles] == [subject for subject, _ in told]
    for trouble, (_, reason) in zip(troubles, told, strict=True):
        assert reason in trouble.reason


def test_both_recover() -> None:
    """A usable answer ends the trouble of its symbol and of the gateway that gave it alone."""
    facts: list[Fact] = []
    tracker = FailureTracker(facts.append)
    tracker.asked("one", A)
    tracker.asked("two", B)
    for _ in range(4):
        tracker.failed("one", A, BAD)
        tracker.failed("two", B, BAD)
    facts.clear()
    tracker.answered("one", A)
    assert facts == [Recovered(GATEWAY), Recovered(A)]
    for _ in range(3):
        tracker.failed("one", A, BAD)
    assert [fact.subject for fact in facts[2:] if isinstance(fact, Trouble)] == [GATEWAY]


def test_one_market_of_several_is_not_the_gateway() -> None:
    """Where another market was answered and is not asked, it takes four times as many looks."""
    facts: list[Fact] = []
    complaints = FailureTracker(facts.append)
    complaints.asked("one", A)
    complaints.answered("one", A)
    facts.clear()
    looks = looks_of("US", 4 * IN_A_ROW)
    for code in looks:
        complaints.asked("one", code)
    for code in looks[:-1]:
        complaints.failed("one", code, BAD)
    assert not facts
    complaints.failed("one", looks[-1], BAD)
    assert [fact.subject for fact in facts if isinstance(fact, Trouble)] == [GATEWAY]


def test_a_market_whose_answer_is_under_way_is_not_failing() -> None:
    """Another market that refuses fast says nothing of it; when it fails as well, all do."""
    facts: list[Fact] = []
    tracker = FailureTracker(facts.append)
    tracker.asked("one", A)
    for code in looks_of("US", IN_A_ROW + 1):
        tracker.asked("one", code)
        tracker.failed("one", code, BAD)
    assert not facts
    tracker.failed("one", A, BAD)
    assert [fact.subject for fact in facts if isinstance(fact, Trouble)] == [GATEWAY]


def looks_of(market: str, count: int) -> list[Code]:
    """Return so many symbols of a market."""
    return [Code(f"{market}.{n}") for n in range(count)]


def test_every_market_is_the_gateway() -> None:
    """A look at the other one, which fails as well, tells whose trouble it is."""
    facts: list[Fact] = []
    complaints = FailureTracker(facts.append)
    for code in (Code("US.A"), Code("US.B"), A):
        complaints.asked("one", code)
    complaints.answered("one", A)
    for code in (Code("US.A"), Code("US.B"), A):
        complaints.failed("one", code, BAD)
    assert [fact.subject for fact in facts if isinstance(fact, Trouble)] == [GATEWAY]


def test_what_was_not_the_symbols_is_taken_back() -> None:
    """A symbol that failed beside others recovers, and fails anew only when it does so twice."""
    facts: list[Fact] = []
    complaints = FailureTracker(facts.append)
    for _ in range(2):
        complaints.failed("one", A, BAD)
        complaints.answered("one", B)
    complaints.withdraw([A])
    assert [f for f in facts if f in (Trouble(A, str(BAD)), Recovered(A))] == [
        Trouble(A, str(BAD)),
        Recovered(A),
    ]
    facts.clear()
    complaints.failed("one", A, BAD)
    assert not facts


class Links:
    """Two accounts, whose connections break; keeps what was said of `A`."""

    def __init__(self) -> None:
        self.tracker, self.said = FailureTracker(lambda _: None), list[Loss]()

    def play(self, steps: str) -> list[Loss]:
        """Let happen, one letter each, what is told of `one`; in capitals, of another's.

        l: A's connection breaks. a: A is answered. o: another is. f: A's answer cannot be trusted.
        s: A is not answered. w: A is watched no longer.
        """
        for step in steps:
            gateway = "two" if step.isupper() else "one"
            match step.lower():
                case "l":
                    self.said.append(self.tracker.lost(A, ["spare", gateway]))
                case "a":
                    self.tracker.answered(gateway, A)
                case "o":
                    self.tracker.answered(gateway, B)
                case "f":
                    self.tracker.failed(gateway, A, BAD)
                case "s":
                    self.tracker.failed(gateway, A, MUTE)
                case "w":
                    self.tracker.unbroken(A)
        return self.said


@pytest.mark.parametrize(
    ("steps", "last"),
    [
        ("l", Loss.NOTHING),
        ("ol", Loss.NOTHING),
        ("ll", Loss.SUSPECT),
        ("lol", Loss.SUSPECT),
        ("lolol", Loss.LIKELY),
        ("lololl", Loss.SUSPECT),
        ("lololol", Loss.OWN),
        ("lllll", Loss.SUSPECT),  # nobody is answered: it is the gateway's
        ("llollolol", Loss.OWN),
        ("lOlOlOlOl", Loss.SUSPECT),  # another account's answers others, its own nobody
        ("loOLoOloOL", Loss.OWN),  # both answer others, and break with it in turn
        ("loLOloL", Loss.SUSPECT),
        ("lolal", Loss.NOTHING),  # answered between
        ("lolfl", Loss.NOTHING),
        ("lolwl", Loss.NOTHING),
        ("lololsol", Loss.OWN),  # a silence is no answer
        ("lolololl", Loss.OWN),  # it stays so until it is answered
        ("lololololal", Loss.NOTHING),
    ],
)
def test_whose_fault_a_broken_connection_is(steps: str, last: Loss) -> None:
    """A symbol's, when it broke so often in a row with it, and others were answered between."""
    assert Links().play(steps)[-1] is last


@given(st.text("lLaAoO", max_size=40))
def test_only_who_alone_is_not_answered_is_blamed(steps: str) -> None:
    """Whatever happens: so many losses since its last answer, and others answered between."""
    said = Links().play(steps)
    for nth, loss in enumerate(said):
        at = [n for n, step in enumerate(steps) if step in "lL"][nth]
        since = steps[max(steps.rfind("a", 0, at), steps.rfind("A", 0, at)) + 1 : at + 1]
        losses = since.lower().count("l")
        if loss is Loss.OWN:
            between = since.lower()[since.lower().index("l") :]
            assert losses >= LOSSES
            assert between.count("o") >= LOSSES - 1
        assert (loss is Loss.NOTHING) == (losses == 1)


@given(
    st.text("oO", max_size=5),
    st.lists(st.sampled_from(["ol", "OL", "oOl", "oOL"]), min_size=LOSSES),
)
def test_who_breaks_every_connection_is_found(before: str, looks: list[str]) -> None:
    """However often others are answered, and through whichever gateway, the fourth time tells."""
    said = Links().play(before + "".join(looks))
    assert said[LOSSES - 1 :] == [Loss.OWN] * (len(looks) - LOSSES + 1)


def test_any_gateway_of_the_account_may_have_answered_the_others() -> None:
    """Seldom the one whose connection broke: it is away meanwhile."""
    tracker, said = FailureTracker(lambda _: None), list[Loss]()
    for _ in range(LOSSES):
        said.append(tracker.lost(A, ["one", "two"]))
        tracker.answered("two", B)
    assert said[-1] is Loss.OWN
