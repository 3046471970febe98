"""The options of the command line that several commands have, and what is said of wrong ones."""

from collections.abc import Mapping, Sequence
from dataclasses import field, make_dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Final

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    Token,
    UnknownCommandError,
    UnusedCliTokensError,
    validators,
)

from poller.commands.ending import WRONG, CommandFailed
from poller.errors import BadCode
from poller.markets import Market, all_markets
from poller.model import Code, parse_code, unique

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


def _symbols(market: Market) -> tuple[str, object, object]:
    """Return the option that says how many symbols of a market are made up."""
    made_up = market.made_up
    option = Parameter(
        converter=whole,
        validator=validators.Number(gte=0, lte=made_up.most),
        help=f"{market.words.place} symbols",
    )
    kind = Annotated[int, option]
    return market.name.lower(), kind, field(default=made_up.season)


SymbolCounts = make_dataclass(
    "SymbolCounts",
    map(_symbols, all_markets()),
    frozen=True,
    namespace={"__module__": __name__},  # where Cyclopts looks for the types of its fields
)
"""An option a market: how many of its symbols are made up."""


def codes_of(texts: Sequence[str]) -> tuple[Code, ...]:
    """Parse all codes, or refuse them with every problem at once; none at all is refused, too."""
    codes, problems = [], []
    for text in texts:
        try:
            codes.append(parse_code(text))
        except BadCode as problem:
            problems.append(str(problem))
    if not texts:
        problems.append("name at least one code, like HK.00700")
    if problems:
        raise CommandFailed(WRONG, problems)
    return unique(codes)


def aware(moment: datetime | None) -> datetime | None:
    """Read a time without a zone as UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def refusal(problem: CycloptsError) -> CommandFailed:
    """Return what a command line that cannot be understood ends with."""
    return CommandFailed(WRONG, [f"{problem}{_hint(problem)}"])


def _hint(problem: CycloptsError) -> str:
    """Show the form that is accepted, where a value or a place is none."""
    match problem:
        case CoercionError(msg=None, target_type=kind):
            return _FORMS.get(kind, "")
        case MissingArgumentError(command_chain=words):
            return f" See: poller {' '.join(words or ())} --help"
        case UnknownCommandError(unused_tokens=[token, *_]) if token.startswith("-"):
            return " Options follow the command: poller check --config FILE"
        case UnknownCommandError():
            return " All: poller --help"
        case UnusedCliTokensError():
            return " Nothing of that kind belongs there; see --help of the command"
    return ""
