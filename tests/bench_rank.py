"""What the rank is worth: `python -m tests.bench_rank`, a part of `make bench`.

Years in virtual time with the rank, without it, and with one that is stale or lies. The US rank
lists a market of 5,300 symbols, of which 700 are watched.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Literal

from poller.cli.simulate import BIGGEST, season, setting
from poller.cli.simulation import Measured, Setting, simulate
from poller.markets import Market
from poller.settings.config import Config
from poller.simulator.bounds import Latencies, Rate, oracle
from poller.simulator.ranking import Listed
from tests import benchmarks

WEEKS = int(os.environ.get("BENCH_WEEKS", "52"))
US_LISTED = 5_300
HALF = WEEKS * 7 * 86_400 / 2


def year(made_up: dict[str, int], hints: Literal["auto", "off"]) -> Setting:
    """Return a year of the default configuration."""
    played = setting(Config(), season(made_up, WEEKS, 1), 1, 1, 0.0)
    return replace(played, hints=hints, listed={"US": US_LISTED} if "US" in made_up else {})


def stale(kept: dict[Market, Listed]) -> Callable[[Market, Listed, float], Listed]:
    """Return a rank that shows from the middle of the year on what it showed then."""
    return lambda market, listed, at: listed if at < HALF else kept.setdefault(market, listed)


def lying(_: Market, listed: Listed, at: float) -> Listed:
    """Show positions of others, and others every minute."""
    shares = [position for _, position in listed]
    Random(int(at // 60)).shuffle(shares)
    return tuple((code, position) for (code, _), position in zip(listed, shares, strict=True))


def row(what: str, played: Setting) -> str:
    """Play a year and return its row."""
    found, bound = simulate(played), oracle(played.season, Rate())
    assert (found.missed, found.doubled) == (0, 0)
    assert found.most_in_window <= played.requests
    biggest = _biggest(found)
    return (
        f"| {what} | {biggest.p50:.1f} / {biggest.p99:.1f} | {found.weighted():.1f} "
        f"({found.weighted() / bound.mean:.3f}) | {found.latencies.mean:.1f} "
        f"({found.latencies.mean / bound.mean:.3f}) | {found.requests:,} "
        f"({found.requests / bound.requests:.3f}) | {found.looks:,} |\n"
    )


def _biggest(found: Measured) -> Latencies:
    markets = {market for market, _ in found.releases}
    return Latencies.of([s for market in markets for s in found.biggest(market, BIGGEST)], 0)


def measure() -> str:
    """Play everything and return the section."""
    hk, us = {"HK": 300}, {"US": 700}
    rows = [
        row("300 HK, without", year(hk, "off")),
        row("300 HK", year(hk, "auto")),
        row("300 HK, stale from mid-year on", replace(year(hk, "auto"), shown=stale({}))),
        row("300 HK, lying", replace(year(hk, "auto"), shown=lying)),
        row("700 US, without", year(us, "off")),
        row("700 US", year(us, "auto")),
        row("300 HK + 700 US", year(hk | us, "auto")),
    ]
    return (
        f"{WEEKS} weeks in virtual time, default configuration; in brackets the ratio to the bound "
        "that no policy without hints can beat. Goals: the ten biggest moves of a release within "
        "12 / 30 s (HK) and 45 / 100 s (US), weighted mean 0.3, mean 1.02, requests 1.3; with a "
        "wrong rank mean 1.056 and requests 2.0.\n\n"
        "| symbols, rank | ten biggest moves p50 / p99 s | mean weighted by move s | mean s | "
        "requests | requests for the rank |\n|---|---|---|---|---|---|\n" + "".join(rows)
    )


if __name__ == "__main__":
    section = measure()
    sys.stdout.write(section)
    benchmarks.write("## The biggest moves first", section)
