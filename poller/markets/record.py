"""One row of a report, as a market's columns have it, and the figures every market has. Pure."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from datetime import date
from fractions import Fraction
from functools import cache
from typing import Any, ClassVar

from poller.codec import DayText, Whole

Shares = int | float
"""A number of shares; a market that counts in another unit may report decimals."""


@dataclass(frozen=True, slots=True)
class CoverBound:
    """A figure at which days to cover end, so that the true one lies beyond it.

    Attributes:
        flag: What an event's `flags` call it.
        sign: What a person reads before the figure: `≥ `.
        note: What that means, in words.
        is_computed: Whether it comes from shares and volume at all, so that it may rank.
    """

    flag: str
    sign: str
    note: str
    is_computed: bool = True


@dataclass(frozen=True, slots=True)
class Record(ABC):
    """One reported day of a symbol. A market's own record adds its columns, in the SDK's order.

    Every table of the SDK has the two columns here. The rest of the program reads the properties;
    columns are only stored and shown as they are.

    Attributes:
        timestamp: Seconds since 1970, 00:00 of the trading day in the market's zone.
        timestamp_str: The trading day, `YYYY-MM-DD`.
        SHARES: The column that `shares` comes from.
        RATIO: The column that `ratio` comes from.
        STEP: The smallest difference of two figures of shares.
        PRICE_UNIT: What prices are in, as the chart words it.
        IS_ADJUSTED: Whether a split rescales the days before it. If not, it stays in the history.
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
        """Short shares in percent of what the market compares them with."""

    @property
    def days_to_cover(self) -> float | None:
        """Days of average volume that buying the shares back would take; None: not reported."""
        return None

    @property
    def close_price(self) -> float | None:
        """The closing price of the day; None: not reported."""
        return None

    @property
    def cover_bound(self) -> CoverBound | None:
        """The bound at which `days_to_cover` stands, if it does."""
        return None

    @property
    def flags(self) -> tuple[str, ...]:
        """What a figure does not mean, in the words of an event's `flags`."""
        return ()

    @property
    def day(self) -> date:
        """The trading day, in the market's own zone."""
        return date.fromisoformat(self.timestamp_str)

    def columns(self) -> dict[str, Any]:
        """Return column → value, in order; `dataclasses.asdict` would copy every number."""
        return {name: getattr(self, name) for name in columns_of(type(self))}


@cache
def columns_of(kind: type[Record]) -> tuple[str, ...]:
    """Return the names of a record's columns, in order."""
    return tuple(field.name for field in fields(kind))


def exact(shares: Shares) -> int | Fraction:
    """Return a number of shares as it is written, so that differences of decimals are exact."""
    return shares if isinstance(shares, int) else Fraction(str(shares))


def difference(now: Shares | None, before: Shares | None) -> Shares | None:
    """Return how many more shares there are now, to the last decimal; None if one is absent."""
    if now is None or before is None:
        return None
    if isinstance(now, int) and isinstance(before, int):
        return now - before
    return float(exact(now) - exact(before))
