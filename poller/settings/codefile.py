"""Reads watchlist files: one code per line."""

import re
from pathlib import Path
from typing import Final

from poller.errors import BadCode
from poller.model import Code, parse_code
from poller.textfile import MIB, UnusableFile, decoded, read_bytes

LARGEST_WATCHLIST: Final = 4 * MIB
"""Bytes of a watchlist file: many times the codes of both markets with a comment each."""

MOST_CODES: Final = 50_000
"""Codes of one source: three times what both markets list, and 14 hours of requests."""

MOST_PROBLEMS: Final = 10
"""Lines named one by one; in a file of another kind every line may be a problem."""

_LONGEST: Final = 60  # characters of the longest line that may be a code

# Lines as editors count them. Other separators (form feed, NEL, U+2028) are stripped around a code,
# and refused, visibly, within a line.
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_MARK: Final = "\ufeff"  # a byte-order mark, also in the middle of concatenated files


def read_codes(path: Path, *, to_end: bool = True) -> tuple[tuple[Code, ...], list[str]]:
    """Read a watchlist file: one code per line, `#` starts a comment; never raises.

    Returns the codes, and a line per problem that begins with path and line number. Without
    `to_end`, an unfinished last line is left out: it may still be being written.
    """
    try:
        data = read_bytes(path, limit=LARGEST_WATCHLIST)
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
        if (refusal := _add(text, codes)) is None:
            continue
        if len(problems) < MOST_PROBLEMS:
            problems.append(f"{path}:{number}: {refusal}")
        else:
            others += 1
    if others:
        problems.append(f"{path}: and {others:,} more lines")
    return tuple(codes), problems


def _add(text: str, codes: dict[Code, None]) -> str | None:
    """Add a text to the codes, or return why it is refused."""
    if len(text) > _LONGEST:
        return f"a line of {len(text):,} characters is not a code: write one code per line"
    try:
        code = parse_code(text)
    except BadCode as problem:
        return str(problem)
    if code not in codes and len(codes) == MOST_CODES:
        return f"{code} is left out: a source may have {MOST_CODES:,} codes"
    codes[code] = None
    return None


def check_codes(path: Path) -> Path:
    """Return the path; raises ValueError with every problem of the file."""
    _, problems = read_codes(path)
    if problems:
        raise ValueError("; ".join(problems))
    return path
