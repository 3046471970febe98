"""Draws short interest as SVG: a sparkline, and the chart of a symbol. Pure.

There is no style attribute and no script, so that the strictest content policy allows it; the style
sheet sets colours and line widths.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from itertools import groupby, pairwise
from math import floor, log10
from statistics import median
from typing import Final
from xml.sax.saxutils import escape

from poller.markets import Shares, is_below_threshold
from poller.model import Vintage
from poller.web.formatting import short
from poller.web.watchlist_view import figure

_SPARK_WIDTH: Final = 104
_SPARK_HEIGHT: Final = 24
_MARGIN: Final = 3

_TICKS: Final = 4
_PRICE_TICKS: Final = 2
_MOST_DOTS: Final = 60

_ROUNDING: Final = 0.005  # of a ratio with two decimals
_TELLING: Final = 0.05  # of a ratio: it needs a line of its own if it differs more from the shares
_LEAST_PERCENT: Final = 1e-15  # less than one share of ten trillion is
_MOST_PERCENT: Final = 1e6  # more than any share is; a larger median may be infinite

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Frame:
    """The layout of a chart in SVG units, shares above prices. `name`: its CSS class."""

    name: str
    width: int
    left: int
    right: int
    day_ticks: int
    height: int = 400
    top: int = 34
    split: int = 250
    price_top: int = 296
    bottom: int = 370


FRAMES: Final = (Frame("desk", 1100, 64, 1040, 6), Frame("phone", 440, 54, 394, 2))
"""For a desktop and a phone: text of one size would not fit both."""


def sparkline(values: Sequence[Shares | None]) -> str:
    """Return a small line of `values`, oldest first; absent ones are gaps."""
    known = [value for value in values if value is not None]
    if len(known) < 2:  # noqa: PLR2004  one point makes no line
        return ""
    low, high = min(known), max(known)
    step = (_SPARK_WIDTH - 2 * _MARGIN) / (len(values) - 1)

    def place(index: int, value: Shares) -> Point:
        part = (value - low) / (high - low) if high > low else 0.5
        y = _SPARK_HEIGHT - _MARGIN - part * (_SPARK_HEIGHT - 2 * _MARGIN)
        return _MARGIN + index * step, y

    points = [None if v is None else place(i, v) for i, v in enumerate(values)]
    lines = "".join(f'<polyline points="{_points(run)}"/>' for run in _runs(points))
    dot = (
        ""
        if (end := points[-1]) is None
        else f'<circle cx="{end[0]:.1f}" cy="{end[1]:.1f}" r="2"/>'
    )
    label = f"{len(known)} reports, from {known[0]:,} to {known[-1]:,}; {low:,} to {high:,} overall"
    if gaps := len(values) - len(known):
        label += f"; {gaps} without a figure"
    return (
        f'<svg class="spark" viewBox="0 0 {_SPARK_WIDTH} {_SPARK_HEIGHT}" width="{_SPARK_WIDTH}" '
        f'height="{_SPARK_HEIGHT}" role="img" aria-label="{label}">{lines}{dot}</svg>'
    )


_LEAST_SPAN: Final = 1e-6  # of an axis; no published figures differ by less
_LEAST_PART: Final = 1e-9  # of its values; smaller steps would be lost in rounding
_MOST: Final = 1e12  # a ratio or a price beyond it is not drawn


@dataclass(frozen=True, slots=True)
class _Axis:
    """A linear scale from values to a range of y."""

    low: float
    high: float
    top: float
    bottom: float
    step: float

    def __call__(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return self.bottom - part * (self.bottom - self.top)

    def ticks(self) -> list[float]:
        """Return the round values to mark, lowest first."""
        count = round((self.high - self.low) / self.step)
        return [self.low + n * self.step for n in range(count + 1)]


def _axis(
    values: Sequence[float],
    top: float,
    bottom: float,
    *,
    from_zero: bool = True,
    ticks: int = _TICKS,
) -> _Axis:
    low = 0.0 if from_zero else min(values)
    high = max(values)
    if high - low < max(_LEAST_SPAN, _LEAST_PART * abs(high)):
        high = low + (abs(low) if abs(low) > _LEAST_SPAN else 1.0)
    rough = (high - low) / ticks
    size = 10.0 ** floor(log10(rough))
    step = next(size * n for n in (1, 2, 2.5, 5, 10) if size * n >= rough * 0.999)
    start = floor(low / step) * step
    end = start
    while end < high - step * 1e-9:
        end += step
    return _Axis(start, end, top, bottom, step)


def chart(title: str, vintages: Sequence[Vintage], frame: Frame) -> str:
    """Return the chart of a symbol's days, oldest first: shares and ratio, with prices below.

    Shares and ratio share a grid, with the ratio's scale at the right; the ratio has a line of its
    own only if it does not just repeat the shares. Days below the reporting threshold are hatched,
    and a revised day has a ring. Returns "" for fewer than two days with a figure.
    """
    days = [vintage.day for vintage in vintages]
    shares = [figure(vintage.record) for vintage in vintages]
    known = [value for value in shares if value is not None]
    if len(known) < 2:  # noqa: PLR2004
        return ""
    across = partial(_across, frame, days[0], max((days[-1] - days[0]).days, 1))
    percent = _percent_of_one(vintages)
    ratios = [] if percent is None else _ratios(vintages, percent)
    axis = _axis([*known, *(value for _, value in ratios if value)], frame.top, frame.split)
    parts = [*_hatched(vintages, across, frame), *_grid(axis, short, frame)]
    parts += [*_day_ticks(days[0], days[-1], across, frame)]
    parts += _area(list(zip(days, shares, strict=True)), across, axis)
    parts += _line("ratio", ratios, across, axis)
    if percent is not None:
        parts += _percents(axis, percent, frame, dashed=bool(ratios))
    parts += _prices(vintages, across, frame)
    parts += _marks(vintages, across, axis)
    return (
        f'<svg class="chart {frame.name}" viewBox="0 0 {frame.width} {frame.height}" role="img" '
        f'aria-label="{escape(title, {chr(34): "&quot;"})}"><desc>{_described(days, known)}</desc>'
        f'<pattern id="hatch-{frame.name}" width="7" height="7" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><line class="hatch" y2="7"/></pattern>'
        f"{''.join(parts)}</svg>"
    )


def _described(days: Sequence[date], known: Sequence[Shares]) -> str:
    below = len(days) - len(known)
    return (
        f"{len(days)} reports from {days[0]} to {days[-1]}; shares sold short from {known[0]:,} "
        f"to {known[-1]:,}, between {min(known):,} and {max(known):,}"
        + (f"; {below} without a figure, or below the reporting threshold" if below else "")
        + ". The table below has every figure."
    )


def _across(frame: Frame, first: date, span: int, day: date) -> float:
    return frame.left + (frame.right - frame.left) * (day - first).days / span


def _percent_of_one(vintages: Sequence[Vintage]) -> float | None:
    """Return how many percent one share is, the median of the reports; None if unknown."""
    pairs = [(_drawn(vintage.record.ratio), figure(vintage.record)) for vintage in vintages]
    parts = [ratio / shares for ratio, shares in pairs if ratio and shares]
    found = median(parts) if parts else 0.0
    return found if _LEAST_PERCENT < found < _MOST_PERCENT else None


def _ratios(vintages: Sequence[Vintage], percent: float) -> list[tuple[date, float | None]]:
    """Return each day's ratio converted to shares; empty if it just repeats the shares."""
    drawn: list[tuple[date, float | None]] = []
    follows = True
    for vintage in vintages:
        ratio, shares = _drawn(vintage.record.ratio), figure(vintage.record)
        if ratio is None or is_below_threshold(vintage.record):
            drawn.append((vintage.day, None))
            continue
        drawn.append((vintage.day, ratio / percent))
        off = 0.0 if shares is None else abs(ratio - shares * percent)
        follows = follows and off <= _ROUNDING + _TELLING * ratio
    return [] if follows else drawn


def _drawn(value: float | None) -> float | None:
    """Return a ratio or price that a chart can show, else None."""
    return value if value is not None and 0 <= value <= _MOST else None


def _hatched(
    vintages: Sequence[Vintage], across: Callable[[date], float], frame: Frame
) -> Iterator[str]:
    """Yield a band for each period below the threshold, half-way to the neighbouring reports."""
    places = [across(vintage.day) for vintage in vintages]
    middles = [places[0], *((a + b) / 2 for a, b in pairwise(places)), places[-1]]
    start = 0
    for below, run in groupby(vintages, key=lambda vintage: is_below_threshold(vintage.record)):
        stretch = list(run)
        end = start + len(stretch)
        if below:
            width = max(middles[end] - middles[start], _MARGIN)
            yield (
                f'<rect class="below" x="{middles[start]:.1f}" y="{frame.top}" width="{width:.1f}" '
                f'height="{frame.split - frame.top}" fill="url(#hatch-{frame.name})"><title>'
                f"{stretch[0].day} to {stretch[-1].day}: below the reporting threshold"
                "</title></rect>"
            )
        start = end


def _grid(axis: _Axis, word: Callable[[float], str], frame: Frame) -> Iterator[str]:
    for value in axis.ticks():
        y = axis(value)
        yield f'<line class="grid" x1="{frame.left}" x2="{frame.right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{frame.left - 8}" y="{y + 4:.1f}" text-anchor="end">{word(value)}</text>'
    yield f'<text class="shares-text" x="{frame.left}" y="16">shares sold short</text>'


def _percents(axis: _Axis, percent: float, frame: Frame, *, dashed: bool) -> Iterator[str]:
    """Yield the right scale: the grid's values in percent."""
    name, word = ("ratio-text", "ratio, % (dashed)") if dashed else ("shares-text", "ratio, %")
    yield f'<text class="{name}" x="{frame.right}" y="16" text-anchor="end">{word}</text>'
    places = max(0, 1 - floor(log10(axis.step * percent)))
    for value in axis.ticks():
        y = axis(value) + 4
        yield f'<text x="{frame.right + 8}" y="{y:.1f}">{value * percent:.{places}f}</text>'


def _prices(
    vintages: Sequence[Vintage], across: Callable[[date], float], frame: Frame
) -> Iterator[str]:
    shown = [(vintage.day, _drawn(vintage.record.close_price)) for vintage in vintages]
    known = [price for _, price in shown if price is not None]
    if not known:
        return
    axis = _axis(known, frame.price_top, frame.bottom, from_zero=False, ticks=_PRICE_TICKS)
    for value in axis.ticks():
        y = axis(value)
        yield f'<line class="grid" x1="{frame.left}" x2="{frame.right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{frame.left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:,.6g}</text>'
    unit = vintages[0].record.PRICE_UNIT
    yield (
        f'<text class="price-text" x="{frame.left}" y="{frame.price_top - 14}">close price, {unit}'
        "</text>"
    )
    yield from _line("price", shown, across, axis)


def _day_ticks(
    first: date, last: date, across: Callable[[date], float], frame: Frame
) -> Iterator[str]:
    steps = min(frame.day_ticks, (last - first).days)
    for n in range(steps + 1):
        day = first + timedelta(days=round((last - first).days * n / steps))
        anchor = "start" if n == 0 else "end" if n == steps else "middle"
        y = frame.bottom + 22
        yield f'<text x="{across(day):.1f}" y="{y}" text-anchor="{anchor}">{day}</text>'


def _area(
    shown: Sequence[tuple[date, Shares | None]], across: Callable[[date], float], axis: _Axis
) -> Iterator[str]:
    points = [None if v is None else (across(day), axis(v)) for day, v in shown]
    for run in _runs(points):
        closed = [(run[0][0], axis.bottom), *run, (run[-1][0], axis.bottom)]
        yield f'<polygon class="shares-area" points="{_points(closed)}"/>'
        yield f'<polyline class="shares" points="{_points(run)}"/>'


def _line(
    name: str,
    shown: Sequence[tuple[date, float | None]],
    across: Callable[[date], float],
    axis: _Axis,
) -> Iterator[str]:
    points = [None if v is None else (across(day), axis(v)) for day, v in shown]
    for run in _runs(points):
        yield f'<polyline class="{name}" points="{_points(run)}"/>'


def _marks(
    vintages: Sequence[Vintage], across: Callable[[date], float], axis: _Axis
) -> Iterator[str]:
    """Yield a dot for each report unless there are too many, and a ring for each revised one."""
    for vintage in vintages:
        value = figure(vintage.record)
        if value is None or not (vintage.revision or len(vintages) <= _MOST_DOTS):
            continue
        revised = f", revision {vintage.revision}" if vintage.revision else ""
        name, radius = ("revised", 5) if vintage.revision else ("dot", 2.5)
        yield (
            f'<circle class="{name}" cx="{across(vintage.day):.1f}" cy="{axis(value):.1f}" '
            f'r="{radius}"><title>{vintage.day}: {value:,}{revised}</title></circle>'
        )


def _runs(points: Sequence[Point | None]) -> Iterator[list[Point]]:
    """Yield the runs of points without a gap."""
    for there, run in groupby(points, key=lambda point: point is not None):
        if there:
            yield [point for point in run if point is not None]


def _points(points: Sequence[Point]) -> str:
    if len(points) == 1:  # a line without length: its round ends make a dot
        points = [*points, *points]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
