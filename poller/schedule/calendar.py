"""Reporting days and release windows, by rule. Pure: the date is an argument.

The rules are each market's own, checked against the days it has published. The calendar chooses
between polling intervals and never decides what is new: a wrong calendar costs latency, never
correctness.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from itertools import takewhile
from typing import Final

from poller.markets import Market

_DAY: Final = timedelta(days=1)

_FIRST_DAY, _LAST_DAY = date(1900, 1, 1), date(9999, 1, 1)
"""Days outside, which only a typing error names, are clamped: `date` itself ends soon after."""


@dataclass(frozen=True, slots=True)
class Release:
    """A reporting day and the earliest instant (aware, market's zone) its figures are expected."""

    day: date
    opens: datetime


def zone_word(moment: datetime) -> str:
    """Return what the zone of an aware moment is called then: `HKT`, `UTC+03`."""
    word = f"{moment:%Z}"
    return word if word[:1].isalpha() else f"UTC{word}"


def knows(market: Market, year: int) -> bool:
    """Return whether any holiday of that year is known; if not, all weekdays are trading days."""
    return market.exchange.knows(year)


@cache
def is_trading_day(market: Market, day: date) -> bool:
    """Return whether the exchange was scheduled to trade; half days count."""
    return market.exchange.is_trading_day(day)


def _bounded(day: date) -> date:
    return min(max(day, _FIRST_DAY), _LAST_DAY)


def reporting_days(market: Market, start: date) -> Iterator[date]:
    """Yield, without end, the reporting days from `start` on, oldest first."""
    return market.reporting_days(_bounded(start))


@cache
def release_of(market: Market, day: date) -> Release:
    """Return when the figures of reporting day `day` are expected at the earliest."""
    day = _bounded(day)
    published = market.exchange.at_or_before(market.due(day))
    return Release(day, datetime.combine(published, market.opening, market.zone))


@cache
def expected_after(market: Market, watermark: date) -> Release:
    """Return the release that brings the first reporting day after `watermark`."""
    return release_of(market, next(reporting_days(market, _bounded(watermark) + _DAY)))


def released_by(market: Market, now: datetime) -> date:
    """Return the last reporting day whose window is open at `now`."""
    start = now.astimezone(market.zone).date() - 3 * market.longest_gap
    days = reporting_days(market, start)
    return max(takewhile(lambda day: release_of(market, day).opens <= now, days))


def missing_days(market: Market, known: Collection[date], now: datetime) -> tuple[date, ...]:
    """Return the reporting days since the oldest known one that `known` lacks, oldest first.

    A day from before the market reported does not count as known. A day whose release window is not
    open yet at `now` (aware) is not missing; nor is anything where nothing is known.
    """
    oldest = min((day for day in known if day >= market.first_day), default=None)
    if oldest is None:
        return ()
    expected = takewhile(
        lambda day: release_of(market, day).opens <= now, reporting_days(market, oldest)
    )
    return tuple(day for day in expected if day not in known)
