"""`poller.history`: the histories of symbols as a pandas DataFrame."""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from poller.errors import StoreMisfit
from poller.model import Code, parse_code, unique
from poller.store.archive import Archive, Archived
from poller.store.plain import coded_rows, history_names, whole_names


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
    `observed_at` (datetime64[ns, UTC]). Absent values are NA or NaN. A time without a zone is UTC.

    Raises BadCode for an invalid code, StoreDown while Redis does not answer, LockedOut when it
    refuses the user or password, and StoreMisfit with every entry that cannot be read. It may be
    called while an event loop runs, as in a notebook, and blocks it meanwhile.
    """
    # a string is an iterable of strings, too
    named = [codes] if isinstance(codes, str) else codes
    wanted = None if named is None else unique(parse_code(code) for code in named)
    if as_known_at is not None and as_known_at.tzinfo is None:
        as_known_at = as_known_at.replace(tzinfo=UTC)
    with ThreadPoolExecutor(1) as thread:
        work = thread.submit(asyncio.run, _read(wanted, url, namespace, as_known_at))
        found: list[Archived] = work.result()
    if unreadable := [line for each in found for line in each.unreadable]:
        raise StoreMisfit("\n".join(unreadable))
    return _frame(found)


async def _read(
    codes: tuple[Code, ...] | None, url: str, namespace: str, moment: datetime | None
) -> list[Archived]:
    archive = Archive(url, namespace)
    try:
        wanted = await archive.codes() if codes is None else codes
        return [each async for each in archive.histories(wanted, moment)]
    finally:
        await archive.close()


def _frame(found: list[Archived]) -> pd.DataFrame:
    rows = [row for each in found for row in coded_rows(each.code, each.vintages)]
    columns: dict[str, Any] = {}
    for name in ["code", *history_names(each.code for each in found)]:
        values = [row.get(name) for row in rows]
        if name == "observed_at":
            moments = pd.to_datetime(pd.Series(values, dtype=object), utc=True)
            columns[name] = moments.dt.as_unit("ns")
        elif name in {"code", "timestamp_str"}:
            columns[name] = pd.Series(values, dtype=object)
        else:
            kind = "Int64" if name in whole_names() else "float64"
            columns[name] = pd.Series(values, dtype=kind)
    frame = pd.DataFrame(columns)
    days = pd.to_datetime(frame["timestamp_str"], format="%Y-%m-%d")
    return frame.assign(day=days.dt.as_unit("ns")).set_index(["code", "day"]).sort_index()
