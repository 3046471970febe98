"""Writes the log to stderr: coloured on a terminal, elsewhere one JSON object per line.

Texts from any source are masked (no secrets), made printable (no terminal sequences) and limited.
"""

import contextlib
import hashlib
import json
import math
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TextIO

from poller.printable import printable, printable_lines, text_of
from poller.telemetry.redaction import Redaction

Level = Literal["info", "warning", "error"]

RANK: Final[dict[Level, int]] = {"info": 0, "warning": 1, "error": 2}

TEXT_LIMIT: Final = 4_000
"""Most characters of an event or of one of its details: room for fifty held days."""

TRACE_LIMIT: Final = 20_000
"""Most characters of a traceback: some hundred frames."""

_COLOUR: Final[dict[Level, str]] = {"info": "32", "warning": "33", "error": "31"}
_EXACT: Final = 2**63  # JSON readers keep smaller integers exact


def wants_colours(environment: Mapping[str, str]) -> bool:
    """Return whether a terminal may be written to in colours; see https://no-color.org."""
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


@dataclass(frozen=True, slots=True)
class _Log:
    stream: TextIO
    level: Level = "info"
    redaction: Redaction = Redaction()  # noqa: RUF009  immutable, and without any secret
    in_colours: bool = True

    def clean(self, value: object) -> object:
        """Return a value that may be written: a number, a boolean, None, or a safe text."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and abs(value) < _EXACT:
            return int(value)
        if isinstance(value, float) and math.isfinite(value):
            return float(value)
        return printable(self.masked(value, TEXT_LIMIT), TEXT_LIMIT)

    def masked(self, value: object, limit: int) -> str:
        return self.redaction(text_of(value), limit + 1)  # one more shows that it was truncated

    def trace(self, value: object) -> str:
        return printable_lines(self.masked(value, TRACE_LIMIT), TRACE_LIMIT)

    def painted(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.in_colours else text


_log = _Log(sys.stderr, in_colours=wants_colours(os.environ))


def configure(
    *,
    level: Level = "info",
    secrets: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Log to the current `sys.stderr` from now on.

    `level`: the lowest that is written. `secrets` are masked in every line. `environment`: says
    whether a terminal gets colours.
    """
    global _log  # noqa: PLW0603  a process has one stderr
    _log = _Log(sys.stderr, level, Redaction(secrets), wants_colours(environment))


def shown(text: object) -> str:
    """Return a text on one line, as safe as the log would write it, for use elsewhere."""
    return str(_log.clean(text_of(text)))


def is_written(level: Level) -> bool:
    """Return whether lines of this level are written."""
    return RANK[level] >= RANK[_log.level]


def write(level: Level, event: str, **details: object) -> None:
    """Write a line unless its level is too low; never raises, whatever the details are.

    The detail `exception` is a traceback, which keeps its line breaks.
    """
    if not is_written(level):
        return
    at = datetime.now(UTC)
    trace = details.pop("exception", None)
    cleaned = {name: _log.clean(value) for name, value in details.items()}
    text = str(_log.clean(event))
    below = None if trace is None else _log.trace(trace)
    # a full disk, a broken pipe or a closed stream must not stop the work
    with contextlib.suppress(OSError, ValueError):
        line = _readable if _log.stream.isatty() else _json
        # one write, so that lines of several threads are not mixed
        _log.stream.write(line(level, text, cleaned, below, at) + "\n")
        _log.stream.flush()


def _json(
    level: Level, event: str, details: dict[str, object], trace: str | None, at: datetime
) -> str:
    moment = at.isoformat().replace("+00:00", "Z")
    line = {**details, "event": event, "level": level, "timestamp": moment}
    if trace is not None:
        line = {"exception": trace, **line}
    return json.dumps(line, ensure_ascii=False)


def _readable(
    level: Level, event: str, details: dict[str, object], trace: str | None, at: datetime
) -> str:
    paint = _log.painted
    pairs = "".join(f" {paint('36', name)}={value}" for name, value in details.items())
    below = "" if trace is None else f"\n{trace}"
    mark = paint(_COLOUR[level], f"{level:<7}")
    return f"{paint('2', f'{at:%Y-%m-%d %H:%M:%S}')} {mark} {event}{pairs}{below}"


def log_defect(problem: BaseException, text: str = "") -> None:
    """Log an unexpected error with its traceback."""
    name = type(problem).__name__
    write(
        "error",
        text or f"a defect of the poller, please report it: {name}",
        fingerprint=fingerprint(problem),
        exception=trace_of(problem),
    )


def trace_of(problem: BaseException) -> str:
    """Return the traceback as text."""
    return "".join(traceback.format_exception(problem)).rstrip()


def fingerprint(problem: BaseException) -> str:
    """Return eight hexadecimal digits that are the same for the same error at the same place.

    The place is the names of the functions, without line numbers, which change with every edit.
    """
    frames = traceback.walk_tb(problem.__traceback__)
    places = [f"{Path(f.f_code.co_filename).name}:{f.f_code.co_name}" for f, _ in frames]
    if isinstance(problem, BaseExceptionGroup):
        places += [fingerprint(each) for each in problem.exceptions]
    text = "\n".join([type(problem).__qualname__, *dict.fromkeys(places)])
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]
