"""What a history says besides its figures: each day beside the days before it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from poller.detect.change import Timeline, cover_change, move
from poller.detect.trend import NO_TREND
from poller.markets import Record, Shares, is_below_threshold


@dataclass(frozen=True, slots=True)
class Facts:
    """A day beside those before it, as the history is now; None: it is not known.

    Attributes:
        change: In shares, since the day before; None also where either is below the threshold.
        change_percent: The same in percent of the figure before; None also where that was 0.
        days_to_cover_change: In days; None where either figure is the source's cap.
        zscore: How unusual the move is in the symbol's own history, as in an event's `change`.
        streak: Reports in a row that rose (positive) or fell (negative), as in an event's `change`.
        split_factor: Of a split between the two: the shares of the day before are multiplied by it.
    """

    change: Shares | None = None
    change_percent: float | None = None
    days_to_cover_change: float | None = None
    zscore: float | None = None
    streak: int | None = None
    split_factor: float | None = None

    def columns(self) -> dict[str, Any]:
        """Return name → fact, in order."""
        return {name: getattr(self, name) for name in FACTS}


NO_FACTS: Final = Facts()
"""Of a day that stands alone."""

FACTS: Final = tuple(Facts.__slots__)
"""The names of the facts, in order."""


def facts_of(records: Iterable[Record]) -> list[Facts]:
    """Return the facts of each day of a history, in the order given; no day may be there twice."""
    given = {record.day: record for record in records}
    timeline = Timeline(given)
    trends = timeline.trends(given)
    facts = {}
    before: Record | None = None
    for day in sorted(given):
        record, trend = given[day], trends.get(day, NO_TREND)
        change, percent, cover = None, None, None
        factor = timeline.split_before(day)
        if before is not None:
            cover = cover_change(before, record)
            if not (is_below_threshold(before) or is_below_threshold(record)):
                change, percent = move(before, record, factor)
        split = None if factor is None else float(factor)
        facts[day] = Facts(change, percent, cover, trend.zscore, trend.streak, split)
        before = record
    return [facts[day] for day in given]
