"""The state of each market's reports as the page shows it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from poller.markets import Market, all_markets
from poller.model import Code
from poller.schedule.calendar import expected_after, release_of, released_by
from poller.schedule.report import coverage
from poller.telemetry.status import Phase, ReleaseState
from poller.web.watchlist_view import WatchlistRow


@dataclass(frozen=True, slots=True)
class MarketView:
    """The state of a market's reports.

    Attributes:
        symbols: How many are watched.
        day: The newest reported day.
        wanted: How many symbols should report it, by `coverage`.
        covered: How many of them have.
        phase: Of the market's release.
        expected: The newest day that should be out by the calendar.
        due_since: When the oldest missing release was expected, aware; None if none is missing.
        next_day: The reporting day of the release after `day`.
        next_at: When that is expected, aware.
        behind: The wanted symbols that still show an older day.
        probed_at: When one of its symbols is probed next, aware; None if that is not known.
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
    behind: tuple[WatchlistRow, ...] = ()
    probed_at: datetime | None = None

    @property
    def in_progress(self) -> bool:
        """Whether a release is being read and some symbols still lack it."""
        return self.phase == "sweeping" and self.covered < self.wanted

    @property
    def late(self) -> tuple[WatchlistRow, ...]:
        """Those behind, unless a release is in progress."""
        return () if self.phase == "sweeping" else self.behind


def markets(
    rows: Sequence[WatchlistRow], states: Mapping[str, ReleaseState], now: datetime
) -> tuple[MarketView, ...]:
    """Return the watched markets. `states`: what the active poller reports of them."""
    views = []
    for market in all_markets():
        mine = [row for row in rows if row.market is market]
        if mine:
            views.append(_market(market, mine, states.get(market.name), now))
    return tuple(views)


def story_time(rows: Sequence[WatchlistRow], now: datetime) -> datetime:
    """Return a simulation's time for the calendar: when its last release was expected."""
    opened = [release_of(row.market, row.day).opens for row in rows if row.day is not None]
    return max(opened, default=now)


def _market(
    market: Market, rows: Sequence[WatchlistRow], state: ReleaseState | None, now: datetime
) -> MarketView:
    expected = released_by(market, now)
    known = {row.code: row.days for row in rows if row.day is not None}
    day = max((days[-1] for days in known.values()), default=None)
    covered = None if day is None else coverage(day, known, [row.code for row in rows])
    phase: Phase = "watching"
    if state is not None:
        # rows that are newer: a release that the poller has not reported yet
        phase = "sweeping" if _is_before(state.day, day) else state.phase
    following = expected_after(market, day) if day is not None else release_of(market, expected)
    return MarketView(
        market=market,
        symbols=len(rows),
        day=day,
        wanted=0 if covered is None else covered.expected,
        covered=0 if covered is None else len(covered.shown),
        phase=phase,
        expected=expected,
        due_since=following.opens if following.opens <= now else None,
        next_day=following.day,
        next_at=following.opens,
        behind=() if covered is None else _behind(rows, covered.missing),
        probed_at=None if state is None else state.next_at,
    )


def _is_before(one: date | None, other: date | None) -> bool:
    return one is not None and other is not None and one < other


def _behind(rows: Sequence[WatchlistRow], missing: Mapping[Code, date]) -> tuple[WatchlistRow, ...]:
    """Return the rows of the symbols that are missing, latest day first."""
    found = [row for row in rows if row.code in missing]
    return tuple(sorted(found, key=lambda row: missing[row.code], reverse=True))
