"""What the page opens with: reports that have just come, and releases in progress. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from heapq import nsmallest
from typing import Final

from poller.events import StreamNotice, decode
from poller.schedule.notice import Detected
from poller.store.store import Entry
from poller.web.market_view import MarketView
from poller.web.service_status import ServiceStatus
from poller.web.watchlist_view import WatchlistRow

FRESH: Final = timedelta(hours=24)
"""How long after its first event a report opens the page."""

MOVERS: Final = 10

_LONGEST: Final = 7 * 86400  # seconds; more was reported by another program


@dataclass(frozen=True, slots=True)
class FreshReport:
    """A report that is fresh, or whose release is in progress.

    Attributes:
        first_seen: When the first symbol showed it, aware; None if the notice of it is gone.
        movers: Those that moved most by shares, the largest first.
        time_left: How long the budget takes at least for those that are missing; None unless the
            release is in progress.
    """

    view: MarketView
    first_seen: datetime | None
    movers: tuple[WatchlistRow, ...]
    time_left: timedelta | None

    @property
    def missing(self) -> int:
        """How many symbols should show the report and do not."""
        return max(self.view.wanted - self.view.covered, 0)


def first_seen(entries: Iterable[Entry]) -> dict[tuple[str, date], datetime]:
    """Return when each report was first seen: (market, day) → moment. `entries`: of releases."""
    notices = (decode(entry.id, entry.fields) for entry in entries)
    return {
        (each.market.name, each.trading_day): each.observed_at
        for each in notices
        if isinstance(each, StreamNotice) and each.type == Detected.type
    }


def fresh_reports(service: ServiceStatus, rows: Sequence[WatchlistRow]) -> tuple[FreshReport, ...]:
    """Return the reports to open the page with, one of a market at most. `rows`: all watched."""
    found = []
    for view in service.markets:
        if view.day is None:
            continue
        seen = service.first_seen.get((view.market.name, view.day))
        is_fresh = seen is not None and service.at - seen < FRESH
        if is_fresh or view.in_progress:
            movers = _movers(rows, view)
            found.append(FreshReport(view, seen, movers, time_left(service, view)))
    return tuple(found)


def time_left(service: ServiceStatus, view: MarketView) -> timedelta | None:
    """See `FreshReport`."""
    rate = sum(each.limit / each.period for each in service.budgets if each.period > 0)
    if not view.in_progress or rate <= 0:
        return None
    seconds = (view.wanted - view.covered) / rate
    return timedelta(seconds=round(seconds)) if seconds < _LONGEST else None


def _movers(rows: Sequence[WatchlistRow], view: MarketView) -> tuple[WatchlistRow, ...]:
    moved = [
        (-abs(row.change), row.code, row)
        for row in rows
        if row.market is view.market and row.day == view.day and row.change
    ]
    return tuple(row for *_, row in nsmallest(MOVERS, moved, key=lambda each: each[:2]))
