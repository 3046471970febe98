"""Which events an endpoint gets: by type, by code, and by a filter. Pure.

A filter is a boolean expression in CEL, the Common Expression Language:

    abs(change.percent) >= 10 && record.days_to_cover > 5
    market == "HK" && (shares > 5000000 || change.year_high)

| name | is |
|---|---|
| `event` | `"reported"`, `"revised"`, `"backfilled"` or `"restated"` |
| `code`, `market`, `trading_day`, `observed_at` | texts as on the stream; days and times sort |
| `name` | the company's name, where it is known |
| `flags` | texts: `"split" in flags` |
| `revision` | number |
| `shares`, `ratio` | the short shares and their percentage, of any market |
| `record.…`, `previous.…` | every figure of the SDK's columns; also `.shares`, `.ratio` |
| `outstanding_percent` | the short shares in percent of the outstanding shares |
| `change.…` | every figure of `change`; `change.year_high` and `.year_low` are true or false |
| `restated.…` | every member of `restated`: `.factor` and `.days` are numbers, the others texts |

Operators: `&& || ! == != < <= > >= in + - * / ? :`, `abs(number)`, and on texts `.startsWith()`,
`.endsWith()`, `.contains()`. In arithmetic, numbers need a decimal point (`2.0`); in comparisons
`2` will do. There are no loops, regular expressions or other functions, so an expression can
neither run code nor take long.

A comparison with an absent figure is unknown: Hong Kong has no `record.days_to_cover`, and a
symbol's first record has no `change`. `!unknown` is unknown, `unknown || true` is true; an event
matches only if the result is true.

An endpoint that selects `release.detected` or `release.completed` receives those of each market
that at least one of its code patterns can match; the filter does not apply to them.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from itertools import takewhile
from typing import Any, Final

from poller.events import Message, Restated, StreamEvent, StreamNotice
from poller.markets import Record, all_markets
from poller.model import Cause, Change, EventType, isoformat, parse_code
from poller.schedule.notice import TYPES

EVENTS: Final = (*(kind.removeprefix("short_interest.") for kind in EventType), *TYPES)
"""The values that `events` may hold."""

_TEXTS: Final = ("code", "market", "trading_day", "observed_at", "name")
_RESTATED: Final = {
    **dict.fromkeys(("cause", "column", "from", "to"), "string"),
    **dict.fromkeys(("factor", "days"), "double"),
}
_NEUTRAL: Final = ("shares", "ratio")
_COLUMNS: Final = {column for market in all_markets() for column in market.columns}
_FIGURES: Final = {*_COLUMNS, *_NEUTRAL} - {"timestamp_str"}


def _types() -> dict[str, str]:
    """Return every name that a filter may use, with its CEL type."""
    names = dict.fromkeys(("event", *_TEXTS), "string")
    names |= dict.fromkeys(("revision", *_NEUTRAL, "outstanding_percent"), "double")
    for row in ("record", "previous"):
        names |= dict.fromkeys((f"{row}.{name}" for name in sorted(_FIGURES)), "double")
    for each in fields(Change):
        is_flag = each.name in {"year_high", "year_low"}
        names[f"change.{each.name}"] = "bool" if is_flag else "double"
    names |= {f"restated.{name}": kind for name, kind in _RESTATED.items()}
    return names | {"flags": "list"}


NAMES: Final[Mapping[str, str]] = _types()
"""Name → `string`, `double`, `bool` or, of texts, `list`."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The events an endpoint gets: those that meet all three conditions. For notices see above.

    `events`: some of EVENTS. `codes`: shell patterns, of which one must match. `filter`: see above;
    None matches everything. Raises ValueError with one line that says what to write instead.
    """

    events: frozenset[str] = frozenset({"reported", "revised"})
    codes: tuple[str, ...] = ("*",)
    filter: str | None = None
    _program: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check every part now, so that no event finds a mistake later."""
        if unknown := self.events - set(EVENTS):
            raise ValueError(f"{min(unknown)!r} is not an event; known are {', '.join(EVENTS)}")
        for pattern in self.codes:
            check_pattern(pattern)
        program = None if self.filter is None else _compiled(self.filter)
        object.__setattr__(self, "_program", program)

    def selects(self, code: str) -> bool:
        """Return whether one of the patterns matches a code."""
        return any(fnmatchcase(code, pattern) for pattern in self.codes)

    def reaches(self, market: str) -> bool:
        """Return whether one of the patterns can match a code of a market."""
        return any(_reaches(pattern, market) for pattern in self.codes)

    def matches(self, message: Message) -> bool:
        """Return whether the endpoint gets a message; raises whatever the filter raises."""
        if message.type.removeprefix("short_interest.") not in self.events:
            return False
        if isinstance(message, StreamNotice):
            return self.reaches(message.market.name)
        if not self.selects(message.code):
            return False
        if self._program is None:
            return True
        return self._program.eval(data=_values(message)).value() is True


def check_pattern(pattern: str) -> None:
    """Raise ValueError for a pattern that no code can match; patterns are case-sensitive."""
    if pattern != pattern.upper():
        raise ValueError(f"{pattern!r} fits no code; write {pattern.upper()!r}")
    if not any(wild in pattern for wild in "*?["):
        parse_code(pattern)
        return
    # an unclosed bracket matches itself, and codes have none
    literal = re.sub(r"\[!?[^]][^]]*\]|[*?]", "", pattern)
    if re.search(r"[^A-Z0-9._-]", literal) or not any(
        _reaches(pattern, market.name) for market in all_markets()
    ):
        raise ValueError(f"{pattern!r} fits no code; patterns look like 'HK.*' or 'US.A*'")


def _reaches(pattern: str, market: str) -> bool:
    """Return whether a pattern can match a code of a market; after a `*` anything can."""
    parts = re.findall(r"\[!?\]?[^]]*\]|.", pattern)
    fixed = takewhile(lambda part: part != "*", parts)
    return all(fnmatchcase(char, part) for char, part in zip(f"{market}.", fixed, strict=False))


@lru_cache(maxsize=64)  # shared by all endpoints that filter
def _values(event: StreamEvent) -> dict[str, object]:
    """Return an event's values by their names in a filter, without absent ones."""
    values: dict[str, object] = {
        "event": event.kind,
        "code": event.code,
        "market": str(event.market),
        "trading_day": str(event.trading_day),
        "observed_at": isoformat(event.observed_at),
        "revision": float(event.revision),
        "outstanding_percent": event.outstanding_percent,
        "name": event.name,
        "flags": list(event.flags),
    }
    values |= dict(_neutral(event.record))
    for part, row in (("record", event.record), ("previous", event.previous)):
        if row is not None:
            figures = (*row.columns().items(), *_neutral(row))
            values |= {f"{part}.{name}": _plain(value) for name, value in figures}
    if event.change is not None:
        values |= {f"change.{n}": _plain(value) for n, value in event.change.columns().items()}
    if event.restated is not None:
        values |= {f"restated.{n}": _plain(value) for n, value in _restated(event.restated)}
    return {name: value for name, value in values.items() if type(value) is _type_of(name)}


def _neutral(record: Record) -> Iterator[tuple[str, float | None]]:
    """Yield the short figures under the names that all markets share."""
    yield "shares", None if record.shares is None else float(record.shares)
    yield "ratio", record.ratio


def _restated(fact: Restated) -> Iterator[tuple[str, object]]:
    """Yield the members of `restated` as on the stream; the first version did not write a cause."""
    yield "cause", fact.cause or str(Cause.RESCALED)
    yield "column", fact.column
    yield "from", fact.first
    yield "to", fact.last
    yield "factor", fact.factor
    yield "days", fact.days


def _plain(value: object) -> object:
    """Return a whole number as a float, a filter's only type of number."""
    return float(value) if type(value) is int else value


def _type_of(name: str) -> type | None:
    return _TYPES.get(NAMES.get(name))


_TYPES: Final[Mapping[str | None, type]] = {
    "double": float,
    "bool": bool,
    "string": str,
    "list": list,
}


# The language is limited to what is listed here. Of the CEL libraries considered (the others are
# cel-python and common-expression-language) only this one checks names and types in advance, and
# can do without macros, with which one filter could block all endpoints for minutes. Neither of the
# others installs from wheels on musl.

_COMPARISONS: Final = {
    "_==_": "equals",
    "_!=_": "not_equals",
    "_<_": "less",
    "_<=_": "less_equals",
    "_>_": "greater",
    "_>=_": "greater_equals",
}
_ARITHMETIC: Final = {"_+_": "add", "_-_": "subtract", "_*_": "multiply", "_/_": "divide"}
_STANDARD: Final = ("_&&_", "_||_", "!_", "_?_:_", "@in", "startsWith", "endsWith", "contains")


def _cel() -> Any:  # noqa: ANN401  the library ships no types
    """Return the library; raises ValueError where it is absent, as on musl (Alpine)."""
    try:
        from cel_expr_python import cel  # noqa: PLC0415  5 MB, only needed for filters
    except ImportError:
        raise ValueError(
            "the filter language is not installed: `pip install cel-expr-python`, which needs a "
            "Linux with glibc (Alpine has none); or leave `filter` out"
        ) from None
    return cel


@cache
def _language() -> Any:  # noqa: ANN401  the library ships no types
    """Return CEL reduced to the operators above.

    Floats may be compared with integers, which CEL's checker refuses though its runtime can do it.
    """
    standard: list[dict[str, object]] = [{"name": name} for name in _STANDARD]
    standard += [
        {"name": name, "overloads": [{"id": f"{verb}_double"}]}
        for name, verb in {**_ARITHMETIC, "-_": "negate"}.items()
    ]
    functions = [
        {"name": name, "overloads": list(_comparison(name, verb))}
        for name, verb in _COMPARISONS.items()
    ]
    functions.append({"name": "abs", "overloads": [_overload("abs_double", "double", "double")]})
    variables = [{"name": name, **_declared(kind)} for name, kind in NAMES.items()]
    settings = {
        "stdlib": {"disable_macros": True, "include_functions": standard},
        "variables": variables,
        "functions": functions,
    }
    cel = _cel()
    config = cel.NewEnvConfigFromYaml(json.dumps(settings))  # JSON is YAML
    return cel.NewEnv(config=config, function_impls={"abs_double": abs})


def _declared(kind: str) -> dict[str, object]:
    """Return how the library is told a type; all lists are of texts."""
    return {"type_name": kind} | ({"params": [{"type_name": "string"}]} if kind == "list" else {})


def _comparison(name: str, verb: str) -> Iterator[dict[str, object]]:
    pairs = [("double", "double"), ("double", "int64"), ("int64", "double"), ("string", "string")]
    if name in {"_==_", "_!=_"}:
        pairs.append(("bool", "bool"))
    for one, other in pairs:
        yield _overload(f"{verb}_{one}_{other}", "bool", one, other)


def _overload(name: str, gives: str, *takes: str) -> dict[str, object]:
    arguments = [{"type_name": kind.removesuffix("64")} for kind in takes]
    return {"id": name, "args": arguments, "return": {"type_name": gives}}


# translates the library's messages into the words of this module

_ERROR: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']+)'")
_MISFIT: Final = re.compile(r"found no matching overload for '([^']+)' applied to '\((.*)\)'")
_OTHERWISE_SPELLED: Final = re.compile(r"\b(and|or|not)\b|(?<![=!<>])=(?!=)")
_SPELLING: Final = "write &&, ||, ! and == for and, or, not and ="
_SHOWN: Final = 30
_WORDS: Final = {
    "double": "number",
    "int": "whole number",
    "string": "text",
    "bool": "true/false",
    "list(string)": "list",
}


def _compiled(text: str) -> Any:  # noqa: ANN401  the library ships no types
    """Return the checked program, or raise ValueError that points at the first mistake."""
    try:
        program = _language().compile(text)
    except RuntimeError as problem:
        raise ValueError(_explained(text, str(problem))) from None
    if program.return_type() != _cel().Type.BOOL:
        raise ValueError("it is neither true nor false: compare it with something")
    return program


def _explained(text: str, said: str) -> str:
    if (error := _ERROR.search(said)) is None:
        return "it is too long or too deeply nested"
    line, column, why = int(error[1]), int(error[2]), error[3].removesuffix(" [INVALID_ARGUMENT]")
    row = text.split("\n")[line - 1]
    if (undeclared := _UNDECLARED.match(why)) is not None:
        name = undeclared[1]
        # the library points at the last dot or the parenthesis
        column = row.rfind(name, 0, column + len(name)) + 1 or column
        why = _SPELLING if name == "not" else f"unknown name {name!r}{_suggestion(name)}"
    elif (misfit := _MISFIT.match(why)) is not None:
        why = _why_no_overload(misfit[1].replace("_", "").removeprefix("@"), misfit[2].split(", "))
    elif _OTHERWISE_SPELLED.search(text):
        why = _SPELLING
    elif why.startswith("Syntax error"):
        why = "this cannot stand here" if row[column - 1 :].strip() else "something is missing"
    place = f"column {column}" if line == 1 else f"line {line}, column {column}"
    rest = row[column - 1 :]
    shown = repr(rest[:_SHOWN] + "…" * (len(rest) > _SHOWN)) if rest.strip() else "the end"
    return f"{place}, at {shown}: {why}"


def _suggestion(name: str) -> str:
    last = [known for known in NAMES if known.rpartition(".")[2] == name]
    close = last or difflib.get_close_matches(name, [*NAMES, "abs"], n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    plain = ", ".join(known for known in NAMES if "." not in known)
    return f"; known are {plain}, record.…, change.…, restated.…"


def _why_no_overload(operator: str, kinds: list[str]) -> str:
    if "type(type)" in kinds:  # CEL's own `type`, confused with the stream's field
        return "unknown name 'type'; did you mean 'event'?"
    words = " and ".join(_WORDS.get(kind, kind) for kind in kinds)
    whole = operator in "+-*/" and "int" in kinds and set(kinds) <= {"int", "double"}
    hint = ": write numbers with a decimal point, like 2.0" if whole else ""
    if "list(string)" in kinds:
        hint = ": write 'split' in flags"
    return f"{operator!r} does not go with {words}{hint}"
