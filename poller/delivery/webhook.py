"""One signed POST, and what came of it."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, Protocol

from aiohttp.abc import AbstractResolver
from standardwebhooks import Webhook

from poller.delivery.client import TIMEOUT, Answer, Client, points_to
from poller.delivery.endpoint import Endpoint
from poller.delivery.retry import Delivered, Failed, Outcome, retry_after
from poller.model import Market, to_json
from poller.plan.notice import TYPES, Completed, Detected
from poller.storage.store import Entry

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

_MEMBERS: Final = frozenset({"record", "previous", "change"})
_NOTICES: Final[Mapping[str, Mapping[str, type]]] = {
    Detected.type: {"code": str},
    Completed.type: {"found": int, "expected": int, "missing": int, "missing_codes": list},
}


class Sender(Protocol):
    """How an endpoint is told of events: one signed POST, or a message in a chat."""

    async def send(self, entries: Sequence[Entry]) -> Outcome:
        """Send these entries of one lane; never raises but for a defect, ends within 20 s."""

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

    async def send(self, entries: Sequence[Entry]) -> Outcome:
        """Post the one entry; see `Sender.send`."""
        (entry,) = entries
        return await self.post(webhook_id(entry.fields["id"]), body_of(entry.fields))

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


def body_of(fields: Mapping[str, str]) -> str:
    """Return the minified JSON body of an event or a notice, from its stream entry's flat fields.

    What it says of the row, or the release, is spliced in as it stands in `data`: see `is_event`.
    """
    data: dict[str, object] = {"id": fields["id"]}
    if fields["type"] in TYPES:
        data |= {name: fields[name] for name in ("market", "trading_day")}
    else:
        data |= {name: fields[name] for name in ("code", "market", "trading_day")}
        data["revision"] = int(fields["revision"])
    head = {"type": fields["type"], "timestamp": fields["observed_at"], "data": data}
    return f"{to_json(head)[:-2]},{fields['data'][1:]}}}"


def is_event(fields: Mapping[str, str]) -> bool:
    """Return whether a stream entry is one of this service's; anybody may append others.

    Its `data` is minified JSON of the promised members, so that it may be spliced into a body.
    """
    told = _told(fields)
    if not told.keys() >= _MEMBERS or not {"code", "revision"} <= fields.keys():
        return False
    return "|" not in fields["code"] and fields["type"] not in TYPES


def is_notice(fields: Mapping[str, str]) -> bool:
    """Return whether an entry of the releases is one of this service's: see `is_event`."""
    told = _told(fields)
    kinds = _NOTICES.get(fields.get("type", ""), {})
    fitting = all(type(told.get(name)) is kind for name, kind in kinds.items())
    return (
        bool(kinds) and fitting and all(isinstance(c, str) for c in told.get("missing_codes", ()))
    )


def _told(fields: Mapping[str, str]) -> Mapping[str, Any]:
    """Return what `data` holds; nothing for an entry of which no body can be made."""
    try:
        told = json.loads(fields["data"])
        Market(fields["market"])
        date.fromisoformat(fields["trading_day"])
        _ = fields["type"], fields["observed_at"], int(fields.get("revision", 0))
        named = fields["id"].isascii() and fields["id"].isprintable()
        whole = isinstance(told, dict) and to_json(told) == fields["data"]
    except (KeyError, ValueError, TypeError):
        return {}
    return told if whole and named else {}
