"""Figures that cannot be true, kept out of history until somebody settles them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from poller.codec import Codec, Moment
from poller.model import RECORD_TYPES, Code, Market, Record, isoformat, market_of, to_json


class Reason(StrEnum):
    """Why a figure cannot be true."""

    FUTURE_DAY = "future_day"
    ZERO = "zero_after_millions"
    UNIT_SLIP = "unit_slip"
    WHOLESALE = "wholesale_anomaly"
    IMPOSSIBLE_FIGURE = "impossible_figure"
    IMPOSSIBLE_DAY = "impossible_day"
    OTHER_TIMESTAMP = "timestamp_of_another_day"


class Ruling(StrEnum):
    """What the operator said about a held figure; HELD: nothing yet."""

    HELD = "held"
    RELEASED = "released"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class Held:
    """A figure kept out of history. `previous`: the one that speaks against it, if any.

    `reason`: a `Reason`, or the text of one that a later version knows.
    """

    record: Record
    previous: Record | None
    reason: str
    observed_at: datetime
    ruling: Ruling = Ruling.HELD

    @property
    def day(self) -> date:
        """The trading day, in the market's own zone."""
        return self.record.day

    def to_json(self) -> str:
        """Return the JSON kept in the hash of held days."""
        return to_json(
            {
                "record": self.record.columns(),
                "previous": self.previous.columns() if self.previous else None,
                "reason": self.reason,
                "observed_at": isoformat(self.observed_at),
                "state": self.ruling,
            }
        )

    @classmethod
    def from_json(cls, market: Market, text: str) -> "Held":
        """Read what `to_json` wrote, in any version; raises Unreadable."""
        read = _CODECS[market].read(text)
        return cls(read.record, read.previous, read.reason, read.observed_at, read.state)

    def fields(self, code: Code) -> dict[str, str]:
        """Return the flat, textual fields of the entry in the quarantine stream."""
        told = {
            "record": self.record.columns(),
            "previous": self.previous.columns() if self.previous else None,
        }
        return {
            "id": f"{code}:{self.record.timestamp_str}",
            "code": code,
            "market": str(market_of(code)),
            "trading_day": self.record.timestamp_str,
            "reason": str(self.reason),
            "observed_at": isoformat(self.observed_at),
            "data": to_json(told),
        }


_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class _Stored(Generic[_R]):
    """A held figure as JSON has it."""

    record: _R
    reason: str
    observed_at: Moment
    previous: _R | None = None
    state: Ruling = Ruling.HELD


_CODECS: Final[Mapping[Market, Codec[Any]]] = {
    market: Codec(_Stored[kind])  # type: ignore[valid-type]
    for market, kind in RECORD_TYPES.items()
}
