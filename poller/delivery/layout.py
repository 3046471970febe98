"""What the outbox's scripts are given and answer, laid out as JSON. Pure.

Numbers that stand in Redis may have been written by anybody: what is none of ours counts as absent.
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


def parts(items: Sequence[T], most: int) -> list[Sequence[T]]:
    """Return the items, at most so many together."""
    return [items[start : start + most] for start in range(0, len(items), most)]


def read_state(told: Mapping[str, Any], now: float) -> StreamState:
    """Return how a stream stands, by what XINFO STREAM says of it."""
    added = told.get("entries-added")
    first = told.get("first-entry")
    return StreamState(now, told.get("last-generated-id", START), first, added)


def read_place(raw: Mapping[str, Any], now: float) -> ReaderState:
    """Return where positions.lua found an endpoint."""
    at = number(raw, "at")
    if at is None and "other" not in raw:  # a version that kept no positions
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


def take_written(take: Take, group: str, *, replay: bool) -> dict[str, Any]:
    """Lay a take out as enqueue.lua reads it; a replay moves no record."""
    told: dict[str, Any] = {"group": group, "upto": take.upto}
    if not replay:
        told["after"] = take.after
    told["items"] = [
        [item.key, item.lane, millis(item.wait)] for item in take.items if not item.problem
    ]
    told["letters"] = [
        [item.key, undecided_json(item.text, item.problem)] for item in take.items if item.problem
    ]
    return told


def settlement_written(settlement: Settlement) -> dict[str, Any]:
    """Lay a settlement out as exchange.lua reads it."""
    claim = settlement.claim
    told: dict[str, Any] = {"lane": claim.lane, "token": claim.token, "how": settlement.how}
    told["ids"] = [delivery.key for delivery in claim.deliveries]
    told["delay"] = millis(settlement.delay)
    told["parked"] = [
        [each.key, problem_json(each.text, f"unreadable: {each.reason}")] for each in claim.parked
    ]
    if settlement.how in {"later", "dead"}:
        told["hold"] = millis(settlement.hold)
        told["disable"] = settlement.disable
        told["error"] = settlement.attempts[-1].reason
        told["attempts"] = attempts_json(settlement.attempts)
    if settlement.how == "dead":
        told["letters"] = [dead_json(each, settlement.attempts) for each in claim.deliveries]
    return told


def read_claim(told: Mapping[str, Any], token: str) -> Claim:
    """Return a claim of exchange.lua."""
    found = [read_delivery(key, text) for key, text in told["deliveries"]]
    return Claim(
        told["lane"],
        token,
        tuple(each for each in found if isinstance(each, Delivery)),
        read_attempts(told.get("attempts", "")),
        tuple(each for each in found if isinstance(each, Parked)),
    )


def millis(span: timedelta) -> int:
    """Return whole milliseconds."""
    return round(span.total_seconds() * 1000)


def moment(state: Mapping[str, Any], name: str) -> datetime | None:
    """Return an instant of a hash that anybody may have written to; None when it is none."""
    found = number(state, name)
    return None if found is None else from_millis(found)
