"""What a process reports of itself: facts in, reports in Redis, seen by a second client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from redis.asyncio import Redis

from poller.detect.held import QuarantinedFigure, Reason
from poller.errors import StoreDown
from poller.gateway.opend import Address
from poller.markets.hk import HONG_KONG, HkRecord
from poller.model import Code
from poller.schedule.schedule import Answered, Wait
from poller.service.report import OTHER_WATCHLIST, Process, Reporter, release_state
from poller.simulator.virtual import run_virtually
from poller.store.embedded import Embedded
from poller.store.redis_status import RedisStatusStore
from poller.store.redisstore import RedisStore
from poller.telemetry.observe import (
    Active,
    Fact,
    GatewayConnection,
    Polled,
    Quarantined,
    Recovered,
    Standby,
    Trouble,
)
from poller.telemetry.status import POLLS_KEPT, Polls, ProcessReport, ReleaseState
from tests.machine import at_most
from tests.test_schedule import DAY, OLD, ask, codes, following, release

if TYPE_CHECKING:
    from poller.telemetry.status_store import StatusStore

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
HK = Code("HK.00700")
US = Code("US.AAPL")


@pytest.fixture
async def status_stores(tmp_path: Path) -> AsyncIterator[tuple[RedisStatusStore, RedisStore]]:
    """An empty status store, and the store beside it."""
    async with Embedded(tmp_path).running() as url:
        status_store, store = (
            RedisStatusStore(url, "short-interest"),
            RedisStore(url, "short-interest"),
        )
        yield status_store, store
        await status_store.close()
        await store.close()


@contextlib.asynccontextmanager
async def reporting(status_store: RedisStatusStore) -> AsyncIterator[tuple[Reporter, list[Fact]]]:
    """Let a poller with one gateway report while the block runs."""
    facts: list[Fact] = []
    gateways = [Address("opend", 11111, "main")]
    reporter = Reporter(Process("me-1", "poll"), gateways, now=lambda: NOW)
    task = asyncio.create_task(reporter.run(status_store, facts.append))
    try:
        yield reporter, facts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def told(
    status_store: RedisStatusStore, condition: Callable[[ProcessReport], bool]
) -> ProcessReport:
    """Wait for a report of this process that satisfies a condition."""
    async with at_most():
        while True:
            report = (await status_store.reports()).get("me-1")
            if report is not None and condition(report):
                return report
            await asyncio.sleep(0.02)


async def test_what_is_true_is_told(status_stores: tuple[RedisStatusStore, RedisStore]) -> None:
    """Connections, troubles and their end are reported; the process leaves nothing behind."""
    status_store, _ = status_stores
    async with reporting(status_store) as (reporter, _):
        first = await told(status_store, lambda _: True)
        assert [(g.name, g.ready) for g in first.gateways] == [("opend:11111", False)]
        reporter(GatewayConnection("opend:11111", ready=True, reason="connected", rebuilds=0))
        reporter(Trouble(HK, "OpenD refuses it"))
        assert (await told(status_store, lambda r: r.gateways[0].ready)).troubles == {
            HK: "OpenD refuses it"
        }
        row = HkRecord(None, "2026-11-13", 1, 0.5, None, None)
        reporter(Recovered(HK))
        reporter(Quarantined(HK, (QuarantinedFigure(row, None, Reason.FUTURE_DAY, NOW),)))
        report = await told(status_store, lambda r: HK not in r.troubles and bool(r.troubles))
        assert "poller quarantine release HK.00700 2026-11-13" in str(report.troubles)
        reporter(Quarantined(HK, ()))
        await told(status_store, lambda r: not r.troubles)
    assert await status_store.reports() == {}


async def test_who_polls_tells_what_is_watched(
    status_stores: tuple[RedisStatusStore, RedisStore],
) -> None:
    """A poller on standby keeps its watchlist to itself until it holds the lease."""
    status_store, _ = status_stores
    async with reporting(status_store) as (reporter, _):
        reporter.watch([HK])
        assert (await told(status_store, lambda r: r.symbols == 1)).lease is None
        assert await status_store.symbols() is None
        reporter(Active(7))
        assert (await told(status_store, lambda r: r.lease is not None)).lease == 7
        assert await status_store.symbols() == (HK,)
        reporter(Standby("another poller holds the lease"))
        await told(status_store, lambda r: r.lease is None)
        await status_store.save_symbols([US])
        reporter(Active(9))
        await told(status_store, lambda r: r.lease == 9)
        assert await status_store.symbols() == (HK,)


async def test_a_watchlist_that_is_none_counts_as_absent(
    status_stores: tuple[RedisStatusStore, RedisStore], tmp_path: Path
) -> None:
    """Whatever JSON another client writes there, nobody who reads it fails."""
    status_store, _ = status_stores
    async with Redis.from_url(Embedded(tmp_path).url) as raw:
        for text in ("[1]", "[null]", "[[]]", '["HK.00700", 1]', '{"HK.00700": 1}', "3", '["FOO"]'):
            await raw.set("{short-interest}:symbols", text)
            assert await status_store.symbols() is None, text


async def test_a_standby_with_another_watchlist_says_so(
    status_stores: tuple[RedisStatusStore, RedisStore],
) -> None:
    """Once, when it lasts, with both counts and what to do; not while both agree."""
    status_store, _ = status_stores
    await status_store.save_symbols([US])
    facts: list[Fact] = []
    clock = [NOW]
    reporter = Reporter(Process("me-1", "poll"), now=lambda: clock[0])
    task = asyncio.create_task(reporter.run(status_store, facts.append))
    reporter.watch([HK, US])
    reporter(Standby("another poller is active"))
    await told(status_store, lambda r: r.symbols == 2)
    assert not any(isinstance(fact, Trouble) for fact in facts)
    clock[0] += timedelta(seconds=11)
    reporter(Trouble("any", "wakes it"))
    await told(status_store, lambda r: r.at == clock[0])
    async with at_most():
        while not any(isinstance(fact, Trouble) for fact in facts):
            await asyncio.sleep(0.02)
    (trouble,) = [fact for fact in facts if isinstance(fact, Trouble)]
    assert trouble.subject == OTHER_WATCHLIST
    assert "watches 1 symbols, this one on standby 2, of which nobody polls 1" in trouble.reason
    assert "redis.namespace" in trouble.reason
    facts.clear()
    reporter.watch([US])
    async with at_most():
        while Recovered(OTHER_WATCHLIST) not in facts:
            await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("age", [timedelta(seconds=61), timedelta(hours=-1)])
async def test_the_dead_are_removed(
    status_stores: tuple[RedisStatusStore, RedisStore], age: timedelta
) -> None:
    """A killed process's report goes when another one reports: a minute later, or set back."""
    status_store, _ = status_stores
    old = NOW - age
    await status_store.report("killed-1", ProcessReport(old, "poll", "0.1.0"))
    async with reporting(status_store):
        await told(status_store, lambda _: True)
        async with at_most():
            while "killed-1" in await status_store.reports():
                await asyncio.sleep(0.02)


class Shaky(RedisStatusStore):
    """A status store that can be away."""

    away = True

    async def report(self, process: str, report: ProcessReport) -> None:
        """Replace the report, or fail."""
        if self.away:
            raise StoreDown("nobody listens")
        await super().report(process, report)


async def test_a_report_that_arrives_ends_the_trouble_with_redis(tmp_path: Path) -> None:
    """In a process that does nothing else with Redis, too; not while its replicas are behind."""
    facts: list[Fact] = []
    behind = True
    async with Embedded(tmp_path).running() as url, at_most():
        status_store = Shaky(url, "short-interest")
        reporter = Reporter(Process("me-1", "web"), now=lambda: NOW)
        task = asyncio.create_task(reporter.run(status_store, facts.append, behind=lambda: behind))
        while Trouble("redis", "nobody listens") not in facts:
            await asyncio.sleep(0.02)
        status_store.away = False
        reporter(Trouble(HK, "OpenD refuses it"))
        await told(status_store, lambda report: HK in report.troubles)
        reporter(Recovered(HK))
        await told(status_store, lambda report: HK not in report.troubles)
        assert Recovered("redis") not in facts
        behind = False
        reporter(Trouble(HK, "OpenD refuses it"))
        while Recovered("redis") not in facts:
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await status_store.close()


async def answers(status_store: RedisStatusStore, count: int) -> list[str]:
    """Wait until so many polls of a symbol are reported; returns them, the last one first."""
    async with at_most():
        while True:
            polls = (await status_store.polls([HK])).get(HK, Polls()).polls
            if len(polls) >= count:
                return [poll.answer for poll in polls]
            await asyncio.sleep(0.02)


async def test_polls_are_told_whatever_becomes_of_the_status(
    status_stores: tuple[RedisStatusStore, RedisStore],
) -> None:
    """With a status key of another type, each symbol's last polls are still reported."""
    status_store, store = status_stores
    async with Redis.from_url(store.url) as client, reporting(status_store) as (reporter, facts):
        await client.set(status_store.keys.status, "x")
        for n in range(POLLS_KEPT + 2):
            reporter(Polled(HK, "answered", f"answer {n}"))
        assert await answers(status_store, POLLS_KEPT) == [f"answer {n}" for n in (6, 5, 4, 3, 2)]
        async with at_most():  # the polls may be written first
            while not (troubles := {each.subject for each in facts if isinstance(each, Trouble)}):
                await asyncio.sleep(0.02)
    assert troubles == {"status report"}


async def test_polls_that_could_not_be_told_are_told_later(
    status_stores: tuple[RedisStatusStore, RedisStore],
) -> None:
    """The status is reported meanwhile; once their key is fixed, the last polls follow."""
    status_store, store = status_stores
    async with Redis.from_url(store.url) as client, reporting(status_store) as (reporter, facts):
        await client.set(status_store.keys.polls, "x")
        reporter(Polled(HK, "answered", "first"))
        async with at_most():
            while not any(isinstance(fact, Trouble) for fact in facts):
                await asyncio.sleep(0.02)
        reporter(Trouble(HK, "OpenD refuses it"))
        await told(status_store, lambda report: HK in report.troubles)
        await client.delete(status_store.keys.polls)
        reporter(Polled(HK, "answered", "second"))
        assert await answers(status_store, 2) == ["second", "first"]


class Counted:
    """A status store that remembers when it was written."""

    def __init__(self) -> None:
        self.at: list[float] = []

    async def report(self, process: str, report: ProcessReport) -> None:
        """Remember the moment."""
        del process, report
        self.at.append(asyncio.get_running_loop().time())

    async def retire(self, process: str) -> None:
        """Forget nothing."""

    async def polls(self, codes: Sequence[Code]) -> dict[Code, Polls]:
        """Know of none."""
        del codes
        return {}

    async def save_polls(self, polls: Mapping[Code, Polls]) -> None:
        """Take it."""


def test_reports_come_when_there_is_something_to_say() -> None:
    """Four a minute at rest; a poll is reported within three seconds, a trouble at once."""

    async def work() -> list[float]:
        status_store = Counted()
        reporter = Reporter(Process("me-1", "poll"), now=lambda: NOW)
        task = asyncio.create_task(reporter.run(cast("StatusStore", status_store), lambda _: None))
        await asyncio.sleep(60)
        reporter(Polled(HK, "answered"))
        await asyncio.sleep(10)
        reporter(Trouble(HK, "OpenD refuses it"))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        return status_store.at

    at = run_virtually(NOW, work())
    assert len([each for each in at if each < 60]) <= 5
    assert any(60 <= each <= 63.2 for each in at)
    assert any(70 <= each <= 70.2 for each in at)


def test_a_market_tells_when_it_is_probed_next() -> None:
    """The moment that the plan waits for; none while it is now, or a release is being read."""
    plan = following(codes(3))
    queue = plan.markets[HONG_KONG]
    assert release_state(queue).next_at is None
    plan.record(ask(plan, NOW), Answered(OLD), NOW)
    at = release_state(queue).next_at
    assert at is not None
    assert plan.next(NOW) == Wait(at)
    release(plan, at)
    assert release_state(queue) == ReleaseState("sweeping", DAY, 3, 1, None)
