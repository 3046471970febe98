"""Figures that cannot be true, kept out of history until they are settled. Pure."""

from dataclasses import asdict, dataclass, field, make_dataclass
from datetime import date, datetime
from enum import StrEnum
from functools import cache
from math import isfinite
from typing import Annotated, Any, Final, Generic, TypeVar, get_type_hints

from pydantic import AfterValidator

from poller.codec import Codec, Moment, guarded
from poller.markets import Market, Record, columns_of
from poller.model import Code, isoformat, market_of, to_json


class Reason(StrEnum):
    """Why a figure cannot be true."""

    FUTURE_DAY = "future_day"
    ZERO = "zero_after_millions"
    UNIT_SLIP = "unit_slip"
    WHOLESALE = "wholesale_anomaly"
    WHOLE_HISTORY = "whole_history_changed"
    IMPOSSIBLE_FIGURE = "impossible_figure"
    IMPOSSIBLE_DAY = "impossible_day"
    OTHER_TIMESTAMP = "timestamp_of_another_day"


class Decision(StrEnum):
    """What the operator decided about a held figure; HELD: nothing yet."""

    HELD = "held"
    RELEASED = "released"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class QuarantinedFigure:
    """A figure kept out of history.

    Attributes:
        record: The row as it was read.
        previous: The figure that makes it implausible, if any.
        reason: A `Reason`, or the text of one that a later version knows.
        observed_at: When it was read, aware.
        decision: What the operator decided.
    """

    record: Record
    previous: Record | None
    reason: str
    observed_at: datetime
    decision: Decision = Decision.HELD

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
                "state": self.decision,
            }
        )

    @classmethod
    def from_json(cls, market: Market, text: str) -> "QuarantinedFigure":
        """Read what `to_json` wrote, in any version; raises Unreadable."""
        read = _codec(market).read(text)
        return cls(
            _record(market, read.record),
            None if read.previous is None else _record(market, read.previous),
            read.reason,
            read.observed_at,
            read.state,
        )

    def fields(self, code: Code) -> dict[str, str]:
        """Return the flat, textual fields of the entry in the quarantine stream."""
        data = {
            "record": self.record.columns(),
            "previous": self.previous.columns() if self.previous else None,
        }
        return {
            "id": f"{code}:{self.record.timestamp_str}",
            "code": code,
            "market": market_of(code).name,
            "trading_day": self.record.timestamp_str,
            "reason": str(self.reason),
            "observed_at": isoformat(self.observed_at),
            "data": to_json(data),
        }


_R = TypeVar("_R")


def _finite(value: object) -> object:
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("is infinite, or no number")
    return value


_FINITE: Final = AfterValidator(_finite)


@dataclass(frozen=True, slots=True)
class _Stored(Generic[_R]):
    """A held figure as it is stored in JSON."""

    record: _R
    reason: str
    observed_at: Moment
    previous: _R | None = None
    state: Decision = Decision.HELD


def _unbounded(kind: type[Record]) -> Any:  # noqa: ANN401  a dataclass made here
    """Return a record's columns without their bounds, which a held figure may exceed.

    They must still be finite numbers: JSON cannot write others back.
    """
    hints = get_type_hints(kind)  # drops the bounds, which are annotations of the types
    columns = [
        (name, Annotated[hints[name], _FINITE], field(default=None)) for name in columns_of(kind)
    ]
    return make_dataclass(f"QuarantinedFigure{kind.__name__}", columns, frozen=True, slots=True)


@cache
def _codec(market: Market) -> Codec[Any]:
    return Codec(_Stored[_unbounded(market.record)])  # type: ignore[misc]


def _record(market: Market, columns: Any) -> Record:  # noqa: ANN401
    """Return a held record; raises Unreadable if it has no valid day."""
    record = market.record(**asdict(columns))
    guarded(lambda: record.day)
    return record
