"""A season of releases: every day of every symbol, and the instant it appears. Pure.

Lighter than `World`, for weeks in virtual time: instants are plain seconds, rows are arithmetic, a
symbol's rows are made once per release.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import takewhile
from typing import Final
from zlib import crc32

from poller.markets import Figures, Market, Record, all_markets
from poller.model import Code, Page, market_of
from poller.plan.calendar import is_trading_day, release_of, reporting_days
from poller.simulator.series import draw, made_up_codes

PAGE: Final = 10
"""Rows a page."""

_DAY: Final = timedelta(days=1)


class Model(StrEnum):
    """How a season's releases come."""

    SIMULTANEOUS = "simultaneous"  # all symbols at one instant, 0.5 to 4 h into the window
    STAGGERED = "staggered"  # spread over two hours
    EARLY = "early"  # a day before the calendar
    LATE = "late"  # two days after
    HOLIDAY = "holiday"  # where the usual day is a holiday, on the trading day after it
    DAILY = "daily"  # every trading day, in the morning of the next one


@dataclass(frozen=True)
class Rescaling:
    """From `at` (aware) on, `day` of `code` shows `factor` times its shares; day None: all days."""

    code: Code
    at: datetime
    factor: float
    day: date | None = None


@dataclass(frozen=True)
class Season:
    """What OpenD would show, for `weeks` from `began` (aware).

    `made_up`: by the name of a market, how many symbols are made up. `without_rows`: share of them
    that never get a row. `spread`: overrides over how long a staggered release comes. `instants`:
    sets a market's day by hand.
    """

    began: datetime
    weeks: int = 52
    made_up: Mapping[str, int] = field(default_factory=dict)
    seed: int = 1
    model: Model = Model.SIMULTANEOUS
    without_rows: float = 0.0
    spread: timedelta | None = None
    revisions: tuple[Rescaling, ...] = ()
    instants: dict[tuple[Market, date], datetime] = field(default_factory=dict)
    _pages: dict[Code, tuple[tuple[int, int], tuple[Record, ...]]] = field(default_factory=dict)

    @property
    def ends(self) -> datetime:
        """Return when it is over."""
        return self.began + timedelta(weeks=self.weeks)

    @cached_property
    def codes(self) -> tuple[Code, ...]:
        """Every symbol."""
        return made_up_codes(self.seed, self.made_up)

    @cached_property
    def covered(self) -> frozenset[Code]:
        """The symbols that get rows."""
        share = self.without_rows
        return frozenset(c for c in self.codes if draw(self.seed, "covered", c) >= share)

    @cached_property
    def days(self) -> dict[Market, tuple[date, ...]]:
        """The reporting days, oldest first: some before the season, all that appear in it."""
        return {market: tuple(self._days(market)) for market in all_markets()}

    @cached_property
    def releases(self) -> dict[Market, tuple[float, ...]]:
        """When each of `days` begins to appear: seconds after the season began."""
        return {
            market: tuple((self._release(market, day) - self.began).total_seconds() for day in days)
            for market, days in self.days.items()
        }

    def appears(self, code: Code, index: int) -> float:
        """Return when day number `index` of the market appears for a symbol, in seconds."""
        market = market_of(code)
        at = self.releases[market][index]
        if not self._spread:
            return at
        return at + self._spread * draw(self.seed, "spread", code, index)

    def shown(self, code: Code, seconds: float) -> int:
        """Return how many of the market's days a symbol shows at an instant."""
        index = bisect_right(self.releases[market_of(code)], seconds)
        while index and self.appears(code, index - 1) > seconds:
            index -= 1
        return index

    def page(self, code: Code, key: str | None, seconds: float) -> Page:
        """Return a page of a symbol at an instant, newest first."""
        if code not in self.covered:
            return Page((), None)
        rows = self._rows(code, seconds)
        start = int(key) if key else 0
        more = start + PAGE < len(rows)
        return Page(rows[start : start + PAGE], str(start + PAGE) if more else None)

    def _rows(self, code: Code, seconds: float) -> tuple[Record, ...]:
        revised = [one for one in self.revisions if one.code == code and self._past(one, seconds)]
        state = self.shown(code, seconds), len(revised)
        kept = self._pages.get(code)
        if kept is None or kept[0] != state:
            days = self.days[market_of(code)]
            rows = [self._row(code, i, days[i], revised) for i in range(state[0] - 1, -1, -1)]
            self._pages[code] = kept = state, tuple(rows)
        return kept[1]

    def _past(self, revision: Rescaling, seconds: float) -> bool:
        return revision.at <= self.began + timedelta(seconds=seconds)

    def _row(self, code: Code, index: int, day: date, revised: list[Rescaling]) -> Record:
        """Return figures that, as in life, often repeat from one report to the next."""
        level = crc32(f"{self.seed}:{code}".encode())
        moved = crc32(f"{self.seed}:{code}:{index // 2}".encode()) % 20
        shares = round((100_000 + level % 10_000_000) * (1 + moved / 100))
        for revision in revised:
            if revision.day in (None, day):
                shares = round(shares * revision.factor)
        price, ratio = 1 + level % 1000 / 10, round(shares / 1e9, 2)
        figures = Figures(shares, ratio, 100_000, None, price, price)
        return market_of(code).made_up.record(None, day.isoformat(), figures)

    @cached_property
    def _spread(self) -> float:
        if self.spread is not None:
            return self.spread.total_seconds()
        return 7200.0 if self.model is Model.STAGGERED else 0.0

    def _days(self, market: Market) -> list[date]:
        first = self.began.date() - 2 * market.longest_gap - _DAY
        if self.model is Model.DAILY:
            count = (self.ends.date() - first).days
            days = [first + n * _DAY for n in range(count)]
            days = [day for day in days if is_trading_day(market, day)]
        else:
            last = self.ends.date()
            days = list(takewhile(lambda day: day <= last, reporting_days(market, first)))
        return [day for day in days if self._release(market, day) <= self.ends]

    def _release(self, market: Market, day: date) -> datetime:
        if (market, day) in self.instants:
            return self.instants[market, day]
        chance = draw(self.seed, "release", market, day)
        if self.model is Model.DAILY:
            hour = datetime.combine(_working_day(market, day + _DAY), time(9), market.zone)
            return (hour + timedelta(hours=chance)).astimezone(UTC)
        opens = release_of(market, day).opens
        if self.model is Model.HOLIDAY:
            opens = self._after_holiday(market, day, opens)
        shift = {Model.EARLY: -_DAY, Model.LATE: 2 * _DAY}.get(self.model, timedelta())
        return (opens + shift + timedelta(hours=0.5 + 3.5 * chance)).astimezone(UTC)

    def _after_holiday(self, market: Market, day: date, opens: datetime) -> datetime:
        """Move a release from the trading day before a holiday to the one after it."""
        return datetime.combine(_working_day(market, market.due(day)), opens.time(), market.zone)


def _working_day(market: Market, day: date) -> date:
    while not is_trading_day(market, day):
        day += _DAY
    return day
