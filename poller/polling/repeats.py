"""Answers that brought nothing: the same, compared with the same, brings nothing again. Pure.

Most answers are of that kind, and parsing what is known and comparing is half of what a poll costs.
"""

from dataclasses import dataclass
from datetime import date
from hashlib import blake2b

from poller.detect.compare import Comparison, Known, brings_nothing
from poller.model import Code, Page


@dataclass(frozen=True, slots=True)
class _Nothing:
    answer: bytes
    known: bytes
    watermark: date | None


class Repeats:
    """The last answer of each symbol that brought nothing, and what was known then; as digests."""

    def __init__(self) -> None:
        self._last: dict[Code, _Nothing] = {}

    def is_known(self, code: Code, digest: bytes) -> bool:
        """Return whether an answer brought nothing when this was the digest of what is known."""
        last = self._last.get(code)
        return last is not None and last.known == digest

    def is_repeat(self, code: Code, page: Page) -> bool:
        """Return whether this is the answer that brought nothing."""
        return self._last[code].answer == _digest(page)

    def watermark(self, code: Code) -> date | None:
        """Return the watermark that such an answer confirms."""
        return self._last[code].watermark

    def note(
        self, code: Code, pages: list[Page], comparison: Comparison, known: Known, digest: bytes
    ) -> None:
        """Remember an answer that brings nothing, and forget one that did when another came."""
        if len(pages) == 1 and not pages[0].oddities and brings_nothing(comparison, known):
            self._last[code] = _Nothing(_digest(pages[0]), digest, comparison.watermark)
        else:
            self.forget(code)

    def forget(self, code: Code) -> None:
        """Let the next answer of a symbol be compared."""
        self._last.pop(code, None)

    def clear(self) -> None:
        """Let the next answer of every symbol be compared."""
        self._last.clear()


def _digest(page: Page) -> bytes:
    said = (page.records, page.next_key is None, page.oddities)
    return blake2b(repr(said).encode(errors="surrogatepass"), digest_size=16).digest()
