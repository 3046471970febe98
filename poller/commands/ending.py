"""How a command begins and ends: its configuration, its exit code, one line that says why."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

from cyclopts import (
    CoercionError,
    CycloptsError,
    Parameter,
    Token,
    UnknownCommandError,
    UnusedCliTokensError,
)

from poller.commands.stdio import StdoutError
from poller.errors import BadCode, ConfigError, PollerError
from poller.facts import log, observe, signals
from poller.settings.config import Config, load

FAILED: Final = 1
WRONG: Final = 2

_OVERDUE: Final = (
    f"not done after {signals.STOP_LIMIT:.0f} s, left all the same; a lease or claims that could "
    "not be given back run out by themselves"
)

ConfigFile = Annotated[
    Path | None,
    Parameter(
        name="--config",
        help="TOML file; else POLLER_CONFIG, else config/poller.toml, else the defaults",
    ),
]


_FORMS: Final[Mapping[object, str]] = {
    date: " Write it like 2026-04-30.",
    datetime: " Write it like 2026-04-30, or 2026-04-30T09:30:00+08:00.",
    int: " Give a whole number.",
    float: " Give a number.",
}


def whole(_type: object, tokens: Sequence[Token]) -> int:
    """Convert an option that counts; 1.5 is none, though Cyclopts would round it."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise CoercionError(token=tokens[0], target_type=int) from None


class CommandFailed(Exception):
    """A command that ends with this text on stderr and this exit code."""

    def __init__(self, code: int, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.code = code


def begin(file: Path | None) -> Config:
    """Read the configuration; nothing logged from here on holds its secrets."""
    settings = load(file, os.environ)
    log.configure(level=settings.log_level, secrets=settings.secrets())
    return settings


def finish(
    work: Coroutine[Any, Any, None],
    journal: observe.Observe | None = None,
    *,
    stopping: Callable[[], None] = lambda: None,
    hangup: Callable[[], None] | None = None,
) -> NoReturn:
    """Run to the end, or until asked to stop, and leave without waiting for the SDK's threads."""

    def overdue() -> None:
        if journal is None:
            complain(_OVERDUE)
        else:
            journal(observe.Trouble("stopping", _OVERDUE))

    async def whole() -> None:
        code = 0
        try:
            await signals.until_signalled(work, stopping=stopping, overdue=overdue, hangup=hangup)
            sys.stdout.flush()
        except BaseException as problem:  # noqa: BLE001  the process ends here, with its reason
            code = report(problem)
        if journal is not None and code == 0:
            journal(observe.Happened("stopped"))
        signals.leave(code)

    asyncio.run(whole())
    raise AssertionError("leave() returned")


def report(problem: BaseException) -> int:
    """Say on stderr why the program ends; returns its exit code."""
    match problem:
        case BaseExceptionGroup():
            return report(problem.exceptions[0])
        case CommandFailed(code=code):
            text = str(problem)
        case CycloptsError():
            code, text = WRONG, f"{problem}{_hint(problem)}"
        case ConfigError() | BadCode():
            code, text = WRONG, str(problem)
        case StdoutError(unread=False):
            code, text = FAILED, str(problem)
        case PollerError():
            code, text = FAILED, str(problem) or type(problem).__name__
        case KeyboardInterrupt() | asyncio.CancelledError() | BrokenPipeError() | StdoutError():
            return 0
        case OSError(errno=int(), strerror=reason):  # a disk, a directory: the operator's to mend
            code = FAILED
            text = f"{problem.filename}: {reason}" if problem.filename else f"{reason}"
        case _:
            log.tell_defect(problem)
            return FAILED
    complain(text)
    return code


def _hint(problem: CycloptsError) -> str:
    """Show the form that is accepted, where a value or a place is none."""
    match problem:
        case CoercionError(msg=None, target_type=kind):
            return _FORMS.get(kind, "")
        case UnknownCommandError(unused_tokens=[token, *_]) if token.startswith("-"):
            return " Options follow the command: poller check --config FILE"
        case UnknownCommandError():
            return " All: poller --help"
        case UnusedCliTokensError():
            return " Nothing of that kind belongs there; see --help of the command"
    return ""


def complain(text: str) -> None:
    """Write lines to stderr, each with the program's name."""
    sys.stderr.write("".join(f"poller: {line}\n" for line in text.splitlines()))
