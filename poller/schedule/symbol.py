"""A watched symbol, and the queues it waits in. Pure.

Queues hold tickets; one that is no longer its symbol's is passed over, so nothing is ever searched
for and a decision costs the same with a thousand symbols as with a hundred thousand.
"""

from collections import deque
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum, auto

from poller.model import Code


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
        alone: Whether it is asked alone, because connections broke while it was asked.
    """

    code: Code
    weight: float = 1.0
    watermark: date | None = None
    state: SymbolState = SymbolState.NEW
    ticket: int = 0
    polling: bool = False
    alone: bool = False
    swept: bool = False  # the poll under way is part of a sweep
    rounds: int = 0  # polls since the release that brought nothing
    failures: int = 0  # failures or refusals in a row
    failed_after: int = 0  # answers of its market before the first of them
    retry_at: datetime | None = None
    reason: str = ""
    move: float | None = None


Queue = deque[tuple[int, Symbol]]


def head(queue: Queue) -> Symbol | None:
    """Return the first symbol of a queue, without the entries that no longer count."""
    while queue:
        ticket, symbol = queue[0]
        if symbol.ticket == ticket:
            return symbol
        queue.popleft()
    return None


def taken(queue: Queue, reason: str, *, swept: bool = False) -> Symbol:
    """Take the head, which counts, to be polled."""
    _, symbol = queue.popleft()
    return taken_out(symbol, reason, swept=swept)


def taken_out(symbol: Symbol, reason: str, *, swept: bool = False) -> Symbol:
    """Take a symbol that waits in a queue, wherever it stands in it, to be polled."""
    symbol.ticket, symbol.polling, symbol.swept, symbol.reason = 0, True, swept, reason
    symbol.rounds += swept
    return symbol
