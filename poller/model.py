"""The nouns: market, code, record, vintage, event. Frozen values, no I/O.

Column names and native types are the SDK's (`get_short_interest`); an absent number is None.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cache, lru_cache
from typing import Annotated, Any, ClassVar, Final, NewType
from zoneinfo import ZoneInfo

from pydantic import Field

from poller.codec import FIRST_YEAR, LAST_YEAR, Codec, DayText, Figure, Moment, Whole
from poller.errors import BadCode, Unreadable

Code = NewType("Code", str)
"""`HK.00700`, `US.AAPL`: a market and a symbol as the SDK writes them. Made by `parse_code`."""


class Market(StrEnum):
    """A market whose short interest is published, and its own time zone."""

    HK = "HK"
    US = "US"

    @property
    def zone(self) -> ZoneInfo:
        """Trading days are dates in this zone."""
        return _ZONES[self]


_ZONES: Final = {Market.HK: ZoneInfo("Asia/Hong_Kong"), Market.US: ZoneInfo("America/New_York")}
_SYMBOL: Final = re.compile(r"(HK|US)\.([A-Z0-9][A-Z0-9._-]{0,19})", re.ASCII)
_SHORTENED_HK: Final = re.compile(r"HK\.([0-9]{1,4})", re.ASCII)


def parse_code(text: str) -> Code:
    """Return `text` as a code, or raise BadCode with what to write instead."""
    if (short := _SHORTENED_HK.fullmatch(text.strip().upper())) is not None:
        msg = f"{text!r}: Hong Kong symbols have five digits; write 'HK.{int(short[1]):05}'"
        raise BadCode(msg)
    if _SYMBOL.fullmatch(text) is None:
        tidied = text.strip().upper()
        hint = f"; write {tidied!r}" if tidied != text and _SYMBOL.fullmatch(tidied) else ""
        msg = f"{text!r} is not a code: expected HK. or US. and a symbol, like HK.00700 or US.AAPL"
        raise BadCode(msg + hint)
    return Code(sys.intern(text))  # one object a symbol, however many lists name it


_MOST_KNOWN: Final = 2**17
"""Codes whose market is remembered: more than both markets have; anybody may name others."""


@lru_cache(_MOST_KNOWN)  # asked many times a poll
def market_of(code: Code) -> Market:
    """Return the market a code belongs to."""
    return Market(code.partition(".")[0])


def newest_days(watermarks: Mapping[Code, date]) -> dict[Market, date]:
    """Return the newest day of each market that has one."""
    newest: dict[Market, date] = {}
    for code, day in watermarks.items():
        market = market_of(code)
        newest[market] = max(day, newest.get(market, day))
    return newest


class _Columns:
    """A frozen row whose fields are its columns."""

    __slots__: tuple[str, ...] = ()

    def columns(self) -> dict[str, Any]:
        """Return column → value, in order; `dataclasses.asdict` would copy every number."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class HkRecord(_Columns):
    """One reporting day of a Hong Kong symbol.

    `timestamp`: seconds, 00:00 Hong Kong time. `aggregated_short`: shares.
    `aggregated_short_ratio`: percent. Prices in the symbol's currency.
    """

    timestamp: Whole | None
    timestamp_str: DayText
    aggregated_short: Whole | None
    aggregated_short_ratio: Figure | None = None
    close_price: Figure | None = None
    last_close_price: Figure | None = None

    SHARES: ClassVar[str] = "aggregated_short"
    RATIO: ClassVar[str] = "aggregated_short_ratio"

    @property
    def shares(self) -> int | None:
        """Shares sold short and not yet bought back."""
        return self.aggregated_short

    @property
    def ratio(self) -> float | None:
        """Short shares in percent of the issued shares."""
        return self.aggregated_short_ratio

    @property
    def flags(self) -> tuple[str, ...]:
        """What a figure does not mean: 0 shares are not reportable, which is not none."""
        return ("below_threshold",) if self.aggregated_short == 0 else ()

    @property
    def day(self) -> date:
        """The trading day, in the market's own zone."""
        return date.fromisoformat(self.timestamp_str)


@dataclass(frozen=True, slots=True)
class UsRecord(_Columns):
    """One settlement day of a US symbol.

    `timestamp`: seconds, 00:00 New York time. `shares_short`, `avg_daily_share_volume`: shares.
    `short_percent`: percent. `days_to_cover`: days (1.00 is a floor, 999.99 a cap).
    """

    timestamp: Whole | None
    timestamp_str: DayText
    shares_short: Whole | None
    short_percent: Figure | None = None
    avg_daily_share_volume: Whole | None = None
    days_to_cover: Figure | None = None
    close_price: Figure | None = None
    last_close_price: Figure | None = None

    SHARES: ClassVar[str] = "shares_short"
    RATIO: ClassVar[str] = "short_percent"

    @property
    def shares(self) -> int | None:
        """Shares sold short and not yet bought back."""
        return self.shares_short

    @property
    def ratio(self) -> float | None:
        """Short shares in percent; the vendor does not document of what."""
        return self.short_percent

    @property
    def flags(self) -> tuple[str, ...]:
        """What a figure does not mean: days to cover at a bound were not computed."""
        flag = _DAYS_TO_COVER_BOUNDS.get(self.days_to_cover)
        return () if flag is None else (flag,)

    @property
    def day(self) -> date:
        """The trading day, in the market's own zone."""
        return date.fromisoformat(self.timestamp_str)


_DAYS_TO_COVER_BOUNDS: Final[Mapping[float | None, str]] = {
    999.99: "days_to_cover_cap",
    1.0: "days_to_cover_floor",
}

Record = HkRecord | UsRecord
RECORD_TYPES: Final[Mapping[Market, type[HkRecord] | type[UsRecord]]] = {
    Market.HK: HkRecord,
    Market.US: UsRecord,
}


@cache
def columns(market: Market) -> tuple[str, ...]:
    """Return the column names of a market's record, as in the SDK's DataFrame."""
    return tuple(field.name for field in fields(RECORD_TYPES[market]))


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of the gateway: records newest first as listed, and where to go on.

    `next_key` is None at the end. `oddities` says in words what was dropped and why.
    """

    records: tuple[Record, ...]
    next_key: str | None
    oddities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vintage:
    """What was reported of one day, at one time. `revision` counts the vintages of the day."""

    record: Record
    revision: int
    observed_at: datetime

    @property
    def day(self) -> date:
        """The trading day, in the market's own zone."""
        return self.record.day

    def to_json(self) -> str:
        """Return the JSON kept in the history hash."""
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
    """Read a record's columns from a JSON object; unknown ones are passed over.

    Raises Unreadable.
    """
    record: Record = _RECORDS[market].read(text)
    return record


@dataclass(frozen=True, slots=True)
class _Reported:
    """What stands beside a record's columns in the JSON of a vintage."""

    observed_at: Moment
    revision: Annotated[int, Field(ge=0, lt=2**31)]


_VINTAGES: Final = Codec[_Reported](_Reported)
_RECORDS: Final[Mapping[Market, Codec[Any]]] = {
    market: Codec(kind) for market, kind in RECORD_TYPES.items()
}


def _in_years(day: date) -> None:
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise Unreadable(f"{day} is not between {FIRST_YEAR} and {LAST_YEAR}")


class EventType(StrEnum):
    """What an event says; CONTRACT words, used on the stream as they are."""

    REPORTED = "short_interest.reported"
    REVISED = "short_interest.revised"
    BACKFILLED = "short_interest.backfilled"
    RESTATED = "short_interest.restated"


@dataclass(frozen=True, slots=True)
class Change(_Columns):
    """What moved between two reports of a symbol. Facts only, no score.

    `shares`: int. `percent`: of the previous shares, None when they were 0. `ratio_points`:
    percentage points. `days`: between the two trading days. `price_percent`: of the earlier close.
    `percentile`: 0-100, the share of known days up to this one that are not above it.
    `year_high`, `year_low`: against the 365 days before. `history_days`: how many days those rest
    on. `delay_hours`: from 00:00 of the trading day in the market's zone to the observation.
    `split_factor`: what a split or consolidation since the last report multiplied the shares by,
    where the history is not adjusted for it; None: there was none. Earlier shares are multiplied,
    and earlier prices divided, by the factors since then before anything is compared with them.
    """

    shares: Whole | None = None
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


class Cause(StrEnum):
    """What changed many known days at once."""

    RESCALED = "rescaled"
    """The shares of all days by one factor, as after a split."""

    RECOMPUTED = "recomputed"
    """The ratios, while the shares stayed."""

    REPLACED = "replaced"
    """Most figures by no single factor, as when a code is given to another company."""


@dataclass(frozen=True, slots=True)
class Restatement:
    """Known days that one cause changed.

    Attributes:
        factor: What `column` of each day was multiplied by; None where no single one fits.
        days: Oldest first; between the first and the last, all known days with such a figure.
        column: The vendor's name of the column; None when the whole history was replaced.
    """

    factor: float | None
    days: tuple[date, ...]
    column: str | None
    cause: Cause

    def columns(self) -> dict[str, Any]:
        """Return what an event says of it: cause, factor, how many days, from which to which."""
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
    """One entry of the stream. `restated` only with that type: one event for all its days."""

    type: EventType
    code: Code
    vintage: Vintage
    previous: Record | None
    change: Change | None
    restated: Restatement | None = None

    @property
    def id(self) -> str:
        """Code, trading day, revision: never used twice."""
        return f"{self.code}:{self.vintage.record.timestamp_str}:{self.vintage.revision}"

    @property
    def flags(self) -> tuple[str, ...]:
        """What the figures do not mean, and whether a split parts them from the previous ones."""
        is_split = self.change is not None and self.change.split_factor is not None
        return (*self.vintage.record.flags, *(("split",) if is_split else ()))


def to_json(value: object) -> str:
    """Return minified JSON; a NaN is a programming error here, so it raises."""
    return _ENCODER.encode(value)


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def isoformat(moment: datetime) -> str:
    """Return UTC with milliseconds and a Z: `2026-05-08T09:15:02.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unique(codes: Iterable[Code]) -> tuple[Code, ...]:
    """Return the codes in order of first appearance, each once."""
    return tuple(dict.fromkeys(codes))
