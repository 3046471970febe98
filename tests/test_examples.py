"""The examples in `config/examples` print what is published while they run, and say why if not."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis

from poller.detect.compare import compare
from poller.markets.hk import HkRecord
from poller.model import Code
from poller.store.embedded import Embedded
from poller.store.redisstore import RedisStore
from poller.store.store import ONE_OFF
from tests import nodes
from tests.machine import at_most, needs
from tests.service import now, until

FOLDER = Path("config/examples")
RUN = {"follow.py": sys.executable, "follow.sh": "sh", "follow.mjs": "node"}
BRIDGES = {
    "home-assistant.yaml",
    "n8n.json",
    "to_faststream.py",
    "to_nats.py",
    "to_postgresql.py",
}
"""Those that `test_bridges` and `test_bridges_by_webhook` run."""
RECEIVERS = {"verify.py", "verify.mjs"}
"""Those that `test_deliver` calls."""
TRIED = [
    "follow.py",
    pytest.param("follow.sh", marks=needs("redis-cli")),
    pytest.param("follow.mjs", marks=needs("node")),
]


def test_there_is_a_way_to_run_every_example() -> None:
    """No example is left out of these tests."""
    assert {file.name for file in FOLDER.iterdir()} == {*RUN, *BRIDGES, *RECEIVERS}


@pytest.mark.parametrize("name", TRIED)
@pytest.mark.parametrize("kind", ["open", "user", "embedded"])
async def test_an_example_prints_what_is_new(name: str, kind: str, tmp_path: Path) -> None:
    """Two events, one after the other: both are printed, with their figures.

    From a server that is open, from one as a user with a password, and from the embedded one.
    """
    async with serving(kind, tmp_path / "server") as url, started(name, url, tmp_path):
        for figure in (123_456, 654_321):
            await told(url, figure, tmp_path / "out")


@pytest.mark.parametrize("name", TRIED)
async def test_an_example_goes_on_when_its_server_is_back(name: str, tmp_path: Path) -> None:
    """A server that is killed and started again is waited for, and what comes then is printed."""
    with nodes.node(tmp_path / "server") as server:
        async with started(name, server.url, tmp_path):
            await told(server.url, 123_456, tmp_path / "out")
            server.kill()
            server.start()
            await told(server.url, 654_321, tmp_path / "out")


@pytest.mark.parametrize("name", TRIED)
async def test_an_example_misses_nothing_while_its_server_is_away(
    name: str, tmp_path: Path
) -> None:
    """A server that goes before any event came: what is published before it is back is printed."""
    with nodes.node(tmp_path / "server") as server:
        async with started(name, server.url, tmp_path):
            with Redis.from_url(server.url, decode_responses=True) as admin:
                await until(partial(listened_to, admin))
            server.kill()
            server.start()
            store = RedisStore(server.url, "short-interest")
            await publish(store, 654_321)
            await store.close()
            await until(partial(printed, tmp_path / "out", "654321"))


@pytest.mark.parametrize("name", TRIED)
@pytest.mark.parametrize("given", ["", ":wrong@"])
async def test_an_example_that_is_refused_says_so_and_ends(
    name: str, given: str, tmp_path: Path
) -> None:
    """A server wants a password: without it, or with another, the exit code is 1, the reason told.

    In words, not as the stack of a program that did not expect it.
    """
    with nodes.node(tmp_path / "server") as server:
        server.ask("CONFIG", "SET", "requirepass", "right")
        url = f"redis://{given}127.0.0.1:{server.port}"
        async with started(name, url, tmp_path) as process, at_most(20):
            assert await process.wait() == 1
    reason = (tmp_path / "err").read_text(encoding="utf-8")
    assert "Redis refuses" in reason
    assert "password" in reason or "Authentication required" in reason
    assert "Traceback" not in reason
    assert " at " not in reason


@pytest.mark.parametrize("name", TRIED[1:])
async def test_an_example_pauses_while_its_server_is_away(name: str, tmp_path: Path) -> None:
    """A port that hangs up at once is tried once a second: three times take two seconds."""
    loop, tried = asyncio.get_running_loop(), list[float]()

    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tried.append(loop.time())
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with started(name, f"redis://127.0.0.1:{port}", tmp_path):
            await until(lambda: len(tried) >= 3)
    assert tried[2] - tried[0] > 1.5  # the first may have been noticed late


@pytest.mark.parametrize("name", TRIED)
async def test_an_example_is_ended_by_ctrl_c(name: str, tmp_path: Path) -> None:
    """Without a stack: that is how everybody ends it."""
    with nodes.node(tmp_path / "server") as server:
        async with started(name, server.url, tmp_path) as process, at_most():
            await told(server.url, 123_456, tmp_path / "out")
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            await process.wait()
    assert "Traceback" not in (tmp_path / "err").read_text(encoding="utf-8")


@asynccontextmanager
async def serving(kind: str, folder: Path) -> AsyncIterator[str]:
    """Run a server and yield the URL an example is given."""
    if kind == "embedded":
        async with Embedded(folder).running() as url:
            yield url
    else:
        with nodes.node(folder, "user desk on >p@ss/word ~* &* +@all") as server:
            user = "desk:p%40ss%2Fword@" if kind == "user" else ""
            if user:
                server.ask("ACL", "SETUSER", "default", "off")
            yield f"redis://{user}127.0.0.1:{server.port}"


@asynccontextmanager
async def started(name: str, url: str, folder: Path) -> AsyncIterator[Process]:
    """Run an example; what it prints is in the files `out` and `err`."""
    arguments, more = [url], {}
    if name == "follow.sh" and url.startswith("unix:"):
        place = urlsplit(url)
        arguments, more = ["-s", place.path], {"REDISCLI_AUTH": place.password or ""}
    elif name == "follow.sh":
        arguments = ["-u", url]
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            # jobs that a script started in the background ignore Ctrl-C, and so would this
            *("env", "--default-signal=INT", RUN[name], str(FOLDER / name), *arguments),
            stdout=out,
            stderr=err,
            env=os.environ | more,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the redis-cli a shell is waiting for
        await process.wait()


async def told(url: str, figure: int, out: Path) -> None:
    """Wait until the example listens, publish a figure, and wait until it is printed."""
    with Redis.from_url(url, decode_responses=True) as admin:
        await until(partial(listened_to, admin))
    store = RedisStore(url, "short-interest")
    try:
        await publish(store, figure)
    finally:
        await store.close()
    await until(partial(printed, out, str(figure)))


def listened_to(admin: Redis) -> bool:
    """Tell whether a client waits for an entry."""
    return bool(admin.info("clients")["blocked_clients"])


def printed(out: Path, text: str) -> bool:
    """Tell whether an example has printed a text."""
    return text in out.read_text(encoding="utf-8")


async def publish(store: RedisStore, figure: int, name: str | None = None) -> None:
    """Let a symbol report one figure; each a day later than the other. `name`: where known."""
    code = Code("HK.00700")
    snapshot = await store.records.snapshot(code)
    row = HkRecord(None, f"2026-04-0{1 + len(snapshot.history)}", figure, 0.5, 10.0, 9.0)
    found = compare(code, [row], snapshot.known, observed_at=now(), history=50)
    events = tuple(replace(event, name=name) for event in found.events)
    await store.records.commit(code, replace(found, events=events), snapshot, ONE_OFF)
