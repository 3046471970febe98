"""The state of the whole service at one moment, and whether it is ready. Pure.

Page, API, `/readyz` and `/metrics` are four readers of this one value.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from poller.delivery.outbox import Status
from poller.model import isoformat
from poller.telemetry.status import GatewayState, Report
from poller.web.watchlist_view import MarketView


@dataclass(frozen=True, slots=True)
class Spending:
    """An account's budget: `used` of `limit` requests in the last `period` seconds."""

    account: str
    used: int
    limit: int
    period: float


@dataclass(frozen=True, slots=True)
class Survey:
    """What Redis tells, or told when it last answered.

    Attributes:
        redis: why nothing was read of it just now, or "".
        seen: while it does not, when all else here was read, aware; None: nothing was read yet.
        reports: of living processes.
        entries: in the stream.
        loaded: all rows were read.
        simulated: a simulator made the figures up.
        unreadable: what another client spoiled in Redis: subject → what cannot be read.
        late: Redis answers all the same, though `redis` says why nothing was read.
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
    seen: datetime | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)
    late: bool = False

    def unanswered(self, at: datetime, reason: str, *, late: bool = False) -> "Survey":
        """Return what is known of the service from now on, while nothing is read of Redis."""
        seen = self.at if not self.redis else self.seen
        return replace(self, at=at, redis=reason, late=late, seen=seen)

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
        """Market → figures that wait for a decision, by the active poller where there is one."""
        return {} if self.active is None else self.active.held

    @property
    def defects(self) -> dict[str, str]:
        """The components that a defect stopped, and that have not run steadily since."""
        return {name: why for r in self.reports.values() for name, why in r.defects.items()}

    @property
    def troubles(self) -> dict[str, str]:
        """What any process says is wrong, and what cannot be read: subject → reason."""
        told = {s: why for r in self.reports.values() for s, why in r.troubles.items()}
        return {**told, **self.unreadable}


def unready(survey: Survey) -> list[str]:
    """Return why the service does not do its work, one line a reason; empty: it is ready."""
    if survey.redis:
        return [survey.redis if survey.late else f"Redis does not answer: {survey.redis}"]
    shared = {name: why for name, why in survey.defects.items() if not _is_single(name)}
    reasons = [f"{name}: {why}" for name, why in shared.items()]
    if not survey.pollers:
        return ["no poller reports: start poller run or poller poll", *reasons]
    if not survey.lease:
        reasons.append("no poller holds the lease")
    if not any(gateway.ready for gateway in survey.gateways):
        reasons += [f"OpenD {gateway.name}: {gateway.reason}" for gateway in survey.gateways]
    return reasons


_SINGLE: Final = ("webhook ", "poll of ")


def _is_single(component: str) -> bool:
    """Return whether a component is one endpoint or one symbol: the service works without it."""
    return component.startswith(_SINGLE)


def further(survey: Survey) -> dict[str, str]:
    """Return the troubles that are not told as a reason already: subject → reason.

    None while nothing is read of Redis: what was wrong before may be over.
    """
    if survey.redis:
        return {}
    told = unready(survey)
    return {s: why for s, why in survey.troubles.items() if f"{s}: {why}" not in told}


def as_json(survey: Survey) -> dict[str, Any]:
    """Return the survey as the API tells it."""
    reasons = unready(survey)
    return {
        "at": isoformat(survey.at),
        "last_seen": moment_text(survey.seen),
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
        "since": moment_text(gateway.since),
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
        "due_since": moment_text(market.due_since),
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
        "failing_since": moment_text(status.failing_since),
        "last_success": moment_text(status.last_success),
        "last_error": status.last_error,
        "last_error_at": moment_text(status.last_error_at),
        "next_attempt": moment_text(status.next_attempt),
    }


def moment_text(moment: datetime | None) -> str | None:
    """Return a time as the API writes it; None also for one that UTC's calendar does not have."""
    try:
        return None if moment is None else isoformat(moment)
    except OverflowError:
        return None
