"""The page on a loopback port over a real server, and what its tests hang out in Redis."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from redis.asyncio import Redis

from poller.delivery.redisoutbox import RedisOutbox
from poller.detect.compare import compare
from poller.events import encode
from poller.markets.hk import HONG_KONG, HkRecord
from poller.markets.us import UsRecord
from poller.model import Code, market_of
from poller.schedule.notice import Detected
from poller.settings.config import Config, Web
from poller.store.embedded import Embedded
from poller.store.notifier import Notifier
from poller.store.redis_status import RedisStatusStore
from poller.store.redisstore import RedisStore
from poller.store.store import ONE_OFF
from poller.telemetry.observe import Fact, Happened, Trouble
from poller.telemetry.status import GatewayState, ProcessReport, ReleaseState
from poller.web.connections import Limits
from poller.web.feed import Feed
from poller.web.metrics import Metrics
from poller.web.overview import Overview
from poller.web.server import serve
from poller.web.sources import Sources
from tests.service import until

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
_NEVER = timedelta(0)  # a look is not shared: the clock stands still
HK, US = Code("HK.00700"), Code("US.AAPL")


@dataclass
class Desk:
    """A running page; `facts`: what it observed."""

    sources: Sources
    store: RedisStore
    status_store: RedisStatusStore
    raw: Any
    facts: list[Fact]

    @property
    def url(self) -> str:
        """Where the page is, once it is there."""
        found = [dict(f.details) for f in self.facts if isinstance(f, Happened)]
        return str(found[0]["url"]).rstrip("/")

    @property
    def troubles(self) -> list[str]:
        """The reasons of all troubles so far."""
        return [fact.reason for fact in self.facts if isinstance(fact, Trouble)]

    async def publish(self, code: Code, *figures: int, newest: date = date(2026, 11, 13)) -> None:
        """Publish a row a week up to `newest`, with these shares, oldest first."""
        days = [newest - timedelta(weeks=n) for n in range(len(figures))]
        rows = [record(code, day, n) for day, n in zip(days, reversed(figures), strict=True)]
        snapshot = await self.store.records.snapshot(code)
        found = compare(code, rows, snapshot.known, observed_at=NOW, history=500)
        await self.store.records.commit(code, found, snapshot, ONE_OFF)

    async def detected(self, code: Code, day: date, *, ago: timedelta = timedelta()) -> None:
        """Announce that a code was the first to show its market's report of a day."""
        notice = Detected(market_of(code), day, NOW - ago, code)
        await self.raw.xadd("{short-interest}:releases", encode(notice))

    async def shows(self, code: Code, shares: int) -> None:
        """Wait until the page has read this figure."""
        await until(lambda: self.sources.overview.rows[code].shares == shares)

    async def report(
        self,
        *,
        ready: bool = True,
        troubles: Mapping[str, str] | None = None,
        markets: Mapping[str, ReleaseState] | None = None,
    ) -> None:
        """Report as a poller that holds the lease."""
        if not await self.status_store.lease():
            await self.store.leases.acquire("host-1", 60)
        reason = "connected" if ready else "nobody listens"
        gateway = GatewayState("127.0.0.1:11111", "main", ready, reason, NOW)
        report = ProcessReport(NOW, "run", "0.1.0", 1, (gateway,), 2, markets or {}, troubles or {})
        await self.status_store.report("host-1", report)


def record(code: Code, day: date, shares: int) -> HkRecord | UsRecord:
    """Return a row of either market."""
    if market_of(code) is HONG_KONG:
        return HkRecord(None, str(day), shares, 0.5, 10.0 + shares % 7, 9.0)
    return UsRecord(None, str(day), shares, 0.5, 1000, 2.5, 10.0 + shares % 7, 9.0)


@contextlib.asynccontextmanager
async def desk(
    tmp_path: Path,
    *codes: Code,
    token: str | None = None,
    port: int = 0,
    limits: Limits | None = None,
    fresh: timedelta = _NEVER,
    refresh: timedelta = timedelta(hours=1),
) -> AsyncIterator[Desk]:
    """Run the page of these symbols while the block runs; the clock stands at NOW.

    `fresh`, `refresh`: see `Sources`.
    """
    secret = None if token is None else SecretStr(token)
    config = Config(state_dir=tmp_path, web=Web(port=port, token=secret))
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(Embedded(tmp_path).running())
        store, status_store = (
            RedisStore(url, "short-interest"),
            RedisStatusStore(url, "short-interest"),
        )
        outbox, raw = RedisOutbox(url, "short-interest"), Redis.from_url(url)
        for each in (store, status_store, outbox):
            stack.push_async_callback(each.close)
        stack.push_async_callback(raw.aclose)
        facts: list[Fact] = []
        notifier = Notifier(store.streams, facts.append)
        overview = Overview(
            store.streams, store.records, status_store, store.instruments, (HK,), notifier.news
        )
        sources = Sources(
            config,
            store.streams,
            store.records,
            store.archive,
            store.ledger,
            status_store,
            store.instruments,
            outbox,
            overview,
            Feed(store.streams, notifier.news),
            Metrics(NOW),
            facts.append,
            lambda: NOW,
            fresh,
            refresh,
        )
        made = Desk(sources, store, status_store, raw, facts)
        await status_store.save_symbols(codes)
        tasks = [
            asyncio.create_task(notifier.run()),
            asyncio.create_task(serve(sources, limits=limits)),
        ]
        try:
            await until(lambda: bool(made.troubles) or overview.loaded)
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
