"""The watchlist as the page shows it: one row per symbol, sorted, filtered, paged. Pure."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Any, Final, Literal

from poller.detect.change import Timeline, move
from poller.markets import (
    Market,
    Record,
    Shares,
    is_below_threshold,
)
from poller.model import Code, Vintage, isoformat, market_of
from poller.schedule.report import MISSED
from poller.web.histories import LARGEST, names_of, readable

REPORTS_DRAWN: Final = 26
"""Reports in a sparkline: half a year of weekly ones, a year of half-monthly ones."""

PER_PAGE: Final = 100
MOST_PER_PAGE: Final = 500

RANKED_FROM: Final = 8
"""Reports: a percentile of fewer says nothing."""

PERCENT: Final = r"[0-9]{1,6}(\.[0-9]{1,4})?"
"""The pattern of a filter by percent."""

ONLY: Final = {
    "": "all symbols",
    "new": "new since yesterday",
    "extreme": "at a high or low of the year",
    "silent": "without a report",
    "trouble": "in trouble",
}
"""Which symbols of the watchlist to show, in words."""

Extreme = Literal["high", "low"]

_ABSENT: Final = "-"
_READ: Final = 56  # reports parsed of a symbol: a year of weekly ones
_YEAR: Final = timedelta(days=365)
_LEAST_SPAN: Final = timedelta(days=180)  # of the reports before a high or low of the year
_NEW: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class WatchlistRow:
    """A symbol's row of the watchlist. Unknown figures are None.

    Attributes:
        day: The trading day of its last report.
        change: Shares against the report before, with a split between the two taken out; None if
            one of the two is below the threshold.
        percent: The same in percent of the report before.
        is_below: Whether the last report is below the reporting threshold, so that its 0 is no
            figure.
        cover_sign: What to write before days to cover that are at a bound.
        extreme: Whether its shares are above, or below, all reports of the 365 days before.
        volume: Shares traded a day on average, where the market reports it.
        percentile: How much of the reports of the last 365 days, itself included, are not above its
            shares, in percent; None with few of them.
        before: The trading days of the reports before its last, up to three, newest first.
        reports: The shares of the last reports, oldest first, separated by commas: as numbers, they
            would take most of the page's memory.
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
    name: str | None = None
    days_to_cover: float | None = None
    cover_sign: str = ""
    extreme: Extreme | None = None
    volume: int | None = None
    percentile: float | None = None
    before: tuple[date, ...] = ()

    @property
    def days(self) -> tuple[date, ...]:
        """The trading days of its last reports, oldest first."""
        return (*reversed(self.before), *([self.day] if self.day else ()))

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
        """Return the row as the API shows it."""
        return {
            "code": self.code,
            "name": self.name,
            "market": str(self.market),
            "trading_day": None if self.day is None else str(self.day),
            "shares": self.shares,
            "ratio": self.ratio,
            "change": self.change,
            "percent": None if self.percent is None else round(self.percent, 4),
            "days_to_cover": self.days_to_cover,
            "average_volume": self.volume,
            "year_percentile": None if self.percentile is None else round(self.percentile, 1),
            "year": self.extreme,
            "revision": self.revision,
            "observed_at": None if self.observed_at is None else isoformat(self.observed_at),
        }


def figure(record: Record) -> Shares | None:
    """Return the shares; None if they are below the threshold, absent, or out of range."""
    shares = record.shares
    if is_below_threshold(record) or shares is None or not 0 <= shares < LARGEST:
        return None
    return shares


def series_rows(vintages: Iterable[Vintage]) -> list[dict[str, Any]]:
    """Return the figures that all markets share, a row a day; shares below the threshold: None."""
    return [
        {
            "trading_day": str(vintage.day),
            "shares": figure(vintage.record),
            "ratio": vintage.record.ratio,
            "days_to_cover": vintage.record.days_to_cover,
            "close_price": vintage.record.close_price,
            "revision": vintage.revision,
        }
        for vintage in vintages
    ]


def row_of(code: Code, history: Mapping[str, str], name: str | None = None) -> WatchlistRow:
    """Return the row of a symbol from its history hash; an unreadable day counts as absent."""
    market = market_of(code)
    readings = (readable(market, name, history[name]) for name in names_of(history))
    newest = list(islice(filter(None, readings), _READ))
    if not newest:
        return WatchlistRow(code, name=name)
    last = newest[0]
    shares, bound = figure(last.record), last.record.cover_bound
    timeline = Timeline({vintage.day: vintage.record for vintage in newest})
    change = percent = None
    if shares is not None and len(newest) > 1 and figure(newest[1].record) is not None:
        change, percent = move(newest[1].record, last.record, timeline.split_before(last.day))
    extreme, percentile = (None, None) if shares is None else _position(newest)
    return WatchlistRow(
        code,
        last.day,
        last.record.shares,
        last.record.ratio,
        change,
        percent,
        last.revision,
        last.observed_at,
        ",".join(_written(vintage.record) for vintage in reversed(newest[:REPORTS_DRAWN])),
        is_below_threshold(last.record),
        name,
        last.record.days_to_cover,
        "" if bound is None else bound.sign,
        extreme,
        last.record.average_volume,
        percentile,
        tuple(vintage.day for vintage in newest[1 : 1 + MISSED]),
    )


def _position(newest: Sequence[Vintage]) -> tuple[Extreme | None, float | None]:
    """Return whether the newest figure is at an end of the year's, and its percentile in them."""
    last = newest[0].day
    year = {each.day: each.record for each in newest if last - each.day <= _YEAR}
    if last - newest[-1].day < _LEAST_SPAN:
        return None, None
    rank = Timeline(year).ranks([last])[last]
    extreme: Extreme | None = "high" if rank.year_high else "low" if rank.year_low else None
    percentile = None if rank.known < RANKED_FROM else 100 * rank.not_above / rank.known
    return extreme, percentile


def _number(text: str) -> Shares:
    return int(text) if text.isdigit() else float(text)


def _written(record: Record) -> str:
    shares = figure(record)
    return _ABSENT if shares is None else str(shares)


@dataclass(frozen=True, slots=True)
class View:
    """What part of the watchlist to show.

    Attributes:
        text: Only symbols whose code or name contains this.
        market: Only this market; None: all.
        sort: A key of `SORTS`.
        descending: Whether the largest comes first.
        page: Counted from 1.
        moved: Only symbols that moved by more than so many percent, as text; "": all.
        only: A key of `ONLY`.
        size: How many rows of it are on a page.
        usual: The sort that needs no parameter, with a minus if the largest comes first.
    """

    text: str = ""
    market: Market | None = None
    sort: str = "code"
    descending: bool = False
    page: int = 1
    moved: str = ""
    only: str = ""
    usual: str = "code"
    size: int = PER_PAGE

    @property
    def is_filtered(self) -> bool:
        """Whether it leaves out any symbol."""
        return bool(self.text or self.market or self.moved or self.only)

    def shows(self, row: WatchlistRow, troubled: Collection[Code], now: datetime) -> bool:
        """Return whether a row belongs to this view. `troubled`: the symbols in trouble."""
        text = self.text.strip().upper()
        return (
            (text in row.code or text in (row.name or "").upper())
            and (self.market is None or row.market is self.market)
            and (not self.moved or abs(row.percent or 0) > float(self.moved))
            and self._is_wanted(row, troubled, now)
        )

    def _is_wanted(self, row: WatchlistRow, troubled: Collection[Code], now: datetime) -> bool:
        match self.only:
            case "new":
                return row.observed_at is not None and now - row.observed_at < _NEW
            case "extreme":
                return row.extreme is not None
            case "silent":
                return row.day is None
            case "trouble":
                return row.code in troubled
            case _:
                return True

    def with_sort(self, sort: str) -> "View":
        """Return the view after a click on a column's head: figures start with the largest."""
        down = not self.descending if sort == self.sort else sort != "code"
        return replace(self, sort=sort, descending=down, page=1)

    def query(self, page: int | None = None) -> dict[str, str]:
        """Return the query parameters of this view; defaults are left out."""
        asked = {
            "q": self.text,
            "market": "" if self.market is None else self.market.name,
            "sort": f"-{self.sort}" if self.descending else self.sort,
            "moved": self.moved,
            "only": self.only,
            "size": str(self.size),
            "page": str(page or self.page),
        }
        usual = {"sort": self.usual, "size": str(PER_PAGE), "page": "1"}
        defaults = dict.fromkeys(asked, "") | usual
        return {name: text for name, text in asked.items() if text != defaults[name]}


SORTS: Final[Mapping[str, Callable[[WatchlistRow], Any]]] = {
    "code": lambda row: row.code,
    "day": lambda row: row.day,
    "shares": lambda row: row.shares,
    "ratio": lambda row: row.ratio,
    "days_to_cover": lambda row: row.days_to_cover,
    "volume": lambda row: row.volume,
    "percentile": lambda row: row.percentile,
    "change": lambda row: row.change,
    "moved": lambda row: None if row.change is None else abs(row.change),
    "percent": lambda row: row.percent,
    "observed": lambda row: row.observed_at,
}


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the rows of a view. `found`: rows on all pages."""

    rows: tuple[WatchlistRow, ...]
    found: int
    page: int
    pages: int


def listed(
    rows: Sequence[WatchlistRow], view: View, troubled: Collection[Code], now: datetime
) -> Listing:
    """Return the page of `rows` that a view asks for; unknown values come last.

    `troubled`: the symbols in trouble. `now`: aware.
    """
    chosen = [row for row in rows if view.shows(row, troubled, now)]
    key = SORTS[view.sort]
    chosen.sort(key=lambda row: row.code)
    known = [row for row in chosen if key(row) is not None]
    known.sort(key=key, reverse=view.descending)
    chosen = known + [row for row in chosen if key(row) is None]
    pages = max(1, -(-len(chosen) // view.size))
    page = min(max(view.page, 1), pages)
    start = (page - 1) * view.size
    return Listing(tuple(chosen[start : start + view.size]), len(chosen), page, pages)
