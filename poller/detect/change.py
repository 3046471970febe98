"""What moved between two reports of a symbol, told as events. Pure."""

from collections.abc import Mapping, Sequence
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
    days = sorted(timeline)
    position = {day: index for index, day in enumerate(days)}
    events = []
    for day in sorted(found, key=lambda day: (found[day][0] is not EventType.RESTATED, day)):
        kind, vintage = found[day]
        if day in known:
            previous: Record | None = known[day].record
        else:
            previous = timeline[days[position[day] - 1]] if position[day] else None
        upto = [timeline[earlier] for earlier in days[: position[day] + 1]]
        change = _change(market, previous, vintage, upto) if previous else None
        fact = rescaled.fact if rescaled is not None and kind is EventType.RESTATED else None
        events.append(Event(kind, code, vintage, previous, change, fact))
    return tuple(events)


def _change(market: Market, previous: Record, vintage: Vintage, upto: Sequence[Record]) -> Change:
    """Tell what moved. `upto`: the history up to and with this day, oldest first."""
    now = vintage.record
    shares = _difference(now.shares, previous.shares)
    levels = [record.shares for record in upto if record.shares is not None]
    year = [
        record.shares
        for record in upto[:-1]
        if record.shares is not None and now.day - record.day <= _YEAR
    ]
    midnight = datetime.combine(now.day, time(), market.zone)
    return Change(
        shares=shares,
        percent=_percent(shares, previous.shares),
        ratio_points=_round(_difference(now.ratio, previous.ratio)),
        days=(now.day - previous.day).days,
        price_percent=_percent(
            _difference(now.close_price, previous.close_price), previous.close_price
        ),
        percentile=_percentile(now.shares, levels),
        year_high=now.shares > max(year) if now.shares is not None and year else None,
        year_low=now.shares < min(year) if now.shares is not None and year else None,
        history_days=len(levels),
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


def _percentile(value: int | None, levels: Sequence[int]) -> float | None:
    """Return the share of `levels` (which hold the value itself) not above it, in percent."""
    if value is None or not levels:
        return None
    return round(100 * sum(level <= value for level in levels) / len(levels), 1)
