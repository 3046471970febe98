"""Resolves relative paths in the configuration: relative to the file that contains them.

Up to version 0.1.0 they were relative to the working directory. If something exists there, and
nothing beside the file, it is still used, with a note in the log.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote_plus

from poller.store.statedir import holds_data

STATE_DIR: Final = "state_dir"
DEFAULT_STATE_DIR: Final = "state"

_KEY_FILE: Final = "rsa_private_key_file"
_URL_FILE: Final = re.compile(
    r"(?<=[?&])(?P<option>ssl_ca_certs|ssl_certfile|ssl_keyfile)=(?P<path>[^&#]*)"
)


def anchor(raw: dict[str, Any], file: Path) -> dict[str, list[str]]:
    """Make every relative path in `raw`, the content of `file`, absolute, in place.

    Returns dotted key → notes for the log.
    """
    folder = file.absolute().parent
    found: dict[str, list[str]] = {}
    for key, table, name in _paths_in(raw):
        if key == STATE_DIR:
            table[name] = state_dir_of(table[name], file, found.setdefault(key, []))
            continue
        notes = found.setdefault(key, [])
        if name == _KEY_FILE:
            table[name] = _beside(table[name], folder, os.path.exists, notes)
        else:  # written as a list, since the directory's name may contain a comma
            names = table[name] if isinstance(table[name], list) else listed(table[name], folder)
            table[name] = [
                _beside(each, folder, os.path.exists, notes) if isinstance(each, str) else each
                for each in names
            ]
    redis = raw.get("redis")
    if isinstance(redis, dict) and isinstance(url := redis.get("url"), str):
        notes = found.setdefault("redis.url", [])
        redis["url"] = _URL_FILE.sub(lambda option: _in_url(option, folder, notes), url)
    return found


def _in_url(found: re.Match[str], folder: Path, notes: list[str]) -> str:
    written = unquote_plus(found["path"])
    if not written or Path(written).is_absolute():
        return found[0]
    return f"{found['option']}={quote(_beside(written, folder, os.path.exists, notes))}"


def state_dir_of(written: str, file: Path, notes: list[str]) -> str:
    """Return the state directory of a configuration; notes for the log are added to `notes`."""
    if not written:  # do not turn it into the file's directory: it will be refused
        return written
    folder = file.absolute().parent
    chosen = _beside(written, folder, holds_data, notes)
    other = str(Path(written).absolute())
    if not notes and chosen != other and holds_data(Path(chosen)) and holds_data(Path(other)):
        notes.append(
            f"{chosen} is used, beside the configuration; {other} holds data, too, and is not: "
            "an absolute path makes sure which is meant"
        )
    return chosen


def without_secrets(raw: dict[str, Any]) -> None:
    """Remove from `raw` the secrets that are not needed to read Redis, in place."""
    tables = [raw.get("web")]
    if isinstance(webhooks := raw.get("webhooks"), list):
        tables += webhooks
    for table in tables:
        if isinstance(table, dict):
            for key in ("token", "token_file", "secret_file"):
                table.pop(key, None)
            if table.pop("url_file", None) is not None:
                table["url"] = ""


def _paths_in(raw: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield every key that holds paths: its dotted name, its table, and its name there."""
    if isinstance(raw.get(STATE_DIR), str):
        yield STATE_DIR, raw, STATE_DIR
    for section, table in raw.items():
        if isinstance(table, dict):
            yield from _files_of(section, table)
        elif isinstance(table, list):
            for number, inner in enumerate(table):
                if isinstance(inner, dict):
                    yield from _files_of(f"{section}.{number}", inner)


def _files_of(place: str, table: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    for name, value in table.items():
        listed = place == "watchlist" and name == "files"
        kinds = str if name == _KEY_FILE else str | list
        if (listed or name.endswith("_file")) and isinstance(value, kinds):
            yield f"{place}.{name}", table, name


def listed(text: str, folder: Path) -> list[str]:
    """Return the paths in a text: the text itself if such a file exists, else between its commas.

    Relative paths are looked up in `folder`, and then in the working directory.
    """
    whole = text.strip()
    if any(os.path.isfile(path) for path in (folder / whole, whole)):  # noqa: PTH113  takes NUL
        return [whole]
    return [part.strip() for part in text.split(",")]


def _beside(written: str, folder: Path, exists: Callable[[Path], bool], notes: list[str]) -> str:
    if not written:
        return written
    beside, before = folder / written, Path(written).absolute()
    if beside == before or exists(beside) or not exists(before):
        return str(beside)
    notes.append(
        f"{before} is used, as nothing is at {beside}: relative paths now start at the "
        "configuration's directory; move it there, or write the absolute path"
    )
    return str(before)
