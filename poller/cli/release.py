"""`poller release`: one report of a whole market, from what is stored in Redis."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal

from rich.text import Text

from poller import show
from poller.cli.options import ConfigFile, Format, Number, load_config
from poller.cli.runner import WRONG, CommandFailed, finish
from poller.cli.stores import Failure, beside, store_of
from poller.cli.watched import sources_of
from poller.markets import Market, market_named, market_names
from poller.model import Code, isoformat, market_of, newest_days
from poller.schedule.report import Coverage, Standing, coverage, ranked
from poller.settings.config import Config
from poller.store.archive import Archive
from poller.store.redis_status import RedisStatusStore
from poller.store.redisstore import RedisStore

TOP: Final = 20
"""Default number of symbols in a table; CSV and JSON have all."""

SORT_WORDS: Final = {
    "change": "|change| in shares",
    "percent": "|change| in percent",
    "ratio": "ratio",
    "days_to_cover": "days to cover",
}

_NAMES: Final = (
    "rank",
    "code",
    "shares",
    "change",
    "percent",
    "ratio",
    "days_to_cover",
    "close_price",
    "previous_day",
    "revision",
    "observed_at",
)
_NAMED: Final = 10  # missing symbols named below the table
_LAST_DAYS: Final = 3


@dataclass(frozen=True, slots=True)
class _Report:
    """The report to print."""

    market: Market
    day: date
    sort: str
    coverage: Coverage
    standings: Sequence[Standing]


def release(
    market: str,
    day: date | None = None,
    /,
    *,
    top: Number = None,
    sort: Literal["change", "percent", "ratio", "days_to_cover"] = "change",
    format: Format = "table",  # noqa: A002  the option's name
    config: ConfigFile = None,
) -> None:
    """Print one report of a market: who moved most, how many show it, and who is missing.

    Args:
        market: what its codes begin with, like HK
        day: its trading day, like 2026-04-30; the newest known, if absent
        top: how many symbols; 20 in a table, all in CSV and JSON, if absent
        sort: by the size of the change in shares or in percent, by ratio, or by days to
            cover, where the market reports them
        format: table, csv or json
        config: TOML file
    """
    chosen = market_named(market.upper())
    if chosen is None:
        raise CommandFailed(WRONG, [f"{market!r} is no market: write {market_names(' or ')}"])
    if top is not None and top < 1:
        raise CommandFailed(WRONG, [f"--top {top}: give a number above 0"])
    if sort == "days_to_cover" and not chosen.has_cover:
        raise CommandFailed(
            WRONG, [f"--sort days_to_cover: {chosen} reports none; use change, percent or ratio"]
        )
    finish(_print_release(load_config(config, reading=True), chosen, day, top, sort, format))


async def _print_release(
    config: Config, market: Market, day: date | None, top: int | None, sort: str, form: str
) -> None:
    """Print the report of `day`, or the newest, its symbols ranked by `sort`.

    What cannot be read is left out; Failure, raised at the end, names it.
    """
    async with store_of(config, existing=True) as store, beside(store, Archive) as archive:
        watched = [code for code in await _watched(config, store) if market_of(code) is market]
        codes = [code for code in await archive.codes() if market_of(code) is market]
        known, problems = await archive.days(list(dict.fromkeys([*codes, *watched])))
        reported = {each for days in known.values() for each in days}
        if not reported:
            raise Failure(
                "\n".join([*problems, f"nothing is known of {market}; see: poller watch list"])
            )
        # a watermark without a record, written by somebody else, is not a report
        newest = newest_days(await store.records.watermarks()).get(market)
        day = day or (newest if newest in reported else max(reported))
        if day not in reported:
            raise Failure(_no_such_day(market, day, reported))
        covered = coverage(day, known, watched)
        standings, unreadable = await _standings(archive, day, covered)
        problems += unreadable
    _print(_Report(market, day, sort, covered, ranked(standings, sort)), top, form)
    sys.stdout.flush()
    if problems:
        raise Failure("\n".join(problems))


async def _watched(config: Config, store: RedisStore) -> Sequence[Code]:
    """Return what the active poller watches, including Futu groups; else what is configured."""
    async with beside(store, RedisStatusStore) as status_store:
        symbols = await status_store.symbols()
    return tuple(await sources_of(config, store)) if symbols is None else symbols


async def _standings(
    archive: Archive, day: date, covered: Coverage
) -> tuple[list[Standing], list[str]]:
    """Return the standing of each symbol that shows the day, and lines on what cannot be read."""
    found: list[Standing] = []
    unreadable: list[str] = []
    wanted = {code: [day, *([before] if before else [])] for code, before in covered.shown.items()}
    async for each in archive.some_days(wanted):
        unreadable += each.unreadable
        rows = {vintage.day: vintage for vintage in each.vintages}
        before = covered.shown[each.code]
        previous = rows[before].record if before in rows else None
        if day in rows:
            found.append(Standing(each.code, rows[day], previous))
    return found, unreadable


def _no_such_day(market: Market, day: date, reported: set[date]) -> str:
    near = sorted(reported, key=lambda each: abs(each - day))[:_LAST_DAYS]
    days = ", ".join(str(each) for each in sorted(near))
    return f"no symbol of {market} shows {day}; the nearest reports: {days}"


def _print(report: _Report, top: int | None, form: str) -> None:
    match form:
        case "json":
            show.say_json(json.dumps(_document(report, top), indent=2))
        case "csv":
            writer = csv.DictWriter(sys.stdout, _NAMES, lineterminator="\n")
            writer.writeheader()
            writer.writerows(_row(each) for each in report.standings[:top])
        case _:
            _print_table(report, top or TOP)


def _row(each: Standing) -> dict[str, Any]:
    values = (
        each.rank,
        each.code,
        each.record.shares,
        each.change,
        each.percent,
        each.record.ratio,
        each.days_to_cover,
        each.record.close_price,
        None if each.previous is None else each.previous.timestamp_str,
        each.vintage.revision,
        isoformat(each.vintage.observed_at),
    )
    return dict(zip(_NAMES, values, strict=True))


def _document(report: _Report, top: int | None) -> dict[str, Any]:
    covered = report.coverage
    return {
        "market": report.market.name,
        "trading_day": str(report.day),
        "sort": report.sort,
        "found": len(covered.shown),
        "expected": covered.expected,
        "missing": [
            {"code": code, "last_day": str(last)} for code, last in covered.missing.items()
        ],
        "not_expected": covered.others,
        "symbols": [_row(each) for each in report.standings[:top]],
    }


def _print_table(report: _Report, top: int) -> None:
    covered, shown = report.coverage, report.standings[:top]
    show.say(
        f"{report.market}, the report of {report.day}: {len(covered.shown):,} of "
        f"{covered.expected:,} symbols show it; by {SORT_WORDS[report.sort]}"
    )
    names, columns = ["rank", "code", "shares", "change", "change %", "ratio"], _columns(shown)
    if any(each.days_to_cover is not None for each in shown):
        names.append("days to cover")
        columns.append(show.decimal_cells([each.days_to_cover for each in shown]))
    names.append("close")
    columns.append(show.decimal_cells([each.record.close_price for each in shown]))
    show.print_figures(names, [list(row) for row in zip(*columns, strict=True)])
    if more := len(report.standings) - len(shown):
        show.say(f"{more:,} more; all: --top {len(report.standings)}")
    if covered.missing:
        show.say(f"missing: {_missing(covered)}")
    if covered.others:
        some = f"{covered.others:,} watched symbol{'s' if covered.others > 1 else ''}"
        show.say(f"not expected: {some} without any of the three reports before")


def _columns(shown: Sequence[Standing]) -> list[list[Text]]:
    moved = [show.change_cells(each.change, each.percent) for each in shown]
    return [
        [Text("-" if each.rank is None else str(each.rank)) for each in shown],
        [Text(each.code) for each in shown],
        [show.shares_cell(each.record) for each in shown],
        [change for change, _ in moved],
        [percent for _, percent in moved],
        show.decimal_cells([each.record.ratio for each in shown]),
    ]


def _missing(covered: Coverage) -> str:
    named = [f"{code} (last {day})" for code, day in list(covered.missing.items())[:_NAMED]]
    if more := len(covered.missing) - len(named):
        named.append(f"and {more:,} more (--format json names all)")
    return ", ".join(named)
