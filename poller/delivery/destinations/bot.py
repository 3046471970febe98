"""Chat services that hand out a URL for posting JSON: what they share.

Each service is a module with its `Dialect`: how a message is written there, and what its answers
mean. Several of them answer 200 to what they refuse, so the body decides.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from poller.clock import wall_clock
from poller.delivery.chat_message import ChatMessage
from poller.delivery.destinations.chat import (
    LEAVE_OUT,
    MOST_TOGETHER,
    TEST_SHOWS,
    Chat,
    market_and_day,
    send_test,
)
from poller.delivery.destinations.destination import Destination, Service
from poller.delivery.endpoint import TIMEOUT, Endpoint
from poller.delivery.retry import LONGEST_HOLD, Delivered, Failed, Outcome, retry_after
from poller.delivery.target import host_of

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

    from poller.delivery.client import Answer

_OK: Final = 200
_KEPT: Final = 200
"""Bytes kept of an answer, before its secrets are masked."""

Payload = Mapping[str, object]
"""The JSON object that is posted."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A service did not take a message.

    Attributes:
        reason: What it said and what an operator can do, without anything taken from the answer
            but numbers.
        wait: How long it asked to be sent nothing.
        status: The HTTP status that the answer amounts to, if it is not the answer's own.
    """

    reason: str
    wait: timedelta | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """What signs a message: further members of the JSON object, or parameters of the URL."""

    members: Payload = field(default_factory=dict)
    query: str = ""


def in_bytes(payload: Payload) -> int:
    """Return how long the JSON is."""
    return len(_encoded(payload))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one chat service is spoken to.

    Attributes:
        name: Its name for people.
        limit: The largest `size` of a message.
        compose: Writes a message as the service wants it.
        size: Measures what `compose` returned, as the service does.
        judge: Given an answer's status and body, returns None if the message was taken.
        sign: Signs a message with the bot's secret; None: the service has no secrets.
    """

    name: str
    limit: int
    compose: Callable[[ChatMessage], Payload]
    size: Callable[[Payload], int] = in_bytes
    judge: Callable[[int, bytes], Refused | None]
    sign: Callable[[str, datetime], Signature] | None = None


class Bot:
    """A `Channel` to one chat by a service's dialect."""

    def __init__(
        self,
        dialect: Dialect,
        endpoint: Endpoint,
        *,
        now: Callable[[], datetime],
        timeout: float = TIMEOUT,
        resolver: "AbstractResolver | None" = None,
    ) -> None:
        """Sign with the endpoint's secret if it has one. `resolver`: by default the system's."""
        from poller.delivery.client import Client, redirect_hint  # noqa: PLC0415

        self.limit = dialect.limit
        self._dialect = dialect
        self._secret = next(iter(endpoint.secrets), None)
        self._client = Client(endpoint, timeout=timeout, resolver=resolver)
        self._mask = endpoint.mask()
        self._now = now
        self._redirect_hint = redirect_hint

    def size(self, message: ChatMessage) -> int:
        """See `Channel.size`."""
        return self._dialect.size(self._dialect.compose(message))

    async def post(self, message: ChatMessage) -> Outcome:
        """See `Channel.post`."""
        payload, signature = self._dialect.compose(message), Signature()
        if self._secret is not None and self._dialect.sign is not None:
            signature = self._dialect.sign(self._secret, self._now())
        body = _encoded({**payload, **signature.members})
        answer = await self._client.post(body, {}, signature.query)
        if isinstance(answer, str):
            return Failed(f"{self._dialect.name}: {answer}")
        return self._outcome_of(answer)

    async def close(self) -> None:
        """See `Channel.close`."""
        await self._client.close()

    def _outcome_of(self, answer: "Answer") -> Outcome:
        refused = self._dialect.judge(answer.status, answer.body)
        if refused is None:
            return Delivered(answer.status)
        hint = self._redirect_hint(answer.headers.get("location"), self._mask)
        asked = retry_after(answer.headers.get("retry-after"), self._now())
        waits = [wait for wait in (asked, refused.wait) if wait is not None]
        return Failed(
            f"{self._dialect.name}: {refused.reason}{f', {hint}' if hint else ''}",
            refused.status or answer.status,
            self._mask(answer.body, _KEPT),
            max(waits, default=None),
        )


def _encoded(payload: Payload) -> bytes:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def destination_for(
    dialect: Dialect,
    services: Sequence[Service],
    form: str,
    *,
    anywhere: bool = False,
) -> Destination:
    """Return the destination of a dialect, whose flag is its name.

    With the flag, the URL may have any host: some users have a proxy in front of the service, or
    run a server that speaks like it.

    `form`: a pattern for path and query of the URLs that the service hands out; `anywhere`: whether
    those of other hosts have it, too.
    """

    def bot(endpoint: Endpoint) -> Bot:
        return Bot(dialect, endpoint, now=wall_clock)

    name = dialect.name.lower()
    return Destination(
        name=name,
        flag=name,
        services=services,
        takes_secrets=dialect.sign is not None,
        check_url=partial(_check_url, services, re.compile(form), anywhere=anywhere),
        check_secrets=partial(_check_secrets, dialect),
        depth=MOST_TOGETHER,
        lane=market_and_day,
        sender=lambda endpoint, watermarks: Chat(bot(endpoint), endpoint, watermarks),
        test=lambda endpoint: send_test(bot(endpoint)),
        shows=TEST_SHOWS,
    )


def _check_url(
    services: Sequence[Service], form: re.Pattern[str], url: str, *, anywhere: bool
) -> None:
    host, parts = host_of(url), urlsplit(url)
    own = next((each for each in services if each.is_at(host, parts.path)), None)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    if (own is not None or anywhere) and not form.fullmatch(target):
        service = own or services[0]
        raise ValueError(f"{service.name} takes no messages there: {service.instead}")


def _check_secrets(dialect: Dialect, secrets: Sequence[str]) -> None:
    if secrets and dialect.sign is None:
        raise ValueError(LEAVE_OUT)
    if len(secrets) > 1:
        raise ValueError("a bot has one secret")


def members_of(body: bytes) -> Mapping[str, Any]:
    """Return the JSON object in an answer; an empty one if there is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):  # RecursionError: no service's answer either
        return {}
    return found if isinstance(found, dict) else {}


def errcode_judge(
    bot: str, fixes: Mapping[int, str], pauses: Mapping[int, timedelta]
) -> Callable[[int, bytes], Refused | None]:
    """Return what judges answers by their `errcode`: 0 if the message was taken.

    `bot`: what kind of bot the URL is to be of. `fixes`: code → what an operator can do. `pauses`:
    code → how long to send nothing.
    """

    def judge(status: int, body: bytes) -> Refused | None:
        code = whole(members_of(body).get("errcode"))
        if status == _OK and code == 0:
            return None
        if not code:
            unlike = f"its answer holds no errcode; is the URL a {bot} bot's?"
            return Refused(f"{status}: {unlike}" if status == _OK else str(status))
        reason = f"{code}: {fixes.get(code, 'it did not take the message')}"
        return Refused(reason, pauses.get(code))

    return judge


def whole(value: object) -> int | None:
    """Return a service's error code or a number of seconds; None if it is none.

    Such numbers have at most nine digits; a longer one would only fill the log.
    """
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
        value = int(value)
    return value if type(value) is int and abs(value) < _MOST else None


_MOST: Final = 10**9


def seconds(value: object) -> timedelta | None:
    """Return how long an answer's JSON asks to wait, at most `LONGEST_HOLD`."""
    number = value if type(value) is float else whole(value)
    if number is None or not 0 <= number < float("inf"):
        return None
    return min(timedelta(seconds=min(number, 1e6)), LONGEST_HOLD)
