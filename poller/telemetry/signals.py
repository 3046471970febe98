"""How a process is told to end, or to read its configuration again, and how it leaves."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final, NoReturn

STOP_LIMIT: Final = 8.0
"""Seconds from the signal to the end, whatever hangs; supervisors are promised 10."""

_STUCK: Final = 1.0  # seconds more for a loop that does not even turn


async def until_signalled(
    work: Coroutine[Any, Any, None],
    *,
    stopping: Callable[[], None] = lambda: None,
    overdue: Callable[[], None] = lambda: None,
    hangup: Callable[[], None] | None = None,
) -> None:
    """Run `work` until it ends or SIGTERM or SIGINT arrives; it is cancelled then, and awaited.

    `stopping` is called then. When `work` has not ended `STOP_LIMIT` seconds later, `overdue` is
    called, and the process leaves with 0. SIGHUP calls `hangup`; without one it ends the work, too.
    """
    task = asyncio.create_task(work, name="service")
    loop = asyncio.get_running_loop()
    asked = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(1)  # asked twice: at once
        asked = True
        # the system's own timer, for a loop that is stuck in a write nobody reads; repeated, for
        # one that gets stuck between its ringing and its being heard
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.setitimer(signal.ITIMER_REAL, STOP_LIMIT + _STUCK, _STUCK)
        loop.call_soon_threadsafe(stop)

    def stop() -> None:
        loop.call_later(STOP_LIMIT, give_up)
        task.cancel()  # first: whatever telling of it runs into, it stops
        stopping()

    def give_up() -> None:
        try:
            overdue()
        finally:
            leave(0)

    ending = [signal.SIGTERM, signal.SIGINT]
    if hangup is None:
        ending.append(signal.SIGHUP)
    else:
        loop.add_signal_handler(signal.SIGHUP, hangup)
    for number in ending:
        loop.add_signal_handler(number, lambda: None)  # it wakes the loop up
        signal.signal(number, ask)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def leave(code: int) -> NoReturn:
    """End the process with everything written, whatever the SDK's threads still wait for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # it was told, or there is nobody to tell
            stream.flush()
    os._exit(code)
