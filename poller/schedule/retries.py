"""Symbols of one market that failed, and when each is tried again. Pure.

A symbol that failed once is asked again like any other. One that fails repeatedly is asked within a
small share of the budget, `FAILING_SHARE`. One during whose requests connections broke waits until
another one was answered, so that a dead gateway is not taken for its fault.
"""

import heapq
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from poller.schedule.symbol import Symbol, SymbolState

FAILING_SHARE: Final = 0.05
"""Largest fraction of an account's budget for symbols that failed twice in a row or more.

Each of them pauses ever longer, but thousands together would use up the whole budget and delay a
release of the others. A twentieth costs a sweep at most 5 %, and still finds a symbol that has
recovered.
"""

_AGAIN: Final = 2  # failures in a row from which on a symbol is failing

_Heap = list[tuple[datetime, int, Symbol]]


class Retries:
    """The failed symbols of one market."""

    def __init__(self) -> None:
        self._once: _Heap = []
        self._failing: _Heap = []
        self._suspects: list[Symbol] = []  # of whom an answer of another symbol may tell more
        self._answers = 0

    def add(self, symbol: Symbol, at: datetime, ticket: int) -> None:
        """Retry a failed symbol at `at`; tickets order equal instants."""
        symbol.retry_at = at
        if symbol.failures < _AGAIN:
            symbol.failed_after = self._answers
            heapq.heappush(self._once, (at, ticket, symbol))
        else:
            heapq.heappush(self._failing, (at, ticket, symbol))
        if self._is_suspect(symbol):
            self._suspects.append(symbol)

    def _is_suspect(self, symbol: Symbol) -> bool:
        """Tell whether a waiting symbol need not wait any longer once another one is answered."""
        if symbol.alone:
            return not symbol.failures
        failing = symbol.failures >= _AGAIN and symbol.state is not SymbolState.REFUSED
        return failing and symbol.failed_after == self._answers

    def once_at(self) -> datetime | None:
        """Return when the next symbol that failed once is tried again."""
        return _at(self._once)

    def failing_at(self) -> datetime | None:
        """Return when the next failing symbol is due, regardless of `FAILING_SHARE`."""
        return _at(self._failing)

    def take(self, *, failing: bool) -> Symbol:
        """Return the symbol to retry; call it only when `once_at` or `failing_at` is due."""
        _, _, symbol = heapq.heappop(self._failing if failing else self._once)
        symbol.retry_at, symbol.polling = None, True
        return symbol

    def waiting(self) -> Iterator[Symbol]:
        """Yield every waiting symbol."""
        for heap in (self._once, self._failing):
            yield from (symbol for at, _, symbol in heap if symbol.retry_at == at)

    def answered(self) -> list[Symbol]:
        """Record a usable answer; return the symbols that need not wait any longer.

        All their failures came after the previous answer, so the market or the gateway may have
        been the cause. Or connections broke, and now it can be told whether they break again.
        """
        found = [
            each
            for each in dict.fromkeys(self._suspects)
            if each.retry_at is not None and self._is_suspect(each)
        ]
        self._suspects.clear()
        self._answers += 1
        return found


def _at(heap: _Heap) -> datetime | None:
    while heap:
        at, _, symbol = heap[0]
        if symbol.retry_at == at:
            return at
        heapq.heappop(heap)
    return None
