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

from poller import events
from poller.delivery.client import TIMEOUT, Answer, Client, points_to
from poller.delivery.digest import Message, announcement, digest
from poller.delivery.endpoint import Endpoint
from poller.delivery.retry import Delivered, Failed, Outcome, retry_after
from poller.markets import Market

if TYPE_CHECKING:
    from apprise import NotifyBase

_KEPT: Final = 200
"""Bytes kept of an answer, before its secrets are masked."""

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
        self, endpoint: Endpoint, *, now: Callable[[], datetime], timeout: float = TIMEOUT
    ) -> None:
        """Its secret: of the bot's signature check, none if it has none."""
        self._secret = next(iter(endpoint.secrets), None)
        self._client = Client(endpoint, timeout=timeout)
        self._mask = endpoint.mask()
        self._now = now

    async def post(self, message: Message) -> Outcome:
        """See `Channel.post`."""
        body: dict[str, object] = {"msg_type": "text", "content": {"text": message.text}}
        if self._secret is not None:
            timestamp = str(int(self._now().timestamp()))
            body |= {"timestamp": timestamp, "sign": signature(timestamp, self._secret)}
        answer = await self._client.post(json.dumps(body).encode(), {})
        return Failed(f"Feishu: {answer}") if isinstance(answer, str) else self._judge(answer)

    async def close(self) -> None:
        """See `Channel.close`."""
        await self._client.close()

    def _judge(self, answer: Answer) -> Outcome:
        """Return what the status, and under a 200 the body's code, stand for."""
        status, said = answer.status, self._mask(answer.body, _KEPT)
        if status != _OK:
            asked = retry_after(answer.headers.get("retry-after"), self._now())
            hint = points_to(answer.headers.get("location"), self._mask)
            reason = f"Feishu: {status}, {hint}" if hint else f"Feishu: {status}"
            return Failed(reason, status, said, asked)
        code = code_of(answer.body)
        if code is None:
            return Failed(
                "Feishu: its answer holds no code; is the URL a custom bot's?", status, said
            )
        if code == 0:
            return Delivered(status)
        reason = f"Feishu: {code}: {_CURES.get(code, 'it did not take the message')}"
        return Failed(reason, status, said, _PAUSE if code in _TOO_FREQUENT else None)


def code_of(answer: bytes) -> int | None:
    """Return Feishu's code for what came of a message; None for an answer without one."""
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):  # a body nested so deeply is no bot's
        return None
    code = told.get("code") if isinstance(told, dict) else None
    if isinstance(code, str) and re.fullmatch(r"[0-9]{1,9}", code, re.ASCII):
        code = int(code)
    return code if type(code) is int and abs(code) < _MOST_CODE else None


_MOST_CODE: Final = 10**9
"""Feishu's codes have at most eight digits; a longer number would only fill the log."""

_CURES: Final = {
    9499: "it is asked too often",
    11232: "it is asked too often",
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
        self._threads = threading.BoundedSemaphore(_MOST_THREADS)
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
            try:
                result = self._notify(message)
            finally:
                self._threads.release()
            with contextlib.suppress(RuntimeError):  # the loop may have ended meanwhile
                loop.call_soon_threadsafe(settle, result)

        if not self._threads.acquire(blocking=False):
            return Failed(f"{self._name}: {_MOST_THREADS} messages before it hang")
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


_MOST_THREADS: Final = 100
"""Messages on their way to one service: as many as an endpoint may send at once. One that was given
up may be among them for long, as nothing ends a thread.
"""

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
