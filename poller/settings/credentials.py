"""Secrets given as files, and systemd's copies of them.

A key that ends in `_file` names one file, or several with commas. What systemd loaded with
`LoadCredential=NAME:PATH` is readable by the service alone, while PATH is root's: where there is a
credential of the file's name, it is read in the file's place.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def named_in(raw: dict[str, Any]) -> tuple[Path, ...]:
    """Return the secret files a configuration names."""
    return tuple(dict.fromkeys(p for table, key in _file_keys(raw) for p in _paths(table[key])))


def put_in_place(raw: dict[str, Any], directory: Path) -> None:
    """Name the credential instead of the file, wherever `directory` holds one."""
    for table, key in _file_keys(raw):
        pairs = [(directory / path.name, path) for path in _paths(table[key])]
        table[key] = ",".join(str(copy if copy.is_file() else path) for copy, path in pairs)


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
        try:
            texts += path.read_text(encoding="utf-8").split()
        except UnicodeDecodeError:
            raise ValueError(f"{path}: is not text in UTF-8") from None
        except OSError as problem:
            raise ValueError(f"{path}: cannot be read: {problem.strerror}") from None
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
