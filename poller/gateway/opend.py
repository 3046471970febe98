"""OpenD through the official SDK: the only file that imports it.

The SDK is synchronous and stubborn. It hangs for ever on a host that does not answer, its own
reconnecting can die for good, a reply cut in the middle poisons the next connection, its threads
outlive the program, and importing it takes over Ctrl-C. So: it is imported and called in threads
of its own, under our own time limits; a connection that leaves READY is thrown away and a new one
is built, after a plain TCP connect has shown that somebody listens; and the program leaves through
`os._exit` once everything is flushed (see `cli.runner`).
"""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from poller.errors import (
    ConfigError,
    Disconnected,
    GatewayError,
    Overdue,
    Silent,
    Unavailable,
)
from poller.frozen import frozen_import
from poller.gateway import vendor
from poller.gateway.rsakey import problem_of_key
from poller.gateway.state import changes_rights, trouble_in, trouble_of
from poller.model import Code, Page

if TYPE_CHECKING:
    from types import ModuleType

PAGE_SIZE: Final = 50
"""Rows a request brings at the most; the largest costs no more of the budget than the smallest."""

CALL_LIMIT: Final = 15.0
"""Seconds for one call; the SDK's own limit is 12 s from sending."""

READY_LIMIT: Final = 25.0
"""Seconds a new connection may take; the SDK gives up on a mute login after 20 s."""

LATE: Final = 5.0
"""Seconds with requests under way and no answer to any, after which an OpenD counts as not ready.

The SDK gives a request up after 12 s: so long all would be said to be well while a link stalls.
"""

_CHECK_LIMIT: Final = LATE / 2
"""Seconds in which an OpenD that lives answers a call of another kind, which spends nothing."""

STATE_EVERY: Final = 60.0
"""Seconds between two looks at how OpenD says it is; the first is at once."""

_LOOK: Final = 0.2  # seconds between two looks at the SDK's status
_STEADY: Final = 30.0  # a connection that held this long resets the backoff
_LONGEST_PAUSE: Final = 10.0
_TIMEOUTS_IN_A_ROW: Final = 3
_THREADS: Final = 32
_REACH_LIMIT: Final = 4.0
_READY: Final = "READY"
_LOG_SIZE: Final = 1_000_000  # bytes; one older file of this size is kept

Result = TypeVar("Result")


class Gateway(Protocol):
    """One OpenD, seen from the poll loop."""

    name: str
    account: str

    @property
    def ready(self) -> bool:
        """Whether a call can be made now."""

    async def wait_ready(self) -> None:
        """Return once a call can be made."""

    async def page(self, code: Code, key: str | None) -> Page:
        """Return one page of a symbol's short interest, newest first; raises GatewayError."""

    async def group(self, name: str) -> list[str]:
        """Return the codes of one of the user's watch groups; raises GatewayError."""


_G = TypeVar("_G", bound=Gateway)


async def any_ready(gateways: Sequence[_G]) -> _G:
    """Return the first of the gateways that is ready, once there is one."""
    waits = {asyncio.ensure_future(gateway.wait_ready()): gateway for gateway in gateways}
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return next(gateway for wait, gateway in waits.items() if wait in done)
    finally:
        for wait in waits:
            wait.cancel()


@dataclass(frozen=True, slots=True)
class Address:
    """Where an OpenD listens, and whose account it is logged in to."""

    host: str
    port: int
    account: str

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ConnectionChange:
    """A gateway became usable or stopped being so; `rebuilds` counts connections thrown away."""

    gateway: str
    ready: bool
    reason: str
    rebuilds: int


class Sdk:
    """The SDK module and the threads it is called in; one per process, shared by all gateways."""

    def __init__(self, state_dir: Path, rsa_private_key_file: Path | None = None) -> None:
        self._home = state_dir / "sdk"
        self._key = rsa_private_key_file
        self._queries = ThreadPoolExecutor(_THREADS, thread_name_prefix="futu-query")
        # apart from the queries, so that hanging ones cannot keep a dead connection in place
        self._control = ThreadPoolExecutor(2, thread_name_prefix="futu-control")
        self._checks = ThreadPoolExecutor(_THREADS, thread_name_prefix="futu-check")
        self._module: ModuleType | None = None

    async def load(self) -> None:
        """Import the SDK, which takes some 0.4 s.

        Raises ConfigError for an unusable key file, or a `state_dir` that takes no log.
        """
        await self.control(self._load)

    async def query(self, function: Callable[[], Result]) -> Result:
        """Run one request to OpenD in a thread; raises Silent after `CALL_LIMIT` seconds."""
        return await self._within(CALL_LIMIT, self._queries, function)

    async def control(self, function: Callable[[], Result]) -> Result:
        """Run one short call to the SDK in a thread; raises Silent when it hangs."""
        return await self._within(CALL_LIMIT, self._control, function)

    async def check(self, function: Callable[[], Result]) -> Result:
        """Run one call that an OpenD answers at once, if it lives; raises Silent if it does not."""
        return await self._within(_CHECK_LIMIT, self._checks, function)

    async def _within(
        self, limit: float, threads: ThreadPoolExecutor, function: Callable[[], Result]
    ) -> Result:
        try:
            async with asyncio.timeout(limit):
                return await asyncio.get_running_loop().run_in_executor(threads, function)
        except TimeoutError:
            raise Silent(f"the SDK did not return within {limit:g} s") from None

    def close(self) -> None:
        """Take no more calls; threads inside the SDK are left behind, see `cli.runner`."""
        self._queries.shutdown(wait=False, cancel_futures=True)
        self._control.shutdown(wait=False, cancel_futures=True)
        self._checks.shutdown(wait=False, cancel_futures=True)

    def _load(self) -> None:
        # not in the main thread: there, the import would replace the handler of SIGINT
        try:
            futu, logger = self._imported()
            _keep_small(logger, self._home / "futu.log")
        except OSError as problem:
            line = f"state_dir: the SDK's log cannot live in {self._home}: {problem.strerror}"
            raise ConfigError([f"{line}; make the directory writable, or name another"]) from None
        # without its handler, as enable_console_log leaves it, it would end on stderr all the same
        logger.console_level = logging.CRITICAL
        futu.SysConfig.set_all_thread_daemon(True)
        if self._key is not None:
            _check_key(self._key)
            futu.SysConfig.set_init_rsa_file(str(self._key))
            futu.SysConfig.enable_proto_encrypt(True)  # noqa: FBT003
            # The SDK makes its cipher when first needed, in each connection's thread: a thread that
            # replaces another's frees it in use, a crash in one of a hundred starts. So: now, once.
            futu.common.sys_config.RsaCrypt.encrypt(b"")
        self._module = futu

    def _imported(self) -> tuple[Any, Any]:
        """Return the SDK and its logger, which opens its log while it is imported."""
        self._home.mkdir(parents=True, exist_ok=True)
        before = os.environ.get("HOME")
        os.environ["HOME"] = str(self._home)
        try:
            with frozen_import():
                import futu  # noqa: PLC0415  slow, and wants to be in this thread
                from futu.common.ft_logger import logger  # noqa: PLC0415
        finally:
            if before is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = before
        return futu, logger

    def open(self, ip: str, port: int, notified: Callable[[object], None]) -> Any:  # noqa: ANN401  the SDK has no types
        """Return a connection that is still being made; this never blocks.

        `notified` is called in a thread of the SDK's, with what OpenD sends unasked.
        """
        if self._module is None:
            raise RuntimeError("load() comes first")
        context = self._module.OpenQuoteContext(host=ip, port=port, is_async_connect=True)
        context.set_sync_query_connect_timeout(2)
        context.set_handler(_listener(self._module, notified))
        return context


def _listener(module: Any, notified: Callable[[object], None]) -> object:  # noqa: ANN401  as above
    """Return what the SDK hands the notifications of a connection to."""

    class Listener(module.SysNotifyHandlerBase):  # type: ignore[misc]  # it has no types
        def on_recv_rsp(self, rsp_pb: object) -> object:
            status, content = super().on_recv_rsp(rsp_pb)
            if status == 0:
                notified(content)
            return status, content

    return Listener()


def _keep_small(logger: Any, path: Path) -> None:  # noqa: ANN401  the SDK has no types
    """Let the SDK log warnings to one file of bounded size; its own made one a day and start."""
    mine = RotatingFileHandler(path, maxBytes=_LOG_SIZE, backupCount=1, encoding="utf-8")
    mine.setFormatter(logger.formatter)
    theirs, logger.fileHandler = logger.fileHandler, mine
    logger.file_logger.removeHandler(theirs)
    logger.file_logger.addHandler(mine)
    theirs.close()
    for old in Path(theirs.baseFilename).parent.glob("py_*.log*"):
        old.unlink(missing_ok=True)
    logger.file_level = logging.WARNING
    logging.raiseExceptions = False  # a full disk is no reason for a traceback a line


def _check_key(path: Path) -> None:
    """Raise ConfigError unless the SDK can use the key; the SDK would say so only at login."""
    if (problem := problem_of_key(path)) is not None:
        raise ConfigError([f"opend.rsa_private_key_file: {problem}"])


def read_page(context: Any, code: Code, key: str | None) -> Page:  # noqa: ANN401  as above
    """Ask for one page and read the answer, however long that takes; raises GatewayError."""
    status, us_frame, hk_frame = context.get_short_interest(code, next_key=key, num=PAGE_SIZE)
    if status != 0:
        raise vendor.error_of(us_frame)
    return vendor.page_of(code, us_frame, hk_frame)


def read_group(context: Any, name: str) -> list[str]:  # noqa: ANN401  as above
    """Ask for a watch group and read the answer, however long that takes; raises GatewayError."""
    status, frame = context.get_user_security(name)
    if status != 0:
        raise vendor.error_of(frame)
    return [str(code) for code in frame["code"]]


def read_state(context: Any) -> dict[str, Any]:  # noqa: ANN401  as above
    """Ask how OpenD is, which spends no request of any budget; raises GatewayError."""
    status, state = context.get_global_state()
    if status != 0:
        raise vendor.error_of(state)
    return dict(state)


def _discard(context: Any) -> None:  # noqa: ANN401  the SDK has no types
    """Close a connection, and the callback thread its `close` forgets after a refused login."""
    context.close()
    forget = getattr(context, "_close_callback_executor", None)
    if forget is not None:
        forget()


def _drop_on_close(context: Any) -> None:  # noqa: ANN401  the SDK has no types
    """Let the end of a connection, however it comes, drop what was not sent (SO_LINGER of 0 s).

    The system would go on sending it after a close, for minutes over a link that stalls: requests
    that were given up would arrive late, beside those that were granted in their place.
    """
    find = getattr(getattr(context, "_net_mgr", None), "_get_conn", lambda _: None)
    made = getattr(find(getattr(context, "_conn_id", 0)), "sock", None)
    if made is not None:
        with contextlib.suppress(OSError):  # it has ended already
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class OpenD:
    """A `Gateway` over one SDK connection at a time, which `supervise` keeps alive."""

    def __init__(
        self,
        address: Address,
        sdk: Sdk,
        changed: Callable[[ConnectionChange], None],
        state_told: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`state_told` is called with what OpenD says is wrong with itself, or ""."""
        self.name = str(address)
        self.account = address.account
        self._address = address
        self._sdk = sdk
        self._changed = changed
        self._state_told = state_told
        self._state_at = 0.0  # when it is looked at next
        self._rights_told: Callable[[str], None] = lambda _: None
        self._context: Any = None
        self._usable = asyncio.Event()
        self._reported: bool | None = None
        self._reason = ""
        self._timeouts = 0
        self._mute = False  # a login that is followed by no answer ends no trouble
        self._checking = asyncio.Lock()
        self._checked = (float("-inf"), False)  # when it was asked last, and whether it answered
        self._under_way = 0
        self._unheard = 0.0  # since when what is under way has no answer, in the loop's seconds
        self._builds = 0
        self._connections = 0  # those that became usable

    def follow_rights(self, told: Callable[[str], None]) -> None:
        """Call `told` with the account whenever OpenD says that its rights have changed."""
        self._rights_told = told

    @property
    def ready(self) -> bool:
        """See `Gateway.ready`."""
        return self._usable.is_set()

    async def wait_ready(self) -> None:
        """See `Gateway.wait_ready`."""
        await self._usable.wait()

    async def page(self, code: Code, key: str | None) -> Page:
        """See `Gateway.page`."""
        return await self._ask(lambda context: read_page(context, code, key))

    async def group(self, name: str) -> list[str]:
        """See `Gateway.group`."""
        return await self._ask(lambda context: read_group(context, name))

    async def state(self) -> dict[str, Any]:
        """Return how OpenD says it is, which spends nothing; raises GatewayError."""
        context = self._context
        if context is None:
            raise Disconnected(f"OpenD {self.name} is not connected")
        return await self._sdk.check(lambda: read_state(context))

    async def _ask(self, ask: Callable[[Any], Result]) -> Result:
        context, connection = self._context, self._connections
        if context is None:
            raise Disconnected(f"OpenD {self.name} is not connected")
        if not self._under_way:
            self._unheard = asyncio.get_running_loop().time()
        self._under_way += 1
        try:
            answer = await self._sdk.query(lambda: ask(context))
        except Unavailable as problem:
            if isinstance(problem, Silent):
                if context is self._context and await self._lives(context):
                    raise Overdue(f"{problem}, though OpenD answers other calls") from problem
                self._timeouts += 1
            if self._timeouts:  # given up by us; what OpenD itself hung up on arrives no more
                problem.replaced = lambda: self._connections > connection
            if isinstance(problem, Disconnected) and context is self._context:
                self._usable.clear()  # known at once, and not only at the next look
            raise
        except GatewayError:
            self._heard()
            raise
        finally:
            self._under_way -= 1
        self._heard()
        return answer

    async def _lives(self, context: Any) -> bool:  # noqa: ANN401  the SDK has no types
        """Tell whether OpenD answers a call of another kind: then a silence is not the link's.

        Whoever asks while somebody else does takes that answer.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with self._checking:
            if self._checked[0] < began:
                try:
                    await self._sdk.check(lambda: read_state(context))
                    lives = True
                except Unavailable:
                    lives = False
                except GatewayError:  # a refusal is an answer
                    lives = True
                self._checked = loop.time(), lives
            lives = self._checked[1]
        if lives and context is self._context:
            self._heard()
        return lives

    def _heard(self) -> None:
        self._timeouts = 0
        self._unheard = asyncio.get_running_loop().time()
        if self._mute:
            self._mute = False
            self._report(ready=True, reason="connected")

    async def supervise(self) -> None:
        """Keep a usable connection, for ever: build, watch, throw away, build again."""
        pause = _LOOK
        while True:
            held = await self._one_connection()
            pause = _LOOK if held > _STEADY else min(2 * pause, _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _one_connection(self) -> float:
        """Build a connection and hold it while it lives; return the seconds it was usable."""
        context = None
        began = ended = 0.0
        loop = asyncio.get_running_loop()
        reason = "the connection was lost"
        try:
            ip = await self._listening()
            context = await self._sdk.control(
                lambda: self._sdk.open(ip, self._address.port, partial(self._hear, loop))
            )
            self._builds += 1
            await self._until_ready(context)
            await self._sdk.control(lambda: _drop_on_close(context))
            self._connections += 1
            self._state_at = 0.0
            began = ended = loop.time()
            self._context, self._timeouts = context, 0
            self._usable.set()
            if not self._mute:
                self._report(ready=True, reason="connected")
            while self._usable.is_set() and self._timeouts < _TIMEOUTS_IN_A_ROW:
                if not await self._is_ready(context):
                    break
                await self._look_at_state(context)
                late = loop.time() - self._unheard if self._under_way else 0.0
                if late > LATE - _CHECK_LIMIT and not self._mute and await self._lives(context):
                    continue
                if late and loop.time() > self._unheard + LATE:
                    self._mute = True
                    self._report(ready=False, reason=f"no answer for {LATE:g} s")
                await asyncio.sleep(_LOOK)
            if self._timeouts:
                self._mute = True
                reason = f"{self._timeouts} requests in a row without an answer"
        except (Unavailable, OSError) as problem:
            reason = str(problem)
        finally:
            ended = loop.time() if began else 0.0
            self._usable.clear()
            self._context = None
            if context is not None:
                closing = self._sdk.control(lambda: _discard(context))
                with contextlib.suppress(Exception):
                    await asyncio.shield(asyncio.ensure_future(closing))
        self._report(ready=False, reason=reason)
        return ended - began

    def _hear(self, loop: asyncio.AbstractEventLoop, notification: object) -> None:
        """Take a notification, in a thread of the SDK's, to the loop."""
        with contextlib.suppress(RuntimeError):  # which has ended
            loop.call_soon_threadsafe(self._notified, notification)

    def _notified(self, notification: object) -> None:
        if changes_rights(notification):
            self._rights_told(self.account)
        if (trouble := trouble_in(notification)) is not None:
            self._state_at = asyncio.get_running_loop().time() + STATE_EVERY
            self._state_told(trouble)

    async def _look_at_state(self, context: Any) -> None:  # noqa: ANN401  the SDK has no types
        """Tell what OpenD says is wrong with itself, now and then; silence is another's matter."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._state_at:
            return
        self._state_at = loop.time() + STATE_EVERY
        with contextlib.suppress(GatewayError):
            self._state_told(trouble_of(await self._sdk.check(lambda: read_state(context))))

    async def _listening(self) -> str:
        """Return the IP address after a plain TCP connect, which fails in bounded time.

        The SDK itself would hang on a name that does not resolve, and leak a thread on a network
        that cannot be reached.
        """
        host, port = self._address.host, self._address.port
        try:
            async with asyncio.timeout(_REACH_LIMIT):
                # for an address no thread is taken, which names of others may occupy
                _, writer = await asyncio.open_connection(host, port, family=socket.AF_INET)
                ip = str(writer.get_extra_info("peername")[0])
                writer.close()
        except TimeoutError:
            raise Unavailable(
                f"no answer: is {host} up, and does a firewall let port {port} through?"
            ) from None
        except socket.gaierror as problem:
            raise Unavailable(f"the name {host} does not resolve: {problem.strerror}") from None
        except OSError as problem:
            why = os.strerror(problem.errno) if problem.errno else str(problem)
            cure = "is OpenD started, and does [[opend]] name its port?"
            raise Unavailable(f"nobody listens ({why}): {cure}") from None
        return ip

    async def _until_ready(self, context: Any) -> None:  # noqa: ANN401  the SDK has no types
        try:
            async with asyncio.timeout(READY_LIMIT):
                while not await self._is_ready(context):
                    await asyncio.sleep(_LOOK / 10)
        except TimeoutError:
            raise Unavailable(
                "it accepts connections but no login: is OpenD logged in, and is encryption "
                "switched on at both ends, with the same key, or at neither?"
            ) from None

    async def _is_ready(self, context: Any) -> bool:  # noqa: ANN401  the SDK has no types
        return bool(await self._sdk.control(lambda: context.status) == _READY)

    def _report(self, *, ready: bool, reason: str) -> None:
        # a connection that was lost may be followed by another reason, which has another cure
        if (ready, reason) != (self._reported, self._reason) and not (ready and self._reported):
            self._reported, self._reason = ready, reason
            self._changed(ConnectionChange(self.name, ready, reason, max(0, self._builds - 1)))
