"""Makes valid JSON and text of whatever is in Redis. Pure."""

import math
from collections.abc import Mapping
from typing import Any

from poller.model import to_json
from poller.printable import printable_json
from poller.store.plain import entry_json
from poller.store.store import Entry


def entry_text(entry: Entry) -> str:
    """Return the JSON of an entry.

    If `data` is not JSON that every reader understands (NaN, numbers beyond a float, lone
    surrogates, a thousand levels), it stays a text.
    """
    try:
        text = entry_json(entry)
        text.encode()
    except (ValueError, RecursionError):
        return printable_json(to_json({"stream_id": entry.id} | dict(entry.fields)))
    return printable_json(text)


def json_text(value: Any) -> str:  # noqa: ANN401  JSON has no types
    """Return the JSON of a value; NaN and infinity become null."""
    try:
        text = to_json(value)
        text.encode()
    except ValueError:
        return printable_json(to_json(_sound(value)))
    return printable_json(text)


def _sound(value: Any) -> Any:  # noqa: ANN401
    match value:
        case str():
            return encodable(value)
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {encodable(str(name)): _sound(each) for name, each in value.items()}
        case list() | tuple():
            return [_sound(each) for each in value]
        case _:
            return value


def encodable(text: str) -> str:
    """Return a text without lone surrogates, which JSON allows and UTF-8 does not."""
    return text.encode(errors="replace").decode()
