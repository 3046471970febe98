"""Keys that another client spoiled: each is out of order and named, and everything else goes on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from poller.model import Code
from poller.simulator import Proto, World
from poller.store.embedded import Embedded
from tests.opend import Simulator
from tests.service import Service, entries, simulator, store_of, until

CODE, OTHER = Code("HK.00700"), Code("HK.00005")
NS = "{short-interest}"
DEEP = "[" * 50_000

LEASES = {
    "another type": ("lease", ["HSET", f"{NS}:lease", "a", "b"]),
    "another's word": ("", ["SET", f"{NS}:lease", "x"]),
    "no number": ("fence", ["SET", f"{NS}:fence", "abc"]),
    "a list": ("fence", ["RPUSH", f"{NS}:fence", "1"]),
}
"""What keeps anybody from polling until it is mended, or ends by itself where no key is told."""

OTHERS: tuple[tuple[str, list[str]], ...] = (
    ("signals", ["SET", f"{NS}:signals", "x"]),
    ("watch", ["SET", f"{NS}:watch", "x"]),
    ("watch", ["HSET", f"{NS}:watch", "garbage", "1"]),
    ("watch:version", ["RPUSH", f"{NS}:watch:version", "1"]),
    ("schedule", ["SET", f"{NS}:schedule", "x"]),
    ("schedule", ["HSET", f"{NS}:schedule", "HK", DEEP]),
    ("schedule", ["HSET", f"{NS}:schedule", "HK", '{"pause": 1e999, "newest": "0001-01-01"}']),
    ("", ["HSET", f"{NS}:symbols", "a", "b"]),
    ("", ["SET", f"{NS}:symbols", DEEP]),
    ("", ["SET", f"{NS}:symbols", "[1]"]),
    ("status", ["SET", f"{NS}:status", "x"]),
    ("", ["HSET", f"{NS}:status", "host-1", DEEP]),
    ("", ["HSET", f"{NS}:polls", CODE, DEEP]),
    ("", ["HSET", f"{NS}:polls", CODE, '{"polls":[],"next_at":"0001-01-01T00:00:00+14:00"}']),
)
"""The key that is told, if any, and the command that spoils it."""


@pytest.fixture
async def opend() -> AsyncIterator[Simulator]:
    """An OpenD that knows two symbols."""
    async with simulator(World(named=(OTHER,))) as running:
        yield running


@contextlib.asynccontextmanager
async def server(service: Service) -> AsyncIterator[Any]:
    """Yield a plain client of the service's server."""
    async with Embedded(service.state_dir).running() as url, Redis.from_url(url) as client:
        yield client


async def supplant(client: Any, command: list[str], *keys: str) -> None:  # noqa: ANN401
    """Put something else in a key's place, and other keys out of the way, in one transaction.

    Between two commands the service, which is running, would write what it finds missing.
    """
    await client.pipeline().delete(command[1], *keys).execute_command(*command).execute()


def named(service: Service, key: str) -> bool:
    """Tell whether a warning names a key."""
    return any(
        line["level"] == "warning" and f"{NS}:{key} " in f"{line['event']} "
        for line in service.log()
    )


@pytest.mark.parametrize("spoiled", OTHERS, ids=lambda spoiled: " ".join(spoiled[1])[:60])
async def test_a_spoiled_key_ends_nothing_at_the_start(
    tmp_path: Path, opend: Simulator, spoiled: tuple[str, list[str]]
) -> None:
    """The service polls and publishes; where the key is told, it is by its name."""
    key, command = spoiled
    service = Service(tmp_path, opend.port, CODE)
    async with server(service) as client:
        await client.execute_command(*command)
        await service.start()
        async with store_of(service) as store:
            await entries(store, 10)
        if key:
            await until(lambda: named(service, key))
        assert service.process is not None
        assert service.process.returncode is None
        assert await service.stop() == 0
    assert not service.told("defect")


async def test_spoiled_keys_end_nothing_while_running(tmp_path: Path, opend: Simulator) -> None:
    """One after the other under a running service: it goes on publishing."""
    service = Service(tmp_path, opend.port, CODE)
    await service.start()
    await service.said("published")
    async with server(service) as client, store_of(service) as store:
        for key, command in OTHERS:
            await supplant(client, command)
            if key != "signals":
                await store.streams.signal("watchlist")
            await asyncio.sleep(0.3)
            await client.delete(command[1])
        await store.watchlist.watch([OTHER], wanted=True)
        await entries(store, 1, OTHER)
        assert await service.stop() == 0
    assert not service.told("defect")


@pytest.mark.parametrize("name", LEASES)
@pytest.mark.parametrize("running", [False, True])
async def test_a_spoiled_lease_is_told_and_waited_for(
    tmp_path: Path, opend: Simulator, name: str, *, running: bool
) -> None:
    """Nobody polls without one; when it is mended, or ran out, polling goes on."""
    key, command = LEASES[name]
    service = Service(tmp_path, opend.port, CODE)
    async with server(service) as client:
        if running:
            await service.start()
            await service.said("published")
        await supplant(client, command, f"{NS}:lease", f"{NS}:fence")
        if not running:
            await service.start()
        # at the start it is another's lease, which has no end and is given one
        if key == "fence" or (key and running):
            await until(lambda: named(service, key))
            await client.delete(f"{NS}:{key}")
        await until(lambda: service.told("polling") == 1 + running)
        assert await service.stop() == 0
    assert not service.told("defect")


async def test_a_spoiled_budget_is_told_and_waited_for(tmp_path: Path, opend: Simulator) -> None:
    """Nothing is asked while the ledger cannot be kept; the page and the rest go on."""
    service = Service(tmp_path, opend.port, CODE)
    async with server(service) as client:
        await client.rpush(f"{NS}:budget:main", "1")
        await service.start()
        await until(lambda: named(service, "budget:main"))
        # the rank has a ledger of its own, which is whole
        assert all(each.proto == Proto.RANK or not each.code for each in opend.seen)
        await client.delete(f"{NS}:budget:main")
        await service.said("ledger of account main: recovered")
        await service.said("published")
        assert await service.stop() == 0
