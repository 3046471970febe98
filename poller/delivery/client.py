"""The HTTP client of one endpoint: only to allowed addresses, with bounded answers.

The address is checked when its socket is made. So the check also holds for names that resolve
differently the next time, for addresses in odd spellings and for literal addresses in the URL.
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
from yarl import URL

from poller import __version__
from poller.delivery.addresses import refusal
from poller.delivery.endpoint import TIMEOUT, Endpoint
from poller.delivery.resolver import Resolver
from poller.delivery.target import as_sent, basic_auth, host_of, with_query

ANSWER_LIMIT: Final = 64 * 1024
"""Bytes of an answer's body that are read; the rest is not waited for."""

_MOST_READ: Final = ANSWER_LIMIT + 32 * 1024
"""Bytes read from a connection per request: interim answers (1xx), head and body.

Without this bound, a receiver that sends endless interim answers would block the event loop for
seconds, and with it every other endpoint, the polls and the lease.
"""

_BODY_TIMEOUT: Final = 5.0
"""Seconds an answer's body may take once its status has arrived."""

_REQUEST_TIMEOUT: Final = 408
"""Some servers send this before they close an idle connection."""

_KEEP_ALIVE: Final = 30.0
"""Seconds an idle connection is kept for the next delivery."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A receiver's answer; `body`: its first `ANSWER_LIMIT` bytes at most."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """Posts to one endpoint, and connects to allowed addresses only. Connects on first use."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout: float = TIMEOUT,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`timeout`: seconds for one `post`. `resolver`: by default the system's."""
        self._endpoint = endpoint
        self._timeout = timeout
        self._resolver = resolver
        self._url = as_sent(endpoint.url)
        self._reusing: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close every connection."""
        for session in (self._reusing, self._fresh):
            if session is not None:
                await session.close()

    async def post(self, body: bytes, headers: Mapping[str, str], query: str = "") -> Answer | str:
        """Post these bytes; return the answer, or a short reason why there is none.

        `query`: further parameters of the URL, percent-encoded.

        A reused connection may be closed just as the request is sent, with or without a 408. That
        says nothing about the receiver, so the request is sent once more on a new connection.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        url = self._url if not query else with_query(self._endpoint.url, query)
        _REUSED.set(False)
        try:
            try:
                self._reusing = self._reusing or self._session(force_close=False)
                answer = await self._post(self._reusing, url, body, headers, self._timeout)
            except (aiohttp.ClientConnectionError, OSError) as problem:
                if not (_REUSED.get() and _before_the_answer(problem)):
                    raise
            else:
                if not (_REUSED.get() and answer.status == _REQUEST_TIMEOUT):
                    return answer
            self._fresh = self._fresh or self._session(force_close=True)
            left = max(deadline - loop.time(), 0.001)
            return await self._post(self._fresh, url, body, headers, left)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as problem:
            return self._explain(problem)

    async def _post(
        self,
        session: aiohttp.ClientSession,
        url: URL,
        body: bytes,
        headers: Mapping[str, str],
        seconds: float,
    ) -> Answer:
        async with session.post(
            url,
            data=body,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as response:
            return Answer(response.status, response.headers, await _read_start(response))

    def _session(self, *, force_close: bool) -> aiohttp.ClientSession:
        """Return a session that reuses its connections, or opens a new one for each request."""
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

    def _explain(self, problem: Exception) -> str:
        """Return a short reason, in our own words, why there is no answer."""
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
            return f"no connection: {reason_of(problem.os_error)}"


_REUSED: Final = ContextVar("whether this task's last connection was used before", default=False)


class _Connector(aiohttp.TCPConnector):
    """Reuses no connection on which bytes arrived unasked.

    They would be read as the answer to the next request, so that an event which was refused, or
    never seen, would count as delivered.
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
    """Forwards a transport's calls to aiohttp, but at most `_MOST_READ` bytes per request."""

    def __init__(self, inner: asyncio.Protocol, transport: asyncio.Transport) -> None:
        self._inner = inner
        self._transport = transport
        self.left = _MOST_READ

    def data_received(self, data: bytes) -> None:
        """Forward bytes up to the bound, then stop reading."""
        taken = data[: self.left]
        self.left -= len(taken)
        if taken:
            self._inner.data_received(taken)
        if not self.left:
            self._transport.pause_reading()

    def eof_received(self) -> bool | None:
        """Forward it."""
        return self._inner.eof_received()

    def connection_lost(self, problem: Exception | None) -> None:
        """Forward it."""
        self._inner.connection_lost(problem)

    def pause_writing(self) -> None:
        """Forward it."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Forward it."""
        self._inner.resume_writing()


def _bound(connection: Connection) -> None:
    """Allow a connection `_MOST_READ` bytes for its next request."""
    transport = connection.transport
    if transport is None or connection.protocol is None:
        return
    known = transport.get_protocol()
    if isinstance(known, _Bounded):
        known.left = _MOST_READ
    else:
        transport.set_protocol(_Bounded(connection.protocol, transport))


def _before_the_answer(problem: OSError | aiohttp.ClientError) -> bool:
    """Return whether the connection ended before the first byte of an answer."""
    match problem:
        case aiohttp.ClientConnectorError():
            return False
        case aiohttp.ServerDisconnectedError(message=begun):
            return isinstance(begun, str)  # otherwise it is the part of the head that was read
        case _:
            return isinstance(problem, ConnectionError | aiohttp.ClientOSError)


def _connector(
    endpoint: Endpoint, resolver: AbstractResolver | None, *, force_close: bool
) -> aiohttp.TCPConnector:
    """Return a connector that refuses to make a socket for an address that is not allowed."""

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
        resolver=resolver or Resolver(),
        ttl_dns_cache=30,
        socket_factory=make,
        force_close=force_close,
        keepalive_timeout=None if force_close else _KEEP_ALIVE,
    )


async def _read_start(response: aiohttp.ClientResponse) -> bytes:
    """Return at most `ANSWER_LIMIT` bytes of the body; unread bytes close the connection.

    Never raises: only the status decides, so a truncated or slow body does not matter.
    """
    answer = b""
    if response.content.at_eof():  # most answers have no body
        return answer
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(_BODY_TIMEOUT):
            while len(answer) < ANSWER_LIMIT:
                part = await response.content.read(ANSWER_LIMIT - len(answer))
                if not part:
                    break
                answer += part
    return answer


def redirect_hint(location: str | None, mask: Callable[[str], str]) -> str:
    """Return a hint that names a redirect's host; "" without a location."""
    if location is None:
        return ""
    found = _AUTHORITY.match(location)
    if found is None:
        return "it points to another path of its own: write that URL"
    host = mask(_NOT_OF_A_HOST.sub("", found[1].rpartition("@")[2]))[:_LONGEST_HOST]
    return f"it points to {host}: write that URL" if host else ""


_AUTHORITY: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#\\]*)")
_NOT_OF_A_HOST: Final = re.compile(r"[^A-Za-z0-9.:\[\]-]")
_LONGEST_HOST: Final = 80
"""Characters shown of a redirect's host, so that its line stays short."""


def reason_of(problem: OSError) -> str:
    """Return why a connection failed or was refused, without our own address."""
    match problem:  # first: OpenSSL and getaddrinfo have error numbers of their own
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
"""The prefix and suffix that Python adds to OpenSSL's message."""


async def reach(endpoint: Endpoint, *, resolver: AbstractResolver | None = None) -> None:
    """Connect as a delivery would, without sending anything; raises OSError with the reason.

    If a name has several addresses, one that is allowed and answers is enough.
    """
    host, port = host_of(endpoint.url), as_sent(endpoint.url).port or 0
    async with asyncio.timeout(TIMEOUT):
        found = await (resolver or Resolver()).resolve(host, port, socket.AF_UNSPEC)
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
        # the failure of an allowed address says more than the refusal of another
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
