"""The messages for other programs: JSON Schemas and an AsyncAPI document, made from the model.

`python -m tests.schemas` writes them to `config/schemas`; a test compares them with the
model.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from poller import __version__
from poller.detect.held import Reason
from poller.markets import all_markets
from poller.model import MOST_NAME, Cause, Change, EventType
from poller.schedule.notice import MOST_BIGGEST, MOST_NAMED, TYPES, Completed, Detected, Mover

FOLDER: Final = Path("config/schemas")
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_TEST: Final = "short_interest.test"
_CODE: Final = r"^(HK|US)\.[A-Z0-9][A-Z0-9._-]{0,19}$"
_DAY: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_EVENT_ID: Final = r"^(HK|US)\.[A-Z0-9._-]+:[0-9]{4}-[0-9]{2}-[0-9]{2}:[0-9]+$"
_NOTICE_ID: Final = r"^(HK|US):[0-9]{4}-[0-9]{2}-[0-9]{2}:(detected|completed)$"
_MOMENT: Final = r"^[0-9-]{10}T[0-9:]{8}\.[0-9]{3}Z$"

Schema = dict[str, Any]


def documents() -> dict[str, str]:
    """Return file name → text of every document."""
    texts: dict[str, Schema] = {"asyncapi.json": _asyncapi()}
    for name, file in _MESSAGES.items():
        known = _definitions("#/$defs/")
        parts = {part: known[part] for part in _needed(known[name], known)}
        texts[file] = {"$schema": _DIALECT, "title": name} | known[name] | {"$defs": parts}
    return {
        name: json.dumps(text, indent=2, ensure_ascii=False) + "\n" for name, text in texts.items()
    }


_MESSAGES: Final = {
    "StreamEntry": "stream-entry.json",
    "QuarantineEntry": "quarantine-entry.json",
    "ReleaseEntry": "release-entry.json",
    "WebhookBody": "webhook-body.json",
}


def _definitions(at: str) -> dict[str, Schema]:
    """Return name → schema; they refer to one another by `at` and the name."""
    kinds = [market.record for market in all_markets()]
    record = {"anyOf": [{"$ref": f"{at}{kind.__name__}"} for kind in kinds]}
    compared = {"record": record, "previous": _or_null(record)}
    told = compared | {"change": _or_null({"$ref": f"{at}Change"})}
    # entries of version 0.1.0 have the figures alone
    sometimes = {
        "id": _text(_EVENT_ID),
        "type": _enum(EventType),
        "code": _text(_CODE),
        "market": _enum(all_markets()),
        "trading_day": _text(_DAY),
        "revision": {"type": "integer", "minimum": 0},
        "observed_at": _text(_MOMENT),
        "name": {"type": "string"},
        "outstanding_percent": {
            "type": "number",
            "minimum": 0,
            "description": "the record's shares in percent of the company's outstanding shares",
        },
        "flags": {"type": "array", "items": {"type": "string"}},
        "restated": _or_null({"$ref": f"{at}Restatement"}),
    }
    return {
        **{kind.__name__: _columns(kind) for kind in kinds},
        "Change": _columns(Change),
        "Restatement": _RESTATEMENT,
        "EventData": _object(told, "What stands as JSON in `data`.", sometimes=sometimes),
        "HeldData": _object(compared, "What stands as JSON in `data`."),
        "StreamEntry": _object(
            _entry(f"{at}EventData", "type", _enum(EventType))
            | {"id": _text(_EVENT_ID), "revision": _text("^[0-9]+$")},
            "One event: the flat fields of a stream entry, all of them text.",
        ),
        "QuarantineEntry": _object(
            _entry(f"{at}HeldData", "reason", _enum(Reason)) | {"id": {"type": "string"}},
            "A figure that cannot be true, kept out of history: the fields of a stream entry.",
        ),
        "DetectedData": _DETECTED,
        "CompletedData": _COMPLETED,
        "ReleaseEntry": _release_entry(at),
        "EventBody": _object(
            {
                "type": {"enum": [*EventType, _TEST]},
                "timestamp": _text(_MOMENT),
                "data": _object(
                    {
                        "id": _text(_EVENT_ID),
                        "code": _text(_CODE),
                        "market": _enum(all_markets()),
                        "trading_day": _text(_DAY),
                        "revision": {"type": "integer", "minimum": 0},
                        **told,
                    },
                    "The event.",
                    sometimes=sometimes,
                ),
            },
            "One event.",
        ),
        "DetectedBody": _notice_body(Detected.type, _DETECTED),
        "CompletedBody": _notice_body(Completed.type, _COMPLETED),
        "WebhookBody": {
            "description": "The body of a webhook: one event, or one notice of a whole release.",
            "oneOf": [{"$ref": f"{at}{part}Body"} for part in ("Event", "Detected", "Completed")],
        },
    }


_RESTATEMENT: Final[Schema] = {
    "description": "Known days that one cause changed: their figures follow from it.",
    "type": "object",
    "properties": {
        "factor": {
            "type": ["number", "null"],
            "description": "of `column`; null when none fits: read the days anew",
        },
        "days": {"type": "integer", "description": "how many", "minimum": 1},
        "from": {"type": "string", "pattern": _DAY},
        "to": {"type": "string", "pattern": _DAY},
        # entries of version 0.1.0 tell of rescaled shares, and do not say so
        "column": {"type": ["string", "null"], "description": "the vendor's; null: all of them"},
        "cause": {"type": "string", "examples": [str(each) for each in Cause]},
    },
    "required": ["factor", "days", "from", "to"],
}


def _notice_body(kind: str, told: Schema) -> Schema:
    """Return the schema of a webhook's body that holds a notice; `told`: of what it says."""
    known = {"id": _text(_NOTICE_ID), "market": _enum(all_markets()), "trading_day": _text(_DAY)}
    parts = told["properties"]
    always = {name: parts[name] for name in told["required"]}
    rest = {name: schema for name, schema in parts.items() if name not in always}
    data = _object(known | always, "The notice.", sometimes=rest)
    body = {"type": {"const": kind}, "timestamp": _text(_MOMENT), "data": data}
    return _object(body, "A report of a whole market is out, or complete.")


def _release_entry(at: str) -> Schema:
    """Return the schema of a notice of a whole release; its type decides what `data` holds."""
    schema = _object(
        {
            "id": _text(_NOTICE_ID),
            "type": {"type": "string", "enum": list(TYPES)},
            "market": _enum(all_markets()),
            "trading_day": _text(_DAY),
            "observed_at": _text(_MOMENT),
            "data": {"type": "string", "contentMediaType": "application/json"},
        },
        "A report of a whole market is out, or complete: the fields of a stream entry.",
    )
    parts = {Detected.type: "DetectedData", Completed.type: "CompletedData"}
    schema["oneOf"] = [
        {
            "properties": {
                "type": {"const": kind},
                "data": {"contentSchema": {"$ref": f"{at}{part}"}},
            }
        }
        for kind, part in parts.items()
    ]
    return schema


def _entry(data: str, word: str, words: Schema) -> Schema:
    return {
        "id": {},
        word: words,
        "code": _text(_CODE),
        "market": _enum(all_markets()),
        "trading_day": _text(_DAY),
        "observed_at": _text(_MOMENT),
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": data},
        },
    }


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": pattern}


def _enum(kind: Iterable[object]) -> Schema:
    return {"type": "string", "enum": [str(each) for each in kind]}


def _count(description: str) -> Schema:
    return {"type": "integer", "minimum": 0, "description": description}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [*schema.get("anyOf", [schema]), {"type": "null"}]}


def _object(
    properties: Schema, description: str, *, sometimes: Mapping[str, Schema] | None = None
) -> Schema:
    return {
        "description": description,
        "type": "object",
        "properties": properties | dict(sometimes or {}),
        "required": list(properties),
    }


def _columns(row: type) -> Schema:
    """Return the schema of a frozen row; its docstring gives the units."""
    schema = TypeAdapter(row).json_schema()
    del schema["title"]
    for column in schema["properties"].values():
        del column["title"]
        # decimals are for markets that report them
        if "anyOf" in column and all(market.record.STEP == 1 for market in all_markets()):
            kinds = [kind["type"] for kind in column["anyOf"]]
            if {"integer", "number"} <= set(kinds):
                del column["anyOf"][kinds.index("number")]
    return schema


def _mover() -> Schema:
    """Return the schema of one of the biggest moves."""
    schema = _columns(Mover)
    schema["properties"]["code"] = _text(_CODE)
    return schema


_DETECTED: Final = _object(
    {"code": _text(_CODE)},
    "What stands as JSON in `data`: the symbol that showed the day first.",
    sometimes={"name": {"type": "string", "maxLength": MOST_NAME}},
)
_COMPLETED: Final = _object(
    {
        "found": _count("symbols that show the day"),
        "expected": _count("symbols that take part in releases"),
        "missing": _count("of them, those that do not show it"),
        "missing_codes": {"type": "array", "items": _text(_CODE), "maxItems": MOST_NAMED},
    },
    "What stands as JSON in `data`; more missing symbols than fit are counted, not named.",
    sometimes={
        "biggest": {"type": "array", "items": _mover(), "maxItems": MOST_BIGGEST},
        "missing_names": {
            "description": "code → name of those whose name is known",
            "type": "object",
            "propertyNames": _text(_CODE),
            "additionalProperties": {"type": "string", "maxLength": MOST_NAME},
        },
    },
)


def _needed(schema: object, known: Mapping[str, Schema]) -> list[str]:
    """Return the names of the definitions a schema refers to, directly or not."""
    text = json.dumps(schema)
    direct = [name for name in known if f'/{name}"' in text]
    further = [name for part in direct for name in _needed(known[part], known)]
    return list(dict.fromkeys(direct + further))


def _asyncapi() -> Schema:
    schemas = "#/components/schemas/"
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Short-interest poller",
            "version": __version__,
            "description": "Newly reported short interest of Hong Kong and United States symbols.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": _channel(
                "StreamEntry",
                "A Redis stream, named as `redis.namespace` says. Per symbol new days come oldest "
                "first; an id is never used twice.",
                "short-interest",
            ),
            "quarantine": _channel(
                "QuarantineEntry",
                "A Redis stream, named {NAMESPACE}:quarantine, the braces included.",
                None,
            ),
            "releases": _channel(
                "ReleaseEntry",
                "A Redis stream, named {NAMESPACE}:releases, the braces included. Each report of a "
                "market is told once to be out and once to be complete, in this order.",
                None,
            ),
            "webhook": _channel(
                "WebhookBody",
                "A POST to the URL of an endpoint, signed as Standard Webhooks 1.0; at least once, "
                "per symbol, and per market's notices, in order.",
                None,
            ),
        },
        "operations": {
            name: {"action": "send", "channel": {"$ref": f"#/channels/{channel}"}}
            for name, channel in (
                ("publish", "events"),
                ("hold", "quarantine"),
                ("announce", "releases"),
                ("deliver", "webhook"),
            )
        },
        "components": {
            "messages": {
                name: {"name": name, "payload": {"$ref": f"{schemas}{name}"}}
                | ({"headers": _WEBHOOK_HEADERS} if name == "WebhookBody" else {})
                for name in _MESSAGES
            },
            "schemas": _definitions(schemas),
        },
    }


_WEBHOOK_HEADERS: Final = _object(
    {
        "webhook-id": {"type": "string", "description": "the same over all attempts"},
        "webhook-timestamp": {"type": "string", "description": "seconds, of this attempt"},
        "webhook-signature": {"type": "string", "description": "`v1,…`, one per active secret"},
    },
    "As Standard Webhooks 1.0 has them.",
)


def _channel(message: str, description: str, address: str | None) -> Schema:
    return {
        "address": address,
        "description": description,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in documents().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
