"""What the page reads from, and one look at all of it."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from aiohttp import web

from poller.delivery.outbox import Outbox, Status
from poller.errors import StoreError
from poller.facts.board import Board
from poller.facts.observe import Observe
from poller.facts.status import Report, living
from poller.service.metrics import Metrics
from poller.settings.config import Config
from poller.storage.store import Store
from poller.web.overview import Overview
from poller.web.rows import markets, story_time
from poller.web.survey import Spending, Survey

_ANSWER_LIMIT: Final = 3.0
"""Seconds Redis has for one look."""


@dataclass(frozen=True)
class Sources:
    """Everything a request may need.

    `fresh`: a look is shared by all who ask within this time, so that they cannot wear Redis out.
    """

    config: Config
    store: Store
    board: Board
    outbox: Outbox
    overview: Overview
    metrics: Metrics
    observe: Observe
    now: Callable[[], datetime]
    fresh: timedelta = timedelta(seconds=1)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _last: list[Survey] = field(default_factory=list)

    async def survey(self) -> Survey:
        """Return the state of the service, a second old at the most; never raises StoreError."""
        async with self._lock:
            if self._last and timedelta() <= self.now() - self._last[-1].at < self.fresh:
                return self._last[-1]
            try:
                async with asyncio.timeout(_ANSWER_LIMIT):
                    survey = await self._look()
            except StoreError as problem:
                survey = Survey(self.now(), redis=str(problem))
            except TimeoutError:
                survey = Survey(self.now(), redis=f"nothing within {_ANSWER_LIMIT:.0f} s")
            self._last[:] = [survey]
            return survey

    async def _look(self) -> Survey:
        reports = living(await self.board.reports(), self.now())
        lease = await self.board.lease()
        active = reports.get(lease.partition(":")[2])
        rows = list(self.overview.rows.values())
        simulated = await self.board.simulated()
        calendar = story_time(rows, self.now()) if simulated else self.now()
        return Survey(
            at=self.now(),
            reports=reports,
            lease=lease,
            budgets=await self._budgets(reports, active),
            endpoints=await self._endpoints(),
            markets=markets(rows, active.markets if active else {}, calendar),
            symbols=len(rows),
            entries=await self.board.stream_length(),
            loaded=self.overview.loaded,
            simulated=simulated,
        )

    async def _budgets(
        self, reports: Mapping[str, Report], active: Report | None
    ) -> tuple[Spending, ...]:
        """Return what is spent of each account's budget, which who polls knows best."""
        told = [gateway.account for report in reports.values() for gateway in report.gateways]
        accounts = dict.fromkeys(told or [gateway.account for gateway in self.config.opend])
        own = self.config.budget.requests, self.config.budget.period
        limit, period = (active.budget if active else None) or own
        spent = [(name, await self.store.spent(name, period=period)) for name in accounts]
        return tuple(Spending(account, used, limit, period) for account, used in spent)

    async def _endpoints(self) -> dict[str, Status]:
        return {name: await self.outbox.status(name) for name in await self.outbox.names()}


SOURCES: Final = web.AppKey("sources", Sources)
