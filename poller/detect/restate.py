"""Finds the one cause behind many known days that changed at once: one cause, one event. Pure.

A history rescaled by a split, a recomputed ratio column, and a code given to another company are
one restatement each, however many days they touch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Final

from poller.detect.split import simplest
from poller.markets import Record, exact
from poller.model import Cause, EventType, Restatement, Vintage

RESTATED_LEAST: Final = 3
"""Least number of changed days: two may be corrections, or share a factor by chance."""

JUDGED: Final = 50
"""Newest known days that decide whether most of a history changed: as many as fit on one page."""

_RATIO_ROUNDING: Final = 0.015  # percentage points: a split leaves the ratio where it was
_SLACKS: Final = (Fraction(1, 2), Fraction(1))  # of a figure's last step: rounded, truncated
_MOST_DECIMALS: Final = 6
_FAR: Final = 10

Pairs = Mapping[date, tuple[Record, Record]]
"""Known and current record by day, oldest first."""


@dataclass(frozen=True, slots=True)
class Rescaled:
    """A restatement, and the new vintage of each of its days."""

    fact: Restatement
    vintages: Mapping[date, Vintage]

    @property
    def newest(self) -> date:
        """The day the one event is about."""
        return self.fact.days[-1]

    @property
    def others(self) -> tuple[Vintage, ...]:
        """The vintages without an entry of their own, oldest first."""
        return tuple(self.vintages[day] for day in self.fact.days[:-1])


def is_revision(before: Record, now: Record) -> bool:
    """Return whether the short figures differ; one that has become absent is not a revision."""
    lost_shares = now.shares is None and before.shares is not None
    lost_ratio = now.ratio is None and before.ratio is not None
    differs = now.shares != before.shares or now.ratio != before.ratio
    return differs and not lost_shares and not lost_ratio


def restatement(known: Mapping[date, Vintage], listed: Mapping[date, Record]) -> Restatement | None:
    """Return the one cause that changed the known days, or None if there is none.

    Rescaled: at least three days moved by one factor, each to a whole number of shares; no day
    between them is missing, no older one stayed, 0 stayed 0 and the ratios stayed. Applying the
    factor to every day from first to last yields the new history. The factor is the simplest
    fraction that fits the figures, rounded or truncated.
    Recomputed: the shares stayed, and the ratios of at least three days moved by one factor, be it
    all days or those of one stretch without a gap; or those of most days by different ones.
    Replaced: most days show other figures, which no single factor explains; two will do if no
    correction reaches that far.
    """
    pairs = {day: (known[day].record, listed[day]) for day in sorted(known.keys() & listed.keys())}
    return _rescaled(pairs, known) or _recomputed(pairs, known) or _replaced(pairs)


def is_mostly_changed(known: Mapping[date, Vintage], listed: Mapping[date, Record]) -> bool:
    """Return whether most of the newest known days that are listed show other figures."""
    both = sorted(known.keys() & listed.keys())
    return _is_most((known[day].record, listed[day]) for day in both[-JUDGED:])


def _is_most(pairs: Iterable[tuple[Record, Record]]) -> bool:
    # days of 0 look alike for every company
    telling = [pair for pair in pairs if any(each.shares or each.ratio for each in pair)]
    return 2 * sum(is_revision(*pair) for pair in telling) > len(telling)


def _rescaled(pairs: Pairs, known: Mapping[date, Vintage]) -> Restatement | None:
    with_shares = {
        day: pair for day, pair in pairs.items() if None not in {each.shares for each in pair}
    }
    moved = [day for day, (before, now) in with_shares.items() if before.shares != now.shares]
    if len(moved) < RESTATED_LEAST:
        return None
    first, last = moved[0], moved[-1]
    run = {day: pair for day, pair in with_shares.items() if day <= last}
    if not all(_ratio_stays(*pair) for pair in with_shares.values()):
        return None
    if any(
        first < day < last and vintage.record.shares is not None and day not in run
        for day, vintage in known.items()
    ):
        return None
    figures = [(exact(before.shares or 0), exact(now.shares or 0)) for before, now in run.values()]
    if sum(bool(before and now) for before, now in figures) < RESTATED_LEAST:
        return None
    step = pairs[last][1].STEP
    factors = (_factor(figures, slack * step) for slack in _SLACKS)
    fitting = [factor for factor in factors if factor is not None]
    factor = min(fitting, key=lambda one: one.denominator, default=Fraction(1))
    if factor == 1:
        return None
    column = pairs[last][1].SHARES
    return Restatement(float(factor), tuple(moved), column, Cause.RESCALED)


def _ratio_stays(before: Record, now: Record) -> bool:
    if before.ratio is None or now.ratio is None:
        return before.ratio == now.ratio
    return abs(now.ratio - before.ratio) <= _RATIO_ROUNDING


def _factor(
    figures: list[tuple[int | Fraction, int | Fraction]], slack: Fraction
) -> Fraction | None:
    """Return the simplest f with |now - f·before| ≤ slack for each pair, if there is one."""
    if any(now and not before for before, now in figures):
        return None
    bounds = [((now - slack) / before, (now + slack) / before) for before, now in figures if before]
    low, high = max(low for low, _ in bounds), min(high for _, high in bounds)
    return simplest(low, high) if 0 < low <= high else None


def _recomputed(pairs: Pairs, known: Mapping[date, Vintage]) -> Restatement | None:
    same = {day: pair for day, pair in pairs.items() if pair[0].shares == pair[1].shares}
    moved = tuple(day for day, pair in same.items() if is_revision(*pair))
    if len(moved) < RESTATED_LEAST:
        return None
    factor, is_proven = _ratio_factor(same)
    if not is_proven and not _is_most(list(same.values())[-JUDGED:]):
        factor = _factor_of_stretch(same, moved[0], moved[-1], known)
        if factor is None:
            return None
    others = sum(is_revision(*pair) for pair in pairs.values()) - len(moved)
    if 2 * others >= len(moved):
        return None  # the ratios are not what changed
    return Restatement(factor, moved, pairs[moved[-1]][1].RATIO, Cause.RECOMPUTED)


def _factor_of_stretch(
    same: Pairs, first: date, last: date, known: Mapping[date, Vintage]
) -> float | None:
    """Return the factor of the ratios from `first` to `last`, as after an issue of shares; or None.

    It must be proven, and no known day in between may be absent or show other shares.
    """
    stretch = {day: pair for day, pair in same.items() if first <= day <= last}
    if any(first < day < last and day not in stretch for day in known):
        return None
    factor, is_proven = _ratio_factor(stretch)
    return factor if is_proven else None


def _ratio_factor(same: Pairs) -> tuple[float | None, bool]:
    """Return the shortest decimal c with now = c·before for each pair, within their rounding.

    Also return whether that proves a factor: moves by the last decimal may be corrections.
    """
    ratios = [(before.ratio, now.ratio) for before, now in same.values()]
    pairs = [(before, now) for before, now in ratios if before is not None and now is not None]
    if not any(now for _, now in pairs):
        return None, False  # no factor makes nothing of something
    if len(pairs) < len([1 for _, now in ratios if now is not None]):
        return None, False  # figures that were absent before
    slack, later = _slack(before for before, _ in pairs), _slack(now for _, now in pairs)
    bounds = [
        ((now - later) / (before + slack), (now + later) / (before - slack))
        for before, now in pairs
        if before > slack
    ]
    if not bounds or any(now > later for before, now in pairs if not before):
        return None, False
    low, high = max(low for low, _ in bounds), min(high for _, high in bounds)
    shortest = (round((low + high) / 2, digits) for digits in range(2 * _MOST_DECIMALS))
    is_finer = later < slack  # the same figures with more decimals: c is 1
    fitting = (c for c in shortest if low <= c <= high and c > 0 and (is_finer or c != 1))
    return next(fitting, None), low <= high and not low <= 1 <= high


def _slack(figures: Iterable[float]) -> float:
    """Return half a unit of the last decimal that any of the figures has."""
    most = max((_decimals(figure) for figure in figures), default=0)
    return 0.5 * 10.0**-most * (1 + 1e-6)


def _decimals(figure: float) -> int:
    text = f"{figure:.{_MOST_DECIMALS}f}".rstrip("0")
    return len(text.partition(".")[2])


def _is_far(before: Record, now: Record) -> bool:
    """Return whether no correction of one company's shares would be as large."""
    less, more = sorted((before.shares or 0, now.shares or 0))
    return less > 0 and more >= _FAR * less


def _replaced(pairs: Pairs) -> Restatement | None:
    moved = tuple(day for day, pair in pairs.items() if is_revision(*pair))
    least = RESTATED_LEAST - all(_is_far(*pairs[day]) for day in moved)
    if len(moved) < least or not _is_most(list(pairs.values())[-JUDGED:]):
        return None
    return Restatement(None, moved, None, Cause.REPLACED)


def in_order(found: Mapping[date, tuple[EventType, Vintage]]) -> list[date]:
    """Return a restatement first, as later days are compared with it; then oldest first."""
    return sorted(found, key=lambda day: (found[day][0] is not EventType.RESTATED, day))
