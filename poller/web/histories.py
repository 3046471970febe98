"""A symbol's history hash as it stands in Redis, read day by day. Pure.

Anybody may write there. A day that cannot be shown is left out and named; the next poll of the
symbol says what is wrong with it, and mends it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from poller.errors import Unreadable
from poller.markets import Market
from poller.model import Vintage

LARGEST: Final = 2**64
"""OpenD sends figures in 64 bits: what does not fit is none of its."""

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_NAMED: Final = 5  # of the days that cannot be read
_LONGEST_NAME: Final = 20


@dataclass(frozen=True, slots=True)
class History:
    """Days newest first.

    Attributes:
        vintages: the days that can be read.
        unreadable: the names of those that cannot.
    """

    vintages: tuple[Vintage, ...]
    unreadable: tuple[str, ...]

    @property
    def complaint(self) -> str:
        """Say which days are left out; "" when none are."""
        if not self.unreadable:
            return ""
        named = ", ".join(name[:_LONGEST_NAME] for name in self.unreadable[:_NAMED])
        others = len(self.unreadable) - _NAMED
        return f"{named} and {others:,} more" if others > 0 else named


def readable(market: Market, name: str, text: str) -> Vintage | None:
    """Return the day of this name as `Vintage.to_json` wrote it; None when it cannot be shown."""
    try:
        vintage = Vintage.from_json(market, text)
    except Unreadable:
        return None
    return vintage if str(vintage.day) == name else None


def names_of(history: Mapping[str, str]) -> list[str]:
    """Return the names in a history hash that may be days, newest first."""
    return sorted(filter(_DAY.fullmatch, history), reverse=True)


def read(market: Market, history: Mapping[str, str], names: Sequence[str]) -> History:
    """Read these days of a history hash."""
    found = {name: readable(market, name, history[name]) for name in names}
    return History(
        tuple(vintage for vintage in found.values() if vintage is not None),
        tuple(name for name, vintage in found.items() if vintage is None),
    )


def pieces(market: Market, history: Mapping[str, str], size: int) -> Iterator[History]:
    """Read a whole history hash, `size` days at a time."""
    names = names_of(history)
    for start in range(0, len(names), size):
        yield read(market, history, names[start : start + size])
