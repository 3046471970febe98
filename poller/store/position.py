"""Where a reader of a stream goes on, and what it has missed. Pure.

A reader's position is a record of its own, apart from the consumer group that mirrors it: groups
and streams vanish. An id is compared by its two numbers; times are milliseconds of the server.
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
"""Nothing follows this id: a server refuses to look behind it, and to append."""

SKEW: Final = 60_000.0
"""Milliseconds by which the clocks of a server and its successor may differ."""

AFTER: Final = "([0-9]{1,18}|[0-8][0-9]{18})(-([0-9]{1,19}|1[0-7][0-9]{18}))?"
"""What a stream can be read after: an id, or its first number alone; no number is too large for
a server, whatever id somebody else has given an entry.
"""

_ID: Final = re.compile(r"([0-9]{1,20})-([0-9]{1,20})", re.ASCII)


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream as it stands.

    Attributes:
        now: The server's clock, milliseconds.
        last: The newest id there ever was; `START` for an empty or absent stream.
        first: The oldest entry's id; None without entries.
        added: How many entries were ever appended; None where the server does not count them.
    """

    now: float
    last: str = START
    first: str | None = None
    added: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """What Redis tells of one reader of a stream.

    Attributes:
        position: Its record: the last id it took; "" when there is none.
        at: When the record was written, or, without a record, when it was last active;
            milliseconds. None: never.
        read: How many entries had been appended up to `position`; None: not known.
        group: Up to where its consumer group is; None when there is no such group.
        group_moved: Whether an older version, which keeps no record, moved the group since `at`.
    """

    position: str = ""
    at: float | None = None
    read: int | None = None
    group: str | None = None
    group_moved: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Where a reader goes on.

    Attributes:
        position: After this id.
        read: How many entries had been appended up to there; None: not known.
        new: Nothing was known of it: it begins at the end.
        gone: It was known, and its group was not there any more.
        missed: There may have been entries before this id that it never saw; None: no sign of it.
    """

    position: str
    read: int | None = None
    new: bool = False
    gone: bool = False
    missed: str | None = None


def is_id(text: str) -> bool:
    """Return whether a text is an id as a server writes it; the last there can be is none."""
    found = _ID.fullmatch(text)
    return found is not None and int(found[1]) < 2**63 and int(found[2]) < 2**64


def appended(entry_id: str) -> datetime:
    """Return when an entry was appended, by its id; one beyond all bounds is moved to them."""
    return from_millis(order(entry_id)[0])


def start_of(place: Place, stream: StreamState) -> Start:
    """Return where a reader goes on.

    The record counts. Without one, the group of an older version does; without either, what is
    newer than its last sign of life, so that a group that was lost before costs no event.
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
    """Return whether a stream with entries ends before a position that was taken from it."""
    return stream.first is not None and order(position) > order(stream.last)


def resumed(at: float | None, stream: StreamState) -> str:
    """Return where to go on in a stream that ends before the position written at a time.

    It is another stream, or lost its newest entries. What it holds of before that time was taken;
    what came since is new, whatever its ids. An empty one says nothing: there the position stays.
    """
    since = f"{max(int(min(stream.now if at is None else at, stream.now) - SKEW), 0)}-0"
    return min(since, stream.last, key=order)


def _missed(position: str, stream: StreamState) -> str | None:
    """Return the oldest entry's id, if what stood before it may have followed the position."""
    if stream.first is None or order(stream.first) <= order(position):
        return None
    return stream.first


def lost(read: int | None, added: int | None, seen: int) -> int | None:
    """Return how many entries went before they were seen, at the end of a stream; None: unknown.

    `read`: how many had been appended up to where the reader was; `seen`: how many it has read
    since.
    """
    if read is None or added is None or added < read + seen:
        return None
    return added - read - seen
