"""A Redis of one's own: every kind of URL, a user with few rights, and what is refused."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis.asyncio import Redis

from poller.detect.compare import compare
from poller.errors import LockedOut, StoreError, StoreMisfit
from poller.model import Code
from poller.simulator import TENCENT_ROWS, World
from poller.store.embedded import Embedded
from poller.store.redisstore import RedisStore
from poller.store.store import ONE_OFF
from tests.machine import at_most
from tests.service import Service, entries, now, poller, simulator
from tests.test_faults import is_documented

TENCENT = Code("HK.00700")
Client = Any  # redis-py types every answer as text or bytes, whatever decode_responses says


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Embedded]:
    """A server that belongs to no service."""
    made = Embedded(tmp_path)
    async with made.running():
        yield made


@pytest.fixture
async def admin(server: Embedded) -> AsyncIterator[Client]:
    """Its administrator's client."""
    client = Redis.from_url(server.url, decode_responses=True)
    yield client
    await client.aclose()


@asynccontextmanager
async def in_front(server: Embedded, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Listen on a TCP port for the server; with a context, speak TLS there."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_unix_connection(str(server.socket))
        async with asyncio.TaskGroup() as both:
            both.create_task(_pass_on(reader, inner[1]))
            both.create_task(_pass_on(inner[0], writer))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while received := await reader.read(65536):
            writer.write(received)
            await writer.drain()
    writer.close()


def password_of(server: Embedded) -> str:
    """Return the server's password."""
    return server.url.partition(":")[2].removeprefix("//:").partition("@")[0]


async def check_publishes(tmp_path: Path, url: str) -> None:
    """Start a service on this URL and wait for the ten rows of the vendor's page."""
    home = tmp_path / "service"
    home.mkdir()
    async with simulator(World()) as opend:
        service = Service(home, opend.port, TENCENT, {"POLLER_REDIS__URL": url})
        await service.start()
        store = RedisStore(Embedded(tmp_path).url, "short-interest")
        try:
            assert len(await entries(store, 10)) == 10
        finally:
            await store.close()
        assert await service.stop() == 0


async def test_a_unix_socket(server: Embedded, tmp_path: Path) -> None:
    """unix:// reaches a server by its socket."""
    await check_publishes(tmp_path, server.url)


async def test_an_answer_may_take_its_time_after_a_blocking_read(server: Embedded) -> None:
    """`socket_timeout` bounds the answers; a read that blocks longer ends as empty, not as cut."""
    # a server looks ten times a second who has waited long enough
    store = RedisStore(f"{server.url}?socket_timeout=0.5", "short-interest")
    assert await store.streams.read("$", count=1, block=0.8) == []
    await store.close()


async def test_tls_is_verified(server: Embedded, tmp_path: Path) -> None:
    """rediss:// works with the authority named, and refuses a certificate nobody vouches for."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with in_front(server, context) as port:
        url = f"rediss://:{password_of(server)}@127.0.0.1:{port}/0"
        await check_publishes(tmp_path, f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}")
        stranger = RedisStore(url, "short-interest")
        with pytest.raises(StoreError, match=r"(?i)certificate"):
            await stranger.inspect()
        await stranger.close()


async def refused(tmp_path: Path, url: str) -> str:
    """Start a service on a URL it cannot use; returns the one line it ends with."""
    service = Service(tmp_path, 1, TENCENT, {"POLLER_REDIS__URL": url})
    async with at_most(8):
        code, out, err = await poller(service, "run")
    assert (code, out) == (1, "")
    _, line = err.splitlines()  # after that of the configuration
    assert is_documented(line), line
    return line


async def test_a_wrong_password_ends_at_once(server: Embedded, tmp_path: Path) -> None:
    """A password the server refuses is no outage to wait for; it is not shown."""
    line = await refused(tmp_path, f"unix://:hunter2@{server.socket}")
    assert "refuses the user or password" in line
    assert "hunter2" not in line


async def test_an_evicting_server_is_refused(
    server: Embedded, admin: Client, tmp_path: Path
) -> None:
    """A server that may delete the watermarks is refused with the command that corrects it."""
    await admin.config_set("maxmemory-policy", "allkeys-lru")
    assert "CONFIG SET maxmemory-policy noeviction" in await refused(tmp_path, server.url)


async def test_a_stream_key_in_use_is_refused(
    server: Embedded, admin: Client, tmp_path: Path
) -> None:
    """Somebody else's key is left alone, and the line names it and the setting to change."""
    await admin.rpush("short-interest", "mine")
    line = await refused(tmp_path, server.url)
    assert "the key short-interest holds a list" in line
    assert "redis.namespace" in line
    assert await admin.lrange("short-interest", 0, -1) == ["mine"]


@pytest.mark.parametrize("version", ["5.0.14", "6.0.16"])
async def test_an_old_server_is_refused(version: str, tmp_path: Path) -> None:
    """A server without what is needed is refused by what is needed, not by what broke."""
    listening = await asyncio.start_server(old_server(version), "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        line = await refused(tmp_path, f"redis://127.0.0.1:{port}")
    assert "too old" in line
    assert "needs Redis 6.2 or Valkey 7.2" in line


def old_server(version: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    """Return what an old Redis answers to the first commands of a client."""
    told = f"redis_version:{version}\r\nmaxmemory_policy:noeviction"
    answers = {
        b"HELLO": "%1\r\n$5\r\nproto\r\n:3\r\n",
        b"INFO": f"${len(told)}\r\n{told}\r\n",
    }
    if version < "6":
        answers[b"HELLO"] = "-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n"

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while header := await reader.readline():
            words = []
            for _ in range(int(header[1:])):
                await reader.readline()
                words.append((await reader.readline()).strip())
            writer.write(answers.get(words[0].upper(), "+OK\r\n").encode())
        writer.close()

    return accept


def documented_rules() -> list[str]:
    """Return the rules of the user that the docs tell to make."""
    document = Path("docs/redis.md").read_text(encoding="utf-8")
    found = re.search(r"ACL SETUSER poller on >PASSWORD ([^\n]*)$", document, re.MULTILINE)
    assert found is not None
    return found[1].replace("'", "").split()


async def try_everything(store: RedisStore) -> None:
    """Let a user do each kind of thing that the service and its commands do."""
    await store.inspect()
    lease = await store.leases.acquire("me", 10)
    assert lease is not None
    await store.ledger.grant("main", "a", limit=1, period=1, margin=0)
    snapshot = await store.records.snapshot(TENCENT)
    found = compare(TENCENT, TENCENT_ROWS, snapshot.known, observed_at=now(), history=5)
    await store.records.commit(TENCENT, found, snapshot, ONE_OFF)
    await store.ledger.spent("main", period=1)
    await store.watchlist.watch([TENCENT], wanted=True)
    await store.streams.last_entries(1)
    await store.streams.signal("webhook:desk")
    start = await store.streams.news(None, block=1)
    await store.streams.news(start.position, block=0.01)
    await store.leases.release(lease)


async def test_a_user_with_the_documented_rights_can_run_it(
    server: Embedded, admin: Client, tmp_path: Path
) -> None:
    """The documented user is enough for the whole service, and lacks what is dangerous."""
    await admin.execute_command("ACL", "SETUSER", "poller", "on", ">pw", *documented_rules())
    await check_publishes(tmp_path, f"unix://poller:pw@{server.socket}")
    for command in (["FLUSHALL"], ["CONFIG", "GET", "*"], ["GET", "other"]):
        verdict = await admin.execute_command("ACL", "DRYRUN", "poller", *command)
        assert "no permissions" in verdict or "can't access" in verdict, command


@pytest.mark.parametrize("rule", [rule for rule in documented_rules() if rule[0] != "-"])
async def test_every_documented_right_is_needed(server: Embedded, admin: Client, rule: str) -> None:
    """Without any one of them the user is refused by name, not waited for."""
    rules = [one for one in documented_rules() if one != rule]
    await admin.execute_command("ACL", "SETUSER", "less", "on", ">pw", *rules)
    store = RedisStore(f"unix://less:pw@{server.socket}", "short-interest")
    with pytest.raises((StoreMisfit, LockedOut), match=r"permission|NOPERM|refuses"):
        await try_everything(store)
    await store.close()
