"""What released versions wrote to Redis, key by key: read for ever."""

import json
from functools import cache
from pathlib import Path
from typing import Any

VERSIONS = ("0.1.0",)


@cache
def written(version: str) -> dict[str, dict[str, Any]]:
    """Return every key a version wrote: its type, its value, and the groups of a stream."""
    text = (Path(__file__).parent / f"{version}.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found
