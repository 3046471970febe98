"""Watchlist files: one code a line. An edge."""

from pathlib import Path

from poller.errors import BadCode
from poller.model import Code, parse_code, unique


def read_codes(path: Path) -> tuple[tuple[Code, ...], list[str]]:
    """Read a watchlist file: one code a line, `#` starts a comment.

    Returns the codes and one line per problem, with its place; never raises.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        return (), [f"{path}: {getattr(problem, 'strerror', None) or problem}"]
    codes, problems = [], []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            codes.append(parse_code(text))
        except BadCode as problem:
            problems.append(f"{path}:{number}: {problem}")
    return unique(codes), problems


def check_codes(path: Path) -> Path:
    """Return a file all of whose lines can be used, or raise ValueError with every problem."""
    _, problems = read_codes(path)
    if problems:
        raise ValueError("; ".join(problems))
    return path
