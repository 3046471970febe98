"""An event as a subscriber gets it, read from the flat fields of a stream entry."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from typing import Any

from poller.model import RECORD_TYPES, Change, Code, Market, Record
from poller.storage.store import Entry


@dataclass(frozen=True, slots=True)
class Received:
    """One event.

    `position`: the entry's id on the stream, to go on after it. `id`: the same over all deliveries,
    never used twice. `type`: `short_interest.reported`, `.revised`, `.backfilled`; others may come.
    `trading_day`: in the market's own zone. `previous`: the day before; for `revised` the vintage
    replaced. `extra`: whatever else the entry's `data` holds.
    """

    position: str
    id: str
    type: str
    code: Code
    market: Market
    trading_day: date
    revision: int
    observed_at: datetime
    record: Record
    previous: Record | None
    change: Change | None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


def read_message(entry: Entry) -> Received:
    """Read an entry; ValueError for one that is not this service's. Unknown columns are skipped."""
    texts = entry.fields
    try:
        data = json.loads(texts["data"])
        market = Market(texts["market"])
        kind = RECORD_TYPES[market]
        known = {"record", "previous", "change"}
        return Received(
            position=entry.id,
            id=texts["id"],
            type=texts["type"],
            code=Code(texts["code"]),
            market=market,
            trading_day=date.fromisoformat(texts["trading_day"]),
            revision=int(texts["revision"]),
            observed_at=datetime.fromisoformat(texts["observed_at"]),
            record=_row(kind, data["record"]),
            previous=_row(kind, data["previous"]) if data["previous"] else None,
            change=_row(Change, data["change"]) if data["change"] else None,
            extra={name: value for name, value in data.items() if name not in known},
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"entry {entry.id}: {type(problem).__name__} {problem}") from None


def _row(kind: type[Any], columns: Mapping[str, Any]) -> Any:  # noqa: ANN401  it is a `kind`
    return kind(**{column.name: columns[column.name] for column in fields(kind)})
