"""Reads what the operator wrote, the file and the environment, without validating it."""

import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from poller.errors import ConfigError
from poller.settings.variables import CONFIG, PREFIX, is_injected, is_single, misspelt, twin
from poller.textfile import MIB, UnusableFile, read_text

LARGEST_CONFIG: Final = 1 * MIB
"""Bytes of the TOML file."""

DEEPEST: Final = 20
"""Levels of nested tables and lists; no key is below the fourth."""

_TOO_DEEP: Final = f"tables or lists are nested more than {DEEPEST} deep, and no key is"

_PART: Final = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY: Final = re.compile(
    rf"(?:^|[\[{{,])[ \t]*{_PART}(?:[ \t]*\.[ \t]*{_PART}){{{DEEPEST},}}", re.MULTILINE
)
"""A dotted key or table name of more parts: the parser's time grows with their square."""

LISTS: Final = {"opend", "webhooks"}
"""Sections that are lists of tables."""

_NUMBER: Final = re.compile(r"0|[1-9][0-9]*")
_DIGITS: Final = 9  # Python refuses to read numbers of thousands of them

_PATHS: Final = ("_file", "_dir", "files")
"""How the names of keys that hold paths end."""


def split(value: object) -> object:
    """Split the text of an environment variable, `a,b,c`, into a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def read(path: Path) -> dict[str, Any]:
    """Parse a TOML file; raises ConfigError."""
    try:
        text = read_text(path, limit=LARGEST_CONFIG, pipe=True)
        if _LONG_KEY.search(text):
            raise ConfigError([f"{path}: {_TOO_DEEP}"])
        raw = tomllib.loads(text)
    except UnusableFile as problem:
        raise ConfigError([str(problem)]) from None
    except ValueError as problem:  # TOMLDecodeError, or a number of more than 4,300 digits
        raise ConfigError([f"{path}: is not TOML: {problem}"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: {_TOO_DEEP}"]) from None
    if _is_too_deep(raw):
        raise ConfigError([f"{path}: {_TOO_DEEP}"])
    return raw


def _is_too_deep(value: object) -> bool:
    """Check level by level, since recursion could overflow the stack."""
    level: list[Any] = [value]
    for _ in range(DEEPEST + 1):
        within: list[Any] = []
        for each in level:
            within += each.values() if isinstance(each, dict) else each
        level = [each for each in within if isinstance(each, dict | list)]
    return bool(level)


def dotted(raw: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every key that holds a value, or a list of values."""
    for key, value in raw.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from dotted(value, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            yield from dotted({str(number): one for number, one in enumerate(value)}, f"{name}.")
        else:
            yield name


def part(raw: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return the sections that `names` has, and of other sections the keys (`redis.namespace`)."""
    found = {section: table for section, table in raw.items() if section in names}
    for section, _, key in (name.partition(".") for name in names):
        table = raw.get(section)
        if key and isinstance(table, dict) and key in table:
            found[section] = found.get(section, {}) | {key: table[key]}
    return found


def overlay(
    raw: dict[str, Any],
    environment: Mapping[str, str],
    names: Mapping[str, bool],
    problems: list[str],
) -> dict[str, str]:
    """Apply variables `POLLER_SECTION__KEY` to `raw`; return dotted key → variable.

    Tables in a list are addressed by number (`POLLER_OPEND__1__HOST`); for the first, the number
    may be left out. `names`: see `names_in`. Variables set by Kubernetes and Docker are ignored.
    A variable also displaces the file's other spelling of its key, with or without `_file`.
    """
    origin: dict[str, str] = {}
    for variable, text in sorted(environment.items(), key=_in_order):
        if not variable.upper().startswith(PREFIX) or variable == CONFIG:
            continue
        if is_injected(variable, text):
            continue
        if (problem := misspelt(variable, names)) is not None:
            problems.append(f"{variable}: {problem}")
            continue
        if not variable.startswith(PREFIX):
            continue
        path = _path_of(variable)
        try:
            _check_numbers(variable, path)
            if (other := origin.get(".".join(path))) and environment[other] != text:
                problems.append(f"{variable}: {other} sets the same key: remove one of them")
                continue
            _put(raw, path, _value(text, path[-1], single=is_single(variable, names)))
        except ValueError as clash:
            problems.append(f"{variable}: {clash}")
            continue
        _displace_twin(raw, path, origin)
        origin[".".join(path)] = variable
    return origin


def _path_of(variable: str) -> list[str]:
    """Return the keys and numbers that lead to a variable's value."""
    path = variable.removeprefix(PREFIX).split("__")
    # below a section and its key are the names of a table's values, such as codes, as written
    depth = 3 if path[0].lower() in LISTS and len(path) > 1 and path[1].isdecimal() else 2
    path[:depth] = [part.lower() for part in path[:depth]]
    if path[0] in LISTS and len(path) > 1 and not path[1].isdecimal():
        path.insert(1, "0")
    return path


def _check_numbers(variable: str, path: list[str]) -> None:
    """Raise ValueError for a number with leading zeros: two variables could mean one table."""
    for number in path:
        if number.isdecimal() and not _NUMBER.fullmatch(number):
            plain = variable.replace(f"__{number}", f"__{int(number[:_DIGITS])}")
            raise ValueError(f"numbers have no leading zeros: write {plain}")


def _displace_twin(raw: dict[str, Any], path: list[str], origin: Collection[str]) -> None:
    """Remove the other spelling of a variable's key, unless a variable set that one, too.

    `origin`: the dotted keys that variables have set so far.
    """
    here: Any = raw
    for depth, step in enumerate(path):
        if isinstance(here, dict) and (other := twin(step)) in here:
            name = ".".join([*path[:depth], str(other)])
            if not any(f"{name}.".startswith(f"{known}.") for known in origin):
                del here[other]
        here = here[int(step) if isinstance(here, list) else step]


def _in_order(item: tuple[str, str]) -> list[tuple[int, str]]:
    """Sort the tables of a list by their number: 10 comes after 9."""
    return [(len(part), part) for part in item[0].split("__")]


def _value(text: str, key: str, *, single: bool) -> object:
    """Return a variable's text, or its value if it is JSON; raises ValueError.

    `single`: whether the key holds neither a list nor a table, so that `[` begins a text.
    """
    value: object = text
    try:
        if text.startswith(("[", "{")) and not single:
            value = json.loads(text)
        if not key.endswith(_PATHS):  # a file name may be any bytes
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it is not text in UTF-8") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError as problem:
        cure = "a list as a,b,c" if text.startswith("[") else f"a table as {example_table(key)}"
        raise ValueError(f"it begins like JSON and is not JSON ({problem}); write {cure}") from None
    if isinstance(value, dict | list) and _is_too_deep(value):
        raise ValueError(_TOO_DEEP)
    return value


def example_table(key: str) -> str:
    """Return what a variable for this table may hold."""
    return '{"HK.*": 2}' if key == "weights" else '{"KEY": VALUE}'


def _put(raw: dict[str, Any], path: list[str], value: object) -> None:
    """Set the key at the end of a path; raises ValueError if a part of it is not a table."""
    here: Any = raw
    for depth, step in enumerate(path):
        key: Any = step
        if isinstance(here, list):
            key = _number(step, here, path[:depth])
        elif not isinstance(here, dict):
            raise ValueError(_in_the_way(path[:depth], "a value"))  # noqa: TRY004  of the operator's
        if isinstance(here, list) and key == len(here):
            here.append({})
        if depth == len(path) - 1:
            here[key] = value
            return
        if isinstance(here, dict) and key not in here:
            here[key] = _new(path[: depth + 2])
        here = here[key]


def _new(path: list[str]) -> list[dict[str, Any]] | dict[str, Any]:
    """Return the list or table that a file lacks; by default the first gateway is there.

    `path`: where it is, and the key or number within it.
    """
    if path[:-1] == ["opend"]:
        return [{}]
    return [] if path[-1].isdecimal() else {}


def _number(step: str, tables: list[Any], place: list[str]) -> int:
    """Return the index of an existing table or of the next one; raises ValueError."""
    if not step.isdecimal():
        raise ValueError(_in_the_way(place, "a list"))
    if int(step) > len(tables):
        raise ValueError(f"the one before it is missing: the next one is number {len(tables)}")
    return int(step)


def _in_the_way(place: list[str], what: str) -> str:
    return f"there is no such key: {'.'.join(place)} is {what} there, and not a table"
