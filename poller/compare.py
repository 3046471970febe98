"""What a symbol's pages say that was not known: page(s) × known → events, next watermark. Pure.

Detection is by trading day, then by the short figures (shares and ratio). Prices, volumes and days
to cover never make a revision: 40 % of the Hong Kong figures repeat from week to week, and the
other columns move without anybody having reported anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from typing import Final, TypeVar

from poller.errors import Malformed, StoreMisfit
from poller.model import Change, Code, Event, EventType, Market, Page, Record, Vintage, market_of

PAGE_LIMIT: Final = 400
"""Pages of 50 in one go; more than 300 years of Hong Kong weeks, so only a gateway that loops."""

_YEAR: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Known:
    """What the store holds of a symbol. `watermark`: its last reported trading day."""

    watermark: date | None = None
    vintages: Mapping[date, Vintage] = field(default_factory=dict)

    @property
    def newest(self) -> date | None:
        """The watermark; where somebody deleted it, the newest day still in history."""
        return self.watermark or max(self.vintages, default=None)

    @property
    def floor(self) -> date | None:
        """The oldest day this symbol is followed from; older rows were never asked for."""
        return min(self.vintages, default=self.watermark)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What to commit. `events` in stream order; `silent` is kept in history without an entry."""

    watermark: date | None
    events: tuple[Event, ...] = ()
    silent: tuple[Vintage, ...] = ()
    oddities: tuple[str, ...] = ()


class Reading(StrEnum):
    """Whether the pages read so far are enough."""

    ENOUGH = "enough"
    MORE = "more"
    CUT = "cut"  # no further page is to be had, although the watermark was not reached


def progress(
    code: Code, pages: Sequence[Page], known: Known, *, history: int, since: date | None = None
) -> Reading:
    """Tell whether to read on after `pages`.

    Enough is: down to the watermark; at first sight `history` days; with `since`, down to that day.
    CUT is for the caller to settle: moving the watermark now would leave a gap for ever, while
    asking again costs a request. Raises Malformed when the paging turns in circles.
    """
    last = pages[-1]
    days = {record.day for page in pages for record in page.records}
    if _reached(days, known, history, since):
        return Reading.ENOUGH
    catching_up = since is None and known.newest is not None and bool(days)
    if last.next_key is None or not last.records:
        return Reading.CUT if catching_up else Reading.ENOUGH
    earlier = {record.day for page in pages[:-1] for record in page.records}
    looping = bool(earlier) and min(record.day for record in last.records) >= min(earlier)
    repeated = any(page.next_key == last.next_key for page in pages[:-1])
    if not (looping or repeated or len(pages) >= PAGE_LIMIT):
        return Reading.MORE
    if catching_up:
        raise Malformed(
            f"{code}: OpenD's paging does not end ({len(pages)} pages, key {last.next_key!r}, "
            f"oldest day {min(days)}) before the watermark {known.newest}; nothing was published"
        )
    return Reading.ENOUGH


def _reached(days: set[date], known: Known, history: int, since: date | None) -> bool:
    if since is not None:
        return bool(days) and min(days) <= since
    if known.newest is None:
        return len(days) >= max(history, 1)
    # one older day alone may be a row out of order: the next page costs less than a gap
    below = sum(day < known.newest for day in days)
    return known.newest in days or below > 1 or (bool(days) and max(days) < known.newest)


def compare(
    code: Code,
    records: Iterable[Record],
    known: Known,
    *,
    observed_at: datetime,
    history: int,
    since: date | None = None,
) -> Comparison:
    """Return what `records` (any order, duplicates allowed) say that `known` does not.

    `observed_at`: aware, when the records were read; also the judge of days in the future.
    `history`: rows published as backfilled at first sight. `since`: follow the symbol from that
    day on, however old (a backfill). The watermark of the result is never older than the known
    one, and an empty, shorter or older answer changes nothing.
    """
    today = observed_at.astimezone(market_of(code).zone).date()
    if known.newest is not None and known.newest > today:
        raise StoreMisfit(
            f"the watermark of {code} is {known.newest}, a day in the future, so nothing newer can "
            f"be found; put it back to the last day that was reported, or remove it"
        )
    listed, oddities = _tidy(records, known, today)
    if known.newest is None:
        return _first_sight(code, listed, observed_at, history, since, oddities)
    if since is not None:
        return _older_days(code, listed, known, observed_at, since, oddities)
    if not listed or max(listed) < known.newest:
        return Comparison(known.newest, oddities=oddities)  # older than what is known
    return _news(code, listed, known, observed_at, known.newest, oddities)


def _news(
    code: Code,
    listed: Mapping[date, Record],
    known: Known,
    observed_at: datetime,
    newest: date,
    oddities: tuple[str, ...],
) -> Comparison:
    """Tell new days, other figures of known ones, and days missing between them."""
    found: dict[date, tuple[EventType, Vintage]] = {}
    silent = []
    for day, record in listed.items():
        before = known.vintages.get(day)
        if before is not None:
            if is_revision(before.record, record):
                found[day] = EventType.REVISED, Vintage(record, before.revision + 1, observed_at)
        elif day > newest:
            found[day] = EventType.REPORTED, Vintage(record, 0, observed_at)
        elif day == newest:  # reported, but gone from history
            silent.append(Vintage(record, 0, observed_at))
        elif known.floor is not None and day > known.floor:
            found[day] = EventType.BACKFILLED, Vintage(record, 0, observed_at)
    events = _events(code, known.vintages, found)
    return Comparison(max((newest, *found)), events, tuple(silent), oddities)


def _older_days(  # a backfill
    code: Code,
    listed: Mapping[date, Record],
    known: Known,
    observed_at: datetime,
    since: date,
    oddities: tuple[str, ...],
) -> Comparison:
    """Add what is missing below the watermark; what is new or revised is the poller's to tell."""
    newest = known.newest
    found = {
        day: (EventType.BACKFILLED, Vintage(record, 0, observed_at))
        for day, record in listed.items()
        if newest is not None and since <= day < newest and day not in known.vintages
    }
    return Comparison(newest, _events(code, known.vintages, found), (), oddities)


def is_revision(before: Record, now: Record) -> bool:
    """Tell whether a known day shows other short figures; one that turned absent is no news."""
    figures = ((before.shares, now.shares), (before.ratio, now.ratio))
    lost = any(old is not None and new is None for old, new in figures)
    return not lost and any(old != new for old, new in figures)


def _first_sight(
    code: Code,
    listed: Mapping[date, Record],
    observed_at: datetime,
    history: int,
    since: date | None,
    oddities: tuple[str, ...],
) -> Comparison:
    if not listed:
        return Comparison(None, oddities=oddities)
    newest = sorted(listed, reverse=True)
    chosen = newest[:history] if since is None else [day for day in newest if day >= since]
    vintages = {day: Vintage(listed[day], 0, observed_at) for day in chosen}
    events = _events(code, {}, {day: (EventType.BACKFILLED, v) for day, v in vintages.items()})
    # nothing to publish: the newest row is still kept, so that the next one has a change to tell
    silent = () if chosen else (Vintage(listed[newest[0]], 0, observed_at),)
    return Comparison(newest[0], events, silent, oddities)


def _tidy(
    records: Iterable[Record], known: Known, today: date
) -> tuple[dict[date, Record], tuple[str, ...]]:
    """Key records by day. Of two that disagree, the one already known counts, else the first."""
    listed: dict[date, Record] = {}
    oddities: list[str] = []
    for record in records:
        if record.day > today:
            oddities.append(f"{record.day} lies in the future: not published")
            continue
        before = listed.setdefault(record.day, record)
        if not is_revision(before, record):
            continue
        oddities.append(f"{record.day} is listed twice with different figures: one was ignored")
        vintage = known.vintages.get(record.day)
        if vintage is not None and not is_revision(vintage.record, record):
            listed[record.day] = record
    return listed, tuple(dict.fromkeys(oddities))


def _events(
    code: Code,
    known: Mapping[date, Vintage],
    found: Mapping[date, tuple[EventType, Vintage]],
) -> tuple[Event, ...]:
    """Build the events oldest day first, each told against the history as it then stands."""
    market = market_of(code)
    timeline = {day: vintage.record for day, vintage in known.items()}
    timeline |= {day: vintage.record for day, (_, vintage) in found.items()}
    days = sorted(timeline)
    position = {day: index for index, day in enumerate(days)}
    events = []
    for day in sorted(found):
        kind, vintage = found[day]
        if kind is EventType.REVISED:
            previous: Record | None = known[day].record
        else:
            previous = timeline[days[position[day] - 1]] if position[day] else None
        upto = [timeline[earlier] for earlier in days[: position[day] + 1]]
        change = _change(market, previous, vintage, upto) if previous else None
        events.append(Event(kind, code, vintage, previous, change))
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
