"""Runs a command, and ends it with an exit code and a line that says why."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, NoReturn

from poller.cli import stdio
from poller.cli.stdio import StdoutError
from poller.errors import BadCode, ConfigError, PollerError
from poller.telemetry import bridge, log, observe, signals

FAILED: Final = 1
WRONG: Final = 2

_COMPLAINT_LIMIT: Final = 500_000
"""Characters of a message, which may list every problem of a configuration."""

_OVERDUE: Final = (
    f"not done after {signals.STOP_LIMIT:.0f} s, exiting all the same; a lease or claims that were "
    "not released expire by themselves"
)


class CommandFailed(Exception):
    """The command ends with these lines on stderr and this exit code."""

    def __init__(self, code: int, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.code = code


def finish(
    work: Coroutine[Any, Any, None],
    journal: observe.Observe | None = None,
    *,
    stopping: Callable[[], None] = lambda: None,
    hangup: Callable[[], None] | None = None,
    serves: bool = False,
) -> NoReturn:
    """Run to the end or until a signal, and exit without waiting for the SDK's threads.

    Args:
        work: What to run.
        journal: Records the end; None: stderr.
        stopping: Called when a signal asks to stop.
        hangup: Called on SIGHUP; None: SIGHUP stops, too.
        serves: A signal is how it ends, with 0; else it is interrupted.
    """

    def overdue() -> None:
        if journal is None:
            print_stderr(_OVERDUE)
        else:
            journal(observe.Trouble("stopping", _OVERDUE))

    async def whole() -> None:
        code = 0
        asyncio.get_running_loop().set_exception_handler(bridge.install().loop_failed)
        try:
            code = await signals.until_signalled(
                work, stopping=stopping, overdue=overdue, hangup=hangup, serves=serves
            )
            sys.stdout.flush()
        except BaseException as problem:  # noqa: BLE001  the process ends here, with its reason
            code = report(problem)
        if journal is not None and code == 0:
            journal(observe.Happened("stopped"))
        signals.leave(code)

    asyncio.run(whole())
    raise AssertionError("leave() returned")


def conclude(command: Callable[[], None]) -> NoReturn:
    """Run a command and exit with its code, or with that of the error it raised."""
    stdio.prepare()
    bridge.install()
    code: object = 0
    try:
        command()
    except SystemExit as ended:
        code = ended.code
    except Exception as problem:  # noqa: BLE001  the process ends here, with its reason
        code = report(problem)
    try:
        sys.stdout.flush()
    except OSError as problem:
        code = code or report(problem)
    signals.leave(code if isinstance(code, int) else 0)


def report(problem: BaseException) -> int:
    """Print on stderr why the program ends; return its exit code."""
    match problem:
        case BaseExceptionGroup():
            return report(problem.exceptions[0])
        case CommandFailed(code=code):
            text = str(problem)
        case ConfigError() | BadCode():
            code, text = WRONG, str(problem)
        case StdoutError(unread=False):
            code, text = FAILED, str(problem)
        case PollerError():
            code, text = FAILED, str(problem) or type(problem).__name__
        case KeyboardInterrupt():
            return signals.interrupted(signal.SIGINT)
        case asyncio.CancelledError() | BrokenPipeError() | StdoutError():
            return 0
        case OSError(errno=int(), strerror=reason):  # a disk, a directory: for the operator to fix
            code = FAILED
            text = f"{problem.filename}: {reason}" if problem.filename else f"{reason}"
        case _:
            log.log_defect(problem)
            return FAILED
    print_stderr(text)
    return code


def print_stderr(text: str) -> None:
    """Print lines on stderr, each after the program's name, masked and made printable."""
    lines = text[:_COMPLAINT_LIMIT].rstrip("\n").split("\n")
    sys.stderr.write("".join(f"poller: {log.shown(line)}\n" for line in lines))
