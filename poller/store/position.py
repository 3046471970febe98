"""Where a reader of a stream resumes, and what it has missed. Pure.

A reader keeps a record of its position besides its consumer group, because groups and streams may
be deleted. Ids are compared by their two numbers; times are milliseconds on the server's clock.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from poller.codec import from_millis
from poller.store.store import order

START: Final = "0-0"
"""Before every entry."""

LAST: Final = "18446744073709551615-18446744073709551615"
"""The last possible id: a server refuses to read after it, and to append."""

SKEW: Final = 60_000.0
"""Milliseconds by which the clocks of a server and its replacement may differ."""

AFTER: Final = "([0-9]{1,18}|[0-8][0-9]{18})(-([0-9]{1,19}|1[0-7][0-9]{18}))?"
"""Pattern of what a stream can be read after: an id, or its first number alone, within the range
that a server accepts.
"""

_ID: Final = re.compile(r"([0-9]{1,20})-([0-9]{1,20})", re.ASCII)


@dataclass(frozen=True, slots=True)
class StreamState:
    """The current state of a stream.

    Attributes:
        now: The server's clock, milliseconds.
        last: The newest id ever used; `START` for an empty or absent stream.
        first: The oldest entry's id; None without entries.
        added: How many entries were ever appended; None if the server does not count them.
    """

    now: float
    last: str = START
    first: str | None = None
    added: int | None = None


@dataclass(frozen=True, slots=True)
class ReaderState:
    """What Redis has on one reader of a stream.

    Attributes:
        position: Its record: the last id it took; "" without a record.
        at: When the record was written, or, without one, when the reader was last active;
            milliseconds. None: never.
        read: How many entries had been appended up to `position`; None: unknown.
        group: The position of its consumer group; None without a group.
        group_moved: Whether an older version, which keeps no record, moved the group since `at`.
    """

    position: str = ""
    at: float | None = None
    read: int | None = None
    group: str | None = None
    group_moved: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Where a reader resumes.

    Attributes:
        position: It reads the entries after this id.
        read: How many entries had been appended up to there; None: unknown.
        new: No position is known; it starts at the end of the stream.
        gone: It was known, but its group has been deleted.
        missed: It may have missed entries before this id; None: no sign of that.
    """

    position: str
    read: int | None = None
    new: bool = False
    gone: bool = False
    missed: str | None = None


def is_id(text: str) -> bool:
    """Return whether a text is an id as a server writes it, within the range we accept."""
    found = _ID.fullmatch(text)
    return found is not None and int(found[1]) < 2**63 and int(found[2]) < 2**64


def is_stream_id(text: str) -> bool:
    """Return whether a server takes this for an id: one or two numbers of 64 bits."""
    parts = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", text, re.ASCII)
    return parts is not None and all(int(part or 0) < 1 << 64 for part in parts.groups())


def appended(entry_id: str) -> datetime:
    """Return when an entry was appended, by its id; aware, clamped to the codec's years."""
    return from_millis(order(entry_id)[0])


def start_of(place: ReaderState, stream: StreamState) -> Start:
    """Return where a reader resumes.

    Its record decides; without one, the group left by an older version; without either, the time
    it was last active, so that a deleted group costs no event.
    """
    if not is_id(place.position):
        group = place.group
        if group is not None and group != LAST and not is_beyond(group, stream):
            return Start(group)
        if place.at is None:
            return Start(stream.last, stream.added, new=True)
        after = f"{max(int(min(place.at, stream.now) - SKEW), 0)}-0"
        return Start(after, gone=group is None, missed=_missed(after, stream))
    position, read = place.position, place.read
    if place.group is not None and place.group_moved and order(place.group) > order(position):
        position, read = place.group, None
    gone = place.group is None
    if is_beyond(position, stream):
        return Start(resumed(place.at, stream), gone=gone, missed=stream.first if gone else None)
    if gone:
        return Start(position, gone=True, missed=_missed(position, stream))
    missed = _missed(position, stream) if stream.added is None else None
    return Start(position, read, missed=missed)


def is_beyond(position: str, stream: StreamState) -> bool:
    """Return whether a stream with entries ends before a position once taken from it."""
    return stream.first is not None and order(position) > order(stream.last)


def resumed(at: float | None, stream: StreamState) -> str:
    """Return where to resume in a stream that ends before a position recorded at `at`.

    It is another stream, or has lost its newest entries. Entries before that time were taken; later
    ones are new, whatever their ids.
    """
    since = f"{max(int(min(stream.now if at is None else at, stream.now) - SKEW), 0)}-0"
    return min(since, stream.last, key=order)


def _missed(position: str, stream: StreamState) -> str | None:
    """Return the oldest entry's id if there may have been entries between it and the position."""
    if stream.first is None or order(stream.first) <= order(position):
        return None
    return stream.first


def lost(read: int | None, added: int | None, seen: int) -> int | None:
    """Return how many entries were removed unseen, once a stream is read to its end; None: unknown.

    `read`: how many had been appended up to the reader's position; `seen`: how many it read since.
    """
    if read is None or added is None or added < read + seen:
        return None
    return added - read - seen
