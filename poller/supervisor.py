"""Bulkheads: a component that fails is started again, and the others do not notice.

A component is a named coroutine that works for ever. An error that is no part of its contract is a
defect: told once with its traceback, counted, shown on the page, in `explain` and by `/readyz`. An
error the project knows (`PollerError`) is told as trouble. Either way the component starts again
after a pause that grows from one second to five minutes. The process ends only for what no restart
of a part can mend: those errors are named by whoever starts the component.
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
"""Seconds between the end of a component and its next start; doubled each time."""

ALWAYS_FATAL: Final = (LockedOut,)
"""What no restart of a part can mend: the whole process needs another configuration."""

STEADY: Final = 60.0
"""Seconds a component must have run to count as recovered; its next pause is the first again."""


async def supervise(
    component: str,
    work: Callable[[], Awaitable[None]],
    observe: Observe,
    *,
    label: str = "",
    fatal: tuple[type[Exception], ...] = (),
) -> None:
    """Run `work` until it returns or this is cancelled; start it again whenever it fails.

    Args:
        component: Its name in the log and on the page; a subject of its own.
        work: Starts the component anew at each call; closes what it opened when it ends.
        observe: Learns of defects, troubles and recoveries.
        label: Its name in the metric, bounded by the configuration; `component` if absent.
        fatal: Errors that are raised, also out of a group, for whoever started it.
    """
    run = _Run(component, label or component, observe)
    while True:
        run.started()
        try:
            await work()
        except asyncio.CancelledError as error:
            if _is_cancelled():
                raise
            run.failed(error)  # another task's cancellation, which leaked
        except Exception as error:
            if _holds(error, (*ALWAYS_FATAL, *fatal)):
                raise
            run.failed(error)
            if _is_cancelled():  # it failed while it was closing: it ends all the same
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
    """How long a component has run, and how long it rests after its next failure."""

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
        """Pause; a component that rests is not stuck, which a watchdog must be told."""
        left, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        with heartbeat(self._observe, f"{self._component}, resting") as beat:
            while left > 0:
                beat()
                step = min(left, LONGEST_TURN / 2)
                await asyncio.sleep(step)
                left -= step
