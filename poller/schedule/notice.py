"""Notices about a whole release, one each per market and day: detected, completed. Pure.

A reporting day is `detected` with the first newer day of a symbol that was followed before, and
`completed` once: when every symbol that takes part shows it, when the pauses of its sweep have
grown so long that nobody hurries for the rest any more, or when the next day is out. Symbols that
come later still are events of the main stream like any other, and bring no second completion.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from poller.markets import Market
from poller.model import Code, isoformat, to_json

MOST_NAMED: Final = 1000
"""Missing symbols that a notice names; it counts them all."""


@dataclass(frozen=True, slots=True)
class Detected:
    """The first newer day of a market, seen at an instant (aware); `code` showed it first."""

    market: Market
    day: date
    at: datetime
    code: Code

    type = "release.detected"

    def told(self) -> Mapping[str, Any]:
        """Return what stands as JSON in `data`."""
        return {"code": self.code}


@dataclass(frozen=True, slots=True)
class Completed:
    """`found` symbols show the day; these others take part in releases and do not, in order."""

    market: Market
    day: date
    at: datetime
    found: int
    missing: tuple[Code, ...] = ()

    type = "release.completed"

    def told(self) -> Mapping[str, Any]:
        """Return what stands as JSON in `data`."""
        return {
            "found": self.found,
            "expected": self.found + len(self.missing),
            "missing": len(self.missing),
            "missing_codes": self.missing[:MOST_NAMED],
        }


Notice = Detected | Completed
TYPES: Final = (Detected.type, Completed.type)


def id_of(notice: Notice) -> str:
    """Return market, day, and which of the two: never used twice."""
    return f"{notice.market}:{notice.day}:{notice.type.rpartition('.')[2]}"


def fields_of(notice: Notice) -> dict[str, str]:
    """Return the flat, textual fields of its entry in the stream of releases."""
    return {
        "id": id_of(notice),
        "type": notice.type,
        "market": notice.market.name,
        "trading_day": str(notice.day),
        "observed_at": isoformat(notice.at),
        "data": to_json(notice.told()),
    }
