"""How unusual a move is in the symbol's own history, and for how long it has gone one way. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from math import sqrt
from typing import Final

LEAST_MOVES: Final = 8
"""Earlier moves without which none is called unusual: two months in Hong Kong, four in the US."""

_LARGEST: Final = 1e6  # a move this far is no measure of what is usual


@dataclass(frozen=True, slots=True)
class Level:
    """A day's figure on a split-clean scale.

    Attributes:
        day: The trading day.
        shares: The position; None: not reported.
        step: The smallest difference on this scale.
        is_known: Whether the shares are a figure, and not "below the reporting threshold".
    """

    day: date
    shares: int | Fraction | None
    step: int | Fraction
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class Trend:
    """A day's move beside those before it.

    Attributes:
        zscore: How many standard deviations the move in percent is above the mean of the earlier
            ones; None without `LEAST_MOVES` of them, or where they were all the same.
        streak: Reports in a row, up to this one, that rose (positive) or fell (negative); 0: this
            one did neither; None: there is no report before.
    """

    zscore: float | None = None
    streak: int | None = None


NO_TREND: Final = Trend()


def trends(levels: Iterable[Level], wanted: Collection[date]) -> dict[date, Trend]:
    """Return the trend of each wanted day, in one pass over the history, oldest day first."""
    found = {}
    usual, streak = _Spread(), 0
    before: Level | None = None
    for level in levels:
        if level.shares is None:
            continue
        trend = NO_TREND
        if before is not None and before.shares is not None:
            streak = _continued(streak, before, level)
            move = _move(before, level)
            trend = Trend(None if move is None else usual.score(move), streak)
            if move is not None:
                usual.add(move)
        if level.day in wanted:
            found[level.day] = trend
        before = level
    return found


def _continued(streak: int, before: Level, now: Level) -> int:
    """Return the streak after another report; less than a step apart is no move."""
    difference = (now.shares or 0) - (before.shares or 0)
    step = max(before.step, now.step)
    if step <= difference:
        return max(streak, 0) + 1
    return min(streak, 0) - 1 if difference <= -step else 0


def _move(before: Level, now: Level) -> float | None:
    """Return a move as a fraction; None where one of the figures is not one."""
    if not (before.is_known and now.is_known) or not before.shares or now.shares is None:
        return None
    return min(float(now.shares / Fraction(before.shares)) - 1, _LARGEST)


class _Spread:
    """Mean and variance of the moves so far, by Welford's method: stable however long they are."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._squares = 0.0

    def add(self, move: float) -> None:
        self._count += 1
        delta = move - self._mean
        self._mean += delta / self._count
        self._squares += delta * (move - self._mean)

    def score(self, move: float) -> float | None:
        if self._count < LEAST_MOVES or not self._squares:
            return None
        return round((move - self._mean) / sqrt(self._squares / (self._count - 1)), 2)
