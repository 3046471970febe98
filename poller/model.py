"""The nouns: code, page, vintage, event. Frozen values, no I/O; an absent number is None.

Whatever differs between markets, such as the columns of a record, is in `markets`.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import cache, lru_cache
from typing import Annotated, Any, Final, NewType

from pydantic import AfterValidator, Field

from poller.codec import FIRST_YEAR, LAST_YEAR, Codec, Figure, Moment, Whole
from poller.errors import BadCode, Unreadable
from poller.markets import (
    SPLIT,
    Market,
    Record,
    all_markets,
    is_below_threshold,
    market_named,
    market_names,
)
from poller.printable import without_unprintable

Code = NewType("Code", str)
"""`HK.00700`, `US.AAPL`: a market and a symbol as the SDK writes them. Made by `parse_code`."""


def parse_code(text: str) -> Code:
    """Return `text` as a code, or raise BadCode with what to write instead."""
    if _is_code(text):
        return Code(sys.intern(text))  # one string object per symbol, however often it is named
    tidied = text.strip().upper()
    name, _, symbol = tidied.partition(".")
    market = market_named(name)
    if market is not None and (hint := market.hint(symbol)) is not None:
        raise BadCode(f"{text!r}: {hint}")
    if market is None and not symbol:
        tidied = _likely(tidied)
    expected = market_names(" or ", after=".")
    like = " or ".join(f"{each}.{each.example}" for each in all_markets())
    msg = f"{text!r} is not a code: expected {expected} and a symbol, like {like}"
    raise BadCode(msg + (f"; write {tidied!r}" if _is_code(tidied) else ""))


_LONGEST_BARE: Final = 5
"""Characters of a symbol that somebody may have written without its market; more are a name."""


def _likely(symbol: str) -> str:
    """Return the code of a symbol without its market, by that market's example; "" if none fits.

    Raises BadCode where the market has a hint of its own.
    """
    for market in all_markets():
        if symbol.isdigit() != market.example.isdigit() or len(symbol) > _LONGEST_BARE:
            continue
        if (hint := market.hint(symbol)) is not None:
            raise BadCode(f"{symbol!r}: {hint}")
        return f"{market}.{symbol}"
    return ""


def _is_code(text: str) -> bool:
    name, _, symbol = text.partition(".")
    market = market_named(name)
    return market is not None and market.symbol.fullmatch(symbol) is not None


_MOST_KNOWN: Final = 2**17
"""Size of `market_of`'s cache: more codes than both markets have, yet bounded, as anybody may name
others."""


@lru_cache(_MOST_KNOWN)  # asked many times a poll
def market_of(code: Code) -> Market:
    """Return the market a code belongs to; raises ValueError if it names none."""
    market = market_named(code.partition(".")[0])
    if market is None:
        raise ValueError(f"{code!r} belongs to no market")
    return market


def newest_days(watermarks: Mapping[Code, date]) -> dict[Market, date]:
    """Return the newest watermark of each market that has one."""
    newest: dict[Market, date] = {}
    for code, day in watermarks.items():
        market = market_of(code)
        newest[market] = max(day, newest.get(market, day))
    return newest


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of the gateway.

    Attributes:
        records: In the order of the answer, newest first.
        next_key: Asks for the next page; None on the last.
        oddities: One sentence for each row that was dropped, with the reason.
    """

    records: tuple[Record, ...]
    next_key: str | None
    oddities: tuple[str, ...] = ()


RANK_PAGE: Final = 35
"""Symbols of a market's rank that a request shows at the most, by Futu's description."""


@dataclass(frozen=True, slots=True)
class RankPage:
    """A stretch of a market's list of symbols, largest short position first.

    Attributes:
        total: Symbols in the whole list.
        positions: Code → shares short, in the order of the list; they carry no day.
    """

    total: int
    positions: Mapping[Code, int]


@dataclass(frozen=True, slots=True)
class Vintage:
    """What was reported for a day at one time; `revision` numbers the day's vintages from 0."""

    record: Record
    revision: int
    observed_at: datetime

    @property
    def day(self) -> date:
        """The trading day, in the market's time zone."""
        return self.record.day

    def to_json(self) -> str:
        """Return the JSON that the store keeps."""
        extra = {"revision": self.revision, "observed_at": isoformat(self.observed_at)}
        return to_json(self.record.columns() | extra)

    @classmethod
    def from_json(cls, market: Market, text: str) -> "Vintage":
        """Read what `to_json` wrote, in any version; raises Unreadable."""
        record = read_record(market, text)
        rest = _VINTAGES.read(text)
        _in_years(record.day)
        return cls(record, rest.revision, rest.observed_at)


def read_record(market: Market, text: str) -> Record:
    """Read a record from a JSON object, ignoring unknown members; raises Unreadable."""
    record: Record = _records(market).read(text)
    return record


@dataclass(frozen=True, slots=True)
class _Reported:
    """The members of a vintage's JSON beside the record's columns."""

    observed_at: Moment
    revision: Annotated[int, Field(ge=0, lt=2**31)]


_VINTAGES: Final = Codec[_Reported](_Reported)


@cache
def _records(market: Market) -> Codec[Any]:
    return Codec(market.record)


def _in_years(day: date) -> None:
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise Unreadable(f"{day} is not between {FIRST_YEAR} and {LAST_YEAR}")


class EventType(StrEnum):
    """The types of events, as written on the stream."""

    REPORTED = "short_interest.reported"
    REVISED = "short_interest.revised"
    BACKFILLED = "short_interest.backfilled"
    RESTATED = "short_interest.restated"


@dataclass(frozen=True, slots=True)
class Change:
    """The differences between two reports of a symbol. Facts only, no score.

    Before a comparison, earlier shares are multiplied by the split factors since then, and earlier
    prices divided by them.

    Attributes:
        shares: The difference, in shares.
        percent: Of the previous shares; None if they were 0.
        ratio_points: The ratio's difference, in percentage points.
        days: Between the two trading days.
        price_percent: The close's change, in percent of the earlier close.
        percentile: 0-100: how many of the known days up to this one did not have more shares.
        year_high: Whether each known day of the 365 before had fewer shares; None without any.
        year_low: Whether each of them had more.
        history_days: How many days percentile, high and low are based on.
        delay_hours: From 00:00 of the trading day in the market's time zone to the observation.
        split_factor: By how much a split or consolidation since the last report multiplied the
            shares, if the history is not adjusted for it; None: there was none.
        days_to_cover: The difference of the days to cover; None where one is absent or at the cap.
        zscore: How many standard deviations the day's move in percent is above the mean of the
            symbol's earlier moves; None without eight of them.
        streak: Reports in a row, up to this one, that rose (positive) or fell (negative).
    """

    shares: Whole | Figure | None = None  # decimals where the market reports them
    percent: Figure | None = None
    ratio_points: Figure | None = None
    days: Whole | None = None
    price_percent: Figure | None = None
    percentile: Figure | None = None
    year_high: bool | None = None
    year_low: bool | None = None
    history_days: Whole | None = None
    delay_hours: Figure | None = None
    split_factor: Figure | None = None
    days_to_cover: Figure | None = None
    zscore: Figure | None = None
    streak: Whole | None = None

    def columns(self) -> dict[str, Any]:
        """Return name → figure, in order; faster than `dataclasses.asdict`, which copies."""
        return {name: getattr(self, name) for name in self.__slots__}


class Cause(StrEnum):
    """Why many known days changed at once."""

    RESCALED = "rescaled"
    """The shares of all days were multiplied by one factor, as after a split."""

    RECOMPUTED = "recomputed"
    """The ratios changed, the shares did not."""

    REPLACED = "replaced"
    """Most figures changed, by no single factor, as when a code is given to another company."""


@dataclass(frozen=True, slots=True)
class Restatement:
    """Known days that one cause changed.

    Attributes:
        factor: What `column` was multiplied by on each day; None if no single factor fits.
        days: Oldest first: from the first to the last, every known day that has such a figure.
        column: The vendor's name of the column; None if the whole history was replaced.
    """

    factor: float | None
    days: tuple[date, ...]
    column: str | None
    cause: Cause

    def columns(self) -> dict[str, Any]:
        """Return the members of `restated` in an event's `data`."""
        return {
            "factor": self.factor,
            "days": len(self.days),
            "from": str(self.days[0]),
            "to": str(self.days[-1]),
            "column": self.column,
            "cause": str(self.cause),
        }


@dataclass(frozen=True, slots=True)
class Event:
    """One event to publish. `restated` is set for that type only: one event for all its days.

    Two members decide nothing, and are added as the event is committed:

    Attributes:
        name: The symbol's, if known.
        outstanding_percent: The record's shares in percent of those outstanding, if known.
    """

    type: EventType
    code: Code
    vintage: Vintage
    previous: Record | None
    change: Change | None
    restated: Restatement | None = None
    name: str | None = None
    outstanding_percent: float | None = None

    @property
    def id(self) -> str:
        """Code, trading day, revision: never used twice."""
        return f"{self.code}:{self.vintage.record.timestamp_str}:{self.vintage.revision}"

    @property
    def flags(self) -> tuple[str, ...]:
        """The record's caveats, and `split` if one lies between it and the previous record."""
        is_split = self.change is not None and self.change.split_factor is not None
        return (*self.vintage.record.flags, *((SPLIT,) if is_split else ()))


MOST_NAME: Final = 100
"""Characters kept of a name. The longest on these markets have some 60."""


def plain_name(text: str) -> str | None:
    """Return a name that is safe to publish and to show; None if nothing is left of it."""
    name = without_unprintable(text, MOST_NAME)
    return None if name in {"", "N/A"} else name  # the SDK writes N/A for what is absent


def titled(code: str, name: str | None) -> str:
    """Return a symbol as people are told of it: `TENCENT (HK.00700)`; without a name, its code."""
    return f"{name} ({code})" if name else code


COUNT_HOLDS: Final = timedelta(days=45)
"""How far a trading day may be from a count of shares that is taken to hold for it.

Both markets report a day within three weeks; further back, a split or an issue is likelier.
"""


@dataclass(frozen=True, slots=True)
class Instrument:
    """What is known of a symbol besides its short interest; it decides nothing that is published.

    Attributes:
        name: As OpenD writes it; None if it is not known.
        issued_shares: All shares of the company; None if they are not known.
        outstanding_shares: Those that trade freely; None if they are not known.
        named_at: When OpenD last said what the name is, aware; None: never.
        counted_at: When it last said how many shares there are, aware; None: never.
    """

    name: Annotated[str, Field(max_length=4 * MOST_NAME), AfterValidator(plain_name)] | None = None
    issued_shares: Annotated[Whole, Field(ge=0)] | None = None
    outstanding_shares: Annotated[Whole, Field(ge=0)] | None = None
    named_at: Moment | None = None
    counted_at: Moment | None = None

    def outstanding_percent(self, record: Record) -> float | None:
        """Return the short shares in percent of the outstanding shares; None: it is not known.

        Neither is it for shares below the reporting threshold, nor for a day that is more than
        `COUNT_HOLDS` away from the count.
        """
        shares = None if is_below_threshold(record) else record.shares
        if shares is None or not self.outstanding_shares or self.counted_at is None:
            return None
        if abs(self.counted_at.date() - record.day) > COUNT_HOLDS:
            return None
        return round(100 * shares / self.outstanding_shares, 4)

    def to_json(self) -> str:
        """Return the JSON that the store keeps."""
        return to_json(
            {
                "name": self.name,
                "issued_shares": self.issued_shares,
                "outstanding_shares": self.outstanding_shares,
                "named_at": None if self.named_at is None else isoformat(self.named_at),
                "counted_at": None if self.counted_at is None else isoformat(self.counted_at),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Instrument":
        """Read what `to_json` wrote, in any version; raises Unreadable."""
        return _INSTRUMENTS.read(text)


_INSTRUMENTS: Final = Codec[Instrument](Instrument, most=4_000)


def to_json(value: object) -> str:
    """Return minified JSON; raises ValueError for NaN and infinities."""
    return _ENCODER.encode(value)


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def isoformat(moment: datetime) -> str:
    """Format an aware instant in UTC, with milliseconds and a Z: `2026-05-08T09:15:02.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unique(codes: Iterable[Code]) -> tuple[Code, ...]:
    """Return the codes in order of first appearance, each once."""
    return tuple(dict.fromkeys(codes))
