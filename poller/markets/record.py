"""One row of a report: a market's own columns, and the figures that every market has. Pure."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from datetime import date
from fractions import Fraction
from functools import cache
from typing import Any, ClassVar, Final

from poller.codec import DayText, Whole

BELOW_THRESHOLD: Final = "below_threshold"
"""The flag of a record whose 0 shares mean "too few to be reported", and not "none"."""

SPLIT: Final = "split"
"""The flag of a day since whose previous one the shares were split or consolidated."""

Shares = int | float
"""A number of shares; it may have decimals in a market that counts in another unit."""


@dataclass(frozen=True, slots=True)
class CoverBound:
    """A floor or cap of days to cover: the true figure lies beyond it.

    Attributes:
        flag: Its name in an event's `flags`.
        sign: Shown before the figure: `≥ `.
        note: An explanation.
        is_computed: Whether it was computed from shares and volume, so that it may be ranked.
    """

    flag: str
    sign: str
    note: str
    is_computed: bool = True


@dataclass(frozen=True, slots=True)
class Record(ABC):
    """One reported day of a symbol. A market's record adds its columns, in the SDK's order.

    Every table of the SDK has the two columns here. Other packages read the properties; columns are
    only stored and shown.

    Attributes:
        timestamp: Seconds since 1970 of 00:00 of the trading day in the market's zone.
        timestamp_str: The trading day, `YYYY-MM-DD`.
        SHARES: The column of `shares`.
        RATIO: The column of `ratio`.
        STEP: The smallest difference between two numbers of shares.
        PRICE_UNIT: The unit of prices, as the chart shows it.
        IS_ADJUSTED: Whether the vendor rescales the days before a split.
    """

    timestamp: Whole | None
    timestamp_str: DayText

    SHARES: ClassVar[str]
    RATIO: ClassVar[str]
    STEP: ClassVar[int | Fraction] = 1
    PRICE_UNIT: ClassVar[str]
    IS_ADJUSTED: ClassVar[bool] = True

    @property
    @abstractmethod
    def shares(self) -> Shares | None:
        """Shares sold short and not yet bought back."""

    @property
    @abstractmethod
    def ratio(self) -> float | None:
        """Short shares in percent; of what depends on the market."""

    @property
    def days_to_cover(self) -> float | None:
        """Days of average volume needed to buy the shares back; None: not reported."""
        return None

    @property
    def average_volume(self) -> int | None:
        """Shares traded a day, on average, as the market reports it; None: not reported."""
        return None

    @property
    def close_price(self) -> float | None:
        """The closing price of the day; None: not reported."""
        return None

    @property
    def cover_bound(self) -> CoverBound | None:
        """The bound that `days_to_cover` is at; None: at neither."""
        return None

    @property
    def flags(self) -> tuple[str, ...]:
        """Caveats, as in an event's `flags`."""
        return ()

    @property
    def day(self) -> date:
        """The trading day, a date in the market's zone; raises ValueError if it is invalid."""
        return date.fromisoformat(self.timestamp_str)

    def columns(self) -> dict[str, Any]:
        """Return column → value, in order; faster than `dataclasses.asdict`, which copies."""
        return {name: getattr(self, name) for name in columns_of(type(self))}


def is_below_threshold(record: Record) -> bool:
    """Return whether the shares are no figure: the position is below the reporting threshold."""
    return BELOW_THRESHOLD in record.flags


@cache
def columns_of(kind: type[Record]) -> tuple[str, ...]:
    """Return the names of a record's columns, in order."""
    return tuple(field.name for field in fields(kind))


def exact(shares: Shares) -> int | Fraction:
    """Return the exact decimal value of a number of shares, to compute differences with."""
    return shares if isinstance(shares, int) else Fraction(str(shares))


def difference(now: Shares | None, before: Shares | None) -> Shares | None:
    """Return now − before, exact in decimals; None if one is absent."""
    if now is None or before is None:
        return None
    if isinstance(now, int) and isinstance(before, int):
        return now - before
    return float(exact(now) - exact(before))
