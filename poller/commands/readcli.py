"""The commands that print what is known: events, histories, reports, exports."""

import re
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from poller.commands.ending import WRONG, CommandFailed, begin, finish
from poller.commands.options import ConfigFile, aware, codes_of, whole
from poller.markets import market_named, market_names

MOST_LAST: Final = 10_000
"""Entries that `tail -n` reads back in one go: some ten megabytes."""

Number = Annotated[int | None, Parameter(converter=whole)]
Format = Literal["table", "csv", "json"]


def tail(
    *,
    last: Annotated[int | None, Parameter(name="-n", converter=whole)] = None,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    count: Number = None,
    no_follow: bool = False,
    releases: bool = False,
    json: bool = False,
    config: ConfigFile = None,
) -> None:
    """Print the last events, then follow the stream.

    Args:
        last: how many of the last events come first: 10 unless --from says where to begin; 0 none
        from_: print what follows this stream id; 0 from the beginning, $ what comes next
        count: stop after so many events
        no_follow: end after what is there
        releases: instead of events, which reports of a whole market are out, and which complete
        json: one JSON object a line
        config: TOML file
    """
    from poller.commands import tail as reader  # noqa: PLC0415  keeps `--help` quick

    problems = []
    if from_ is not None and from_ != "$" and not _is_stream_id(from_):
        problems.append(f"--from {from_!r} is no stream id: use 0, $ or 1715152502123-0")
    if last is not None and from_ is not None:
        problems.append(f"-n {last} and --from {from_}: give one of them")
    if last is not None and not 0 <= last <= MOST_LAST:
        problems.append(f"-n {last}: give a number from 0 to {MOST_LAST}; for all: --from 0")
    if count is not None and count < 1:
        problems.append(f"--count {count}: give a number above 0")
    if problems:
        raise CommandFailed(WRONG, problems)
    work = reader.tail(
        begin(config, reading=True),
        last=10 if last is None else last,
        after=from_,
        count=count,
        follow=not no_follow,
        releases=releases,
        as_json=json,
    )
    finish(work)


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

    A change is that since the day known before; "-" where either figure is below
    the reporting threshold, or not known.

    Args:
        codes: HK.00700 US.AAPL …
        format: table, csv or json; with several codes, those of CSV and JSON begin with the code
        wide: a table of all columns, named as in the SDK's DataFrame; CSV and JSON always have all
        as_known_at: what was known at this time; UTC unless it names its zone
        config: TOML file
    """
    from poller.commands import history as reader  # noqa: PLC0415

    symbols, moment = codes_of(codes), aware(as_known_at)
    settings = begin(config, reading=True)
    finish(reader.history(settings, symbols, format, moment, wide=wide))


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
    from poller.commands import release as reader  # noqa: PLC0415

    chosen = market_named(market.upper())
    if chosen is None:
        raise CommandFailed(WRONG, [f"{market!r} is no market: write {market_names(' or ')}"])
    if top is not None and top < 1:
        raise CommandFailed(WRONG, [f"--top {top}: give a number above 0"])
    if sort == "days_to_cover" and not chosen.has_cover:
        raise CommandFailed(
            WRONG, [f"--sort days_to_cover: {chosen} reports none; use change, percent or ratio"]
        )
    finish(reader.release(begin(config, reading=True), chosen, day, top, sort, format))


def export(
    codes: tuple[str, ...] = (),
    /,
    *,
    format: Literal["csv", "json", "parquet"],  # noqa: A002  the option's name
    as_known_at: datetime | None = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    config: ConfigFile = None,
) -> None:
    """Write the histories of many symbols to one file, newest day of each first.

    The file takes its name when it is whole. What cannot be read is left out and
    named, and the exit code is 1.

    Args:
        codes: HK.00700 US.AAPL …; all that are known, if none is named
        format: csv, json (an object a line), or parquet, which needs the extra [parquet]
        as_known_at: what was known at this time; UTC unless it names its zone
        output: the file; stdout, if absent
        config: TOML file
    """
    from poller.commands import export as writer  # noqa: PLC0415

    symbols = codes_of(codes) if codes else ()
    settings = begin(config, reading=True)
    finish(writer.export(settings, symbols, format, aware(as_known_at), output))


def _is_stream_id(text: str) -> bool:
    """Return whether Redis takes it: one or two numbers of 64 bits."""
    parts = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", text, re.ASCII)
    return parts is not None and all(int(part or 0) < 1 << 64 for part in parts.groups())
