"""Masks configured secrets in a text, in every encoding in which they may be repeated."""

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, unquote

MASK: Final = "[secret]"

_SHORTEST: Final = 4
"""Characters of a spelling; masking shorter ones would hide ordinary words."""

_SHORTEST_INSIDE: Final = 8
"""Characters of a secret inside other base64; fewer occur by chance."""

PREFIX: Final = "whsec_"
"""Begins a secret of Standard Webhooks."""

_GROUP: Final = 3  # bytes that base64 encodes together, as four characters


class Redaction:
    """Masks secrets; their spellings are computed once."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        found = {each for secret in secrets for each in spellings(secret)}
        # longest first: a URL before its password
        self._spellings = tuple(sorted(found, key=lambda each: (-len(each), each)))

    def __call__(self, text: str, limit: int) -> str:
        """Return the first `limit` characters of `text`, or fewer, without a secret in them.

        A secret that the limit would cut is left out entirely.
        """
        if len(text) > limit:
            text = text[:limit]
            text = text[: len(text) - self._begun(text)]
        for spelling in self._spellings:
            text = text.replace(spelling, MASK)
        return text

    def _begun(self, text: str) -> int:
        """Return the length of the longest beginning of a secret that `text` ends with."""
        lengths = (
            length
            for spelling in self._spellings
            for length in range(_SHORTEST, len(spelling))
            if text.endswith(spelling[:length])
        )
        return max(lengths, default=0)


def spellings(secret: str) -> set[str]:
    """Return the ways in which a secret may be repeated, except very short ones.

    Plain; as Python and JSON quote it; percent-encoded and decoded; in base64, alone or inside
    something longer, as in an HTTP Basic authentication header.
    """
    plain = {secret, unquote(secret), secret.removeprefix(PREFIX)}
    found = set(plain)
    for each in plain:
        encoded = quote(each.encode(errors="surrogatepass"), safe="")
        found |= {encoded, encoded.replace("%2F", "/"), _lower_escapes(encoded)}
        found |= {repr(each)[1:-1], json.dumps(each)[1:-1]}
        found |= {inside for inside in _inside_base64(each) if len(inside) >= _SHORTEST_INSIDE}
    return {each for each in found if len(each) >= _SHORTEST}


def _lower_escapes(encoded: str) -> str:
    first, *rest = encoded.split("%")
    return "%".join([first, *(f"{part[:2].lower()}{part[2:]}" for part in rest)])


def _inside_base64(text: str) -> Iterator[str]:
    """Yield how `text` looks inside longer base64, for each alignment and both alphabets."""
    data = text.encode(errors="surrogatepass")
    for before in range(_GROUP):
        skipped = (before * 8 + 5) // 6  # characters that depend on the bytes before
        end = (before + len(data)) * 8 // 6  # from here on they depend on the bytes after
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + data)[skipped:end].decode()
