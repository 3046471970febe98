r"""Makes text that somebody else wrote safe to show: on a terminal, in a log, a page, a status.

A terminal obeys control characters, and bidirectional or invisible ones make a person read
something that is not there. Here they become visible escapes as Python writes them (`\x1b`,
`\u202e`), and what is too long is cut. A backslash that was in the text stays as it is: an escape
is for people and cannot be told from the same characters written out.

What becomes an escape: control characters (C0, DEL, C1), everything that formats without being
seen (bidirectional marks, zero-width spaces and joiners, tags), line and paragraph separators, lone
surrogates, private use, code points that Unicode has not assigned, and the letters and variation
selectors that show nothing. A zero-width joiner is escaped even inside an emoji, which then falls
into its parts: kept there, it would have to be judged by its neighbours. The two selectors that
choose between a character's text and emoji form (U+FE0E, U+FE0F) stay: most emoji carry one. All
spaces become U+0020, whatever their width.
"""

import json
import re
import unicodedata
from itertools import accumulate
from typing import Final

LIMIT: Final = 500
"""Characters of one text, unless its face says otherwise: half a screen of a terminal."""

_MARKS_LIMIT: Final = 4
"""Marks on one character; more are written by no language and run into the lines above."""

_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0"
    "\U000e0000-\U000e0fff]"
)
"""Letters, marks and symbols by their category, which show nothing."""

_NOT_PLAIN: Final = re.compile(r"[^ -~\n]")
_BYTES_PER_CHARACTER: Final = 4  # at most, in UTF-8


def printable(text: object, limit: int = LIMIT) -> str:
    r"""Return `text` on one line, safe to show, of at most `limit` characters.

    Nothing is raised, whatever `text` is: an object that cannot be told is named by its type, bytes
    are read as UTF-8. Line breaks and tabs become `\n`, `\r` and `\t`. A text that is too long
    ends with "…", before an escape that would not fit whole. The result can be encoded in UTF-8,
    every character of it `isprintable()`, and shown again it stays as it is. What lies beyond
    `limit` costs nothing.
    """
    return _shown(text, limit, breaks="")


def printable_lines(text: object, limit: int = LIMIT) -> str:
    """Return `text` as `printable` does, but with its line feeds, for what is shown line by line.

    `limit` is of the whole text.
    """
    return _shown(text, limit, breaks="\n")


def text_of(value: object) -> str:
    """Return `str(value)`; where that fails, as somebody else's may, the name of its type."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001
        return f"<{type(value).__name__} that cannot be shown>"


def printable_json(document: str) -> str:
    r"""Return a JSON document that reads the same, with nothing in it that a terminal obeys.

    Characters `printable` would escape are written as JSON escapes (`\u202e`); so nothing is lost.
    """
    return _NOT_PLAIN.sub(_in_json, document)


def _shown(value: object, limit: int, breaks: str) -> str:
    text = _text_of(value, limit + 1)
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    pieces = _pieces(text, breaks)
    if sum(map(len, pieces)) <= limit:
        return "".join(pieces)
    fitting = sum(length < limit for length in accumulate(map(len, pieces)))
    return "".join(pieces[:fitting]) + "…"


def _text_of(value: object, limit: int) -> str:
    if isinstance(value, bytes | bytearray):
        value = bytes(value[: _BYTES_PER_CHARACTER * limit]).decode(errors="backslashreplace")
    return text_of(value)[:limit]


def _pieces(text: str, breaks: str) -> list[str]:
    """Return each character as it is to be shown; `breaks`: those that stay as they are."""
    pieces: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character).startswith("M") else 0
        if character in breaks:
            pieces.append(character)
        elif marks > _MARKS_LIMIT or _is_unsafe(character):
            pieces.append(character.encode("unicode_escape").decode())
        else:
            pieces.append(" " if character.isspace() else character)
    return pieces


def _is_unsafe(character: str) -> bool:
    if _INVISIBLE.match(character):
        return True
    return not (character.isprintable() or unicodedata.category(character) == "Zs")


def _in_json(found: re.Match[str]) -> str:
    character = found[0]
    return json.dumps(character)[1:-1] if _is_unsafe(character) else character
