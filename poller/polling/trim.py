"""Trims the streams every hour, in the leader; `retention` decides what may go."""

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Final

from poller.errors import StoreDown, StoreMisfit
from poller.store.ports import Trimming
from poller.store.retention import LateGroup, trim_of
from poller.store.store import Stream
from poller.telemetry.observe import Happened, Observe, Recovered, Trouble

EVERY: Final = 3600.0
"""Seconds between two trimmings."""

_PAUSE: Final = 10.0


async def keep_trimmed(
    streams: Trimming, keep: timedelta, observe: Observe, now: Callable[[], datetime]
) -> None:
    """Keep entries for `keep`, longer for a group that is late; run for ever."""
    late = frozenset[str]()
    while True:
        try:
            late = await trim(streams, keep, observe, now(), before=late)
        except StoreDown:
            await asyncio.sleep(_PAUSE)  # the poller reports it
            continue
        except StoreMisfit as problem:
            observe(Trouble("trimming", str(problem)))  # polling does not depend on it
        else:
            observe(Recovered("trimming"))
        await asyncio.sleep(EVERY)


async def trim(
    streams: Trimming,
    keep: timedelta,
    observe: Observe,
    now: datetime,
    *,
    before: Collection[str] = (),
) -> frozenset[str]:
    """Remove old entries and return the groups that are late; `before`: those late last time."""
    late = set[str]()
    for stream in Stream:
        found = trim_of(await streams.groups(stream), now, keep)
        removed = await streams.trim(found.before, stream)
        for group in found.late:
            subject = f"consumer group {group.name}"
            if stream is Stream.RELEASES:  # an endpoint's groups have the same name on both streams
                subject += " of the releases"
            late.add(subject)
            observe(Trouble(subject, _reason(group, now, keep)))
        if removed:
            details = (("entries", removed), ("before", found.before))
            observe(Happened(f"trimmed the stream of {stream}", details))
    for subject in sorted(set(before) - late):
        observe(Recovered(subject))
    return frozenset(late)


def _reason(group: LateGroup, now: datetime, keep: timedelta) -> str:
    age = f"older than redis.keep_days = {keep.days}"
    if group.deadline <= now:
        return f"had not read entries {age} by its deadline: they are gone"
    return (
        f"has not read entries {age}: they are kept for it until {group.deadline:%Y-%m-%d %H:%M} "
        "UTC; start its readers, or remove it with XGROUP DESTROY"
    )
