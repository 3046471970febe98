"""Log lines about an endpoint's group, entries removed unread, and lost deliveries. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from poller.delivery.queued import Parked
from poller.store.position import Start, appended
from poller.store.store import Stream

SLACK: Final = timedelta(minutes=1)
"""An event is observed at most this long before its entry is appended."""

_NAMED: Final = 3
"""Endpoints named in one log line; the others are counted."""


def subject_of(name: str) -> str:
    """Return an endpoint's name as a subject in the log."""
    return f"webhook {name}"


def intake_of(stream: Stream) -> str:
    """Return the name of the loop that queues what a stream gets."""
    return f"webhook intake of the {stream}"


def gone_text(names: Sequence[str], stream: Stream, position: str) -> str:
    """Return the line for endpoints whose group was deleted, with where they go on."""
    return (
        f"{_subjects(names)}: its group on the stream of {stream} was gone, "
        f"it goes on after {position}"
    )


def new_text(names: Sequence[str], stream: Stream, position: str) -> str:
    """Return the line for new endpoints, which skip the entries already on the stream."""
    placeholder = names[0] if len(names) == 1 else "NAME"
    return (
        f"{_subjects(names)}: nothing is on record of it, so it begins with what comes after "
        f"{position} on the stream of {stream}; for what came before: "
        f"poller webhook replay {placeholder} --since TIME"
    )


def missed_text(
    names: Sequence[str], stream: Stream, number: int | None, after: str, first: str
) -> str:
    """Return the line for entries removed before endpoints read them, with how to get them.

    `number`: how many; None: unknown. `after`: the last id they read. `first`: the oldest left.
    """
    entries = "1 entry" if number == 1 else f"{number:,} entries" if number else _UNKNOWN
    line = (
        f"{_subjects(names)}: {entries} of the stream of {stream} after {after} and up to {first} "
        "were removed before they could be taken"
    )
    if stream is not Stream.EVENTS:  # history holds no notices of releases
        return line
    placeholder = names[0] if len(names) == 1 else "NAME"
    since, until = appended(after) - SLACK, appended(first) + timedelta(seconds=1)
    return (
        f"{line}; to deliver what history has of them: poller webhook replay {placeholder} "
        f"--since {_typed(since)} --until {_typed(until)}"
    )


_UNKNOWN: Final = "an unknown number of entries, if any,"


def start_texts(name: str, stream: Stream, start: Start) -> list[str]:
    """Return the lines about where one endpoint goes on; usually none."""
    lines = [gone_text([name], stream, start.position)] if start.gone else []
    if start.missed is not None:
        lines.append(missed_text([name], stream, None, start.position, start.missed))
    return lines


def disabled_text(name: str, reason: str) -> str:
    """Return why nothing is sent, and what to do."""
    return f"disabled: {reason}; once it is fixed: poller webhook enable {name}"


def dropped_text(name: str) -> str:
    """Return the line for queue entries whose deliveries were removed."""
    return (
        f"{subject_of(name)}: deliveries that waited are not in Redis any more, dropped; to get "
        f"them again: poller webhook replay {name} --since TIME"
    )


def unreadable_text(name: str, first: Parked) -> str:
    """Return the line for deliveries that cannot be read."""
    return (
        f"{subject_of(name)}: what waited as {shown_key(first.key)} cannot be read "
        f"({first.reason}): a dead letter now, the others go on"
    )


def queued_again_text(name: str) -> str:
    """Return the line for a queue that was removed."""
    return f"{subject_of(name)}: its queue was removed; what was to be delivered is queued again"


def shown_key(key: str) -> str:
    """Return the beginning of a key, which may be foreign, as a literal."""
    return repr(key[:_KEY_SHOWN])


_KEY_SHOWN: Final = 80


def _subjects(names: Sequence[str]) -> str:
    if len(names) == 1:
        return subject_of(names[0])
    named = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"webhooks {named}{more}"


def _typed(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
