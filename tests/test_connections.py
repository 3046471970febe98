"""Where Redis is: a Cluster whose slot moves, Sentinels, replicas that must follow."""

import asyncio
import contextlib
import errno
import gc
import inspect
import os
import resource
import shutil
import socket
import struct
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions
from redis.asyncio import Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from poller.detect.compare import compare
from poller.errors import LockedOut, StoreDown, StoreError, StoreMisfit
from poller.markets.hk import HkRecord
from poller.model import Code
from poller.store.location import Location, Node, locate
from poller.store.redisstore import RedisStore
from poller.store.store import ONE_OFF
from poller.store.translation import translated
from tests import nodes, wire
from tests.machine import at_most, scaled
from tests.service import now

CODES = tuple(Code(f"HK.{n:05}") for n in range(1, 10_000))


async def publish(store: RedisStore, code: Code, day: str = "2026-04-02") -> None:
    """Let a symbol report this day, unless it is known already."""
    snapshot = await store.records.snapshot(code)
    row = HkRecord(None, day, 100, 0.5, 10.0, 9.0)
    found = compare(code, [row], snapshot.known, observed_at=now(), history=50)
    await store.records.commit(code, found, snapshot, ONE_OFF)


async def ids(store: RedisStore) -> list[str]:
    """Return the ids of all entries."""
    return [
        entry.fields["id"] for entry in await store.streams.read("0", count=100_000, block=None)
    ]


async def eventually(store: RedisStore, code: Code) -> float:
    """Publish as soon as the store takes it; returns the seconds until then."""
    began = time.monotonic()
    async with at_most(20):
        while True:
            try:
                await publish(store, code)
            except StoreDown:
                await asyncio.sleep(0.05)
            else:
                return time.monotonic() - began


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", Location("redis://any", (Node("h", 6379),))),
        ("rediss://u:p@h:1/2?a=b", Location("rediss://u:p@any/2?a=b", (Node("h", 1),))),
        ("redis://[::1]:7,b/0", Location("redis://any/0", (Node("::1", 7), Node("b", 6379)))),
        ("unix://:p@/run/r.sock", Location("unix://:p@/run/r.sock", ())),
        ("unix:///run/r.sock?db=1", Location("unix:///run/r.sock?db=1", ())),
        ("redis://h/1/?db=1", Location("redis://any/1/?db=1", (Node("h", 6379),))),
        ("redis://h/0?db=1", Location("redis://any/0?db=1", (Node("h", 6379),))),
        ("redis://h/?db=1", Location("redis://any/?db=1", (Node("h", 6379),))),
        (
            "redis+sentinel://:p@a,b:1/desk/3?sentinel_password=s&x=y",
            Location(
                "redis://:p@any/3?x=y", (Node("a", 26379), Node("b", 1)), "desk", {"password": "s"}
            ),
        ),
    ],
)
def test_a_url_names_servers(url: str, expected: Location) -> None:
    """Every kind of URL gives the servers to ask, and what redis-py is to know."""
    assert locate(url) == expected
    assert "p@" not in repr(expected)


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("http://h", "redis://"),
        ("unix+sentinel:///s/desk", r"rediss\+sentinel://"),
        ("redis+sentinel://h:1", r"redis\+sentinel://HOST:26379"),
        ("redis+sentinel://h:1/desk/first", "database 1"),
        ("redis://:pa:ss/word@h", "percent-encode"),
        ("redis://h:port", "HOST:PORT"),
        ("redis://h:99999", "from 1 to 65535"),
        ("redis://a,h:0/1", "from 1 to 65535"),
        ("redis+sentinel://h:65536/desk", "from 1 to 65535"),
        ("redis://h/first", "redis://HOST:6379/1 for database 1"),
        ("rediss://h,b/0/first", "not a number"),
        (f"redis://h/{'1' * 9_000}", "not a number"),
        ("redis://h/1/2", "not a number"),  # redis-py would take 12
        ("redis://h/-1", "not a number"),
        ("redis://h/\u00b2", "not a number"),
        ("redis://user/word@h", "%2F"),
        ("redis+sentinel://h/desk/\u00b2", "database 1"),
        ("redis://h/1?db=2", "two databases"),
        ("redis+sentinel://h/desk/1?db=2", "two databases"),
        ("redis://h/#1", "%23"),
        ("unix:///run/a#b.sock", "%23"),
    ],
)
def test_an_unusable_url_names_its_cure(url: str, cure: str) -> None:
    """What cannot be read is refused with what to write; nothing of a password is shown."""
    with pytest.raises(ValueError, match=cure) as refusal:
        locate(url)
    assert "word" not in str(refusal.value).replace("a password", "")


@pytest.mark.parametrize(
    ("problem", "expected", "text"),
    [
        (exceptions.OutOfMemoryError("…", status_code="OOM"), StoreDown, "OOM: its memory"),
        (exceptions.ResponseError("MISCONF Redis is …"), StoreDown, "MISCONF: it takes no writes"),
        (
            exceptions.ResponseError("Error running script (…): @user_script:3: -READONLY You …"),
            StoreDown,
            "READONLY: it is a replica",
        ),
        (
            exceptions.BusyLoadingError("Redis is loading …"),
            StoreDown,
            "LOADING: it loads its data",
        ),
        (exceptions.ResponseError("unknown command 'HELLO'"), StoreMisfit, "too old"),
        (
            exceptions.ResponseError(
                "Command # 2 (HGETALL {a}:history:HK.00700) of pipeline caused error: "
                "('WRONGTYPE Operation against a key …',)"
            ),
            StoreMisfit,
            "holds another type: {a}:history:HK.00700; give redis.namespace",
        ),
        (
            exceptions.ResponseError(
                "Command # 2 (DEL {a}:rehearsal:fe:stream …) of pipeline caused error: "
                "('MISCONF Valkey is configured to save …',)"
            ),
            StoreDown,
            "^MISCONF: it takes no writes",
        ),
        (
            exceptions.ResponseError(
                "Command # 2 (DEL {a}:rehearsal:fe:stream) of pipeline caused error: "
                "('something new',)"
            ),
            StoreMisfit,
            "^Redis refuses a command: something new$",
        ),
        (
            exceptions.ResponseError(
                "Command # 1 (SET {a}:-BUSY:x 1) of pipeline caused error: ('NOPERM no',)"
            ),
            StoreMisfit,
            "^Redis refuses this user: NOPERM no; docs/redis.md has the ACL SETUSER line",
        ),
        (
            exceptions.ExecAbortError(
                "Transaction discarded because of: MISCONF Errors …", status_code="EXECABORT"
            ),
            StoreDown,
            "^MISCONF: it takes no writes",
        ),
        (
            exceptions.ExecAbortError(
                "Transaction discarded because of previous errors.", status_code="EXECABORT"
            ),
            StoreDown,
            "^EXECABORT: it refused a part",
        ),
        (
            exceptions.ResponseError("UNBLOCKED force unblock from blocking operation, …"),
            StoreDown,
            "^UNBLOCKED: it is the primary no more",
        ),
        (
            exceptions.ConnectionError("max number of clients reached"),
            StoreDown,
            "the server takes no more clients: raise its maxclients",
        ),
        (
            OSError(errno.EMFILE, "Too many open files"),
            StoreDown,
            "too many files are open here: raise the limit",
        ),
        (
            exceptions.ResponseError("WRONGTYPE Operation …"),
            StoreMisfit,
            "holds another type; give",
        ),
        (exceptions.ResponseError("DB index is out of range"), StoreMisfit, "^redis.url ends in a"),
        (
            exceptions.AuthenticationError("HELLO must be called with the client already …"),
            LockedOut,
            "write it into redis.url, redis://:PASSWORD@HOST:PORT",
        ),
        (
            exceptions.AuthenticationError("invalid username-password pair or user is disabled."),
            LockedOut,
            "no such user and password: correct them in redis.url",
        ),
        (exceptions.ResponseError("BUSYGROUP …"), StoreMisfit, "refuses a command"),
        (exceptions.ConnectionError("Connection closed by server."), StoreDown, "was cut"),
        (exceptions.TimeoutError("Timeout reading from h:1"), StoreDown, "no answer in time"),
        (ConnectionResetError("h"), StoreDown, "h"),
    ],
)
async def test_an_error_says_what_to_do(
    problem: Exception, expected: type[StoreError], text: str
) -> None:
    """What passes is waited for, what does not is the operator's; one trouble has one text."""
    with pytest.raises(expected, match=text), translated():
        raise problem


async def test_a_server_that_cannot_save_is_waited_for(tmp_path: Path) -> None:
    """At the start and while running; the rehearsal's keys are not shown to an operator."""
    with nodes.node(tmp_path / "a", 'save "3600 1"', "appendonly no") as server:
        store = RedisStore(server.url, "short-interest")
        await store.inspect()
        shutil.rmtree(tmp_path / "a")
        server.ask("SET", "any", "1")
        server.ask("BGSAVE")
        nodes.until(lambda: server.ask("INFO", "persistence")["rdb_last_bgsave_status"] == "err")
        for call in (
            store.inspect(),
            publish(store, CODES[0]),
            store.leases.acquire("me", 1),
            store.ledger.grant("main", "r", limit=1, period=1, margin=0),
            store.streams.signal("watchlist"),
        ):
            with pytest.raises(StoreDown, match=r"^MISCONF: it takes no writes because it cannot"):
                await call
        server.ask("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
        await store.inspect()
        await store.close()


async def test_a_replica_is_called_one_at_the_start_as_well(tmp_path: Path) -> None:
    """Whose URL names it reads so; it is waited for, and asked anew once it is the primary."""
    with nodes.node(tmp_path / "a") as server:
        store = RedisStore(server.url, "short-interest")
        server.ask("REPLICAOF", "127.0.0.1", "1")
        for _ in range(2):
            with pytest.raises(StoreDown, match=r"^READONLY: it is a replica: name the primary"):
                await store.inspect()
        server.ask("REPLICAOF", "NO", "ONE")
        await store.inspect()
        await store.close()


async def test_a_server_with_too_many_clients_says_whose_limit_it_is(tmp_path: Path) -> None:
    """The server's own limit is reported with the fix; open connections go on."""
    with nodes.node(tmp_path / "a") as server:
        first, second = (RedisStore(server.url, "short-interest") for _ in range(2))
        await first.watchlist.version()
        server.ask("CONFIG", "SET", "maxclients", 1)
        with pytest.raises(StoreDown, match=r"^the server takes no more clients: raise its maxc"):
            await second.watchlist.version()
        assert await first.watchlist.version() == 0
        await first.close()
        await second.close()


@pytest.mark.parametrize("heard", [0, 10])
@pytest.mark.parametrize("linger", [False, True])
async def test_what_accepts_and_hangs_up_is_one_trouble(heard: int, *, linger: bool) -> None:
    """A proxy without a server behind it, however it ends a connection, gives one reason."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(heard)
        if linger:
            options = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.get_extra_info("socket").setsockopt(*options)
        writer.close()

    proxy = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    store = RedisStore(f"redis://127.0.0.1:{proxy.sockets[0].getsockname()[1]}", "short-interest")
    told = set()
    for _ in range(10):
        for call in (
            store.watchlist.version(),
            store.inspect(),
            store.streams.read("0", count=1, block=1),
        ):
            with pytest.raises(StoreDown) as raised:
                await call
            told.add(str(raised.value))
    proxy.close()
    await store.close()
    assert told == {"no answer in time, or the connection was cut"}


def used_files() -> int:
    """Return the highest descriptor in use."""
    return max(int(each.name) for each in Path("/proc/self/fd").iterdir())


async def test_too_many_open_files_are_told_as_ours(tmp_path: Path) -> None:
    """Not as a server that is away."""
    with nodes.node(tmp_path / "a") as server:
        store = RedisStore(server.url, "short-interest")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (used_files(), hard))
        taken = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            with pytest.raises(StoreDown, match="too many files are open here: raise the limit"):
                await store.watchlist.version()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in taken:
                os.close(each)
        assert await store.watchlist.version() == 0
        await store.close()


async def test_any_node_leads_to_the_slot_and_follows_it(tmp_path: Path) -> None:
    """Every node of a Cluster will do as the URL; a slot that moves is followed, all entries too.

    A second store, connected before, finds the new owner by itself.
    """
    with nodes.cluster(tmp_path) as members:
        stores = [RedisStore(node.url, "short-interest") for node in members]
        for code, store in zip(CODES, stores, strict=False):
            await publish(store, code)
        before = nodes.owner(members, "short-interest")
        move_slot(members, before, next(node for node in members if node is not before))
        assert nodes.owner(members, "short-interest") is not before
        for code, store in zip(CODES[3:], stores, strict=False):
            assert await eventually(store, code) < scaled(5)
            assert len(set(await ids(store))) == len(await ids(store))
        assert len(await ids(stores[0])) == 6
        for store in stores:
            await store.close()


def move_slot(members: list[nodes.Node], source: nodes.Node, target: nodes.Node) -> None:
    """Move the namespace's slot as redis-cli does: keys first, then the news to every node."""
    slot = source.ask("CLUSTER", "KEYSLOT", "short-interest")
    names = {node.port: node.ask("CLUSTER", "MYID") for node in members}
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source.port])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target.port])
    keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1000)
    source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    for node in (target, source, *members):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", names[target.port])


async def test_sentinels_that_name_no_primary_say_why(tmp_path: Path) -> None:
    """They are away, watch another, see it down, or want a password: each has a reason of its own.

    A wrong password ends the wait, as that of the server itself does.
    """
    with nodes.watched(tmp_path) as (primary, replica, watchers):
        url = nodes.sentinel_url(watchers)

        async def refused(url: str) -> str:
            store = RedisStore(url, "short-interest")
            with pytest.raises(StoreError) as raised:
                await store.watchlist.version()
            await store.close()
            return f"{type(raised.value).__name__}: {raised.value}"

        other = url.removesuffix(nodes.WATCHED) + "other"
        assert await refused(other) == "StoreDown: no Sentinel watches 'other'"
        for each in (replica, primary):
            each.kill()
        nodes.until(lambda: "down" in watchers[0].ask("SENTINEL", "MASTER", nodes.WATCHED)["flags"])
        assert await refused(url) == "StoreDown: no server takes the writes now"
        watchers[0].ask("ACL", "SETUSER", "default", "resetpass", ">guard")
        assert (await refused(url)).startswith("LockedOut: Redis refuses the user or password: ")
        right = await refused(f"{url}?sentinel_password=guard")
        assert right == "StoreDown: no server takes the writes now"
        assert (await refused(f"{url}?sentinel_password=wrong")).startswith("LockedOut: ")
        watchers[0].kill()
        expected = f"nobody listens at 127.0.0.1:{watchers[0].port}"
        assert await refused(url) == f"StoreDown: no Sentinel names the primary: {expected}"


async def test_redis_py_opens_and_reads_where_it_did() -> None:
    """What our connections override has kept its form, and none of its own names is taken by ours.

    Every way to send a command on a closed connection asks where to go; every answer comes through
    `read_response`. A version of redis-py that does otherwise fails here, not at a failover.
    """
    where = inspect.signature(Connection.connect_check_health)
    assert str(where) == "(self, check_health: bool = True, retry_socket_connect: bool = True)"
    theirs = {*vars(Connection(host="any")), *dir(SSLConnection)}
    assert theirs & {"_guide", "_to_replica"} == set()
    told: list[str] = []

    class Recording(Connection):
        async def connect_check_health(self, *args: object, **options: object) -> None:
            del args, options
            told.append(f"{self.host}:{self.port}")
            self.port += 1
            raise exceptions.TimeoutError

        async def read_response(self, *args: object, **options: object) -> None:
            del args, options
            told.append("read")

    connection: Any = Recording(host="any", port=1, retry=Retry(NoBackoff(), 0))
    for call in (connection.connect(), connection.send_command("PING")):
        with pytest.raises(exceptions.TimeoutError):
            await call
    client = Redis()
    await client.parse_response(connection, "PING")
    await client.aclose()
    assert told == ["any:1", "any:2", "read"]
    moved = exceptions.MovedError("7 127.0.0.1:6380")
    assert (moved.host, moved.port) == ("127.0.0.1", 6380)


async def test_a_failover_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Kill -9 of the primary while it is written to, with one replica awaited by every commit.

    Writing goes on within seconds; whatever was acknowledged is there, and nothing twice.
    """
    with nodes.watched(tmp_path, sentinels=3) as (primary, _, watchers):
        store = RedisStore(nodes.sentinel_url(watchers), "short-interest", replicas=1)
        plain = RedisStore(nodes.sentinel_url(watchers), "short-interest")
        done: list[Code] = []
        writing = asyncio.create_task(write(store, done))
        async with at_most(20):
            while len(done) < 50:
                await asyncio.sleep(0.01)
        watchers[0].kill()
        primary.kill()
        gap = await eventually(plain, CODES[-1])
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        found = await ids(plain)
        assert gap < scaled(10)
        assert {f"{code}:2026-04-02:0" for code in done} <= set(found)
        assert len(found) == len(set(found))
        for each in (store, plain):
            await each.close()


async def test_what_a_failover_takes_back_is_published_again(tmp_path: Path) -> None:
    """Without waiting for replicas a failover can lose entries; their watermarks go with them.

    So the next poll finds them new: at the end everything is on the stream, once.
    """
    with nodes.watched(tmp_path) as (primary, replica, watchers):
        store = RedisStore(nodes.sentinel_url(watchers), "short-interest")
        await publish(store, CODES[0])
        nodes.until(lambda: replica.ask("XLEN", "short-interest") == 1)
        replica.ask("CONFIG", "SET", "masteruser", "nobody", "masterauth", "x")
        primary.ask("CLIENT", "KILL", "TYPE", "replica")
        for code in CODES[1:3]:
            await publish(store, code)
        primary.kill()
        assert await eventually(store, CODES[3]) < scaled(10)
        assert [CODES[1] in await store.records.watermarks(), len(await ids(store))] == [False, 2]
        for code in CODES[:4]:
            await publish(store, code)
        assert sorted(await ids(store)) == [f"{code}:2026-04-02:0" for code in CODES[:4]]
        await store.close()


async def write(store: RedisStore, done: list[Code]) -> None:
    """Publish symbol after symbol; `done` holds those whose commit was acknowledged."""
    for n in count():
        try:
            await publish(store, CODES[n])
        except StoreDown:
            await asyncio.sleep(0.05)
        else:
            done.append(CODES[n])


async def test_replicas_that_lag_stop_the_polling(tmp_path: Path) -> None:
    """Too few replicas: the commit fails, nothing is granted until they follow; no event twice."""
    with nodes.node(tmp_path / "a") as primary:
        store = RedisStore(primary.url, "short-interest", replicas=1)
        options = f"replicaof 127.0.0.1 {primary.port}"
        with nodes.node(tmp_path / "b", options) as replica:
            nodes.until(lambda: nodes.follows(replica))
            await eventually(store, CODES[0])
            replica.freeze()
            with pytest.raises(StoreDown, match=r"redis\.replicas"):
                await publish(store, CODES[1])
            with pytest.raises(StoreDown, match=r"redis\.replicas"):
                await store.ledger.grant("a", "r", limit=1, period=60, margin=0)
            assert await store.ledger.spent("a", period=60) == 0
            replica.thaw()
            await asyncio.to_thread(nodes.until, lambda: nodes.caught_up(primary))
            assert await store.ledger.grant("a", "r", limit=1, period=60, margin=0) == 0
            await eventually(store, CODES[1])
        assert len(await ids(store)) == 2
        await store.close()


@pytest.mark.parametrize(
    "raised", [None, StoreDown("too few replicas"), exceptions.ConnectionError("cut"), OSError()]
)
async def test_a_lost_cancellation_is_raised_after_all(raised: Exception | None) -> None:
    """What swallows one inside a command to Redis does not go on, whatever came of the command."""
    ended = []

    async def work() -> None:
        with contextlib.suppress(StoreDown), translated():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            if raised is not None:
                raise raised
        ended.append("went on")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert ended == []


@pytest.mark.parametrize("entry", [False, True])
async def test_a_blocking_read_ends_when_it_is_told_to(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, *, entry: bool
) -> None:
    """Cancelled at any turn of the loop, from connecting to closing, it ends at once, whole."""
    gc.collect()
    recwarn.clear()  # whatever another test left
    server = wire.Server(tmp_path)
    await server.start()
    store = RedisStore(f"unix://{server.path}", "any")
    if entry:
        await publish(store, CODES[0])
    for turns in range(0, 1200, 2) if entry else range(60):
        reading = asyncio.create_task(store.streams.read("0-0", count=1, block=60))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        async with at_most(30):
            await asyncio.wait([reading])
        assert reading.cancelled() or entry, turns
    await store.close()
    server.kill()
    del reading
    gc.collect()
    assert [str(each.message) for each in recwarn if "unclosed" in str(each.message)] == []
