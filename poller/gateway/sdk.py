"""The official SDK: the only file that imports it.

The SDK is synchronous and stubborn. It hangs for ever on a host that does not answer, its threads
outlive the program, and importing it takes over Ctrl-C. So it is imported and called in threads of
its own, under our own time limits, and the program leaves through `os._exit` once everything is
flushed (see `cli.runner`).
"""

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from logging.handlers import RotatingFileHandler
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Final, TypeVar

from poller.errors import ConfigError, Silent
from poller.frozen import frozen_import
from poller.gateway import vendor
from poller.gateway.rsakey import problem_of_key
from poller.model import Code, Page

if TYPE_CHECKING:
    from types import ModuleType

PAGE_SIZE: Final = 50
"""Rows a request brings at the most; the largest costs no more of the budget than the smallest."""

CALL_LIMIT: Final = 15.0
"""Seconds for one call; the SDK's own limit is 12 s from sending."""

CHECK_LIMIT: Final = 2.5
"""Seconds in which an OpenD that lives answers a call of another kind, which spends nothing."""

_THREADS: Final = 32
_HINT_THREADS: Final = 8
_LOG_SIZE: Final = 1_000_000  # bytes; one older file of this size is kept

Result = TypeVar("Result")


class Sdk:
    """The SDK module and the threads it is called in; one per process, shared by all gateways."""

    def __init__(self, state_dir: Path, rsa_private_key_file: Path | None = None) -> None:
        self._home = state_dir / "sdk"
        self._key = rsa_private_key_file
        self._queries = ThreadPoolExecutor(_THREADS, thread_name_prefix="futu-query")
        # apart from the queries, so that hanging ones cannot keep a dead connection in place
        self._control = ThreadPoolExecutor(2, thread_name_prefix="futu-control")
        self._checks = ThreadPoolExecutor(_THREADS, thread_name_prefix="futu-check")
        # nor may what is only a hint hold up the checks by which a connection is judged
        self._hints = ThreadPoolExecutor(_HINT_THREADS, thread_name_prefix="futu-hint")
        self._module: ModuleType | None = None
        self._removed: Path | None = None

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
        return await self._within(CHECK_LIMIT, self._checks, function)

    async def hint(self, function: Callable[[], Result]) -> Result:
        """Run one call whose answer is worth nothing once it is late; raises Silent then."""
        return await self._within(CHECK_LIMIT, self._hints, function)

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
        self._hints.shutdown(wait=False, cancel_futures=True)
        if self._removed is not None:
            shutil.rmtree(self._removed, ignore_errors=True)

    def _load(self) -> None:
        # not in the main thread: there, the import would replace the handler of SIGINT
        try:
            if _is_anothers(self._home.parent):  # root's files would be in its service's way
                self._home = self._removed = Path(mkdtemp(prefix="poller-sdk-"))
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
                return _import_either()
        finally:
            if before is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = before

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


def _is_anothers(directory: Path) -> bool:
    """Return whether this is root in a directory of another user."""
    try:
        return os.geteuid() == 0 != directory.stat().st_uid
    except OSError:
        return False


def _import_either() -> tuple[Any, Any]:
    """Import futu-api or, where only that is there, moomoo-api: the SDK under its other name."""
    try:
        import futu as sdk  # noqa: PLC0415  slow, and wants to be in this thread
        from futu.common.ft_logger import logger  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        if missing.name != "futu":
            raise
        import moomoo as sdk  # noqa: PLC0415
        from moomoo.common.ft_logger import logger  # noqa: PLC0415
    return sdk, logger


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


def read_user(context: Any) -> dict[str, Any]:  # noqa: ANN401  as above
    """Ask who is logged in and what that user may see; spends nothing; raises GatewayError."""
    status, info = context.get_user_info()
    if status != 0:
        raise vendor.error_of(info)
    return dict(info)


def login_of(context: Any) -> str:  # noqa: ANN401  as above
    """Return the number of the user that OpenD named at the login; "" if it named none."""
    user = context.get_login_user_id()
    return str(user) if user else ""


def discard(context: Any) -> None:  # noqa: ANN401  the SDK has no types
    """Close a connection, and the callback thread its `close` forgets after a refused login."""
    context.close()
    forget = getattr(context, "_close_callback_executor", None)
    if forget is not None:
        forget()


def drop_on_close(context: Any) -> None:  # noqa: ANN401  the SDK has no types
    """Let the end of a connection, however it comes, drop what was not sent (SO_LINGER of 0 s).

    The system would go on sending it after a close, for minutes over a link that stalls: requests
    that were given up would arrive late, beside those that were granted in their place.
    """
    find = getattr(getattr(context, "_net_mgr", None), "_get_conn", lambda _: None)
    made = getattr(find(getattr(context, "_conn_id", 0)), "sock", None)
    if made is not None:
        with contextlib.suppress(OSError):  # it has ended already
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
