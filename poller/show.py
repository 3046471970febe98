"""Terminal output: one line per event, tables, progress bars. Reads only."""

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from poller.detect.held import QuarantinedFigure
from poller.detect.impossible import explained
from poller.events import Foreign, StreamEvent, StreamNotice, decode
from poller.markets import Record, Shares
from poller.model import Cause, Change, Code, isoformat, market_of, to_json
from poller.printable import printable, printable_json
from poller.store.store import Entry

_COLOURS: Final = {
    "reported": "green",
    "revised": "yellow",
    "backfilled": "dim",
    "restated": "magenta",
    "detected": "yellow",
    "completed": "green",
}

LINE_LIMIT: Final = 2_000
"""Most characters of a line outside tables: enough to quote an answer in it."""

USUAL_WIDTH: Final = 80
"""Columns of a table of figures where stdout is no terminal."""

_NAMED: Final = 10
_BIGGEST: Final = 3  # moves in a line of a release
_FIGURE: Final = re.compile(r"-|< threshold|[+-]?[0-9.,]+")
_LEAST_DECIMALS, _MOST_DECIMALS = 2, 4
_UNBOUNDED: Final = 10_000  # columns where stdout is no terminal


def console() -> Console:
    """Return a console on stdout; it uses colours on a terminal only."""
    return Console(highlight=False, soft_wrap=True)


def errors() -> Console:
    """Return a console on stderr, for progress bars."""
    return Console(stderr=True)


def say(text: str) -> None:
    """Print one line to stdout; untrusted parts are made printable."""
    sys.stdout.write(f"{printable(text, LINE_LIMIT)}\n")


def say_json(document: str) -> None:
    """Print a JSON document to stdout, unchanged in value and safe on a terminal."""
    sys.stdout.write(f"{printable_json(document)}\n")


def entry_line(entry: Entry) -> Text:
    """Return one line of `tail`: time (UTC), symbol, day, kind, shares, ratio, change, name.

    The name is last, because wide characters in it would shift the columns after it.
    """
    event = decode(entry.id, entry.fields)
    if not isinstance(event, StreamEvent):
        return _foreign(entry, event)
    line = _figures_line(event)
    return line.append(f"  {event.name}", "dim") if event.name else line


def _figures_line(event: StreamEvent) -> Text:
    line = _start_of_line(event, event.code, event.kind)
    below = "below_threshold" in event.flags
    shares = "below threshold" if below else f"{_number(event.record.shares):>15} short"
    line.append(f" {shares:<21}")
    ratio = event.record.ratio
    line.append(f"  {'-' if ratio is None or below else f'{ratio:.2f}'} %", "dim")
    if below:  # an unreported figure has no change
        return line
    if event.restated is not None:
        line.append(f"  {event.restated.days} days from {event.restated.first}")
        if event.restated.factor is not None:
            line.append(f" × {event.restated.factor:g}")
        if event.restated.cause == Cause.RECOMPUTED:
            line.append(f" {event.restated.column}")
    elif event.change is not None:
        line.append("  ")
        line.append(*_change(event.change))
        if event.change.split_factor is not None:
            line.append(f"  split × {event.change.split_factor:g}")
    return line


_LEAST_LAST: Final = 12
"""Characters that are left of a last column, however little room there is."""


def release_line(entry: Entry) -> Text:
    """Return one line of `tail --releases`: time (UTC), market, day, kind, who lacks it, who moved.

    Only the three biggest moves are shown; the notice has more.
    """
    notice = decode(entry.id, entry.fields)
    if not isinstance(notice, StreamNotice):
        return _foreign(entry, notice)
    line = _start_of_line(notice, notice.market.name, notice.type.rpartition(".")[2])
    if notice.code is not None:
        return line.append(f" first shown by {notice.code}")
    line.append(f" {notice.found or 0:,} of {notice.expected or 0:,} symbols")
    missing, named = notice.missing, notice.missing_codes[:_NAMED]
    if missing:
        more = f" and {missing - len(named):,} more" if missing > len(named) else ""
        line.append(f"; missing: {printable(' '.join(named))}{more}", "dim")
    for place, each in enumerate((notice.biggest or ())[:_BIGGEST]):
        line.append(", " if place else "; biggest: ")
        line.append(f"{each.code} ").append(*_moved(each.change, each.percent))
    return line


def _start_of_line(message: StreamEvent | StreamNotice, subject: str, kind: str) -> Text:
    line = Text()
    line.append(f"{message.observed_at.astimezone(UTC):%m-%d %H:%M:%S}  ", "dim")
    line.append(f"{subject:<9}", "bold")
    line.append(f" {message.trading_day}  ")
    return line.append(f"{kind:<10}", _COLOURS.get(kind, ""))


def _foreign(entry: Entry, found: StreamEvent | StreamNotice | Foreign) -> Text:
    why = f" ({found.reason})" if isinstance(found, Foreign) else ""
    line = f"{entry.id} is not an event of this service{why}: {dict(entry.fields)}"
    return Text(printable(line, LINE_LIMIT), "red")


def _change(change: Change) -> tuple[str, str]:
    if change.shares is None:
        return "change unknown", "dim"
    if not change.shares:
        return "unchanged", "dim"
    return _moved(change.shares, change.percent)


def _moved(shares: Shares, percent: float | None) -> tuple[str, str]:
    part = "" if percent is None else f" ({percent:+.2f} %)"
    return f"{shares:+,}{part}", "red" if shares > 0 else "cyan"


def _number(value: Shares | None) -> str:
    return "-" if value is None else f"{value:,}"


def print_figures(
    names: Sequence[str], rows: Sequence[Sequence[Text]], *, cut_last: bool = False
) -> None:
    """Print a table of short cells to stdout: texts left-aligned, figures right-aligned.

    Cells never wrap. Columns are two spaces apart, or one if only that fits them into the terminal
    (80 columns if stdout is none). `cut_last`: cut the last column to what the others leave.
    """
    columns = [Text(name, "bold") for name in names]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else USUAL_WIDTH
    if cut_last:
        left = max(room - sum(widths[:-1]) - len(widths) + 1, _LEAST_LAST)
        for row in rows:
            row[-1].truncate(left, overflow="ellipsis")
        widths[-1] = min(widths[-1], left)
    least = sum(widths) + len(widths) - 1
    gap = " " if least <= room < least + len(widths) - 1 else "  "
    right = [
        all(_FIGURE.fullmatch(cell.plain) for cell in column[1:])
        for column in zip(columns, *rows, strict=True)
    ]
    shown = console()
    for row in (columns, *rows):
        cells = []
        for cell, width, is_right in zip(row, widths, right, strict=True):
            pad = " " * (width - len(cell))
            cells.append(Text(pad) + cell if is_right else cell + Text(pad))
        line = Text(gap).join(cells)
        line.rstrip()
        shown.print(line)


def shares_cell(record: Record) -> Text:
    """Format a number of shares, or `< threshold` if it was not reported for that reason."""
    return Text("< threshold" if "below_threshold" in record.flags else _number(record.shares))


def change_cells(change: Shares | None, percent: float | None) -> tuple[Text, Text]:
    """Format a change in shares and in percent, with signs, coloured on a terminal."""
    colour = "" if not change else "red" if change > 0 else "cyan"
    shares = "-" if change is None else f"{change:+,}" if change else "0"
    part = "-" if percent is None else f"{percent:+,.2f}" if change else "0.00"
    return Text(shares, colour), Text(part, colour)


def decimal_cells(values: Sequence[float | None]) -> list[Text]:
    """Format a column of figures with as many decimals as its longest has, two to four."""
    texts = [f"{value:.{_MOST_DECIMALS}f}" for value in values if value is not None]
    longest = max((len(text.rstrip("0").rpartition(".")[2]) for text in texts), default=0)
    places = max(longest, _LEAST_DECIMALS)
    return [Text("-" if value is None else f"{value:,.{places}f}") for value in values]


def progress_bar(counted: str = "") -> Progress:
    """Return a bar on stderr, shown on a terminal only; `counted`: the unit to count, if any."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *((MofNCompleteColumn(), TextColumn(counted)) if counted else (TaskProgressColumn(),)),
        TimeElapsedColumn(),
        disable=not sys.stderr.isatty(),
        console=errors(),
    )


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout, figures right-aligned; "none" if there are no rows.

    Cells are made printable. On a terminal they wrap between words, and long words make the table
    wider than the terminal; elsewhere every row is one line.
    """
    if not rows:
        sys.stdout.write("none\n")
        return
    rows = [[printable(cell) for cell in row] for row in rows]
    columns = [(name, *cells) for name, *cells in zip(names, *rows, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNBOUNDED
    table = Table(box=None, header_style="bold", pad_edge=False)
    for (name, *cells), width in zip(columns, _widths(columns, room), strict=True):
        right = all(map(_FIGURE.fullmatch, cells))
        table.add_column(name, justify="right" if right else "left", width=width)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False, width=_UNBOUNDED, height=1).print(table)


_WORDS: Final = re.compile(r" (?![0-9]{2}:[0-9]{2})")
"""Where a cell may be broken: not between the date and the time of an instant."""


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return each column's width; none is narrower than its longest word, or an instant."""
    widths = [max(map(cell_len, cells)) for cells in columns]
    least = [
        max(cell_len(word) for cell in cells for word in _WORDS.split(cell)) for cells in columns
    ]
    excess = sum(widths) + 2 * (len(widths) - 1) - room
    for place in sorted(range(len(widths)), key=lambda place: least[place] - widths[place]):
        cut = max(0, min(excess, widths[place] - least[place]))
        widths[place] -= cut
        excess -= cut
    return widths


@dataclass(frozen=True, slots=True)
class Gaps:
    """A symbol's reporting days without a record, since its oldest known day.

    `held`: day → why it is in quarantine.
    """

    code: Code
    since: date | None
    days: tuple[date, ...]
    held: Mapping[date, str]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "code": self.code,
            "since": None if self.since is None else str(self.since),
            "missing": [str(day) for day in self.days],
            "held": {str(day): reason for day, reason in self.held.items()},
        }


def print_gaps(found: Sequence[Gaps], *, as_json: bool) -> None:
    """Print one line per symbol to stdout, or a JSON list."""
    if as_json:
        say_json(json.dumps([each.as_json() for each in found]))
        return
    for each in found:
        say(f"{each.code:<9} {_gaps_line(each)}")


def _gaps_line(gaps: Gaps) -> str:
    if gaps.since is None:
        return "nothing is known"
    if not gaps.days:
        return f"nothing missing since {gaps.since}"
    named = [
        f"{day} (held: {gaps.held[day]})" if day in gaps.held else str(day)
        for day in gaps.days[:_NAMED]
    ]
    if more := len(gaps.days) - len(named):
        named.append(f"and {more} more (--json names all)")
    return f"{len(gaps.days)} missing since {gaps.since}: {', '.join(named)}"


def print_held(rows: Sequence[tuple[Code, QuarantinedFigure]], *, as_json: bool) -> None:
    """Print held figures to stdout, as a table or a JSON list."""
    if as_json:
        found = [{"code": code} | json.loads(held.to_json()) for code, held in rows]
        say_json(to_json(found))
        return
    cells = [
        (
            code,
            str(held.day),
            str(held.decision),
            explained(market_of(code), held),
            _number(held.record.shares),
            _number(held.previous.shares if held.previous else None),
            isoformat(held.observed_at),
        )
        for code, held in rows
    ]
    print_table(("code", "day", "state", "reason", "shares", "after", "observed_at"), cells)
