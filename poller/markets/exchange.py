"""The scheduled trading days of exchanges. Pure: the date is an argument."""

import sys
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, Final

_PACKAGES: Final = ("holidays", "holidays.countries", "holidays.financial")
_DAY: Final = timedelta(days=1)
FRIDAY: Final = 4


def _import_alone(name: str, *packages: str) -> ModuleType:
    """Import a module without running the `__init__` of `packages`, its parents, outermost first.

    `holidays.countries` imports the calendars of 250 countries: 9 MiB, and a sixth of the start
    time of a service. A later import of one of these packages gets all of it.
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


@dataclass(frozen=True)
class Exchange:
    """The scheduled trading days of an exchange.

    Attributes:
        closures: A class of the package `holidays`: called with years, a mapping of closed days.
    """

    closures: Any

    @classmethod
    def known(cls, module: str, name: str) -> "Exchange":
        """Return the exchange that a module of `holidays.financial` calls `name`."""
        return cls(getattr(_import_alone(f"holidays.financial.{module}", *_PACKAGES), name))

    def knows(self, year: int) -> bool:
        """Return whether any holiday of that year is known; if not, every weekday trades."""
        return bool(_scheduled_holidays(self, year))

    def is_trading_day(self, day: date) -> bool:
        """Return whether the exchange is scheduled to trade; half days count."""
        return day.weekday() <= FRIDAY and day not in _scheduled_holidays(self, day.year)

    def at_or_before(self, day: date) -> date:
        """Return the last trading day up to `day`."""
        while not self.is_trading_day(day):
            day -= _DAY
        return day

    def after(self, day: date, trading_days: int) -> date:
        """Return the day `trading_days` trading days later."""
        while trading_days:
            day += _DAY
            trading_days -= self.is_trading_day(day)
        return day


@cache
def _scheduled_holidays(exchange: Exchange, year: int) -> frozenset[date]:
    """Return the holidays known in advance: typhoons and mourning do not move a reporting day."""
    closures = exchange.closures(years=year)
    sudden = getattr(closures, "special_public_holidays", {}).get(year, ())
    # a single one is a bare (month, day, name), several are a tuple of them
    listed = [sudden] if sudden and isinstance(sudden[0], int) else sudden
    unscheduled = {date(year, int(entry[0]), int(entry[1])) for entry in listed}
    return frozenset(day for day in closures if day not in unscheduled)
