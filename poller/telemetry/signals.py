"""Handles the signals to stop or reload, and ends the process."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final, NoReturn

STOP_LIMIT: Final = 8.0
"""Seconds from the signal to the end, whatever hangs; process supervisors are promised 10."""

_STUCK: Final = 1.0  # seconds more for an event loop that is blocked


async def until_signalled(
    work: Coroutine[Any, Any, None],
    *,
    stopping: Callable[[], None] = lambda: None,
    overdue: Callable[[], None] = lambda: None,
    hangup: Callable[[], None] | None = None,
) -> None:
    """Run `work` until it ends, or SIGTERM or SIGINT arrives, which cancels and awaits it.

    `stopping` is called on the signal. If `work` has not ended `STOP_LIMIT` seconds later,
    `overdue` is called and the process exits with 0. SIGHUP calls `hangup`; without one, it ends
    the work, too.
    """
    task = asyncio.create_task(work, name="service")
    loop = asyncio.get_running_loop()
    asked = False

    def ask(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(1)  # a second signal ends it at once
        asked = True
        # a timer of the system, in case the loop is blocked in a write that nobody reads; repeated,
        # in case it blocks between the timer and its handler
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.setitimer(signal.ITIMER_REAL, STOP_LIMIT + _STUCK, _STUCK)
        loop.call_soon_threadsafe(stop)

    def stop() -> None:
        loop.call_later(STOP_LIMIT, give_up)
        task.cancel()  # first, as `stopping` may fail
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
        loop.add_signal_handler(number, lambda: None)  # so that the signal wakes the loop
        signal.signal(number, ask)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def leave(code: int) -> NoReturn:
    """Flush the output and exit, whatever the SDK's threads still wait for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # already reported, or nobody reads it
            stream.flush()
    os._exit(code)
