"""The HTTP client of one endpoint: guarded connections, bounded answers. The edge to receivers.

The guard looks at the address of the very connection, so it holds for names that resolve anew,
for addresses written in odd ways and for addresses the URL itself names.
"""

import asyncio
import contextlib
import errno
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakSet

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection

from poller import __version__
from poller.delivery.addresses import refusal
from poller.delivery.endpoint import TIMEOUT, Endpoint
from poller.delivery.names import Names
from poller.delivery.target import as_sent, basic_auth, host_of

ANSWER_LIMIT: Final = 64 * 1024
"""Bytes read of an answer; what follows is not waited for."""

_MOST_READ: Final = ANSWER_LIMIT + 32 * 1024
"""Bytes taken off a connection for one request: interim answers (1xx), the head, and the body.

A receiver that sends interim answers without end would otherwise occupy the event loop for seconds,
and with it every other endpoint, the polls and the lease. What lies beyond is never read.
"""

_PATIENCE: Final = 5.0
"""Seconds an answer's text may take, once its status is there."""

_GAVE_UP: Final = 408
"""What some servers send when they close a connection that idled."""

_KEEP: Final = 30.0
"""Seconds a connection that idles is kept for the next delivery."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said. `body`: the beginning, at most `ANSWER_LIMIT` bytes of it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """Posts to one endpoint, and connects only where it may. Opens nothing before it is used."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout: float = TIMEOUT,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`resolver`: how names become addresses; the system's, if absent."""
        self._endpoint = endpoint
        self._timeout = timeout
        self._resolver = resolver
        self._url = as_sent(endpoint.url)
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close every connection."""
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Answer | str:
        """Post these bytes; returns the answer, or in a few words of ours why there is none.

        A kept connection may end just when it is used again, or be given up with a 408; that says
        nothing about the receiver, so the request is sent once more, on a connection of its own.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._timeout
        _REUSED.set(False)
        try:
            try:
                self._kept = self._kept or self._session(force_close=False)
                answer = await self._post(self._kept, body, headers, self._timeout)
            except (aiohttp.ClientConnectionError, OSError) as problem:
                if not (_REUSED.get() and _before_the_answer(problem)):
                    raise
            else:
                if not (_REUSED.get() and answer.status == _GAVE_UP):
                    return answer
            self._fresh = self._fresh or self._session(force_close=True)
            left = max(ends - loop.time(), 0.001)
            return await self._post(self._fresh, body, headers, left)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as problem:
            return self._why(problem)

    async def _post(
        self,
        session: aiohttp.ClientSession,
        body: bytes,
        headers: Mapping[str, str],
        seconds: float,
    ) -> Answer:
        async with session.post(
            self._url,
            data=body,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as response:
            return Answer(response.status, response.headers, await _beginning(response))

    def _session(self, *, force_close: bool) -> aiohttp.ClientSession:
        """Return a session that keeps its connections, or opens a new one for each request."""
        headers = {
            "content-type": "application/json",
            "user-agent": f"short-interest-poller/{__version__}",
        }
        if (authorization := basic_auth(self._endpoint.url)) is not None:
            headers["authorization"] = authorization
        return aiohttp.ClientSession(
            connector=_connector(self._endpoint, self._resolver, force_close=force_close),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers=headers,
        )

    def _why(self, problem: Exception) -> str:
        """Say in a few words of ours why there is no answer."""
        match problem:
            case TimeoutError():
                return f"no answer within {self._timeout:g} s"
            case aiohttp.ClientConnectorError():
                return _no_connection(problem)
            case aiohttp.ServerDisconnectedError() if not _before_the_answer(problem):
                return "it closed the connection in the middle of its answer"
            case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
                return "it closed the connection without an answer"
            case _:
                return "its answer is not HTTP; is the URL right?"


def _no_connection(problem: aiohttp.ClientConnectorError) -> str:
    match problem:
        case aiohttp.ClientConnectorDNSError():
            return "its name does not resolve"
        case aiohttp.ClientConnectorCertificateError():
            found = getattr(problem.certificate_error, "verify_message", "it is not valid")
            return f"its certificate is not accepted: {found}"
        case _:
            return f"no connection: {words(problem.os_error)}"


_REUSED: Final = ContextVar("whether this task's last connection was used before", default=False)


class _Connector(aiohttp.TCPConnector):
    """Takes no kept connection on which something came that nobody had asked for.

    It would be read as the answer to what is sent next, and an event that was refused, or never
    seen, would count as delivered.
    """

    def __init__(self, **how: Any) -> None:  # noqa: ANN401  as the library takes them
        super().__init__(**how)
        self._used: WeakSet[object] = WeakSet()

    async def connect(self, *how: Any, **more: Any) -> Connection:  # noqa: ANN401  as above
        """Return a connection to send one request on."""
        while True:
            connection = await super().connect(*how, **more)
            protocol = connection.protocol
            reused = protocol in self._used
            if protocol is None or not (reused and protocol.should_close):
                self._used.add(protocol)
                _bound(connection)
                _REUSED.set(reused)
                return connection
            connection.close()


class _Bounded(asyncio.Protocol):
    """Hands a transport's calls on to aiohttp, but no more than `_MOST_READ` bytes a request."""

    def __init__(self, inner: asyncio.Protocol, transport: asyncio.Transport) -> None:
        self._inner = inner
        self._transport = transport
        self.left = _MOST_READ

    def data_received(self, data: bytes) -> None:
        """Take what is within the bound, and no more from then on."""
        taken = data[: self.left]
        self.left -= len(taken)
        if taken:
            self._inner.data_received(taken)
        if not self.left:
            self._transport.pause_reading()

    def eof_received(self) -> bool | None:
        """Hand it on."""
        return self._inner.eof_received()

    def connection_lost(self, problem: Exception | None) -> None:
        """Hand it on."""
        self._inner.connection_lost(problem)

    def pause_writing(self) -> None:
        """Hand it on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Hand it on."""
        self._inner.resume_writing()


def _bound(connection: Connection) -> None:
    """Let one more request on a connection bring `_MOST_READ` bytes."""
    transport = connection.transport
    if transport is None or connection.protocol is None:
        return
    known = transport.get_protocol()
    if isinstance(known, _Bounded):
        known.left = _MOST_READ
    else:
        transport.set_protocol(_Bounded(connection.protocol, transport))


def _before_the_answer(problem: OSError | aiohttp.ClientError) -> bool:
    """Return whether a connection ended before the first byte of an answer."""
    match problem:
        case aiohttp.ClientConnectorError():
            return False
        case aiohttp.ServerDisconnectedError(message=begun):
            return isinstance(begun, str)  # else what was read of the answer's head
        case _:
            return isinstance(problem, ConnectionError | aiohttp.ClientOSError)


def _connector(
    endpoint: Endpoint, resolver: AbstractResolver | None, *, force_close: bool
) -> aiohttp.TCPConnector:
    """Return a connector that makes no socket for an address that is not allowed."""

    def make(where: Any) -> socket.socket:  # noqa: ANN401  aiohttp's tuple
        family, kind, protocol, _, address = where
        reason = refusal(address[0], local=endpoint.local, allow_private=endpoint.allow_private)
        if reason is not None:
            raise OSError(errno.EACCES, reason)
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)  # noqa: FBT003
        return made

    return _Connector(
        limit=0,
        resolver=resolver or Names(),
        ttl_dns_cache=30,
        socket_factory=make,
        force_close=force_close,
        keepalive_timeout=None if force_close else _KEEP,
    )


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Read at most `ANSWER_LIMIT` bytes; leaving the rest unread closes the connection.

    The status decides. An answer that breaks off, or drips, changes nothing about it.
    """
    answer = b""
    if response.content.at_eof():  # most say nothing more
        return answer
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            while len(answer) < ANSWER_LIMIT:
                part = await response.content.read(ANSWER_LIMIT - len(answer))
                if not part:
                    break
                answer += part
    return answer


def points_to(location: str | None, mask: Callable[[str], str]) -> str:
    """Say where a redirect points, by its host alone; nothing when it does not say."""
    if location is None:
        return ""
    there = _AUTHORITY.match(location)
    if there is None:
        return "it points to another path of its own: write that URL"
    host = mask(_NOT_OF_A_HOST.sub("", there[1].rpartition("@")[2]))[:_LONGEST_HOST]
    return f"it points to {host}: write that URL" if host else ""


_AUTHORITY: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#\\]*)")
_NOT_OF_A_HOST: Final = re.compile(r"[^A-Za-z0-9.:\[\]-]")
_LONGEST_HOST: Final = 80
"""Characters told of where a redirect points: its line stays one."""


def words(problem: OSError) -> str:
    """Say what the system, or the guard, has against a connection; no address of ours in it."""
    match problem:  # before the system's numbers: those of OpenSSL and of getaddrinfo are others
        case socket.gaierror():
            return "its name does not resolve"
        case ssl.SSLError():
            return f"no TLS: {_OPENSSL.sub('', problem.strerror or str(problem))}"
        case TimeoutError(errno=None):
            return f"no answer within {TIMEOUT:g} s"
        case ConnectionError(errno=None):
            return "it closed the connection"
    if problem.errno is None or problem.errno == errno.EACCES:
        return problem.strerror or str(problem)
    return os.strerror(problem.errno)


_OPENSSL: Final = re.compile(r"^\[[^]]*\] | \(_ssl\.c:\d+\)$")
"""What stands around OpenSSL's own words."""


async def reach(endpoint: Endpoint, *, resolver: AbstractResolver | None = None) -> None:
    """Connect without sending anything, as a delivery would; raises OSError with the reason.

    Of several addresses of a name one is enough, that may be connected to and answers.
    """
    host, port = host_of(endpoint.url), as_sent(endpoint.url).port or 0
    async with asyncio.timeout(TIMEOUT):
        found = await (resolver or Names()).resolve(host, port, socket.AF_UNSPEC)
        failed = list[OSError]()
        for address in [each["host"] for each in found]:
            reason = refusal(address, local=endpoint.local, allow_private=endpoint.allow_private)
            try:
                if reason is not None:
                    raise OSError(errno.EACCES, reason)
                async with asyncio.timeout(TIMEOUT / len(found)):
                    await _connect(endpoint, address)
            except OSError as problem:
                failed.append(problem)
            else:
                return
        # what an address that may be used says is told before the refusal of another
        raise min(failed, key=lambda problem: problem.errno == errno.EACCES)


async def _connect(endpoint: Endpoint, address: str) -> None:
    url, host = as_sent(endpoint.url), host_of(endpoint.url)
    secure = url.scheme == "https"
    context = await asyncio.to_thread(ssl.create_default_context) if secure else None
    _, writer = await asyncio.open_connection(
        address, url.port or 0, ssl=context, server_hostname=host.rstrip(".") if secure else None
    )
    writer.close()
    await writer.wait_closed()
