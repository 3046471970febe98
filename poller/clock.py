"""The clock on the wall, read by drivers, who hand the time to what decides; the loop waits."""

import asyncio
import contextlib
from datetime import UTC, datetime


def wall_clock() -> datetime:
    """Return the current instant, aware."""
    return datetime.now(UTC)


async def wait_set(event: asyncio.Event, seconds: float) -> None:
    """Return once the event is set, or after so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
