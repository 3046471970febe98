"""Tables on stdout, in which no value is broken, however narrow the terminal is."""

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from poller.markets import Record, Shares, is_below_threshold
from poller.printable import printable
from poller.show.terminal import USUAL_WIDTH, console, parts_of, room

_FIGURE: Final = re.compile(r"-|below threshold|(?:[≤≥] )?[+-]?[0-9.,]+")
_LEAST_DECIMALS, _MOST_DECIMALS = 2, 4

_LEAST_LAST: Final = 12
"""Characters that are left of a last column, however little room there is."""

_VALUE: Final = 24
"""Columns up to which a cell is a value, which is not broken; a longer one is a sentence."""

_LONG_WORD: Final = 40
"""Columns of a word, such as JSON of a receiver, that is broken after its commas."""


def print_figures(
    names: Sequence[str], rows: Sequence[Sequence[Text]], *, cut_last: bool = False, key: int = 1
) -> None:
    """Print a table of short cells to stdout: texts left-aligned, figures right-aligned.

    Cells never wrap. Columns are two spaces apart, or one if only that fits them into the terminal
    (80 columns if stdout is none). `cut_last`: cut the last column to what the others leave. Of a
    table that is wider than the terminal, further columns stand below, after the first `key` ones.
    """
    columns = [Text(name, "bold") for name in names]
    table = [columns, *rows]
    widths = [max(each.cell_len for each in column) for column in zip(*table, strict=True)]
    columns_wide = room()
    least = columns_wide or USUAL_WIDTH
    if cut_last:
        left = max(least - sum(widths[:-1]) - len(widths) + 1, _LEAST_LAST)
        for row in rows:
            row[-1].truncate(left, overflow="ellipsis")
        widths[-1] = min(widths[-1], left)
    groups = list(_groups(widths, columns_wide, key)) if columns_wide else [range(len(widths))]
    for number, group in enumerate(groups):
        if number:
            console().print()
        _print_columns(table, widths, group, least)


def _groups(widths: Sequence[int], columns: int, key: int) -> Iterator[Sequence[int]]:
    """Yield the places of the columns that fit beside each other, the first `key` in each group."""
    first = list(range(key))
    group, used = list(first), sum(widths[:key]) + key - 1
    for place in range(key, len(widths)):
        if len(group) > key and used + 1 + widths[place] > columns:
            yield group
            group, used = list(first), sum(widths[:key]) + key - 1
        group.append(place)
        used += 1 + widths[place]
    yield group


def _print_columns(
    table: Sequence[Sequence[Text]], widths: Sequence[int], places: Sequence[int], most: int
) -> None:
    """Print some columns of a table, the first row of which has their names."""
    narrow = sum(widths[place] for place in places) + len(places) - 1
    gap = " " if narrow <= most < narrow + len(places) - 1 else "  "
    right = {
        place: all(_FIGURE.fullmatch(row[place].plain) for row in table[1:]) for place in places
    }
    shown = console()
    for row in table:
        cells = []
        for place in places:
            pad = " " * (widths[place] - row[place].cell_len)
            cells.append(Text(pad) + row[place] if right[place] else row[place] + Text(pad))
        line = Text(gap).join(cells)
        line.rstrip()
        shown.print(line)


def shares_cell(record: Record) -> Text:
    """Format a number of shares, or say that there is none because it is below the threshold."""
    return Text("below threshold" if is_below_threshold(record) else number(record.shares))


def ratio_cells(records: Sequence[Record]) -> list[Text]:
    """Format a column of ratios; a position below the threshold has none."""
    return decimal_cells([None if is_below_threshold(each) else each.ratio for each in records])


def cover_cells(records: Sequence[Record]) -> list[Text]:
    """Format a column of days to cover; at a bound, with its sign: `≥ 999.99`."""
    cells = decimal_cells([each.days_to_cover for each in records])
    bounds = [each.cover_bound for each in records]
    return [
        cell if bound is None else Text(bound.sign) + cell
        for cell, bound in zip(cells, bounds, strict=True)
    ]


def number(value: Shares | None) -> str:
    """Format a number with thousands separators, or a dash."""
    return "-" if value is None else f"{value:,}"


def change_cells(change: Shares | None, percent: float | None) -> tuple[Text, Text]:
    """Format a change in shares and in percent, with signs, coloured on a terminal."""
    colour = "" if not change else "red" if change > 0 else "cyan"
    shares = "-" if change is None else f"{change:+,}" if change else "0"
    part = "-" if percent is None else f"{percent:+,.2f}" if change else "0.00"
    return Text(shares, colour), Text(part, colour)


def decimal_cells(values: Sequence[float | None], sign: str = "") -> list[Text]:
    """Format a column of figures with as many decimals as its longest has, two to four.

    `sign`: `+` shows that of a positive figure, too.
    """
    texts = [f"{value:.{_MOST_DECIMALS}f}" for value in values if value is not None]
    longest = max((len(text.rstrip("0").rpartition(".")[2]) for text in texts), default=0)
    places = max(longest, _LEAST_DECIMALS)
    forms = (f",.{places}f", f"{sign},.{places}f")
    return [Text("-" if value is None else format(value, forms[value > 0])) for value in values]


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout, figures right-aligned; "none" if there are no rows.

    Cells are made printable. On a terminal, sentences wrap between their words, and what does not
    fit into the last column stands below its row; elsewhere every row is one line.
    """
    if not rows:
        sys.stdout.write("none\n")
        return
    rows = [[printable(cell) for cell in row] for row in rows]
    columns = [(name, *cells) for name, *cells in zip(names, *rows, strict=True)]
    most = room()
    widths, gap = _fitted(columns, most)
    right = [all(map(_FIGURE.fullmatch, cells)) for _, *cells in columns]
    shown = console()
    for place, row in enumerate((names, *rows)):
        style = "" if place else "bold"
        for line in _lines(row, widths, gap, right, most):
            shown.print(Text(line.rstrip(), style))


def _fitted(columns: Sequence[Sequence[str]], most: int | None) -> tuple[list[int], int]:
    """Return each column's width and the space between two; no value is wider than its column.

    But for the last one: it gets what is left, if the values do not fit otherwise.
    """
    widths = [max(map(cell_len, cells)) for cells in columns]
    if most is None:
        return widths, 2
    least = [
        max(cell_len(part.strip()) for cell in cells for part in _parts(cell)) for cells in columns
    ]
    gap = 2 if sum(least) + 2 * (len(least) - 1) <= most else 1
    excess = sum(widths) + gap * (len(widths) - 1) - most
    for place in sorted(range(len(widths)), key=lambda place: least[place] - widths[place]):
        cut = max(0, min(excess, widths[place] - least[place]))
        widths[place] -= cut
        excess -= cut
    if 0 < excess < widths[-1]:
        widths[-1] -= excess
    return widths, gap


def _lines(
    row: Sequence[str], widths: Sequence[int], gap: int, right: Sequence[bool], most: int | None
) -> Iterator[str]:
    """Yield the lines of a row."""
    cells = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    below = ""
    if any(cell_len(line) > widths[-1] for line in cells[-1]) and most is not None:
        below, cells[-1] = row[-1], [""]
    for number_ in range(max(map(len, cells))):
        parts = []
        for cell, width, is_right in zip(cells, widths, right, strict=True):
            text = cell[number_] if number_ < len(cell) else ""
            pad = " " * (width - cell_len(text))
            parts.append(pad + text if is_right else text + pad)
        yield (" " * gap).join(parts)
    if below and most is not None:
        yield " " * max(most - cell_len(below), 2) + below


def _parts(cell: str) -> list[str]:
    """Return the parts between which a cell may be broken, each with the space before it."""
    if cell_len(cell) <= _VALUE:
        return [cell]
    found: list[str] = []
    for part in parts_of(cell):
        is_long = part.cell_len > _LONG_WORD
        found += re.split(r"(?<=[,;&])", part.plain) if is_long else [part.plain]
    return found or [""]


def _wrapped(cell: str, width: int) -> list[str]:
    """Return the lines of a cell, no wider than its column if its parts allow that."""
    lines = [""]
    for part in _parts(cell) if cell_len(cell) > width else [cell]:
        if lines[-1] and cell_len(lines[-1] + part) > width:
            lines.append(part.lstrip(" "))
        else:
            lines[-1] += part
    return lines
