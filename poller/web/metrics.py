"""The Prometheus metrics: gauges read from Redis, and counters from the reports of all processes.

They use base units, and labels bounded by the configuration: never one per symbol.
"""

import math
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from poller import __version__
from poller.telemetry.counts import COUNTED, LAG, LAG_HELP, LAG_STEPS, SUM, Totals
from poller.telemetry.status import ProcessReport

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a gauge. `labels`: the values, in the order of the metric's label names."""

    metric: str
    value: float
    labels: tuple[str, ...] = ()


GAUGES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "poller_redis_up": ("1 while Redis answers the page", ()),
    "poller_ready": ("1 while the service does its work, as /readyz says", ()),
    "poller_lease_held": ("1 while some poller holds the lease", ()),
    "poller_lease_token": ("Fencing token of the active poller; grows with every takeover", ()),
    "poller_processes": ("Living processes of the service", ("role",)),
    "poller_gateway_ready": ("1 while OpenD is logged in and answers", ("gateway", "account")),
    "poller_market_right": (
        "1 while the account is asked for the market, 0 while it has no right to it",
        ("account", "market"),
    ),
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
    "poller_held_figures": ("Figures that wait for a decision", ("market",)),
    "poller_troubles": ("Subjects the log says are in trouble", ()),
    "poller_stream_entries": ("Entries in the stream", ()),
    "poller_webhook_disabled": ("1 while nothing is sent to the endpoint", ("endpoint",)),
    "poller_webhook_failing_seconds": ("Time without a success; 0 when well", ("endpoint",)),
    "poller_webhook_unread_entries": ("Entries not yet looked at", ("endpoint",)),
    "poller_webhook_waiting_deliveries": ("Deliveries in the queue", ("endpoint",)),
    "poller_webhook_dead_letters": ("Events the endpoint never took", ("endpoint",)),
}
"""Gauges: metric → help, labels. Their values are replaced at every scrape."""


class _Gauges(Collector):
    """The latest samples; a metric without one is exported without a value."""

    def __init__(self) -> None:
        self.samples: tuple[Sample, ...] = ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield one family for each metric."""
        for name, (text, labels) in GAUGES.items():
            family = GaugeMetricFamily(name, text, labels=labels)
            for sample in self.samples:
                if sample.metric == name:
                    family.add_metric(sample.labels, sample.value)
            yield family


class _Counters(Collector):
    """What all processes have counted since this one began to read their reports."""

    def __init__(self, since: datetime) -> None:
        self.totals = Totals(since)

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        """Yield one family for each metric, including those without a count."""
        counts = self.totals.counts
        for name, (text, labels) in COUNTED.items():
            family = CounterMetricFamily(name, text, labels=labels)
            for (metric, *values), value in counts.items():
                if metric == name:
                    family.add_metric(values, value)
            yield family
        lag = HistogramMetricFamily(LAG, LAG_HELP, labels=("endpoint",))
        for endpoint in dict.fromkeys(each for metric, each, *_ in counts if metric == LAG):
            below = accumulate(counts.get((LAG, endpoint, str(step)), 0.0) for step in LAG_STEPS)
            buckets = [(_le(step), value) for step, value in zip(LAG_STEPS, below, strict=True)]
            lag.add_metric((endpoint,), buckets, counts.get((LAG, endpoint, SUM), 0.0))
        yield lag


def _le(step: float) -> str:
    return "+Inf" if step == math.inf else str(step)


class Metrics:
    """All metrics: `update` takes new values, `text` returns what Prometheus reads."""

    def __init__(self, since: datetime) -> None:
        """`since`: when this process began, aware."""
        self.registry = CollectorRegistry()
        self._gauges, self._counters = _Gauges(), _Counters(since)
        self.registry.register(self._gauges)
        self.registry.register(self._counters)
        build = Gauge("poller_build_info", "Version", ("version", "python"), registry=self.registry)
        build.labels(__version__, platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)

    def update(self, samples: Iterable[Sample], reports: Mapping[str, ProcessReport]) -> None:
        """Replace the gauges, and add what the processes have counted since the last call."""
        self._gauges.samples = tuple(samples)
        for process, report in reports.items():
            self._counters.totals.add(process, report.started, dict(report.counts))

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)
