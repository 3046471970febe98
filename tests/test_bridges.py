"""The bridges in `config/examples`, and what other clients read: each a process of its own.

What they read was written by the product, on a real server, and what they write to is real, too.
"""

import asyncio
import itertools
import os
import re
import sys
from ast import literal_eval
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from poller.store.redisstore import RedisStore
from tests import nodes
from tests.feed import publish
from tests.machine import at_most, needs
from tests.service import until, whole_lines
from tests.targets import PostgreSql, Target, running
from tests.test_documents import PAGES, shown

FOLDER = Path("config/examples")
POISON: list[dict[str, str | bytes]] = [
    {"who": "knows"},
    {"data": "no JSON"},
    {"data": b"\xff\xfe", "code": b"\xff"},
    {"data": "[" * 50_000},
    {"__data__": "an envelope of FastStream's own"},
    {"data": '["a","list"]'},
    {"id": "HK.00700:2026-01-01:0", "type": "short_interest.reported", "data": "{}"},
]
"""Entries that anybody may append; the product passes them over as well."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nodes.Node]:
    """A server that keeps what it acknowledged; each test begins with an empty one."""
    with nodes.node(tmp_path_factory.mktemp("redis")) as node:
        yield node


@pytest.fixture
def redis(server: nodes.Node) -> nodes.Node:
    """The server, emptied."""
    server.ask("FLUSHALL")
    return server


async def tell(redis: nodes.Node, code: str, *days: int) -> list[str]:
    """Let the product publish an event a day; returns their ids."""
    store = RedisStore(redis.url, "short-interest")
    try:
        return await publish(store, code, days)
    finally:
        await store.close()


def spoil(redis: nodes.Node) -> None:
    """Append what is no event."""
    for fields in POISON:
        redis.ask(
            "XADD", "short-interest", "*", *(each for pair in fields.items() for each in pair)
        )


def with_nul(redis: nodes.Node) -> str:
    """Append an event of another version with a NUL in a text; returns its id."""
    ((_, fields),) = redis.ask("XRANGE", "short-interest", "-", "+", "COUNT", 1)
    fields["id"] = made = fields["id"].rpartition(":")[0] + ":7"
    fields |= {"revision": "7", "data": fields["data"].replace("{", r'{"later":"\u0000",', 1)}
    redis.ask("XADD", "short-interest", "*", *(each for pair in fields.items() for each in pair))
    return str(made)


def with_dot(redis: nodes.Node) -> str:
    """Append an event whose code ends in a dot; returns its id."""
    ((_, fields),) = redis.ask("XREVRANGE", "short-interest", "+", "-", "COUNT", 1)
    fields = {name: text.replace("US.AAPL", "US.A.") for name, text in fields.items()}
    redis.ask("XADD", "short-interest", "*", *(each for pair in fields.items() for each in pair))
    return str(fields["id"])


def pending(redis: nodes.Node, group: str) -> int:
    """Return how many entries a group was given and has not acknowledged."""
    groups = redis.ask("XINFO", "GROUPS", "short-interest")
    return sum(int(each["pending"]) for each in groups if each["name"] == group)


@asynccontextmanager
async def started(
    name: str, *arguments: str, out: Path, **variables: str
) -> AsyncIterator[Process]:
    """Run an example while the block runs; what it prints is appended to a file."""
    with out.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(FOLDER / name), *arguments),
            stdout=file,
            stderr=file,
            env={**os.environ, **variables},
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def events(out: Path) -> list[tuple[str, ...]]:
    """Return the lines that tell of an event, word by word."""
    return [
        tuple(line.split(" ", 2)) for line in whole_lines(out) if line.startswith(("HK.", "US."))
    ]


# other clients


async def printed(*command: str) -> str:
    """Return what a command prints that succeeds."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    async with at_most(what=command[0]):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


CODES_AND_DAYS = [("HK.00700", "2020-01-01"), ("HK.00700", "2020-01-02"), ("US.AAPL", "2020-01-03")]


async def tell_both_markets(redis: nodes.Node) -> None:
    """Publish `CODES_AND_DAYS`."""
    await tell(redis, "HK.00700", 1, 2)
    await tell(redis, "US.AAPL", 3)


@needs("redis-cli")
async def test_redis_cli_prints_code_and_day_of_data(redis: nodes.Node) -> None:
    """The line of the events page: `data` alone is enough, and `grep` reads it."""
    await tell_both_markets(redis)
    (line,) = (each for each in PAGES["events"].splitlines() if "redis-cli --raw XRANGE" in each)
    command = line.removeprefix("$ ").replace("redis-cli", f"redis-cli -p {redis.port}", 1)
    values = [each.split('"')[3] for each in (await printed("sh", "-c", command)).splitlines()]
    assert [*zip(values[::2], values[1::2], strict=True)] == CODES_AND_DAYS


async def test_redis_py_prints_code_and_day_of_data(redis: nodes.Node) -> None:
    """The Python lines of the events page, from the oldest entry on until none is left."""
    await tell_both_markets(redis)
    code = shown("events", "import json, redis")
    code = code.replace("redis.Redis(", f"redis.Redis.from_url({redis.url!r}, ")
    code = code.replace('"$"', '"0"').replace("while True", "for _ in range(1)")
    out = await printed(sys.executable, "-c", code)
    assert [tuple(line.split()[:2]) for line in out.splitlines()] == CODES_AND_DAYS


async def test_faststream_hands_over_data(redis: nodes.Node, tmp_path: Path) -> None:
    """Its handler gets `data` as a dictionary; a restart goes on in order; poison stops nothing.

    The second run begins when an entry was delivered, but not acknowledged before a kill -9.
    """
    spoil(redis)
    await tell_both_markets(redis)
    out = tmp_path / "out"
    async with started("to_faststream.py", redis.url, out=out):
        await until(lambda: len(events(out)) == 3 and not pending(redis, "faststream"))
    assert [(code, day) for code, day, _ in events(out)] == CODES_AND_DAYS
    await tell(redis, "HK.00700", 4)
    group = ("GROUP", "faststream", "only", "COUNT", 1, "STREAMS", "short-interest", ">")
    assert redis.ask("XREADGROUP", *group)
    await tell(redis, "HK.00700", 5)
    redis.ask("XGROUP", "SETID", "short-interest", "faststream", "0")
    assert redis.ask("XREADGROUP", *group)  # one of the first, which is trimmed then
    redis.ask("XTRIM", "short-interest", "MAXLEN", "=", 2)
    async with started("to_faststream.py", redis.url, out=out):
        await until(lambda: len(events(out)) == 5 and not pending(redis, "faststream"))
    assert [(day, literal_eval(change)["shares"]) for _, day, change in events(out)[3:]] == [
        ("2020-01-04", 2),
        ("2020-01-05", 1),
    ]


async def test_faststream_says_why_it_ends(redis: nodes.Node, tmp_path: Path) -> None:
    """A key of another type, as any refusal, is one line and exit code 1, for a supervisor."""
    redis.ask("SET", "short-interest", "text")
    out = tmp_path / "out"
    async with started("to_faststream.py", redis.url, out=out) as process, at_most(20):
        assert await process.wait() == 1
    assert out.read_text(encoding="utf-8").splitlines()[-1].startswith("Redis refuses: WRONGTYPE")


# bridges that write each event once


@pytest.fixture(params=[pytest.param("postgresql", marks=needs("initdb")), "nats"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Each of them, running."""
    with running(request.param) as made:
        yield made


async def test_a_bridge_writes_each_event_once(
    redis: nodes.Node, target: Target, tmp_path: Path
) -> None:
    """In the order of the stream, whatever is killed, and whatever else stands in the stream.

    It is killed when an event is written and not acknowledged: the event is given again to the
    next run, and is not written again. That run begins while its target is away.
    """
    out, ids = tmp_path / "out", await tell(redis, "HK.00700", 1, 2)
    spoil(redis)
    odd = with_nul(redis)
    ids += [odd] if target.takes_nul else []
    ids += await tell(redis, "US.AAPL", 3)
    ids += [with_dot(redis)]
    async with started(target.example, redis.url, target.place, out=out) as bridge:
        await stored(target, ids)
        await until(lambda: not pending(redis, target.group))
        with target.holding():
            ids += await tell(redis, "HK.00700", 4)
            await until(lambda: pending(redis, target.group) == 1)
            redis.ask("CLIENT", "PAUSE", 60_000, "WRITE")  # so that it cannot acknowledge
        await stored(target, ids)
        bridge.kill()
        await bridge.wait()
    redis.ask("CLIENT", "KILL", "TYPE", "normal")  # what it had sent is not performed after all
    redis.ask("CLIENT", "UNPAUSE")
    assert pending(redis, target.group) == 1
    target.kill()
    redis.ask("DEL", f"{{short-interest}}:reader:{target.group}")  # instead of ten seconds
    ids += await tell(redis, "HK.00700", 5)
    said = out.stat().st_size
    async with started(target.example, redis.url, target.place, out=out):
        await until(lambda: out.stat().st_size > said)  # that its target is away
        target.start()
        await stored(target, ids)
        await until(lambda: not pending(redis, target.group))
        if isinstance(target, PostgreSql):
            with target.listening() as heard:
                assert await tell(redis, "US.AAPL", 6) == await asyncio.to_thread(heard)
    said_of_it = out.read_text(encoding="utf-8")
    assert (f"passed over {odd}" in said_of_it) is not target.takes_nul
    assert "Traceback" not in said_of_it
    if isinstance(target, PostgreSql):
        (query,) = re.findall(r"```sql\n(.*?);\n```", PAGES["bridges"], re.DOTALL)
        assert [(code, str(day)) for code, day, *_ in target.ask(query)] == [
            *(("HK.00700", f"2020-01-0{day}") for day in (5, 4, 2, 1)),
            ("US.A.", "2020-01-03"),
            ("US.AAPL", "2020-01-06"),
            ("US.AAPL", "2020-01-03"),
        ]


async def test_a_server_that_is_away_is_told_once(redis: nodes.Node, tmp_path: Path) -> None:
    """Not at each try of the many that it takes until it is back."""
    await tell(redis, "HK.00700", 1)
    tries, out = itertools.count(), tmp_path / "out"
    enough = asyncio.Event()

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        if next(tries) >= 3:
            enough.set()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    place = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, started("to_nats.py", redis.url, place, out=out), at_most():
        await enough.wait()
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines
    assert len(lines) == len(set(lines))


async def stored(target: Target, ids: list[str]) -> None:
    """Wait until a target has stored so many events; they are these."""
    async with at_most(what=f"{len(ids)} events in {target.group}"):
        while len(found := await target.ids()) < len(ids):
            await asyncio.sleep(0.05)
    assert found == ids


async def test_the_variables_name_the_database(redis: nodes.Node, tmp_path: Path) -> None:
    """With the address of Redis alone, PostgreSQL is where its own variables say."""
    await tell(redis, "HK.00700", 1)
    out = tmp_path / "out"
    async with started("to_postgresql.py", redis.url, out=out, PGHOST="/not/there"):
        await until(lambda: any("/not/there" in line for line in whole_lines(out)))
