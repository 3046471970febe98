"""`poller release`: one report of a whole market, from what is stored in Redis."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

from rich.text import Text

from poller import show
from poller.cli.options import ConfigFile, Format, MarketName, Number, Sort, load_config
from poller.cli.runner import WRONG, CommandFailed, finish
from poller.cli.stores import Failure, beside, instruments_of, store_of
from poller.cli.watched import sources_of
from poller.markets import Market, market_named, no_market
from poller.model import Code, newest_days
from poller.schedule.report import Standing
from poller.settings.config import Config
from poller.store.archive import Archive
from poller.store.redis_status import RedisStatusStore
from poller.store.redisstore import RedisStore
from poller.store.reports import (
    COLUMNS,
    SORT_WORDS,
    NoReport,
    Report,
    document,
    read_report,
    rows_of,
)

TOP: Final = 20
"""Default number of symbols in a table; CSV and JSON have all."""

_NAMED: Final = 10  # symbols without the report that are named below the table


def release(
    market: MarketName,
    day: date | None = None,
    /,
    *,
    top: Number = None,
    sort: Sort = "change",
    format: Format = "table",  # noqa: A002  the option's name
    config: ConfigFile = None,
) -> None:
    """Print one report of a market: who moved most, how many show it, and who is missing.

    Args:
        market: what its codes begin with, like HK
        day: its trading day, like 2026-04-30; the newest known, if absent
        top: how many symbols; 20 in a table, all in CSV and JSON, if absent
        sort: by the size of the change in shares or in percent, by ratio, by days to
            cover, where the market reports them, or by the size of the change's z-score
        format: table, csv or json
        config: TOML file
    """
    chosen = market_named(market.upper())
    if chosen is None:
        raise CommandFailed(WRONG, [no_market(market)])
    if top is not None and top < 1:
        raise CommandFailed(WRONG, [f"--top {top}: give a number above 0"])
    if sort == "days_to_cover" and not chosen.has_cover:
        raise CommandFailed(
            WRONG,
            [f"--sort days_to_cover: {chosen} reports none; use change, percent, ratio or zscore"],
        )
    finish(_print_release(load_config(config, reading=True), chosen, day, top, sort, format))


async def _print_release(
    config: Config, market: Market, day: date | None, top: int | None, sort: str, form: str
) -> None:
    """Print the report of `day`, or the newest, its symbols ranked by `sort`.

    What cannot be read is left out; Failure, raised at the end, names it.
    """
    zscores = sort == "zscore" or form != "table"  # they take each symbol's whole history
    report, names, problems = await read_whole(config, market, day, zscores=zscores)
    _print(report, names, sort, top, form)
    sys.stdout.flush()
    if problems:
        raise Failure("\n".join(problems))


async def read_whole(
    config: Config, market: Market, day: date | None, *, zscores: bool
) -> tuple[Report, dict[Code, str | None], list[str]]:
    """Return a report, the names of its symbols, and a line for each thing that cannot be read.

    `zscores`: whether to read them, which takes the whole histories. Raises StoreDown, StoreMisfit
    and Failure.
    """
    async with store_of(config, existing=True) as store, beside(store, Archive) as archive:
        watched = await _watched(config, store)
        newest = newest_days(await store.records.watermarks()).get(market)
        try:
            report = await read_report(
                archive, market, day, watched=watched, newest=newest, zscores=zscores
            )
        except NoReport as problem:
            raise _refusal(problem) from None
        problems = list(report.unreadable)
        instruments = await instruments_of(store, list(report.coverage.shown), problems)
    return report, {code: each.name for code, each in instruments.items()}, problems


def _refusal(problem: NoReport) -> Failure:
    if problem.known:
        return Failure(str(problem))
    return Failure("\n".join([*problem.unreadable, f"{problem}; see: poller watch list"]))


async def _watched(config: Config, store: RedisStore) -> Sequence[Code]:
    """Return what the active poller watches, including Futu groups; else what is configured."""
    async with beside(store, RedisStatusStore) as status_store:
        symbols = await status_store.symbols()
    return tuple(await sources_of(config, store)) if symbols is None else symbols


def _print(
    report: Report, names: Mapping[Code, str | None], sort: str, top: int | None, form: str
) -> None:
    standings = report.ranked(sort)
    rows = rows_of(standings[:top], names)
    match form:
        case "json":
            show.say_json(json.dumps(document(report, sort, rows), indent=2))
        case "csv":
            writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        case _:
            _print_table(report, names, standings, sort, top or TOP)


def _print_table(
    report: Report,
    names: Mapping[Code, str | None],
    standings: Sequence[Standing],
    sort: str,
    top: int,
) -> None:
    covered, shown = report.coverage, standings[:top]
    show.say(
        f"{report.market}, the report of {report.day}: {len(covered.shown):,} of "
        f"{covered.expected:,} symbols show it; by {SORT_WORDS[sort]}"
    )
    columns = _columns(shown, sort)
    if any(names.get(each.code) for each in shown):
        columns["name"] = [Text(names.get(each.code) or "-") for each in shown]
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    show.print_figures(list(columns), rows, cut_last="name" in columns)
    if more := len(standings) - len(shown):
        show.say(f"{more:,} more; all: --top {len(standings)}")
    if covered.missing:
        show.say(f"missing: {_named(covered.missing)}")
    if covered.others:
        show.say(f"not expected, without any of the three reports before: {_named(covered.others)}")


def _columns(shown: Sequence[Standing], sort: str) -> dict[str, list[Text]]:
    """Return name → cells; so few that a name still fits into 80 columns."""
    moved = [show.change_cells(each.change, each.percent) for each in shown]
    columns = {
        "rank": [Text("-" if each.rank is None else str(each.rank)) for each in shown],
        "code": [Text(each.code) for each in shown],
        "shares": [show.shares_cell(each.record) for each in shown],
        "change": [change for change, _ in moved],
        "change %": [percent for _, percent in moved],
    }
    if sort == "zscore":
        columns["z-score"] = show.decimal_cells([each.zscore for each in shown])
    else:
        columns["ratio"] = show.ratio_cells([each.record for each in shown])
    if any(each.days_to_cover is not None for each in shown):
        columns["cover"] = show.cover_cells([each.record for each in shown])
    columns["%ile"] = [
        Text("-" if each.percentile is None else f"{each.percentile:.1f}") for each in shown
    ]
    return columns


def _named(symbols: Mapping[Code, date | None]) -> str:
    """Return the first of these symbols, each with its last day."""
    first = list(symbols.items())[:_NAMED]
    named = [code if day is None else f"{code} (last {day})" for code, day in first]
    if more := len(symbols) - len(named):
        named.append(f"and {more:,} more (--format json names all)")
    return ", ".join(named)
