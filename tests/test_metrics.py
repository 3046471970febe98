"""The metrics: what is counted from facts, and that alerts and dashboard ask for what exists."""

import json
import re
import shutil
import subprocess
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from poller.delivery.outbox import Status
from poller.detect.held import Held, Reason
from poller.facts.observe import (
    Announced,
    Attempted,
    Connection,
    Fact,
    Happened,
    Polled,
    Published,
    Quarantined,
    Recovered,
    Trouble,
)
from poller.model import Code, Event, EventType, HkRecord, Market, Vintage
from poller.plan.notice import Detected
from poller.service.metrics import TOLD, Metrics, Reading, midnight
from poller.web.readings import readings
from poller.web.survey import Spending, Survey

HK = Code("HK.00700")
NOW = datetime(2026, 11, 24, tzinfo=UTC)
ALERTS = Path("config/prometheus/alerts.yml")
DASHBOARD = Path("config/grafana/poller.json")


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return every sample by name and label texts, the labels in order of their names."""
    return {
        (sample.name, *(text for _, text in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_facts_are_counted() -> None:
    """Polls by outcome, events by type, attempts with their lag, lost connections, troubles."""
    metrics = Metrics()
    row = HkRecord(None, "2026-11-13", 1, 0.5, None, None)
    held = Held(row, None, Reason.FUTURE_DAY, NOW)
    event = Event(EventType.REVISED, HK, Vintage(row, 1, NOW), None, None)
    facts: list[Fact] = [
        Polled(HK, "answered"),
        Polled(HK, "answered"),
        Polled(HK, "refused"),
        Published(HK, (event,)),
        Announced(Detected(Market.HK, event.vintage.day, NOW, HK)),
        Attempted("desk", "failed", timedelta(seconds=1)),
        Attempted("desk", "delivered", timedelta(seconds=40)),
        Connection("opend:1", ready=False, reason="nobody listens", rebuilds=0),
        Connection("opend:1", ready=True, reason="connected", rebuilds=0),
        Connection("opend:1", ready=False, reason="lost", rebuilds=1),
        Connection("opend:1", ready=False, reason="nobody listens", rebuilds=1),
        Trouble("redis", "away"),
        Trouble("redis", "still away"),
        Trouble("desk", "503"),
        Recovered("desk"),
        Quarantined(HK, (held, held)),
        Quarantined(Code("HK.00005"), (held,)),
        Quarantined(Code("HK.00005"), ()),
        Happened("stopped"),
    ]
    for fact in facts:
        metrics(fact)
    found = samples(metrics)
    assert found["poller_polls_total", "HK", "answered"] == 2
    assert found["poller_polls_total", "HK", "refused"] == 1
    assert found["poller_events_total", "HK", "revised"] == 1
    assert found["poller_releases_total", "HK", "detected"] == 1
    assert found["poller_webhook_attempts_total", "desk", "failed"] == 1
    assert found["poller_webhook_lag_seconds_count", "desk"] == 1
    assert found["poller_webhook_lag_seconds_bucket", "desk", "30.0"] == 0
    assert found["poller_webhook_lag_seconds_bucket", "desk", "300.0"] == 1
    assert found["poller_gateway_reconnects_total", "opend:1"] == 1
    assert found["poller_troubles",] == 1
    assert found["poller_held_figures", "HK"] == 2


def test_what_is_no_longer_told_is_gone() -> None:
    """While Redis is away nothing old is shown, and every metric that is told has its help."""
    metrics = Metrics()
    status = Status(lag=3, waiting=4, dead=5, failing_since=NOW - timedelta(hours=1))
    spending = (Spending("main", 12, 30, 30.0),)
    survey = Survey(NOW, lease="7:host-1", budgets=spending, endpoints={"desk": status})
    metrics.tell(readings(survey))
    found = samples(metrics)
    assert found["poller_lease_token",] == 7
    assert found["poller_budget_headroom_requests", "main"] == 18
    assert found["poller_webhook_failing_seconds", "desk"] == 3600
    assert found["poller_webhook_dead_letters", "desk"] == 5
    metrics.tell(readings(Survey(NOW, redis="refused")))
    told = {name for name, *_ in samples(metrics) if name in TOLD}
    assert told == {"poller_redis_up", "poller_ready"}


def test_labels_are_bounded() -> None:
    """Ten thousand symbols make not one series more than one."""
    metrics = Metrics()
    metrics(Polled(HK, "answered"))
    before = len(samples(metrics))
    for n in range(10_000):
        metrics(Polled(Code(f"HK.{n:05}"), "answered"))
    assert len(samples(metrics)) == before


def known_names() -> set[str]:
    """Return the names a query may use."""
    metrics = Metrics()
    metrics(Attempted("desk", "delivered", timedelta()))
    metrics.tell([Reading(name, 0, ("x",) * len(labels)) for name, (_, labels) in TOLD.items()])
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
        assert rule["annotations"]["runbook"] == "README.md#alerts"


def test_the_dashboard_asks_for_what_exists() -> None:
    """Every query of every panel names metrics of the registry; panels do not overlap."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    for target in (target for panel in panels for target in panel["targets"]):
        asked = set(re.findall(r"\b(?:poller|process)_[a-z_]+", target["expr"]))
        assert asked
        assert asked <= known_names()


PROMTOOL = [path for name in ("promtool",) if (path := shutil.which(name))]


@pytest.mark.parametrize("path", PROMTOOL)
def test_prometheus_takes_the_rules_and_the_metrics(path: str) -> None:
    """Promtool finds no fault in the rules, nor in names, units and help of the metrics."""
    subprocess.run([path, "check", "rules", str(ALERTS)], check=True, capture_output=True)
    metrics = Metrics()
    metrics.tell(readings(Survey(NOW)))
    text = metrics.text()
    done = subprocess.run([path, "check", "metrics"], input=text, capture_output=True, check=False)
    faults = done.stderr.decode().splitlines()
    # names and help of process_… are the library's
    assert [fault for fault in faults if not fault.startswith("process_")] == []


def test_a_trading_day_begins_in_its_market() -> None:
    """Timestamps of days are midnight in the market's own zone."""
    assert midnight(Market.HK, date(2026, 4, 30)) == 1777478400
