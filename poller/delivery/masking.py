"""Masks an endpoint's secrets in its answers, however they are encoded there. Pure.

A receiver may echo the request: as it is, percent-encoded or -decoded, escaped as JSON or HTML, or
in base64. So an answer is decoded step by step, while each byte remembers its origin; wherever a
secret appears at any step, its origin is masked.
"""

import base64
import binascii
import contextlib
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Final
from urllib.parse import unquote, unquote_plus, unquote_to_bytes, urlsplit

from poller.telemetry.redaction import PREFIX

MASK: Final = "***"

LEAST: Final = 6
"""Characters of the shortest part of a URL that is taken for a secret. Shorter ones can be guessed
anyway, and masking them would blot out every `hook` and `true` of an answer."""

MAKE_ONE: Final = (
    'python3 -c "import base64, secrets; '
    f"print('{PREFIX}' + base64.b64encode(secrets.token_bytes(32)).decode())\""
)
"""The command that prints a new signing secret."""
_STEPS: Final = 4
"""How often an answer is decoded: JSON with a URL within a URL takes three."""

_ESCAPE: Final = re.compile(
    rb"%(?P<percent>[0-9a-f]{2})"
    rb"|(?-i:\\U)(?P<wide>[0-9a-f]{8})"
    rb"|\\u(?P<high>d[89ab][0-9a-f]{2})\\u(?P<low>d[c-f][0-9a-f]{2})"
    rb"|\\u(?P<unicode>[0-9a-f]{4})"
    rb"|\\x(?P<hexadecimal>[0-9a-f]{2})"
    rb"|\\(?P<plain>[\\/\"'])"
    rb"|\\(?P<short>[bfnrt])"
    rb"|&\#(?P<decimal>[0-9]{1,7});"
    rb"|&\#x(?P<hexed>[0-9a-f]{1,6});"
    rb"|&(?P<named>amp|lt|gt|quot|apos);"
    rb"|(?P<nothing>\0)",  # of UTF-16, read as UTF-8
    re.IGNORECASE,
)
_INCOMPLETE: Final = re.compile(rb"(%[0-9a-f]?|\\(u[0-9a-f]{0,3}|x[0-9a-f]?)?|&#?x?[0-9a-f]*)\Z")
"""An escape that is cut off by the end of an answer."""

_NAMED: Final = {
    b"amp": b"&",
    b"lt": b"<",
    b"gt": b">",
    b"quot": b'"',
    b"apos": b"'",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
}


class Mask:
    """Masks some secrets; the spellings to search for are computed on first use."""

    def __init__(self, texts: Iterable[str]) -> None:
        """`texts`: as configured."""
        self._texts = frozenset(text for text in texts if text)

    @cached_property
    def _needles(self) -> tuple[bytes, ...]:
        found = {needle.lower() for text in self._texts for needle in _spellings(text)}
        return tuple(sorted(found, key=lambda needle: (-len(needle), needle)))

    def __call__(self, data: str | bytes, limit: int | None = None) -> str:
        """Return the first `limit` bytes of `data` as text, with `***` for each secret."""
        raw = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
        end = len(raw) if limit is None else min(limit, len(raw))
        # a secret that begins before the limit may end after it, in its longest spelling
        raw = raw[: end + 12 * max(map(len, self._needles), default=0)]
        parts, at = [], 0
        for first, last in _merged(self._places(raw)):
            if first >= end:
                break
            parts += [raw[at:first], MASK.encode()]
            at = last
        parts.append(raw[at:end])
        return b"".join(parts).decode("utf-8", "replace")

    def _places(self, raw: bytes) -> Iterator[tuple[int, int]]:
        """Yield the spans of `raw` that hold secrets."""
        text, origin = raw, list(range(len(raw) + 1))
        for _ in range(_STEPS):
            lower = text.lower()
            whole = _INCOMPLETE.sub(b"", lower)
            for needle in self._needles:
                at = lower.find(needle)
                while at >= 0:
                    yield origin[at], origin[at + len(needle)]
                    at = lower.find(needle, at + 1)
                begun = _cut_off(whole, needle)
                if begun is not None:
                    yield origin[begun], origin[-1]
            decoded, origin = _decoded(text, origin)
            if decoded == text:
                return
            text = decoded


def _cut_off(text: bytes, needle: bytes) -> int | None:
    """Return where a secret begins that the text's end cuts off; None: there is none."""
    at = text.find(needle[:LEAST], max(len(text) - len(needle) + 1, 0))
    while at >= 0:
        if needle.startswith(text[at:]):
            return at
        at = text.find(needle[:LEAST], at + 1)
    return None


def _merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    first, last = -1, -1
    for begins, ends in sorted(spans):
        if begins > last:
            if last > first:
                yield first, last
            first, last = begins, ends
        else:
            last = max(last, ends)
    if last > first:
        yield first, last


def _decoded(text: bytes, origin: list[int]) -> tuple[bytes, list[int]]:
    """Undo one layer of escapes; `origin`: where each byte, and the end, is in the raw answer."""
    parts: list[bytes] = []
    begins: list[int] = []
    at = 0
    for escape in _ESCAPE.finditer(text):
        made = _unescaped(escape)
        parts += [text[at : escape.start()], made]
        begins += origin[at : escape.start()]
        begins += [origin[escape.start()]] * len(made)
        at = escape.end()
    parts.append(text[at:])
    return b"".join(parts), begins + origin[at:]


def _unescaped(escape: re.Match[bytes]) -> bytes:
    kind, value = escape.lastgroup, escape[escape.lastgroup or 0]
    match kind:
        case "percent":
            return bytes.fromhex(value.decode())
        case "named" | "short":
            return _NAMED[value.lower()]
        case "plain" | "nothing":
            return value.strip(b"\0")
        case "low":
            pair = bytes.fromhex((escape["high"] + value).decode())
            return pair.decode("utf-16-be").encode()
    number = int(value, 10 if kind == "decimal" else 16)
    return chr(number).encode("utf-8", "surrogatepass") if number <= sys.maxunicode else escape[0]


def _spellings(text: str) -> Iterator[bytes]:
    """Yield the byte sequences that reveal a secret, apart from escapes."""
    clear = {text.encode(), unquote_to_bytes(text), unquote_to_bytes(unquote_to_bytes(text))}
    clear |= {each.replace(b"+", b" ") for each in clear} | {
        each.replace(b" ", b"+") for each in clear
    }
    clear |= {each.replace(b"\0", b"") for each in clear}  # decoding drops NULs, too
    for each in tuple(clear):  # Latin-1 taken for UTF-8, or the other way round
        clear.add(each.decode("latin-1").encode())
        with contextlib.suppress(UnicodeError):
            clear.add(each.decode().encode("latin-1"))
    least = min(len(text), LEAST)  # once decoded, a text may be too short to be a secret
    for each in (each for each in clear if len(each) >= least):
        yield each
        if len(each) >= LEAST:
            yield each.hex().encode()
            yield from _base64(each)


def _base64(secret: bytes) -> Iterator[bytes]:
    """Yield the base64 of `secret` at each of the three alignments in a longer text."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(secret)
        for offset, skipped in enumerate((0, 2, 3)):
            whole = (offset + len(secret)) * 8 // 6
            yield encode(bytes(offset) + secret)[skipped:whole]


def secrets_in_url(url: str) -> Iterator[str]:
    """Yield what must not be shown of a URL: the whole, its path and query, and their parts."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    pieces = re.split(r"[/;:,=]", parts.path) + parts.path.split("/")
    pieces += [value or name for name, _, value in _pairs(parts.query)]
    if parts.scheme not in {"http", "https"}:  # a chat URL may have a token in place of the host
        pieces += re.split("[@:]", parts.netloc)
    yield from (t for t in (url, target, parts.path, parts.query, *pieces) if len(t) >= LEAST)
    user, password = parts.username or "", parts.password or ""
    if user or password:
        pair = f"{unquote(user)}:{unquote(password)}"
        yield from (pair, f"{user}:{password}")
        for charset in ("latin-1", "utf-8"):
            yield base64.b64encode(pair.encode(charset, "replace")).decode()
    yield from (text for text in (password,) if len(text) > 1)
    yield from (text for text in (user,) if len(text) >= (LEAST if password else 2))


def secrets_in_lines(url: str) -> Iterator[str]:
    """Yield what must not be shown of a URL in log lines, which may be about anything.

    Parts that look like plain words are not masked: `webhook` or `services` would blot out half of
    the log. A token has digits or capitals, or is long.
    """
    for part in secrets_in_url(url):
        if len(part) >= _LONG or _UNLIKE_A_WORD.search(part):
            yield from (part, unquote_plus(part))


_LONG: Final = 16
_UNLIKE_A_WORD: Final = re.compile(r"[0-9A-Z]")


def _pairs(query: str) -> Iterator[tuple[str, str, str]]:
    return (pair.partition("=") for pair in re.split("[&;]", query))


def secrets_in_key(secret: str) -> Iterator[str]:
    """Yield the spellings of a signing secret: with and without prefix and padding, and decoded."""
    body = secret.removeprefix(PREFIX)
    for each in (body, body.rstrip("="), body.replace("+", "-").replace("/", "_").rstrip("=")):
        yield from (each, f"{PREFIX}{each}")
    try:
        yield base64.b64decode(body, validate=True).decode()
    except (binascii.Error, ValueError):  # not base64, as a bot's secret, or not text
        return
