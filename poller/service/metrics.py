"""The metrics: what this process counted from its facts, and what Redis tells of all.

Base units, and labels bounded by the configuration: never one per symbol. A page that runs apart
from the poller counts nothing itself; it has what Redis tells.
"""

import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from poller import __version__
from poller.facts.observe import (
    Announced,
    Attempted,
    Connection,
    Fact,
    Polled,
    Published,
    Quarantined,
    Recovered,
    Trouble,
)
from poller.model import Code, Market, market_of

# a series beside every counter that nobody reads
disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_LAGS: Final = (0.1, 0.5, 1, 5, 30, 300, 1800, 7200, 86400)
"""Seconds; the steps of the delivery attempts."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One number Redis tells. `labels`: by the names the metric was made with."""

    metric: str
    value: float
    labels: tuple[str, ...] = ()


TOLD: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "poller_redis_up": ("1 while Redis answers the page", ()),
    "poller_ready": ("1 while the service does its work, as /readyz says", ()),
    "poller_lease_held": ("1 while some poller holds the lease", ()),
    "poller_lease_token": ("Fencing token of the active poller; grows with every takeover", ()),
    "poller_processes": ("Living processes of the service", ("role",)),
    "poller_gateway_ready": ("1 while OpenD is logged in and answers", ("gateway", "account")),
    "poller_budget_used_requests": ("Requests spent within the period", ("account",)),
    "poller_budget_headroom_requests": ("Requests that may still be sent", ("account",)),
    "poller_budget_period_seconds": ("The period the budget is counted in", ("account",)),
    "poller_symbols": ("Symbols watched", ("market",)),
    "poller_watermark_timestamp_seconds": ("Newest reported day, 00:00 there", ("market",)),
    "poller_watermark_expected_timestamp_seconds": (
        "Newest day whose figures the calendar takes to be out, 00:00 there",
        ("market",),
    ),
    "poller_watermark_overdue_seconds": (
        "Time since the oldest missing report was expected; 0 when none is missing",
        ("market",),
    ),
    "poller_sweep_wanted_symbols": ("Symbols whose newest report is looked for", ("market",)),
    "poller_sweep_covered_symbols": ("Symbols of those that have it", ("market",)),
    "poller_stream_entries": ("Entries in the stream", ()),
    "poller_webhook_disabled": ("1 while nothing is sent to the endpoint", ("endpoint",)),
    "poller_webhook_failing_seconds": ("Time without a success; 0 when well", ("endpoint",)),
    "poller_webhook_unread_entries": ("Entries not yet looked at", ("endpoint",)),
    "poller_webhook_waiting_deliveries": ("Deliveries in the queue", ("endpoint",)),
    "poller_webhook_dead_letters": ("Events the endpoint never took", ("endpoint",)),
}
"""What Redis tells: metric → help, labels. Replaced whole at every scrape."""


class _Told(Collector):
    """The last readings; a metric without one keeps its name and loses its value."""

    def __init__(self) -> None:
        self.readings: tuple[Reading, ...] = ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield one family a metric."""
        for name, (text, labels) in TOLD.items():
            family = GaugeMetricFamily(name, text, labels=labels)
            for reading in self.readings:
                if reading.metric == name:
                    family.add_metric(reading.labels, reading.value)
            yield family


class Metrics:
    """Counts facts; `tell` takes what Redis says; `text` is what Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: Any = {"registry": self.registry}
        self._polls = Counter(
            "poller_polls", "Looks at a symbol that ended", ("market", "outcome"), **made
        )
        self._events = Counter("poller_events", "Events published", ("market", "type"), **made)
        self._releases = Counter(
            "poller_releases",
            "Reports of a market detected, and completed",
            ("market", "type"),
            **made,
        )
        self._attempts = Counter(
            "poller_webhook_attempts", "Attempts to deliver", ("endpoint", "outcome"), **made
        )
        self._lag = Histogram(
            "poller_webhook_lag_seconds",
            "From an event's place in the stream to the attempt that delivered it",
            ("endpoint",),
            buckets=_LAGS,
            **made,
        )
        self._reconnects = Counter(
            "poller_gateway_reconnects", "Connections to OpenD lost", ("gateway",), **made
        )
        self._troubles = Gauge("poller_troubles", "Subjects the log says are in trouble", **made)
        self._told = _Told()
        self.registry.register(self._told)
        build = Gauge("poller_build_info", "Version", ("version", "python"), **made)
        build.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)
        self._waiting = Gauge(
            "poller_held_figures", "Figures that wait for a ruling", ("market",), **made
        )
        self._held: dict[Code, int] = {}
        self._troubled: set[str] = set()
        self._connected: set[str] = set()

    def __call__(self, fact: Fact) -> None:
        """Count a fact, or take note of what is so now."""
        match fact:
            case Connection(gateway, ready, _, _):
                self._connection(gateway, ready=ready)
            case Quarantined(code, held):
                self._hold(code, len(held))
            case Trouble(subject, _):
                self._troubled.add(subject)
            case Recovered(subject):
                self._troubled.discard(subject)
            case _:
                self._count(fact)

    def _count(self, fact: Fact) -> None:
        match fact:
            case Polled(code, outcome):
                self._polls.labels(market_of(code), outcome).inc()
            case Published(code, events):
                for event in events:
                    kind = event.type.rpartition(".")[2]
                    self._events.labels(market_of(code), kind).inc()
            case Announced(notice):
                kind = notice.type.rpartition(".")[2]
                self._releases.labels(notice.market, kind).inc()
            case Attempted(endpoint, outcome, lag):
                self._attempts.labels(endpoint, outcome).inc()
                if outcome == "delivered":
                    self._lag.labels(endpoint).observe(max(lag.total_seconds(), 0))

    def _hold(self, code: Code, count: int) -> None:
        if count:
            self._held[code] = count
        else:
            self._held.pop(code, None)

    def _connection(self, gateway: str, *, ready: bool) -> None:
        lost = self._reconnects.labels(gateway)
        if ready:
            self._connected.add(gateway)
        elif gateway in self._connected:
            self._connected.discard(gateway)
            lost.inc()

    def tell(self, readings: Iterable[Reading]) -> None:
        """Replace what Redis told before."""
        self._told.readings = tuple(readings)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        self._troubles.set(len(self._troubled))
        for market in Market:
            held = sum(n for code, n in self._held.items() if market_of(code) is market)
            self._waiting.labels(market).set(held)
        return generate_latest(self.registry)


def midnight(market: Market, day: date) -> float:
    """Return 00:00 of a trading day in its market, in seconds since 1970."""
    return datetime.combine(day, datetime.min.time(), market.zone).astimezone(UTC).timestamp()
