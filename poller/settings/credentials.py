"""Secrets given as files, and systemd's copies of them.

A key that ends in `_file` names one file, or several with commas. What systemd loaded with
`LoadCredential=NAME:PATH` is readable by the service alone, while PATH is root's: where there is a
credential of the file's name, it is read in the file's place.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from poller.textfile import KIB, read_text

LARGEST: Final = 64 * KIB
"""Bytes of a secret file: hundreds of the longest secrets."""


def named_in(raw: dict[str, Any]) -> tuple[Path, ...]:
    """Return the secret files a configuration names."""
    return tuple(dict.fromkeys(p for table, key in _file_keys(raw) for p in _paths(table[key])))


def put_in_place(raw: dict[str, Any], directory: Path) -> None:
    """Name the credential instead of the file, wherever `directory` holds one."""
    for table, key in _file_keys(raw):
        pairs = [(directory / path.name, path) for path in _paths(table[key])]
        table[key] = ",".join(str(copy if copy.is_file() else path) for copy, path in pairs)


def exposed(paths: Iterable[Path]) -> list[str]:
    """Return a line for each of these files that every user of the machine can read.

    Not where a directory above keeps them out, nor on a file system mounted read-only: that is how
    containers get their secrets, for all to read, and nobody inside could change it.
    """
    return [
        f"{path}: every user of this machine can read this secret: chmod o= {path}"
        for path in paths
        if _is_exposed(path)
    ]


def _is_exposed(path: Path) -> bool:
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
        if not (stat.S_ISREG(mode) and mode & stat.S_IROTH):
            return False
        if os.statvfs(real).f_flag & os.ST_RDONLY:
            return False
        return all(parent.stat().st_mode & stat.S_IXOTH for parent in real.parents)
    except (OSError, ValueError):  # what cannot be read is told where it is read
        return False


def read(raw: dict[str, Any]) -> dict[str, str]:
    """Replace `url_file`, `secret_file` and `token_file` by the text of the file, or files.

    Returns what is wrong, by the dotted key, with those that cannot be read; they are empty then.
    """
    problems = {}
    tables = [("redis", raw.get("redis")), ("web", raw.get("web"))]
    webhooks = raw.get("webhooks")
    if isinstance(webhooks, list):
        tables += [(f"webhooks.{n}", table) for n, table in enumerate(webhooks)]
    for name, table in tables:
        for key in ("url", "secret", "token"):
            if not isinstance(table, dict) or f"{key}_file" not in table:
                continue
            table[key], files = "", table.pop(f"{key}_file")
            try:
                table[key] = ",".join(_texts(files))
            except ValueError as problem:
                problems[f"{name}.{key}_file"] = str(problem)
    return problems


def _texts(value: object) -> list[str]:
    """Return the words in a file, or in several; raises ValueError with what is wrong."""
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) for name in names):
        raise ValueError('give the path of a file in quotes: "secrets/desk"')
    texts = []
    for path in _paths(value):
        texts += read_text(path, limit=LARGEST, pipe=True).split()
    return texts


def _file_keys(table: object) -> Iterator[tuple[dict[str, Any], str]]:
    if isinstance(table, list):
        for inner in table:
            yield from _file_keys(inner)
    elif isinstance(table, dict):
        for key, value in table.items():
            if key.endswith("_file"):
                yield table, key
            else:
                yield from _file_keys(value)


def _paths(value: object) -> list[Path]:
    names = value if isinstance(value, list) else str(value).split(",")
    return [Path(str(name).strip()) for name in names]
