"""What the stream may forget: entries older than asked for, but none that a group has yet to read.

A group that does not read would pin the stream for ever, so it is named, and has `GRACE` on top of
the age: what it has not read then is forgotten all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from poller.codec import from_millis
from poller.store.store import order

GRACE: Final = timedelta(days=7)
"""How much longer than asked for an entry is kept for a group that has not read it."""


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group. `unread`: the oldest entry it has not read or not acknowledged."""

    name: str
    unread: str | None


@dataclass(frozen=True, slots=True)
class Late:
    """A group that keeps entries from being forgotten, and from when on it does not any more."""

    name: str
    deadline: datetime


@dataclass(frozen=True, slots=True)
class Trim:
    """Entries with a smaller id than `before` go; `late` groups hold back others, or have lost."""

    before: str
    late: tuple[Late, ...] = ()


def trim_of(groups: Sequence[Group], now: datetime, keep: timedelta) -> Trim:
    """Return what to forget of a stream whose entries are to be kept for `keep`."""
    horizon = now - keep
    unread = [(group.name, order(group.unread)) for group in groups if group.unread is not None]
    late = tuple(
        Late(name, _time(entry) + keep + GRACE) for name, entry in unread if _time(entry) < horizon
    )
    wanted = min([_first_at(horizon), *(entry for _, entry in unread)])
    milliseconds, number = max(wanted, _first_at(horizon - GRACE))
    return Trim(f"{milliseconds}-{number}", late)


def _time(entry: tuple[int, int]) -> datetime:
    return from_millis(entry[0])  # anybody may append an entry of the far future


def _first_at(moment: datetime) -> tuple[int, int]:
    return max(round(moment.timestamp() * 1000), 0), 0
