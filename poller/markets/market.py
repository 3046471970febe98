"""`Market`: everything in which markets differ, as one frozen value. Pure."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from poller.markets.exchange import Exchange
from poller.markets.record import Record, Shares, columns_of


class Bounds(NamedTuple):
    """The range of a column. Figures outside are a fault of the source."""

    least: float
    most: float


SHARES: Final = Bounds(0, 10**13)
"""Ten times the largest number of shares issued by any company on these markets."""

PRICE: Final = Bounds(1e-6, 1e12)
"""From a hundredth of the smallest price step to a thousand times the highest price that a dozen
reverse splits have produced by adjustment.
"""


@dataclass(frozen=True, slots=True)
class Labels:
    """A market's texts for people.

    Attributes:
        country: The heading of its card on the page.
        place: A short name for sentences: `Hong Kong short interest`.
        ratio_source: Which column the ratio is, and where it comes from.
        colour: Of its dots in a chart, as an SVG colour.
    """

    country: str
    place: str
    ratio_source: str
    colour: str


class Figures(NamedTuple):
    """The figures of one simulated day. A market's record uses those that it has columns for."""

    shares: Shares | None
    ratio: float | None
    volume: int | None
    cover: float | None
    close: float | None
    last_close: float | None


@dataclass(frozen=True, slots=True)
class SimulationProfile:
    """How the simulator generates a market's symbols and their figures.

    Attributes:
        symbols: Given a function that returns random numbers in [0, 1), yields symbols, without end
            or until there are no more; some may repeat.
        count: How many symbols `run --simulate` has by default.
        season: How many symbols `simulate` has by default.
        most: How many symbols there can be.
        hide: The probability that a report falls below the reporting threshold.
        show: The probability that it rises above the threshold again.
        repeat: The probability that a report repeats the one before.
        trades: Whether the market reports the volume traded.
        issued: The log10 of the issued shares of a small company.
        usual: The log10 of a small position in percent of the issued shares.
        record: Makes a record from a timestamp, a day and figures.
        figures: Returns the figures of such a record.
        is_index: Returns whether a symbol is an index, which has no short interest.
    """

    symbols: Callable[[Callable[[], float]], Iterator[str]]
    count: int
    season: int
    most: int
    hide: float
    show: float
    repeat: float
    trades: bool
    issued: float
    usual: float
    record: Callable[[int | None, str, Figures], Record]
    figures: Callable[[Record], Figures]
    is_index: Callable[[str], bool]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Market:
    """A market whose short interest is published; there is one object for each.

    Attributes:
        name: The prefix of its codes: `HK`.
        example: A well-known symbol.
        symbol: The pattern of its symbols.
        hint: For a text that is almost a symbol, returns what to write instead, as the end of a
            sentence; otherwise None.
        zone: Trading days are dates in this zone.
        record: The type of its rows.
        table: Which of the SDK's tables has its rows: `hk` or `us`.
        vendor_names: Column → its name in that table, if the two differ.
        exchange: When it trades.
        reporting_days: Yields the reporting days from a day on, oldest first, without end.
        due: Returns the day on which a reporting day's figures are published by rule; if that is
            not a trading day, they are published on the last one before it.
        opening: The local time on that day from which they are expected.
        longest_gap: Between two reporting days, with room for holidays.
        first_day: No report is older.
        bounds: Column → its range; other columns have none.
        vanishes_from: This many shares or more do not become 0 from one report to the next; None
            if 0 means below the reporting threshold.
        has_cover: Whether it reports days to cover.
        has_rank: Whether OpenD lists its symbols by short position.
        labels: Its texts for people.
        simulation: How the simulator generates it.
    """

    name: str
    example: str
    symbol: re.Pattern[str]
    zone: ZoneInfo
    record: type[Record]
    table: str
    exchange: Exchange
    reporting_days: Callable[[date], Iterator[date]]
    due: Callable[[date], date]
    opening: time
    first_day: date
    bounds: Mapping[str, Bounds]
    labels: Labels
    simulation: SimulationProfile
    hint: Callable[[str], str | None] = lambda _: None
    vendor_names: Mapping[str, str] = field(default_factory=dict)
    longest_gap: timedelta = timedelta(days=17)
    vanishes_from: int | None = None
    has_cover: bool = False
    has_rank: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its record's columns, in order."""
        return columns_of(self.record)

    def midnight(self, day: date) -> datetime:
        """Return 00:00 of a trading day, in its zone."""
        return datetime.combine(day, time(), self.zone)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<market {self.name}>"
