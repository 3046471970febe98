"""Where the bridges write to: a real PostgreSQL and a real NATS, of this test alone."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import nats
import psycopg
from nats.js.errors import NotFoundError

from tests.machine import located, overdue, scaled
from tests.nodes import free_port

_NOBODY: Final = 65_534
"""Who PostgreSQL runs as where the tests run as root, which it refuses."""


class Target(ABC):
    """Where a bridge writes to.

    Attributes:
        example: The bridge.
        group: The consumer group that it reads as.
        place: What it is given.
        takes_nul: Whether an event with a NUL in a text can be stored.
        process: The server, once it was started.
    """

    example: str
    group: str
    place: str
    takes_nul: bool
    process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self) -> None:
        """Start it on what it has kept, and wait until it answers."""

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal that ends it, and wait for its end."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()

    @abstractmethod
    def holding(self) -> contextlib.AbstractContextManager[None]:
        """Let it store nothing while the block runs, as if that took long."""

    @abstractmethod
    async def ids(self) -> list[str]:
        """Return the ids of the events that it has stored, in its order."""


class PostgreSql(Target):
    """A table of events, in a cluster with its socket in `folder`: never the machine's own."""

    example, group, takes_nul = "to_postgresql.py", "postgresql", False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = f"host={folder} user=desk dbname=postgres"
        self.who: dict[str, Any] = {"cwd": "/"}
        if os.geteuid() == 0:
            os.chown(folder, _NOBODY, _NOBODY)
            self.who |= {"user": _NOBODY, "group": _NOBODY, "extra_groups": ()}

    def make(self) -> None:
        """Make the cluster."""
        how = ("--no-sync", "--auth=trust", "--username=desk", "--encoding=UTF8", "--no-locale")
        command = [_program("initdb"), "-D", str(self.folder / "data"), *how]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **self.who)

    def start(self) -> None:
        _until("PostgreSQL", self._answers)

    def _answers(self) -> bool:
        # it refuses while the children of one that was killed have not noticed yet
        if self.process is None or self.process.poll() is not None:
            self.process = self._run()
        with contextlib.suppress(psycopg.OperationalError):
            return bool(self.ask("SELECT 1"))
        return False

    def _run(self) -> subprocess.Popen[bytes]:
        options = ("-k", str(self.folder), "-c", "listen_addresses=", "-c", "fsync=off")
        command = [_program("postgres"), "-D", str(self.folder / "data"), *options]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, **self.who)

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        with psycopg.connect(self.place) as other:
            other.execute("LOCK TABLE short_interest IN EXCLUSIVE MODE")
            yield

    async def ids(self) -> list[str]:
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            return [each for (each,) in self.ask("SELECT id FROM short_interest ORDER BY n")]
        return []

    @contextlib.contextmanager
    def listening(self) -> Iterator[Callable[[], list[str]]]:
        """Yield what waits for the next that listeners are notified of, and returns it."""
        with psycopg.connect(self.place, autocommit=True) as other:
            other.execute("LISTEN short_interest")
            how: Any = {"timeout": scaled(20), "stop_after": 1}
            yield lambda: [each.payload for each in other.notifies(**how)]

    def ask(self, query: str) -> list[Any]:
        """Return the rows of a query."""
        with psycopg.connect(self.place, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()


def _until(what: str, condition: Callable[[], bool]) -> None:
    limit = scaled(20)
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(overdue(what, limit))
        time.sleep(0.02)


def _program(name: str) -> str:
    found = located(name)
    assert found is not None
    return found


class Nats(Target):
    """A stream of JetStream, kept in `folder`."""

    example, group, takes_nul = "to_nats.py", "nats", True

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.place = f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        place = ("-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder))
        command = [str(Path(sys.executable).parent / "nats-server"), *place]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        _until("NATS", self._listens)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    async def ids(self) -> list[str]:
        client = await nats.connect(self.place)
        try:
            stream = client.jetstream()
            last = (await stream.stream_info("SHORT_INTEREST")).state.last_seq
            found = [await stream.get_msg("SHORT_INTEREST", n + 1) for n in range(last)]
        except NotFoundError:
            return []
        finally:
            await client.close()
        assert all(str(each.subject).startswith("short-interest.") for each in found)
        return [str((each.headers or {})["Nats-Msg-Id"]) for each in found]


@contextlib.contextmanager
def running(kind: str) -> Iterator[Target]:
    """Run one of them, postgresql or nats."""
    # not below pytest's folder, which an ordinary user may not enter where root made it
    folder = Path(tempfile.mkdtemp(prefix=f"poller-{kind}-"))
    target = PostgreSql(folder) if kind == "postgresql" else Nats(folder)
    try:
        if isinstance(target, PostgreSql):
            target.make()
        target.start()
        yield target
    finally:
        target.kill(signal.SIGQUIT)  # PostgreSQL waits for its children then
        shutil.rmtree(folder)
