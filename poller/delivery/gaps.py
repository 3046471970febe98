"""What is said of gaps: a group that was gone, entries removed unread, deliveries lost. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from poller.delivery.queued import Parked
from poller.store.position import Start, appended
from poller.store.store import Stream

SLACK: Final = timedelta(minutes=1)
"""How long before its entry was appended an event may have been observed."""

_NAMED: Final = 3
"""Endpoints named in one line of the log; the others are counted."""


def subject_of(name: str) -> str:
    """Return what an endpoint is called in the log."""
    return f"webhook {name}"


def gone_text(names: Sequence[str], stream: Stream, position: str) -> str:
    """Say that the group of endpoints was gone, and where they go on."""
    return (
        f"{_subjects(names)}: its group on the stream of {stream} was gone, "
        f"it goes on after {position}"
    )


def new_text(names: Sequence[str], stream: Stream, position: str) -> str:
    """Say that nothing is known of endpoints, though the stream holds entries already."""
    whom = names[0] if len(names) == 1 else "NAME"
    return (
        f"{_subjects(names)}: nothing is on record of it, so it begins with what comes after "
        f"{position} on the stream of {stream}; for what came before: "
        f"poller webhook replay {whom} --since TIME"
    )


def missed_text(
    names: Sequence[str], stream: Stream, number: int | None, after: str, first: str
) -> str:
    """Say what was removed before endpoints could take it, and how to get it; None: unknown.

    `after`: the last id they took; `first`: the oldest that is there.
    """
    entries = "1 entry" if number == 1 else f"{number:,} entries" if number else _UNKNOWN
    told = (
        f"{_subjects(names)}: {entries} of the stream of {stream} after {after} and up to {first} "
        "were removed before they could be taken"
    )
    if stream is not Stream.EVENTS:  # of whole releases there is no history
        return told
    whom = names[0] if len(names) == 1 else "NAME"
    since, until = appended(after) - SLACK, appended(first) + timedelta(seconds=1)
    return (
        f"{told}; to deliver what history has of them: poller webhook replay {whom} "
        f"--since {_typed(since)} --until {_typed(until)}"
    )


_UNKNOWN: Final = "an unknown number of entries, if any,"


def start_texts(name: str, stream: Stream, start: Start) -> list[str]:
    """Say what is to be known of where one endpoint goes on; nothing, as a rule."""
    told = [gone_text([name], stream, start.position)] if start.gone else []
    if start.missed is not None:
        told.append(missed_text([name], stream, None, start.position, start.missed))
    return told


def disabled_text(name: str, reason: str) -> str:
    """Say why nothing is sent, and what to do."""
    return f"disabled: {reason}; once it is mended: poller webhook enable {name}"


def dropped_text(name: str) -> str:
    """Say that deliveries were removed from under their places in the queue."""
    return (
        f"{subject_of(name)}: deliveries that waited are not in Redis any more, dropped; to get "
        f"them again: poller webhook replay {name} --since TIME"
    )


def unreadable_text(name: str, first: Parked) -> str:
    """Say that deliveries cannot be read, and what became of them."""
    return (
        f"{subject_of(name)}: what waited as {sort_key_shown(first.key)} cannot be read "
        f"({first.reason}): a dead letter now, the others go on"
    )


def queued_again_text(name: str) -> str:
    """Say that a queue was removed."""
    return f"{subject_of(name)}: its queue was removed; what was to be delivered is queued again"


def sort_key_shown(key: str) -> str:
    """Return the beginning of a key that anybody may have made."""
    return repr(key[:_KEY_SHOWN])


_KEY_SHOWN: Final = 80


def _subjects(names: Sequence[str]) -> str:
    if len(names) == 1:
        return subject_of(names[0])
    told = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"webhooks {told}{more}"


def _typed(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
