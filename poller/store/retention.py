"""Decides which entries to trim: those older than the retention, except unread ones. Pure.

A consumer group that never reads would keep the stream for ever, so it is reported, and its unread
entries are trimmed `GRACE` later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from poller.codec import from_millis
from poller.store.store import order

GRACE: Final = timedelta(days=7)
"""How much longer an entry is kept for a group that has not read it."""


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group. `unread`: its oldest entry not read or acknowledged, if there is one."""

    name: str
    unread: str | None


@dataclass(frozen=True, slots=True)
class LateGroup:
    """A group that keeps old entries from being trimmed, and until when (aware)."""

    name: str
    deadline: datetime


@dataclass(frozen=True, slots=True)
class Trim:
    """What to trim.

    Attributes:
        before: Entries with a smaller id are removed.
        late: Groups that keep older entries, or whose deadline has passed.
    """

    before: str
    late: tuple[LateGroup, ...] = ()


def trim_of(groups: Sequence[Group], now: datetime, keep: timedelta) -> Trim:
    """Return what to trim from a stream whose entries are kept for `keep`; `now` is aware."""
    horizon = now - keep
    unread = [(group.name, order(group.unread)) for group in groups if group.unread is not None]
    late = tuple(
        LateGroup(name, _time(entry) + keep + GRACE)
        for name, entry in unread
        if _time(entry) < horizon
    )
    wanted = min([_first_at(horizon), *(entry for _, entry in unread)])
    milliseconds, number = max(wanted, _first_at(horizon - GRACE))
    return Trim(f"{milliseconds}-{number}", late)


def _time(entry: tuple[int, int]) -> datetime:
    return from_millis(entry[0])  # clamped: any client may append an entry of the far future


def _first_at(moment: datetime) -> tuple[int, int]:
    return max(round(moment.timestamp() * 1000), 0), 0
