"""Determines endpoints' status from their keys and groups. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from poller.codec import from_millis, number
from poller.delivery.layout import moment, position_field
from poller.delivery.outbox import OutboxKeys, Status
from poller.store.position import LAST, is_id
from poller.store.store import Stream

TEXT_SHOWN: Final = 1024
"""Characters of a stored reason that are shown: anybody may have written it."""

ASKED: Final = 7
"""Commands that `ask` adds for one endpoint."""


def ask(pipe: Any, keys: OutboxKeys) -> None:  # noqa: ANN401  redis-py is typed in part
    """Add the commands to a pipeline whose answers `status_of` needs for one endpoint."""
    pipe.hgetall(keys.state)
    pipe.zcard(keys.queue)
    pipe.hlen(keys.attempts)
    pipe.hlen(keys.dead)
    pipe.zrange(keys.due, 0, 0, withscores=True)
    pipe.hlen(keys.deliveries)  # this and the next only check the key's type
    pipe.hlen(keys.claims)


def status_of(answers: Sequence[Any], lag: int) -> Status:
    """Return the status from the answers to `ask`; `lag`: entries not read."""
    state, waiting, retrying, dead, due, *_ = answers
    disabled = state.get("disabled", "")[:TEXT_SHOWN]
    following = [due[0][1], number(state, "hold_until") or 0] if due and not disabled else []
    return Status(
        disabled=disabled,
        lag=lag,
        waiting=waiting,
        retrying=retrying,
        dead=dead,
        failing_since=moment(state, "failing_since"),
        last_success=moment(state, "last_success"),
        last_error=state.get("last_error", "")[:TEXT_SHOWN],
        last_error_at=moment(state, "last_error_at"),
        next_attempt=from_millis(max(following)) if following else None,
    )


def lag_of(group: Mapping[str, Any] | None, state: Mapping[str, str], stream: Stream) -> int | str:
    """Return how many entries an endpoint has not read, or the id after which to count them.

    Redis 6.2 does not count them, and later versions lose count after an XDEL.
    """
    position = state.get(position_field(stream), "")
    if not is_id(position):
        if group is None:
            return 0
        position = str(group["last-delivered-id"])
    lag = None if group is None else group.get("lag")
    if group is not None and lag is not None and group["last-delivered-id"] == position:
        return int(lag)
    return 0 if position == LAST else position
