"""Releases of every kind in virtual time, on the service's own poller, budget and comparison.

In each scenario nothing is missed or told twice, the gateway's own sliding window never holds more
than the budget, and the report comes within a bound of what an oracle could do.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import pytest

from poller.cli.simulate import season as season_of
from poller.cli.simulate import setting
from poller.cli.simulation import Measured, Setting, simulate
from poller.errors import NoRight
from poller.markets import Market, all_markets
from poller.markets.hk import HONG_KONG
from poller.markets.us import UNITED_STATES
from poller.model import Code, EventType
from poller.schedule.notice import Completed, Detected
from poller.schedule.release import Intervals
from poller.schedule.rights import EVERYTHING, Access
from poller.schedule.schedule import Answered, Probe, Reply, Schedule, Wait
from poller.settings.config import Config
from poller.simulator import Revision, SlidingWindow, Split, World
from poller.simulator.bounds import Latencies, Rate, oracle
from poller.simulator.ranking import Listed
from poller.simulator.season import Season
from poller.telemetry.observe import Announced, Trouble
from tests.seasons import after_holidays, daily, round_robin

DUE, IDLE, LATE = 20.0, 2400.0, 300.0
INTERVALS = Intervals(*(timedelta(seconds=s) for s in (DUE, IDLE, LATE)))
BEGAN = datetime(2027, 1, 4, tzinfo=UTC)


def small(*, began: datetime = BEGAN, weeks: int = 3, **options: Any) -> Season:  # noqa: ANN401
    """Return three weeks of a hundred symbols, in a world with these options."""
    usual = {"made_up": {"HK": 40, "US": 60}, "tencent": False, "without_rows": 0.0, "history": 4}
    return Season(World(**{**usual, "since": began.date(), **options}), began, weeks)


EASTER = small(began=datetime(2027, 3, 8, tzinfo=UTC), weeks=4)


def play(season: Season, **options: Any) -> Measured:  # noqa: ANN401
    """Play a season, and check what holds in every one."""
    measured = simulate(Setting(season, INTERVALS, **options))
    assert (measured.missed, measured.doubled) == (0, 0)
    assert measured.most_in_window <= 30
    assert measured.releases
    return measured


RANKED = small(made_up={"HK": 120}, weeks=4)


def test_the_biggest_moves_come_first() -> None:
    """With the rank, they are on the stream seconds after the report, and nothing else is later."""
    blind, ranked = play(RANKED), play(RANKED, hints="auto")
    bound = oracle(RANKED, Rate())
    biggest = Latencies.of(ranked.biggest(HONG_KONG, 10), 0)
    assert biggest.p50 <= 12
    assert biggest.mean < Latencies.of(blind.biggest(HONG_KONG, 10), 0).mean / 3
    assert ranked.weighted() <= 0.5 * bound.mean
    assert ranked.latencies.mean <= blind.latencies.mean
    assert ranked.requests <= 1.02 * blind.requests


def stale(market: Market, listed: Listed, at: float, kept: dict[Market, Listed]) -> Listed:
    """Show, from the second week on, what was shown then."""
    return listed if at < 8 * 86_400 else kept.setdefault(market, listed)


def lying(_: Market, listed: Listed, at: float, kept: dict[Market, Listed]) -> Listed:
    """Show positions of others, and others every minute."""
    del kept
    shares = [position for _, position in listed]
    Random(int(at // 60)).shuffle(shares)
    return tuple((code, position) for (code, _), position in zip(listed, shares, strict=True))


@pytest.mark.parametrize("shown", [stale, lying])
def test_a_wrong_rank_costs_next_to_nothing(shown: Callable[..., Listed]) -> None:
    """It is noticed; mean latency and requests are as good as those without a rank."""
    blind = play(RANKED)
    wrong = play(RANKED, hints="auto", shown=partial(shown, kept={}))
    assert wrong.latencies.mean <= 1.02 * blind.latencies.mean
    assert wrong.requests <= 1.05 * blind.requests
    told = [fact for fact in wrong.facts if isinstance(fact, Trouble) and "rank" in fact.subject]
    assert told


def test_a_rank_that_is_refused_costs_nothing() -> None:
    """The trace of short-interest requests is the one without a rank."""

    def refuse(_: Market, __: Listed, ___: float) -> Listed:
        raise NoRight("无权限")

    assert play(RANKED, hints="auto", shown=refuse).trace == play(RANKED).trace


CODE = small().world.codes()[0]
CHANGED = datetime(2027, 1, 27, tzinfo=UTC)


def releases_told(measured: Measured) -> int:
    """Return how many releases were told to be out; each is complete before the next is out."""
    notices = [fact.notice for fact in measured.facts if isinstance(fact, Announced)]
    for market in all_markets():
        mine = [notice for notice in notices if notice.market is market]
        assert [one.day for one in mine[1::2]] == [one.day for one in mine[: len(mine) - 1 : 2]]
        assert {type(one) for one in mine[::2]} <= {Detected}
        assert {type(one) for one in mine[1::2]} <= {Completed}
    return sum(isinstance(notice, Detected) for notice in notices)


@pytest.mark.parametrize(
    ("season", "mean", "p99"),
    [
        (small(), DUE, 2 * DUE + 30),
        (small(stagger=timedelta(minutes=10)), 60, 240),
        (small(stagger=timedelta(hours=2)), 120, 900),
        (small(shift=timedelta(days=-1)), IDLE, 2 * IDLE),
        (small(shift=timedelta(days=2)), LATE, LATE + 60),
        (after_holidays(EASTER), 60, LATE + 60),
        (small(began=datetime(2027, 3, 15, tzinfo=UTC)), DUE, 2 * DUE + 30),
        (daily(small()), 12 * IDLE, 12 * IDLE),
    ],
    ids=["at once", "10 min", "2 h", "early", "late", "holiday", "Thursday", "daily"],
)
def test_releases(season: Season, mean: float, p99: float) -> None:
    """However reports come, they are told within so many seconds of the oracle."""
    measured, bound = play(season), oracle(season, Rate())
    assert measured.latencies.mean <= bound.mean + mean
    assert measured.latencies.p99 <= bound.p99 + p99
    assert releases_told(measured) >= len(measured.releases)


def test_the_seasons_are_what_they_are_called() -> None:
    """The Thursday season has the Thursday before Good Friday; the holiday one moves a release."""
    assert date(2027, 3, 25) in EASTER.days[HONG_KONG]
    assert after_holidays(EASTER).releases[HONG_KONG] != EASTER.releases[HONG_KONG]


def test_daily_reporting_is_found_all_the_same() -> None:
    """A market that reports every day, against its calendar: each day of each symbol is told."""
    measured = play(daily(small()))
    told = {index for _, index in measured.releases}
    assert len(told) > 12
    assert all(len(each) for each in measured.releases.values())


def test_symbols_without_rows_cost_a_look_a_day() -> None:
    """Half the symbols never show a row: they are asked once a day and hinder nobody."""
    season = small(without_rows=0.5)
    measured, days = play(season), 7 * season.weeks + 1
    empty = [code for code in season.world.codes() if code not in season.covered]
    assert 30 < len(empty) < 70
    assert all(days - 2 <= measured.polls[code] <= days + 1 for code in empty)
    assert measured.latencies.mean <= oracle(season, Rate()).mean + DUE


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"revisions": (Revision(CODE, date(2027, 1, 8), CHANGED, 2.0),)}, EventType.REVISED),
        ({"splits": (Split(CODE, CHANGED, 2.0),)}, EventType.RESTATED),
    ],
    ids=["a revision", "a split"],
)
def test_other_figures_without_a_new_day(changes: dict[str, Any], kind: EventType) -> None:
    """They are told once, with the next release at the latest, and start no sweep."""
    measured, plain = play(small(weeks=4, **changes)), play(small(weeks=4))
    assert measured.changed == {kind: 1}
    assert releases_told(measured) == releases_told(plain)


def test_both_markets_at_once() -> None:
    """The smaller one is through as if it were alone; the larger waits for no more than that."""
    season, at = small(made_up={"HK": 60, "US": 150}), datetime(2027, 1, 15, 21, 30, tzinfo=UTC)
    days = (HONG_KONG, date(2027, 1, 8)), (UNITED_STATES, date(2026, 12, 31))
    season = replace(season, world=replace(season.world, releases=dict.fromkeys(days, at)))
    measured = play(season)
    found = {m: measured.releases[m, season.days[m].index(day)] for m, day in days}
    assert max(found[HONG_KONG]) <= 60 + 3 * DUE
    assert max(found[UNITED_STATES]) <= 210 + 3 * DUE


def test_too_frequent_in_mid_sweep() -> None:
    """Another program spends the budget for a period: the sweep goes on after it."""
    season = small()
    begins = [at for each in season.releases.values() for at in each if at > 0]
    busy = sorted(at + 25 for at in begins)

    class Busy(SlidingWindow):
        refused_until = float("-inf")

        def admit(self, at: float) -> bool:
            if busy and at >= busy[0]:
                busy.pop(0)
                self.refused_until = at + self.period
            return super().admit(at) and at >= self.refused_until

    measured = play(season, window=Busy)
    assert measured.latencies.p99 <= oracle(season, Rate()).p99 + 2 * DUE + 3 * 30


def test_restarts_cost_a_look_each() -> None:
    """A new process every few hours, some in mid-sweep: what was swept is not swept again."""
    season = small(without_rows=0.2)
    begins = sorted(at for each in season.releases.values() for at in each if at > 0)
    hours = tuple(3600.0 * n for n in range(1, 24 * 7 * season.weeks, 11))
    restarts = tuple(sorted({*hours, *(at + 35.0 for at in begins)}))
    restarted, plain = play(season, restarts=restarts), play(season)
    assert restarted.requests <= plain.requests + 5 * len(restarts)
    assert restarted.latencies.p99 <= plain.latencies.p99 + 60


def test_answers_that_fail_are_asked_for_again() -> None:
    """One request in ten gets no answer."""
    play(small(weeks=2, latency=timedelta(seconds=0.5)), faults=0.1)


def test_two_accounts_are_twice_as_quick() -> None:
    """Each account brings a budget of its own; two gateways of one account do not."""
    season = small(weeks=1, made_up={"HK": 200})
    means = [
        play(season, accounts=accounts).latencies.mean
        for accounts in (("a",), ("a", "a"), ("a", "b"))
    ]
    assert means[0] == pytest.approx(means[1])
    assert means[2] < 0.6 * means[0]


def test_a_sweep_uses_the_whole_budget() -> None:
    """From detection to the last answer at least 98 % of what is allowed is sent."""
    season = small(weeks=2, made_up={"HK": 600})
    measured = play(season)
    for (market, index), seconds in measured.releases.items():
        begins = season.releases[market][index]
        first, last = begins + min(seconds), begins + max(seconds)
        sent = sum(first - 30 < at <= last for at in measured.sent)
        assert sent >= 0.98 * 30 * ((last - first) / 30 + 1) - 1


def test_the_same_season_is_the_same_run() -> None:
    """Twice here and once in another process with other hashes: the same requests, to the digit."""
    made = setting(Config(), season_of({"HK": 20, "US": 20}, 1, 7), 2, 2, 0.05)
    first, again = simulate(made), simulate(made)
    assert first.trace == again.trace
    command = "simulate --hk 20 --us 20 --weeks 1 --seed 7 --gateways 2"
    command += " --accounts 2 --faults 0.05 --json"
    told = subprocess.run(
        [sys.executable, "-m", "poller", *command.split()],
        env=os.environ | {"PYTHONHASHSEED": "5", "POLLER_CONFIG": os.devnull},
        capture_output=True,
        check=True,
    )
    facts = json.loads(told.stdout)
    assert facts["trace"] == first.trace
    assert [way["way"] for way in facts["ways"]] == ["bound (an oracle)", "this policy"]


class RoundRobin(Schedule):
    """Polls the whole list again and again."""

    def due_at(self, access: Access = EVERYTHING) -> datetime | None:
        """Always."""
        del access
        return BEGAN - timedelta(days=9)

    def next(self, now: datetime, access: Access = EVERYTHING) -> Probe | Wait:
        """Take the next in the list."""
        del now, access
        self.places = getattr(self, "places", -1) + 1
        watched = list(self._symbols)
        return Probe(watched[self.places % len(watched)], "its turn")

    def record(self, code: Code, outcome: Reply, now: datetime) -> list[Any]:
        """Learn nothing."""
        del code, now
        assert isinstance(outcome, Answered)
        return []


def test_the_model_of_round_robin_is_that_of_the_dispatcher() -> None:
    """Played for two weeks at a slow rate, it is as late as its model says."""
    season = daily(small(weeks=2, made_up={"HK": 100}))
    played = Setting(season, INTERVALS, requests=6, period=300.0)
    measured = simulate(played, make=lambda: RoundRobin(INTERVALS)).latencies
    model: Latencies = round_robin(season, Rate(6, 300.0))
    assert measured.mean == pytest.approx(model.mean, rel=0.05)
    assert measured.requests == pytest.approx(model.requests, rel=0.01)
