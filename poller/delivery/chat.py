"""Messages to people: Feishu natively, signed; everything else by an `apprise` URL. An edge.

A channel posts a message a person reads; its outcome is that of a webhook (`retry.Outcome`), so a
delivery is retried and given up by the same rules.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import logging
import re
import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp

from poller import events
from poller.delivery.digest import Message, announcement, digest
from poller.delivery.retry import Delivered, Failed, Outcome, retry_after
from poller.model import Market

if TYPE_CHECKING:
    from apprise import NotifyBase

TIMEOUT: Final = 20.0
"""Seconds a message by `apprise` may take."""

ANSWER_LIMIT: Final = 64 * 1024
"""Bytes read of an answer."""

_KEPT: Final = 200
_OK: Final = 200


class Channel(Protocol):
    """Where a message goes. `limit`, `monospaced`: what `digest` wants to know of it."""

    limit: int
    monospaced: bool

    async def post(self, message: Message) -> Outcome:
        """Post it; never raises but for a defect, and ends in time."""

    async def close(self) -> None:
        """Close every connection."""


class Chat:
    """A `webhook.Sender`: what stands in a lane is one message.

    They are all events of one market and day, or all notices of one market.
    """

    def __init__(
        self, channel: Channel, *, missing: Callable[[Market, date], Awaitable[int | None]]
    ) -> None:
        """`missing`: how many symbols are still without that day; None: not known."""
        self._channel = channel
        self._missing = missing

    async def send(self, messages: Sequence[events.Message]) -> Outcome:
        """Post the digest of at least one event, or what the notices say."""
        limit = self._channel.limit
        told = [each for each in messages if isinstance(each, events.StreamEvent)]
        if not told:
            notices = [each for each in messages if isinstance(each, events.StreamNotice)]
            return await self._channel.post(announcement(notices, limit=limit))
        message = digest(
            told,
            limit=limit,
            missing=await self._missing(told[0].market, told[0].trading_day),
            monospaced=self._channel.monospaced,
        )
        return await self._channel.post(message)

    async def close(self) -> None:
        """See `Channel.close`."""
        await self._channel.close()


class Feishu:
    """A custom bot of Feishu or Lark."""

    limit = 6_000
    """Characters: a request may have 20 KB, of which a character takes up to three bytes."""

    monospaced = False

    def __init__(
        self,
        url: str,
        secret: str | None,
        *,
        session: aiohttp.ClientSession,
        now: Callable[[], datetime],
    ) -> None:
        """`secret`: of the bot's signature check, None if it has none.

        `session`: with the guard on addresses and the time limit; `close` closes it.
        """
        self._url = url
        self._secret = secret
        self._session = session
        self._now = now

    async def post(self, message: Message) -> Outcome:
        """See `Channel.post`."""
        body: dict[str, object] = {"msg_type": "text", "content": {"text": message.text}}
        if self._secret is not None:
            timestamp = str(int(self._now().timestamp()))
            body |= {"timestamp": timestamp, "sign": signature(timestamp, self._secret)}
        try:
            async with self._session.post(self._url, json=body, allow_redirects=False) as response:
                return self._judge(response, await _beginning(response))
        except TimeoutError:
            return Failed("Feishu: no answer in time")
        except aiohttp.ClientConnectorError as problem:
            return Failed(f"Feishu: no connection: {problem.strerror or 'unknown host'}")
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            return Failed(f"Feishu: no usable answer: {type(problem).__name__}")

    async def close(self) -> None:
        """See `Channel.close`."""
        await self._session.close()

    def _judge(self, response: aiohttp.ClientResponse, answer: bytes) -> Outcome:
        """Return what the status, and under a 200 the body's code, stand for."""
        status = response.status
        if status != _OK:
            asked = retry_after(response.headers.get("retry-after"), self._now())
            return Failed(f"Feishu: {status}", status, retry_after=asked)
        try:
            told = json.loads(answer)
            code, text = int(told["code"]), str(told.get("msg", ""))
        except (ValueError, TypeError, KeyError, AttributeError):
            return Failed("Feishu: its answer holds no code; is the URL a custom bot's?", status)
        if code == 0:
            return Delivered(status)
        reason = f"Feishu: {code}: {_CURES.get(code) or self._masked(text)}"
        wait = _PAUSE if code in _TOO_FREQUENT else None
        return Failed(reason, status, self._masked(text), wait)

    def _masked(self, text: str) -> str:
        """Return the beginning of what Feishu said, without what must not be shown."""
        for hidden in filter(None, (self._secret, self._url, self._url.rpartition("/")[2])):
            text = text.replace(hidden, "***")
        return text[:_KEPT]


_CURES: Final = {
    19001: "it knows no such bot: copy the URL from the group's settings again",
    19021: "it refuses the signature: check the bot's secret, and this machine's clock",
    19022: "it refuses this address: add it to the bot's list, or remove the list",
    19024: "it wants a keyword: add 'short' to the bot's keywords, or remove them",
}
"""What an operator can do, by Feishu's code."""

_TOO_FREQUENT: Final = {9499, 11232}
_PAUSE: Final = timedelta(seconds=60)


def signature(timestamp: str, secret: str) -> str:
    """Return Feishu's signature: both make the key, and the signed text is empty."""
    key = f"{timestamp}\n{secret}".encode()
    return base64.b64encode(hmac.digest(key, b"", hashlib.sha256)).decode()


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Read at most `ANSWER_LIMIT` bytes; leaving the rest unread closes the connection."""
    answer = bytearray()
    async for part in response.content.iter_any():
        answer += part
        if len(answer) >= ANSWER_LIMIT:
            break
    return bytes(answer[:ANSWER_LIMIT])


class Apprise:
    """A service `apprise` knows: Slack, Discord, Telegram, WeCom, DingTalk and many others.

    The library opens its connections itself, so the guard on addresses does not reach it; it does
    not follow redirects here unless the URL says so.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT) -> None:
        """Raise ValueError with the cure when the extra is missing or the URL is not understood."""
        self._service = _service(url)
        self._name = str(self._service.service_name)
        self._timeout = timeout
        self.monospaced = "markdown" in str(self._service.notify_format).casefold()
        self.limit = int(self._service.body_maxlen) - _MARKUP

    async def post(self, message: Message) -> Outcome:
        """See `Channel.post`. The library is synchronous: it runs in a thread that nobody joins."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Outcome] = loop.create_future()

        def settle(result: Outcome) -> None:
            if not outcome.done():
                outcome.set_result(result)

        def work() -> None:
            result = self._notify(message)
            with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
                loop.call_soon_threadsafe(settle, result)

        threading.Thread(target=work, name=f"chat {self._name}", daemon=True).start()
        try:
            async with asyncio.timeout(self._timeout):
                return await outcome
        except TimeoutError:
            return Failed(f"{self._name}: no answer within {self._timeout:g} s")

    async def close(self) -> None:
        """See `Channel.close`; the library keeps no connection."""

    def _notify(self, message: Message) -> Outcome:
        """Post in this thread; whatever the library raises is a failure, its text is not shown."""
        form = "markdown" if "```" in message.body else "text"
        try:
            done = self._service.notify(title=message.title, body=message.body, body_format=form)
        except Exception as problem:  # noqa: BLE001  a hundred plugins, any of which may raise
            return Failed(f"{self._name}: {type(problem).__name__}")
        if done:
            return Delivered()
        found = [_STATUS.search(words) for words in _HEARD.words]
        status = next((int(one[1]) for one in reversed(found) if one), None)
        return Failed(f"{self._name}: {status or 'it did not take the message'}", status)


_MARKUP: Final = 60
"""Characters left for what a service puts around title and body."""

_STATUS: Final = re.compile(r"\berror=([1-5]\d\d)\b")
"""The library tells the status in its log alone."""


class _Heard(threading.local):
    """What the library logged in this thread; a message has a thread of its own."""

    words: list[str]

    def __init__(self) -> None:
        self.words = []


_HEARD: Final = _Heard()


class _Ear(logging.Handler):
    """Keeps the library's words from any log, as they may hold a URL, and remembers them."""

    def emit(self, record: logging.LogRecord) -> None:
        _HEARD.words.append(record.getMessage())


def _service(url: str) -> "NotifyBase":
    """Return the library's service for a URL; imported here, as few configurations need it."""
    try:
        import apprise  # noqa: PLC0415
    except ImportError:
        raise ValueError(
            "a chat URL needs apprise: pip install '.[chat]' in the project's directory"
        ) from None
    logger = logging.getLogger("apprise")
    if not any(isinstance(handler, _Ear) for handler in logger.handlers):
        logger.handlers = [_Ear(logging.WARNING)]
        logger.propagate = False
    asset = apprise.AppriseAsset(app_id="Short interest", http_redirects=False)
    service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if service is None:
        scheme = url.partition("://")[0] if "://" in url else ""
        raise ValueError(
            f"apprise cannot use this {scheme}:// URL: see https://appriseit.com for its form"
        )
    return service
