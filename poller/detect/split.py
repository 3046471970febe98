"""Detects whether a company split or consolidated its shares between two reports. Pure.

In a market whose history is not adjusted, a split stays visible for ever: the shares are
multiplied, the ratio stays, the price is divided. No factor is taken from one column alone: shares,
ratio (which shows how the issued shares grew) and price must agree on it.
"""

from datetime import timedelta
from fractions import Fraction
from math import ceil, floor, inf, log
from typing import Final

from poller.markets import Record, exact

LONGEST_GAP: Final = timedelta(days=62)
"""Between reports further apart than this, the price moves too much to confirm a split."""

_WHOLE: Final = (2, 3, 4, 5, 6, 8, 10, 12, 15, 16, 20, 25, 30, 40, 50, 80, 100, 200, 250, 500)
_BROKEN: Final = (Fraction(3, 2), Fraction(5, 2))
_USUAL: Final = tuple(
    factor for more in (*map(Fraction, _WHOLE), *_BROKEN) for factor in (more, 1 / more)
)
"""Common factors of splits; others are accepted only if the shares fit exactly."""

_LEAST: Final = 100  # steps; any two smaller figures are a simple fraction of one another
_LEAST_PRICE: Final = 1e-4  # a tenth of the lowest price quoted
_CUT: Final = Fraction(9, 10)  # of a figure's last step: allows for any way of rounding
_LARGEST: Final = 500
_LARGEST_TERM: Final = 25  # of a fraction: a bonus issue of 3 for 10 is 13/10
_NEAREST: Final = log(25 / 24)  # the fraction with such terms that is closest to 1
_PARTS: Final = 0.01  # the most by which `_CUT` of `_LEAST` steps changes a factor's logarithm
_PLAIN: Final = log(2)  # a smaller factor needs a ratio that proves new shares
_WEEK: Final = log(1.5)  # the most a price moves apart from the split
_POSITION: Final = log(2.05)  # the same for a position: one in a hundred doubles in a week
_UNPROVEN: Final = log(1.2)  # the most a price may move if the ratio is too small to prove it
_ROUNDING: Final = 0.005  # percentage points: the ratio has two decimals
_RATIO_STAYS: Final = 0.02  # of the ratio: within this, the position itself did not change


def split_factor(before: Record, now: Record) -> Fraction | None:
    """Return the factor that makes the shares of `before` comparable with `now`.

    None unless shares, ratio and price agree on a split; always None for a market whose vendor
    rescales the history itself.
    """
    if now.IS_ADJUSTED or before.shares == now.shares:
        return None
    if not _is_usable(before) or not _is_usable(now) or now.day - before.day > LONGEST_GAP:
        return None
    was, shares = before.shares or 1, now.shares or 1
    moved, price = shares / was, (now.close_price or 1) / (before.close_price or 1)
    if moved == 1 or abs(log(moved * price)) > _POSITION + _WEEK:
        return None
    low, high = _issued(moved, before.ratio or 0.0, now.ratio or 0.0)
    is_proven = not low <= 1 <= high
    stays = abs((now.ratio or 0.0) - (before.ratio or 0.0)) <= _RATIO_STAYS * (before.ratio or 0)
    if stays and abs(log(moved)) > (_NEAREST if is_proven else _PLAIN) - _PARTS:
        base, figure, cut = exact(was), exact(shares), _CUT * now.STEP
        plain = simplest((figure - cut) / base, (figure + cut) / base)
        far = abs(log(price * plain))
        fits = far <= _most(plain) if is_proven else abs(log(plain)) >= _PLAIN and far <= _UNPROVEN
        if fits and low <= plain <= high and _is_customary(plain):
            return plain
    if not is_proven:
        return None
    fitting = [
        factor
        for factor in _USUAL
        if low <= factor <= high
        and _position_fits(factor, moved)
        and abs(log(price * factor)) <= _most(factor)
    ]
    return min(
        fitting,
        key=lambda one: abs(log(moved / one)) + 2 * abs(log(price * one)),
        default=None,
    )


def _is_usable(record: Record) -> bool:
    return (
        (record.shares or 0) >= _LEAST * record.STEP
        and (record.close_price or 0) >= _LEAST_PRICE
        and record.ratio is not None
    )


def _issued(moved: float, ratio: float, later: float) -> tuple[float, float]:
    """Return the bounds of the growth of the issued shares, from shares and rounded ratios."""
    low = moved * max(ratio - _ROUNDING, 0) / (later + _ROUNDING)
    high = moved * (ratio + _ROUNDING) / (later - _ROUNDING) if later > _ROUNDING else inf
    return low, high


def _is_customary(factor: Fraction) -> bool:
    """Return whether companies split by such a factor."""
    less, more = sorted(factor.as_integer_ratio())
    return factor != 1 and more <= (_LARGEST if less == 1 else _LARGEST_TERM)


def _position_fits(factor: Fraction, moved: float) -> bool:
    """Return whether the position moved with the factor; it does not when new shares are sold."""
    beside = log(moved / factor) if factor > 1 else log(factor / moved)
    return -min(abs(log(factor)) / 2, _POSITION) <= beside <= _POSITION


def _most(factor: Fraction) -> float:
    """Return how far a figure may be off while the factor still explains most of its move."""
    return min(abs(log(factor)) / 2, _WEEK)


def simplest(low: Fraction, high: Fraction) -> Fraction:
    """Return the fraction with the smallest denominator in [low, high], both above 0."""
    if ceil(low) <= high:
        return Fraction(ceil(low))
    whole = floor(low)
    return whole + 1 / simplest(1 / (high - whole), 1 / (low - whole))
