"""What a symbol's page shows beside the raw figures: moves, and what the live chart draws. Pure.

The chart that is drawn here is complete; where a script runs, it draws panels of the same figures
from one element of the page, which holds numbers alone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from itertools import pairwise, repeat
from typing import Any, Final

from poller.detect.change import Timeline, move
from poller.markets import Market, Record, Shares, is_below_threshold
from poller.model import Instrument, Vintage, to_json
from poller.schedule.facts import Facts
from poller.web.formatting import ABSENT, difference, finite, ratio, signed, zscore
from poller.web.watchlist_view import figure

_EPOCH: Final = date(1970, 1, 1)
_LEAST: Final = 2
_MOST: Final = 1e15  # larger ones would be no picture


@dataclass(frozen=True, slots=True)
class Move:
    """A report against the one before, with a split between the two taken out.

    Attributes:
        shares: The difference; None if either is below the threshold or absent.
        percent: The same in percent of the shares before.
        split: The factor of that split; None for none.
    """

    shares: Shares | None
    percent: float | None
    split: Fraction | None = None


UNMOVED: Final = Move(None, None)
"""Of a day that nothing is known before."""


def moves(vintages: Sequence[Vintage]) -> dict[date, Move]:
    """Return day → its move, of every day but the oldest. `vintages`: newest first."""
    timeline = Timeline({vintage.day: vintage.record for vintage in vintages})
    found = {}
    for now, before in pairwise(vintages):
        split = timeline.split_before(now.day)
        if figure(now.record) is None or figure(before.record) is None:
            found[now.day] = Move(None, None, split)
        else:
            found[now.day] = Move(*move(before.record, now.record, split), split)
    return found


@dataclass(frozen=True, slots=True)
class Beside:
    """Columns of the history table beside the reported figures; one without a figure is left out.

    Attributes:
        heads: Of these columns.
        cells: Day → what stands in them, in words.
    """

    heads: tuple[str, ...]
    cells: Mapping[date, tuple[str, ...]]


def beside(vintages: Sequence[Vintage], facts: Sequence[Facts], known: Instrument) -> Beside:
    """Return what a history says of each day beside its figures. `facts`: of these days."""
    percents = [known.outstanding_percent(vintage.record) for vintage in vintages]
    columns = {
        "Days to cover, change": [difference(each.days_to_cover_change) for each in facts],
        "z-score": [zscore(each.zscore) for each in facts],
        "Streak": [signed(each.streak) for each in facts],
        "Of outstanding": [ratio(percent) for percent in percents],
    }
    kept = {head: cells for head, cells in columns.items() if set(cells) - {ABSENT}}
    days = [vintage.day for vintage in vintages]
    rows = zip(*kept.values(), strict=True) if kept else repeat(())
    return Beside(tuple(kept), dict(zip(days, rows, strict=False)))


_PANELS: Final[tuple[tuple[str, str, Callable[[Record], float | None]], ...]] = (
    ("shares", "Shares short", figure),
    ("ratio", "Ratio, %", lambda record: record.ratio),
    ("cover", "Days to cover", lambda record: record.days_to_cover),
    ("price", "Close", lambda record: record.close_price),
)
"""Of the live chart: key, which is its CSS class as well, head, figure of a record."""


def plotted(
    market: Market, vintages: Sequence[Vintage], moved: Mapping[date, Move]
) -> dict[str, Any] | None:
    """Return the live chart's figures, oldest first; None for fewer than two shares.

    Of JSON: `days` since 1970; of each panel `key`, `name` and `values`; `change` and `percent`, as
    of `moves`; the places of `below` the threshold, of `revised` and of `split` days in `days`.
    """
    if sum(_drawn(figure(vintage.record)) is not None for vintage in vintages) < _LEAST:
        return None
    days = list(reversed(vintages))
    panels = [_panel(market, days, *each) for each in _PANELS]
    steps = [moved.get(vintage.day, UNMOVED) for vintage in days]
    return {
        "days": [(vintage.day - _EPOCH).days for vintage in days],
        "panels": [each for each in panels if any(v is not None for v in each["values"])],
        "change": [_drawn(step.shares) for step in steps],
        "percent": [_drawn(step.percent) for step in steps],
        "below": _places(is_below_threshold(vintage.record) for vintage in days),
        "revised": _places(bool(vintage.revision) for vintage in days),
        "split": _places(step.split is not None for step in steps),
    }


def plot_text(plot: Mapping[str, Any] | None) -> str:
    """Return it as JSON; "" for None."""
    return "" if plot is None else to_json(plot)


def _panel(
    market: Market,
    days: Sequence[Vintage],
    key: str,
    name: str,
    figure_of: Callable[[Record], float | None],
) -> dict[str, Any]:
    word = f"{name}, {market.record.PRICE_UNIT}" if key == "price" else name
    values = [
        None if is_below_threshold(vintage.record) and key != "price" else figure_of(vintage.record)
        for vintage in days
    ]
    return {"key": key, "name": word, "values": [_drawn(value) for value in values]}


def _drawn(value: float | None) -> float | None:
    known = finite(value)
    return known if known is not None and abs(known) <= _MOST else None


def _places(marks: Iterable[bool]) -> list[int]:
    return [place for place, marked in enumerate(marks) if marked]
