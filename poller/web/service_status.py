"""The state of the whole service at one moment, and whether it is ready. Pure.

Page, API, `/readyz` and `/metrics` all show this one value.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Final

from poller.delivery.outbox import Status
from poller.markets import all_markets
from poller.model import Code, isoformat
from poller.telemetry.observe import REDIS
from poller.telemetry.roles import parts_of
from poller.telemetry.status import GatewayState, ProcessReport, RestingMarket
from poller.web.market_view import MarketView
from poller.web.watchlist_view import WatchlistRow


@dataclass(frozen=True, slots=True)
class Spending:
    """An account's budget: `used` of `limit` requests in the last `period` seconds."""

    account: str
    used: int
    limit: int
    period: float


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The state of the service as read from Redis, now or when it last answered.

    Attributes:
        at: When this is true, aware.
        redis: Why nothing could be read from Redis just now; "" if it was read.
        reports: The reports of living processes, by name.
        lease: `token:owner` of the active poller; "" for none.
        budgets: One for each account.
        endpoints: The status of each endpoint, by name.
        markets: One for each watched market.
        symbols: How many are watched.
        entries: How many entries the stream has.
        loaded: Whether all rows have been read.
        simulated: Whether the figures are a simulation's.
        seen: If `redis` is set, when everything else was read, aware; None: never.
        unreadable: Subject → what another client made unreadable in Redis.
        first_seen: (market, trading day) → when a symbol first showed that report, of the last
            ones.
        late: Redis answers, although `redis` is set: reading took too long.
        refusal: Why Redis does not serve this process, such as that it takes no writes, and so no
            report of it; "": it does.
    """

    at: datetime
    redis: str = ""
    reports: Mapping[str, ProcessReport] = field(default_factory=dict)
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
    first_seen: Mapping[tuple[str, date], datetime] = field(default_factory=dict)
    refusal: str = ""

    def stale(self, at: datetime, reason: str, *, late: bool = False) -> "ServiceStatus":
        """Return the same state at a later time, when Redis could not be read."""
        seen = self.at if not self.redis else self.seen
        return replace(self, at=at, redis=reason, late=late, seen=seen)

    @property
    def pollers(self) -> dict[str, ProcessReport]:
        """The reports of the active and standby pollers."""
        return {n: r for n, r in self.reports.items() if parts_of(r.role).polls}

    @property
    def active(self) -> ProcessReport | None:
        """The report of the lease's holder; a killed holder keeps the lease for a while."""
        return self.reports.get(self.lease.partition(":")[2])

    @property
    def gateways(self) -> tuple[GatewayState, ...]:
        """Every OpenD as the active poller sees it; without one, as all pollers do."""
        active = self.active
        reports = self.pollers.values() if active is None else (active,)
        return tuple({g.name: g for report in reports for g in report.gateways}.values())

    @property
    def resting(self) -> tuple[RestingMarket, ...]:
        """The markets that accounts have no right to, by the active poller where there is one."""
        return () if self.active is None else self.active.resting

    @property
    def held(self) -> Mapping[str, int]:
        """Market → number of figures that await a decision; empty without an active poller."""
        return {} if self.active is None else self.active.held

    @property
    def defects(self) -> dict[str, str]:
        """Components that a defect stopped and that have not run steadily since → the defect."""
        return {name: why for r in self.reports.values() for name, why in r.defects.items()}

    @property
    def troubles(self) -> dict[str, str]:
        """The troubles of all processes, and what cannot be read: subject → reason."""
        reported = {s: why for r in self.reports.values() for s, why in r.troubles.items()}
        refused = {REDIS: self.refusal} if self.refusal else {}
        return {**reported, **refused, **self.unreadable}


def unready(service: ServiceStatus) -> list[str]:
    """Return why the service is not ready, one line for each reason; empty if it is."""
    if service.redis:
        return [service.redis if service.late else f"Redis does not answer: {service.redis}"]
    shared = {name: why for name, why in service.defects.items() if not _is_single(name)}
    reasons = [f"{name}: {why}" for name, why in shared.items()]
    if service.refusal:
        reasons.insert(0, f"{REDIS}: {service.refusal}")
    if not service.pollers:
        return ["no poller reports: start poller run or poller poll", *reasons]
    if not service.lease:
        reasons.append("no poller holds the lease")
    if not any(gateway.ready for gateway in service.gateways):
        reasons += [f"OpenD {gateway.name}: {gateway.reason}" for gateway in service.gateways]
    return reasons


_CODE: Final = re.compile(
    "|".join(rf"\b{each.name}\.{each.symbol.pattern}" for each in all_markets())
)

_SINGLE: Final = ("webhook ", "poll of ")


def _is_single(component: str) -> bool:
    """Return whether a component is one endpoint or one symbol: the service works without it."""
    return component.startswith(_SINGLE)


def further(service: ServiceStatus) -> dict[str, str]:
    """Return the troubles that are not already reasons of `unready`: subject → reason.

    Empty while Redis cannot be read: earlier troubles may be over.
    """
    if service.redis:
        return {}
    reasons = unready(service)
    return {s: why for s, why in service.troubles.items() if f"{s}: {why}" not in reasons}


@dataclass(frozen=True, slots=True)
class Fold:
    """Troubles of one kind: for the same reason, with subjects that differ in the symbol alone."""

    reason: str
    subjects: tuple[str, ...]


def folded(troubles: Mapping[str, str]) -> tuple[Fold, ...]:
    """Return troubles by kind, in the order of the first of each."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for subject, reason in troubles.items():
        kinds.setdefault((_CODE.sub("", subject), _CODE.sub("", reason)), []).append(subject)
    return tuple(Fold(troubles[subjects[0]], tuple(subjects)) for subjects in kinds.values())


def troubled(service: ServiceStatus) -> set[Code]:
    """Return the symbols that a trouble is of, and those that are late."""
    named = (Code(found[0]) for subject in service.troubles for found in _CODE.finditer(subject))
    return {*named, *(row.code for view in service.markets for row in view.late)}


def late(service: ServiceStatus, rows: Iterable[WatchlistRow]) -> dict[Code, date]:
    """Return the codes that are late → the newest day of their market, which they lack."""
    days = {row.code: view.day for view in service.markets for row in view.late}
    found = ((row, days.get(row.code)) for row in rows)
    return {
        row.code: day
        for row, day in found
        if day is not None and row.day is not None and row.day < day
    }


def as_json(service: ServiceStatus) -> dict[str, Any]:
    """Return the state of the service as the API shows it."""
    reasons = unready(service)
    return {
        "at": isoformat(service.at),
        "last_seen": moment_text(service.seen),
        "ready": not reasons,
        "reasons": reasons,
        "troubles": [{"subject": s, "reason": why} for s, why in service.troubles.items()],
        "defects": [{"component": c, "reason": why} for c, why in service.defects.items()],
        "symbols": service.symbols,
        "loaded": service.loaded,
        "simulated": service.simulated,
        "stream_entries": service.entries,
        "processes": [
            {"name": n, "role": r.role, "version": r.version, "lease": r.lease}
            for n, r in service.reports.items()
        ],
        "gateways": [_gateway(gateway) for gateway in service.gateways],
        "resting": [
            {
                "account": each.account,
                "market": each.market,
                "reason": each.reason,
                "since": moment_text(each.since),
                "next_at": moment_text(each.next_at),
            }
            for each in service.resting
        ],
        "budgets": [
            {"account": b.account, "used": b.used, "limit": b.limit, "period_seconds": b.period}
            for b in service.budgets
        ],
        "markets": [_market(service, market) for market in service.markets],
        "endpoints": [_endpoint(name, status) for name, status in service.endpoints.items()],
    }


def _gateway(gateway: GatewayState) -> dict[str, Any]:
    return {
        "name": gateway.name,
        "account": gateway.account,
        "ready": gateway.ready,
        "reason": gateway.reason,
        "since": moment_text(gateway.since),
    }


def _market(service: ServiceStatus, market: MarketView) -> dict[str, Any]:
    seen = None if market.day is None else service.first_seen.get((market.market.name, market.day))
    return {
        "market": str(market.market),
        "symbols": market.symbols,
        "phase": market.phase,
        "day": None if market.day is None else str(market.day),
        "wanted": market.wanted,
        "covered": market.covered,
        "first_seen": moment_text(seen),
        "probed_at": moment_text(market.probed_at),
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
    """Return a time as the API writes it; None for one that UTC's calendar does not have."""
    try:
        return None if moment is None else isoformat(moment)
    except OverflowError:
        return None
