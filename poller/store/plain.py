"""Entries and history as plain rows, for JSON and CSV."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from poller.codec import Whole, read_json
from poller.events import Foreign, StreamEvent, decode
from poller.markets import SPLIT, Record, all_markets
from poller.model import Code, Instrument, Vintage, isoformat, market_of, to_json
from poller.schedule.facts import FACTS, Facts, facts_of
from poller.store.store import Entry

DESCRIBED: Final = ("name", "outstanding_percent", *FACTS, "flags")
"""The columns that `described` adds."""

TEXTS: Final = ("code", "timestamp_str", "name", "flags")
"""The columns that hold text; `observed_at` is a time, every other one a number."""


def entry_json(entry: Entry) -> str:
    """Return one line of `tail --json`: `entry_fields` as JSON."""
    return to_json(entry_fields(entry))


def entry_fields(entry: Entry) -> dict[str, Any]:
    """Return the flat fields of an entry, `data` parsed, and its `stream_id`.

    An entry that is not ours stays as it is, with the reason as `foreign`.
    """
    found: dict[str, Any] = {"stream_id": entry.id} | dict(entry.fields)
    message = decode(entry.id, entry.fields)
    if isinstance(message, Foreign):
        return found | {"foreign": message.reason}
    found["data"] = read_json(message.data_json)
    if isinstance(message, StreamEvent):
        found["revision"] = message.revision
    return found


def history_rows(vintages: Sequence[Vintage]) -> list[dict[str, Any]]:
    """Return rows with the SDK's column names, then `revision` and `observed_at`."""
    return [
        vintage.record.columns()
        | {"revision": vintage.revision, "observed_at": isoformat(vintage.observed_at)}
        for vintage in vintages
    ]


def history_names(codes: Iterable[Code]) -> list[str]:
    """Return the columns of `history_rows` of these symbols, each once."""
    markets = sorted({*map(market_of, codes)}, key=str)
    names = dict.fromkeys(name for market in markets for name in market.columns)
    return [*names, "revision", "observed_at"]


def coded_rows(code: Code, vintages: Sequence[Vintage]) -> list[dict[str, Any]]:
    """Return `history_rows` with the code before them."""
    return [{"code": code, **row} for row in history_rows(vintages)]


def described(
    rows: Iterable[Mapping[str, Any]],
    vintages: Sequence[Vintage],
    known: Instrument,
    facts: Sequence[Facts] | None = None,
) -> list[dict[str, Any]]:
    """Return rows of these vintages, all of one symbol's, with further columns behind them.

    What is known of the symbol besides, and what each day is beside the days before it. `facts`: of
    each vintage, where these are a piece of a longer history; None: these are the whole history.
    """
    if facts is None:
        facts = facts_of(each.record for each in vintages)
    return [
        {
            **row,
            "name": known.name,
            "outstanding_percent": known.outstanding_percent(each.record),
            **fact.columns(),
            "flags": " ".join(_flags(each.record, fact)) or None,
        }
        for row, each, fact in zip(rows, vintages, facts, strict=True)
    ]


def _flags(record: Record, fact: Facts) -> Iterator[str]:
    """Yield the caveats of a day, as in the `flags` of its event."""
    yield from record.flags
    if fact.split_factor is not None:
        yield SPLIT


def whole_names() -> frozenset[str]:
    """Return the columns that hold whole numbers, in every market."""
    columns = [field for market in all_markets() for field in fields(market.record)]
    whole = {column.name for column in columns if column.type == Whole | None}
    if all(market.record.STEP == 1 for market in all_markets()):
        whole.add("change")
    return frozenset({*whole, "revision", "streak"})
