"""One market's plan: who is wanted, when a release is complete, what is saved of it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.model import Code, Market
from poller.plan.notice import Completed, Notice
from poller.plan.release import MarketState, expected, next_probe
from poller.plan.schedule import (
    Answered,
    Excluded,
    Postponed,
    Reply,
    Schedule,
    Unanswered,
    Wait,
)
from tests.test_schedule import DAY, INTERVALS, NOW, OLD, ask, codes, following, release, sweep

WEEK = timedelta(weeks=1)


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
            *(Excluded(), Unanswered(), Postponed()),
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
        queue = played.plan.markets[Market.HK]
        assert queue.active == len(played.active())
        assert queue.newest is not None
        assert played.plan.wanted == queue.wanted == len(played.lacking(queue.newest))
        for notice in notices:
            if isinstance(notice, Completed):
                assert notice.missing == played.lacking(notice.day)
                assert notice.found == len(played.active()) - len(notice.missing)


@given(outcomes)
def test_whatever_is_to_be_saved_has_another_version(answers: list[Reply]) -> None:
    """A poll after which the plan would be saved otherwise makes its version grow."""
    played = Played(codes(4))
    for answer in answers:
        before, version = played.plan.states()[Market.HK], played.plan.version
        played.step(answer)
        now = played.plan.states()[Market.HK]
        # who has rows by now is known from its watermark
        if replace(now, quiet=before.quiet) != before or set(now.quiet) - set(before.quiet):
            assert played.plan.version > version


@pytest.mark.parametrize("place", [0, 3])
def test_a_refused_symbol_holds_up_no_release(place: int) -> None:
    """It takes no part while it is refused: the others complete the release without it."""
    plan = following(codes(5))
    release(plan)
    notices = list[Notice]()
    for n in range(4):
        code = ask(plan, NOW)
        notices += plan.record(code, Excluded() if n == place else Answered(DAY), NOW)
    assert notices == [Completed(Market.HK, DAY, NOW, 4)]
    assert plan.wanted == 0


def test_after_a_sweep_the_next_report_is_watched_for() -> None:
    """With the release complete, one symbol is asked when the next one may come, and not before."""
    plan = following(codes(3))
    release(plan)
    sweep(plan, NOW, dict.fromkeys(codes(3), DAY))
    window = expected(Market.HK, DAY, plan.states()[Market.HK].sightings)
    at, why = next_probe(Market.HK, window, NOW, INTERVALS)
    assert plan.next(NOW) == Wait(at)
    assert why in plan.outlook(codes(3)[0])[1]


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
    plan.restore(known, {Market.HK: paused})
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
