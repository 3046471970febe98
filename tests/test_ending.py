"""How a command ends: on a signal at any moment, whatever hangs, and whatever takes its output."""

import asyncio
import contextlib
import errno
import io
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from poller.cli.runner import FAILED, report
from poller.service import composition
from poller.settings.config import load
from poller.store.redis_status import RedisStatusStore
from poller.store.redisstore import RedisStore
from poller.telemetry.log import configure
from poller.telemetry.notify import Notify
from tests import nodes
from tests.feed import publish
from tests.machine import at_most, send
from tests.receiver import SECRET, Receiver
from tests.service import Service, ended, store_of, until


async def test_every_role_ends_in_time_whatever_hangs(tmp_path: Path) -> None:
    """Redis stopped and a receiver that never answers: 0 within 10 s, and what was kept is said.

    The poller has a lease to give back, and waits longer for Redis than it has time for: it leaves
    without. The others are free to end in good order; each role says how it ended, once.
    """
    with nodes.node(tmp_path / "server") as server:
        async with Receiver().running() as receiver:
            receiver.answer = lambda _: asyncio.Event()
            settings = {
                "POLLER_REDIS__URL": f"{server.url}?socket_timeout=60",
                "POLLER_WEBHOOKS__NAME": "desk",
                "POLLER_WEBHOOKS__URL": receiver.url,
                "POLLER_WEBHOOKS__SECRET": SECRET,
                "POLLER_WEBHOOKS__EVENTS": "reported,backfilled",
            }
            roles = []
            for name in ("run", "deliver", "web"):
                (tmp_path / name).mkdir()
                roles.append(Service(tmp_path / name, 1, "HK.00700", settings, role=name))
            store = RedisStore(server.url, "short-interest")
            try:
                await asyncio.gather(*(role.start() for role in roles))
                await asyncio.gather(*(role.said("ready") for role in roles))
                await roles[0].said("polling")
                await publish(store, "HK.00005", [1])
                await receiver.until(1)
                server.freeze()
                codes = await asyncio.gather(*(role.stop() for role in roles))
            finally:
                server.thaw()
                await store.close()
                for role in roles:
                    if role.process is not None and role.process.returncode is None:
                        await role.kill()
    assert codes == [0, 0, 0]
    left_all_the_same = [role.told("stopping: not done after 8 s") for role in roles]
    assert left_all_the_same[0] == 1
    in_good_order = [sum(line["event"] == "stopped" for line in role.log()) for role in roles]
    assert [sum(each) for each in zip(left_all_the_same, in_good_order, strict=True)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [
        ("run", signal.SIGTERM, 0),
        ("run", signal.SIGINT, 0),
        ("check", signal.SIGINT, 130),
        ("webhook enable web", signal.SIGINT, 130),
        ("health", signal.SIGTERM, 143),
    ],
)
async def test_a_signal_during_the_imports(
    tmp_path: Path, command: str, number: signal.Signals, code: int
) -> None:
    """Before any loop listens for signals: not a word, and 0 only from what a signal ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", "-m", "poller", *command.split()),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    told = []
    try:
        async with at_most():
            async for line in process.stderr:
                text = line.decode()
                if not text.startswith("import time:"):
                    told.append(text)
                if text.rpartition("|")[2].strip() == "pydantic":
                    send(process, number)
            assert await process.wait() == code
    finally:
        if process.returncode is None:
            process.kill()
    assert told == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_interrupted_command_has_not_succeeded(
    tmp_path: Path, number: signal.Signals
) -> None:
    """`poller check && poller run` does not run after Ctrl-C; nothing is said of it."""
    service = Service(tmp_path, 1, "HK.00700")
    async with store_of(service) as store:
        await publish(store, "HK.00700", [1])
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "poller", "tail", "--json"),
            env=service.environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with at_most():
            assert await process.stdout.readline()
            send(process, number)
            out, err = await process.communicate()
    assert (out, err) == (b"", b"")
    assert process.returncode == 128 + number


async def test_an_interrupted_demo_has_not_succeeded(tmp_path: Path) -> None:
    """It tells what was seen until then, and ends its service."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "poller", "demo"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
    )
    async with at_most():
        await until(lambda: any(tmp_path.glob("poller-demo-*/redis/password")))
        send(process, signal.SIGINT)
        out, _ = await process.communicate()
    assert b"left with exit code 0" in out
    assert process.returncode == 130
    await until(lambda: not any(tmp_path.iterdir()))


@pytest.mark.parametrize("command", ["--help", "watch list", "tail --from 0 --count 1"])
async def test_an_output_that_takes_nothing(tmp_path: Path, command: str) -> None:
    """A reader that has gone ends a command quietly; a full or closed stdout is one line and 1."""
    service = Service(tmp_path, 1, "HK.00700")
    async with store_of(service) as store:
        await publish(store, "HK.00700", [1])
        told = await asyncio.gather(
            *(
                shell(service, f"{command} {redirection}")
                for redirection in ("| true", ">/dev/full", ">&-", ">/dev/null 2>&-")
            )
        )
    gone, full, closed, unheard = told
    assert (gone, unheard) == ((0, ""), (0, ""))
    assert [(code, text.count("\n")) for code, text in (full, closed)] == [(1, 1), (1, 1)]
    assert "stdout cannot be written" in full[1]
    assert "stdout is closed" in closed[1]


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, "disk: No space left"), (None, "defect")]
)
def test_the_machine_is_the_operators_to_mend(number: int | None, expected: str) -> None:
    """A disk or a directory is a line without a trace; an error without a number is a defect."""
    problem = OSError() if number is None else OSError(number, os.strerror(number), "/disk")
    with contextlib.redirect_stderr(io.StringIO()) as screen:
        configure()
        assert report(problem) == FAILED
    assert expected in screen.getvalue()
    assert ("exception" in screen.getvalue()) is (number is None)


@pytest.mark.parametrize("log", ["/dev/full", "a pipe"])
async def test_a_log_that_takes_nothing(tmp_path: Path, log: str) -> None:
    """A full disk below the log, or a reader of it that has gone: the work goes on, and ends well.

    Ctrl-C in a terminal ends what reads the log, too.
    """
    reading, writing = os.pipe() if log == "a pipe" else (None, os.open(log, os.O_WRONLY))
    service = Service(tmp_path, 1, "HK.00700")
    async with store_of(service) as store:
        status_store = RedisStatusStore(store.url, "short-interest")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "poller", "run"),
            env=service.environment(),
            cwd=tmp_path,
            stderr=writing,
        )
        os.close(writing)
        if reading is not None:
            os.close(reading)
        try:
            async with at_most():
                while not await status_store.lease():
                    await asyncio.sleep(0.05)
            send(process, signal.SIGINT)
            assert await ended(process) == 0
            assert not await status_store.lease()
        finally:
            await status_store.close()
            if process.returncode is None:
                process.kill()
                await process.wait()


async def shell(service: Service, command: str) -> tuple[int, str]:
    """Run a command line of `poller`; returns the first exit code that is not 0, and stderr."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-o", "pipefail", "-c", f"{sys.executable} -m poller {command}"),
        env=service.environment(),
        stderr=asyncio.subprocess.PIPE,
    )
    async with at_most():
        _, err = await process.communicate()
    return process.returncode or 0, err.decode()


async def test_the_page_alone_ends_when_its_port_is_taken(tmp_path: Path) -> None:
    """It has nothing else to do: one line with the cure, not a process that serves nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "poller.toml").write_text(f'state_dir = "{tmp_path}"\nweb.port = {port}\n')
        config = load(tmp_path / "poller.toml", {})
        with pytest.raises(ExceptionGroup) as caught:
            async with at_most():
                await composition.serve(
                    config, lambda _: None, notify=Notify(None), reload=None, role="web"
                )
    assert report(caught.value) == FAILED
    problem: BaseException = caught.value
    while isinstance(problem, ExceptionGroup):
        (problem,) = problem.exceptions
    assert f"page: 127.0.0.1 port {port}: " in str(problem)
    assert "set web.host and web.port" in str(problem)
