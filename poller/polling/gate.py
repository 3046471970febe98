"""An extreme move waits until the market's other symbols tell whether it is one of many.

A fault of the source shows in all symbols, and the first ones of a sweep cannot know it. So their
polls wait before they publish: nothing is committed meanwhile, and whoever is killed asks again.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Final

from poller.detect.plausible import NO_MOVES, MarketMoves
from poller.markets import Market

LONGEST_WAIT: Final = 10.0
"""Seconds by which a true move is late at the most; in a sweep a few answers decide sooner."""


class Gate:
    """How the symbols of each market move, and who waits to know it."""

    def __init__(
        self, outstanding: Callable[[Market], int], *, longest: float = LONGEST_WAIT
    ) -> None:
        """`outstanding`: symbols of a market that do not show its newest day yet."""
        self._outstanding = outstanding
        self._longest = longest
        self._moves: dict[Market, MarketMoves] = {}
        self._waiting: Counter[Market] = Counter()
        self._changed = asyncio.Event()

    def moves(self, market: Market) -> MarketMoves:
        """Return how the symbols of a market have moved so far."""
        return self._moves.get(market, NO_MOVES)

    def keep(self, market: Market, moves: MarketMoves) -> None:
        """Take note of how they move now."""
        self._moves[market] = moves
        self.changed()

    def changed(self) -> None:
        """Let who waits look again: a symbol moved, or shows the newest day."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def settled(self, market: Market, day: date) -> None:
        """Return when the market is known to move ordinarily on this day, or nobody can tell."""
        self._waiting[market] += 1
        self.changed()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._longest):
                    while not self._is_clear(market, day):
                        await self._changed.wait()
        finally:
            self._waiting[market] -= 1

    def _is_clear(self, market: Market, day: date) -> bool:
        everybody_waits = self._outstanding(market) <= self._waiting[market]
        return everybody_waits or self.moves(market).is_normal(day)
