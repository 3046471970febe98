"""In which order a sweep asks the symbols that do not show the newest day. Pure.

First those asked least since the release; among them by weight and by the move that a hint tells;
then those that showed the releases before.
"""

from collections import deque
from collections.abc import Iterable
from math import log2
from typing import Final

from poller.schedule.symbol import Queue, Symbol, head, taken

TYPICAL: Final = 0.035
"""The move of a symbol of which nobody says anything: the median in 396 files of the SFC."""

NEW_POSITION: Final = 10.0
"""What a position counts as where there was none: more than any other move."""

EXTREME: Final = 0.9
"""From here on, a sweep asks symbols in two of five turns only, with others between them.

Asked all at once, they would look like a fault of the whole market (`detect.plausible`).
"""

_LEAST: Final = 1e-6  # smaller moves are none

_STEPS: Final = 16  # of moves that are told apart, from one to twice as much
_ORDINARY_TURNS: Final = (1, 3, 4)  # of five in which a symbol is due that moved extremely

Key = tuple[int, float, int]


class SweepOrder:
    """The outstanding symbols of one market."""

    def __init__(self) -> None:
        self._tiers: dict[Key, Queue] = {}
        self._extreme = 0  # turns in which a symbol was due that moved extremely

    def add(self, ticket: int, symbol: Symbol, missed: int = 0) -> None:
        """Queue a symbol that missed so many releases before this one."""
        self._tiers.setdefault(_key(symbol, missed), deque()).append((ticket, symbol))

    def begin(self, others: Iterable[Queue]) -> None:
        """Begin a release: whoever is in it has missed one more; the `others` have missed none."""
        before, self._tiers = self._tiers, {}
        for queue in others:
            for ticket, symbol in queue:
                if symbol.ticket == ticket:
                    self.add(ticket, symbol)
        for (_, urgency, missed), queue in sorted(before.items(), key=lambda one: one[0]):
            self._tiers.setdefault((0, urgency, missed + 1), deque()).extend(queue)

    def first(self) -> Queue | None:
        """Return the queue whose head is asked first; None if nobody is outstanding."""
        while self._tiers:
            key = min(self._tiers)
            if head(self._tiers[key]) is not None:
                return self._tiers[key]
            del self._tiers[key]
        return None

    def take(self, reason: str) -> Symbol:
        """Take the symbol to ask now; call it only if there is one."""
        queue = self.first()
        if queue is None:
            raise LookupError("nobody is outstanding")
        if _is_extreme(queue[0][1]):
            self._extreme += 1
            if self._extreme % 5 in _ORDINARY_TURNS:
                queue = self._ordinary() or queue
        return taken(queue, reason + told(queue[0][1]), swept=True)

    def _ordinary(self) -> Queue | None:
        """Return a queue of this round whose head is no extreme; one that moved, if there is."""
        least = min(self._tiers)[0]
        queues = [self._tiers[key] for key in sorted(self._tiers) if key[0] == least]
        usual = [q for q in queues if (one := head(q)) is not None and not _is_extreme(one)]
        return next((q for q in usual if q[0][1].move), next(iter(usual), None))


def told(symbol: Symbol) -> str:
    """Return what a hint says of a symbol, as the end of a reason."""
    if symbol.move is None:
        return ""
    moved = f"moved by {symbol.move:.1%}" if symbol.move else "did not move"
    return f"; the rank says it {moved}"


def _key(symbol: Symbol, missed: int) -> Key:
    move = TYPICAL if symbol.move is None else symbol.move
    if missed and symbol.move is not None:
        move = 0  # its rank may move on while it reports no more: it would end the sweep of others
    return (symbol.rounds, -symbol.weight * _step(move), missed)


def _step(move: float) -> float:
    """Round a move to 4 %, so that there are few keys however many symbols."""
    return 2.0 ** (round(_STEPS * log2(move)) / _STEPS) if move > _LEAST else 0.0


def _is_extreme(symbol: Symbol) -> bool:
    return symbol.move is not None and symbol.move >= EXTREME
