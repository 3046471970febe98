"""Reads secrets from files, or from systemd's copies of them.

A key that ends in `_file` names a file, or several separated by commas; a text that as a whole is
the path of an existing file is that file. A copy that systemd made
with `LoadCredential=NAME:PATH` is readable by the service alone, while PATH may be root's: if there
is a credential with the file's name, it is read instead of the file.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from shlex import quote
from typing import Any, Final

from poller.delivery.masking import MAKE_ONE
from poller.settings.paths import listed
from poller.settings.variables import WITH_FILES
from poller.textfile import KIB, NoSuchFile, read_text

LARGEST_SECRET: Final = 64 * KIB
"""Bytes of a secret file: hundreds of the longest secrets."""

_SEPARATED: Final = (
    '; commas separate paths: write one that has a comma in brackets and quotes, ["a,b/desk"]'
)


def named_in(raw: dict[str, Any]) -> tuple[Path, ...]:
    """Return the secret files a configuration names."""
    return tuple(dict.fromkeys(p for table, key in _file_keys(raw) for p in _paths(table[key])))


def put_in_place(raw: dict[str, Any], directory: Path) -> None:
    """Replace files in `raw` by the credentials with their names in `directory`, if any."""
    for table, key in _file_keys(raw):
        paths = [(directory / path.name, path) for path in _paths(table[key])]
        named = [str(copy if copy.is_file() else path) for copy, path in paths]
        table[key] = named if key.removesuffix("_file") in WITH_FILES else ",".join(named)


def exposed(paths: Iterable[Path]) -> list[str]:
    """Return a line for each of these files that every user of the machine can read.

    Files are exempt below a directory that keeps others out, and on a read-only file system: that
    is how containers get their secrets, and nobody inside could change it.
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
    except (OSError, ValueError):  # `read` reports files that cannot be read
        return False


def read(raw: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Replace `url_file`, `secret_file` and `token_file` in `raw` by the text of the files.

    Returns two mappings: dotted key → problem for those that cannot be read, whose text is then
    empty, and dotted key, without `_file`, → the files that its text is from.
    """
    problems: dict[str, str] = {}
    read_from: dict[str, str] = {}
    for name, table in _tables(raw):
        for key in WITH_FILES:
            if f"{key}_file" not in table:
                continue
            table[key], files = "", table.pop(f"{key}_file")
            try:
                table[key] = _text(files, several=key == "secret")
                read_from[f"{name}.{key}"] = ", ".join(map(str, _paths(files)))
            except NoSuchFile as problem:
                cure = _SEPARATED if len(_paths(files)) > 1 else _hint(key, problem.path)
                problems[f"{name}.{key}_file"] = f"{problem}{cure}"
            except ValueError as problem:
                problems[f"{name}.{key}_file"] = str(problem)
    return problems, read_from


def given_twice(raw: dict[str, Any]) -> list[str]:
    """Return the dotted keys that are there with and without `_file`, by the latter."""
    return [
        f"{name}.{key}"
        for name, table in _tables(raw)
        for key in WITH_FILES
        if key in table and f"{key}_file" in table
    ]


def _tables(raw: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the dotted names of the tables that may hold secrets, and the tables."""
    tables = [("redis", raw.get("redis")), ("web", raw.get("web"))]
    webhooks = raw.get("webhooks")
    if isinstance(webhooks, list):
        tables += [(f"webhooks.{n}", table) for n, table in enumerate(webhooks)]
    yield from ((name, table) for name, table in tables if isinstance(table, dict))


def _hint(key: str, path: Path) -> str:
    """Return how to make the file of a signing secret."""
    command = f"(umask 077; {MAKE_ONE} > {quote(str(path))})"
    unless = "; unless the receiver has one already, make it: "
    return unless + command if key == "secret" and path.parent.is_dir() else ""


def _text(value: object, *, several: bool) -> str:
    """Return the words in one or several files, with commas between them.

    Raises ValueError with the problem: a file without a word, or too many words.
    """
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) for name in names):
        raise ValueError('give the path of a file in quotes: "secrets/desk"')
    if not (paths := _paths(value)):
        raise ValueError("it is empty: write a path, or leave the key out")
    words: list[str] = []
    for path in paths:
        found = read_text(path, limit=LARGEST_SECRET, pipe=True).split()
        if not found:
            raise ValueError(f"{path}: it is empty: write into it what it is to hold")
        words += found
    if len(words) > 1 and not several:
        raise ValueError(
            f"{', '.join(map(str, paths))}: write one text without spaces; there are {len(words)}"
        )
    return ",".join(words)


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
    names = value if isinstance(value, list) else listed(str(value), Path())
    return [Path(text) for name in names if (text := str(name).strip())]
