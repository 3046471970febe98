"""What a figure can be: signs of a slipped unit, of a market gone wrong. Pure.

No rule here judges how much a position ought to move; each names something a market cannot do.
"""

from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Final

from poller.detect.held import Reason
from poller.detect.split import split_factor
from poller.markets import Market, Record
from poller.model import Code

SLIP: Final = 900
"""A thousandfold move with room for what really happened in the same period."""

_SLIP_LEAST: Final = 1_000  # shares; below it a thousandfold move is a position being opened
_SAME_LEVEL: Final = 10
_EXTREME: Final = Fraction(9, 10)
_EXTREME_ZERO: Final = 100_000  # shares
_LAST: Final = 60  # verdicts kept
_WINDOW: Final = (
    12  # of them, the latest of a report that tell how it goes: a fault begins any time
)
_ANOMALOUS: Final = 20
_OF: Final = 30

ORDINARY_LEAST: Final = 3
"""Ordinary moves, and more of them than extreme ones, that show a market as it always is."""

EXTREME_LEAST: Final = 3
"""Extreme moves, and no fewer than ordinary ones, that are no coincidence: one figure in fifty to a
hundred moves so, and three of the first five do once in some ten thousand reports.
"""


@dataclass(frozen=True, slots=True)
class MarketMoves:
    """How the newest day of a market's symbols moved: one verdict a symbol, latest answer last."""

    verdicts: tuple[tuple[Code, date, bool], ...] = ()

    def _count(self, day: date, last: int = _WINDOW) -> tuple[int, int]:
        """Return how many of the last symbols moved extremely on this day, and how many did not."""
        extreme = [verdict for _, shown, verdict in self.verdicts if shown == day][-last:]
        return sum(extreme), len(extreme) - sum(extreme)

    def is_normal(self, day: date) -> bool:
        """Tell whether enough ordinary moves of this day prevail over the extreme ones."""
        extreme, ordinary = self._count(day)
        return ordinary >= ORDINARY_LEAST and ordinary > extreme

    def is_impossible(self, day: date) -> bool:
        """Tell whether more symbols moved extremely than any report ever showed."""
        extreme, ordinary = self._count(day)
        return extreme >= EXTREME_LEAST and extreme >= ordinary

    def is_anomalous(self, day: date) -> bool:
        """Tell whether even an ordinary move is one by chance: the source is at fault."""
        return self._count(day, _OF)[0] >= _ANOMALOUS

    @property
    def is_over(self) -> bool:
        """Tell whether ordinary moves prevail on the newest day; no answer tells nothing."""
        newest = max((day for _, day, _ in self.verdicts), default=date.min)
        extreme, ordinary = self._count(newest, _OF)
        return ordinary > extreme

    def after(self, code: Code, day: date, *, extreme: bool) -> "MarketMoves":
        """Return the moves with what `code` shows now in place of what it showed before."""
        others = [verdict for verdict in self.verdicts if verdict[0] != code]
        return MarketMoves((*others, (code, day, extreme))[-_LAST:])


NO_MOVES: Final = MarketMoves()


def is_extreme(previous: Record, now: Record) -> bool | None:
    """Tell a move that is rare on its own: by more than 90 %, or to nothing from 100,000 shares.

    None where there is no move to judge: figures from 0 or absent ones. A split is no move.
    """
    if not previous.shares or now.shares is None:
        return None
    if now.shares == 0:
        return previous.shares >= _EXTREME_ZERO
    base = previous.shares * (split_factor(previous, now) or Fraction(1))
    return abs(now.shares - base) > _EXTREME * base


def doubt(market: Market, previous: Record, now: Record) -> Reason | None:
    """Return why `now` cannot be true after `previous`, or None.

    Where 0 means "below the threshold", nobody is held to his millions.
    """
    if not previous.shares or now.shares is None:
        return None
    if now.shares == 0:
        most = market.vanishes_from
        return Reason.ZERO if most is not None and previous.shares >= most else None
    less, more = sorted((previous.shares, now.shares))
    return Reason.UNIT_SLIP if less >= _SLIP_LEAST and more >= SLIP * less else None


def same_level(one: Record, other: Record) -> bool:
    """Tell whether two figures, both in doubt, speak for each other."""
    if not one.shares or not other.shares:
        return one.shares == other.shares
    less, more = sorted((one.shares, other.shares))
    return more <= _SAME_LEVEL * less
