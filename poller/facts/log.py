"""The log's lines on stderr: coloured on a terminal, one JSON object a line elsewhere."""

import contextlib
import json
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TextIO

Level = Literal["info", "warning", "error"]

_RANK: Final[dict[Level, int]] = {"info": 0, "warning": 1, "error": 2}
_COLOUR: Final[dict[Level, str]] = {"info": "32", "warning": "33", "error": "31"}
_LONGEST_TRACE: Final = 16_000  # characters; the end of it names the place
_SHORTEST_SECRET: Final = 4  # less would blot out words, and guards nothing


@dataclass(frozen=True, slots=True)
class _Log:
    stream: TextIO
    level: Level = "info"
    secrets: tuple[str, ...] = ()

    def clean(self, value: object) -> object:
        """Return what may be written of a value; a text, unless it is a number or nothing."""
        if isinstance(value, int | float | bool | None):
            return value
        text = str(value)
        for secret in self.secrets:
            text = text.replace(secret, "[secret]")
        return text


_log = _Log(sys.stderr)


def configure(*, level: Level = "info", secrets: Sequence[str] = ()) -> None:
    """Log to stderr from now on, as it is now.

    `level`: the least that is written. No line holds one of the `secrets`, whoever wrote it.
    """
    global _log  # noqa: PLW0603  a process has one stderr
    long = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
    quoted = [repr(secret)[1:-1] for secret in long]
    # longest first: a URL before its password
    _log = _Log(sys.stderr, level, tuple(sorted({*long, *quoted}, key=len, reverse=True)))


def write(level: Level, event: str, **details: object) -> None:
    """Write a line, unless its level is too low."""
    if _RANK[level] < _RANK[_log.level]:
        return
    at = datetime.now(UTC)
    cleaned = {name: _log.clean(value) for name, value in details.items()}
    text = str(_log.clean(event))
    line = (
        _coloured(level, text, cleaned, at)
        if _log.stream.isatty()
        else _json(level, text, cleaned, at)
    )
    with contextlib.suppress(OSError):  # a full disk, a pipe nobody reads: the work goes on unseen
        _log.stream.write(line + "\n")  # in one piece, so that lines of several threads stay whole
        _log.stream.flush()


def _json(level: Level, event: str, details: dict[str, object], at: datetime) -> str:
    moment = at.isoformat().replace("+00:00", "Z")
    told = {**details, "event": event, "level": level, "timestamp": moment}
    return json.dumps(told, ensure_ascii=False)


def _coloured(level: Level, event: str, details: dict[str, object], at: datetime) -> str:
    trace = details.pop("exception", None)
    pairs = "".join(f" \x1b[36m{name}\x1b[0m={value}" for name, value in details.items())
    below = "" if trace is None else f"\n{trace}"
    mark = f"\x1b[{_COLOUR[level]}m{level:<7}\x1b[0m"
    return f"\x1b[2m{at:%Y-%m-%d %H:%M:%S}\x1b[0m {mark} {event}{pairs}{below}"


def tell_defect(problem: BaseException, text: str = "") -> None:
    """Log an error nobody expected, with its trace."""
    trace = "".join(traceback.format_exception(problem)).rstrip()[-_LONGEST_TRACE:]
    name = type(problem).__name__
    write("error", text or f"a defect of the poller, please report it: {name}", exception=trace)
