"""How far the rank of a market is believed: what it told is compared with what was reported. Pure.

Whether it helps is counted. One that told of the last reports first lets probes be rarer; one that
raised false alarms raises no more of them; one that named wrong moves no longer orders a sweep. It
is read and counted on, so that it is believed again once it has mended.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from poller.markets import Market
from poller.schedule.order import NEW_POSITION

PROVED: Final = 4
"""Reports in a row that the rank told of first, after which probes are rarer."""

USELESS: Final = 3
"""False alarms or reports not told of, in a row, after which its alarms are not followed."""

ENOUGH: Final = 10
"""Moves compared with what was reported, before the rank is judged by them."""

_LARGEST: Final = 9.99  # more is not told apart
_JUDGED: Final = 30  # moves it is judged by
_WRONG, _RIGHT = 0.5, 0.8  # fractions told right, to lose and to regain belief
_NEAR: Final = 2.0  # a move told within this factor is right


def move_of(before: float, after: float) -> float:
    """Return how far a position moved, as a fraction of the one before, without its sign."""
    if before == after:
        return 0.0
    return min(abs(after - before) / before, _LARGEST) if before else NEW_POSITION


class About(StrEnum):
    """What a market's rank is used for."""

    ALARMS = "alarms"
    ORDER = "order"


@dataclass(frozen=True, slots=True)
class Told:
    """Something to say of a market's rank: a trouble with it begins, or ends, or None: news."""

    market: Market
    about: About
    text: str
    begins: bool | None = None


class Belief:
    """Whether a rank told of the last reports first, and of the right moves.

    Attributes:
        in_order: Whether a sweep asks in the order of its moves.
    """

    def __init__(self, market: Market) -> None:
        self.in_order = True
        self._market = market
        self._first: deque[bool] = deque(maxlen=max(PROVED, USELESS))
        self._right: deque[bool] = deque(maxlen=_JUDGED)

    @property
    def is_proved(self) -> bool:
        """Whether it told of the last reports first."""
        return sum(list(self._first)[-PROVED:]) == PROVED

    @property
    def is_useless(self) -> bool:
        """Whether its alarms are not followed."""
        return len(self._first) >= USELESS and not any(list(self._first)[-USELESS:])

    def alarmed(self, *, told_first: bool) -> Iterator[Told]:
        """Count a report that it told of first, or not; or an alarm that was false."""
        was = self.is_useless
        self._first.append(told_first)
        if self.is_useless and not was:
            text = f"{USELESS} false alarms or missed reports in a row; its alarms are not followed"
            yield Told(self._market, About.ALARMS, text, begins=True)
        elif was and not self.is_useless:
            yield Told(self._market, About.ALARMS, "it told of the last report first", begins=False)

    def compared(self, claim: float, truth: float) -> Iterator[Told]:
        """Count a move that it told, and the one that was reported; nothing if neither moved."""
        if not (claim or truth):
            return
        self._right.append(1 / _NEAR <= (claim / truth if truth else 0) <= _NEAR)
        right, of = sum(self._right), len(self._right)
        if of < ENOUGH:
            return
        text = f"{right} of the last {of} symbols moved as it said"
        if self.in_order and right < _WRONG * of:
            self.in_order = False
            yield Told(self._market, About.ORDER, f"{text}; sweeps do without it", begins=True)
        elif not self.in_order and right >= _RIGHT * of:
            self.in_order = True
            yield Told(self._market, About.ORDER, text, begins=False)
