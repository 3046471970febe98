"""Bulkheads: a component that fails is restarted, and the others are not affected.

A component is a named coroutine that runs until it is cancelled. An error outside its contract is a
defect: logged once with its traceback, counted, shown on the page, in `explain` and by `/readyz`.
An error the project knows (`PollerError`) is reported as trouble. Either way the component starts
again after a pause that grows from one second to five minutes. The process ends only for errors
that a restart cannot fix: those in `ALWAYS_FATAL`, and those that the caller lists as fatal.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from poller.errors import LockedOut, PollerError
from poller.telemetry.log import fingerprint
from poller.telemetry.observe import (
    LONGEST_TURN,
    Defect,
    Observe,
    Recovered,
    Trouble,
    heartbeat,
)

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 300.0
"""Seconds between a component's failure and its restart; doubled after each failure."""

ALWAYS_FATAL: Final = (LockedOut,)
"""Errors that no restart can fix: the process needs another configuration."""

STEADY: Final = 60.0
"""Seconds a component must run to count as recovered; its pause is then the first again."""


async def supervise(
    component: str,
    work: Callable[[], Awaitable[None]],
    observe: Observe,
    *,
    label: str = "",
    fatal: tuple[type[Exception], ...] = (),
) -> None:
    """Run `work` until it returns or this call is cancelled; restart it whenever it fails.

    Args:
        component: Its unique name in the log and on the page.
        work: Runs the component from its start at each call; closes what it opened when it ends.
        observe: Receives defects, troubles and recoveries.
        label: Its name in the metric, one of a fixed set; `component` if empty.
        fatal: Errors that are raised instead of restarting, also when an exception group holds one.
    """
    run = _Run(component, label or component, observe)
    while True:
        run.started()
        try:
            await work()
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            run.failed(error)  # another task's cancellation has leaked into this one
        except Exception as error:
            if _holds(error, (*ALWAYS_FATAL, *fatal)):
                raise
            run.failed(error)
            if _is_cancelled():  # it failed while closing: end nevertheless
                raise asyncio.CancelledError from error
        else:
            return
        finally:
            run.ended()
        await run.rest()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _holds(error: Exception, kinds: tuple[type[Exception], ...]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(kinds) is not None
    return isinstance(error, kinds)


class _Run:
    """One component's failures: how long to pause after the next, and when it has recovered."""

    def __init__(self, component: str, label: str, observe: Observe) -> None:
        self._component = component
        self._label = label
        self._observe = observe
        self._pause = FIRST_PAUSE
        self._troubled = False
        self._timer: asyncio.TimerHandle | None = None

    def started(self) -> None:
        if self._troubled:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(STEADY, self._recovered)

    def ended(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _recovered(self) -> None:
        self._troubled, self._pause = False, FIRST_PAUSE
        self._observe(Recovered(self._component))

    def failed(self, error: BaseException) -> None:
        self._troubled = True
        if isinstance(error, PollerError):
            self._observe(Trouble(self._component, str(error) or type(error).__name__))
        else:
            self._observe(Defect(self._component, self._label, error, fingerprint(error)))

    async def rest(self) -> None:
        """Pause; keep beating, so that the watchdog does not take the pause for a hang."""
        left, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        with heartbeat(self._observe, f"{self._component}, resting") as beat:
            while left > 0:
                beat()
                step = min(left, LONGEST_TURN / 2)
                await asyncio.sleep(step)
                left -= step
