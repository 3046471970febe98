"""Reporting days and release windows, by rule. Pure: the date is an argument.

Sources: the SFC's weekly "aggregated reportable short positions" and FINRA Rule 4560, checked
against the days each has published. The calendar chooses between polling intervals and never
decides what is new: a wrong calendar costs latency, never correctness.
"""

import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from itertools import takewhile
from types import ModuleType
from typing import Any, Final

from poller.detect.impossible import FIRST_DAYS
from poller.model import Market


def _import_alone(name: str, *packages: str) -> ModuleType:
    """Import a module without running the `__init__` of these packages, its parents.

    That of `holidays.countries` imports the calendars of 250 countries: 9 MiB, and a sixth of the
    time in which a service starts. `packages`: outermost first; whoever imports one of them later
    gets it whole.
    """
    hollow: dict[str, ModuleType] = {}
    try:
        for package in packages:
            spec = None if package in sys.modules else find_spec(package)
            if spec is not None:
                hollow[package] = sys.modules[package] = module_from_spec(spec)
        return import_module(name)
    finally:
        for package, stand_in in hollow.items():
            if sys.modules.get(package) is stand_in:
                del sys.modules[package]


_PACKAGES: Final = ("holidays", "holidays.countries", "holidays.financial")
_EXCHANGES: Final[Mapping[Market, Any]] = {  # classes of day → name, made per year
    Market.HK: _import_alone("holidays.financial.hong_kong_stock_exchange", *_PACKAGES).XHKG,
    Market.US: _import_alone("holidays.financial.ny_stock_exchange", *_PACKAGES).XNYS,
}
_OPENING: Final = {Market.HK: time(9), Market.US: time(16)}
_DAY: Final = timedelta(days=1)
_FRIDAY: Final = 4
_MID_MONTH: Final = 15
_US_BUSINESS_DAYS_TO_RELEASE: Final = 7

_FIRST_DAY, _LAST_DAY = date(1900, 1, 1), date(9999, 1, 1)
"""Days beyond them, which only a slip names, count as these: `date` itself ends soon after."""


@dataclass(frozen=True, slots=True)
class Release:
    """A reporting day and the earliest instant (aware, market's zone) its figures are expected."""

    day: date
    opens: datetime


@cache
def _scheduled_holidays(market: Market, year: int) -> frozenset[date]:
    """Holidays known in advance. Typhoons and days of mourning do not move a reporting day."""
    closures = _EXCHANGES[market](years=year)
    sudden = getattr(closures, "special_public_holidays", {}).get(year, ())
    # one sudden closure is a bare (month, day, name), several are a tuple of those
    listed = [sudden] if sudden and isinstance(sudden[0], int) else sudden
    unscheduled = {date(year, int(entry[0]), int(entry[1])) for entry in listed}
    return frozenset(day for day in closures if day not in unscheduled)


def knows(market: Market, year: int) -> bool:
    """Tell whether any holiday of that year is known; without, every weekday counts as trading."""
    return bool(_scheduled_holidays(market, year))


@cache
def is_trading_day(market: Market, day: date) -> bool:
    """Tell whether the exchange was scheduled to trade; half days count."""
    return day.weekday() <= _FRIDAY and day not in _scheduled_holidays(market, day.year)


def _at_or_before(market: Market, day: date) -> date:
    while not is_trading_day(market, day):
        day -= _DAY
    return day


def _after(market: Market, day: date, trading_days: int) -> date:
    while trading_days:
        day += _DAY
        trading_days -= is_trading_day(market, day)
    return day


def _hk_reporting_days(start: date) -> Iterator[date]:
    """Yield the last scheduled trading day of each ISO week; a week without one has none."""
    friday = start - timedelta(days=start.weekday() - _FRIDAY)
    while True:
        day = _at_or_before(Market.HK, friday)
        if day > friday - timedelta(days=5) and day >= start:
            yield day
        friday += timedelta(days=7)


def _us_reporting_days(start: date) -> Iterator[date]:
    """Yield the 15th and the last day of each month, each moved back to a business day."""
    month = start.replace(day=1)
    while True:
        following = (month + timedelta(days=31)).replace(day=1)
        for nominal in (month.replace(day=_MID_MONTH), following - _DAY):
            day = _at_or_before(Market.US, nominal)
            if day >= start:
                yield day
        month = following


def _bounded(day: date) -> date:
    return min(max(day, _FIRST_DAY), _LAST_DAY)


def reporting_days(market: Market, start: date) -> Iterator[date]:
    """Yield, without end, the reporting days from `start` on, oldest first."""
    start = _bounded(start)
    return _hk_reporting_days(start) if market is Market.HK else _us_reporting_days(start)


@cache
def release_of(market: Market, day: date) -> Release:
    """Return when the figures of reporting day `day` are expected at the earliest."""
    day = _bounded(day)
    if market is Market.HK:
        published = _at_or_before(market, day + timedelta(days=7 + _FRIDAY - day.weekday()))
    else:
        published = _after(market, day, _US_BUSINESS_DAYS_TO_RELEASE)
    return Release(day, datetime.combine(published, _OPENING[market], market.zone))


@cache
def expected_after(market: Market, watermark: date) -> Release:
    """Return the release that brings the first reporting day after `watermark`."""
    return release_of(market, next(reporting_days(market, _bounded(watermark) + _DAY)))


def released_by(market: Market, now: datetime, count: int) -> tuple[date, ...]:
    """Return the last `count` reporting days whose window is open at `now`, newest first."""
    start = now.astimezone(market.zone).date() - timedelta(days=31 + 16 * count)
    days: list[date] = []
    for day in reporting_days(market, start):
        if release_of(market, day).opens > now:
            return tuple(reversed(days[-count:])) if count else ()
        days.append(day)
    return ()


def missing_days(market: Market, known: Collection[date], now: datetime) -> tuple[date, ...]:
    """Return the reporting days since the oldest known one that `known` lacks, oldest first.

    A day from before the market reported does not count as known. A day whose release window is not
    open yet at `now` (aware) is not missing; nor is anything where nothing is known.
    """
    oldest = min((day for day in known if day >= FIRST_DAYS[market]), default=None)
    if oldest is None:
        return ()
    expected = takewhile(
        lambda day: release_of(market, day).opens <= now, reporting_days(market, oldest)
    )
    return tuple(day for day in expected if day not in known)
