"""What a process has counted from its facts, as it travels in its report. Pure.

A process counts from 0 and only upwards; a page adds up what the processes count while it looks,
so that its own totals only grow, whichever process ends, starts again, or is not heard for a while.
Labels are bounded by the configuration: never one per symbol.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from poller.model import market_of
from poller.telemetry.observe import (
    Announced,
    Attempted,
    Connection,
    Defect,
    Fact,
    PassedOver,
    Polled,
    Published,
)

Count = tuple[str, ...]
"""A metric, then its labels in their order; of LAG the endpoint, and the step or SUM."""

COUNTED: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "poller_polls": ("Looks at a symbol that ended", ("market", "outcome")),
    "poller_events": ("Events published", ("market", "type")),
    "poller_releases": ("Reports of a market detected, and completed", ("market", "type")),
    "poller_webhook_attempts": ("Attempts to deliver", ("endpoint", "outcome")),
    "poller_foreign_entries": ("Entries that are no events, passed over", ("stream",)),
    "poller_defects": ("Defects that stopped a component for a while", ("component",)),
    "poller_gateway_reconnects": ("Connections to OpenD lost", ("gateway",)),
}
"""Counters: metric → help, labels."""

LAG: Final = "poller_webhook_lag_seconds"
LAG_HELP: Final = "From an event's place in the stream to the attempt that delivered it"
LAG_STEPS: Final = (0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 1800.0, 7200.0, 86400.0, float("inf"))
"""Seconds; the steps of the delivery attempts."""

SUM: Final = "sum"

_TOGETHER: Final = timedelta(seconds=1)  # what begins within this began at once
_REMEMBERED: Final = 256  # processes
_MOST_SERIES: Final = 2**16
"""Series of all processes together. 400 endpoints have 6,000; a report that somebody else wrote may
name any number, of which further ones are passed over.
"""


def _is_known(count: Count) -> bool:
    """Return whether this version has such a metric; another one may have told it."""
    match count:
        case (metric, *labels) if metric in COUNTED:
            return len(labels) == len(COUNTED[metric][1])
        case (metric, _, step) if metric == LAG:
            return step == SUM or step in map(str, LAG_STEPS)
        case _:
            return False


class Tally:
    """Counts the facts of this process."""

    def __init__(self) -> None:
        self.counts: defaultdict[Count, float] = defaultdict(float)
        self._connected: set[str] = set()

    def __call__(self, fact: Fact) -> None:
        """Count a fact."""
        match fact:
            case Polled(code, outcome):
                self.counts["poller_polls", market_of(code).name, outcome] += 1
            case Published(code, events):
                for event in events:
                    kind = event.type.rpartition(".")[2]
                    self.counts["poller_events", market_of(code).name, kind] += 1
            case Announced(notice):
                kind = notice.type.rpartition(".")[2]
                self.counts["poller_releases", notice.market.name, kind] += 1
            case Attempted(endpoint, outcome, lag):
                self.counts["poller_webhook_attempts", endpoint, outcome] += 1
                if outcome == "delivered":
                    self._late(endpoint, max(lag.total_seconds(), 0.0))
            case PassedOver(stream, entries):
                self.counts["poller_foreign_entries", stream] += entries
            case Defect(_, label):
                self.counts["poller_defects", label] += 1
            case Connection(gateway, ready):
                self._changed(gateway, ready=ready)
            case _:
                pass

    def _changed(self, gateway: str, *, ready: bool) -> None:
        if ready:
            self._connected.add(gateway)
        elif gateway in self._connected:
            self._connected.discard(gateway)
            self.counts["poller_gateway_reconnects", gateway] += 1

    def _late(self, endpoint: str, seconds: float) -> None:
        step = next(step for step in LAG_STEPS if seconds <= step)
        self.counts[LAG, endpoint, str(step)] += 1
        self.counts[LAG, endpoint, SUM] += seconds


class Totals:
    """What all processes have counted since this one looks.

    Of a process that was there before, only what it counts from the first look on is added: a
    reader would take the rest for news.
    """

    def __init__(self, since: datetime) -> None:
        """`since`: when this process began, aware."""
        self.counts: dict[Count, float] = {}
        self._since = since
        self._seen: dict[tuple[str, datetime], dict[Count, float]] = {}

    def add(self, process: str, started: datetime, counts: Mapping[Count, float]) -> None:
        """Add what a process has counted since it was last looked at.

        `started` tells it from another one of its name. After a failover of Redis an older report
        may come back: what was added is not added again.
        """
        name = (process, started)
        known = self._seen.pop(name, None)
        if known is None:
            known = dict(counts) if started < self._since - _TOGETHER else {}
        for count, value in counts.items():
            if not _is_known(count):
                continue
            if count not in self.counts and len(self.counts) >= _MOST_SERIES:
                continue
            grown = max(value - known.get(count, 0.0), 0.0)
            self.counts[count] = self.counts.get(count, 0.0) + grown
            known[count] = max(value, known.get(count, 0.0))
        self._seen[name] = known
        while len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
