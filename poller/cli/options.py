"""What several commands share: reading the configuration, and types of options."""

import os
from collections.abc import Collection, Sequence
from dataclasses import field, make_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cyclopts import CoercionError, Parameter, Token, validators

from poller.cli.runner import WRONG, CommandFailed
from poller.errors import BadCode
from poller.markets import Market, all_markets
from poller.model import Code, parse_code, unique
from poller.settings.config import Config, load
from poller.telemetry import log

ConfigFile = Annotated[
    Path | None,
    Parameter(
        name="--config",
        help="TOML file; else POLLER_CONFIG, else config/poller.toml, else the defaults",
    ),
]


def load_config(
    file: Path | None,
    warnings: list[str] | None = None,
    *,
    reading: bool = False,
    only: Collection[str] = (),
) -> Config:
    """Read the configuration, and from now on mask its secrets in the log.

    `warnings`: problems that prevent nothing are added to it. `reading`, `only`: see `load`.
    """
    settings = load(file, os.environ, warnings, reading=reading, only=only)
    log.configure(level=settings.log_level, secrets=settings.secrets())
    return settings


def whole(_type: object, tokens: Sequence[Token]) -> int:
    """Convert a whole number; refuse 1.5, which Cyclopts would round."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise CoercionError(token=tokens[0], target_type=int) from None


def as_written(_type: object, tokens: Sequence[Token]) -> str:
    """Convert nothing: the command itself judges the text."""
    return tokens[0].value


# what a shell completes and the help names; hk is taken for HK, too
MarketName: TypeAlias = Annotated[str, Parameter(converter=as_written)]
if not TYPE_CHECKING:
    MarketName = Annotated[
        Literal[tuple(market.name for market in all_markets())] | str,
        Parameter(converter=as_written),
    ]

Number = Annotated[int | None, Parameter(converter=whole)]
Format = Literal["table", "csv", "json"]
Sort = Literal["change", "percent", "ratio", "days_to_cover", "zscore"]


def _symbols(market: Market) -> tuple[str, object, object]:
    """Return the option for the number of a market's made-up symbols."""
    made_up = market.simulation
    option = Parameter(
        converter=whole,
        validator=validators.Number(gte=0, lte=made_up.most),
        help=f"{market.labels.place} symbols",
    )
    kind = Annotated[int, option]
    return market.name.lower(), kind, field(default=made_up.season)


SymbolCounts = make_dataclass(
    "SymbolCounts",
    map(_symbols, all_markets()),
    frozen=True,
    namespace={"__module__": __name__},  # where Cyclopts looks for the types of its fields
)
"""An option per market: the number of its made-up symbols."""


def codes_of(texts: Sequence[str]) -> tuple[Code, ...]:
    """Parse at least one code; raises CommandFailed with every problem at once."""
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
