"""The page's connections: how many it takes, and how long each may take over a request.

aiohttp bounds the bytes of a request, but neither the seconds until it is whole nor the number of
connections. So a protocol of ours stands between each transport and aiohttp's. It tells connections
that wait (for headers, for a body, or idle between two requests) from those that are being
answered: only the former are closed, when their time is over or when a new one needs the place.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestPayloadError
from yarl import URL

from poller.telemetry.observe import Observe, Recovered, Trouble
from poller.web.auth import Handle

MOST_CONNECTIONS: Final = 256
"""More than 64 readers of events and a few browsers need, which open six each."""

_PART: Final = 4
"""The page takes a quarter of the process's descriptors, and leaves the last quarter to the work.

That is Redis, OpenD, deliveries and files. The number of a descriptor is the lowest one that is
free: one in the last quarter says that few are left, whoever has the others.
"""

_BACKLOG: Final = 128
"""The system keeps so many waiting; one that finds no room there tries again after a second."""

_TURNS: Final = 4
"""From accepting one to the close of the one it replaces: so often the loop accepts meanwhile."""

_NOWHERE: Final = URL("/.nowhere")
_LOOK: Final = 0.5
_SUBJECT: Final = "page connections"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may take; times in seconds.

    Attributes:
        connections: open at once.
        ceiling: the number from which on a descriptor is left to the rest of the process.
        header: from the first byte of a request (for the first one: from the connection) until its
            headers are whole. A slow phone needs one or two.
        body: until the body is whole, which has 4 KiB at the most.
        idle: between two requests; longer than the 60 s for which nginx keeps a connection.
        stall: without a byte of an answer being taken.
        quiet: without a closed connection until the limit counts as kept again.
    """

    connections: int = MOST_CONNECTIONS
    ceiling: int = 1 << 30
    header: float = 10.0
    body: float = 10.0
    idle: float = 75.0
    stall: float = 30.0
    quiet: float = 30.0

    @property
    def at_once(self) -> int:
        """How many the loop accepts in one turn: those not yet closed have descriptors, too."""
        return max(1, self.connections // _TURNS)

    @property
    def readers(self) -> int:
        """How many connections may follow the events: half, so that there are always others."""
        return max(1, self.connections // 2)


def limits_of(descriptors: int) -> Limits:
    """Return the limits of a process that may open so many files; negative: any number."""
    if descriptors < 0:
        return Limits()
    part = max(1, descriptors // _PART)
    return Limits(min(MOST_CONNECTIONS, part), descriptors - part)


class Connections:
    """All connections of one server; `watch` must run beside it."""

    def __init__(self, limits: Limits, observe: Observe) -> None:
        """Take no connection yet."""
        self.limits = limits
        self._observe = observe
        self._now = asyncio.get_running_loop().time
        self._open: dict[asyncio.BaseTransport, _Connection] = {}
        self._waiting: dict[_Connection, None] = {}  # who waits longest comes first
        self._full_at: float | None = None

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def protocol_of(self, server: Callable[[], asyncio.Protocol]) -> "_Connection":
        """Return the protocol of a new connection; `server` makes aiohttp's."""
        return _Connection(self, server)

    async def watch(self) -> None:
        """Close for ever what has taken too long."""
        while True:
            await asyncio.sleep(min(_LOOK, self.limits.header / 4))
            now = self._now()
            for connection in [each for each in self._open.values() if each.is_overdue(now)]:
                connection.abort()
            if self._full_at is not None and now - self._full_at >= self.limits.quiet:
                self._full_at = None
                self._observe(Recovered(_SUBJECT))

    @web.middleware
    async def answered(self, request: web.Request, handler: Handle) -> web.StreamResponse:
        """Answer a request whose body is whole; its connection is not closed meanwhile."""
        connection = self._open.get(request.transport) if request.transport is not None else None
        if connection is None:
            raise ConnectionResetError
        if request.can_read_body:
            self._wait(connection, self.limits.body + 2 * _LOOK)  # the answer 408 comes first
            await self._read(request)
        self._waiting.pop(connection, None)
        connection.deadline, connection.unread = None, False
        try:
            response = await handler(request)
            await response.prepare(request)
            await response.write_eof()
        finally:
            if request.transport in self._open:
                limits = self.limits
                self._wait(connection, limits.header if connection.unread else limits.idle)
        return response

    async def _read(self, request: web.Request) -> None:
        try:
            async with asyncio.timeout(self.limits.body):
                await request.read()
        except TimeoutError:
            late = web.HTTPRequestTimeout(text="the body did not come in time\n")
            late.force_close()
            raise late from None
        except RequestPayloadError:
            raise web.HTTPBadRequest(text="the body cannot be read\n") from None

    def admit(self, connection: "_Connection", transport: asyncio.BaseTransport) -> bool:
        """Take a connection, in place of the one that has waited longest if there are too many.

        That one has sent no whole request, or none since its last answer. When all of them are
        being answered, the new one is refused.
        """
        number = transport.get_extra_info("socket").fileno()
        if len(self._open) >= self.limits.connections or number >= self.limits.ceiling:
            self._tell_full()
            longest = next(iter(self._waiting), None)
            if longest is None:
                return False
            longest.abort()
        self._open[transport] = connection
        self._wait(connection, self.limits.header)
        return True

    def heard(self, connection: "_Connection") -> None:
        """Note that bytes of a request arrived: what was idle has begun its headers."""
        if connection in self._waiting and not connection.unread:
            connection.deadline = self._now() + self.limits.header
        connection.unread = True

    def gone(self, connection: "_Connection", transport: asyncio.BaseTransport) -> None:
        """Forget a connection."""
        self._open.pop(transport, None)
        self._waiting.pop(connection, None)

    def stalls(self, connection: "_Connection") -> None:
        """Note that an answer waits for its reader."""
        connection.stalled = self._now() + self.limits.stall

    def _wait(self, connection: "_Connection", limit: float) -> None:
        connection.deadline = self._now() + limit
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def _tell_full(self) -> None:
        if self._full_at is None:
            text = (
                f"{len(self._open)} connections, the most it takes: who waits longest without a "
                "whole request is closed"
            )
            self._observe(Trouble(_SUBJECT, text))
        self._full_at = self._now()


def widen_queue(server: asyncio.Server) -> None:
    """Let more connections wait than asyncio accepts at once; it has one number for both."""
    for listening in server.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as same:
            same.listen(_BACKLOG)


def harden_server(server: web.Server) -> None:
    """Make aiohttp refuse two kinds of requests that it stumbles over before any middleware.

    One whose target its parser took but could not read as a URL: the connection's task would end
    with a traceback. And one whose `Expect` is no UTF-8, which it repeats in its answer: a 500.
    """
    make, answer = server.request_factory, server.request_handler

    def request_of(message: RawRequestMessage, *parts: Any) -> web.BaseRequest:  # noqa: ANN401
        # its type says that it always has one
        readable = message if message.url else message._replace(url=_NOWHERE)
        return make(readable, *parts)

    async def answered(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await answer(request)
        except UnicodeError:
            raise web.HTTPBadRequest from None

    server.request_factory, server.request_handler = request_of, answered


class _Connection(asyncio.Protocol):
    """Hands a transport's calls on to aiohttp, and notes when they came.

    Attributes:
        deadline: when its wait is over, in the loop's time; None while it is being answered.
        stalled: when its reader must have taken something; None while nothing is kept waiting.
        unread: bytes came since the last request began to be answered.
    """

    def __init__(self, owner: Connections, server: Callable[[], asyncio.Protocol]) -> None:
        self.deadline: float | None = None
        self.stalled: float | None = None
        self.unread = False
        self._owner = owner
        self._server = server
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None

    def is_overdue(self, now: float) -> bool:
        return any(limit is not None and now >= limit for limit in (self.deadline, self.stalled))

    def abort(self) -> None:
        """Close it at once; what its reader has not taken is dropped."""
        if self._transport is not None:
            self._owner.gone(self, self._transport)
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._owner.admit(self, transport):
            self._transport.abort()
            return
        self._inner = self._server()
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._owner.gone(self, self._transport)
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._owner.heard(self)
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        self._owner.stalls(self)
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        self.stalled = None
        if self._inner is not None:
            self._inner.resume_writing()
