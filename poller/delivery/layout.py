"""Encodes the arguments of the outbox's scripts as JSON, and decodes their answers. Pure.

Anybody may have written to Redis: a number that this service cannot have written counts as absent.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from poller.codec import from_millis, number
from poller.delivery.outbox import Claim, Settlement, Take
from poller.delivery.queued import (
    Delivery,
    Parked,
    attempts_json,
    dead_json,
    problem_json,
    read_attempts,
    read_delivery,
    undecided_json,
)
from poller.store.position import START, ReaderState, StreamState
from poller.store.store import Stream

T = TypeVar("T")


def position_field(stream: Stream) -> str:
    """Return the field of an endpoint's state that holds its position on a stream."""
    return f"position:{stream}"


def chunks(items: Sequence[T], most: int) -> list[Sequence[T]]:
    """Split items into lists of at most `most`."""
    return [items[start : start + most] for start in range(0, len(items), most)]


def read_state(info: Mapping[str, Any], now: float) -> StreamState:
    """Return a stream's state from the answer to XINFO STREAM; `now`: milliseconds."""
    added = info.get("entries-added")
    first = info.get("first-entry")
    return StreamState(now, info.get("last-generated-id", START), first, added)


def read_place(raw: Mapping[str, Any], now: float) -> ReaderState:
    """Return an endpoint's place from the answer of positions.lua; `now`: milliseconds."""
    at = number(raw, "at")
    if at is None and "other" not in raw:  # written by a version that stored no positions
        active = (number(raw, "success"), number(raw, "failure"))
        at = max((each for each in active if each is not None), default=None)
    read, idle = number(raw, "read"), raw.get("idle")
    return ReaderState(
        position=str(raw.get("position", "")),
        at=at,
        read=None if read is None else int(read),
        group=raw.get("group"),
        group_moved=idle is not None and (at is None or now - idle > at),
    )


def encode_take(take: Take, group: str, *, replay: bool) -> dict[str, Any]:
    """Return a take as enqueue.lua reads it; a replay does not move the position."""
    encoded: dict[str, Any] = {"group": group, "upto": take.upto}
    if not replay:
        encoded["after"] = take.after
    encoded["items"] = [
        [item.key, item.lane, millis(item.wait)] for item in take.items if not item.problem
    ]
    encoded["letters"] = [
        [item.key, undecided_json(item.text, item.problem)] for item in take.items if item.problem
    ]
    return encoded


def encode_settlement(settlement: Settlement) -> dict[str, Any]:
    """Return a settlement as exchange.lua reads it."""
    claim = settlement.claim
    encoded: dict[str, Any] = {"lane": claim.lane, "token": claim.token, "how": settlement.how}
    encoded["ids"] = [delivery.key for delivery in claim.deliveries]
    encoded["delay"] = millis(settlement.delay)
    encoded["parked"] = [
        [each.key, problem_json(each.text, f"unreadable: {each.reason}")] for each in claim.parked
    ]
    if settlement.how in {"later", "dead"}:
        encoded["hold"] = millis(settlement.hold)
        encoded["disable"] = settlement.disable
        encoded["error"] = settlement.attempts[-1].reason
        encoded["attempts"] = attempts_json(settlement.attempts)
    if settlement.how == "dead":
        encoded["letters"] = [dead_json(each, settlement.attempts) for each in claim.deliveries]
    return encoded


def read_claim(raw: Mapping[str, Any], token: str) -> Claim:
    """Return a claim from the answer of exchange.lua."""
    found = [read_delivery(key, text) for key, text in raw["deliveries"]]
    return Claim(
        raw["lane"],
        token,
        tuple(each for each in found if isinstance(each, Delivery)),
        read_attempts(raw.get("attempts", "")),
        tuple(each for each in found if isinstance(each, Parked)),
    )


def millis(span: timedelta) -> int:
    """Round to whole milliseconds."""
    return round(span.total_seconds() * 1000)


def moment(state: Mapping[str, Any], name: str) -> datetime | None:
    """Return a hash's field, milliseconds, as an instant in UTC; None if it is no number."""
    found = number(state, name)
    return None if found is None else from_millis(found)
