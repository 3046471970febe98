"""The list of a world's symbols, largest short position first, as OpenD's rank shows it."""

from datetime import datetime, timedelta
from typing import Final

from poller.markets import Market
from poller.model import Code, market_of
from poller.simulator.world import World

_FRESH_FOR: Final = timedelta(seconds=10)
"""While a report appears symbol by symbol, the list follows at this interval."""

Listed = tuple[tuple[Code, int], ...]
"""Codes and their shares, largest first."""


class Ranking:
    """The list of each market; made anew only when figures have changed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._kept: dict[Market, tuple[datetime, datetime | None, Listed]] = {}

    def at(self, market: Market, now: datetime) -> Listed:
        """Return the symbols with a position at `now` (aware), and their shares."""
        began, until, listed = self._kept.get(market, (now, now, ()))
        if not (began <= now and (until is None or now < until)):
            listed = self._made(market, now)
            self._kept[market] = now, self._until(market, now), listed
        return listed

    def _until(self, market: Market, now: datetime) -> datetime | None:
        if any(callable(rows) for rows in self.world.extra.values()):
            return now
        until = self.world.next_change(market, now)
        return now + _FRESH_FOR if until == now else until

    def _made(self, market: Market, now: datetime) -> Listed:
        found = []
        for code in self.world.codes():
            if market_of(code) is market and (row := self.world.newest(code, now)) is not None:
                shares = market.simulation.figures(row).shares
                if shares:
                    found.append((code, int(shares)))
        return tuple(sorted(found, key=lambda each: (-each[1], each[0])))
