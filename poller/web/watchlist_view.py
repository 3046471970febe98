"""The watchlist as a page shows it: one row a symbol, sorted, filtered, paged. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice
from typing import Any, Final

from poller.markets import Market, Record, Shares, all_markets, difference
from poller.model import Code, isoformat, market_of
from poller.schedule.calendar import expected_after, release_of, released_by
from poller.telemetry.status import Phase, ReleaseState
from poller.web.histories import LARGEST, names_of, readable

REPORTS_DRAWN: Final = 26
"""Reports in a sparkline: half a year of weeks, a year of half months."""

PER_PAGE: Final = 100

_ABSENT: Final = "-"
_STALE_REPORTS: Final = 3  # a symbol that missed so many releases no longer counts in a sweep


@dataclass(frozen=True, slots=True)
class Row:
    """What the watchlist tells of one symbol. Figures are None where they are not known.

    `change`: shares against the report before; `percent`: the same in percent of that one; neither
    is known where one of the two is below the reporting threshold. `is_below`: the last one is, and
    its 0 is no figure. `reports`: the shares of the last ones, oldest first, as `figure` has them,
    between commas; as numbers, they would be most of what the page keeps of ten thousand symbols.
    """

    code: Code
    day: date | None = None
    shares: Shares | None = None
    ratio: float | None = None
    change: Shares | None = None
    percent: float | None = None
    revision: int = 0
    observed_at: datetime | None = None
    reports: str = ""
    is_below: bool = False

    @property
    def drawn(self) -> tuple[Shares | None, ...]:
        """The shares of the last reports, oldest first; None where a figure is absent."""
        texts = self.reports.split(",") if self.reports else ()
        return tuple(None if text == _ABSENT else _number(text) for text in texts)

    @property
    def market(self) -> Market:
        """The market the symbol belongs to."""
        return market_of(self.code)

    def columns(self) -> dict[str, Any]:
        """Return what the API tells of the row."""
        return {
            "code": self.code,
            "market": str(self.market),
            "trading_day": None if self.day is None else str(self.day),
            "shares": self.shares,
            "ratio": self.ratio,
            "change": self.change,
            "percent": None if self.percent is None else round(self.percent, 4),
            "revision": self.revision,
            "observed_at": None if self.observed_at is None else isoformat(self.observed_at),
        }


def is_below(record: Record) -> bool:
    """Return whether so little was short that it need not be reported: a 0 that is not none."""
    return "below_threshold" in record.flags


def figure(record: Record) -> Shares | None:
    """Return the shares, None where they are below the reporting threshold, absent, or none."""
    shares = record.shares
    if is_below(record) or shares is None or not 0 <= shares < LARGEST:
        return None
    return shares


def row_of(code: Code, history: Mapping[str, str]) -> Row:
    """Return the row of a symbol from its history hash; an unreadable day counts as absent."""
    market = market_of(code)
    readings = (readable(market, name, history[name]) for name in names_of(history))
    newest = list(islice(filter(None, readings), REPORTS_DRAWN))
    if not newest:
        return Row(code)
    last = newest[0]
    shares = figure(last.record)
    before = figure(newest[1].record) if len(newest) > 1 else None
    change = difference(shares, before)
    return Row(
        code,
        last.day,
        last.record.shares,
        last.record.ratio,
        change,
        None if change is None or not before else 100 * change / before,
        last.revision,
        last.observed_at,
        ",".join(_written(vintage.record) for vintage in reversed(newest)),
        is_below(last.record),
    )


def _number(text: str) -> Shares:
    return int(text) if text.isdigit() else float(text)


def _written(record: Record) -> str:
    shares = figure(record)
    return _ABSENT if shares is None else str(shares)


@dataclass(frozen=True, slots=True)
class View:
    """What of the watchlist is asked for. `page` counts from 1."""

    text: str = ""
    market: Market | None = None
    sort: str = "code"
    descending: bool = False
    page: int = 1

    def with_sort(self, sort: str) -> "View":
        """Return the view a click on a column's head asks for: figures first by the largest."""
        down = not self.descending if sort == self.sort else sort != "code"
        return View(self.text, self.market, sort, down)

    def query(self, page: int | None = None) -> dict[str, str]:
        """Return the parameters that ask for this view; defaults are left out."""
        asked = {
            "q": self.text,
            "market": "" if self.market is None else self.market.name,
            "sort": f"-{self.sort}" if self.descending else self.sort,
            "page": str(page or self.page),
        }
        defaults = {"q": "", "market": "", "sort": "code", "page": "1"}
        return {name: text for name, text in asked.items() if text != defaults[name]}


SORTS: Final[Mapping[str, Callable[[Row], Any]]] = {
    "code": lambda row: row.code,
    "day": lambda row: row.day,
    "shares": lambda row: row.shares,
    "ratio": lambda row: row.ratio,
    "change": lambda row: row.change,
    "percent": lambda row: row.percent,
    "observed": lambda row: row.observed_at,
}


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the rows a view asks for. `found`: rows on all pages."""

    rows: tuple[Row, ...]
    found: int
    page: int
    pages: int


def listed(rows: Sequence[Row], view: View) -> Listing:
    """Return the page of `rows` that a view asks for; what is not known comes last."""
    text = view.text.strip().upper()
    chosen = [
        row
        for row in rows
        if text in row.code and (view.market is None or row.market is view.market)
    ]
    key = SORTS[view.sort]
    chosen.sort(key=lambda row: row.code)
    known = [row for row in chosen if key(row) is not None]
    known.sort(key=key, reverse=view.descending)
    chosen = known + [row for row in chosen if key(row) is None]
    pages = max(1, -(-len(chosen) // PER_PAGE))
    page = min(max(view.page, 1), pages)
    start = (page - 1) * PER_PAGE
    return Listing(tuple(chosen[start : start + PER_PAGE]), len(chosen), page, pages)


@dataclass(frozen=True, slots=True)
class MarketView:
    """Where a market's reports stand. `covered` of `wanted` symbols show `day`, the newest one.

    `expected`: the newest day whose figures the calendar takes to be out. `due_since`: when the
    oldest one still missing was expected, None when nothing is. `next_day`, `next_at`: the release
    after `day`. `behind`: the wanted that still show an older day.
    """

    market: Market
    symbols: int
    day: date | None
    wanted: int
    covered: int
    phase: Phase
    expected: date
    due_since: datetime | None
    next_day: date
    next_at: datetime
    behind: tuple[Row, ...] = ()

    def is_late(self, row: Row) -> bool:
        """Return whether a row stopped at an older day; while a release comes in, nobody has."""
        in_progress = self.phase == "sweeping"
        return not in_progress and None not in (row.day, self.day) and row.day != self.day


def markets(
    rows: Sequence[Row], told: Mapping[str, ReleaseState], now: datetime
) -> tuple[MarketView, ...]:
    """Return the markets that are watched. `told`: what the active poller says of them."""
    views = []
    for market in all_markets():
        mine = [row for row in rows if row.market is market]
        if mine:
            views.append(_market(market, mine, told.get(market.name), now))
    return tuple(views)


def story_time(rows: Sequence[Row], now: datetime) -> datetime:
    """Return what time the calendar shows in a simulation: when its last release was expected."""
    opened = [release_of(row.market, row.day).opens for row in rows if row.day is not None]
    return max(opened, default=now)


def _market(
    market: Market, rows: Sequence[Row], told: ReleaseState | None, now: datetime
) -> MarketView:
    out = released_by(market, now, _STALE_REPORTS)
    days = [row.day for row in rows if row.day is not None]
    day = max(days, default=None)
    oldest = min(out[-1], day) if day is not None else out[-1]
    wanted, covered = sum(each >= oldest for each in days), days.count(day) if day else 0
    phase: Phase = "watching"
    if told is not None:
        phase = told.phase
        if told.phase != "watching" and told.wanted:
            wanted, covered = told.wanted, told.covered
    following = expected_after(market, day) if day is not None else release_of(market, out[0])
    return MarketView(
        market=market,
        symbols=len(rows),
        day=day,
        wanted=wanted,
        covered=covered,
        phase=phase,
        expected=out[0],
        due_since=following.opens if following.opens <= now else None,
        next_day=following.day,
        next_at=following.opens,
        behind=tuple(_behind(rows, day)[: max(wanted - covered, 0)]),
    )


def _behind(rows: Sequence[Row], newest: date | None) -> list[Row]:
    """Return who reported once and does not show the newest day, who stopped last first."""
    dated = [(row.day, row) for row in rows if row.day is not None and row.day != newest]
    return [row for _, row in sorted(dated, key=lambda one: one[0], reverse=True)]
