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
    serves: bool = False,
) -> int:
    """Run `work` until it ends, or SIGTERM or SIGINT arrives, which cancels and awaits it.

    `stopping` is called on the signal. If `work` has not ended `STOP_LIMIT` seconds later,
    `overdue` is called and the process exits. SIGHUP calls `hangup`; without one, it ends the work,
    too. `serves`: a signal is how the work ends.

    Returns the exit code: 0, or that of an interrupted command.
    """
    task = asyncio.create_task(work, name="service")
    loop = asyncio.get_running_loop()
    asked, code = False, 0

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked, code
        if asked:
            os._exit(1)  # a second signal ends it at once
        asked, code = True, 0 if serves else interrupted(number)
        # a timer of the system, in case the loop is blocked in a write that nobody reads; repeated,
        # in case it blocks between the timer and its handler
        signal.signal(signal.SIGALRM, lambda *_: os._exit(code))
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
            leave(code)

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
    return code


def interrupted(number: int) -> int:
    """Return the exit code of a command that a signal ended before it was done, as shells have it.

    With 0, a script would go on with what is not there.
    """
    return 128 + number


def leave(code: int) -> NoReturn:
    """Flush the output and exit, whatever the SDK's threads still wait for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # already reported, or nobody reads it
            stream.flush()
    os._exit(code)
