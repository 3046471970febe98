"""What is said of positions: a group that was gone, entries that were removed unread. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from poller.storage.position import appended
from poller.storage.store import Stream

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


def _subjects(names: Sequence[str]) -> str:
    if len(names) == 1:
        return subject_of(names[0])
    told = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"webhooks {told}{more}"


def _typed(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
