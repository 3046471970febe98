"""What a figure can be: signs of a split, of a slipped unit, of a market gone wrong. Pure.

No rule here judges how much a position ought to move; each names something a market cannot do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from math import ceil, floor
from typing import Final

from poller.detect.held import Reason
from poller.model import Code, Market, Record, Restatement, Vintage

SLIP: Final = 900
"""A thousandfold move with room for what really happened in the same period."""

_SLIP_LEAST: Final = 1_000  # shares; below it a thousandfold move is a position being opened
_MILLION: Final = 1_000_000
_SAME_LEVEL: Final = 10
_RESTATED_LEAST: Final = 3  # days; two could share a factor by chance
_RATIO_ROUNDING: Final = 0.015  # percentage points: a split leaves the ratio where it was
_SLACKS: Final = (Fraction(1, 2), Fraction(1))  # shares: rounded, cut off
_WILD: Final = 0.9
_WILD_ZERO: Final = 100_000  # shares
_LAST: Final = 30
_ANOMALOUS: Final = 20


@dataclass(frozen=True, slots=True)
class Rescaled:
    """A restatement, and every day of it as it is to be known."""

    fact: Restatement
    vintages: Mapping[date, Vintage]

    @property
    def newest(self) -> date:
        """The day the one event speaks of."""
        return self.fact.days[-1]

    @property
    def others(self) -> tuple[Vintage, ...]:
        """The days that are restated without an entry of their own, oldest first."""
        return tuple(self.vintages[day] for day in self.fact.days[:-1])


@dataclass(frozen=True, slots=True)
class Moves:
    """How the newest day of a market's symbols moved: one verdict a symbol, latest answer last."""

    wild: tuple[tuple[Code, bool], ...] = ()

    @property
    def anomalous(self) -> bool:
        """Most of the last symbols moved as a market never does: a fault of the source."""
        return sum(wild for _, wild in self.wild) >= _ANOMALOUS

    @property
    def sane(self) -> bool:
        """Ordinary moves prevail; without any answer nothing is known."""
        return 2 * sum(wild for _, wild in self.wild) < len(self.wild)

    def after(self, code: Code, *, wild: bool) -> "Moves":
        """Return the moves with what `code` shows now in place of what it showed before."""
        others = [verdict for verdict in self.wild if verdict[0] != code]
        return Moves((*others, (code, wild))[-_LAST:])


CALM: Final = Moves()


def is_wild(previous: Record, now: Record) -> bool:
    """Tell a move that is rare on its own: by more than 90 %, or to nothing from 100,000 shares."""
    if not previous.shares or now.shares is None:
        return False
    if now.shares == 0:
        return previous.shares >= _WILD_ZERO
    return abs(now.shares - previous.shares) > _WILD * previous.shares


def doubt(market: Market, previous: Record, now: Record) -> Reason | None:
    """Return why `now` cannot be true after `previous`, or None.

    In Hong Kong 0 means "below the threshold", so only the US is held to its millions.
    """
    if not previous.shares or now.shares is None:
        return None
    if now.shares == 0:
        vanished = market is Market.US and previous.shares >= _MILLION
        return Reason.ZERO if vanished else None
    less, more = sorted((previous.shares, now.shares))
    return Reason.UNIT_SLIP if less >= _SLIP_LEAST and more >= SLIP * less else None


def same_level(one: Record, other: Record) -> bool:
    """Tell whether two figures, both in doubt, speak for each other."""
    if not one.shares or not other.shares:
        return one.shares == other.shares
    less, more = sorted((one.shares, other.shares))
    return more <= _SAME_LEVEL * less


def restatement(known: Mapping[date, Vintage], listed: Mapping[date, Record]) -> Restatement | None:
    """Return the factor that rescales every known day listed, or None where there is none.

    At least three days moved by it, each to a whole number of shares, and no day between them is
    missing; 0 stayed 0 and the ratios stayed. So who applies the factor to every day from the first
    to the last has the new history. The factor is the simplest fraction that fits the figures as
    rounded, or as cut off.
    """
    pairs = {
        day: (before.record, now)
        for day, now in listed.items()
        if (before := known.get(day)) is not None
        and before.record.shares is not None
        and now.shares is not None
    }
    moved = sorted(day for day, (before, now) in pairs.items() if before.shares != now.shares)
    if len(moved) < _RESTATED_LEAST or not all(_ratio_stays(*pair) for pair in pairs.values()):
        return None
    if any(
        moved[0] < day < moved[-1] and vintage.record.shares is not None and day not in pairs
        for day, vintage in known.items()
    ):
        return None
    figures = [(before.shares or 0, now.shares or 0) for before, now in pairs.values()]
    if sum(bool(before and now) for before, now in figures) < _RESTATED_LEAST:
        return None
    fitting = [factor for slack in _SLACKS if (factor := _factor(figures, slack)) is not None]
    factor = min(fitting, key=lambda one: one.denominator, default=Fraction(1))
    return None if factor == 1 else Restatement(float(factor), tuple(moved))


def _ratio_stays(before: Record, now: Record) -> bool:
    if before.ratio is None or now.ratio is None:
        return before.ratio == now.ratio
    return abs(now.ratio - before.ratio) <= _RATIO_ROUNDING


def _factor(figures: list[tuple[int, int]], slack: Fraction) -> Fraction | None:
    """Return the simplest f with |now - f·before| ≤ slack for each pair, if there is one."""
    if any(now and not before for before, now in figures):
        return None
    bounds = [((now - slack) / before, (now + slack) / before) for before, now in figures if before]
    low, high = max(low for low, _ in bounds), min(high for _, high in bounds)
    return _simplest(low, high) if 0 < low <= high else None


def _simplest(low: Fraction, high: Fraction) -> Fraction:
    """Return the fraction with the least denominator in [low, high], both above 0."""
    if ceil(low) <= high:
        return Fraction(ceil(low))
    whole = floor(low)
    return whole + 1 / _simplest(1 / (high - whole), 1 / (low - whole))
