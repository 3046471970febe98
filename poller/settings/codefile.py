"""Watchlist files: one code a line. An edge."""

import re
from pathlib import Path
from typing import Final

from poller.errors import BadCode
from poller.model import Code, parse_code
from poller.textfile import MIB, UnusableFile, decoded, read_bytes

LARGEST: Final = 4 * MIB
"""Bytes of a watchlist file: every code of both markets, with a comment each, fits many times."""

MOST_CODES: Final = 50_000
"""Codes taken of one source: three times what both markets list, 14 hours of requests."""

MOST_PROBLEMS: Final = 10
"""Lines that are named one by one; of a file of another kind it may be all."""

_LONGEST: Final = 60  # characters of a line that can hold a code; the error shows all of them

# What an editor counts as a line. Other separators (form feed, NEL, U+2028) are white space around
# a code, and within a line they are refused with it, visible.
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_MARK: Final = "\ufeff"  # also where files that begin with one were put together


def read_codes(path: Path, *, to_end: bool = True) -> tuple[tuple[Code, ...], list[str]]:
    """Read a watchlist file: one code a line, `#` starts a comment.

    Without `to_end`, what follows the last line end is left out: it may still be being written.
    Returns the codes and one line per problem, with its place; never raises.
    """
    try:
        data = read_bytes(path, limit=LARGEST)
        text = decoded(path, data if to_end else data[: data.rfind(b"\n") + 1])
    except UnusableFile as problem:
        return (), [str(problem)]
    codes: dict[Code, None] = {}
    problems: list[str] = []
    others = 0
    for number, line in enumerate(_LINE_END.split(text), 1):
        text = line.partition("#")[0].replace(_MARK, "").strip()
        if not text:
            continue
        if (refusal := _take(text, codes)) is None:
            continue
        if len(problems) < MOST_PROBLEMS:
            problems.append(f"{path}:{number}: {refusal}")
        else:
            others += 1
    if others:
        problems.append(f"{path}: and {others:,} more lines")
    return tuple(codes), problems


def _take(text: str, codes: dict[Code, None]) -> str | None:
    """Add the code that a text is, or return why it cannot be one."""
    if len(text) > _LONGEST:
        return f"a line of {len(text):,} characters is not a code: write one code a line"
    try:
        code = parse_code(text)
    except BadCode as problem:
        return str(problem)
    if code not in codes and len(codes) == MOST_CODES:
        return f"{code} is left out: {MOST_CODES:,} codes are taken of one source"
    codes[code] = None
    return None


def check_codes(path: Path) -> Path:
    """Return a file all of whose lines can be used, or raise ValueError with every problem."""
    _, problems = read_codes(path)
    if problems:
        raise ValueError("; ".join(problems))
    return path
