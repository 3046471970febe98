"""A webhook: one POST per event, signed according to Standard Webhooks 1.0."""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from standardwebhooks import Webhook

from poller.clock import wall_clock
from poller.delivery.destinations.destination import Destination
from poller.delivery.endpoint import TIMEOUT, Endpoint
from poller.delivery.masking import MAKE_ONE
from poller.delivery.retry import Delivered, Failed, Outcome, retry_after
from poller.delivery.webhookid import webhook_id
from poller.events import Message, StreamEvent
from poller.markets import Figures
from poller.model import Code, isoformat, market_of, to_json
from poller.telemetry.redaction import PREFIX

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

    from poller.delivery.client import Answer

_KEPT: Final = 4096
"""Bytes kept of an answer, before its secrets are masked."""

_HINTS: Final = {
    401: "it does not accept the signature, or requires a user and password",
    403: "it refuses access; is the secret the receiver's?",
    404: "it knows no such path; is the URL right?",
    405: "it accepts no POST there; is the URL right?",
    413: "it accepts no body of that size",
}
"""Status → what an operator can check."""

SHORTEST, LONGEST = 24, 64
"""Bytes of a signing secret, as Standard Webhooks requires."""

_MAKE_ONE: Final = f"make one: {MAKE_ONE}"


def _check_secrets(secrets: Sequence[str]) -> None:
    if not secrets:
        raise ValueError(
            f"nothing to sign with; {_MAKE_ONE}; a server that takes Slack's messages needs "
            "slack = true"
        )
    for secret in secrets:
        try:
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not secret.startswith(PREFIX) or not SHORTEST <= len(key) <= LONGEST:
            raise ValueError(
                f"a signing secret is {PREFIX} and the base64 of {SHORTEST} to {LONGEST} bytes; "
                + _MAKE_ONE
            )


def _example() -> dict[str, Any]:
    """Return the `data` of a made-up event whose day, and so its id, no real event has.

    A receiver that stores events by id overwrites nothing with it.
    """
    code, day = Code("HK.00000"), date(1970, 1, 1)
    market = market_of(code)
    midnight = int(market.midnight(day).timestamp())
    figures = Figures(51480638, 0.56, None, None, 467.8, 479.2)
    return {
        "id": f"{code}:{day}:0",
        "code": code,
        "market": market.name,
        "trading_day": str(day),
        "revision": 0,
        "record": market.simulation.record(midnight, str(day), figures).columns(),
        "previous": None,
        "change": None,
    }


async def _test(endpoint: Endpoint) -> Outcome:
    """Post a signed `short_interest.test`."""
    now, sender = wall_clock(), SignedPost(endpoint, now=wall_clock)
    body = {"type": "short_interest.test", "timestamp": isoformat(now), "data": _example()}
    try:
        return await sender.post(f"test_{int(now.timestamp() * 1000)}", to_json(body))
    finally:
        await sender.close()


WEBHOOK: Final = Destination(
    name="webhook",
    schemes=("https", "http"),
    check_secrets=_check_secrets,
    sender=lambda endpoint, _: SignedPost(endpoint, now=wall_clock),
    test=_test,
)


class SignedPost:
    """Posts one message, signed according to Standard Webhooks 1.0 with every secret."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        now: Callable[[], datetime],
        resolver: "AbstractResolver | None" = None,
        timeout: float = TIMEOUT,
    ) -> None:
        """`resolver`: by default the system's."""
        from poller.delivery.client import Client, redirect_hint  # noqa: PLC0415

        self._now = now
        self._signers = [Webhook(secret) for secret in endpoint.secrets]
        self._client = Client(endpoint, timeout=timeout, resolver=resolver)
        self._mask = endpoint.mask()
        self._redirect_hint = redirect_hint

    async def close(self) -> None:
        """See `Sender.close`."""
        await self._client.close()

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Post the one message; see `Sender.send`."""
        (message,) = messages
        return await self.post(webhook_id(message.id), body_of(message))

    async def post(self, message_id: str, body: str) -> Outcome:
        """Sign these bytes, post them, and return the outcome."""
        answer = await self._client.post(body.encode(), self._sign(message_id, body))
        return Failed(answer) if isinstance(answer, str) else self._outcome_of(answer)

    def _sign(self, message_id: str, body: str) -> dict[str, str]:
        now = self._now().astimezone(UTC)
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(s.sign(message_id, now, body) for s in self._signers),
        }

    def _outcome_of(self, answer: "Answer") -> Outcome:
        status = answer.status
        if 200 <= status < 300:  # noqa: PLR2004
            return Delivered(status)
        hint = _HINTS.get(status)
        if 300 <= status < 400:  # noqa: PLR2004
            hint = self._redirect_hint(answer.headers.get("location"), self._mask)
        return Failed(
            f"{status}, {hint}" if hint else str(status),
            status,
            self._mask(answer.body, _KEPT),
            retry_after(answer.headers.get("retry-after"), self._now()),
        )


_CACHE_SIZE: Final = 256
"""Bodies that are cached: the events of a batch go to every endpoint."""

_LONGEST_CACHED: Final = 16 * 1024
"""Characters of `data` in the longest cached body: longer ones are rare, or foreign."""


def body_of(message: Message) -> str:
    """Return the minified JSON body of an event or a notice; its `data` is complete in itself."""
    return (_cached if len(message.data_json) <= _LONGEST_CACHED else _body_of)(message)


def _body_of(message: Message) -> str:
    at = isoformat(message.observed_at)  # neither it nor a type needs escaping in JSON
    return f'{{"type":"{message.type}","timestamp":"{at}","data":{_complete(message)}}}'


def _complete(message: Message) -> str:
    """Return `data` with the event's identity, which older versions wrote beside it only."""
    if isinstance(message, StreamEvent):
        start = (
            f'{{"id":"{message.id}","type":"{message.type}","code":"{message.code}",'
            f'"market":"{message.market.name}","trading_day":"{message.trading_day}",'
            f'"revision":{message.revision},'
        )
        if message.data_json.startswith(start):  # complete, as `encode` writes it: no need to parse
            return message.data_json
    identity: dict[str, object] = {"id": message.id}
    if isinstance(message, StreamEvent):
        identity["code"] = message.code
    identity |= {"market": message.market.name, "trading_day": str(message.trading_day)}
    if isinstance(message, StreamEvent):
        identity["revision"] = message.revision
    return to_json(identity | message.data)


_cached: Final = lru_cache(_CACHE_SIZE)(_body_of)
