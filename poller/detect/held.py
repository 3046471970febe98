"""Figures that cannot be true, kept out of history until somebody settles them. Pure."""

import json
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from poller.model import (
    Code,
    Market,
    Record,
    isoformat,
    market_of,
    moment_from,
    record_from,
    require,
    to_json,
)


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
    """A figure kept out of history. `previous`: the one that speaks against it, if any."""

    record: Record
    previous: Record | None
    reason: Reason
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
        """Read what `to_json` wrote; anything else is a ValueError that says what is wrong."""
        raw = json.loads(text)
        require(raw, ("record", "previous", "reason", "observed_at", "state"))
        previous = raw["previous"]
        return cls(
            record_from(market, raw["record"]),
            None if previous is None else record_from(market, previous),
            Reason(raw["reason"]),
            moment_from(raw["observed_at"]),
            Ruling(raw["state"]),
        )

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
