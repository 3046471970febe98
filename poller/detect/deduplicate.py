"""Reduces the rows of an answer to one a day. Pure."""

from collections.abc import Iterable, Mapping
from datetime import date

from poller.detect.impossible import impossible
from poller.detect.restate import is_revision
from poller.markets import Record
from poller.model import Code, Vintage, market_of


def deduplicated(
    code: Code, records: Iterable[Record], vintages: Mapping[date, Vintage]
) -> tuple[dict[date, Record], tuple[str, ...]]:
    """Return the records by day, and what is odd about them in words.

    Of two that disagree, the known one counts, else the first; a possible one before an impossible.
    """
    market = market_of(code)
    listed: dict[date, Record] = {}
    oddities: list[str] = []
    for record in records:
        before = listed.setdefault(record.day, record)
        if before is record or before == record:
            continue
        if impossible(market, before) and not impossible(market, record):
            listed[record.day] = record
        if not is_revision(before, record):
            continue
        oddities.append(f"{record.day} is listed twice with different figures: one was ignored")
        vintage = vintages.get(record.day)
        if vintage is not None and not is_revision(vintage.record, record):
            listed[record.day] = record
    return listed, tuple(dict.fromkeys(oddities))
