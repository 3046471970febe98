"""Whether a company split or consolidated its shares between two reports. Pure.

Where a market's history is not adjusted, such a day stands in it for ever: the shares are
multiplied, the ratio stays where it was, the price is divided. A board lot that changes leaves all
three alone, and so a factor is never taken from one column: what the ratio says of the issued
shares and what the price says must agree with it.
"""

from datetime import timedelta
from fractions import Fraction
from math import ceil, floor, inf, log
from typing import Final

from poller.markets import Record, exact

LONGEST_GAP: Final = timedelta(days=62)
"""Between reports that are further apart a price has moved too much to tell anything."""

_WHOLE: Final = (2, 3, 4, 5, 6, 8, 10, 12, 15, 16, 20, 25, 30, 40, 50, 80, 100, 200, 250, 500)
_BROKEN: Final = (Fraction(3, 2), Fraction(5, 2))
_USUAL: Final = tuple(
    factor for more in (*map(Fraction, _WHOLE), *_BROKEN) for factor in (more, 1 / more)
)
"""Factors of splits and consolidations; others are believed where the shares fit to the share."""

_LEAST: Final = 100  # steps; any two smaller figures are a plain fraction of one another
_LEAST_PRICE: Final = 1e-4  # a tenth of the least that is quoted
_CUT: Final = Fraction(9, 10)  # of a figure's last step: however a part of it was rounded
_LARGEST: Final = 500
_LARGEST_TERM: Final = 25  # of a fraction, as a bonus issue of 3 for 10 makes it 13/10
_NEAREST: Final = log(25 / 24)  # of all such fractions the one that is closest to 1
_PARTS: Final = 0.01  # what `_CUT` of `_LEAST` steps is to a factor's logarithm, at the most
_PLAIN: Final = log(2)  # a smaller factor needs a ratio that proves new shares
_WEEK: Final = log(1.5)  # how far a price moves beside the split, at the most
_POSITION: Final = log(2.05)  # and how far a position does: one in a hundred doubles in a week
_UNPROVEN: Final = log(1.2)  # how far a price moves where the ratio is too small to tell
_ROUNDING: Final = 0.005  # percentage points: the ratio has two decimals
_RATIO_STAYS: Final = 0.02  # of the ratio, where the position was not touched


def split_factor(before: Record, now: Record) -> Fraction | None:
    """Return what the shares of `before` are multiplied by to compare them with `now`.

    None where nothing speaks for a split: as where the vendor rescales the history itself, or
    without a ratio and a price in both reports.
    """
    if now.IS_ADJUSTED:
        return None
    if not _is_telling(before) or not _is_telling(now) or now.day - before.day > LONGEST_GAP:
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
        if fits and low <= plain <= high and _is_used(plain):
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


def _is_telling(record: Record) -> bool:
    return (
        (record.shares or 0) >= _LEAST * record.STEP
        and (record.close_price or 0) >= _LEAST_PRICE
        and record.ratio is not None
    )


def _issued(moved: float, ratio: float, later: float) -> tuple[float, float]:
    """Return the bounds of how the issued shares grew, as shares and rounded ratios have it."""
    low = moved * max(ratio - _ROUNDING, 0) / (later + _ROUNDING)
    high = moved * (ratio + _ROUNDING) / (later - _ROUNDING) if later > _ROUNDING else inf
    return low, high


def _is_used(factor: Fraction) -> bool:
    """Tell whether a company would split by this factor."""
    less, more = sorted(factor.as_integer_ratio())
    return factor != 1 and more <= (_LARGEST if less == 1 else _LARGEST_TERM)


def _position_fits(factor: Fraction, moved: float) -> bool:
    """Tell whether the position moved by the factor, not by nothing as where shares are sold."""
    beside = log(moved / factor) if factor > 1 else log(factor / moved)
    return -min(abs(log(factor)) / 2, _POSITION) <= beside <= _POSITION


def _most(factor: Fraction) -> float:
    """Return how far a figure may be from what the factor says, so that it explains most of it."""
    return min(abs(log(factor)) / 2, _WEEK)


def simplest(low: Fraction, high: Fraction) -> Fraction:
    """Return the fraction with the least denominator in [low, high], both above 0."""
    if ceil(low) <= high:
        return Fraction(ceil(low))
    whole = floor(low)
    return whole + 1 / simplest(1 / (high - whole), 1 / (low - whole))
