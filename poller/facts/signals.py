"""How a process is told to end, or to read its configuration again, and how it leaves."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn


async def until_signalled(
    work: Coroutine[Any, Any, None],
    *,
    stopping: Callable[[], None] = lambda: None,
    hangup: Callable[[], None] | None = None,
) -> None:
    """Run `work` until it ends or SIGTERM or SIGINT arrives; it is cancelled then, and awaited.

    `stopping` is called first. SIGHUP calls `hangup`; without one it ends the work, too.
    """
    task = asyncio.create_task(work, name="service")
    loop = asyncio.get_running_loop()
    ending = [signal.SIGTERM, signal.SIGINT]

    def stop() -> None:
        for number in ending:
            loop.add_signal_handler(number, os._exit, 1)  # asked twice: at once
        stopping()
        task.cancel()

    if hangup is None:
        ending.append(signal.SIGHUP)
    else:
        loop.add_signal_handler(signal.SIGHUP, hangup)
    for number in ending:
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise


def leave(code: int) -> NoReturn:
    """End the process with everything written, whatever the SDK's threads still wait for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
