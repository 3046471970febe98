"""The wall clock, and a wait with a limit. Pure modules take the time as an argument instead."""

import asyncio
import contextlib
from datetime import UTC, datetime


def wall_clock() -> datetime:
    """Return the current instant, aware, in UTC."""
    return datetime.now(UTC)


async def wait_set(event: asyncio.Event, seconds: float) -> None:
    """Return once the event is set, or after `seconds`; at once if they are negative."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
