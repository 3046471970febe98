"""A watched symbol, and the queues it waits in. Pure.

Queues hold tickets; one that is no longer its symbol's is passed over, so nothing is ever searched
for and a decision costs the same with a thousand symbols as with a hundred thousand.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum, auto
from math import log2
from typing import Final

from poller.model import Code

TYPICAL: Final = 0.035
"""The move of a symbol of which nobody says anything: the median in 396 files of the SFC."""

NEW_POSITION: Final = 10.0
"""What a position counts as where there was none: more than any other move."""

EXTREME: Final = 0.9
"""From here on, a sweep asks symbols in two of five turns only, with ordinary ones between them.

Asked all at once, they would look like a fault of the whole market (`detect.plausible`).
"""

_LEAST: Final = 1e-6  # smaller moves are none


class SymbolState(Enum):
    """How a symbol is followed."""

    NEW = auto()  # never looked at
    ACTIVE = auto()  # it has rows, and takes part in releases
    DORMANT = auto()  # without rows, or behind by three releases: once a day
    REFUSED = auto()  # refused by the gateway


@dataclass(slots=True, eq=False)
class Symbol:
    """One watched code.

    Attributes:
        ticket: The queue entry that counts; 0 while it waits in none.
        move: How far its position is said to have moved, as a fraction of the one before: a hint,
            for the order of a sweep alone. None: nobody says.
    """

    code: Code
    weight: float = 1.0
    watermark: date | None = None
    state: SymbolState = SymbolState.NEW
    ticket: int = 0
    polling: bool = False
    swept: bool = False  # the poll under way is part of a sweep
    rounds: int = 0  # polls since the release that brought nothing
    failures: int = 0  # failures or refusals in a row
    failed_after: int = 0  # answers of its market before the first of them
    retry_at: datetime | None = None
    reason: str = ""
    move: float | None = None


Queue = deque[tuple[int, Symbol]]
Key = tuple[int, float, int]


def key_of(symbol: Symbol, lag: int) -> Key:
    """Return where an outstanding symbol stands; `lag`: releases it missed before this one.

    First those asked least since the release, then by weight and move, then those that kept up.
    """
    move = TYPICAL if symbol.move is None else symbol.move
    return (symbol.rounds, -symbol.weight * _step(move), lag)


def _step(move: float) -> float:
    """Round a move to a quarter of an octave, so that there are few keys however many symbols."""
    return 2.0 ** (round(4 * log2(move)) / 4) if move > _LEAST else 0.0


def told(move: float | None) -> str:
    """Return what a hint says of a symbol, as the end of a reason."""
    if move is None:
        return ""
    return f"; the rank says it moved by {move:.1%}" if move else "; the rank says it did not move"


def head(queue: Queue) -> Symbol | None:
    """Return the first symbol of a queue, without the entries that no longer count."""
    while queue:
        ticket, symbol = queue[0]
        if symbol.ticket == ticket:
            return symbol
        queue.popleft()
    return None


def best(tiers: dict[Key, Queue]) -> Queue | None:
    """Return the first queue that holds a symbol; empty ones are dropped."""
    while tiers:
        key = min(tiers)
        if head(tiers[key]) is not None:
            return tiers[key]
        del tiers[key]
    return None


def ordinary(tiers: Mapping[Key, Queue]) -> Queue | None:
    """Return the first queue whose symbol is said to have moved as symbols usually do."""
    queues = (tiers[key] for key in sorted(tiers))
    return next((queue for queue in queues if _is_ordinary(head(queue))), None)


def is_extreme(symbol: Symbol) -> bool:
    """Return whether a symbol is said to have moved as few symbols do."""
    return symbol.move is not None and EXTREME <= symbol.move < NEW_POSITION


def _is_ordinary(symbol: Symbol | None) -> bool:
    return symbol is not None and symbol.move is not None and 0 < symbol.move < EXTREME


def taken(queue: Queue, reason: str, *, swept: bool = False) -> Symbol:
    """Take the head, which counts, to be polled."""
    _, symbol = queue.popleft()
    return taken_out(symbol, reason, swept=swept)


def taken_out(symbol: Symbol, reason: str, *, swept: bool = False) -> Symbol:
    """Take a symbol that waits in a queue, wherever it stands in it, to be polled."""
    symbol.ticket, symbol.polling, symbol.swept, symbol.reason = 0, True, swept, reason
    symbol.rounds += swept
    return symbol
