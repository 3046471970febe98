"""The metrics: what is counted from facts, and that alerts and dashboard ask for what exists."""

import json
import re
import subprocess
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from poller.delivery.outbox import Status
from poller.markets.hk import HONG_KONG, HkRecord
from poller.model import Code, Event, EventType, Vintage
from poller.schedule.notice import Detected
from poller.telemetry.counts import COUNTED, Count, Tally, Totals
from poller.telemetry.observe import (
    Announced,
    Attempted,
    Fact,
    GatewayConnection,
    Happened,
    PassedOver,
    Polled,
    Published,
)
from poller.telemetry.status import ProcessReport
from poller.web.metrics import GAUGES, Metrics, Sample
from poller.web.samples import samples_of
from poller.web.service_status import ServiceStatus, Spending
from tests.machine import needs

HK = Code("HK.00700")
NOW = datetime(2026, 11, 24, tzinfo=UTC)
ALERTS = Path("config/prometheus/alerts.yml")
SCENARIOS = Path("config/prometheus/alerts_test.yml")
DASHBOARD = Path("config/grafana/poller.json")


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return every sample by name and label texts, the labels in order of their names."""
    return {
        (sample.name, *(text for _, text in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def told(
    process: str, counts: dict[Count, float], *, age: float = -1.0
) -> dict[str, ProcessReport]:
    """Return what the status store holds of a process that began `age` seconds before the page."""
    began = NOW - timedelta(seconds=age)
    return {
        process: ProcessReport(NOW, "poll", "0.1.0", started=began, counts=tuple(counts.items()))
    }


def test_facts_are_counted() -> None:
    """Polls by outcome, events by type, attempts with their lag, lost connections."""
    tally = Tally()
    row = HkRecord(None, "2026-11-13", 1, 0.5, None, None)
    event = Event(EventType.REVISED, HK, Vintage(row, 1, NOW), None, None)
    facts: list[Fact] = [
        Polled(HK, "answered"),
        Polled(HK, "answered"),
        Polled(HK, "refused"),
        Published(HK, (event,)),
        Announced(Detected(HONG_KONG, event.vintage.day, NOW, HK)),
        Attempted("desk", "failed", timedelta(seconds=1)),
        Attempted("desk", "delivered", timedelta(seconds=40)),
        Attempted("desk", "delivered", timedelta(days=2)),
        GatewayConnection("opend:1", ready=False, reason="nobody listens", rebuilds=0),
        GatewayConnection("opend:1", ready=True, reason="connected", rebuilds=0),
        GatewayConnection("opend:1", ready=False, reason="lost", rebuilds=1),
        GatewayConnection("opend:1", ready=False, reason="nobody listens", rebuilds=1),
        PassedOver("events", 2),
        PassedOver("events", 1),
        Happened("stopped"),
    ]
    for fact in facts:
        tally(fact)
    metrics = Metrics(NOW)
    read = ProcessReport.from_json(told("one", dict(tally.counts))["one"].to_json())
    assert read is not None
    metrics.update([], {"one": read})
    found = samples(metrics)
    assert found["poller_polls_total", "HK", "answered"] == 2
    assert found["poller_polls_total", "HK", "refused"] == 1
    assert found["poller_events_total", "HK", "revised"] == 1
    assert found["poller_releases_total", "HK", "detected"] == 1
    assert found["poller_webhook_attempts_total", "desk", "failed"] == 1
    assert found["poller_foreign_entries_total", "events"] == 3
    assert found["poller_webhook_lag_seconds_count", "desk"] == 2
    assert found["poller_webhook_lag_seconds_sum", "desk"] == 40 + 2 * 86400
    assert found["poller_webhook_lag_seconds_bucket", "desk", "30.0"] == 0
    assert found["poller_webhook_lag_seconds_bucket", "desk", "300.0"] == 1
    assert found["poller_gateway_reconnects_total", "opend:1"] == 1


POLLS: Count = ("poller_polls", "HK", "answered")


@given(
    looks=st.lists(st.lists(st.integers(0, 5), min_size=3, max_size=3), max_size=12),
    lost=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2)), max_size=8),
    restarts=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2)), max_size=4),
)
def test_totals_only_grow(
    looks: list[list[int]], lost: list[tuple[int, int]], restarts: list[tuple[int, int]]
) -> None:
    """Three processes count; reports are lost, old ones come back, processes start again.

    The total is what was counted and reported since the first look, and never falls: else `rate()`
    would take all of it for news.
    """
    totals, counted = Totals(NOW), [0.0, 0.0, 0.0]
    began = [NOW - timedelta(hours=1), NOW, NOW + timedelta(hours=1)]
    before, ended, baseline = 0.0, 0.0, 7.0
    counted[0] = baseline  # of the one that was there before
    most = [baseline, 0.0, 0.0]
    totals.add("0", began[0], {POLLS: counted[0]})
    for turn, grown in enumerate(looks):
        for process, more in enumerate(grown):
            if (turn, process) in restarts:
                ended += most[process] - (baseline if process == 0 else 0.0)
                began[process] += timedelta(days=1)
                counted[process] = most[process] = 0.0
                baseline = 0.0 if process == 0 else baseline
            counted[process] += more
            stale = (turn, process) in lost
            told = counted[process] - more if stale else counted[process]
            most[process] = max(most[process], told)
            totals.add(str(process), began[process], {POLLS: told})
        after = totals.counts[POLLS]
        assert after >= before
        assert after == ended + sum(most) - baseline
        before = after


@pytest.mark.parametrize(
    "count",
    [
        ["poller_polls", "HK"],  # too few labels
        ["poller_polls", "HK", "answered", "twice"],
        ["poller_nonsense", "x"],
        ["poller_webhook_lag_seconds", "desk", "0.7"],
        [],
    ],
)
def test_counts_of_another_version_do_no_harm(count: list[str]) -> None:
    """What this version does not know is left out; the rest is shown, and a page stays up."""
    metrics = Metrics(NOW)
    metrics.update([], told("one", {tuple(count): 3.0, POLLS: 2.0}))
    assert samples(metrics)["poller_polls_total", "HK", "answered"] == 2


@pytest.mark.parametrize("count", ["[[1, 2], null]", '[["a"], NaN]', '[["a"], "b"]', "[3]", "3"])
def test_counts_that_are_none_make_no_report(count: str) -> None:
    """A report somebody edited counts as absent, like all that cannot be read."""
    text = told("one", {POLLS: 2.0})["one"].to_json()
    assert ProcessReport.from_json(text) is not None
    assert (
        ProcessReport.from_json(text.replace('[["poller_polls","HK","answered"],2.0]', count))
        is None
    )


def test_what_is_no_longer_told_is_gone() -> None:
    """While Redis is away, nothing old is shown, and every metric has its help."""
    metrics = Metrics(NOW)
    status = Status(lag=3, waiting=4, dead=5, failing_since=NOW - timedelta(hours=1))
    spending = (Spending("main", 12, 30, 30.0),)
    held = {"HK": 2, "US": 0}
    reports = {
        "host-1": ProcessReport(NOW, "poll", "0", lease=7, held=held, troubles={"redis": "away"})
    }
    service = ServiceStatus(NOW, "", reports, "7:host-1", spending, {"desk": status})
    metrics.update(samples_of(service), {})
    found = samples(metrics)
    assert found["poller_lease_token",] == 7
    assert found["poller_held_figures", "HK"] == 2
    assert found["poller_troubles",] == 1
    assert found["poller_budget_headroom_requests", "main"] == 18
    assert found["poller_webhook_failing_seconds", "desk"] == 3600
    assert found["poller_webhook_dead_letters", "desk"] == 5
    metrics.update(samples_of(ServiceStatus(NOW, redis="refused")), {})
    told = {name for name, *_ in samples(metrics) if name in GAUGES}
    assert told == {"poller_redis_up", "poller_ready"}


def test_labels_are_bounded() -> None:
    """Ten thousand symbols make not one series more than one."""
    tally = Tally()
    for n in range(10_000):
        tally(Polled(Code(f"HK.{n:05}"), "answered"))
    assert len(tally.counts) == 1


def test_a_report_of_somebody_else_makes_no_endless_metrics() -> None:
    """However many labels it names, the page remembers a bounded number of series."""
    totals = Totals(NOW)
    for part in range(3):
        names = (f"{part}-{n}" for n in range(30_000))
        counts: dict[Count, float] = {POLLS: 2.0}
        counts |= {("poller_webhook_attempts", name, "delivered"): 1.0 for name in names}
        totals.add(f"p{part}", NOW, counts)
    assert len(totals.counts) == 2**16
    assert totals.counts[POLLS] == 6


def known_names() -> set[str]:
    """Return the names a query may use."""
    metrics, tally = Metrics(NOW), Tally()
    tally(Attempted("desk", "delivered", timedelta()))
    told_too = [Sample(name, 0, ("x",) * len(labels)) for name, (_, labels) in GAUGES.items()]
    metrics.update(told_too, told("one", dict(tally.counts)))
    text = metrics.text().decode()
    return {name for name, *_ in samples(metrics)} | set(re.findall(r"# HELP (\S+)", text))


def rules() -> list[dict[str, Any]]:
    """Return the alerts."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_alerts_ask_for_what_exists() -> None:
    """Every metric in a rule exists; each rule has a severity, a summary and its runbook."""
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        asked = set(re.findall(r"\bpoller_[a-z_]+", rule["expr"]))
        assert asked
        assert asked <= known_names()
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook"] == "docs/operating.md#alerts"


def test_the_dashboard_asks_for_what_exists() -> None:
    """Every query of every panel names metrics of the registry; panels do not overlap."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    for target in (target for panel in panels for target in panel["targets"]):
        asked = set(re.findall(r"\b(?:poller|process)_[a-z_]+", target["expr"]))
        assert asked
        assert asked <= known_names()


def test_every_alert_is_tried() -> None:
    """Each alert has a scenario it fires in and one it is silent in, of series that exist."""
    cases = yaml.safe_load(SCENARIOS.read_text())["tests"]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    names = {rule["alert"] for rule in rules()}
    assert {check["alertname"] for check in checks if check["exp_alerts"]} == names
    assert {check["alertname"] for check in checks if not check["exp_alerts"]} == names
    labels = {f"{name}_total": set(names) for name, (_, names) in COUNTED.items()}
    labels |= {name: set(names) for name, (_, names) in GAUGES.items()}
    for series in (series["series"] for case in cases for series in case["input_series"]):
        name, _, rest = series.partition("{")
        assert set(re.findall(r"(\w+)=", rest)) == labels[name], series


@needs("promtool")
def test_alerts_fire_when_they_must_and_only_then() -> None:
    """Every scenario comes out as written, its text included."""
    command = ["promtool", "test", "rules", str(SCENARIOS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs("promtool")
def test_prometheus_takes_the_rules_and_the_metrics() -> None:
    """Promtool finds no fault in the rules, nor in names, units and help of the metrics."""
    subprocess.run(["promtool", "check", "rules", str(ALERTS)], check=True, capture_output=True)
    metrics = Metrics(NOW)
    metrics.update(samples_of(ServiceStatus(NOW)), {})
    text = metrics.text()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    faults = done.stderr.decode().splitlines()
    # names and help of process_… are the library's
    assert [fault for fault in faults if not fault.startswith("process_")] == []


def test_a_trading_day_begins_in_its_market() -> None:
    """Timestamps of days are midnight in the market's own zone."""
    assert HONG_KONG.midnight(date(2026, 4, 30)).timestamp() == 1777478400
