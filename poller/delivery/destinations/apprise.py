"""Chat services by URLs of the `apprise` library: Slack, Discord, Telegram and many others."""

import asyncio
import contextlib
import logging
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from poller.delivery.destinations.chat import MOST_TOGETHER, Chat, market_and_day, send_test
from poller.delivery.destinations.destination import ANY, Destination, Service
from poller.delivery.digest import Message
from poller.delivery.endpoint import TIMEOUT, Endpoint
from poller.delivery.retry import Delivered, Failed, Outcome
from poller.delivery.target import check_chat_url

if TYPE_CHECKING:
    from apprise import NotifyBase

_SERVICES: Final = (
    Service(
        "Slack",
        ("hooks.slack.com", "hooks.slack-gov.com", "slack.com"),
        'write url = "slack://TOKEN_A/TOKEN_B/TOKEN_C", the three parts behind /services/',
    ),
    Service(
        "Discord",
        ("discord.com", "discordapp.com", ".discord.com", ".discordapp.com"),
        'write url = "discord://WEBHOOK_ID/WEBHOOK_TOKEN", the two parts behind /webhooks/',
    ),
    Service(
        "Telegram",
        ("api.telegram.org",),
        'write url = "tgram://BOT_TOKEN/CHAT_ID", the token as it stands behind /bot',
    ),
    Service(
        "DingTalk",
        ("oapi.dingtalk.com", "api.dingtalk.com"),
        'write url = "dingtalk://ACCESS_TOKEN", or "dingtalk://SECRET@ACCESS_TOKEN" for a bot '
        "that wants a signature",
    ),
    Service(
        "WeCom",
        ("qyapi.weixin.qq.com",),
        'write url = "wecombot://KEY", what stands behind key=',
    ),
    Service(
        "Microsoft Teams",
        (".webhook.office.com", "outlook.office.com", "outlook.office365.com"),
        "make a workflow for the channel, as such connectors are retired, and "
        'write url = "workflows://HOST/WORKFLOW/SIGNATURE" of its URL',
    ),
    Service(
        "Google Chat",
        ("chat.googleapis.com",),
        'write url = "gchat://SPACE/KEY/TOKEN", the parts behind spaces/, key= and token=',
    ),
    Service(
        "Webex",
        ("webexapis.com", "api.ciscospark.com"),
        'write url = "wxteams://TOKEN", the part behind /incoming/',
    ),
    Service(
        "PushPlus",
        ("www.pushplus.plus", "pushplus.plus"),
        'write url = "pushplus://TOKEN", what stands behind token=',
    ),
    Service(
        "ServerChan",
        ("sctapi.ftqq.com", "sc.ftqq.com"),
        'write url = "schan://SENDKEY", the part in front of .send',
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
        raise ValueError("leave it out: all that such a service wants stands in its URL")


async def _reach(endpoint: Endpoint) -> tuple[str, str]:
    """Say what can be done: there is nothing to try without sending."""
    return "not tried", f"to send a message: poller webhook test {endpoint.name}"


APPRISE: Final = Destination(
    name="apprise",
    schemes=(ANY,),
    services=_SERVICES,
    takes_secrets=False,
    check_url=check_chat_url,
    check_secrets=_check_secrets,
    check_usable=lambda endpoint: _service(endpoint.url),  # which alone knows what it understands
    depth=MOST_TOGETHER,
    lane=market_and_day,
    sender=lambda endpoint, watermarks: Chat(Apprise(endpoint.url), endpoint, watermarks),
    test=lambda endpoint: send_test(Apprise(endpoint.url)),
    reach=_reach,
)


class Apprise:
    """A service `apprise` knows: Slack, Discord, Telegram, WeCom, DingTalk and many others.

    The library opens its connections itself, so the guard on addresses does not reach it; it does
    not follow redirects here unless the URL says so.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT) -> None:
        """Raise ValueError with the fix when the extra is missing or the URL is not understood."""
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
