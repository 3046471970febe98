"""One signed POST, and what came of it."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Protocol

from aiohttp.abc import AbstractResolver
from standardwebhooks import Webhook

from poller.delivery.client import TIMEOUT, Answer, Client, points_to
from poller.delivery.endpoint import Endpoint
from poller.delivery.retry import Delivered, Failed, Outcome, retry_after
from poller.events import Message, StreamEvent
from poller.model import isoformat, to_json

_KEPT: Final = 4096
"""Bytes kept of an answer, before its secrets are masked."""

_HINTS: Final = {
    401: "it does not accept the signature, or wants a user and password",
    403: "it lets nobody in with that; is the secret the receiver's?",
    404: "it knows no such path; is the URL right?",
    405: "it takes no POST there; is the URL right?",
    413: "it takes no body of that size",
}
"""What an operator can look at, by status."""


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
        self._now = now
        self._signers = [Webhook(secret) for secret in endpoint.secrets]
        self._client = Client(endpoint, timeout=timeout, resolver=resolver)
        self._mask = endpoint.mask()

    async def close(self) -> None:
        """See `Sender.close`."""
        await self._client.close()

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Post the one message; see `Sender.send`."""
        (message,) = messages
        return await self.post(webhook_id(message.id), body_of(message))

    async def post(self, message_id: str, body: str) -> Outcome:
        """Sign these bytes, post them, and tell what came of it."""
        answer = await self._client.post(body.encode(), self._sign(message_id, body))
        return Failed(answer) if isinstance(answer, str) else self._judge(answer)

    def _sign(self, message_id: str, body: str) -> dict[str, str]:
        now = self._now().astimezone(UTC)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(s.sign(message_id, now, body) for s in self._signers),
        }

    def _judge(self, answer: Answer) -> Outcome:
        status = answer.status
        if 200 <= status < 300:  # noqa: PLR2004  success, as HTTP has it
            return Delivered(status)
        hint = _HINTS.get(status)
        if 300 <= status < 400:  # noqa: PLR2004
            hint = points_to(answer.headers.get("location"), self._mask)
        return Failed(
            f"{status}, {hint}" if hint else str(status),
            status,
            self._mask(answer.body, _KEPT),
            retry_after(answer.headers.get("retry-after"), self._now()),
        )


def webhook_id(event_id: str) -> str:
    """Return the receiver's idempotency key: the event id with `~` for its dots.

    No code holds a `~`, so distinct events have distinct keys.
    """
    return event_id.replace(".", "~")


def event_id(webhook_id: str) -> str:
    """Return the event id of which `webhook_id` made a key; an event id stays what it is."""
    return webhook_id.replace("~", ".")


_CACHED: Final = 256
"""Bodies that are remembered: what one batch brings goes to every endpoint."""

_CACHED_LENGTH: Final = 16 * 1024
"""Characters of `data` up to which they are: what is longer is rare, or none of ours."""


def body_of(message: Message) -> str:
    """Return the minified JSON body of an event or a notice; its `data` is complete in itself."""
    return (_remembered if len(message.data_json) <= _CACHED_LENGTH else _body_of)(message)


def _body_of(message: Message) -> str:
    said = isoformat(message.observed_at)  # neither it nor a type holds what JSON escapes
    return f'{{"type":"{message.type}","timestamp":"{said}","data":{_complete(message)}}}'


def _complete(message: Message) -> str:
    """Return `data` with what tells which event it is; older versions wrote that only beside it."""
    if isinstance(message, StreamEvent):
        begins = (
            f'{{"id":"{message.id}","type":"{message.type}","code":"{message.code}",'
            f'"market":"{message.market.name}","trading_day":"{message.trading_day}",'
            f'"revision":{message.revision},'
        )
        if message.data_json.startswith(begins):  # as `encode` writes it: not read once more
            return message.data_json
    told: dict[str, object] = {"id": message.id}
    if isinstance(message, StreamEvent):
        told["code"] = message.code
    told |= {"market": message.market.name, "trading_day": str(message.trading_day)}
    if isinstance(message, StreamEvent):
        told["revision"] = message.revision
    return to_json(told | message.data)


_remembered: Final = lru_cache(_CACHED)(_body_of)
