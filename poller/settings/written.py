"""What the operator wrote, before any of it is checked: a file and the environment."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from poller.errors import ConfigError

_PREFIX: Final = "POLLER_"
_LISTS: Final = {"opend", "webhooks"}  # sections that are tables in a list


def split(value: object) -> object:
    """Let an environment variable give a list as `a,b,c`."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def read(path: Path) -> dict[str, Any]:
    """Return the file as tables, or raise ConfigError with the reason."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"{path}: there is no such file"]) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError([f"{path}: cannot be read: {problem}"]) from None
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError([f"{path}: is not TOML: {problem}"]) from None


def overlay(
    raw: dict[str, Any], environment: Mapping[str, str], problems: list[str]
) -> dict[str, str]:
    """Lay `POLLER_SECTION__KEY` over `raw`; returns which dotted key came from which variable.

    A list of tables is addressed by number (`POLLER_OPEND__1__HOST`), the first one also without.
    """
    origin = {}
    for variable, text in sorted(environment.items(), key=_in_order):
        if not variable.startswith(_PREFIX) or variable == "POLLER_CONFIG":
            continue
        path = variable.removeprefix(_PREFIX).lower().split("__")
        if path[0] in _LISTS and len(path) > 1 and not path[1].isdigit():
            path.insert(1, "0")
        try:
            _put(raw, path, text)
        except (TypeError, IndexError, KeyError):
            problems.append(f"{variable}: there is no such key")
            continue
        origin[".".join(path)] = variable
    return origin


def _in_order(item: tuple[str, str]) -> list[tuple[int, str]]:
    """Sort the tables of a list by their number: 10 comes after 9."""
    return [(len(part), part) for part in item[0].split("__")]


def _put(raw: dict[str, Any], path: list[str], text: str) -> None:
    here: Any = raw
    for step, following in zip(path, [*path[1:], ""], strict=True):
        key: Any = int(step) if isinstance(here, list) else step
        if not following:
            here[key] = json.loads(text) if text.startswith(("[", "{")) else text
            return
        if isinstance(here, list) and key == len(here):
            here.append({})
        elif isinstance(here, dict) and key not in here:
            here[key] = [] if key in _LISTS and here is raw else {}
        here = here[key]
