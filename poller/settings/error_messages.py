"""Translates pydantic's errors: where a setting was written, what is wrong, what to write. Pure."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel

from poller.settings.sources import LISTS, example_table, split
from poller.settings.variables import table_in

Location = tuple[int | str, ...]
"""The keys and indexes that lead to a value, as pydantic reports them."""

_WORDS: Final = {
    "bool_parsing": "write true or false",
    "bool_type": "write true or false",
    "finite_number": "give a number",
    "float_parsing": "give a number",
    "float_type": "give a number",
    "greater_than": "give a number above {gt:g}",
    "greater_than_equal": "give {ge:g} or more",
    "int_from_float": "give a whole number",
    "int_parsing": "give a whole number",
    "int_type": "give a whole number",
    "less_than_equal": "give {le:g} or less",
    "literal_error": "write {expected}",
    "path_type": "give a path in quotes",
    "string_too_short": "write a text, or leave the key out",
    "string_type": "give a text in quotes",
}
"""pydantic's error type → what to write; the braces refer to its context."""

_EXAMPLES: Final = {
    "opend.rsa_private_key_file": '"key.pem"',
    "redis.url": '"redis://127.0.0.1:6379/0"',
    "state_dir": '"state"',
    "watchlist.codes": '["HK.00700", "US.AAPL"]',
    "watchlist.files": '["watchlist.txt"]',
    "watchlist.futu_groups": '["Favourites"]',
    "watchlist.weights": '{ "HK.*" = 2.0 }',
    "webhooks.codes": '["HK.*"]',
    "webhooks.events": '["reported", "revised"]',
    "webhooks.name": '"desk"',
    "webhooks.secret": '"whsec_…"',
    "webhooks.url": '"https://example.org/hook"',
}
_LARGEST_SHOWN: Final = 2**63
_NO_TABLE: Final = {"model_type", "dict_type"}
_SECRET: Final = {"url", "secret", "token"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where keys were written.

    Attributes:
        source: The file that has the keys of which no variable has.
        variables: Dotted key → the variable that set it.
        files: Dotted key, without `_file` → the files that its text is from.
    """

    source: str
    variables: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)

    def of(self, key: str) -> str:
        """Return where a dotted key was written: a part of it, the whole or a table above it."""
        for known, paths in self.files.items():
            if f"{key}.".startswith(f"{known}."):
                return (
                    f"{self.variable(f'{known}_file') or f'{self.source}: {known}_file'}: {paths}"
                )
        return self.variable(key) or f"{self.source}: {key}"

    def variable(self, key: str) -> str | None:
        """Return the variable that set a dotted key, a table above it or else a part of it."""
        for known, variable in self.variables.items():
            if f"{key}.".startswith(f"{known}."):
                return variable
        return self._below(key)

    def _below(self, key: str) -> str | None:
        named = (v for known, v in self.variables.items() if known.startswith(f"{key}."))
        return next(named, None)

    def name(self, key: str) -> str:
        """Return what an operator removes to unset a dotted key: a variable, or the key."""
        return self.variables.get(key) or self._below(key) or key


def given_twice(key: str, origin: Origin) -> str:
    """Return the line for a key that is there with and without `_file` at one level."""
    text, file = origin.name(key), origin.name(f"{key}_file")
    where = origin.of(key) if text == key else text
    return (
        f"{where}: {file} is set as well: remove {text} to read the file, or {file} to use the "
        "value written here"
    )


def refusal(
    error: Any,  # noqa: ANN401  pydantic's ErrorDetails
    raw: Mapping[str, Any],
    origin: Origin,
    model: type[BaseModel],
) -> str:
    """Return the line for one of pydantic's errors of validating `raw` as `model`."""
    location: Location = tuple(part for part in error["loc"] if part != "[key]")
    key = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        return f"{origin.of(key)}: unknown key{_did_you_mean(location, model)}"
    value = _value_at(raw, location)
    shown = f" (it is {value!r})" if _is_showable(value) else ""
    # in place of a table somebody may have written its secret, as in `redis = "redis://…"`
    no_table = error["type"] in _NO_TABLE or not LISTS.isdisjoint(location[-1:])
    secret = not _SECRET.isdisjoint(location) or no_table
    words = _words(error, location)
    if no_table and origin.variable(key):
        table = example_table(str(location[-1]))
        words = f"write it in JSON, as {f'[{table}]' if location[-1] in LISTS else table}"
    return f"{origin.of(key)}: {words}{'' if secret else shown}"


def _is_showable(value: object) -> bool:
    # Python refuses to format integers of thousands of digits, which TOML allows in hexadecimal
    return isinstance(value, str | float) or (
        isinstance(value, int) and abs(value) < _LARGEST_SHOWN
    )


def follows(location: Location, unread: Iterable[str]) -> bool:
    """Return whether an error only follows from a file in `unread`, which is already reported.

    Without an endpoint's URL it is unknown which secret it needs.
    """
    key = ".".join(str(part) for part in location)
    table = key.rpartition(".")[0]
    return any(
        f"{key}_file" == file or (key == f"{table}.secret" and file == f"{table}.url_file")
        for file in unread
    )


def _words(error: Any, location: Location) -> str:  # noqa: ANN401
    kind = error["type"]
    names = [part for part in location if isinstance(part, str)]
    example = _EXAMPLES.get(".".join(names))
    written = f": {names[-1]} = {example}" if example else ""
    if kind in _WORDS:
        return _WORDS[kind].format(**error.get("ctx", {})) + written
    if kind == "missing":
        return f"it is missing; write{written.removeprefix(':') or ' it'}"
    if names[-1] in LISTS:
        return f"write it as a table in a list, with two brackets: [[{names[-1]}]]"
    if kind == "tuple_type":
        return f"give a list{written}"
    if kind in {"model_type", "dict_type"}:
        return f"write it as a table{written or f': [{names[-1]}]'}"
    return str(error["msg"]).removeprefix("Value error, ")


def _did_you_mean(location: Location, model: type[BaseModel]) -> str:
    for part in location[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            model = table_in(model.model_fields[part].annotation) or model
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(sorted(known))}"


def _value_at(raw: Any, location: Location) -> Any:  # noqa: ANN401  TOML has no types
    for part in location:
        try:
            here: Any = split(raw) if isinstance(part, int) else raw
            raw = here[part]
        except (KeyError, IndexError, TypeError):
            return None
    return raw
