"""Implausible moves: signs of a wrong unit, or of a source at fault for a whole market. Pure.

No rule here says how much a position ought to move; each names something a market cannot do.
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
"""A thousandfold move, less some room for what really happened in the same period."""

_SLIP_LEAST: Final = 1_000  # shares; below it a thousandfold move is a position being opened
_SAME_LEVEL: Final = 10
_EXTREME: Final = Fraction(9, 10)
_EXTREME_ZERO: Final = 100_000  # shares
_LAST: Final = 60  # verdicts kept
_WINDOW: Final = 12  # the latest verdicts that count: a fault may begin at any time
_ANOMALOUS: Final = 20
_OF: Final = 30

ORDINARY_LEAST: Final = 3
"""Least number of ordinary moves, outnumbering the extreme ones, that shows a normal market."""

EXTREME_LEAST: Final = 3
"""Least number of extreme moves, at least as many as ordinary ones, beyond chance: 1–2 % of figures
move this far, so three of the first five do so in about 1 of 10,000 reports.
"""


@dataclass(frozen=True, slots=True)
class MarketMoves:
    """The moves of a market's symbols on their newest day.

    Attributes:
        verdicts: Code, day and whether its move was extreme; one a symbol, latest answer last.
    """

    verdicts: tuple[tuple[Code, date, bool], ...] = ()

    def _count(self, day: date, last: int = _WINDOW) -> tuple[int, int]:
        """Return the numbers of extreme and of ordinary moves among the last ones of this day."""
        extreme = [verdict for _, shown, verdict in self.verdicts if shown == day][-last:]
        return sum(extreme), len(extreme) - sum(extreme)

    def is_normal(self, day: date) -> bool:
        """Return whether there are enough ordinary moves of this day, and more than extreme."""
        extreme, ordinary = self._count(day)
        return ordinary >= ORDINARY_LEAST and ordinary > extreme

    def is_impossible(self, day: date) -> bool:
        """Return whether more symbols moved extremely than any report has ever shown."""
        extreme, ordinary = self._count(day)
        return extreme >= EXTREME_LEAST and extreme >= ordinary

    def is_anomalous(self, day: date) -> bool:
        """Return whether the source is so clearly at fault that even ordinary moves are chance."""
        return self._count(day, _OF)[0] >= _ANOMALOUS

    @property
    def has_calmed_down(self) -> bool:
        """Whether normal moves are the majority on the newest day; False without any."""
        newest = max((day for _, day, _ in self.verdicts), default=date.min)
        extreme, ordinary = self._count(newest, _OF)
        return ordinary > extreme

    def after(self, code: Code, day: date, *, extreme: bool) -> "MarketMoves":
        """Return the moves with the verdict on `code` replaced by this one.

        The same verdict stays where it is: an answer that is compared again is no later one.
        """
        if (code, day, extreme) in self.verdicts:
            return self
        others = [verdict for verdict in self.verdicts if verdict[0] != code]
        return MarketMoves((*others, (code, day, extreme))[-_LAST:])


NO_MOVES: Final = MarketMoves()


def is_extreme(previous: Record, now: Record) -> bool | None:
    """Return whether a move is rare: by more than 90 %, or to 0 from at least 100,000 shares.

    None if there is no move: `previous` is 0 or a figure is absent. A split is no move.
    """
    if not previous.shares or now.shares is None:
        return None
    if now.shares == 0:
        return previous.shares >= _EXTREME_ZERO
    base = previous.shares * (split_factor(previous, now) or Fraction(1))
    return abs(now.shares - base) > _EXTREME * base


def implausible(market: Market, previous: Record, now: Record) -> Reason | None:
    """Return why `now` cannot be true after `previous`, or None.

    A fall from millions to 0 is possible where 0 means "below the threshold".
    """
    if not previous.shares or now.shares is None:
        return None
    if now.shares == 0:
        most = market.vanishes_from
        return Reason.ZERO if most is not None and previous.shares >= most else None
    less, more = sorted((previous.shares, now.shares))
    return Reason.UNIT_SLIP if less >= _SLIP_LEAST and more >= SLIP * less else None


def same_level(one: Record, other: Record) -> bool:
    """Return whether two implausible figures are close enough to confirm each other."""
    if not one.shares or not other.shares:
        return one.shares == other.shares
    less, more = sorted((one.shares, other.shares))
    return more <= _SAME_LEVEL * less
