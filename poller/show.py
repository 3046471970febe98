"""What a person reads on a terminal: one line per event, tables, progress. Readers only."""

import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poller.detect.held import Held, Reason
from poller.detect.impossible import explained
from poller.model import Code, Market, Vintage, columns, isoformat, market_of, to_json
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
    try:
        told = json.loads(entry.fields["data"])
        return _event_line(entry.fields, told, told["record"], told["change"])
    except _NOT_OURS:
        return _foreign(entry)


def _event_line(fields: Mapping[str, str], told: Any, record: Any, change: Any) -> Text:  # noqa: ANN401  of JSON
    shares = record.get("aggregated_short", record.get("shares_short"))
    ratio = record.get("aggregated_short_ratio", record.get("short_percent"))
    line = _begun(fields, fields.get("code", ""))
    below = "below_threshold" in told.get("flags", ())
    line.append(f" {'below threshold' if below else f'{_number(shares):>15} short':<21}")
    line.append(f"  {'-' if ratio is None or below else f'{ratio:.2f}'} %", "dim")
    if below:  # what is not told cannot have changed
        return line
    if (restated := told.get("restated")) is not None:
        since = printable(restated["from"], _WORD_LIMIT)
        line.append(f"  {restated['days']:d} days from {since} × {restated['factor']:g}")
    elif change is not None:
        line.append("  ")
        line.append(*_moved(change))
    return line


def release_line(entry: Entry) -> Text:
    """Return one line of `tail --releases`: time, market, day, out or complete, who is missing."""
    try:
        told = json.loads(entry.fields["data"])
        line = _begun(entry.fields, entry.fields["market"])
        if (code := told.get("code")) is not None:
            return line.append(f" first shown by {printable(code, _WORD_LIMIT)}")
        line.append(f" {told['found']:,} of {told['expected']:,} symbols")
        missing, named = told["missing"], told["missing_codes"][:_NAMED]
    except _NOT_OURS:
        return _foreign(entry)
    if missing:
        more = f" and {missing - len(named):,} more" if missing > len(named) else ""
        line.append(f"; missing: {printable(' '.join(named))}{more}", "dim")
    return line


def _begun(fields: Mapping[str, str], who: str) -> Text:
    seen, day, kind, who = (
        printable(text, _WORD_LIMIT)
        for text in (
            fields.get("observed_at", ""),
            fields.get("trading_day", ""),
            fields.get("type", "").rpartition(".")[2],
            who,
        )
    )
    line = Text()
    line.append(f"{seen[5:10]} {seen[11:19]}  ", "dim")
    line.append(f"{who:<9}", "bold")
    line.append(f" {day}  ")
    return line.append(f"{kind:<10}", _COLOURS.get(kind, ""))


def _foreign(entry: Entry) -> Text:
    told = f"{entry.id} is not an event of this service: {dict(entry.fields)}"
    return Text(printable(told, LINE_LIMIT), "red")


def _moved(change: Mapping[str, Any]) -> tuple[str, str]:
    shares, percent = change["shares"], change["percent"]
    if shares is None:
        return "change unknown", "dim"
    if not shares:
        return "unchanged", "dim"
    part = "" if percent is None else f" ({percent:+.2f} %)"
    return f"{shares:+,}{part}", "red" if shares > 0 else "cyan"


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
    held: Mapping[date, Reason]


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
