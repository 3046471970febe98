"""`poller history`: what is, or was, known of symbols."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.text import Text

from poller import show
from poller.cli.options import ConfigFile, Format, aware, codes_of, load_config
from poller.cli.runner import finish
from poller.cli.stores import Failure, beside, instruments_of, store_of
from poller.model import Code, Instrument, Vintage, titled
from poller.schedule.facts import FACTS, facts_of
from poller.settings.config import Config
from poller.store.archive import Archive
from poller.store.plain import DESCRIBED, coded_rows, described, history_names, history_rows

NAMES: Final = ("day", "shares", "change", "change %", "ratio", "days to cover", "close")


def history(
    codes: tuple[str, ...] = (),
    /,
    *,
    format: Format = "table",  # noqa: A002  the option's name
    wide: bool = False,
    as_known_at: datetime | None = None,
    config: ConfigFile = None,
) -> None:
    """Print what is known of symbols, newest first.

    Args:
        codes: HK.00700 US.AAPL …
        format: table, csv or json; with several codes, rows of CSV and JSON begin with the code
        wide: a table of all columns, named as in the SDK's DataFrame; CSV and JSON always have all
        as_known_at: what was known at this time; UTC unless it names its time zone
        config: TOML file
    """
    symbols, moment = codes_of(codes), aware(as_known_at)
    settings = load_config(config, reading=True)
    finish(_print_histories(settings, symbols, format, moment, wide=wide))


async def _print_histories(
    config: Config, codes: Sequence[Code], form: str, moment: datetime | None, *, wide: bool
) -> None:
    """Print each symbol's days, newest first, as `table`, `csv` or `json`.

    Failure, raised at the end, names what cannot be read, and symbols of which nothing is known.
    """
    found: dict[Code, tuple[Vintage, ...]] = {}
    problems: list[str] = []
    async with store_of(config, existing=True) as store, beside(store, Archive) as archive:
        async for each in archive.histories(codes, moment):
            problems += each.unreadable
            if each.vintages:
                found[each.code] = each.vintages
            elif not each.unreadable:
                problems.append(unknown(each.code, moment))
        instruments = await instruments_of(store, list(found), problems)
    if found:
        several = len(codes) > 1
        if moment is not None and form == "table":
            show.say(f"As known at {moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC:")
        match form:
            case "json":
                rows = _described(found, instruments, several=several)
                show.say_json(json.dumps(rows, indent=2))
            case "csv":
                names = [*(["code"] if several else []), *history_names(found), *DESCRIBED]
                _print_csv(names, _described(found, instruments, several=several))
            case _ if wide:
                _print_wide(found, instruments, several=several)
            case _:
                _print_tables(found, instruments)
        sys.stdout.flush()
    if problems:
        raise Failure("\n".join(problems))


def unknown(code: Code, moment: datetime | None) -> str:
    """Return the message for a symbol of which nothing is, or was, known."""
    if moment is None:
        return (
            f"nothing is known of {code}: it has no rows, or it is not watched; which, says poller "
            f"explain {code}"
        )
    return f"nothing was known of {code} at {moment.isoformat()}; now: poller history {code}"


def _described(
    found: Mapping[Code, Sequence[Vintage]],
    instruments: Mapping[Code, Instrument],
    *,
    several: bool,
) -> list[dict[str, Any]]:
    """Return all columns: those of the report, then what is known of the symbol besides."""
    return [
        row
        for code, vintages in found.items()
        for row in described(
            _rows({code: vintages}, several=several),
            vintages,
            instruments.get(code, Instrument()),
        )
    ]


def _rows(found: Mapping[Code, Sequence[Vintage]], *, several: bool) -> list[dict[str, Any]]:
    form = coded_rows if several else lambda _, vintages: history_rows(vintages)
    return [row for code, vintages in found.items() for row in form(code, vintages)]


def _print_csv(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _print_wide(
    found: Mapping[Code, Sequence[Vintage]],
    instruments: Mapping[Code, Instrument],
    *,
    several: bool,
) -> None:
    """Print all columns but the name, the day first and the timestamp last."""
    figures, times = history_names(found)[:-2], history_names(found)[-2:]
    names = [name for name in figures if not name.startswith("timestamp")]
    further = [name for name in DESCRIBED if name != "name"]
    key = [*(["code"] if several else []), "timestamp_str"]
    names = [*key, *names, *further, *times, "timestamp"]
    rows = _described(found, instruments, several=several)
    columns = [_wide_cells(name, [row.get(name) for row in rows]) for name in names]
    show.print_figures(names, [list(row) for row in zip(*columns, strict=True)], key=len(key))


_SIGNED: Final = frozenset(FACTS) - {"split_factor"}

_PLAIN: Final = frozenset({"timestamp", "revision"})
"""Whole numbers without separators between thousands."""


def _wide_cells(name: str, values: Sequence[object]) -> list[Text]:
    """Return the cells of a column; figures have as many decimals as the longest of them."""
    sign = "+" if name in _SIGNED else ""
    if any(isinstance(value, float) for value in values):
        figures = [value if isinstance(value, int | float) else None for value in values]
        return show.decimal_cells(figures, sign=sign)
    return [_wide_cell(value, "" if name in _PLAIN else f"{sign},") for value in values]


def _wide_cell(value: object, form: str) -> Text:
    if isinstance(value, int):
        return Text(format(value, form if value else ""))
    return Text("-" if value is None else str(value))


def _print_tables(
    found: Mapping[Code, Sequence[Vintage]], instruments: Mapping[Code, Instrument]
) -> None:
    """Print a table per symbol, below its title; a single one without a name needs none.

    Below it stands what part of the outstanding shares is short, where that is known.
    """
    for place, (code, vintages) in enumerate(found.items()):
        known = instruments.get(code, Instrument())
        if known.name is not None or len(found) > 1:
            title = Text(titled(code, known.name), "bold")
            show.console().print(*([""] if place else []), title, sep="\n")
        show.print_figures(NAMES, cells_of(vintages))
        newest = vintages[0].record
        if (percent := known.outstanding_percent(newest)) is not None:
            show.say(f"{newest.timestamp_str}: {percent:.2f} % of the outstanding shares are short")


def cells_of(vintages: Sequence[Vintage]) -> list[list[Text]]:
    """Return the cells of the table, newest first; a change is that since the day known before."""
    records = [vintage.record for vintage in vintages]
    moved = [show.change_cells(each.change, each.change_percent) for each in facts_of(records)]
    columns = (
        [Text(record.timestamp_str) for record in records],
        [show.shares_cell(record) for record in records],
        [change for change, _ in moved],
        [percent for _, percent in moved],
        show.ratio_cells(records),
        show.cover_cells(records),
        show.decimal_cells([record.close_price for record in records]),
    )
    return [list(row) for row in zip(*columns, strict=True)]
