"""Counts the facts of a process for its report, and adds up the reports of all processes. Pure.

Counters start at 0 in each process and only increase; a page adds up the increases it sees, so that
its own totals only grow, even if a process ends, restarts, or is silent for a while. Labels are
bounded by the configuration: never one per symbol.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from poller.model import market_of
from poller.telemetry.observe import (
    Announced,
    Attempted,
    Defect,
    Fact,
    GatewayConnection,
    PassedOver,
    Polled,
    Published,
)

Count = tuple[str, ...]
"""A metric, then its label values in order; for LAG the endpoint, and the bucket or SUM."""

COUNTED: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "poller_polls": ("Polls of a symbol that ended", ("market", "outcome")),
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
"""Upper bounds of the histogram's buckets in seconds, like the delays of delivery attempts."""

SUM: Final = "sum"

_TOGETHER: Final = timedelta(seconds=1)  # processes within this started at the same time
_REMEMBERED: Final = 256  # processes
_MOST_SERIES: Final = 2**16
"""Most series of all processes together: 400 endpoints have 6,000, but a report written by another
client may name any number. Further ones are ignored.
"""


def _is_known(count: Count) -> bool:
    """Return whether this version has such a metric; a report may be from another version."""
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
                    self._record_lag(endpoint, max(lag.total_seconds(), 0.0))
            case PassedOver(stream, entries):
                self.counts["poller_foreign_entries", stream] += entries
            case Defect(_, label):
                self.counts["poller_defects", label] += 1
            case GatewayConnection(gateway, ready):
                self._changed(gateway, ready=ready)
            case _:
                pass

    def _changed(self, gateway: str, *, ready: bool) -> None:
        if ready:
            self._connected.add(gateway)
        elif gateway in self._connected:
            self._connected.discard(gateway)
            self.counts["poller_gateway_reconnects", gateway] += 1

    def _record_lag(self, endpoint: str, seconds: float) -> None:
        step = next(step for step in LAG_STEPS if seconds <= step)
        self.counts[LAG, endpoint, str(step)] += 1
        self.counts[LAG, endpoint, SUM] += seconds


class Totals:
    """The increases of all processes' counters since this process started.

    For a process that started earlier, only increases after its first report count: the earlier
    ones are not new.
    """

    def __init__(self, since: datetime) -> None:
        """`since`: when this process started, aware."""
        self.counts: dict[Count, float] = {}
        self._since = since
        self._seen: dict[tuple[str, datetime], dict[Count, float]] = {}

    def add(self, process: str, started: datetime, counts: Mapping[Count, float]) -> None:
        """Add the increases of a process's counters since the last call.

        `started` distinguishes processes of the same name. After a failover of Redis an older
        report may reappear: nothing is added twice.
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
