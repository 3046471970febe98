"""Which environment variables are settings, and what a misspelt one was meant to be. Pure.

Kubernetes and Docker set variables that begin with the names of other services. For a service named
`poller`, or `poller-web`, they begin like this program's settings.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel

PREFIX: Final = "POLLER_"
CONFIG: Final = "POLLER_CONFIG"
"""Names the configuration file; it is not a setting."""

_WORDS: Final = r"(?:[A-Z0-9]+_)*"  # further words of the service's name; "__" is only in settings
_ADDRESS: Final = r"(?:tcp|udp|sctp)://.*"
_NUMBERED: Final = rf"{_WORDS}PORT_[0-9]+_(?:TCP|UDP|SCTP)"
_INJECTED: Final = tuple(
    (re.compile(name, re.ASCII), re.compile(value, re.ASCII | re.DOTALL))
    for name, value in (
        (rf"{_WORDS}SERVICE_HOST", r".*"),
        (rf"{_WORDS}SERVICE_PORT(?:_[A-Z0-9_]+)?", r"[0-9]+"),
        (rf"{_WORDS}PORT", _ADDRESS),
        (_NUMBERED, _ADDRESS),
        (rf"{_NUMBERED}_(?:PROTO|ADDR|START|END|PORT(?:_START|_END)?)", r".*"),
        (rf"{_WORDS}NAME", r"/[^/]+/[^/]+"),
        (rf"{_WORDS}ENV_.+", r".*"),
    )
)
"""The rest of the name, and the value, of variables that Kubernetes and Docker set."""

WITH_FILES: Final = ("url", "secret", "token")
"""Keys with a twin that ends in `_file` and names the files that hold the value."""

_PARTED: Final = re.compile("__")
_ALIKE: Final = 0.6  # difflib's ratio, below which a suggestion would mislead


def is_injected(variable: str, value: str) -> bool:
    """Return whether Kubernetes or Docker set a variable, for a service with a similar name."""
    name = variable.removeprefix(PREFIX)
    return name != variable and any(
        known.fullmatch(name) and form.fullmatch(value) for known, form in _INJECTED
    )


def twin(key: str) -> str | None:
    """Return the other spelling of a key, with or without `_file`; None: there is none."""
    plain = key.removesuffix("_file")
    if plain not in WITH_FILES:
        return None
    return f"{key}_file" if key == plain else plain


def table_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401  of any field
    """Return the model in an annotation, also within a list; None: there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := table_in(each))), None)


@cache
def names_in(model: type[BaseModel]) -> Mapping[str, bool]:
    """Return the variable of every key, with `#` for the number of a table in a list.

    The value is True if the key holds a list or a table of values, which longer names may address.
    """
    return dict(_names(model, PREFIX))


def _names(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, bool]]:
    for key, field in model.model_fields.items():
        name = f"{prefix}{key.upper()}"
        inner = table_in(field.annotation)
        if inner is None:
            yield name, get_origin(field.annotation) in {tuple, Mapping}
            if key in WITH_FILES:
                yield f"{name}_FILE", True
            continue
        yield name, False
        yield from _names(inner, f"{name}__")
        if get_origin(field.annotation) is tuple:
            yield f"{name}__#", False
            yield from _names(inner, f"{name}__#__")


def misspelt(variable: str, names: Mapping[str, bool]) -> str | None:
    """Return what is wrong with a variable's name, and which one is meant; None: nothing.

    A name in lower case counts as misspelt only if it would be a setting in upper case.
    """
    capitals = variable.upper()
    meant = {_folded(name): name for name in (*names, CONFIG)}.get(_folded(capitals))
    if not variable.startswith(PREFIX):
        if meant is None:
            return None
        return f"settings are read in capitals only: write {_numbered(meant, capitals)}"
    if _is_known(capitals, names):
        return None
    meant = meant or _nearest(capitals, names)
    if meant is None:
        return "unknown key; write POLLER_SECTION__KEY, like POLLER_BUDGET__REQUESTS"
    return f"unknown key; did you mean {_numbered(meant, capitals)}?"


def is_single(variable: str, names: Mapping[str, bool]) -> bool:
    """Return whether a variable, whose name is known, holds one value: no list and no table."""
    name = _counted(variable)
    return not names.get(name) and not any(each.startswith(f"{name}__") for each in names)


def _nearest(capitals: str, names: Mapping[str, bool]) -> str | None:
    """Return the variable of a single key that is most similar to a name."""
    tables = {name[: found.start()] for name in names for found in _PARTED.finditer(name)}
    single = [name for name in (*names, CONFIG) if name not in tables]
    folded = {_folded(name): name for name in single}
    close = difflib.get_close_matches(_folded(capitals), folded, n=1, cutoff=_ALIKE)
    return folded[close[0]] if close else None


def _is_known(capitals: str, names: Mapping[str, bool]) -> bool:
    if (counted := _counted(capitals)) in names:
        return True
    steps = counted.removeprefix(PREFIX).split("__")
    return any(names.get(PREFIX + "__".join(steps[:end])) for end in range(1, len(steps)))


def _counted(name: str) -> str:
    """Return a variable's name with `#` for each number."""
    parts = name.removeprefix(PREFIX).split("__")
    return PREFIX + "__".join("#" if part.isdecimal() else part for part in parts)


def _folded(name: str) -> str:
    """Return a name without the most frequent mistakes: numbers of underscores and of tables."""
    return re.sub(r"_+", "_", re.sub(r"(?<=_)[0-9]+(?=_|$)", "#", name))


def _numbered(name: str, written: str) -> str:
    """Return the name that is meant, with the number that was written."""
    number = re.search(r"(?<=_)[0-9]+(?=_|$)", written)
    return name.replace("#", number[0] if number else "0")
