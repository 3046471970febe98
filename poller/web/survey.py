"""The state of the whole service at one moment, and whether it is ready. Pure.

Page, API, `/readyz` and `/metrics` are four readers of this one value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from poller.delivery.outbox import Status
from poller.facts.status import GatewayState, Report
from poller.model import isoformat
from poller.web.rows import MarketView


@dataclass(frozen=True, slots=True)
class Spending:
    """An account's budget: `used` of `limit` requests in the last `period` seconds."""

    account: str
    used: int
    limit: int
    period: float


@dataclass(frozen=True, slots=True)
class Survey:
    """What Redis tells. `redis`: why it does not answer, or ""; all else is empty then.

    `reports`: of living processes. `entries`: in the stream. `loaded`: all rows were read.
    `simulated`: a simulator made the figures up.
    """

    at: datetime
    redis: str = ""
    reports: Mapping[str, Report] = field(default_factory=dict)
    lease: str = ""
    budgets: tuple[Spending, ...] = ()
    endpoints: Mapping[str, Status] = field(default_factory=dict)
    markets: tuple[MarketView, ...] = ()
    symbols: int = 0
    entries: int = 0
    loaded: bool = True
    simulated: bool = False

    @property
    def pollers(self) -> dict[str, Report]:
        """The processes that poll or stand by to."""
        return {n: r for n, r in self.reports.items() if r.role in {"run", "poll"}}

    @property
    def active(self) -> Report | None:
        """The report of who holds the lease; one that was killed with it says so for a while."""
        return self.reports.get(self.lease.partition(":")[2])

    @property
    def gateways(self) -> tuple[GatewayState, ...]:
        """Every OpenD, by the active poller where there is one, else by all of them."""
        active = self.active
        reports = self.pollers.values() if active is None else (active,)
        return tuple({g.name: g for report in reports for g in report.gateways}.values())

    @property
    def held(self) -> Mapping[str, int]:
        """Market → figures that wait for a ruling, by the active poller where there is one."""
        return {} if self.active is None else self.active.held

    @property
    def defects(self) -> dict[str, str]:
        """The components that a defect stopped, and that have not run steadily since."""
        return {name: why for r in self.reports.values() for name, why in r.defects.items()}

    @property
    def troubles(self) -> dict[str, str]:
        """What any process says is wrong: subject → reason."""
        return {s: why for r in self.reports.values() for s, why in r.troubles.items()}


def unready(survey: Survey) -> list[str]:
    """Return why the service does not do its work, one line a reason; empty: it is ready."""
    if survey.redis:
        return [f"Redis does not answer: {survey.redis}"]
    if not survey.pollers:
        return ["no poller reports: start poller run or poller poll"]
    reasons = []
    if not survey.lease:
        reasons.append("no poller holds the lease")
    if not any(gateway.ready for gateway in survey.gateways):
        reasons += [f"OpenD {gateway.name}: {gateway.reason}" for gateway in survey.gateways]
    reasons += [f"{name}: {why}" for name, why in survey.defects.items() if not _is_single(name)]
    return reasons


_SINGLE: Final = ("webhook ", "poll of ")


def _is_single(component: str) -> bool:
    """Tell whether a component is one endpoint or one symbol: the service works without it."""
    return component.startswith(_SINGLE)


def further(survey: Survey) -> dict[str, str]:
    """Return the troubles that are not told as a reason already: subject → reason."""
    told = unready(survey)
    return {s: why for s, why in survey.troubles.items() if f"{s}: {why}" not in told}


def as_json(survey: Survey) -> dict[str, Any]:
    """Return the survey as the API tells it."""
    reasons = unready(survey)
    return {
        "at": isoformat(survey.at),
        "ready": not reasons,
        "reasons": reasons,
        "troubles": [{"subject": s, "reason": why} for s, why in survey.troubles.items()],
        "defects": [{"component": c, "reason": why} for c, why in survey.defects.items()],
        "symbols": survey.symbols,
        "loaded": survey.loaded,
        "simulated": survey.simulated,
        "stream_entries": survey.entries,
        "processes": [
            {"name": n, "role": r.role, "version": r.version, "lease": r.lease}
            for n, r in survey.reports.items()
        ],
        "gateways": [_gateway(gateway) for gateway in survey.gateways],
        "budgets": [
            {"account": b.account, "used": b.used, "limit": b.limit, "period_seconds": b.period}
            for b in survey.budgets
        ],
        "markets": [_market(market) for market in survey.markets],
        "endpoints": [_endpoint(name, status) for name, status in survey.endpoints.items()],
    }


def _gateway(gateway: GatewayState) -> dict[str, Any]:
    return {
        "name": gateway.name,
        "account": gateway.account,
        "ready": gateway.ready,
        "reason": gateway.reason,
        "since": isoformat(gateway.since),
    }


def _market(market: MarketView) -> dict[str, Any]:
    return {
        "market": str(market.market),
        "symbols": market.symbols,
        "phase": market.phase,
        "day": None if market.day is None else str(market.day),
        "wanted": market.wanted,
        "covered": market.covered,
        "expected_day": str(market.expected),
        "due_since": _time(market.due_since),
        "next_day": str(market.next_day),
        "next_at": isoformat(market.next_at),
    }


def _endpoint(name: str, status: Status) -> dict[str, Any]:
    return {
        "name": name,
        "disabled": status.disabled,
        "unread": status.lag,
        "waiting": status.waiting,
        "retrying": status.retrying,
        "dead": status.dead,
        "failing_since": _time(status.failing_since),
        "last_success": _time(status.last_success),
        "last_error": status.last_error,
        "last_error_at": _time(status.last_error_at),
        "next_attempt": _time(status.next_attempt),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else isoformat(moment)
