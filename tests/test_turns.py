"""Whose turn it is where symbols fail, and where accounts may see one market and not another."""

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.markets.hk import HONG_KONG
from poller.markets.us import UNITED_STATES
from poller.model import Code
from poller.schedule.market import once_a_day
from poller.schedule.release import Intervals
from poller.schedule.retries import FAILING_SHARE
from poller.schedule.rights import Access
from poller.schedule.schedule import (
    Answered,
    Barred,
    Excluded,
    Lost,
    Postponed,
    Probe,
    Reply,
    Schedule,
    Unanswered,
    Wait,
)
from poller.schedule.watch import LONG_AGO

INTERVALS = Intervals(timedelta(seconds=30), timedelta(minutes=20), timedelta(minutes=5))
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
OLD, DAY = date(2026, 11, 6), date(2026, 11, 13)
US_DAY = date(2026, 10, 30)
NOW = datetime(2026, 11, 20, 2, tzinfo=UTC)
"""In the window of the report of `DAY`."""
NEVER = NOW + timedelta(days=9)
NO_US = Access("main", {UNITED_STATES: NEVER})
ALL = Access("other")


def codes(count: int, market: str = "HK") -> list[Code]:
    """Return made-up codes."""
    return [Code(f"{market}.{n:05}") for n in range(1, count + 1)]


def following(hk: int, us: int) -> Schedule:
    """Return a plan that knows an old day of so many symbols, as after a restart."""
    plan = Schedule(INTERVALS)
    known = {**dict.fromkeys(codes(hk), OLD), **dict.fromkeys(codes(us, "US"), US_DAY)}
    plan.restore(known, {})
    plan.watch(known)
    return plan


def ask(plan: Schedule, now: datetime, access: Access = ALL) -> Code:
    """Return who is polled now."""
    decision = plan.next(now, access)
    assert isinstance(decision, Probe)
    assert decision.reason
    return decision.code


def drain(plan: Schedule, now: datetime, access: Access) -> list[Code]:
    """Return all who are polled now, each of them once."""
    found = []
    while isinstance(decision := plan.next(now, access), Probe):
        found.append(decision.code)
    return found


def test_an_account_is_asked_only_for_what_it_may_see() -> None:
    """The others wait for another account, and not for a trial."""
    plan = Schedule(INTERVALS)
    plan.watch([*codes(3), *codes(5, "US")])
    assert {code[:2] for code in drain(plan, NOW, NO_US)} == {"HK"}
    assert plan.due_at(NO_US) == NEVER
    assert plan.due_at(ALL) == LONG_AGO
    assert set(drain(plan, NOW, ALL)) == set(codes(5, "US"))


def test_who_was_asked_in_vain_is_asked_elsewhere_at_once() -> None:
    """What the account may not see is no failure of the symbol's."""
    plan = Schedule(INTERVALS)
    plan.watch(codes(3, "US"))
    first = ask(plan, NOW)
    plan.record(first, Barred("no right"), NOW)
    assert first in drain(plan, NOW, ALL)
    assert not drain(plan, NOW, NO_US)


def test_a_release_is_swept_by_whoever_may_see_it() -> None:
    """A symbol that was asked in vain in a sweep stays wanted, in its old place."""
    plan = following(0, 10)
    now = NOW
    first = ask(plan, now)
    plan.record(first, Answered(date(2026, 11, 13)), now)
    barred = ask(plan, now)
    plan.record(barred, Barred("no right"), now)
    assert plan.outstanding == 9
    assert drain(plan, now, ALL)[-1] == barred


def test_a_trial_is_one_symbol_and_only_when_it_is_due() -> None:
    """Of those that no release waits for; then the market rests again."""
    plan = following(3, 5)
    ask(plan, NOW)
    due = NOW + SECOND
    access = Access("main", {UNITED_STATES: due})
    assert "HK" in {code[:2] for code in drain(plan, NOW, access)} | {"HK"}
    assert plan.due_at(access) == due
    assert ask(plan, due, access).startswith("US.")


@pytest.mark.parametrize("outcome", [Postponed(), Unanswered(), Excluded(), Lost(), Lost(own=True)])
def test_a_trial_that_came_to_nothing_leaves_another_one(outcome: Reply) -> None:
    """Whatever becomes of the only symbol, its market is tried again."""
    plan, now = following(0, 1), NOW
    access = Access("main", {UNITED_STATES: NOW})
    for _ in range(5):
        code = ask(plan, now, access)
        plan.record(code, outcome, now)
        assert plan.due_at(access) == NOW
        now += timedelta(days=1)


def test_a_control_comes_first_and_is_one() -> None:
    """It decides whether the requests that follow are of any use."""
    plan = Schedule(INTERVALS)
    plan.watch([*codes(5, "US"), *codes(9)])
    for code in drain(plan, NOW, Access("main", {UNITED_STATES: NEVER})):
        plan.record(code, Answered(OLD), NOW)
    assert [ask(plan, NOW)[:2] for _ in range(3)] == ["HK", "US", "US"]
    control = Access("main", controls=frozenset({HONG_KONG}))
    assert plan.due_at(control) == LONG_AGO
    assert ask(plan, NOW, control).startswith("HK.")
    assert ask(plan, NOW, Access("main")).startswith("US.")


def test_a_failure_waits_for_the_sweep_of_another_market() -> None:
    """And for a look at it; in its own market the first failure is asked again among the others."""
    plan, now = following(40, 5), NOW
    failed = ask(plan, now, Access("a", {HONG_KONG: NEVER}))
    plan.record(failed, Unanswered(), now)
    first = ask(plan, now, Access("a", {UNITED_STATES: NEVER}))
    plan.record(first, Answered(DAY), now)
    now += INTERVALS.due
    order = drain(plan, now, ALL)
    swept = [n for n, code in enumerate(order) if code.startswith("HK.")]
    assert order.index(failed) > max(swept)


def test_who_is_relieved_is_due_as_before() -> None:
    """Failures that were the market's are taken back, refused symbols stay out."""
    plan, now = following(0, 4), NOW
    access = Access("a")
    for outcome in (Unanswered(), Unanswered(), Excluded()):
        plan.record(ask(plan, now, Access("a", {UNITED_STATES: now})), outcome, now)
    plan.relieve(UNITED_STATES)
    reasons = {code: plan.outlook(code) for code in codes(4, "US")}
    assert sum("refused" in why for _, why in reasons.values()) == 1
    assert not any("failed" in why for _, why in reasons.values())
    assert access.account


def spent(plan: Schedule, good: Sequence[Code], seconds: int) -> Counter[str]:
    """Ask as often as a budget of one a second allows; only `good` symbols are answered."""
    asked: Counter[str] = Counter()
    for n in range(seconds):
        now = NOW + n * SECOND
        decision = plan.next(now, ALL)
        if isinstance(decision, Wait):
            continue
        code = decision.code
        asked[code[:2]] += 1
        plan.record(code, Answered(OLD) if code in good else Unanswered(), now)
    return asked


def test_failing_symbols_take_their_share_and_no_more() -> None:
    """Hundreds that fail again and again cost a twentieth of the budget together."""
    failing = 300
    plan = Schedule(INTERVALS)
    plan.watch([*codes(20), *codes(failing, "US")])
    asked = spent(plan, codes(20), 4 * 3600)
    first_two = 2 * failing
    assert asked["US"] <= first_two + FAILING_SHARE * 4 * 3600 + 1
    assert asked["US"] >= first_two + 0.9 * FAILING_SHARE * (4 * 3600 - 2 * first_two)


def test_after_an_outage_nobody_waits_for_a_share() -> None:
    """What failed while nobody was answered is asked again as soon as somebody is."""
    plan, now = Schedule(INTERVALS), NOW
    plan.watch(codes(100))
    for _ in range(2):
        for code in drain(plan, now, ALL):
            plan.record(code, Unanswered(), now)
        now += INTERVALS.idle
    first = ask(plan, now, ALL)
    assert not drain(plan, now, ALL)
    plan.record(first, Answered(OLD), now)
    assert set(drain(plan, now, ALL)) >= set(codes(100)) - {first}


def test_who_fails_beside_others_is_not_relieved() -> None:
    """Its failures began before the last answer of its market."""
    plan, now = following(2, 0), NOW
    failing, good = codes(2)
    asked: Counter[Code] = Counter()
    for _ in range(3600):
        now += SECOND
        decision = plan.next(now, ALL)
        if isinstance(decision, Probe):
            asked[decision.code] += 1
            outcome = Answered(OLD) if decision.code == good else Unanswered()
            plan.record(decision.code, outcome, now)
    assert asked[failing] <= 9
    assert asked[good] > 50


def alone(plan: Schedule, now: datetime, access: Access = ALL) -> dict[Code, bool]:
    """Return all who are polled now, in order, and whether each is polled alone."""
    found = {}
    while isinstance(decision := plan.next(now, access), Probe):
        found[decision.code] = decision.alone
    return found


def test_with_whom_a_connection_broke_twice_is_asked_alone_once_another_is_answered() -> None:
    """First of all then: it may be nobody's fault. Whoever is answered is asked as ever."""
    plan, (lost, other, third) = Schedule(INTERVALS), codes(3)
    plan.watch([lost, other, third])
    drain(plan, NOW, ALL)
    plan.record(lost, Lost(), NOW)
    assert not drain(plan, NOW, ALL)
    plan.record(other, Answered(OLD), NOW)
    assert next(iter(alone(plan, NOW).items())) == (lost, True)
    for code in (lost, other, third):
        plan.record(code, Answered(OLD), NOW)
    asked = dict[Code, bool]()
    for hours in range(1, 9):
        found = alone(plan, NOW + hours * HOUR)
        asked |= found
        for code in found:
            plan.record(code, Answered(OLD), NOW + hours * HOUR)
    assert asked == dict.fromkeys((lost, other, third), False)


def test_an_answer_is_sought_for_whom_a_connection_broke_twice() -> None:
    """Another symbol of its market is looked at, however long its turn would be."""
    plan = following(9, 0)
    first = ask(plan, NOW)
    plan.record(first, Answered(OLD), NOW)
    lost = ask(plan, NOW + HOUR)
    plan.record(lost, Lost(), NOW + HOUR)
    assert ask(plan, NOW + HOUR) != lost


def test_while_nobody_is_answered_nobody_waits_long() -> None:
    """Where OpenD breaks with everybody, all are asked again after the shortest pause."""
    plan, now = Schedule(INTERVALS), NOW
    plan.watch(codes(20))
    for _ in range(9):
        for code in drain(plan, now, ALL):
            plan.record(code, Lost(), now)
        now += INTERVALS.due
    assert set(drain(plan, now, ALL)) == set(codes(20))


def test_whose_fault_a_broken_connection_is_waits_ever_longer() -> None:
    """Each pause is twice as long, up to that of who shows nothing; others are asked as ever."""
    plan, now, (guilty, good) = following(2, 0), NOW, codes(2)
    at = list[datetime]()
    while now < NOW + timedelta(days=5):
        decision = plan.next(now, ALL)
        if isinstance(decision, Wait):
            assert decision.until is not None
            now = max(decision.until, now + SECOND)
        elif decision.code == good:
            plan.record(good, Answered(OLD), now)
        else:
            assert decision.alone == bool(at)
            at.append(now)
            plan.record(guilty, Lost(own=True), now)
    pauses = [after - before for before, after in itertools.pairwise(at)]
    expected = [min(INTERVALS.due * 2**n, once_a_day(INTERVALS)) for n in range(len(pauses))]
    assert len(pauses) > 10
    for pause, planned in zip(pauses, expected, strict=True):
        assert planned <= pause <= planned + 2 * INTERVALS.idle


@given(st.integers(0, 10**6))
def test_what_is_due_is_handed_out(seed: int) -> None:
    """`due_at` has come exactly when `next` has a symbol, whoever asks and whatever was answered.

    Else a dispatcher would spend grants on nothing, or sleep over what is due.
    """
    chance = random.Random(seed)
    plan, now, waiting = Schedule(INTERVALS), NOW, list[Code]()
    plan.watch([*codes(4), *codes(4, "US")])
    answers: list[Reply] = [Answered(OLD), Answered(DAY), Answered(None)]
    losses: list[Reply] = [Postponed(), Lost(), Lost(own=True)]
    outcomes: list[Reply] = [*answers, Unanswered(), Excluded(), Barred(), *losses]
    for _ in range(150):
        now += chance.choice([timedelta(0), SECOND, INTERVALS.due, HOUR])
        resting = {
            market: chance.choice([now, now + INTERVALS.due])
            for market in (HONG_KONG, UNITED_STATES)
            if chance.random() < 0.3
        }
        controls = frozenset(
            market
            for market in (HONG_KONG, UNITED_STATES)
            if market not in resting and chance.random() < 0.1
        )
        full = frozenset([HONG_KONG]) if chance.random() < 0.1 else frozenset()
        access = Access(chance.choice(["main", "other"]), resting, controls - full, full)
        plan.tick(now)
        due = plan.due_at(access)
        decision = plan.next(now, access)
        assert isinstance(decision, Probe) == (due is not None and due <= now)
        if isinstance(decision, Probe):
            waiting.append(decision.code)
        while waiting and chance.random() < 0.7:
            code = waiting.pop(chance.randrange(len(waiting)))
            plan.record(code, chance.choice(outcomes), now)
