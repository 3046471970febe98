"""Pictures of short interest as SVG: a sparkline, and the chart of a symbol. Pure.

No style attribute and no script, so that the strictest content policy lets them pass; colours and
line widths are the style sheet's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from math import floor, log10
from typing import Final
from xml.sax.saxutils import escape

from poller.model import Vintage

_SPARK_WIDTH: Final = 104
_SPARK_HEIGHT: Final = 24
_MARGIN: Final = 3

_WIDTH: Final = 760
_LEFT, _RIGHT = 64, 696
_TOP, _SPLIT = 34, 250
_PRICE_TOP, _BOTTOM = 290, 370
_TICKS: Final = 4
_DAY_TICKS: Final = 4
_MOST_DOTS: Final = 60

Point = tuple[float, float]


def sparkline(values: Sequence[int | None]) -> str:
    """Return a small line of `values`, oldest first; a gap where one is absent."""
    known = [value for value in values if value is not None]
    if len(known) < 2:  # noqa: PLR2004  one point is no line
        return ""
    low, high = min(known), max(known)
    step = (_SPARK_WIDTH - 2 * _MARGIN) / (len(values) - 1)

    def place(index: int, value: int) -> Point:
        part = (value - low) / (high - low) if high > low else 0.5
        y = _SPARK_HEIGHT - _MARGIN - part * (_SPARK_HEIGHT - 2 * _MARGIN)
        return _MARGIN + index * step, y

    points = [None if v is None else place(i, v) for i, v in enumerate(values)]
    lines = "".join(f'<polyline points="{_points(run)}"/>' for run in _runs(points))
    end = next(point for point in reversed(points) if point is not None)
    label = f"{len(known)} reports, from {known[0]:,} to {known[-1]:,}; {low:,} to {high:,} overall"
    return (
        f'<svg class="spark" viewBox="0 0 {_SPARK_WIDTH} {_SPARK_HEIGHT}" width="{_SPARK_WIDTH}" '
        f'height="{_SPARK_HEIGHT}" role="img" aria-label="{label}">{lines}'
        f'<circle cx="{end[0]:.1f}" cy="{end[1]:.1f}" r="2"/></svg>'
    )


_LEAST_SPAN: Final = 1e-6  # of an axis; less is no difference that anybody publishes


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


def _axis(values: Sequence[float], top: float, bottom: float, *, from_zero: bool) -> _Axis:
    low = 0.0 if from_zero else min(values)
    high = max(values)
    if high - low < _LEAST_SPAN:
        high = low + (abs(low) if abs(low) > _LEAST_SPAN else 1.0)
    rough = (high - low) / _TICKS
    size = 10.0 ** floor(log10(rough))
    step = next(size * n for n in (1, 2, 2.5, 5, 10) if size * n >= rough * 0.999)
    start = floor(low / step) * step
    end = start
    while end < high - step * 1e-9:
        end += step
    return _Axis(start, end, top, bottom, step)


def chart(title: str, vintages: Sequence[Vintage]) -> str:
    """Return the chart of a symbol's days, oldest first: shares and ratio, the price below.

    A revised day carries a ring. "" for fewer than two days with a figure.
    """
    days = [vintage.day for vintage in vintages]
    shares = [vintage.record.shares for vintage in vintages]
    ratios = [vintage.record.ratio for vintage in vintages]
    prices = [vintage.record.close_price for vintage in vintages]
    known = [value for value in shares if value is not None]
    if len(known) < 2:  # noqa: PLR2004
        return ""
    span = max((days[-1] - days[0]).days, 1)

    def across(day: date) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (day - days[0]).days / span

    left = _axis(known, _TOP, _SPLIT, from_zero=True)
    parts = [*_grid(left, _short), *_day_ticks(days[0], days[-1], across)]
    shown = list(zip(days, shares, strict=True))
    parts += _area(shown, across, left)
    if known_ratios := [value for value in ratios if value is not None]:
        right = _axis(known_ratios, _TOP, _SPLIT, from_zero=True)
        parts += _line("ratio", list(zip(days, ratios, strict=True)), across, right)
        parts += _scale(right, "ratio-scale", "%")
    if known_prices := [value for value in prices if value is not None]:
        below = _axis(known_prices, _PRICE_TOP, _BOTTOM, from_zero=False)
        parts += _price_grid(below)
        parts += _line("price", list(zip(days, prices, strict=True)), across, below)
    parts += _marks(vintages, across, left)
    described = (
        f"{len(days)} reports from {days[0]} to {days[-1]}; shares sold short from {known[0]:,} "
        f"to {known[-1]:,}, between {min(known):,} and {max(known):,}. The table below has every "
        "figure."
    )
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} 400" role="img" '
        'aria-labelledby="chart-title chart-text">'
        f'<title id="chart-title">{escape(title)}</title><desc id="chart-text">{described}</desc>'
        f"{_legend()}{''.join(parts)}</svg>"
    )


def _legend() -> str:
    return (
        f'<text class="shares-text" x="{_LEFT}" y="16">shares sold short</text>'
        f'<text class="ratio-text" x="{_RIGHT}" y="16" text-anchor="end">ratio, %</text>'
        f'<text class="price-text" x="{_LEFT}" y="{_PRICE_TOP - 12}">close price</text>'
    )


def _grid(axis: _Axis, word: Callable[[float], str]) -> Iterator[str]:
    for value in axis.ticks():
        y = axis(value)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{word(value)}</text>'


def _price_grid(axis: _Axis) -> Iterator[str]:
    for value in (axis.low, axis.high):
        y = axis(value)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:,.6g}</text>'


def _scale(axis: _Axis, name: str, unit: str) -> Iterator[str]:
    for value in axis.ticks():
        y = axis(value) + 4
        yield f'<text class="{name}" x="{_RIGHT + 8}" y="{y:.1f}">{value:.4g} {unit}</text>'


def _day_ticks(first: date, last: date, across: Callable[[date], float]) -> Iterator[str]:
    steps = min(_DAY_TICKS, (last - first).days)
    for n in range(steps + 1):
        day = first + timedelta(days=round((last - first).days * n / steps))
        anchor = "start" if n == 0 else "end" if n == steps else "middle"
        yield f'<text x="{across(day):.1f}" y="{_BOTTOM + 22}" text-anchor="{anchor}">{day}</text>'


def _area(
    shown: Sequence[tuple[date, int | None]], across: Callable[[date], float], axis: _Axis
) -> Iterator[str]:
    points = [None if v is None else (across(day), axis(v)) for day, v in shown]
    for run in _runs(points):
        closed = [(run[0][0], _SPLIT), *run, (run[-1][0], _SPLIT)]
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
    """Yield a dot a report, where there are not too many, and a ring around each revised one."""
    for vintage in vintages:
        value = vintage.record.shares
        if value is None or not (vintage.revision or len(vintages) <= _MOST_DOTS):
            continue
        revised = f", revision {vintage.revision}" if vintage.revision else ""
        name, radius = ("revised", 5) if vintage.revision else ("dot", 2.5)
        yield (
            f'<circle class="{name}" cx="{across(vintage.day):.1f}" cy="{axis(value):.1f}" '
            f'r="{radius}"><title>{vintage.day}: {value:,}{revised}</title></circle>'
        )


def _runs(points: Sequence[Point | None]) -> Iterator[list[Point]]:
    """Yield the stretches without a gap."""
    for there, run in groupby(points, key=lambda point: point is not None):
        if there:
            yield [point for point in run if point is not None]


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _short(value: float) -> str:
    """Return a count of shares in a few characters: 1.2 M."""
    for size, letter in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"
