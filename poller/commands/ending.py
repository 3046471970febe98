"""How a command begins and ends: its configuration, its exit code, one line that says why."""

import asyncio
import os
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

from cyclopts import CycloptsError, Parameter

from poller.errors import BadCode, ConfigError, PollerError
from poller.facts import log, observe, signals
from poller.settings.config import Config, load

FAILED: Final = 1
WRONG: Final = 2

ConfigFile = Annotated[
    Path | None,
    Parameter(
        name="--config",
        help="TOML file; else POLLER_CONFIG, else config/poller.toml, else the defaults",
    ),
]


class Refused(Exception):
    """A command that ends with this text on stderr and this exit code."""

    def __init__(self, code: int, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.code = code


def begin(file: Path | None) -> Config:
    """Read the configuration; nothing logged from here on holds its secrets."""
    settings = load(file, os.environ)
    log.configure(level=settings.log_level, secrets=settings.secrets())
    return settings


def finish(work: Coroutine[Any, Any, None], journal: observe.Observe | None = None) -> NoReturn:
    """Run to the end and leave the process, without waiting for the SDK's threads."""

    async def whole() -> None:
        code = 0
        try:
            await work
        except BaseException as problem:  # noqa: BLE001  the process ends here, with its reason
            code = report(problem)
        if journal is not None and code == 0:
            journal(observe.Happened("stopped"))
        signals.leave(code)

    asyncio.run(whole())
    raise AssertionError("leave() returned")


def report(problem: BaseException) -> int:
    """Say on stderr why the program ends; returns its exit code."""
    if isinstance(problem, BaseExceptionGroup):
        return report(problem.exceptions[0])
    if isinstance(problem, Refused):
        complain(str(problem))
        return problem.code
    if isinstance(problem, ConfigError | BadCode | CycloptsError):
        complain(str(problem))
        return WRONG
    if isinstance(problem, PollerError):
        complain(str(problem) or type(problem).__name__)
        return FAILED
    if isinstance(problem, KeyboardInterrupt | asyncio.CancelledError | BrokenPipeError):
        return 0
    log.tell_defect(problem)
    return FAILED


def complain(text: str) -> None:
    """Write lines to stderr, each with the program's name."""
    sys.stderr.write("".join(f"poller: {line}\n" for line in text.splitlines()))
