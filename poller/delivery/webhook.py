"""One signed POST, and what came of it. The edge to the endpoints' servers.

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
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver
from standardwebhooks import Webhook

from poller import __version__
from poller.delivery.endpoint import Endpoint, refusal
from poller.delivery.retry import Delivered, Failed, Outcome, retry_after
from poller.events import Message, StreamEvent
from poller.model import isoformat, to_json

TIMEOUT: Final = 20.0
"""Seconds for one attempt, from the name's look-up to the last byte of the answer."""

ANSWER_LIMIT: Final = 64 * 1024
"""Bytes read of an answer; what follows is not waited for."""

_PATIENCE: Final = 5.0
"""Seconds an answer's text may take, once its status is there."""

_KEPT: Final = 4096


class Sender(Protocol):
    """How an endpoint is told of events: one signed POST, or a message in a chat."""

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Send what stands first in one lane; never raises but for a defect, ends within 20 s."""

    async def close(self) -> None:
        """Close every connection."""


class SignedPost:
    """Posts one event, signed by Standard Webhooks 1.0 with every active secret."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        now: Callable[[], datetime],
        resolver: AbstractResolver | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        """`resolver`: how names become addresses; the system's, if absent."""
        self._endpoint = endpoint
        self._now = now
        self._signers = [Webhook(secret) for secret in endpoint.secrets]
        self._session = guarded(endpoint, timeout=timeout, resolver=resolver)
        self._timeout = timeout

    async def close(self) -> None:
        """See `Sender.close`."""
        await self._session.close()

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Post the one message; see `Sender.send`."""
        (message,) = messages
        return await self.post(webhook_id(message.id), body_of(message))

    async def post(self, message_id: str, body: str) -> Outcome:
        """Sign these bytes, post them, and tell what came of it."""
        headers = self._sign(message_id, body)
        try:
            async with self._session.post(
                self._endpoint.url, data=body.encode(), headers=headers, allow_redirects=False
            ) as response:
                answer = await _beginning(response)
                return self._judge(response, answer)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as problem:
            return Failed(self._endpoint.masked(self._reason(problem)))

    def _sign(self, message_id: str, body: str) -> dict[str, str]:
        now = self._now().astimezone(UTC)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(s.sign(message_id, now, body) for s in self._signers),
        }

    def _judge(self, response: aiohttp.ClientResponse, answer: bytes) -> Outcome:
        status = response.status
        if 200 <= status < 300:  # noqa: PLR2004  success, as HTTP has it
            return Delivered(status)
        text = self._endpoint.masked(answer[:_KEPT].decode("utf-8", "replace"))
        asked = retry_after(response.headers.get("retry-after"), self._now())
        return Failed(str(status), status, text, asked)

    def _reason(self, problem: Exception) -> str:
        """Say in a few words what went wrong before there was a whole answer."""
        match problem:
            case TimeoutError():
                return f"no answer within {self._timeout:g} s"
            case aiohttp.ClientConnectorDNSError():
                return "its name does not resolve"
            case aiohttp.ClientConnectorCertificateError():
                return f"its certificate is not accepted: {problem.certificate_error}"
            case aiohttp.ClientConnectorError(os_error=cause):
                return f"no connection: {words(cause)}"
            case aiohttp.ServerDisconnectedError() | ConnectionError():
                return "it closed the connection without an answer"
            case _:
                return f"its answer is not HTTP: {type(problem).__name__}"


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


def guarded(
    endpoint: Endpoint, *, timeout: float = TIMEOUT, resolver: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """Return a session that connects only where the endpoint may, and waits no longer."""
    return aiohttp.ClientSession(
        connector=_connector(endpoint, resolver),
        timeout=aiohttp.ClientTimeout(total=timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={
            "content-type": "application/json",
            "user-agent": f"short-interest-poller/{__version__}",
        },
    )


def _connector(endpoint: Endpoint, resolver: AbstractResolver | None) -> aiohttp.TCPConnector:
    """Return a connector that makes no socket for an address that is not allowed."""

    def make(where: Any) -> socket.socket:  # noqa: ANN401  aiohttp's tuple
        family, kind, protocol, _, address = where
        reason = refusal(address[0], local=endpoint.local, allow_private=endpoint.allow_private)
        if reason is not None:
            raise OSError(errno.EACCES, reason)
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)  # noqa: FBT003
        return made

    return aiohttp.TCPConnector(
        limit=0,
        resolver=resolver or aiohttp.ThreadedResolver(),
        ttl_dns_cache=30,
        socket_factory=make,
        keepalive_timeout=30,
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


def webhook_id(event_id: str) -> str:
    """Return the receiver's idempotency key: the event id with `~` for its dots.

    No code holds a `~`, so distinct events have distinct keys.
    """
    return event_id.replace(".", "~")


def event_id(webhook_id: str) -> str:
    """Return the event id of which `webhook_id` made a key; an event id stays what it is."""
    return webhook_id.replace("~", ".")


@lru_cache(maxsize=256)  # what one batch brings goes to every endpoint
def body_of(message: Message) -> str:
    """Return the minified JSON body of an event or a notice; its `data` is complete in itself."""
    told: dict[str, object] = {"id": message.id}
    if isinstance(message, StreamEvent):
        told["code"] = message.code
    told |= {"market": message.market, "trading_day": str(message.trading_day)}
    if isinstance(message, StreamEvent):
        told["revision"] = message.revision
    data = told | message.data  # what an older version wrote has figures alone
    return to_json(
        {"type": message.type, "timestamp": isoformat(message.observed_at), "data": data}
    )


async def reach(endpoint: Endpoint) -> None:
    """Connect without sending anything; raises OSError with the reason."""
    parts = urlsplit(endpoint.url)
    secure, host = parts.scheme == "https", parts.hostname or ""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(TIMEOUT):
        port = parts.port or (443 if secure else 80)
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        address = str(found[0][4][0])
        reason = refusal(address, local=endpoint.local, allow_private=endpoint.allow_private)
        if reason is not None:
            raise OSError(errno.EACCES, reason)
        context = await asyncio.to_thread(ssl.create_default_context) if secure else None
        _, writer = await asyncio.open_connection(
            address, port, ssl=context, server_hostname=host if secure else None
        )
        writer.close()
        await writer.wait_closed()
