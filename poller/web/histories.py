"""Parses a symbol's history hash day by day. Pure.

Any client may write there. A day that cannot be shown is left out and named; the next poll of the
symbol repairs it, or reports what is wrong.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from poller.codec import LIKE_A_DAY
from poller.errors import Unreadable
from poller.markets import Market
from poller.model import Vintage

LARGEST: Final = 2**64
"""OpenD's figures have 64 bits: larger ones were written by another client."""

_NAMED: Final = 5  # unreadable days listed by name
_LONGEST_NAME: Final = 20


@dataclass(frozen=True, slots=True)
class History:
    """The days of a history, or of a piece of it, newest first unless said otherwise.

    Attributes:
        vintages: The readable days.
        unreadable: The names of the others.
    """

    vintages: tuple[Vintage, ...]
    unreadable: tuple[str, ...]

    @property
    def left_out(self) -> str:
        """The days that are left out, as text; "" for none."""
        if not self.unreadable:
            return ""
        named = ", ".join(name[:_LONGEST_NAME] for name in self.unreadable[:_NAMED])
        others = len(self.unreadable) - _NAMED
        return f"{named} and {others:,} more" if others > 0 else named


def readable(market: Market, name: str, text: str) -> Vintage | None:
    """Parse the entry of the day `name`; None if it is unreadable or of another day."""
    try:
        vintage = Vintage.from_json(market, text)
    except Unreadable:
        return None
    return vintage if str(vintage.day) == name else None


def names_of(history: Mapping[str, str]) -> list[str]:
    """Return the fields of a history hash that look like days, newest first."""
    return sorted(filter(LIKE_A_DAY.fullmatch, history), reverse=True)


def read(market: Market, history: Mapping[str, str], names: Sequence[str]) -> History:
    """Parse these days of a history hash."""
    found = {name: readable(market, name, history[name]) for name in names}
    return History(
        tuple(vintage for vintage in found.values() if vintage is not None),
        tuple(name for name, vintage in found.items() if vintage is None),
    )


def pieces(
    market: Market, history: Mapping[str, str], size: int, *, newest_first: bool = True
) -> Iterator[History]:
    """Parse a whole history hash, `size` days at a time."""
    names = names_of(history)
    if not newest_first:
        names.reverse()
    for start in range(0, len(names), size):
        yield read(market, history, names[start : start + size])
