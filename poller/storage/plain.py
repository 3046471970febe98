"""Entries and history as plain rows, for whoever reads JSON or CSV."""

import json
from collections.abc import Sequence
from typing import Any

from poller.model import Vintage, isoformat, to_json
from poller.storage.store import Entry


def entry_json(entry: Entry) -> str:
    """Return one line of `tail --json`: what `entry_fields` says."""
    return to_json(entry_fields(entry))


def entry_fields(entry: Entry) -> dict[str, Any]:
    """Return the flat fields of an entry, `data` parsed, and its `stream_id`."""
    told: dict[str, Any] = {"stream_id": entry.id} | dict(entry.fields)
    try:
        told["data"] = json.loads(told["data"])
        if "revision" in told:
            told["revision"] = int(told["revision"])
    except (KeyError, ValueError, TypeError):
        pass  # somebody else's entry: as it is
    return told


def history_rows(vintages: Sequence[Vintage]) -> list[dict[str, Any]]:
    """Return rows with the SDK's column names, then `revision` and `observed_at`."""
    return [
        vintage.record.columns()
        | {"revision": vintage.revision, "observed_at": isoformat(vintage.observed_at)}
        for vintage in vintages
    ]
