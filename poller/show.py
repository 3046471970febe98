"""What a person reads on a terminal: one line per event, tables, progress. Readers only."""

import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poller.detect.held import Held
from poller.detect.impossible import explained
from poller.events import Foreign, StreamEvent, StreamNotice, decode
from poller.model import (
    Cause,
    Change,
    Code,
    Market,
    Vintage,
    columns,
    isoformat,
    market_of,
    to_json,
)
from poller.printable import printable, printable_json
from poller.storage.plain import history_rows
from poller.storage.store import Entry

_COLOURS: Final = {
    "reported": "green",
    "revised": "yellow",
    "backfilled": "dim",
    "restated": "magenta",
    "detected": "yellow",
    "completed": "green",
}

LINE_LIMIT: Final = 2_000
"""Characters of a line that is no table's: an answer quoted in it stays readable."""

_NAMED: Final = 10
_NOT_OURS: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a look into an entry runs into that another program has written."""

_WORD_LIMIT: Final = 40  # characters of a code, a day, a kind
_FIGURE: Final = re.compile(r"-|[0-9.,]+")
_UNBOUNDED: Final = 10_000  # columns of what is no terminal


def console() -> Console:
    """Return a console on stdout; it colours on a terminal only."""
    return Console(highlight=False, soft_wrap=True)


def errors() -> Console:
    """Return a console on stderr, for progress bars."""
    return Console(stderr=True)


def say(text: str) -> None:
    """Print one line to stdout, safe to show whoever wrote a part of it."""
    sys.stdout.write(f"{printable(text, LINE_LIMIT)}\n")


def say_json(document: str) -> None:
    """Print a JSON document to stdout: exact, and safe to look at."""
    sys.stdout.write(f"{printable_json(document)}\n")


def entry_line(entry: Entry) -> Text:
    """Return one line of `tail`: when in UTC, symbol, day, kind, shares, ratio, change."""
    event = decode(entry.id, entry.fields)
    if not isinstance(event, StreamEvent):
        return _foreign(entry, event)
    line = _begun(event, event.code, event.kind)
    below = "below_threshold" in event.flags
    shares = "below threshold" if below else f"{_number(event.record.shares):>15} short"
    line.append(f" {shares:<21}")
    ratio = event.record.ratio
    line.append(f"  {'-' if ratio is None or below else f'{ratio:.2f}'} %", "dim")
    if below:  # a figure that is not reported cannot have changed
        return line
    if event.restated is not None:
        line.append(f"  {event.restated.days} days from {event.restated.first}")
        if event.restated.factor is not None:
            line.append(f" × {event.restated.factor:g}")
        if event.restated.cause == Cause.RECOMPUTED:
            line.append(f" {event.restated.column}")
    elif event.change is not None:
        line.append("  ")
        line.append(*_moved(event.change))
        if event.change.split_factor is not None:
            line.append(f"  split × {event.change.split_factor:g}")
    return line


def release_line(entry: Entry) -> Text:
    """Return one line of `tail --releases`: time, market, day, out or complete, who is missing."""
    notice = decode(entry.id, entry.fields)
    if not isinstance(notice, StreamNotice):
        return _foreign(entry, notice)
    line = _begun(notice, notice.market, notice.type.rpartition(".")[2])
    if notice.code is not None:
        return line.append(f" first shown by {notice.code}")
    line.append(f" {notice.found or 0:,} of {notice.expected or 0:,} symbols")
    missing, named = notice.missing, notice.missing_codes[:_NAMED]
    if missing:
        more = f" and {missing - len(named):,} more" if missing > len(named) else ""
        line.append(f"; missing: {printable(' '.join(named))}{more}", "dim")
    return line


def _begun(message: StreamEvent | StreamNotice, who: str, kind: str) -> Text:
    line = Text()
    line.append(f"{message.observed_at.astimezone(UTC):%m-%d %H:%M:%S}  ", "dim")
    line.append(f"{who:<9}", "bold")
    line.append(f" {message.trading_day}  ")
    return line.append(f"{kind:<10}", _COLOURS.get(kind, ""))


def _foreign(entry: Entry, found: StreamEvent | StreamNotice | Foreign) -> Text:
    why = f" ({found.reason})" if isinstance(found, Foreign) else ""
    told = f"{entry.id} is not an event of this service{why}: {dict(entry.fields)}"
    return Text(printable(told, LINE_LIMIT), "red")


def _moved(change: Change) -> tuple[str, str]:
    if change.shares is None:
        return "change unknown", "dim"
    if not change.shares:
        return "unchanged", "dim"
    part = "" if change.percent is None else f" ({change.percent:+.2f} %)"
    return f"{change.shares:+,}{part}", "red" if change.shares > 0 else "cyan"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


def print_history(market: Market, vintages: Sequence[Vintage], form: str) -> None:
    """Print a symbol's history to stdout as `table`, its day first, `csv` or `json`."""
    rows = history_rows(vintages)
    names = [*columns(market), "revision", "observed_at"]
    match form:
        case "json":
            say_json(json.dumps(rows, indent=2))
        case "csv":
            writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        case _:
            # a narrow terminal cuts what stands last
            names = ["timestamp_str", *(n for n in names if not n.startswith("timestamp"))]
            names.append("timestamp")
            cells = [[_cell(name, row[name]) for name in names] for row in rows]
            print_table(names, cells)


def _cell(name: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and name not in {"timestamp", "revision"}:
        return f"{value:,}"
    return str(value)


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout, numbers to the right; "none" if there are no rows.

    Cells are made safe to show, whoever wrote them. On a terminal the last column wraps, elsewhere
    every row is one line.
    """
    if not rows:
        sys.stdout.write("none\n")
        return
    wraps = sys.stdout.isatty()
    rows = [[printable(cell) for cell in row] for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, name in enumerate(names):
        right = all(_FIGURE.fullmatch(row[index]) for row in rows)
        last = wraps and index == len(names) - 1
        table.add_column(
            name, justify="right" if right else "left", no_wrap=not last, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False, width=None if wraps else _UNBOUNDED).print(table)


@dataclass(frozen=True, slots=True)
class Gaps:
    """What history lacks of a symbol since its oldest known day; `held`: days in quarantine."""

    code: Code
    since: date | None
    days: tuple[date, ...]
    held: Mapping[date, str]


def print_gaps(found: Sequence[Gaps], *, as_json: bool) -> None:
    """Print one line a symbol to stdout, or a JSON list."""
    if as_json:
        rows = [
            {
                "code": each.code,
                "since": None if each.since is None else str(each.since),
                "missing": [str(day) for day in each.days],
                "held": {str(day): reason for day, reason in each.held.items()},
            }
            for each in found
        ]
        say_json(json.dumps(rows))
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


def print_held(rows: Sequence[tuple[Code, Held]], *, as_json: bool) -> None:
    """Print held figures to stdout, as a table or a JSON list."""
    if as_json:
        told = [{"code": code} | json.loads(held.to_json()) for code, held in rows]
        say_json(to_json(told))
        return
    cells = [
        (
            code,
            str(held.day),
            str(held.ruling),
            explained(market_of(code), held),
            _number(held.record.shares),
            _number(held.previous.shares if held.previous else None),
            isoformat(held.observed_at),
        )
        for code, held in rows
    ]
    print_table(("code", "day", "state", "reason", "shares", "after", "observed_at"), cells)
