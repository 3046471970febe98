"""The schedule's figures for BENCHMARKS.md: `python -m tests.bench_schedule`, after `make bench`.

A year in virtual time beside bound and simpler ways, the frontier of latency against requests, the
cost of a decision, and one release caught by the real process through the SDK.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

from poller.cli.simulate import compared, season, setting
from poller.cli.simulation import simulate
from poller.markets.hk import HONG_KONG
from poller.markets.us import UNITED_STATES
from poller.model import Code
from poller.schedule.calendar import released_by
from poller.schedule.release import Intervals
from poller.schedule.schedule import Answered, Probe, Schedule
from poller.settings.config import Config
from poller.simulator import World
from poller.simulator.bounds import Latencies, Rate
from tests import benchmarks, seasons
from tests.opend import Simulator
from tests.service import Service, store_of

USUAL = {"HK": 300, "US": 700}
WEEKS = int(os.environ.get("BENCH_WEEKS", "52"))
SIZES = ((300, 700), (2000, 6000))
FRONTIER = ((60, 1200), (30, 1200), (20, 2400), (20, 1200), (15, 1200), (12, 1200))
WINDOW = 3.5 * 3600
"""Seconds over which a report may come in the season played."""
SYMBOLS_OF = ((HONG_KONG, 300), (UNITED_STATES, 700))
SYMBOLS = 300
SPEEDS = (100, 10)
DECISIONS, REPEATS = 1000, 7


def year(hk: int, us: int) -> str:
    """Return the table of a season with the default configuration."""
    weeks = season({"HK": hk, "US": us}, WEEKS, 1)
    played = setting(Config(), weeks, 1, 1, 0.0)
    began = time.perf_counter()
    ways = compared(played, simulate(played))
    took = time.perf_counter() - began
    ways["round robin"] = seasons.round_robin(weeks, Rate())
    ways["a daily clock per symbol"] = seasons.daily_clocks(weeks)
    bound = next(iter(ways.values()))
    lines = [f"| {way} | {_ratios(found, bound)} |\n" for way, found in ways.items()]
    return (
        f"{hk:,} HK + {us:,} US symbols, {WEEKS} weeks, all symbols of a market at once "
        f"({took:.0f} s to play); in brackets the ratio to the bound:\n\n"
        "| | mean s | p50 s | p99 s | requests |\n|---|---|---|---|---|\n" + "".join(lines) + "\n"
    )


def _ratios(found: Latencies, bound: Latencies, *, requests: bool = True) -> str:
    told = [
        f"{ours:,.1f} ({ours / least:.3f})"
        for ours, least in (
            (found.mean, bound.mean),
            (found.p50, bound.p50),
            (found.p99, bound.p99),
        )
    ]
    if requests:
        told.append(f"{found.requests:,} ({found.requests / bound.requests:.3g})")
    return " | ".join(told)


def models() -> str:
    """Return how other kinds of release are caught, in a quarter of the time."""
    weeks = WEEKS // 4
    kinds = {
        "staggered": season(USUAL, weeks, 1, "staggered"),
        "early": season(USUAL, weeks, 1, "early"),
        "late": season(USUAL, weeks, 1, "late"),
        "holiday": seasons.after_holidays(season(USUAL, weeks, 1)),
        "daily": seasons.daily(season(USUAL, weeks, 1)),
    }
    lines = []
    for kind, each in kinds.items():
        played = setting(Config(), each, 1, 1, 0.0)
        ways = compared(played, simulate(played))
        told = _ratios(ways["this policy"], ways["bound (an oracle)"])
        lines.append(f"| {kind} | {told} |\n")
    head = "| release | mean s | p50 s | p99 s | requests |\n|---|---|---|---|---|\n"
    return f"Other kinds, 300 + 700 symbols, {WEEKS // 4} weeks:\n\n{head}{''.join(lines)}\n"


def reach() -> str:
    """Return what the best schedule of probes could do with twice the least requests.

    An instant spread evenly over a window of T seconds is found soonest, for n probes on average,
    when they stand in proportion to the root of what is left of it: 2 T / 9 n late. Probes of
    several markets are worth most in proportion to the root of their symbols.
    """
    played = season(USUAL, WEEKS, 1)
    year = [(sum(at >= 0 for at in played.releases[m]), n) for m, n in SYMBOLS_OF]
    least = sum(reports * symbols for reports, symbols in year)
    roots = sum(reports * symbols**0.5 for reports, symbols in year)
    late = 2 * WINDOW / 9 * roots**2 / least**2
    ratio = 1 + late / Latencies.of(_slots(year), 1).mean
    return (
        "A mean of 1.03 with 2 requests per symbol is out of reach here. A release may come at any "
        f"moment of {WINDOW / 3600:g} h. With as many probes as there are symbols, all of them "
        "inside that window and spaced in the best way, it is seen "
        f"{late:.1f} s late on average ({ratio:.3f}). The probes also take some of the first 30 "
        "requests of the sweep, which costs a second or two. More requests reach the first goal "
        "(the last row above); a market that publishes within three hours would allow both.\n\n"
    )


def _slots(year: list[tuple[int, int]]) -> list[float]:
    """Return the oracle's waits of a year, sorted."""
    return sorted(
        30.0 * (n // 30)
        for reports, symbols in year
        for _ in range(reports)
        for n in range(symbols)
    )


def frontier() -> str:
    """Return latency against requests as the intervals vary."""
    lines = []
    for due, idle in FRONTIER:
        schedule = Config().schedule.model_copy(update={"due": due, "idle": idle})
        config = Config().model_copy(update={"schedule": schedule})
        played = setting(config, season(USUAL, WEEKS, 1), 1, 1, 0.0)
        ways = compared(played, simulate(played))
        bound, ours = ways["bound (an oracle)"], ways["this policy"]
        lines.append(f"| {due} | {idle} | {_ratios(ours, bound)} |\n")
    head = "| due s | idle s | mean s | p50 s | p99 s | requests |\n|---|---|---|---|---|---|\n"
    return "Intervals, 300 + 700 symbols:\n\n" + head + "".join(lines) + "\n"


def decision(symbols: int) -> float:
    """Return microseconds to choose a symbol and record its answer, in the middle of a sweep."""
    now, old, new = datetime(2026, 11, 20, 2, tzinfo=UTC), date(2026, 11, 6), date(2026, 11, 13)
    codes = [Code(f"HK.{n:06}") for n in range(symbols)]
    plan = Schedule(Intervals(*[timedelta(seconds=20)] * 3))
    plan.restore(dict.fromkeys(codes, old), {})
    plan.watch(codes)

    def some(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            choice = plan.next(now)
            assert isinstance(choice, Probe)
            plan.record(choice.code, Answered(new), now)
        return 1e6 * (time.perf_counter() - began) / count

    some(50)
    return statistics.median(some(DECISIONS // 10) for _ in range(REPEATS))


async def caught(quicker: int) -> str:
    """Catch a release with the real process, so many times quicker than in life; say how late."""
    newest = released_by(HONG_KONG, datetime.now(UTC))
    far = datetime.now(UTC) + timedelta(days=300)
    world = World(made_up={"HK": SYMBOLS}, tencent=False, without_rows=0.0, history=20)
    world = replace(world, releases={(HONG_KONG, newest): far}, shift=-timedelta(days=1))
    with tempfile.TemporaryDirectory() as folder:
        period, clock = 30 / quicker, partial(datetime.now, UTC)
        async with Simulator(world, requests=30, period=period, now=clock) as opend:
            service = Service(Path(folder), opend.port, ",".join(world.codes()))
            service.settings = {
                "POLLER_WATCHLIST__HISTORY": "5",
                "POLLER_BUDGET__PERIOD": str(period),
                "POLLER_SCHEDULE__DUE": str(20 / quicker),
                "POLLER_SCHEDULE__LATE": str(20 / quicker),  # the simulator's day is overdue
            }
            await service.start()
            async with store_of(service) as store:
                while len(await store.records.watermarks()) < SYMBOLS:
                    await asyncio.sleep(0.2)
                await asyncio.sleep(60 / quicker)
                at = datetime.now(UTC) + timedelta(seconds=1)
                opend.world = replace(world, releases={(HONG_KONG, newest): at})
                waits: list[float] = []
                while len(waits) < SYMBOLS:
                    await asyncio.sleep(0.5)
                    entries = await store.streams.read("0", count=10**6, block=None)
                    news = [e.fields for e in entries if e.fields["trading_day"] == str(newest)]
                    times = [datetime.fromisoformat(fields["observed_at"]) for fields in news]
                    waits = sorted((seen - at).total_seconds() for seen in times)
            await service.stop()
            assert opend.most_in_window() <= 30
    slots = [30 / quicker * (n // 30) for n in range(SYMBOLS)]
    ours, bound = Latencies.of(waits, SYMBOLS), Latencies.of(slots, SYMBOLS)
    return f"| {30 / quicker:g} s | {_ratios(ours, bound, requests=False)} |\n"


def measure() -> str:
    """Measure everything and return the section."""
    few, many = decision(1000), decision(100_000)
    lines = [asyncio.run(caught(quicker)) for quicker in SPEEDS]
    return (
        "".join(year(hk, us) for hk, us in SIZES)
        + models()
        + frontier()
        + reach()
        + f"One decision costs {few:.1f} µs among 1,000 symbols and {many:.1f} µs among 100,000: "
        f"**{many / few:.2f}**, goal ≤ 2.\n\n"
        f"One release of {SYMBOLS} symbols caught by the real process through the SDK; only "
        "the period of the budget is shortened, not the time that an answer takes:\n\n"
        "| 30 requests per | mean s | p50 s | p99 s |\n|---|---|---|---|\n" + "".join(lines)
    )


if __name__ == "__main__":
    section = measure()
    sys.stdout.write(section)
    benchmarks.write("## The schedule", section)
