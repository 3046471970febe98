"""`poller.history`, `poller.releases`: histories and reports as a pandas DataFrame."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import pandas as pd

from poller.errors import StoreMisfit
from poller.events import StreamNotice
from poller.markets import market_named, no_market
from poller.model import Code, Instrument, parse_code, unique
from poller.store.archive import Archive, Archived
from poller.store.plain import DESCRIBED, TEXTS, coded_rows, described, history_names, whole_names
from poller.store.reports import TIMELINE, timeline


def history(
    codes: Iterable[str] | None = None,
    *,
    url: str = "redis://127.0.0.1:6379",
    namespace: str = "short-interest",
    as_known_at: datetime | None = None,
) -> pd.DataFrame:
    """Return what is known of these symbols, or was at `as_known_at`; of all without `codes`.

    The index is `code` (object) and `day` (datetime64[ns], the trading day), sorted, oldest day
    first. The columns are those of the SDK's DataFrame for each market among the codes: whole
    numbers are Int64, figures float64, `timestamp_str` object; then `revision` (Int64) and
    `observed_at` (datetime64[ns, UTC]); then `name` (object, None where it is not known),
    `outstanding_percent` (float64), and each day beside the day before it: `change` (Int64, in
    shares), `change_percent`, `days_to_cover_change`, `zscore` (float64), `streak` (Int64),
    `split_factor` (float64), and `flags` (object: words separated by spaces, None for none).
    Absent values are NA or NaN. A time without a zone is UTC.

    Raises BadCode for an invalid code, StoreDown while Redis does not answer, LockedOut when it
    refuses the user or password, and StoreMisfit with every entry that cannot be read. It may be
    called while an event loop runs, as in a notebook, and blocks it meanwhile.
    """
    # a string is an iterable of strings, too
    named = [codes] if isinstance(codes, str) else codes
    wanted = None if named is None else unique(parse_code(code) for code in named)
    if as_known_at is not None and as_known_at.tzinfo is None:
        as_known_at = as_known_at.replace(tzinfo=UTC)
    found, instruments = _run(_read(wanted, url, namespace, as_known_at))
    if unreadable := [line for each in found for line in each.unreadable]:
        raise StoreMisfit("\n".join(unreadable))
    return _frame(found, instruments)


def releases(
    market: str | None = None,
    *,
    url: str = "redis://127.0.0.1:6379",
    namespace: str = "short-interest",
) -> pd.DataFrame:
    """Return the reports of a market (`HK`), or of all, as the notices tell of them, oldest first.

    One row for each: `market` (object), `day` (datetime64[ns], the trading day), `detected_at` and
    `completed_at` (datetime64[ns, UTC], NaT where there was no such notice), `found`, `expected`
    and `missing` (Int64, NA until it is complete). Reports whose notices were trimmed are absent.

    Raises ValueError for another market, and the errors of `history`; it may be called as that.
    """
    if market is not None and market_named(market) is None:
        raise ValueError(no_market(market))
    notices = [n for n in _run(_notices(url, namespace)) if market in {None, n.market.name}]
    columns = [list(row.values()) for row in timeline(notices)]
    frame = pd.DataFrame(columns, columns=["market", "day", *TIMELINE], dtype=object)
    for name in ("detected_at", "completed_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True).dt.as_unit("ns")
    frame["day"] = pd.to_datetime(frame["day"]).dt.as_unit("ns")
    return frame.astype(dict.fromkeys(("found", "expected", "missing"), "Int64"))


async def _notices(url: str, namespace: str) -> list[StreamNotice]:
    archive = Archive(url, namespace)
    try:
        return [notice async for notice in archive.notices()]
    finally:
        await archive.close()


_Result = TypeVar("_Result")


def _run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run it to its end in a loop of its own, also while another one runs in this thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _read(
    codes: tuple[Code, ...] | None, url: str, namespace: str, moment: datetime | None
) -> tuple[list[Archived], dict[Code, Instrument]]:
    archive = Archive(url, namespace)
    try:
        wanted = await archive.codes() if codes is None else codes
        found = [each async for each in archive.histories(wanted, moment)]
        try:
            instruments = await archive.instruments(wanted)
        except StoreMisfit:  # another client's key: names decide nothing
            instruments = {}
        return found, instruments
    finally:
        await archive.close()


def _frame(found: list[Archived], instruments: Mapping[Code, Instrument]) -> pd.DataFrame:
    rows = [
        row
        for each in found
        for row in described(
            coded_rows(each.code, each.vintages),
            each.vintages,
            instruments.get(each.code, Instrument()),
        )
    ]
    columns: dict[str, Any] = {}
    for name in ["code", *history_names(each.code for each in found), *DESCRIBED]:
        values = [row.get(name) for row in rows]
        if name == "observed_at":
            moments = pd.to_datetime(pd.Series(values, dtype=object), utc=True)
            columns[name] = moments.dt.as_unit("ns")
        elif name in TEXTS:
            columns[name] = pd.Series(values, dtype=object)
        else:
            kind = "Int64" if name in whole_names() else "float64"
            columns[name] = pd.Series(values, dtype=kind)
    frame = pd.DataFrame(columns)
    texts = pd.Series([row["timestamp_str"] for row in rows], dtype=object)  # no code, no column
    days = pd.to_datetime(texts, format="%Y-%m-%d")
    return frame.assign(day=days.dt.as_unit("ns")).set_index(["code", "day"]).sort_index()
