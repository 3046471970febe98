"""Limits the page's connections: their number, and the time each may take over a request.

aiohttp limits the bytes of a request, but neither the time until it is complete nor the number of
connections. So our protocol sits between each transport and aiohttp's. It distinguishes waiting
connections (for headers, for a body, or idle between requests) from those being answered: only the
former are closed, when their time is up or when a new one needs their place.
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

MOST_CONNECTIONS: Final = 2_048
"""A thousand readers of events, and as many for everything else; each takes some 16 KiB."""

_PART: Final = 4
"""The page takes a quarter of the process's descriptors, and leaves the last quarter to the rest:
Redis, OpenD, deliveries and files.

A new descriptor gets the lowest free number: one in the last quarter shows that few are left.
"""

_BACKLOG: Final = 128
"""Connections that the system queues; one that finds no room retries after a second."""

_ACCEPTS: Final = 4
"""How often the loop accepts between taking a connection and closing the one it replaces."""

_NOWHERE: Final = URL("/.nowhere")
_CHECK_EVERY: Final = 0.5
_SUBJECT: Final = "page connections"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the page's connections; times in seconds.

    Attributes:
        connections: How many may be open at once.
        ceiling: Descriptors from this number on are left to the rest of the process.
        header: From the first byte of a request (for the first one: from the connection) until its
            headers are complete. A slow phone needs one or two.
        body: Until the body is complete, which has at most 4 KiB.
        idle: Between two requests; longer than the 60 s for which nginx keeps a connection.
        stall: Without the client reading a byte of the answer.
        quiet: Without a forced close until the trouble counts as over.
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
        """How many the loop accepts at once: those not yet closed have descriptors, too."""
        return max(1, self.connections // _ACCEPTS)

    @property
    def readers(self) -> int:
        """How many connections may follow the events: half, so that there are always others."""
        return max(1, self.connections // 2)


def limits_of(descriptors: int) -> Limits:
    """Return the limits of a process that may open `descriptors` files; negative: no limit."""
    if descriptors < 0:
        return Limits()
    part = max(1, descriptors // _PART)
    return Limits(min(MOST_CONNECTIONS, part), descriptors - part)


class PageConnections:
    """All connections of one server, while `watch` runs."""

    def __init__(self, limits: Limits, observe: Observe) -> None:
        """Create it in a running event loop."""
        self.limits = limits
        self._observe = observe
        self._now = asyncio.get_running_loop().time
        self._open: dict[asyncio.BaseTransport, _PageConnection] = {}
        self._waiting: dict[_PageConnection, None] = {}  # the longest waiting first
        self._full_at: float | None = None

    def __len__(self) -> int:
        """Return the number of open connections."""
        return len(self._open)

    def protocol_of(self, server: Callable[[], asyncio.Protocol]) -> "_PageConnection":
        """Return the protocol of a new connection; `server` makes aiohttp's."""
        return _PageConnection(self, server)

    async def watch(self) -> None:
        """Close connections that take too long, for ever."""
        while True:
            await asyncio.sleep(min(_CHECK_EVERY, self.limits.header / 4))
            now = self._now()
            for connection in [each for each in self._open.values() if each.is_overdue(now)]:
                connection.abort()
            if self._full_at is not None and now - self._full_at >= self.limits.quiet:
                self._full_at = None
                self._observe(Recovered(_SUBJECT))

    @web.middleware
    async def answered(self, request: web.Request, handler: Handle) -> web.StreamResponse:
        """Read the body, then answer the request; its connection is not closed meanwhile."""
        connection = self._of(request)
        if connection is None:
            raise ConnectionResetError
        if request.can_read_body:
            # the answer 408 comes first
            self._wait(connection, self.limits.body + 2 * _CHECK_EVERY)
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

    def _of(self, request: web.Request) -> "_PageConnection | None":
        return None if request.transport is None else self._open.get(request.transport)

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

    def admit(self, connection: "_PageConnection", transport: asyncio.BaseTransport) -> bool:
        """Accept a connection; if there are too many, close the one that has waited longest.

        Returns False when all others are being answered: the new one is refused.
        """
        number = transport.get_extra_info("socket").fileno()
        if len(self._open) >= self.limits.connections or number >= self.limits.ceiling:
            self._report_full()
            longest = next(iter(self._waiting), None)
            if longest is None:
                return False
            longest.abort()
        self._open[transport] = connection
        self._wait(connection, self.limits.header)
        return True

    def heard(self, connection: "_PageConnection") -> None:
        """Take note that bytes arrived: an idle connection has begun a request."""
        if connection in self._waiting and not connection.unread:
            connection.deadline = self._now() + self.limits.header
        connection.unread = True

    def gone(self, connection: "_PageConnection", transport: asyncio.BaseTransport) -> None:
        """Forget a connection, and end what it was answered with."""
        self._open.pop(transport, None)
        self._waiting.pop(connection, None)
        if connection.answering is not None:
            connection.answering.cancel()

    def bind(self, request: web.Request, answering: asyncio.Task[None]) -> None:
        """Cancel a task as soon as the connection of its request is gone, and not at a write."""
        connection = self._of(request)
        if connection is None:
            answering.cancel()
        else:
            connection.answering = answering

    def write_paused(self, connection: "_PageConnection") -> None:
        """Take note that the client reads too slowly, and start its stall timeout."""
        connection.stalled = self._now() + self.limits.stall

    def _wait(self, connection: "_PageConnection", limit: float) -> None:
        connection.deadline = self._now() + limit
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def _report_full(self) -> None:
        if self._full_at is None:
            text = (
                f"{len(self._open)} connections, the most it takes: the one that waits longest "
                "without a whole request is closed"
            )
            self._observe(Trouble(_SUBJECT, text))
        self._full_at = self._now()


def widen_queue(server: asyncio.Server) -> None:
    """Queue more connections than asyncio accepts at once, which has one number for both."""
    for listening in server.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as same:
            same.listen(_BACKLOG)


def harden_server(server: web.Server) -> None:
    """Make aiohttp refuse two kinds of requests that it fails on before any middleware.

    A target that its parser accepts but cannot read as a URL would end the connection's task with a
    traceback. An `Expect` that is not UTF-8, which it repeats in its answer, would be a 500.
    """
    make, answer = server.request_factory, server.request_handler

    def request_of(message: RawRequestMessage, *parts: Any) -> web.BaseRequest:  # noqa: ANN401
        # `url` may be None, although it is not typed so
        readable = message if message.url else message._replace(url=_NOWHERE)
        return make(readable, *parts)

    async def answered(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await answer(request)
        except UnicodeError:
            raise web.HTTPBadRequest from None

    server.request_factory, server.request_handler = request_of, answered


class _PageConnection(asyncio.Protocol):
    """Forwards a transport's calls to aiohttp, and keeps the times. Times are the event loop's.

    Attributes:
        deadline: When its wait times out; None while it is being answered.
        stalled: When its write times out; None while no write is paused.
        unread: Whether bytes arrived since the last request began to be answered.
        answering: The task that writes an answer without an end; None for other answers.
    """

    def __init__(self, owner: PageConnections, server: Callable[[], asyncio.Protocol]) -> None:
        self.deadline: float | None = None
        self.stalled: float | None = None
        self.unread = False
        self.answering: asyncio.Task[None] | None = None
        self._owner = owner
        self._server = server
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None

    def is_overdue(self, now: float) -> bool:
        return any(limit is not None and now >= limit for limit in (self.deadline, self.stalled))

    def abort(self) -> None:
        """Close it at once, dropping unread output."""
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
        self._owner.write_paused(self)
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        self.stalled = None
        if self._inner is not None:
            self._inner.resume_writing()
