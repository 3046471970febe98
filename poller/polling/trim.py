"""Trims the stream now and then: done by the active poller, decided by `retention`."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from poller.errors import StoreDown, StoreMisfit
from poller.facts.observe import Happened, Observe, Recovered, Trouble
from poller.storage.retention import Group, Late, decide

EVERY: Final = 3600.0
"""Seconds between two looks."""

_PAUSE: Final = 10.0


class Stream(Protocol):
    """What is needed of the store. Both calls may raise StoreDown or StoreMisfit."""

    async def groups(self) -> list[Group]:
        """Return the consumer groups and what each has yet to read."""

    async def trim(self, before: str) -> int:
        """Remove the entries with a smaller id; returns how many there were."""


async def keep_trimmed(
    stream: Stream, keep: timedelta, observe: Observe, now: Callable[[], datetime]
) -> None:
    """Keep entries for `keep`, and longer for a group that is late; for ever."""
    late: tuple[Late, ...] = ()
    while True:
        try:
            late = await trim(stream, keep, observe, now(), before=late)
        except StoreDown:
            await asyncio.sleep(_PAUSE)  # the poller says so
            continue
        except StoreMisfit as problem:
            observe(Trouble("trimming", str(problem)))  # polling does not depend on it
        else:
            observe(Recovered("trimming"))
        await asyncio.sleep(EVERY)


async def trim(
    stream: Stream, keep: timedelta, observe: Observe, now: datetime, *, before: Sequence[Late] = ()
) -> tuple[Late, ...]:
    """Forget what may be forgotten; returns the groups that are late, `before` had been."""
    found = decide(await stream.groups(), now, keep)
    removed = await stream.trim(found.before)
    for group in found.late:
        observe(Trouble(_subject(group), _reason(group, now, keep)))
    names = {group.name for group in found.late}
    for group in before:
        if group.name not in names:
            observe(Recovered(_subject(group)))
    if removed:
        observe(Happened("trimmed the stream", (("entries", removed), ("before", found.before))))
    return found.late


def _subject(group: Late) -> str:
    return f"consumer group {group.name}"


def _reason(group: Late, now: datetime, keep: timedelta) -> str:
    age = f"older than redis.keep_days = {keep.days}"
    if group.deadline <= now:
        return f"had not read entries {age} by its deadline: they are gone"
    return (
        f"has not read entries {age}: they are kept for it until {group.deadline:%Y-%m-%d %H:%M} "
        "UTC; start its readers, or remove it with XGROUP DESTROY"
    )
