"""The wall clock, read by drivers, which pass the time to pure code; and waiting on the loop."""

import asyncio
import contextlib
from datetime import UTC, datetime


def wall_clock() -> datetime:
    """Return the current instant, aware, in UTC."""
    return datetime.now(UTC)


class News:
    """Wakes everybody who waits for something new; cheaper than an event with a timeout.

    Attributes:
        count: How often there was something new.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiting: dict[asyncio.Future[None], None] = {}  # in order: runs are repeatable

    def tell(self) -> None:
        """Wake whoever waits."""
        self.count += 1
        for waiting in self._waiting:
            _end(waiting)

    async def wait(self, seen: int, seconds: float) -> None:
        """Return once there was more than the `seen` news, or after `seconds`."""
        if self.count != seen:
            return
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        timer = loop.call_later(max(seconds, 0), _end, waiting)
        self._waiting[waiting] = None
        try:
            await waiting
        finally:
            timer.cancel()
            del self._waiting[waiting]


def _end(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


async def wait_set(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set, or after `seconds`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
