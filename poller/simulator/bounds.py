"""The lowest latency possible in a season, for an oracle that knows the release times. Pure.

The oracle starts at a release's first instant and polls at the full rate, in the bursts that the
sliding window allows, always the symbol not polled for longest, until all are found. Markets do not
compete for requests.
"""

import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from poller.model import Code, market_of
from poller.simulator.season import Season


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds from the appearance of a symbol's day to its detection, and the requests spent."""

    mean: float
    p50: float
    p99: float
    requests: int

    @classmethod
    def of(cls, seconds: Sequence[float], requests: int) -> "Latencies":
        """Summarize latencies in seconds; without any, all values are 0."""
        ordered = sorted(seconds) or [0.0]
        size = len(ordered)
        p50, p99 = ordered[size // 2], ordered[min(size * 99 // 100, size - 1)]
        return cls(statistics.fmean(ordered), p50, p99, requests)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `requests`, of all accounts together, in any `period` (seconds)."""

    requests: int = 30
    period: float = 30.0

    def slot(self, number: int) -> float:
        """Return the seconds after which request `number`, counted from 0, may be sent."""
        return self.period * (number // self.requests)


def releases(season: Season) -> Iterator[dict[Code, float]]:
    """Yield each release of the season: code → when it shows the day, in seconds."""
    for market, instants in season.releases.items():
        mine = [code for code in season.covered if market_of(code) is market]
        for index, begins in enumerate(instants):
            if mine and 0 <= begins < season.length:
                yield {code: season.appears(code, index) for code in mine}


def oracle(season: Season, rate: Rate) -> Latencies:
    """Return the oracle's latencies over all releases of the season."""
    found: list[float] = []
    requests = 0
    for appearing in releases(season):
        begins, waiting, number = min(appearing.values()), deque(appearing.values()), 0
        while waiting:
            now, appears = begins + rate.slot(number), waiting.popleft()
            number += 1
            if appears <= now:
                found.append(now - appears)
            else:
                waiting.append(appears)
        requests += number
    return Latencies.of(found, requests)
