"""What the page reads from, and reading the state of the service from it."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from aiohttp import web

from poller.delivery.outbox import Outbox, Status
from poller.errors import StoreDown, StoreError, StoreMisfit
from poller.markets import Market
from poller.model import Code, Instrument, Vintage, newest_days
from poller.schedule.report import Standing, zscore_of
from poller.settings.config import Config
from poller.store.archive import Archive
from poller.store.ports import Instruments, Spent, Streams, Watermarks
from poller.store.reports import Report, known_reports, read_report
from poller.store.store import Entry, Stream
from poller.telemetry.observe import Observe, budget_of
from poller.telemetry.status import Polls, ProcessReport, living
from poller.telemetry.status_store import StatusStore
from poller.web.feed import Feed
from poller.web.fresh import first_seen
from poller.web.histories import LARGEST
from poller.web.market_view import MarketView, markets, story_time
from poller.web.metrics import Metrics
from poller.web.overview import Overview
from poller.web.service_status import ServiceStatus, Spending
from poller.web.watchlist_view import WatchlistRow

_ANSWER_LIMIT: Final = 2.5
"""Seconds to read the state of the service."""

_REASON_LIMIT: Final = 1.5
"""Seconds to find out why that took longer; both fit into the 5 s of a health check."""

_READ_LIMIT: Final = 2.0
"""Seconds for Redis to answer what a visitor waits for."""

_NOTICES: Final = 50  # of the stream of releases: two a report and market
_REPORTS_KEPT: Final = 3
_WHILE_GROWING: Final = 3  # times `fresh`, for which a report is shared although the stream grows
_UNGROWN: Final = 30  # times `fresh`: another client may have written


_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class _Shared(Generic[_Value]):
    """What was read at `at`, when `grown` was the event of the overview."""

    value: _Value
    at: datetime
    grown: asyncio.Event

    def holds(self, sources: "Sources") -> bool:
        """Return whether it may be shown."""
        times = _WHILE_GROWING if self.grown.is_set() else _UNGROWN
        return timedelta() <= sources.now() - self.at < times * sources.fresh


@dataclass(frozen=True, slots=True)
class _Score:
    """A z-score, and what was known of the symbol when it was computed."""

    row: WatchlistRow | None
    vintage: Vintage
    zscore: float | None

    def of(self, base: tuple[WatchlistRow | None, Vintage]) -> bool:
        """Return whether nothing has happened since; a row that was read again may be equal."""
        return self.row is base[0] and self.vintage == base[1]


@dataclass(frozen=True)
class Sources:
    """Everything a request may need.

    Attributes:
        fresh: Requests within this time share one reading, so that they cannot overload Redis.
        refresh: Time between two readings of the state that nobody asks for.
        redis_trouble: Why Redis does not serve this process; "": it does.
    """

    config: Config
    streams: Streams
    watermarks: Watermarks
    archive: Archive
    ledger: Spent
    status_store: StatusStore
    instruments: Instruments
    outbox: Outbox
    overview: Overview
    feed: Feed
    metrics: Metrics
    observe: Observe
    now: Callable[[], datetime]
    fresh: timedelta = timedelta(seconds=1)
    refresh: timedelta = timedelta(minutes=1)
    redis_trouble: Callable[[], str] = str
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _last: list[ServiceStatus] = field(default_factory=list)
    _reports: dict[tuple[Market, date | None], "_Shared[Report]"] = field(default_factory=dict)
    _known: list["_Shared[list[dict[str, Any]]]"] = field(default_factory=list)
    _scores: dict[tuple[Market, date], dict[Code, "_Score"]] = field(default_factory=dict)
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def service_status(self) -> ServiceStatus:
        """Return the state of the service, at most `fresh` old; never raises StoreError."""
        async with self._lock:
            if self._last and timedelta() <= self.now() - self._last[-1].at < self.fresh:
                return self._last[-1]
            try:
                async with asyncio.timeout(_ANSWER_LIMIT):
                    service = await self._read()
            except StoreError as problem:
                service = self.stale(str(problem))
            except TimeoutError:
                service = await self._late()
            self._last[:] = [service]
            return service

    async def keep_fresh(self) -> None:
        """Read the state of the service for ever: if Redis goes away, the last one is recent."""
        while True:
            await asyncio.sleep(self.refresh.total_seconds())
            with contextlib.suppress(Exception):  # a request will report the defect
                await self.service_status()

    async def _late(self) -> ServiceStatus:
        """Return the last state, as reading took too long; a single request finds out why."""
        within = f"within {_ANSWER_LIMIT:g} s"
        try:
            async with asyncio.timeout(_REASON_LIMIT):
                await self.status_store.lease()
        except (StoreError, TimeoutError):
            return self.stale(f"nothing {within}")
        reason = f"Redis answers, but the state of the service could not be read {within}"
        return self.stale(f"{reason}: is this machine overloaded?", late=True)

    @property
    def last_seen(self) -> datetime | None:
        """When the state of the service was read last, aware; None: never."""
        if not self._last:
            return None
        return self._last[-1].seen if self._last[-1].redis else self._last[-1].at

    async def heard(self) -> None:
        """Raise StoreDown unless Redis answers a single question in time.

        Asked before a long read, as the limits of the service itself are too long for a visitor.
        """
        with contextlib.suppress(StoreMisfit):
            async with in_time():
                await self.status_store.lease()

    def stale(self, reason: str, *, late: bool = False) -> ServiceStatus:
        """Return the last state, marked as stale; its markets agree with the rows of now."""
        last = self._last[-1] if self._last else ServiceStatus(self.now(), redis=reason)
        stale = last.stale(self.now(), reason, late=late)
        if stale.seen is None:
            return stale
        views = self._markets(stale.active, simulated=stale.simulated)
        return replace(stale, markets=views, symbols=len(self.overview.rows))

    def _markets(self, active: ProcessReport | None, *, simulated: bool) -> tuple[MarketView, ...]:
        """Return the state of the markets by the rows, and by what the active poller reports."""
        rows = list(self.overview.rows.values())
        calendar = story_time(rows, self.now()) if simulated else self.now()
        return markets(rows, active.markets if active else {}, calendar)

    async def polls(self, codes: Sequence[Code]) -> dict[Code, Polls]:
        """Return the last polls of these codes; unreadable ones are left out."""
        found = await _readable(self.status_store.polls(codes), None)
        if found is not None:
            return found
        each = [await _readable(self.status_store.polls([code]), {}) for code in codes]
        return {code: polls for some in each for code, polls in some.items()}

    async def instrument(self, code: Code) -> Instrument:
        """Return what is known of a symbol besides its short interest."""
        nobody: dict[Code, Instrument] = {}
        found = await _readable(self.instruments.instruments([code]), nobody)
        return found.get(code, Instrument())

    async def names(self, codes: Sequence[Code]) -> dict[Code, str]:
        """Return the names of these symbols, as far as they are known."""
        nobody: dict[Code, Instrument] = {}
        found = await _readable(self.instruments.instruments(codes), nobody)
        return {code: each.name for code, each in found.items() if each.name is not None}

    async def report(self, market: Market, day: date | None) -> Report:
        """Return a report as a whole, None: the newest; raises NoReport and StoreError.

        Without z-scores: see `scored`. One is read at a time, and again when the stream has grown
        since, or after a while: to read the days of thousands of histories takes a second.
        """
        async with self._reading:
            shared = self._reports.pop((market, day), None)
            if shared is None or not shared.holds(self):
                await self.heard()
                at, grown = self.now(), self.overview.grown
                report = await read_report(
                    self.archive,
                    market,
                    day,
                    watched=self.overview.rows.keys(),
                    newest=newest_days(await self.watermarks.watermarks()).get(market),
                )
                shared = _Shared(report, at, grown)
            self._reports[market, day] = shared
            while len(self._reports) > _REPORTS_KEPT:
                del self._reports[next(iter(self._reports))]
            return shared.value

    async def reports(self) -> list[dict[str, Any]]:
        """Return every report that is known, as `known_reports` does; raises StoreError."""
        async with self._reading:
            if not self._known or not self._known[0].holds(self):
                await self.heard()
                at, grown = self.now(), self.overview.grown
                found = await known_reports(self.archive, self.overview.rows.keys())
                self._known[:] = [_Shared(found, at, grown)]
            return self._known[0].value

    async def scored(self, report: Report, standings: Sequence[Standing]) -> list[Standing]:
        """Return these standings of a report with their z-scores; raises StoreError.

        A z-score takes the whole history, some 6 ms for 250 days. It is kept until there is news of
        its symbol: an event gives the overview another row.
        """
        rows = self.overview.rows
        async with self._reading:
            known = self._scores.pop((report.market, report.day), {})
            self._scores[report.market, report.day] = known
            while len(self._scores) > _REPORTS_KEPT:
                del self._scores[next(iter(self._scores))]
            bases = {each.code: (rows.get(each.code), each.vintage) for each in standings}
            lacking = [
                code
                for code, base in bases.items()
                if code not in known or not known[code].of(base)
            ]
            if lacking:
                await self.heard()
            async for each in self.archive.histories(lacking):
                await asyncio.sleep(0)
                days = {vintage.day: vintage.record for vintage in each.vintages}
                known[each.code] = _Score(*bases[each.code], zscore_of(days, report.day))
            return [replace(each, zscore=known[each.code].zscore) for each in standings]

    async def _read(self) -> ServiceStatus:
        spoiled: dict[str, str] = {}
        nobody: dict[str, ProcessReport] = {}
        reported = await _readable(
            self.status_store.reports(), nobody, spoiled, "reports of the processes"
        )
        reports = {n: r for n, r in living(reported, self.now()).items() if isinstance(r.role, str)}
        lease = await _readable(self.status_store.lease(), "", spoiled, "lease")
        active = reports.get(lease.partition(":")[2])
        simulated = await _readable(
            self.status_store.simulated(), otherwise=False, spoiled=spoiled, subject="simulated"
        )
        return ServiceStatus(
            at=self.now(),
            reports=reports,
            lease=lease,
            budgets=await self._budgets(reports, active, spoiled),
            endpoints=await _readable(
                self.outbox.statuses(), dict[str, Status](), spoiled, "webhooks"
            ),
            markets=self._markets(active, simulated=simulated),
            symbols=len(self.overview.rows),
            entries=await self.status_store.stream_length(),
            loaded=self.overview.loaded,
            simulated=simulated,
            unreadable=spoiled,
            first_seen=await self._first_seen(spoiled),
            refusal=self.redis_trouble(),
        )

    async def _first_seen(self, spoiled: dict[str, str]) -> Mapping[tuple[str, date], datetime]:
        """Return when the last reports were first seen."""
        last = self.streams.last_entries(_NOTICES, Stream.RELEASES)
        nothing: list[Entry] = []
        return first_seen(await _readable(last, nothing, spoiled, "releases"))

    async def _budgets(
        self,
        reports: Mapping[str, ProcessReport],
        active: ProcessReport | None,
        spoiled: dict[str, str],
    ) -> tuple[Spending, ...]:
        """Return what is spent of each account's budget; its size as the active poller has it."""
        used = [gateway.account for report in reports.values() for gateway in report.gateways]
        accounts = dict.fromkeys(used or [gateway.account for gateway in self.config.opend])
        own = self.config.budget.requests, self.config.budget.period
        limit, period = (active.budget if active else None) or own
        if not (limit < LARGEST and math.isfinite(period)):
            limit, period = own
        spent = {
            name: await _readable(
                self.ledger.spent(name, period=period), None, spoiled, budget_of(name)
            )
            for name in accounts
        }
        return tuple(
            Spending(account, used, limit, period)
            for account, used in spent.items()
            if used is not None
        )


@contextlib.asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """Raise StoreDown if the block takes longer than a visitor should wait for Redis."""
    try:
        async with asyncio.timeout(_READ_LIMIT):
            yield
    except TimeoutError:
        raise StoreDown(f"nothing within {_READ_LIMIT:g} s") from None


Found = TypeVar("Found")
Otherwise = TypeVar("Otherwise")


async def _readable(
    asked: Awaitable[Found],
    otherwise: Otherwise,
    spoiled: dict[str, str] | None = None,
    subject: str = "",
) -> Found | Otherwise:
    """Return what was asked for; if it cannot be read, add it to `spoiled` and return `otherwise`.

    Each value is read by itself, so that an unreadable one does not hide the others. StoreDown is
    raised.
    """
    try:
        return await asked
    except StoreMisfit as problem:
        reason = str(problem)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as problem:
        reason = f"its content in Redis cannot be read ({type(problem).__name__})"
    if spoiled is not None:
        spoiled[subject] = reason
    return otherwise


SOURCES: Final = web.AppKey("sources", Sources)
