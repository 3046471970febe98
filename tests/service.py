"""The poller as a process of its own, beside a simulator in the test's loop."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from poller.markets import Record
from poller.model import Code, market_of
from poller.simulator import World
from poller.store.embedded import Embedded
from poller.store.redisstore import RedisStore
from poller.store.store import Entry
from poller.telemetry import signals
from tests.machine import at_most, patience, scaled, send
from tests.opend import STILL, Simulator

PATIENCE = scaled(30.0)
"""Seconds to wait for anything outside the test's own process."""


@dataclass
class Service:
    """A poller process with quick intervals. `state_dir` outlives it.

    `directory`: where it is started, this project's if None. `module`: what is started.
    """

    state_dir: Path
    port: int
    codes: str
    settings: Mapping[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    directory: Path | None = None
    role: str = "run"
    module: str = "poller"
    unset: Sequence[str] = ()

    def environment(self) -> dict[str, str]:
        """Return the whole configuration, as environment variables, without those in `unset`."""
        variables = {
            **{k: v for k, v in os.environ.items() if not k.startswith("POLLER_")},
            "POLLER_CONFIG": os.devnull,
            "POLLER_STATE_DIR": str(self.state_dir),
            "POLLER_OPEND__PORT": str(self.port),
            "POLLER_WATCHLIST__CODES": self.codes,
            "POLLER_SCHEDULE__DUE": "0.2",
            "POLLER_SCHEDULE__IDLE": "0.2",
            "POLLER_SCHEDULE__LATE": "0.2",
            "POLLER_BUDGET__PERIOD": "1.0",
            "POLLER_WEB__PORT": "0",
            **self.settings,
        }
        return {name: text for name, text in variables.items() if name not in self.unset}

    async def start(self) -> None:
        """Start the process."""
        log = (self.state_dir / "log").open("ab")
        with log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self.module, self.role),
                env=self.environment(),
                cwd=self.directory,
                stderr=log,
            )

    async def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        self.process.kill()
        async with at_most(what="the end of what was killed"):
            await self.process.wait()

    async def stop(self) -> int:
        """Ask it to stop; returns its exit code. More than the promised 10 s is a failure."""
        assert self.process is not None
        if self.process.returncode is None:
            send(self.process, signal.SIGTERM)
        return await ended(self.process)

    def log(self) -> list[dict[str, Any]]:
        """Return the log lines so far."""
        lines = whole_lines(self.state_dir / "log")
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def said(self, text: str) -> None:
        """Wait until the log speaks of `text`."""
        try:
            await until(lambda: self.told(text) > 0)
        except TimeoutError as late:
            last = [line["event"] for line in self.log()[-5:]]
            raise TimeoutError(f"no {text!r} in the log, whose end is {last}: {late}") from late

    def told(self, text: str) -> int:
        """Return how many lines of the log speak of `text`."""
        return sum(text in line["event"] for line in self.log())

    def told_of(self, subject: str) -> list[str]:
        """Return the lines about a subject in their order; a reason is there once until it ends.

        What fails once more after its end is told once more: so much a busy machine does.
        """
        found = [line for line in self.log() if line["event"].startswith(f"{subject}: ")]
        reasons: set[str] = set()
        for line in found:
            if line["level"] == "info":
                reasons.clear()
            else:
                assert line["event"] not in reasons, found
                reasons.add(line["event"])
        return [line["event"] for line in found]


def whole_lines(file: Path) -> list[str]:
    """Return the lines of a file that another process writes, without one it is in the middle of.

    A part of a line may end anywhere, in the middle of a character as well.
    """
    return file.read_bytes().rpartition(b"\n")[0].decode().splitlines()


async def ended(process: asyncio.subprocess.Process) -> int:
    """Wait for the end of a service that was told to stop; returns its exit code.

    It gives itself 8 s, whatever hangs. The rest of the promised 10 s is what leaving costs,
    which a busy machine makes longer.
    """
    async with at_most(signals.STOP_LIMIT / patience() + 2, "the end of a service"):
        return await process.wait()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the world outside this process satisfies a condition."""
    async with at_most():
        while not condition():
            await asyncio.sleep(0.02)


async def poller(service: Service, *arguments: str) -> tuple[int, str, str]:
    """Run one command; returns exit code, stdout, stderr."""
    return await python(service, "-m", "poller", *arguments)


async def python(service: Service, *arguments: str) -> tuple[int, str, str]:
    """Run Python as a service's command; returns exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=service.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with at_most(what=f"python {' '.join(arguments)}"):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:  # late: nothing of it may reach into other tests
            process.kill()
            await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def store_of(service: Service) -> AsyncIterator[RedisStore]:
    """Open the embedded server of a service, as a second client."""
    async with Embedded(service.state_dir).running() as url:
        store = RedisStore(url, "short-interest")
        try:
            yield store
        finally:
            await store.close()


async def entries(
    store: RedisStore, count: int, code: str | None = None, *, seconds: float = 30
) -> list[Entry]:
    """Wait until the stream holds at least `count` entries (of a code); returns them all."""
    async with at_most(seconds, f"{count} entries of {code or 'all symbols'}"):
        while True:
            found = await store.streams.read("0", count=100_000, block=None)
            mine = [entry for entry in found if code in (None, entry.fields["code"])]
            if len(mine) >= count:
                return mine
            await asyncio.sleep(0.02)


def with_rows(world: World, code: Code, rows: tuple[Record, ...]) -> World:
    """Return a world that shows exactly these rows of a code, newest first."""
    return replace(world, extra={**world.extra, code: rows})


def later(record: Record, *, days: int, **figures: Any) -> Record:  # noqa: ANN401
    """Return a record of a later day with other figures."""
    day = record.day + timedelta(days=days)
    zone = market_of(Code("HK.00001")).zone
    stamp = int(datetime.combine(day, datetime.min.time(), zone).timestamp())
    return replace(record, timestamp=stamp, timestamp_str=str(day), **figures)


def simulator(world: World) -> Simulator:
    """Return a simulator that allows 30 requests a second, as the service is told."""
    return Simulator(world, requests=30, period=1.0)


async def whole(response: aiohttp.ClientResponse) -> None:
    """Read an answer to its end: one of which only the status is looked at stays open else.

    For the `raise_for_status` of a session that follows no events.
    """
    await response.read()


def now() -> datetime:
    """Return the instant at which the worlds of the simulators stand still."""
    return STILL
