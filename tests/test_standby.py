"""Two pollers on one Redis: one polls, the other stands by and takes over."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from poller.model import Code
from poller.polling.leadership import TTL
from poller.simulator import Proto, World
from poller.store.embedded import Embedded
from poller.store.redisstore import RedisStore
from tests.machine import at_most, scaled
from tests.opend import Simulator
from tests.service import Service, entries, later, now, simulator, with_rows

TENCENT = Code("HK.00700")
TAKEOVER = TTL + scaled(5)


@pytest.fixture
async def opend() -> AsyncIterator[Simulator]:
    """An OpenD that knows HK.00700 with the ten rows of the vendor's page."""
    async with simulator(World()) as running:
        yield running


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RedisStore]:
    """A server that belongs to neither poller."""
    async with Embedded(tmp_path).running() as url:
        shared = RedisStore(url, "short-interest")
        yield shared
        await shared.close()


def service(directory: Path, opend: Simulator, url: str) -> Service:
    """Return a poller with a state directory of its own on the shared server."""
    directory.mkdir()
    return Service(directory, opend.port, TENCENT, {"POLLER_REDIS__URL": url})


def show_new_day(opend: Simulator) -> None:
    """Let OpenD report one more day."""
    rows = opend.world.records(TENCENT, now())
    shares = (rows[0].shares or 0) + 1
    new = later(rows[0], days=1, aggregated_short=shares)
    opend.world = with_rows(opend.world, TENCENT, (new, *rows))


def askers(opend: Simulator, since: int) -> set[int]:
    """Return which connections asked for short interest since so many requests."""
    return {one.connection for one in opend.seen[since:] if one.proto == Proto.SHORT_INTEREST}


async def test_two_services_with_a_list_each_are_told_apart(
    tmp_path: Path, opend: Simulator, store: RedisStore
) -> None:
    """One for either market is a natural mistake: the one on standby says whom nobody polls."""
    url = Embedded(tmp_path).url
    first, second = (service(tmp_path / name, opend, url) for name in ("first", "second"))
    second.codes = f"{TENCENT},US.AAPL,US.MSFT"
    await first.start()
    await entries(store, 10)
    await second.start()
    await second.said(
        "the active poller watches 1 symbols, this one on standby 3, of which nobody polls 2"
    )
    assert first.told("on standby") == 0
    for each in (second, first):
        assert await each.stop() == 0


async def test_one_polls_and_the_other_takes_over(
    tmp_path: Path, opend: Simulator, store: RedisStore
) -> None:
    """Kill -9: within lease + 5 s; SIGTERM: at once. No id twice, one line at each change."""
    url = Embedded(tmp_path).url
    first, second = (service(tmp_path / name, opend, url) for name in ("first", "second"))
    await first.start()
    await first.said("polling")
    await second.start()
    await second.said("standing by")
    await second.said("connected")
    await entries(store, 10)
    seen = len(opend.seen)
    await opend.until_seen(seen + 20)
    assert len(askers(opend, seen)) == 1

    await first.kill()
    show_new_day(opend)
    async with asyncio.timeout(TAKEOVER):
        await entries(store, 11)
    assert [second.told(text) for text in ("standing by", "polling")] == [1, 1]

    await first.start()
    await first.said("standing by")
    assert await second.stop() == 0
    show_new_day(opend)
    async with at_most(TTL / 2):
        found = await entries(store, 12)
    assert [first.told(text) for text in ("standing by", "polling")] == [1, 2]
    ids = [entry.fields["id"] for entry in found]
    assert len(ids) == len(set(ids)) == 12
    assert await first.stop() == 0
