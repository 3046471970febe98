"""Virtual time: asyncio's own loop with a clock that jumps, so that a year passes in seconds.

The program does not know: `asyncio.sleep`, `timeout` and `call_at` read the loop's clock, and when
every task waits, the clock jumps to the next timer. Two runs with the same seed are identical. Code
inside may not wait for a socket or a thread: only the loop's own timers move the clock, so waiting
for anything else is a deadlock.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

Result = TypeVar("Result")


class Deadlock(RuntimeError):
    """Every task waits and no timer is set, so nothing would ever happen again."""


class _JumpingSelector(selectors.DefaultSelector):
    """Reports ready sockets; if there are none, advances the clock instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0:  # tasks are ready: sockets can wait till they are done, which is cheaper
            return []
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise Deadlock("every task waits, and no timer is set")
            self.elapsed += max(timeout, 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a virtual clock that starts at `began` (aware)."""

    def __init__(self, began: datetime) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # timers nearer than this are due: more than the rounding at 1e8 s, less than any wait
        self._clock_resolution = 1e-6
        self._began = began

    def time(self) -> float:
        """Return the virtual seconds since the start."""
        return self._jumping.elapsed

    def now(self) -> datetime:
        """Return the virtual time, aware, in UTC."""
        return (self._began + timedelta(seconds=self._jumping.elapsed)).astimezone(UTC)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  asyncio's own name
        """Leave the threads to `close`: a loop that waits for one to end sees a deadlock."""
        del timeout


def run_virtually(began: datetime, work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work` in virtual time, as `asyncio.run` would; raises Deadlock instead of hanging."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(began)) as runner:
        return runner.run(work)
