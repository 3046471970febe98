"""A season: some weeks of a world, and when each day of each symbol appears. Pure."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property

from poller.markets import Market, all_markets
from poller.model import Code, market_of
from poller.simulator.world import World


@dataclass(frozen=True)
class Season:
    """The `weeks` of a world from `began` (aware) on. All seconds are counted from there."""

    world: World
    began: datetime
    weeks: int = 52

    @property
    def ends(self) -> datetime:
        """When it ends, aware."""
        return self.began + timedelta(weeks=self.weeks)

    @property
    def length(self) -> float:
        """Its length in seconds."""
        return (self.ends - self.began).total_seconds()

    @cached_property
    def covered(self) -> tuple[Code, ...]:
        """The symbols that get rows."""
        return tuple(code for code in self.world.codes() if self.world.has_rows(code))

    @cached_property
    def days(self) -> dict[Market, tuple[date, ...]]:
        """The reporting days, oldest first: some before the season, and all that appear in it."""
        return {
            market: tuple(
                day
                for day in self.world.days(market, self.ends.date())
                if self.world.begins(market, day) <= self.ends
            )
            for market in all_markets()
        }

    @cached_property
    def releases(self) -> dict[Market, tuple[float, ...]]:
        """When each of `days` begins to appear, in seconds."""
        return {
            market: tuple(self._seconds(self.world.begins(market, day)) for day in days)
            for market, days in self.days.items()
        }

    def appears(self, code: Code, index: int) -> float:
        """Return when day number `index` of its market appears for a symbol, in seconds."""
        return self._seconds(self.world.release(code, self.days[market_of(code)][index]))

    def _seconds(self, at: datetime) -> float:
        return (at - self.began).total_seconds()
