"""Services by URLs of the `apprise` library, which speaks to over a hundred."""

import asyncio
import contextlib
import logging
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from poller.delivery.chat_message import ChatMessage, body_of, text_of
from poller.delivery.destinations.chat import (
    LEAVE_OUT,
    MOST_TOGETHER,
    TEST_SHOWS,
    Chat,
    market_and_day,
    send_test,
)
from poller.delivery.destinations.destination import ANY, Destination, Service
from poller.delivery.endpoint import TIMEOUT, Endpoint
from poller.delivery.retry import Delivered, Failed, Outcome
from poller.delivery.target import check_chat_url
from poller.errors import how_to_install

if TYPE_CHECKING:
    from apprise import NotifyBase

_SERVICES: Final = (
    Service(
        "Google Chat",
        ("chat.googleapis.com",),
        'write url = "gchat://SPACE/KEY/TOKEN", the parts after spaces/, key= and token=',
    ),
    Service(
        "Webex",
        ("webexapis.com", "api.ciscospark.com"),
        'write url = "wxteams://TOKEN", the part after /incoming/',
    ),
    Service(
        "PushPlus",
        ("www.pushplus.plus", "pushplus.plus"),
        'write url = "pushplus://TOKEN", the part after token=',
    ),
    Service(
        "ServerChan",
        ("sctapi.ftqq.com", "sc.ftqq.com"),
        'write url = "schan://SENDKEY", the part before .send',
    ),
    Service(
        "Bark",
        ("api.day.app",),
        'write url = "barks://api.day.app/DEVICE_KEY", the first part of its path',
    ),
    Service(
        "WxPusher",
        ("wxpusher.zjiecode.com",),
        'write url = "wxpusher://APP_TOKEN/UID", appToken and uid of its messages',
    ),
)


def _check_secrets(secrets: Sequence[str]) -> None:
    if secrets:
        raise ValueError(LEAVE_OUT)


async def _reach(endpoint: Endpoint) -> tuple[str, str]:
    """Return what to do instead: nothing can be tried without sending."""
    return "not tried", f"to send a message: poller webhook test {endpoint.name}"


APPRISE: Final = Destination(
    name="apprise",
    schemes=(ANY,),
    services=_SERVICES,
    takes_secrets=False,
    check_url=check_chat_url,
    check_secrets=_check_secrets,
    check_usable=lambda endpoint: _service(endpoint.url),  # only the library knows what it accepts
    depth=MOST_TOGETHER,
    lane=market_and_day,
    sender=lambda endpoint, watermarks: Chat(Apprise(endpoint.url), endpoint, watermarks),
    test=lambda endpoint: send_test(Apprise(endpoint.url)),
    shows=TEST_SHOWS,
    reach=_reach,
)


class Apprise:
    """A service that `apprise` supports.

    The library opens its own connections, so addresses are not checked; it follows redirects only
    if the URL says so.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT) -> None:
        """Raise ValueError with the fix if apprise is missing or does not accept the URL."""
        self._service = _service(url)
        self._name = str(self._service.service_name)
        self._timeout = timeout
        self._threads = threading.BoundedSemaphore(_MOST_THREADS)
        self._monospaced = "markdown" in str(self._service.notify_format).casefold()
        self.limit = int(self._service.body_maxlen) - _MARKUP

    def size(self, message: ChatMessage) -> int:
        """See `Channel.size`: characters."""
        return len(text_of(message, monospaced=self._monospaced))

    async def post(self, message: ChatMessage) -> Outcome:
        """See `Channel.post`. The library is synchronous: it runs in a daemon thread."""
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
            return Failed(f"{self._name}: {_MOST_THREADS} earlier messages hang")
        threading.Thread(target=work, name=f"chat {self._name}", daemon=True).start()
        try:
            async with asyncio.timeout(self._timeout):
                return await outcome
        except TimeoutError:
            return Failed(f"{self._name}: no answer within {self._timeout:g} s")

    async def close(self) -> None:
        """See `Channel.close`; the library keeps no connection."""

    def _notify(self, message: ChatMessage) -> Outcome:
        """Post in this thread; whatever the library raises is a failure, without its message."""
        body = body_of(message, monospaced=self._monospaced)
        form = "markdown" if "```" in body else "text"
        try:
            done = self._service.notify(title=message.title, body=body, body_format=form)
        except Exception as problem:  # noqa: BLE001  a hundred plug-ins, which may raise anything
            return Failed(f"{self._name}: {type(problem).__name__}")
        if done:
            return Delivered()
        found = [_STATUS.search(line) for line in _CAPTURED.lines]
        status = next((int(each[1]) for each in reversed(found) if each), None)
        return Failed(f"{self._name}: {status or 'it did not take the message'}", status)


_MOST_THREADS: Final = 100
"""Messages on their way to one service: as many as an endpoint may send at once. A message that was
given up counts until its thread ends, as threads cannot be stopped.
"""

_MARKUP: Final = 60
"""Characters reserved for what a service adds around title and body."""

_STATUS: Final = re.compile(r"\berror=([1-5]\d\d)\b")
"""The library reports the HTTP status only in its log."""


class _Captured(threading.local):
    """The library's log lines of this thread; each message has its own thread."""

    lines: list[str]

    def __init__(self) -> None:
        self.lines = []


_CAPTURED: Final = _Captured()


class _Capture(logging.Handler):
    """Captures the library's log lines; as they may hold a URL, they reach no other log."""

    def emit(self, record: logging.LogRecord) -> None:
        _CAPTURED.lines.append(record.getMessage())


def _service(url: str) -> "NotifyBase":
    """Return the library's service for a URL; raises ValueError with the fix."""
    try:
        import apprise  # noqa: PLC0415  few configurations need it
    except ImportError:
        raise ValueError(f"a chat URL needs apprise: {how_to_install('chat', 'apprise')}") from None
    logger = logging.getLogger("apprise")
    if not any(isinstance(handler, _Capture) for handler in logger.handlers):
        logger.handlers = [_Capture(logging.WARNING)]
        logger.propagate = False
    asset = apprise.AppriseAsset(app_id="Short interest", http_redirects=False)
    service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if service is None:
        scheme = url.partition("://")[0] if "://" in url else ""
        raise ValueError(
            f"apprise cannot use this {scheme}:// URL: see https://appriseit.com for its form"
        )
    return service
