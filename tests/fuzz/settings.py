"""What an operator may have written: a file, and variables of the environment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from poller.errors import ConfigError
from poller.settings.config import Config, load
from poller.settings.variables import PREFIX, names_in
from tests.fuzz.engine import Read, Target, bounded, plain

_MOST_REFUSAL: Final = 4 * 64 * 1024
"""Characters: a value that is refused is repeated, which the log cuts."""

_VARIABLES: Final = [name.replace("#", "0") for name in names_in(Config)]
_VALUES: Final = (
    "20",
    "HK.00700,US.AAPL",
    '["HK.00700", "US.AAPL"]',
    "http://127.0.0.1:8080/?db=1",
    "1.5",
)


def _template() -> list[bytes]:
    """Return the template as it is, and with every key in force."""
    text = Path("config/poller.toml").read_text(encoding="utf-8")
    written = "\n".join(line.removeprefix("# ") for line in text.splitlines())
    return [text.encode(), written.encode()]


@contextmanager
def _file(folder: Path) -> Iterator[Read]:
    path = folder / "poller.toml"
    with path.open("wb", buffering=0) as file:

        def read(data: bytes) -> None:
            file.seek(0)
            file.truncate()
            file.write(data)
            _loaded(path, {})

        yield read


def _loaded(path: Path | None, environment: dict[str, str]) -> None:
    try:
        load(path, environment)
    except ConfigError as refused:
        bounded(str(refused), _MOST_REFUSAL)


def _set(variable: str, value: bytes) -> None:
    text = value.decode("utf-8", "surrogateescape").replace("\0", "")  # a variable holds none
    _loaded(None, {"POLLER_CONFIG": os.devnull, variable.replace("\0", ""): text})


def _value(data: bytes) -> None:
    """Set one variable. The input: a byte that says which, and the value."""
    _set(_VARIABLES[data[0] % len(_VARIABLES)] if data else PREFIX, data[1:])


def _values() -> list[bytes]:
    """Return values of several kinds for each variable."""
    return [
        bytes([number]) + text.encode() for number in range(len(_VARIABLES)) for text in _VALUES
    ]


def _name(data: bytes) -> None:
    _set(PREFIX + data.decode("utf-8", "surrogateescape"), b"20")


def _names() -> list[bytes]:
    return [name.removeprefix(PREFIX).encode() for name in _VARIABLES]


TARGETS: Final = (
    Target("configuration", _template, _file),
    Target("value of a variable", _values, plain(_value)),
    Target("name of a variable", _names, plain(_name)),
)
