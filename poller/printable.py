r"""Makes untrusted text safe to show on a terminal, in a log, on a page or in a status.

A terminal obeys control characters, and bidirectional or invisible ones make a person read
something that is not there. Here they become visible escapes as Python writes them (`\x1b`,
`\u202e`), and a text that is too long is cut. A backslash of the text stays as it is: escapes are
for people and cannot be distinguished from the same characters written out.

Escaped are: control characters (C0, DEL, C1), invisible format characters (bidirectional marks,
zero-width spaces and joiners, tags), line and paragraph separators, lone surrogates, private use,
unassigned code points, and letters and variation selectors that show nothing. A zero-width joiner
is escaped even inside an emoji, which then falls into its parts: to keep it there, its neighbours
would have to be examined. The two selectors that choose between a character's text and emoji form
(U+FE0E, U+FE0F) stay: most emoji carry one. All spaces become U+0020, whatever their width.
"""

import json
import re
import unicodedata
from itertools import accumulate
from typing import Final

LIMIT: Final = 500
"""Characters of one text unless the caller sets another limit: half a terminal screen."""

_MARKS_LIMIT: Final = 4
"""Combining marks on one character: no language uses more, and more run into the lines above."""

_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0"
    "\U000e0000-\U000e0fff]"
)
"""Characters that show nothing although their category is letter, mark or symbol."""

_NOT_PLAIN: Final = re.compile(r"[^ -~\n]")
_BYTES_PER_CHARACTER: Final = 4  # at most, in UTF-8
_READ: Final = 4
"""Characters that are read for each one that is kept; further ones cost no time."""


def printable(text: object, limit: int = LIMIT) -> str:
    r"""Return `text` on one line, safe to show, of at most `limit` characters.

    Never raises: an object whose `str()` fails is shown as its type's name; bytes are read as
    UTF-8. Line breaks and tabs become `\n`, `\r` and `\t`. A text that is too long ends with "…",
    which never splits an escape. The result can be encoded in UTF-8, all of it `isprintable()`, and
    is unchanged when passed through again. The part of a text beyond `limit` costs no time.
    """
    return _shown(text, limit, breaks="")


def printable_lines(text: object, limit: int = LIMIT) -> str:
    """Return `text` as `printable` does, but keep its line feeds; `limit`: of the whole text."""
    return _shown(text, limit, breaks="\n")


def text_of(value: object) -> str:
    """Return `str(value)`, or its type's name if that raises, as foreign classes may."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001
        return f"<{type(value).__name__} that cannot be shown>"


def without_unprintable(text: str, limit: int) -> str:
    """Return `text` on one line, trimmed, without what `printable` would escape, cut to `limit`.

    For a text that is kept and published: an escape would be taken for a part of it.
    """
    folded = " ".join(text[: _READ * limit].split())
    kept = "".join(piece for piece in _pieces(folded, breaks="") if len(piece) == 1)
    return " ".join(kept.split())[:limit].rstrip()


def printable_json(document: str) -> str:
    r"""Return an equal JSON document in which no character controls a terminal.

    Characters that `printable` would escape become JSON escapes (`\u202e`), so nothing is lost.
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
    """Return each character as it is shown; `breaks`: line breaks to keep."""
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
