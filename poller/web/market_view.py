"""The state of each market's reports as the page shows it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from poller.markets import Market, all_markets
from poller.schedule.calendar import expected_after, release_of, released_by
from poller.telemetry.status import Phase, ReleaseState
from poller.web.watchlist_view import WatchlistRow

_STALE_REPORTS: Final = 3  # a symbol that missed this many releases no longer counts in a sweep


@dataclass(frozen=True, slots=True)
class MarketView:
    """The state of a market's reports.

    Attributes:
        symbols: How many are watched.
        day: The newest reported day.
        wanted: How many symbols should report it.
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

    def is_late(self, row: WatchlistRow) -> bool:
        """Return whether a row still shows an older day, outside a release in progress."""
        if self.phase == "sweeping" or row.day is None or self.day is None:
            return False
        return row.day < self.day


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
    out = released_by(market, now, _STALE_REPORTS)
    days = [row.day for row in rows if row.day is not None]
    day = max(days, default=None)
    oldest = min(out[-1], day) if day is not None else out[-1]
    wanted, covered = sum(each >= oldest for each in days), days.count(day) if day else 0
    phase: Phase = "watching"
    if state is not None and _is_before(state.day, day):
        phase = "sweeping"  # the rows know of a release that the poller has not reported yet
    elif state is not None:
        phase = state.phase
        if state.phase != "watching" and state.wanted:
            wanted, covered = state.wanted, state.covered
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
        probed_at=None if state is None else state.next_at,
    )


def _is_before(one: date | None, other: date | None) -> bool:
    return one is not None and other is not None and one < other


def _behind(rows: Sequence[WatchlistRow], newest: date | None) -> list[WatchlistRow]:
    """Return the rows that show an older day than the newest, latest day first."""
    dated = [(row.day, row) for row in rows if row.day is not None and row.day != newest]
    return [row for _, row in sorted(dated, key=lambda one: one[0], reverse=True)]
