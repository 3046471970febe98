"""What moved between two reports of a symbol, told as events. Pure."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final, TypeVar

from poller.detect.plausible import Rescaled
from poller.model import (
    Change,
    Code,
    Event,
    EventType,
    Market,
    Record,
    Vintage,
    market_of,
)

_YEAR: Final = timedelta(days=365)


def events_of(
    code: Code,
    known: Mapping[date, Vintage],
    found: Mapping[date, tuple[EventType, Vintage]],
    rescaled: Rescaled | None = None,
) -> tuple[Event, ...]:
    """Build the events: a restatement first, then the others oldest day first.

    Each is told against the history as it stands after all of them.
    """
    market = market_of(code)
    timeline = {day: vintage.record for day, vintage in known.items()}
    if rescaled is not None:
        timeline |= {day: vintage.record for day, vintage in rescaled.vintages.items()}
    timeline |= {day: vintage.record for day, (_, vintage) in found.items()}
    course = Course(timeline)
    ranks = course.ranks(found)
    events = []
    for day in sorted(found, key=lambda day: (found[day][0] is not EventType.RESTATED, day)):
        kind, vintage = found[day]
        previous = known[day].record if day in known else course.before(day)
        change = None
        if previous is not None:
            change = _change(market, previous, vintage, ranks[day], course.year_before(day))
        fact = rescaled.fact if rescaled is not None and kind is EventType.RESTATED else None
        events.append(Event(kind, code, vintage, previous, change, fact))
    return tuple(events)


@dataclass(frozen=True, slots=True)
class Rank:
    """Where a figure stands among the known ones up to its day: `not_above` of `known`."""

    not_above: int
    known: int


class Course:
    """A symbol's history as it ran; every question costs little, however long it is."""

    def __init__(self, timeline: Mapping[date, Record]) -> None:
        self._timeline = timeline
        self._days = sorted(timeline)

    def before(self, day: date) -> Record | None:
        """Return the last record before a day."""
        place = bisect_left(self._days, day)
        return self._timeline[self._days[place - 1]] if place else None

    def year_before(self, day: date) -> list[int]:
        """Return the figures of the 365 days before a day."""
        first, end = bisect_left(self._days, day - _YEAR), bisect_left(self._days, day)
        shares = (self._timeline[each].shares for each in self._days[first:end])
        return [level for level in shares if level is not None]

    def ranks(self, wanted: Collection[date]) -> dict[date, Rank]:
        """Return the rank of each of these days of the history, in one pass over it."""
        found = {}
        start = bisect_left(self._days, min(wanted, default=date.max))
        levels = sorted(
            level for day in self._days[:start] if (level := self._timeline[day].shares) is not None
        )
        for day in self._days[start:]:
            shares = self._timeline[day].shares
            if shares is not None:
                insort(levels, shares)
            if day in wanted:
                below = 0 if shares is None else bisect_right(levels, shares)
                found[day] = Rank(below, len(levels))
        return found


def _change(
    market: Market, previous: Record, vintage: Vintage, rank: Rank, year: Sequence[int]
) -> Change:
    """Tell what moved. `year`: the figures of the year before."""
    now = vintage.record
    shares = _difference(now.shares, previous.shares)
    midnight = datetime.combine(now.day, time(), market.zone)
    return Change(
        shares=shares,
        percent=_percent(shares, previous.shares),
        ratio_points=_round(_difference(now.ratio, previous.ratio)),
        days=(now.day - previous.day).days,
        price_percent=_percent(
            _difference(now.close_price, previous.close_price), previous.close_price
        ),
        percentile=None if now.shares is None else round(100 * rank.not_above / rank.known, 1),
        year_high=now.shares > max(year) if now.shares is not None and year else None,
        year_low=now.shares < min(year) if now.shares is not None and year else None,
        history_days=rank.known,
        delay_hours=round((vintage.observed_at - midnight).total_seconds() / 3600, 2),
    )


Figure = TypeVar("Figure", int, float)


def _difference(now: Figure | None, previous: Figure | None) -> Figure | None:
    return None if now is None or previous is None else now - previous


def _percent(difference: float | None, previous: float | None) -> float | None:
    """Return the difference in percent of `previous`; nothing is a percentage of 0."""
    return None if difference is None or not previous else _round(100 * difference / previous)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
