"""One market's plan: who is wanted, when a release is complete, what is saved of it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.markets.hk import HONG_KONG
from poller.model import Code
from poller.schedule.notice import Completed, Notice
from poller.schedule.release import ODD_HOURS, MarketState, Sighting, expected, next_probe
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
from tests.test_schedule import DAY, INTERVALS, NOW, OLD, ask, codes, following, release, sweep

HK, WEEK = HONG_KONG, timedelta(weeks=1)


class Played:
    """A plan under answers, and what they say plainly of who shows what."""

    def __init__(self, watched: Sequence[Code]) -> None:
        self.plan = following(watched)
        self.now = NOW
        self.shown: dict[Code, date | None] = dict.fromkeys(watched, OLD)
        self.refused = set[Code]()

    def step(self, outcome: Reply) -> list[Notice]:
        """Poll whoever is next, when somebody is; returns what is told."""
        decision = self.plan.next(self.now)
        if isinstance(decision, Wait):
            self.now = decision.until or self.now
            return []
        code = decision.code
        if isinstance(outcome, Answered):
            before, day = self.shown[code], outcome.watermark
            outcome = Answered(max(before, day) if before and day else day)
            self.shown[code] = outcome.watermark
        if isinstance(outcome, Answered | Excluded):
            (self.refused.add if isinstance(outcome, Excluded) else self.refused.discard)(code)
        return self.plan.record(code, outcome, self.now)

    def lacking(self, day: date) -> tuple[Code, ...]:
        """Return who takes part and shows an older day, in order."""
        return tuple(sorted(code for code, own in self.active().items() if own < day))

    def active(self) -> dict[Code, date]:
        """Return who takes part in releases, and which day each shows."""
        return {
            code: own
            for code, own in self.shown.items()
            if own is not None and code not in self.refused
        }


outcomes = st.lists(
    st.sampled_from(
        [
            *(Answered(day) for day in (OLD, DAY, DAY, DAY, DAY + WEEK, None)),
            *(Excluded(), Unanswered(), Postponed(), Lost(), Lost(own=True)),
        ]
    ),
    max_size=60,
)


@given(outcomes)
def test_wanted_are_those_that_lack_the_newest_day(answers: list[Reply]) -> None:
    """Whatever is answered, refused or fails: neither too many are waited for nor too few."""
    played = Played(codes(5))
    for answer in answers:
        notices = played.step(answer)
        queue = played.plan.markets[HONG_KONG]
        assert queue.active == len(played.active())
        assert queue.newest is not None
        assert played.plan.outstanding == queue.outstanding == len(played.lacking(queue.newest))
        for notice in notices:
            if isinstance(notice, Completed):
                assert notice.missing == played.lacking(notice.day)
                assert notice.found == len(played.active()) - len(notice.missing)


@given(outcomes)
def test_whatever_is_to_be_saved_has_another_version(answers: list[Reply]) -> None:
    """A poll after which the plan would be saved otherwise makes its version grow."""
    played = Played(codes(4))
    for answer in answers:
        before, version = played.plan.states()[HONG_KONG], played.plan.version
        played.step(answer)
        now = played.plan.states()[HONG_KONG]
        # who has rows by now is known from its watermark
        if replace(now, quiet=before.quiet) != before or set(now.quiet) - set(before.quiet):
            assert played.plan.version > version


def test_what_has_not_changed_keeps_its_version() -> None:
    """Polls between two releases, and those of a sweep under way, bring nothing to save."""
    played = Played(codes(40))
    for day in (OLD, DAY):
        for _ in range(5):  # the first ones begin what the others go on with
            played.step(Answered(day))
        version = played.plan.version
        for _ in range(9):
            played.step(Answered(day))
        assert played.plan.version == version


@pytest.mark.parametrize("place", [0, 3])
def test_a_refused_symbol_holds_up_no_release(place: int) -> None:
    """It takes no part while it is refused: the others complete the release without it."""
    plan = following(codes(5))
    release(plan)
    notices = list[Notice]()
    for n in range(4):
        code = ask(plan, NOW)
        notices += plan.record(code, Excluded() if n == place else Answered(DAY), NOW)
    assert notices == [Completed(HK, DAY, NOW, 4)]
    assert plan.outstanding == 0


def test_after_a_sweep_the_next_report_is_watched_for() -> None:
    """With the release complete, one symbol is asked when the next one may come, and not before."""
    plan = following(codes(3))
    release(plan)
    sweep(plan, NOW, dict.fromkeys(codes(3), DAY))
    window = expected(HK, DAY, plan.states()[HONG_KONG].sightings)
    at, why = next_probe(HONG_KONG, window, NOW, INTERVALS)
    assert plan.next(NOW) == Wait(at)
    assert why in plan.outlook(codes(3)[0])[1]


@pytest.mark.parametrize(("beyond", "timely"), [(0, True), (1, False)])
def test_the_hour_of_a_report_is_learned_when_it_was_watched_for(
    beyond: int, *, timely: bool
) -> None:
    """Found after a longer gap than between two looks, it may have been out for long."""
    plan = following(codes(2))
    plan.record(ask(plan, NOW), Answered(OLD), NOW)
    now = NOW + ODD_HOURS * INTERVALS.idle + timedelta(seconds=beyond)
    release(plan, now)
    assert plan.states()[HK].sightings == (Sighting(DAY, now if timely else None),)


def misses(plan: Schedule, now: datetime, count: int, day: date) -> list[Code]:
    """Let so many polls of a sweep bring nothing; returns who was asked."""
    asked = list[Code]()
    for _ in range(count):
        asked.append(ask(plan, now))
        plan.record(asked[-1], Answered(day), now)
    return asked


def test_whoever_was_asked_less_often_is_asked_first() -> None:
    """In a sweep that brings nothing everybody has their turn, also those that lagged before."""
    watched = codes(4)
    plan = Schedule(INTERVALS)
    known = {code: DAY if n else OLD for n, code in enumerate(watched)}
    paused = MarketState(DAY, resumes=NOW + timedelta(days=30))
    plan.restore(known, {HONG_KONG: paused})
    plan.watch(watched)
    newer = DAY + WEEK
    first = ask(plan, NOW)
    plan.record(first, Answered(newer), NOW)
    asked = misses(plan, NOW, 2, DAY)
    assert len({first, *asked}) == 3
    assert ask(plan, NOW) == watched[0]


def test_a_release_counts_its_polls_anew() -> None:
    """Who was asked once more than another in one release has no worse place in the next."""
    watched = codes(4)
    plan = following(watched)
    first = release(plan)
    (often,) = misses(plan, NOW, 1, OLD)
    seldom, third = ask(plan, NOW), ask(plan, NOW)
    assert ask(plan, NOW) == often
    for code in (third, often, seldom):
        plan.record(code, Answered(DAY), NOW)
    later = NOW + WEEK
    assert ask(plan, later) == first
    plan.record(first, Answered(DAY + WEEK), later)
    assert ask(plan, later) == third
    assert misses(plan, later, 2, DAY) == [often, seldom]
    assert ask(plan, later) == often


def test_who_joins_in_a_sweep_is_asked_as_often_as_the_others() -> None:
    """A symbol that was followed before has not been asked in this release either."""
    watched = codes(4)
    plan, now = Schedule(INTERVALS), NOW - timedelta(hours=1)
    plan.restore(dict.fromkeys(watched, OLD), {})
    plan.watch(watched[:3])
    for _ in range(3):
        plan.record(ask(plan, now), Answered(OLD), now)
        now += INTERVALS.idle
    release(plan, NOW)
    plan.watch(watched)
    asked = misses(plan, NOW, 3, OLD)
    assert asked == watched[1:]
    assert ask(plan, NOW + timedelta(minutes=1)) == asked[0]


@pytest.mark.parametrize(("current", "asked"), [(1, 4), (2, 2), (3, 2)])
def test_while_few_show_the_newest_day_all_are_watched(current: int, asked: int) -> None:
    """With less than half of them it may be theirs alone: the others may bring the report."""
    watched, now = codes(4), NOW
    hours = timedelta(hours=6)
    paused = MarketState(DAY, pause=hours.total_seconds(), resumes=NOW + hours)
    plan = Schedule(INTERVALS)
    plan.restore({c: DAY if n < current else OLD for n, c in enumerate(watched)}, {HK: paused})
    plan.watch(watched)
    probed = list[Code]()
    while now < NOW + hours:
        decision = plan.next(now)
        if isinstance(decision, Wait):
            assert decision.until is not None
            now = decision.until
            continue
        probed.append(decision.code)
        plan.record(
            decision.code, Answered(DAY if decision.code in watched[:current] else OLD), now
        )
        if len(probed) == asked:
            break
    assert sorted(probed) == watched[:asked]
    assert (now - NOW <= 4 * INTERVALS.due) is (current == 1)


@pytest.mark.parametrize(("idle", "round_trip"), [(20, 12), (40, 24), (60, 24)])
def test_symbols_without_rows_share_a_look_a_day(idle: int, round_trip: int) -> None:
    """Each is looked at after the others, 36 idle intervals later, a day at the most."""
    watched, now = codes(3), NOW
    plan = Schedule(replace(INTERVALS, idle=timedelta(minutes=idle)))
    plan.watch(watched)
    looks = dict[Code, list[datetime]]()
    for _ in range(9):
        decision = plan.next(now)
        while isinstance(decision, Wait):
            assert decision.until is not None
            now = decision.until
            decision = plan.next(now)
        looks.setdefault(decision.code, []).append(now)
        assert "once a day" in plan.outlook(decision.code)[1] or len(looks[decision.code]) == 1
        assert plan.record(decision.code, Answered(None), now) == []
        assert plan.outlook(decision.code)[1] == "it has no rows: looked at once a day"
    for code in watched:
        first, second, third = looks[code]
        assert first == NOW
        assert third - second == timedelta(hours=round_trip)
    assert sorted(second for _, second, _ in looks.values()) == [
        NOW + n * timedelta(hours=round_trip) / 3 for n in range(3)
    ]


def test_who_is_watched_no_longer_is_found_all_the_same() -> None:
    """One that showed the day and was taken off counts; one that had not is not missing."""
    watched = codes(4)
    plan = following(watched)
    first = release(plan)
    gone, other = watched[2], watched[3]
    plan.watch([code for code in watched if code not in {first, gone}])
    assert plan.outstanding == 2
    notices = sweep(plan, NOW, dict.fromkeys(watched, DAY))
    assert notices == [Completed(HK, DAY, NOW, 3)]
    assert plan.outlook(gone) == (None, "it is not watched")
    assert plan.outlook(other)[0] is None


def test_with_the_last_that_is_wanted_a_sweep_ends() -> None:
    """Taken off the list, it leaves nothing to hurry for."""
    watched = codes(2)
    plan = following(watched)
    first = release(plan)
    plan.watch([first])
    assert plan.outstanding == 0
    assert not plan.is_urgent(NOW)
    assert plan.markets[HK].job_at() is None


def test_what_comes_next_is_told() -> None:
    """The time, where it is known, and why: in a sweep, between its blocks, in rotation, alone."""
    watched = codes(3)
    plan = following(watched)
    assert plan.outlook(watched[1])[0] is None
    assert "one of 3 symbols watched in rotation" in plan.outlook(watched[1])[1]
    first = release(plan)
    at, why = plan.outlook(watched[1])
    assert (at, why) == (None, f"the report of {DAY} is out, and it does not show it")
    assert misses(plan, NOW, 2, OLD) == watched[1:]
    resumes = plan.states()[HK].resumes
    assert resumes == NOW + timedelta(minutes=1)
    assert plan.outlook(watched[1])[0] == resumes
    at, why = plan.outlook(first)
    assert at == plan.markets[HK].probe_at()
    assert "one of 1 symbols watched in rotation" in why


def test_a_clock_put_back_shortens_every_wait() -> None:
    """Watching, blocks of a sweep, symbols without rows: none waits for the step as well."""
    watched = codes(4)
    plan = following(watched[:3])
    plan.watch(watched)
    plan.record(ask(plan, NOW), Answered(None), NOW)
    release(plan)
    misses(plan, NOW, 2, OLD)
    while isinstance(decision := plan.next(NOW), Probe):
        plan.record(decision.code, Answered(None if decision.code == watched[3] else OLD), NOW)
    earlier = NOW - timedelta(days=2)
    plan.tick(earlier)
    queue = plan.markets[HK]
    for at in (queue.job_at(), queue.probe_at(), queue.quiet_look_at()):
        assert at is not None
        assert at <= earlier + INTERVALS.idle


def test_a_long_pause_ends_an_idle_interval_after_a_step_back() -> None:
    """A sweep that pauses for hours does so by the clock that ran when it began."""
    watched, hours = codes(3), timedelta(hours=5)
    plan = Schedule(INTERVALS)
    paused = MarketState(DAY, pause=hours.total_seconds(), resumes=NOW + hours)
    plan.restore({c: DAY if n else OLD for n, c in enumerate(watched)}, {HK: paused})
    plan.watch(watched)
    plan.tick(NOW)
    assert plan.markets[HK].job_at() == NOW + hours
    earlier = NOW - timedelta(hours=1)
    plan.tick(earlier)
    assert plan.markets[HK].job_at() == earlier + INTERVALS.idle
