"""Delays the commit of an extreme move until other symbols show whether the whole market is off.

A fault of the source shows in all symbols, which the first answers of a sweep cannot reveal. So
their polls wait before they commit; a process that is killed meanwhile asks again.
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
"""Longest delay of a genuine move in seconds; during a sweep a few answers decide sooner."""


class Gate:
    """Tracks how the symbols of each market move, and the polls that wait for that."""

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
        """Replace the moves of a market."""
        self._moves[market] = moves
        self.changed()

    def changed(self) -> None:
        """Let waiting polls look again: a symbol moved, or shows the newest day."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def settled(self, market: Market, day: date) -> None:
        """Return once the market moves normally on this day, or once no answer can show it."""
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
        all_wait = self._outstanding(market) <= self._waiting[market]
        return all_wait or self.moves(market).is_normal(day)
