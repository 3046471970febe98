"""The embedded server: a real Valkey in `state_dir`, for users without a Redis of their own.

Two servers would both start on one data directory, silently. So a lock decides, whose descriptor
only the server inherits: the lock is held exactly as long as the server lives, however the program
that started it ended. Lock busy → connect to the running server; lock free → start one. The last
program to leave shuts the server down; if it is killed, the server keeps running for the next one.
Programs are known by the names of their connections: other clients do not keep the server up.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from pydantic import SecretStr
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from poller.errors import LockedOut, StoreDown, StoreError, StoreMisfit
from poller.store.connections import PROCESS, PROGRAM
from poller.store.statedir import (
    SERVER,
    Unsafe,
    holds_data,
    make_private,
    make_socket_directory,
    open_own,
    read_password,
    write_password,
)
from poller.store.translation import translated
from poller.store.valkey import installed, settings_of
from poller.telemetry import log

START_LIMIT: Final = 30.0
"""Seconds a start may take, mostly for loading a large append-only file."""

_SOCKET_PATH_LIMIT: Final = 107
_PAUSE: Final = 0.01
_STARTS: Final = 3
_END_LIMIT: Final = 3.0  # seconds; a command has ten to end in
_UNUSABLE_AFTER: Final = 5.0
"""Seconds to wait for a server whose password cannot be read: one that is shutting down is gone by
then.
"""
_PING_LIMIT: Final = 5.0
_SILENT: Final = 4.0  # seconds of a ping: less than its limit, more than a refusal takes
_PRESENT: Final = 15.0
"""Seconds between two pings: a server that another program restarted does not know our connection.
"""


class Embedded:
    """The server of one `state_dir`. `running` keeps it up; `ensure` restarts it."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir.absolute()
        self._dir = self._state_dir / SERVER
        self._lock = self._dir / "server.lock"
        self._gate = self._dir / "gate.lock"
        self._log = self._dir / "server.log"
        self._password_file = self._dir / "password"
        self._password: str | None = None
        self._locked_out: str | None = None
        self._pid: int | None = None
        self._answered = float("-inf")
        self._presence: Any = None  # redis-py types no answer
        self._name = f"{PROGRAM}-{secrets.token_hex(4)}"

    @property
    def socket(self) -> Path:
        """Where the server listens; in /tmp if no socket or URL can have the path in state_dir."""
        path = self._dir / "redis.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT and str(path).isprintable():
            return path
        found = self._dir.stat()
        return Path(f"/tmp/poller-{found.st_uid}-{found.st_ino}/redis.sock")  # noqa: S108  made private

    @property
    def url(self) -> str:
        """The URL to connect with, password included; raises OSError if there is no password."""
        password = self._password or read_password(self._password_file)[0]
        return f"unix://:{quote(password, safe='')}@{quote(str(self.socket))}"

    def exists(self) -> bool:
        """Return whether a server runs or has left data; creates nothing."""
        return holds_data(self._state_dir) or self._is_held()

    def _is_held(self) -> bool:
        """Return whether a server runs."""
        try:
            lock = os.open(self._lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    @contextlib.asynccontextmanager
    async def running(self, *, hasty: bool = False) -> AsyncIterator[str]:
        """Keep the server up while the block runs, starting it if needed; yields its URL.

        `hasty`: raise StoreDown soon if it runs and answers nothing, instead of waiting for it.
        """
        self._prepare()
        if hasty:
            await self._check_heard()
        self._answered = float("-inf")
        try:
            await self.ensure()
            yield self.url
        finally:
            try:
                await self._leave()
            except StoreError:
                if not self._gate.exists():  # its directory is gone, so nobody else can find it
                    await self._stop_own()
            if self._presence is not None:
                await self._presence.aclose()

    async def is_blank(self) -> bool:
        """Return whether the running server holds nothing, and no other program uses it."""
        with translated():
            return not await self._presence.dbsize() and not await self._others()

    async def ensure(self) -> bool:
        """Start the server unless it is running; returns whether it had to be started."""
        clock = asyncio.get_running_loop().time
        began = clock()
        async with self._exclusive():
            starts = 0
            try:
                async with asyncio.timeout(START_LIMIT):
                    while True:
                        # every time: a server found running may have been shutting down
                        starts += self._start_if_free()
                        if starts > _STARTS:
                            raise StoreDown(f"the embedded server ends at once; see {self._log}")
                        if not starts and clock() < self._answered + _PRESENT:
                            return False
                        if await self._answers():
                            self._answered = clock()
                            return starts > 0
                        if self._locked_out is not None and clock() > began + _UNUSABLE_AFTER:
                            raise StoreMisfit(
                                f"state_dir: a server runs in {self._dir}, and it cannot be "
                                f"used: {self._locked_out}; end the programs that use it, then the "
                                "next one makes another password"
                            )
                        await asyncio.sleep(_PAUSE)
            except TimeoutError:
                raise StoreDown(
                    f"the embedded server did not answer within {START_LIMIT:.0f} s; "
                    f"see {self._log}"
                ) from None

    async def _check_heard(self) -> None:
        if not self._is_held():
            return
        clock = asyncio.get_running_loop().time
        began = clock()
        if not await self._answers() and clock() - began >= _SILENT:  # others answer, or refuse
            await self._presence.aclose()
            raise StoreDown(f"the embedded server in {self._dir} answers nothing")

    def _prepare(self) -> None:
        try:
            said = make_private(self._state_dir)
            make_socket_directory(self.socket.parent, self._dir)
        except Unsafe as unsafe:
            raise StoreMisfit(f"state_dir: {unsafe.strerror}") from None
        except OSError as problem:
            if holds_data(self._state_dir):
                raise StoreMisfit(
                    f"state_dir: {self._state_dir} is closed to this user: its embedded server is "
                    "for the user who runs it, and root; type this as one of them, or give "
                    "redis.url, which serves every user"
                ) from None
            raise StoreMisfit(
                f"state_dir: the embedded server cannot live in {self._dir}: {problem.strerror}; "
                "make the directory writable, or give redis.url"
            ) from None
        if not self._is_ours() and not self._gate.exists():
            raise StoreMisfit(self._no_start())
        for line in said:
            log.write("warning", f"state_dir: {line}")

    @contextlib.asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[None]:
        """Let one program at a time start, join or stop the server; OSError becomes StoreDown."""
        try:
            with self._opened(self._gate) as gate:
                while True:
                    try:
                        fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        await asyncio.sleep(0.02)
                yield
        except Unsafe as unsafe:
            raise StoreMisfit(f"state_dir: {unsafe.strerror}") from None
        except OSError as problem:
            raise StoreDown(
                f"the embedded server cannot be managed in {self._dir}: {problem.strerror}"
            ) from None

    @contextlib.contextmanager
    def _opened(self, path: Path, flags: int = os.O_RDWR) -> Iterator[int]:
        """Open a file of ours; create it unless we are root in another user's directory."""
        descriptor = open_own(path, flags | (os.O_CREAT if self._is_ours() else 0))
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _is_ours(self) -> bool:
        return self._dir.stat().st_uid == os.geteuid()

    def _no_start(self) -> str:
        return (
            f"state_dir: {self._dir} is another user's, and no server runs there: only that user "
            "can start it"
        )

    def _start_if_free(self) -> bool:
        self._reap()
        with self._opened(self._lock) as lock:  # the child inherits it, and so holds the lock
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if not self._is_ours():
                raise StoreMisfit(self._no_start())
            self._password_to_start_with()
            self._start(lock)
        return True

    def _password_to_start_with(self) -> None:
        """Read the password, or replace an unusable one, which is safe while no server runs.

        A password this process already uses is kept, as its connections know no other.
        """
        kept, why = None, None
        try:
            kept, why = read_password(self._password_file)
        except FileNotFoundError:
            pass
        except OSError as problem:
            why = f"{problem.strerror}: there is another password now"
        if why is not None:
            log.write("warning", f"state_dir: {why}")
        if self._password is None:
            self._password = kept or secrets.token_urlsafe(32)
        if kept != self._password:
            write_password(self._password_file, self._password)

    def _start(self, lock: int) -> None:
        make_socket_directory(self.socket.parent, self._dir)  # the last to leave removed it
        self.socket.unlink(missing_ok=True)
        binary = installed()
        output = open_own(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        settings, write_end = os.pipe()
        try:
            # before the start: without its settings, the server would listen on the public port
            os.write(write_end, settings_of(self.socket, self._password or "", self._dir).encode())
            os.set_inheritable(lock, True)  # noqa: FBT003  the server holds the lock from now on
            self._pid = os.posix_spawn(
                binary,
                [str(binary), "-"],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, settings, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_DUP2, output, 2),
                ],
                setsid=True,  # Ctrl-C ends the program, which then shuts the server down
            )
        finally:
            for descriptor in (output, settings, write_end):
                os.close(descriptor)

    def _reap(self) -> None:
        if self._pid is not None:
            with contextlib.suppress(ChildProcessError):
                ended, _ = os.waitpid(self._pid, os.WNOHANG)
                if not ended:
                    return
            self._pid = None

    async def _answers(self) -> bool:
        """Return whether the server answers, even if only with an error such as a full disk."""
        self._locked_out = None
        try:
            presence = self._connected()
            with translated(), contextlib.suppress(exceptions.ResponseError):
                await presence.ping()
        except StoreDown:
            return False
        except (OSError, LockedOut, StoreMisfit) as problem:
            self._locked_out = getattr(problem, "strerror", None) or str(problem)
            return False
        return True

    def _connected(self) -> Any:  # noqa: ANN401  redis-py types no answer
        """Return a connection that marks this process as a user of the server."""
        if self._presence is None:
            if self._password is None:
                self._password, said = read_password(self._password_file)
                if said is not None:
                    log.write("warning", f"state_dir: {said}")
            self._presence = Redis.from_url(
                self.url,
                socket_timeout=_PING_LIMIT,
                retry=Retry(NoBackoff(), 0),
                client_name=self._name,
                single_connection_client=True,
            )
        return self._presence

    async def _leave(self) -> None:
        """Shut the server down unless another program is connected."""
        async with self._exclusive():
            # twice: the first try may fail because the server was replaced
            there = await self._answers() or await self._answers()
            if not there:  # it was still starting: nobody can be connected
                await self._stop_own()
                return
            with translated():
                if await self._others():
                    # inside the lock, so that of two that leave at once the second is the last
                    await self._presence.aclose()
                    return
                await self._presence.shutdown(nosave=True)
            if self.socket.parent != self._dir:
                self.socket.unlink(missing_ok=True)
                self.socket.parent.rmdir()

    async def _others(self) -> bool:
        """Return whether another of our programs is connected; each connects inside the gate."""
        names = {str(client["name"]) for client in await self._presence.client_list()}
        return any(name.startswith(PROGRAM) for name in names - {self._name, PROCESS})

    async def _stop_own(self) -> None:
        """Terminate the server if this process started it; its writes are on disk.

        Waits for its end, as whoever removes the directory afterwards would find it at work there.
        """
        self._reap()
        if self._pid is not None:
            os.kill(self._pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_LIMIT):
                while self._pid is not None:
                    await asyncio.sleep(_PAUSE)
                    self._reap()


@contextlib.asynccontextmanager
async def server_of(
    url: SecretStr | None, state_dir: Path, *, hasty: bool = False
) -> AsyncIterator[tuple[str, Embedded | None]]:
    """Yield the URL of the configured server: `url`, or an embedded one, kept up for the block.

    The second value is the embedded server, or None. `hasty`: see `Embedded.running`.
    """
    if url is not None:
        yield url.get_secret_value(), None
        return
    embedded = Embedded(state_dir)
    async with embedded.running(hasty=hasty) as found:
        yield found, embedded
