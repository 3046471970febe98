"""The wall clock, read by drivers, which pass the time to pure code; and waiting on the loop."""

import asyncio
import contextlib
from datetime import UTC, datetime


def wall_clock() -> datetime:
    """Return the current instant, aware, in UTC."""
    return datetime.now(UTC)


async def wait_set(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set, or after `seconds`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
