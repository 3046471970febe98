"""One OpenD: a connection of the SDK that is watched, thrown away and built anew.

The SDK's own reconnecting can die for good, and a reply cut in the middle poisons its next
connection. So a connection that leaves READY is thrown away and a new one is built, after a plain
TCP connect has shown that somebody listens.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from poller.errors import (
    Disconnected,
    GatewayError,
    Overdue,
    Silent,
    Unavailable,
)
from poller.gateway.ownstate import OwnState, RightsTold
from poller.gateway.rank import read_rank
from poller.gateway.sdk import (
    CHECK_LIMIT,
    Result,
    Sdk,
    discard,
    drop_on_close,
    login_of,
    read_group,
    read_page,
    read_state,
    read_user,
)
from poller.gateway.securities import ShareCounts, read_names, read_share_counts
from poller.gateway.user import User, user_of
from poller.markets import Market
from poller.model import Code, Page, RankPage

READY_LIMIT: Final = 25.0
"""Seconds a new connection may take; the SDK gives up on a mute login after 20 s."""

LATE: Final = 5.0
"""Seconds with requests under way and no answer to any, after which an OpenD counts as not ready.

The SDK gives a request up after 12 s: so long all would be said to be well while a link stalls.
"""

_LOOK: Final = 0.2  # seconds between two looks at the SDK's status
_STEADY: Final = 30.0  # a connection that held this long resets the backoff
_LONGEST_PAUSE: Final = 10.0
_TIMEOUTS_IN_A_ROW: Final = 3
_REACH_LIMIT: Final = 4.0
_READY: Final = "READY"


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
        self._own = OwnState(sdk, self.account, state_told)
        self._login = ""
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

    def follow_rights(self, told: RightsTold) -> None:
        """Call `told` whenever OpenD says which rights the account has, or that they changed."""
        self._own.rights_told = told

    @property
    def ready(self) -> bool:
        """See `Gateway.ready`."""
        return self._usable.is_set()

    async def wait_ready(self) -> None:
        """See `Gateway.wait_ready`."""
        await self._usable.wait()

    @property
    def login(self) -> str:
        """The user it is, or was last, logged in as: OpenD counts requests by user; "": unknown."""
        return self._own.user.login or self._login

    async def page(self, code: Code, key: str | None) -> Page:
        """See `Gateway.page`."""
        return await self._ask(lambda context: read_page(context, code, key))

    async def group(self, name: str) -> list[str]:
        """See `Gateway.group`."""
        return await self._ask(lambda context: read_group(context, name))

    async def rank(self, market: Market, offset: int) -> RankPage:
        """Return a market's symbols from `offset` on, largest position first.

        Raises GatewayError. Its silence says nothing of the connection: this is a hint.
        """
        context = self._connected()
        return await self._sdk.hint(lambda: read_rank(context, market, offset))

    async def names(self, codes: Sequence[Code]) -> dict[Code, str]:
        """Return the names of symbols of one market that have one; raises GatewayError."""
        return await self._ask(lambda context: read_names(context, codes))

    async def share_counts(self, codes: Sequence[Code]) -> dict[Code, ShareCounts]:
        """Return how many shares there are, in the same way; this needs a right to quotes."""
        return await self._ask(lambda context: read_share_counts(context, codes))

    async def state(self) -> dict[str, Any]:
        """Return how OpenD says it is, which spends nothing; raises GatewayError."""
        return await self._check(read_state)

    async def _check(self, ask: Callable[[Any], Result]) -> Result:
        """Ask what is answered at once or not at all; the connection is not judged by it."""
        context = self._connected()
        return await self._sdk.check(lambda: ask(context))

    async def user(self) -> User:
        """Return what it says of the user it is logged in as, which spends nothing.

        Raises GatewayError.
        """
        return user_of(await self._check(read_user))

    def _connected(self) -> Any:  # noqa: ANN401  the SDK has no types
        if self._context is None:
            raise Disconnected(f"OpenD {self.name} is not connected")
        return self._context

    async def _ask(self, ask: Callable[[Any], Result]) -> Result:
        context, connection = self._connected(), self._connections
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
            await self._sdk.control(lambda: drop_on_close(context))
            self._login = await self._sdk.control(lambda: login_of(context))
            self._connections += 1
            self._own.start_over()
            began = ended = loop.time()
            self._context, self._timeouts = context, 0
            self._usable.set()
            if not self._mute:
                self._report(ready=True, reason="connected")
            while self._usable.is_set() and self._timeouts < _TIMEOUTS_IN_A_ROW:
                if not await self._is_ready(context):
                    break
                await self._own.look(context)
                late = loop.time() - self._unheard if self._under_way else 0.0
                if late > LATE - CHECK_LIMIT and not self._mute and await self._lives(context):
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
                closing = self._sdk.control(lambda: discard(context))
                with contextlib.suppress(Exception):
                    await asyncio.shield(asyncio.ensure_future(closing))
        self._report(ready=False, reason=reason)
        return ended - began

    def _hear(self, loop: asyncio.AbstractEventLoop, notification: object) -> None:
        """Take a notification, in a thread of the SDK's, to the loop."""
        with contextlib.suppress(RuntimeError):  # which has ended
            loop.call_soon_threadsafe(self._own.take, notification)

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
