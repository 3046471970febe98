"""Notices about a whole release, one each per market and day: detected, completed. Pure.

A reporting day is `detected` with the first newer day of a symbol that was followed before, and
`completed` once: when every symbol that takes part shows it, when the pauses of its sweep have
grown so long that nobody hurries for the rest any more, or when the next day is out. Symbols that
come later still are events of the main stream like any other, and bring no second completion.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Annotated, Any, Final

from pydantic import Field

from poller.codec import Figure, Whole
from poller.markets import Market
from poller.model import Code, isoformat, to_json
from poller.schedule.report import Standing, ranked

MOST_NAMED: Final = 1000
"""Missing symbols that a notice names; it counts them all."""


@dataclass(frozen=True, slots=True)
class Detected:
    """The first newer day of a market, seen at an instant (aware); `code` showed it first.

    `name`: of that company; None if it is not known.
    """

    market: Market
    day: date
    at: datetime
    code: Code
    name: str | None = None

    type = "release.detected"

    def told(self) -> Mapping[str, Any]:
        """Return what stands as JSON in `data`."""
        return {"code": self.code} | ({"name": self.name} if self.name else {})


MOST_BIGGEST: Final = 20
"""Symbols among the biggest moves of a notice."""


@dataclass(frozen=True, slots=True)
class Mover:
    """A symbol among those that moved most, from their report before to this one.

    Attributes:
        name: The company's name; None if it is not known.
        shares: Its shares short, as reported.
        change: In shares, as in an event's `change`.
        percent: Of the previous shares; None if they were 0.
        rank: By the size of the change in shares, among the market's symbols of this report.
        percentile: 0-100: how many of them did not move more.
    """

    code: Code
    name: Annotated[str, Field(max_length=200)] | None
    shares: Whole | Figure
    change: Whole | Figure
    percent: Figure | None
    rank: Annotated[int, Field(ge=1, le=10**9)]
    percentile: Figure

    def columns(self) -> dict[str, Any]:
        """Return name → value, in order."""
        return {name: getattr(self, name) for name in self.__slots__}


def biggest_moves(
    standings: Iterable[Standing], name_of: Callable[[Code], str | None]
) -> tuple[Mover, ...]:
    """Return those that moved most, the biggest first; a figure that stayed is no move."""
    found = []
    for one in ranked(standings, "change")[:MOST_BIGGEST]:
        shares, change, rank, percentile = one.record.shares, one.change, one.rank, one.percentile
        if shares is None or not change or rank is None or percentile is None:
            break
        mover = Mover(one.code, name_of(one.code), shares, change, one.percent, rank, percentile)
        found.append(mover)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Completed:
    """`found` symbols show the day; these others take part in releases and do not, in order.

    `biggest`: who moved most; None if the figures could not be read. `names`: of the missing
    companies, as far as they are known.
    """

    market: Market
    day: date
    at: datetime
    found: int
    missing: tuple[Code, ...] = ()
    biggest: tuple[Mover, ...] | None = None
    names: Mapping[Code, str] = field(default_factory=dict, hash=False)

    type = "release.completed"

    def told(self) -> Mapping[str, Any]:
        """Return what stands as JSON in `data`."""
        named = self.missing[:MOST_NAMED]
        told: dict[str, Any] = {
            "found": self.found,
            "expected": self.found + len(self.missing),
            "missing": len(self.missing),
            "missing_codes": named,
        }
        if names := {each: self.names[each] for each in named if each in self.names}:
            told["missing_names"] = names
        if self.biggest is not None:
            told["biggest"] = [each.columns() for each in self.biggest]
        return told


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
