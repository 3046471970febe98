"""Reads one report of a market as a whole, for `poller release` and the page."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from poller.errors import PollerError
from poller.events import StreamNotice
from poller.markets import Market
from poller.model import Code, isoformat, market_of
from poller.schedule.report import Coverage, Standing, coverage, ranked, zscore_of
from poller.store.archive import Archive

COLUMNS: Final = (
    "rank",
    "percentile",
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
    "zscore",
    "name",
)
"""The columns of `rows_of`, in order."""

SORT_WORDS: Final = {
    "change": "|change| in shares",
    "percent": "|change| in percent",
    "ratio": "ratio",
    "days_to_cover": "days to cover",
    "zscore": "|z-score| of the move",
}
"""What a report is ranked by, in words."""

_MOST_KNOWN: Final = 2000  # two decades of weeks, and of half months
_NEAR: Final = 3  # days named instead of one that nobody shows


class NoReport(PollerError):
    """No symbol shows the report that was asked for.

    Attributes:
        unreadable: A sentence for each entry that could not be read.
        known: Whether any report of the market is known.
    """

    def __init__(self, text: str, unreadable: Sequence[str], *, known: bool) -> None:
        """Keep the text and what belongs to it."""
        super().__init__(text)
        self.unreadable = unreadable
        self.known = known


def timeline(notices: Iterable[StreamNotice]) -> list[dict[str, Any]]:
    """Return a row for each report that these notices tell of, by market, the oldest day first.

    Each has `market`, `trading_day` (date), and, where there was such a notice, `detected_at`,
    `completed_at` (aware), `found`, `expected` and `missing`; else None.
    """
    rows: dict[tuple[str, date], dict[str, Any]] = {}
    for notice in notices:
        key = (notice.market.name, notice.trading_day)
        new = dict(zip(("market", "trading_day"), key, strict=True)) | dict.fromkeys(TIMELINE)
        row = rows.setdefault(key, new)
        if notice.found is None:
            row["detected_at"] = notice.observed_at
        else:
            told = (notice.observed_at, notice.found, notice.expected, notice.missing)
            row.update(zip(TIMELINE[1:], told, strict=True))
    return [rows[key] for key in sorted(rows)]


TIMELINE: Final = ("detected_at", "completed_at", "found", "expected", "missing")
"""What `timeline` tells of a report, in order."""


async def known_reports(archive: Archive, watched: Collection[Code]) -> list[dict[str, Any]]:
    """Return a row for each report that a symbol shows, the newest first, up to `_MOST_KNOWN`.

    Each has `market`, `trading_day` (date), `symbols`, which is how many show it now, and what
    `timeline` tells of it, None where no notice does.
    """
    codes = dict.fromkeys([*await archive.codes(), *watched])
    known, _ = await archive.days(list(codes))
    showing = Counter((market_of(code).name, day) for code, days in known.items() for day in days)
    rows = timeline([notice async for notice in archive.notices()])
    told = {(row["market"], row["trading_day"]): row for row in rows}
    nothing: dict[str, Any] = dict.fromkeys(TIMELINE)
    newest = sorted(showing, key=lambda key: (key[1], key[0]), reverse=True)[:_MOST_KNOWN]
    return [
        {"market": key[0], "trading_day": key[1], "symbols": showing[key]}
        | {name: told.get(key, nothing)[name] for name in TIMELINE}
        for key in newest
    ]


@dataclass(frozen=True, slots=True)
class Report:
    """One report of a market.

    Attributes:
        coverage: Who shows it, and who is missing.
        standings: One for each symbol that shows it, not ranked yet.
        unreadable: A sentence for each entry left out, with its key and the fix.
        earlier: The day of the report before; None if none is known.
        later: The day of the next one.
    """

    market: Market
    day: date
    coverage: Coverage
    standings: tuple[Standing, ...]
    unreadable: tuple[str, ...] = ()
    earlier: date | None = None
    later: date | None = None

    def ranked(self, sort: str) -> list[Standing]:
        """Return the standings by rank; `sort`: a key of SORT_WORDS."""
        return ranked(self.standings, sort)


async def read_report(
    archive: Archive,
    market: Market,
    day: date | None,
    *,
    watched: Collection[Code],
    newest: date | None,
    zscores: bool = False,
) -> Report:
    """Return the report of `day`, or the newest one; raises NoReport.

    `newest`: the newest watermark of the market. `zscores`: whether to read them, for which each
    symbol's whole history is needed. What cannot be read is left out and named.
    """
    mine = [code for code in watched if market_of(code) is market]
    codes = [code for code in await archive.codes() if market_of(code) is market]
    known, unreadable = await archive.days(list(dict.fromkeys([*codes, *mine])))
    reported = {each for days in known.values() for each in days}
    if not reported:
        raise NoReport(f"nothing is known of {market}", unreadable, known=False)
    # a watermark without a record, written by somebody else, is not a report
    day = day or (newest if newest in reported else max(reported))
    if day not in reported:
        raise NoReport(_no_such_day(market, day, reported), unreadable, known=True)
    covered = coverage(day, known, mine)
    standings, spoiled = await _standings(archive, day, covered, zscores=zscores)
    return Report(
        market,
        day,
        covered,
        tuple(standings),
        (*unreadable, *spoiled),
        max((each for each in reported if each < day), default=None),
        min((each for each in reported if each > day), default=None),
    )


async def _standings(
    archive: Archive, day: date, covered: Coverage, *, zscores: bool
) -> tuple[list[Standing], list[str]]:
    """Return the standing of each symbol that shows the day, and lines on what cannot be read."""
    found: list[Standing] = []
    unreadable: list[str] = []
    wanted = {code: [day, *([before] if before else [])] for code, before in covered.shown.items()}
    read = archive.histories(list(wanted)) if zscores else archive.some_days(wanted)
    async for each in read:
        unreadable += each.unreadable
        rows = {vintage.day: vintage for vintage in each.vintages}
        if day not in rows:
            continue
        before = covered.shown[each.code]
        previous = rows[before].record if before in rows else None
        zscore = None
        if zscores:
            await asyncio.sleep(0)  # a history takes milliseconds
            zscore = zscore_of({known: one.record for known, one in rows.items()}, day)
        found.append(Standing(each.code, rows[day], previous, zscore))
    return found, unreadable


def _no_such_day(market: Market, day: date, reported: Collection[date]) -> str:
    near = sorted(reported, key=lambda each: abs(each - day))[:_NEAR]
    days = ", ".join(str(each) for each in sorted(near))
    return f"no symbol of {market} shows {day}; the nearest reports: {days}"


def rows_of(
    standings: Iterable[Standing], names: Mapping[Code, str | None]
) -> list[dict[str, Any]]:
    """Return standings as JSON and CSV have them."""
    return [_row_of(each, names.get(each.code)) for each in standings]


def _row_of(each: Standing, name: str | None) -> dict[str, Any]:
    values = (
        each.rank,
        each.percentile,
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
        each.zscore,
        name,
    )
    return dict(zip(COLUMNS, values, strict=True))


def document(report: Report, sort: str, symbols: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a report as JSON has it. `symbols`: the rows of those to show."""
    covered = report.coverage
    return {
        "market": report.market.name,
        "trading_day": str(report.day),
        "sort": sort,
        "found": len(covered.shown),
        "expected": covered.expected,
        "missing": [
            {"code": code, "last_day": str(last)} for code, last in covered.missing.items()
        ],
        "not_expected": len(covered.others),
        "not_expected_symbols": [
            {"code": code, "last_day": None if last is None else str(last)}
            for code, last in covered.others.items()
        ],
        "symbols": list(symbols),
    }
