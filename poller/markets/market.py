"""What a market is: everything in which one differs from another, as one frozen value. Pure."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from poller.markets.exchange import Exchange
from poller.markets.record import Record, Shares, columns_of


class Bounds(NamedTuple):
    """The least and the most a column can be. What is outside is a fault of the source."""

    least: float
    most: float


SHARES: Final = Bounds(0, 10**13)
"""Ten times the largest number of shares any company on these markets has issued."""

PRICE: Final = Bounds(1e-6, 1e12)
"""From a hundredth of the smallest step in which any share is quoted to a thousand times what
adjusting for a dozen reverse splits has made of any price.
"""


@dataclass(frozen=True, slots=True)
class Words:
    """What people read of a market.

    Attributes:
        country: At the head of a card of the page.
        place: In a sentence, short: `Hong Kong short interest`.
        city: Whose clock its local times are of.
        ratio_source: Which column the ratio is, and whose figure.
        colour: Of its dots in a picture, as SVG has it.
    """

    country: str
    place: str
    city: str
    ratio_source: str
    colour: str


class Figures(NamedTuple):
    """The figures of one made-up day. A market's record takes those it has columns for."""

    shares: Shares | None
    ratio: float | None
    volume: int | None
    cover: float | None
    close: float | None
    last_close: float | None


@dataclass(frozen=True, slots=True)
class MadeUp:
    """How the simulator makes up a market's symbols and their figures.

    Attributes:
        symbols: Draws numbers in [0, 1) and yields symbols, without end or until there are no more;
            some may come twice.
        count: How many symbols `run --simulate` shows.
        season: How many symbols `simulate` plays with.
        most: How many there can be.
        hide: The chance of a report to fall below the reporting threshold.
        show: The chance of a report to come back from there.
        repeat: The chance of a report to repeat the one before.
        trades: Whether the market reports the volume traded.
        issued: The power of ten of the issued shares of a small company.
        usual: The power of ten of a small position, in percent of the issued shares.
        record: Makes a record of a timestamp, a day and figures.
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
    """A market whose short interest is published.

    There is one object a market. Whoever needs to know what differs asks it; nobody outside this
    package asks which market it is.

    Attributes:
        name: What its codes begin with: `HK`.
        example: A symbol everybody knows.
        symbol: How its symbols look.
        hint: Returns what to write instead of a symbol that is close to one, as the end of a
            sentence; None where it is not.
        zone: Trading days are dates in this zone.
        record: The type of its rows.
        table: Which of the SDK's tables its rows stand in: `hk` or `us`.
        vendor_names: Column → what that table calls it, where the two differ.
        exchange: When it trades.
        reporting_days: Yields the reporting days from a day on, oldest first, without end.
        due: Returns on which day the figures of a reporting day are published by rule; if that is
            no trading day, on the last one before it.
        opening: From when on that day.
        longest_gap: Between two reporting days, with room for holidays.
        first_day: No report is older.
        bounds: What a column can be. A column that is not named can be anything.
        vanishes_from: Shares that do not become 0 from one report to the next; None where 0 is not
            none, but too few to be reported.
        has_cover: Whether it reports days to cover.
        words: What people read of it.
        made_up: How the simulator makes it up.
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
    words: Words
    made_up: MadeUp
    hint: Callable[[str], str | None] = lambda _: None
    vendor_names: Mapping[str, str] = field(default_factory=dict)
    longest_gap: timedelta = timedelta(days=17)
    vanishes_from: int | None = None
    has_cover: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its record's columns, in order."""
        return columns_of(self.record)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<market {self.name}>"
