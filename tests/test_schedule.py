"""Who is polled next, and why: the decisions, one by one."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.markets import Market
from poller.markets.hk import HONG_KONG
from poller.markets.us import UNITED_STATES
from poller.model import Code
from poller.polling.poll import Poller
from poller.schedule.calendar import release_of
from poller.schedule.notice import MOST_NAMED, Completed, Detected, Notice, fields_of
from poller.schedule.release import (
    Intervals,
    MarketState,
    Sighting,
    expected,
    next_probe,
)
from poller.schedule.schedule import (
    Answered,
    Excluded,
    Lost,
    Postponed,
    Probe,
    Reply,
    Schedule,
    Unanswered,
    Wait,
)
from poller.schedule.sweep import BLOCK
from poller.simulator.virtual import run_virtually
from poller.store.store import ONE_OFF
from poller.telemetry.observe import Fact, Trouble
from tests.memorystore import MemoryStore

HK, US = Code("HK.00700"), Code("US.AAPL")
INTERVALS = Intervals(timedelta(seconds=30), timedelta(minutes=20), timedelta(minutes=5))
SECOND = timedelta(seconds=1)
OLD, DAY = date(2026, 11, 6), date(2026, 11, 13)
NOW = datetime(2026, 11, 20, 2, tzinfo=UTC)
"""In the window of the report of `DAY`: 09:00 in Hong Kong was an hour ago."""


def codes(count: int, market: str = "HK") -> list[Code]:
    """Return made-up codes."""
    return [Code(f"{market}.{n:05}") for n in range(1, count + 1)]


def following(watched: Sequence[Code], weights: Mapping[str, float] | None = None) -> Schedule:
    """Return a plan that knows the day `OLD` of all of them, as after a restart."""
    plan = Schedule(INTERVALS, weights)
    plan.restore(dict.fromkeys(watched, OLD), {})
    plan.watch(watched)
    return plan


def ask(plan: Schedule, now: datetime) -> Code:
    """Return who is polled now."""
    decision = plan.next(now)
    assert isinstance(decision, Probe)
    assert decision.reason
    return decision.code


def release(plan: Schedule, now: datetime = NOW) -> Code:
    """Let the watched symbol show the next day."""
    first = ask(plan, now)
    assert Detected(HONG_KONG, DAY, now, first) in plan.record(first, Answered(DAY), now)
    return first


def test_new_symbols_come_in_order_and_never_twice_at_once() -> None:
    """What was never looked at is polled at once; one that is being polled is not chosen again."""
    plan = Schedule(INTERVALS)
    plan.watch([HK, US])
    assert [ask(plan, NOW), ask(plan, NOW)] == [HK, US]
    assert plan.next(NOW) == Wait(None)


def test_at_first_sight_nothing_is_a_release() -> None:
    """Symbols whose last days differ, as some stopped reporting, are no news to anybody."""
    plan, watched = Schedule(INTERVALS), codes(4)
    plan.watch(watched)
    for weeks, code in enumerate(watched):
        assert ask(plan, NOW) == code
        assert plan.record(code, Answered(OLD + timedelta(weeks=weeks - 3)), NOW) == []
    assert plan.states()[HONG_KONG].sightings == ()
    assert plan.states()[HONG_KONG].newest == OLD


def test_watching_goes_round() -> None:
    """One symbol per interval, the one not polled for longest; nobody is wanted without news."""
    watched = codes(3)
    plan, now, asked = following(watched), NOW, []
    for _ in range(6):
        asked.append(ask(plan, now))
        plan.record(asked[-1], Answered(OLD), now)
        assert plan.next(now) == Wait(now + INTERVALS.due)
        now += INTERVALS.due
    assert asked == watched * 2


@pytest.mark.parametrize(
    ("now", "pause", "why"),
    [
        (NOW, timedelta(seconds=30), "is due"),
        (NOW + timedelta(days=1), timedelta(minutes=5), "is late"),
        (NOW - timedelta(hours=20), timedelta(minutes=20), "expected from 2026-11-20 09:00 HKT"),
        (NOW - timedelta(hours=14), timedelta(hours=1), "no report came at this hour"),
        (NOW - timedelta(hours=10), timedelta(hours=4), "outside publishing hours"),
        (NOW - timedelta(days=7), timedelta(hours=4), "outside publishing hours"),
        (NOW - timedelta(minutes=65), timedelta(minutes=5), "expected from"),
    ],
    ids=["due", "late", "idle", "odd hours", "at night", "before the day has ended", "just before"],
)
def test_intervals(now: datetime, pause: timedelta, why: str) -> None:
    """Calendar and hour choose the pause between two probes of a market."""
    at, reason = next_probe(HONG_KONG, expected(HONG_KONG, OLD, ()), now, INTERVALS)
    assert at - now == pause
    assert why in reason


def seen(offsets: Sequence[float], market: Market = HONG_KONG) -> list[Sighting]:
    """Return sightings so many hours after the calendar's window, on the weeks before `DAY`."""
    days = [OLD - timedelta(weeks=n) for n in range(len(offsets))][::-1]
    opens = [release_of(market, day).opens for day in days]
    return [
        Sighting(day, at + timedelta(hours=hours))
        for day, at, hours in zip(days, opens, offsets, strict=True)
    ]


@pytest.mark.parametrize(
    ("offsets", "opens", "closes"),
    [
        ([8, 9, 9.5, 10], 7.5, 10.5),
        ([-3, -2.5, -2.8, -2.9], -3.25, -2.25),
        ([8, 9, -24, 9.5, 60, 10], 7.5, 10.5),
        ([8, 9], 0, None),
    ],
    ids=["later", "before the window", "one a day early, one days late", "too few"],
)
def test_the_hour_is_learned(offsets: list[float], opens: float, closes: float | None) -> None:
    """The window moves to the hours of the last releases; single strays move nothing."""
    window, calendar = expected(HONG_KONG, OLD, seen(offsets)), release_of(HONG_KONG, DAY).opens
    assert window.opens == calendar + timedelta(hours=opens)
    assert window.closes == (None if closes is None else calendar + timedelta(hours=closes))


def test_a_calendar_that_ended_says_so() -> None:
    """The reason of a probe names that weekdays alone were counted."""
    window = expected(HONG_KONG, date(2150, 6, 5), ())
    reason = next_probe(HONG_KONG, window, datetime(2150, 6, 8, tzinfo=UTC), INTERVALS)[1]
    assert "no holidays are known" in reason


def test_the_first_newer_day_makes_all_wanted() -> None:
    """Everybody else is polled at once, the heaviest first, and nobody twice."""
    watched = codes(40)
    plan = following(watched, {"HK.00009": 5.0, "HK.0003*": 2.0})
    first = release(plan)
    asked = list[Code]()
    while isinstance(decision := plan.next(NOW), Probe):
        asked.append(decision.code)
        notices = plan.record(decision.code, Answered(DAY), NOW)
    assert asked[0] == "HK.00009"
    assert set(asked[1:11]) == {code for code in watched if code.startswith("HK.0003")}
    assert sorted([first, *asked]) == watched
    assert notices == [Completed(HONG_KONG, DAY, NOW, 40)]


def test_those_that_lagged_come_after_those_that_kept_up() -> None:
    """Who missed the release before is polled last."""
    watched = codes(5)
    paused = MarketState(DAY, resumes=NOW + timedelta(days=30))
    plan = Schedule(INTERVALS)
    plan.restore({code: DAY if n else OLD for n, code in enumerate(watched)}, {HONG_KONG: paused})
    plan.watch(watched)
    newer, asked = DAY + timedelta(days=7), list[Code]()
    for _ in watched:
        asked.append(ask(plan, NOW))
        plan.record(asked[-1], Answered(newer), NOW)
    assert asked == [*watched[1:], watched[0]]


def test_a_sweep_without_news_pauses_longer_and_longer() -> None:
    """Thirty misses pause it; then blocks of thirty after twice the pause, up to six hours."""
    plan, now, pauses = following(codes(100)), NOW, []
    release(plan)
    for block in range(12):
        count = 0
        while isinstance(decision := plan.next(now), Probe) and "is out" in decision.reason:
            plan.record(decision.code, Answered(OLD), now)
            count += 1
        assert count == BLOCK
        began = now
        while isinstance(decision := plan.next(now), Probe) and "is out" not in decision.reason:
            plan.record(decision.code, Answered(OLD), now)
        state = plan.states()[HONG_KONG]
        assert state.resumes is not None
        pauses.append(state.resumes - began)
        now = state.resumes
        assert block < 99
    assert pauses[:4] == [timedelta(minutes=n) for n in (1, 2, 4, 8)]
    assert pauses[-1] == timedelta(hours=6)


def test_a_symbol_that_stopped_is_looked_at_once_a_day() -> None:
    """After three missed releases a symbol is wanted no more, until it shows a day again."""
    missed = tuple(Sighting(OLD - timedelta(weeks=n), None) for n in (2, 1, 0))
    plan = Schedule(INTERVALS)
    stopped = OLD - timedelta(weeks=3)
    states = {HONG_KONG: MarketState(OLD, missed)}
    plan.restore({HK: stopped, Code("HK.00005"): OLD}, states)
    plan.watch([HK, Code("HK.00005")])
    assert plan.outlook(HK)[1] == "it missed three releases: looked at once a day"
    looked = [ask(plan, NOW), ask(plan, NOW)]
    assert looked == ["HK.00005", HK]
    plan.record(HK, Answered(stopped), NOW)
    plan.record(looked[0], Answered(OLD), NOW)
    assert plan.states()[HONG_KONG].quiet == (HK,)


def test_the_smaller_remaining_job_goes_first() -> None:
    """With both markets swept, the one with fewer wanted symbols is through first."""
    watched = [*codes(30), *codes(60, "US")]
    plan = Schedule(INTERVALS)
    plan.restore({c: OLD if c.startswith("HK") else date(2026, 10, 15) for c in watched}, {})
    plan.watch(watched)
    order = list[str]()
    newer = {"HK": DAY, "US": date(2026, 10, 30)}
    while isinstance(decision := plan.next(NOW), Probe) and len(order) < 90:
        order.append(decision.code[:2])
        plan.record(decision.code, Answered(newer[decision.code[:2]]), NOW)
    last = max(n for n, market in enumerate(order) if market == "HK")
    assert last < 45
    assert order.count("US") == 60


def test_failures_and_refusals_pause_longer_and_longer() -> None:
    """A failing symbol is asked again soon, a refused one seldom, neither never."""
    plan, now, pauses = Schedule(INTERVALS), NOW, []
    plan.watch([HK])
    outcomes: list[Reply] = [*[Unanswered()] * 3, *[Excluded()] * 10]
    for outcome in outcomes:
        assert ask(plan, now) == HK
        plan.record(HK, outcome, now)
        due = plan.due_at()
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses[:3] == [timedelta(seconds=s) for s in (30, 60, 120)]
    assert pauses[-1] == timedelta(hours=12)


def test_an_answer_ends_a_row_of_failures() -> None:
    """The next failure is the first again, and so is the first refusal, each with its own pause."""
    plan, now = following([HK]), NOW
    due, idle = INTERVALS.due, INTERVALS.idle
    steps: list[tuple[Reply, timedelta | None]] = [
        (Unanswered(), due),
        (Unanswered(), 2 * due),
        (Answered(OLD), None),
        (Unanswered(), due),
        (Answered(OLD), None),
        (Excluded(), idle),
        (Excluded(), 2 * idle),
    ]
    for outcome, pause in steps:
        assert ask(plan, now) == HK
        plan.record(HK, outcome, now)
        at = plan.due_at()
        assert at is not None
        assert pause is None or at - now == pause
        now = at


def test_a_clock_that_steps_back_brings_retries_nearer() -> None:
    """Who is refused again and again is asked an idle interval after the step at the latest."""
    plan, now = following([HK]), NOW
    for _ in range(5):
        assert ask(plan, now) == HK
        plan.record(HK, Excluded(), now)
        at = plan.due_at()
        assert at is not None
        now = at
    earlier = NOW - timedelta(days=1)
    plan.tick(earlier)
    assert plan.due_at() == earlier + INTERVALS.idle
    assert ask(plan, earlier + INTERVALS.idle) == HK


def test_other_intervals_count_from_the_next_look_on() -> None:
    """The market's own plan goes by them as well."""
    plan = following(codes(2))
    plan.record(ask(plan, NOW), Answered(OLD), NOW)
    plan.configure(Intervals(7 * SECOND, INTERVALS.idle, INTERVALS.late), NOW)
    now = plan.due_at()
    assert now is not None
    plan.record(ask(plan, now), Answered(OLD), now)
    assert plan.due_at() == now + 7 * SECOND


def test_what_was_postponed_comes_first() -> None:
    """Nothing was asked through no fault of the symbol's: it is next."""
    plan = following(codes(3))
    first = ask(plan, NOW)
    plan.record(first, Postponed(), NOW)
    assert ask(plan, NOW) == first


def test_a_clock_that_steps_back_delays_by_an_idle_interval_at_most() -> None:
    """After a step of a day nothing waits for the day to pass again."""
    plan = following([HK])
    plan.record(ask(plan, NOW), Answered(OLD), NOW)
    earlier = NOW - timedelta(days=1)
    plan.tick(earlier)
    due = plan.due_at()
    assert due is not None
    assert due <= earlier + INTERVALS.idle


def test_a_clock_set_back_over_a_restart_prolongs_no_pause() -> None:
    """What was to resume in a while, by the clock of then, does not wait for the step as well."""
    paused = MarketState(DAY, pause=240.0, resumes=NOW + timedelta(minutes=2))
    watched = codes(3)
    for now, resumes in ((NOW, 2), (NOW - timedelta(hours=1), -56)):
        plan = Schedule(INTERVALS)
        known = {code: DAY if n else OLD for n, code in enumerate(watched)}
        plan.restore(known, {HONG_KONG: paused})
        plan.watch(watched)
        plan.tick(now)
        assert plan.markets[HONG_KONG].job_at() == NOW + timedelta(minutes=resumes)


def test_a_restart_sweeps_only_what_was_not_swept() -> None:
    """In mid-sweep the rest is wanted; a pause goes on; what has no rows is not asked again."""
    watched = codes(50)
    plan = Schedule(INTERVALS)
    quiet = MarketState(DAY, quiet=(watched[0],))
    plan.restore(
        {code: DAY if n < 30 else OLD for n, code in enumerate(watched) if n}, {HONG_KONG: quiet}
    )
    plan.watch(watched)
    rest = [ask(plan, NOW) for _ in range(20)]
    assert rest == watched[30:]
    paused = MarketState(DAY, pause=120.0, resumes=NOW + timedelta(hours=1), quiet=(watched[0],))
    plan.restore(
        {code: DAY if n < 30 else OLD for n, code in enumerate(watched) if n}, {HONG_KONG: paused}
    )
    asked = [ask(plan, NOW), ask(plan, NOW)]
    assert asked[1] == watched[0]
    assert asked[0] in watched[1:30]
    assert plan.next(NOW) == Wait(plan.due_at())


def test_a_plan_survives_as_text() -> None:
    """What is remembered is read back as it was; anything else is refused, nothing is empty."""
    sightings = (Sighting(OLD, None), Sighting(DAY, NOW))
    state = MarketState(DAY, sightings, 60.0, NOW, ("HK.00001",), open=OLD)
    assert MarketState.from_json(state.to_json()) == state
    assert MarketState.from_json("{}") == MarketState()
    for text in ("", "[]", '{"newest": "soon"}', '{"resumes": "2026-01-01"}', '{"sightings": [1]}'):
        with pytest.raises(ValueError, match=r"."):
            MarketState.from_json(text)


def test_a_pause_that_a_plan_remembers_has_a_bound() -> None:
    """A week is read; what is longer was not written by this service, nor was what is below 0."""
    week = timedelta(days=7).total_seconds()
    assert MarketState.from_json(f'{{"pause": {week}}}').pause == week
    for pause in (week + 1, -1):
        with pytest.raises(ValueError, match="pause"):
            MarketState.from_json(f'{{"pause": {pause}}}')


def test_an_unusable_plan_is_learned_again() -> None:
    """A plan edited by hand into rubbish is named and left; polling begins all the same."""

    async def work() -> list[Fact]:
        store, facts = MemoryStore(asyncio.get_running_loop().time), list[Fact]()
        store.records.watermark_texts[US] = str(DAY)
        await store.plans.save_schedule(
            {"HK": "rubbish", "US": MarketState(DAY).to_json()}, ONE_OFF
        )
        plan, tell = Schedule(INTERVALS), facts.append
        poller = Poller(store, [], {}, plan, history=1, observe=tell, now=lambda: NOW)
        polling = asyncio.create_task(poller.run(ONE_OFF))
        await asyncio.sleep(1)
        assert not polling.done()
        polling.cancel()
        return facts

    (trouble,) = [fact for fact in run_virtually(NOW, work()) if isinstance(fact, Trouble)]
    assert trouble.subject == "plan of HK"


def sweep(plan: Schedule, now: datetime, days: Mapping[Code, date]) -> list[Notice]:
    """Poll all that is wanted; who is not in `days` shows the old day. Returns what is told."""
    notices = list[Notice]()
    while isinstance(decision := plan.next(now), Probe) and "is out" in decision.reason:
        notices += plan.record(decision.code, Answered(days.get(decision.code, OLD)), now)
    return notices


def test_who_is_missing_is_told_when_nobody_hurries_for_them_any_more() -> None:
    """Completed once, with those that lack the day; when they come after all, nothing is told."""
    plan, now, watched = following(codes(20)), NOW, codes(20)
    shown, notices = dict.fromkeys(watched[:17], DAY), list[Notice]()
    release(plan)
    while not notices:
        notices = sweep(plan, now, shown)
        if (due := plan.due_at()) is not None and due > now:
            now = due
        elif not notices:
            plan.record(ask(plan, now), Answered(DAY), now)
    at = NOW + timedelta(minutes=15)
    assert notices == [Completed(HONG_KONG, DAY, at, 17, tuple(watched[17:]))]
    for _ in range(100):
        decision = plan.next(now)
        if isinstance(decision, Probe):
            assert plan.record(decision.code, Answered(DAY), now) == []
        else:
            assert decision.until is not None
            now = decision.until


def test_the_next_report_completes_the_one_before() -> None:
    """A newer day while some lack the last one: that one is complete then, without them."""
    plan, newer = following(codes(5)), DAY + timedelta(days=7)
    first = release(plan)
    second = ask(plan, NOW)
    assert plan.record(second, Answered(newer), NOW) == [
        Completed(HONG_KONG, DAY, NOW, 2, tuple(c for c in codes(5) if c not in {first, second})),
        Detected(HONG_KONG, newer, NOW, second),
    ]
    assert sweep(plan, NOW, dict.fromkeys(codes(5), newer)) == [Completed(HONG_KONG, newer, NOW, 5)]


@pytest.mark.parametrize("others", [0, 4])
def test_what_was_not_told_before_a_kill_is_told_after_it(others: int) -> None:
    """The store holds a day newer than the plan: with the first answer it is out."""
    watched, remembered = codes(1 + others), {HONG_KONG: MarketState(OLD)}
    plan = Schedule(INTERVALS)
    plan.restore({code: OLD if n else DAY for n, code in enumerate(watched)}, remembered)
    plan.watch(watched)
    asked = ask(plan, NOW)
    notices = plan.record(asked, Answered(DAY), NOW)
    assert notices[0] == Detected(HONG_KONG, DAY, NOW, watched[0])
    notices += sweep(plan, NOW, dict.fromkeys(watched, DAY))
    assert notices[1:] == [Completed(HONG_KONG, DAY, NOW, len(watched))]
    assert plan.states()[HONG_KONG].sightings == (Sighting(DAY, None),)


def test_a_release_that_was_open_at_a_kill_is_completed_after_it() -> None:
    """Also when the last symbol had been committed already; and one completed is so no more."""
    for state, told in (
        (MarketState(DAY, (Sighting(DAY, NOW),), open=DAY), 1),
        (MarketState(DAY, (Sighting(DAY, NOW),)), 0),
    ):
        plan = Schedule(INTERVALS)
        plan.restore(dict.fromkeys(codes(3), DAY), {HONG_KONG: state})
        plan.watch(codes(3))
        notices = plan.record(ask(plan, NOW), Answered(DAY), NOW)
        assert notices == [Completed(HONG_KONG, DAY, NOW, 3)][:told]


def test_a_stranger_that_is_ahead_is_no_release_until_others_follow() -> None:
    """A symbol added to the list shows a newer day at once: out with the first that moves to it."""
    plan, watched = following(codes(4)), [*codes(4), Code("HK.09999")]
    plan.watch(watched)
    assert ask(plan, NOW) == "HK.09999"
    assert plan.record(Code("HK.09999"), Answered(DAY), NOW) == []
    notices = sweep(plan, NOW, dict.fromkeys(watched, DAY))
    assert notices == [
        Detected(HONG_KONG, DAY, NOW, Code("HK.09999")),
        Completed(HONG_KONG, DAY, NOW, 5),
    ]


def test_a_notice_is_bounded() -> None:
    """Many that are missing are counted, and not all named."""
    fields = fields_of(Completed(UNITED_STATES, DAY, NOW, 1, tuple(codes(5000, "US"))))
    told = json.loads(fields.pop("data"))
    assert (told["expected"], told["missing"], len(told["missing_codes"])) == (
        5001, 5000, MOST_NAMED,
    )  # fmt: skip
    assert fields == {
        "id": "US:2026-11-13:completed",
        "type": "release.completed",
        "market": "US",
        "trading_day": "2026-11-13",
        "observed_at": "2026-11-20T02:00:00.000Z",
    }


def test_a_market_that_brings_news_goes_before_one_that_does_not() -> None:
    """A release that comes symbol by symbol does not hold up one that is there whole."""
    hk, us = codes(40), codes(90, "US")
    plan = Schedule(INTERVALS)
    plan.restore({**dict.fromkeys(hk, OLD), **dict.fromkeys(us, date(2026, 10, 15))}, {})
    plan.watch([*hk, *us])
    polled, found = Counter[str](), {hk[0]}
    while polled["US"] < 90 and isinstance(decision := plan.next(NOW), Probe):
        code = decision.code
        polled[code[:2]] += 1
        if polled["HK"] % 10 == 1:
            found.add(code)
        slow = OLD if code not in found else DAY
        plan.record(code, Answered(slow if code in hk else date(2026, 10, 30)), NOW)
    assert polled["US"] == 90
    assert polled["HK"] < 90


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_nobody_is_forgotten(seed: int) -> None:
    """Whatever answers come, every symbol is polled again within two days.

    Within one, but for releases that chase each other: those that show the newest wait meanwhile.
    """
    chance = random.Random(seed)
    quick = Intervals(*[timedelta(seconds=0.2)] * 3)
    watched = [*codes(4), *codes(2, "US")]
    plan, now, states = Schedule(quick), NOW, dict[Market, MarketState]()
    plan.watch(watched)
    days, known = dict.fromkeys(watched, OLD), dict[Code, date]()
    looked = dict.fromkeys(watched, now)
    for step in range(1200):
        now += timedelta(seconds=0.03)
        if chance.random() < 0.02:
            days[chance.choice(watched)] += timedelta(days=1)
        if step in {200, 700}:
            plan.restore(known, states if step == 200 else {})
        decision = plan.next(now)
        if isinstance(decision, Probe):
            code = decision.code
            looked[code] = now
            ends: list[Reply] = [Answered(days[code]), Unanswered(), Postponed(), Lost()]
            (outcome,) = chance.choices(ends, (88, 4, 4, 4))
            plan.record(code, outcome, now)
            if isinstance(outcome, Answered):
                known[code] = days[code]
            states = plan.states()
        assert now - min(looked.values()) < timedelta(seconds=28.8)
