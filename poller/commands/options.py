"""The options of the command line that several commands have, and what is said of wrong ones."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Final

from cyclopts import (
    CoercionError,
    CycloptsError,
    Parameter,
    Token,
    UnknownCommandError,
    UnusedCliTokensError,
)

from poller.commands.ending import WRONG, CommandFailed

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


def refusal(problem: CycloptsError) -> CommandFailed:
    """Return what a command line that cannot be understood ends with."""
    return CommandFailed(WRONG, [f"{problem}{_hint(problem)}"])


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
