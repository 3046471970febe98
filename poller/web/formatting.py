"""Formats figures and times for the page; an absent one is an en dash. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from fractions import Fraction
from itertools import groupby
from typing import Final

from poller.events import StreamEvent, decode
from poller.markets import Market, Record, Shares, is_below_threshold
from poller.schedule.facts import Facts
from poller.store.store import Entry
from poller.telemetry.roles import parts_of
from poller.telemetry.status import ProcessReport
from poller.web.histories import LARGEST
from poller.web.zones import Zone

ABSENT: Final = "–"
_STEPS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_COARSE: Final = 2  # from this step on (minutes), one unit is enough
_FEW: Final = 10
_SIZES: Final = ((1e9, " B"), (1e6, " M"), (1e3, " k"))
_LONG: Final = 1e15  # figures from here on are written with a power of ten
_WIDEST_SHARES: Final = 1e10  # columns have room for smaller ones
_WIDEST: Final = 1e5


def number(value: Shares | None) -> str:
    """Return 1,234,567."""
    return ABSENT if value is None or abs(value) >= LARGEST else f"{value:,}"


def is_wide(shares: Iterable[Shares | None], others: Iterable[float | None]) -> bool:
    """Return whether any of these needs more room than a column has: no market reports such a one.

    `shares`: positions and their changes. `others`: percents, days, prices.
    """
    return any(value is not None and abs(value) >= _WIDEST_SHARES for value in shares) or any(
        value is not None and abs(value) >= _WIDEST for value in others
    )


def short(value: Shares | None) -> str:
    """Return a number in a few characters: 1.2 M."""
    known = finite(value)
    if known is None or abs(known) >= LARGEST:
        return ABSENT
    size, letter = next((each for each in _SIZES if abs(known) >= each[0]), (1.0, ""))
    return f"{known / size:.4g}{letter}"


def split(factor: Fraction) -> str:
    """Return what a split made of the shares: `4 for 1`, or `1 for 10` of a consolidation."""
    return f"{factor.numerator} for {factor.denominator}"


def decimal(value: float | None, places: int = 2) -> str:
    """Return 1,234.50, with `places` decimals."""
    known = finite(value)
    if known is None:
        return ABSENT
    return f"{known:,.{places}f}" if abs(known) < _LONG else f"{known:.3g}"


def finite(value: float | None) -> float | None:
    """Return the number if it is finite, else None."""
    try:
        return value if value is not None and math.isfinite(value) else None
    except OverflowError:  # an integer no float can hold
        return None


def places_of(prices: Iterable[float | None]) -> int:
    """Return the decimals for a column of prices: 2, or up to 4 if a price needs more."""
    known = [price for price in prices if price is not None]
    return next((n for n in (2, 3) if all(round(price, n) == price for price in known)), 4)


def cover(record: Record) -> str:
    """Return the days to cover with two decimals; at a bound, with its sign: `≥ 999.99`."""
    bound = record.cover_bound
    return f"{'' if bound is None else bound.sign}{decimal(record.days_to_cover)}"


def cover_note(record: Record) -> str:
    """Return what days to cover at a bound mean; "" for others."""
    return "" if record.cover_bound is None else record.cover_bound.note


def signed(value: Shares | None) -> str:
    """Return +1,234, −1,234 or ±0."""
    if value is None or abs(value) >= LARGEST:
        return ABSENT
    return "±0" if not value else f"{value:+,}".replace("-", "−")


def percent(value: float | None) -> str:
    """Return +1.23 % or −1.23 %."""
    known = finite(value)
    if known is None:
        return ABSENT
    text = f"{known:+.2f} %" if abs(known) < _LONG else f"{known:+.3g} %"
    text = text.replace("-", "−")
    return f"±{text[1:]}" if text[1:] == "0.00 %" else text


def difference(value: float | None) -> str:
    """Return +1.23, −1.23 or ±0.00."""
    known = finite(value)
    if known is None:
        return ABSENT
    text = decimal(abs(known))
    return f"{'±' if text == '0.00' else '+' if known > 0 else '−'}{text}"


def zscore(value: float | None) -> str:
    """Return 1.23 or −1.23."""
    return decimal(value).replace("-", "−")


def trend(facts: Facts) -> str:
    """Return how unusual a move is, and how long it has gone on; "" if neither is known."""
    parts = []
    if finite(facts.zscore) is not None:
        parts.append(f"z-score {zscore(facts.zscore)}")
    match facts.streak:
        case None:
            pass
        case 0:
            parts.append("unchanged")
        case 1 | -1 as way:
            parts.append(f"1 report {'up' if way > 0 else 'down'}")
        case count:
            parts.append(f"{abs(count):,} reports {'up' if count > 0 else 'down'} in a row")
    return ", ".join(parts)


def ratio(value: float | None) -> str:
    """Return 0.56 %."""
    known = finite(value)
    if known is None:
        return ABSENT
    return f"{known:.2f} %" if abs(known) < _LONG else f"{known:.3g} %"


def ratio_source(market: Market) -> str:
    """Return which of OpenD's columns the ratio is, and where it comes from."""
    return market.labels.ratio_source


def direction(value: float | None) -> str:
    """Return the CSS class that gives a change its arrow."""
    known = finite(value)
    return "" if not known else "up" if known > 0 else "down"


def span(length: timedelta) -> str:
    """Return a duration in its largest unit, or two for few days or hours: 3 min, 1 d 22 h."""
    seconds = round(abs(length.total_seconds()))
    place = next((n for n, (size, _) in enumerate(_STEPS) if seconds >= size), len(_STEPS) - 1)
    size, unit = _STEPS[place]
    if place >= _COARSE or seconds >= _FEW * size:
        return f"{round(seconds / size)} {unit}"
    smaller, rest_unit = _STEPS[place + 1]
    rest = seconds % size // smaller
    return f"{seconds // size} {unit}" + (f" {rest} {rest_unit}" if rest else "")


def ago(moment: datetime | None, now: datetime) -> str:
    """Return `3 min ago`, `in 3 min` or `now`; an en dash for None."""
    if moment is None:
        return ABSENT
    length = now - moment
    if abs(length) < timedelta(seconds=1):
        return "now"
    return f"{span(length)} ago" if length > timedelta() else f"in {span(length)}"


def left(length: timedelta | None) -> str:
    """Return how long something will still take: `about 5 min left`; "" for None."""
    return "" if length is None else f"about {span(length)} left"


def clock(when: datetime, now: datetime, zone: Zone, market: Market | None = None) -> str:
    """Return a moment of today as 14:30:17 HKT, of another day with its date."""
    there = zone.of(market)
    try:
        is_today = when.astimezone(there).date() == now.astimezone(there).date()
        return zone.text(when, "%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S", market)
    except OverflowError:  # at an end of the calendar
        return ABSENT


def due(moment: datetime | None, now: datetime) -> str:
    """Return when something is due: `in 3 min`, or `now` if it is."""
    return ABSENT if moment is None else ago(max(moment, now), now)


def moment(when: datetime, zone: Zone, market: Market | None = None, seconds: str = "") -> str:
    """Return 2026-11-24 12:00 HKT; `seconds`: `:%S` to add them."""
    try:
        return zone.text(when, f"%Y-%m-%d %H:%M{seconds}", market)
    except OverflowError:
        return ABSENT


def at_work(report: ProcessReport) -> str:
    """Return what a process is doing."""
    parts = parts_of(report.role)
    if parts.delivers and not parts.polls:
        return "delivering"
    if parts.shows and not parts.polls:
        return "showing this page"
    return "standing by" if report.lease is None else "polling"


def days_old(day: date | None, market: Market, now: datetime) -> str:
    """Return how many days ago a trading day was, in its market's time zone."""
    if day is None:
        return ABSENT
    return f"{(now.astimezone(market.zone).date() - day).days} d"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the page's events: one entry, or a run of `count` backfilled days."""

    id: str
    at: datetime
    code: str
    kind: str
    day: str
    shares: Shares | None
    percent: float | None
    is_below: bool = False
    count: int = 1
    name: str | None = None
    market: Market | None = None

    @property
    def against(self) -> str:
        """What the change is relative to."""
        return _AGAINST.get(self.kind, "the report before")


_AGAINST: Final = {
    "revised": "the figure it replaces",
    "restated": "the figure it replaces",
}


def lines(entries: Iterable[Entry]) -> list[Line]:
    """Return one line for each event, newest first; a symbol's backfilled days share a line."""
    known = [line for entry in entries if (line := _line(entry)) is not None]
    found = []
    for _, run in groupby(reversed(known), key=_together):
        newest, *others = run
        found.append(replace(newest, count=1 + len(others)))
    return found


def _together(line: Line) -> tuple[str, str]:
    return (line.code, "") if line.kind == "backfilled" else (line.code, line.id)


def _line(entry: Entry) -> Line | None:
    """Read one entry; None if it is not an event of this service."""
    event = decode(entry.id, entry.fields)
    if not isinstance(event, StreamEvent):
        return None
    is_below = is_below_threshold(event.record)
    return Line(
        entry.id,
        event.observed_at,
        event.code,
        event.kind,
        str(event.trading_day),
        event.record.shares,
        None if is_below or event.change is None else event.change.percent,
        is_below,
        name=event.name,
        market=event.market,
    )


def plural(count: int, words: Sequence[str]) -> str:
    """Return `1 symbol`, `2 symbols`."""
    return f"{count:,} {words[0] if count == 1 else words[1]}"
