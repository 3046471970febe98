"""Builds events with the change between two reports of a symbol. Pure."""

from bisect import bisect_left, insort
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Final

from poller.codec import is_within
from poller.detect.restate import Rescaled, in_order
from poller.detect.split import split_factor
from poller.detect.trend import NO_TREND, Level, Trend, trends
from poller.markets import Market, Record, Shares, difference, exact, is_below_threshold
from poller.model import Cause, Change, Code, Event, EventType, Vintage, market_of

_YEAR: Final = timedelta(days=365)


def events_of(
    code: Code,
    known: Mapping[date, Vintage],
    found: Mapping[date, tuple[EventType, Vintage]],
    rescaled: Rescaled | None = None,
) -> tuple[Event, ...]:
    """Return the events: a restatement first, then the others, oldest day first.

    Changes and ranks are computed against the history as it is after all of them. A replaced
    history has no `change`: its earlier figures belong to another company.
    """
    if not found:
        return ()
    market = market_of(code)
    records = {day: vintage.record for day, vintage in known.items()}
    if rescaled is not None:
        records |= {day: vintage.record for day, vintage in rescaled.vintages.items()}
    records |= {day: vintage.record for day, (_, vintage) in found.items()}
    timeline = Timeline(records)
    ranks, moves = timeline.ranks(found), timeline.trends(found)
    events = []
    for day in in_order(found):
        kind, vintage = found[day]
        is_known = day in known
        previous = known[day].record if is_known else timeline.before(day)
        factor = None if is_known else timeline.split_before(day)
        fact = rescaled.fact if rescaled is not None and kind is EventType.RESTATED else None
        change = None
        if previous is not None and (fact is None or fact.cause is not Cause.REPLACED):
            trend = moves.get(day, NO_TREND)
            change = _change(market, previous, vintage, ranks[day], trend, factor)
        events.append(Event(kind, code, vintage, previous, change, fact))
    return tuple(events)


@dataclass(frozen=True, slots=True)
class Rank:
    """The rank of a figure among those up to its day.

    Attributes:
        not_above: How many of the `known` figures are not above it, itself included.
        known: How many figures there are up to its day.
        year_high: Whether it is above all of the 365 days before; None without a figure.
        year_low: Whether it is below all of them; None without a figure.
    """

    not_above: int
    known: int
    year_high: bool | None
    year_low: bool | None


class Timeline:
    """A symbol's history, indexed so that each query is cheap however long it is.

    Figures are made comparable by dividing each by the factors of all splits up to its day.
    Consolidations leave fractions, so differences below the market's smallest step are ignored.
    """

    def __init__(self, timeline: Mapping[date, Record]) -> None:
        self._timeline = timeline
        self._days = sorted(timeline)
        self._splits = _splits(timeline, self._days)
        self._scale = dict.fromkeys(self._days, Fraction(1))
        scale = Fraction(1)
        if self._splits:
            for day in self._days:
                scale *= self._splits.get(day, 1)
                self._scale[day] = scale

    def before(self, day: date) -> Record | None:
        """Return the last record before a day, or None."""
        place = bisect_left(self._days, day)
        return self._timeline[self._days[place - 1]] if place else None

    def split_before(self, day: date) -> Fraction | None:
        """Return the factor of a split between this day and the last figure before it, or None."""
        return self._splits.get(day)

    def ranks(self, wanted: Collection[date]) -> dict[date, Rank]:
        """Return the rank of each of these days of the history, in one pass over it."""
        found = {}
        start = bisect_left(self._days, min(wanted, default=date.max))
        levels = sorted(
            level for day in self._days[:start] if (level := self._level(day)) is not None
        )
        for day in self._days[start:]:
            level = self._level(day)
            if level is not None:
                insort(levels, level)
            if day in wanted:
                found[day] = self._rank(day, levels)
        return found

    def trends(self, wanted: Collection[date]) -> dict[date, Trend]:
        """Return the trend of each of these days that has a figure, in one pass."""
        return trends(map(self._on_scale, self._days), wanted)

    def _on_scale(self, day: date) -> Level:
        record = self._timeline[day]
        step = self._scaled(day, record.STEP)
        return Level(day, self._level(day), step, is_known=not is_below_threshold(record))

    def _rank(self, day: date, levels: list[int | Fraction]) -> Rank:
        """Return a day's rank among `levels`, the sorted figures up to that day."""
        shares = self._timeline[day].shares
        if shares is None:
            return Rank(0, len(levels), None, None)
        year = self._year_before(day)
        step, level = self._timeline[day].STEP, exact(shares)
        below, above = self._scaled(day, level - step), self._scaled(day, level + step)
        return Rank(
            bisect_left(levels, above),
            len(levels),
            max(year) <= below if year else None,
            min(year) >= above if year else None,
        )

    def _year_before(self, day: date) -> list[int | Fraction]:
        first, end = bisect_left(self._days, day - _YEAR), bisect_left(self._days, day)
        days = self._days[first:end]
        if not self._splits:  # the common case, and called for every day: no fractions
            return [exact(n) for day in days if (n := self._timeline[day].shares) is not None]
        levels = map(self._level, days)
        return [level for level in levels if level is not None]

    def _level(self, day: date) -> int | Fraction | None:
        shares = self._timeline[day].shares
        return None if shares is None else self._scaled(day, exact(shares))

    def _scaled(self, day: date, shares: int | Fraction) -> int | Fraction:
        return shares / self._scale[day] if self._splits else shares


def _splits(timeline: Mapping[date, Record], days: list[date]) -> dict[date, Fraction]:
    """Return the factor of each split, by the day of the first report after it."""
    figures = [timeline[day] for day in days if timeline[day].shares]
    return {
        now.day: factor
        for before, now in pairwise(figures)
        if (factor := split_factor(before, now)) is not None
    }


def _change(
    market: Market,
    previous: Record,
    vintage: Vintage,
    rank: Rank,
    trend: Trend,
    factor: Fraction | None,
) -> Change:
    """Return the change from `previous`; `factor`: of a split between the two."""
    now = vintage.record
    scale = factor or Fraction(1)
    shares, percent = move(previous, now, factor)
    price = None if previous.close_price is None else previous.close_price / float(scale)
    if factor is not None and not previous.shares:
        price = None  # it is not known on which side of the split that price is
    begun = market.midnight(now.day)
    return Change(
        shares=shares,
        percent=percent,
        ratio_points=_round(_difference(now.ratio, previous.ratio)),
        days_to_cover=cover_change(previous, now),
        days=(now.day - previous.day).days,
        price_percent=_percent(_difference(now.close_price, price), price),
        percentile=None if now.shares is None else round(100 * rank.not_above / rank.known, 1),
        year_high=rank.year_high,
        year_low=rank.year_low,
        history_days=rank.known,
        zscore=trend.zscore,
        streak=trend.streak,
        delay_hours=round((vintage.observed_at - begun).total_seconds() / 3600, 2),
        split_factor=None if factor is None else float(factor),
    )


def move(
    previous: Record, now: Record, factor: Fraction | None
) -> tuple[Shares | None, float | None]:
    """Return the change in shares, and in percent of the previous ones, None if those were 0.

    `factor`: of a split between the two; the previous shares count as if adjusted for it.
    """
    scale = factor or Fraction(1)
    base = None
    if previous.shares is not None:
        base = _rescaled(previous.shares, scale, now.STEP)
        if now.shares is not None and _is_a_part(now.shares, previous.shares, scale, now.STEP):
            base = now.shares
    shares = _bounded(difference(now.shares, base))
    return shares, _percent(shares, base)


def cover_change(previous: Record, now: Record) -> float | None:
    """Return the change of the days to cover, in days; None where one is absent or a cap."""
    return _round(_difference(computed_cover(now), computed_cover(previous)))


def computed_cover(record: Record) -> float | None:
    """Return days to cover, where they were computed: a cap says nothing of the true figure."""
    bound = record.cover_bound
    return None if bound is not None and not bound.is_computed else record.days_to_cover


def _rescaled(shares: Shares, scale: Fraction, step: int | Fraction) -> Shares:
    """Return a number of shares after a split, rounded to the market's smallest step."""
    if scale == 1:
        return shares
    steps = round(exact(shares) * scale / step)
    return steps if step == 1 else float(steps * step)


def _is_a_part(shares: Shares, before: Shares, scale: Fraction, step: int | Fraction) -> bool:
    """Return whether the only difference is a fraction that a consolidation rounded off."""
    return scale != 1 and abs(exact(shares) - exact(before) * scale) < step


def _difference(now: float | None, previous: float | None) -> float | None:
    return None if now is None or previous is None else _bounded(now - previous)


def _percent(difference: float | None, previous: float | None) -> float | None:
    """Return the difference in percent of `previous`; None if that is 0 or absent."""
    if difference is None or not previous:
        return None
    return _round(_bounded(100 * difference / previous))


def _bounded(value: Shares | None) -> Shares | None:
    """Return a number within the codec's bounds, else None: no real figures differ by more."""
    return value if value is not None and is_within(value) else None


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
