"""What an account has seen of a market, and whether that tells of a missing right. Pure.

OpenD has many words for a missing right, and uses some of them for other troubles as well. Refusals
that name a right count after two symbols. For any other refusal it takes three symbols refused
alike with no answer in between, then an answer of another market or of this one at another account,
then one more refusal: so a passing trouble of the gateway is not mistaken for a missing right.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from poller.model import Code

EXPLICIT: Final = 2
"""Symbols refused in words that name a missing right, after which there is none."""

ALIKE: Final = 3
"""Symbols refused in the same words, or not answered, after which there may be none."""

UNPROVEN: Final = ALIKE + 1
"""Most requests under way at once in a market whose last poll was not answered.

Otherwise a whole budget would be under way before the first of them times out. Once a market is
suspect, one request at a time is enough to decide.
"""

_DIGITS: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A poll without a usable answer, which may be the market's trouble.

    Attributes:
        words: What OpenD said; the same for all requests that timed out.
        explicit: Whether the words name a missing right.
    """

    code: Code
    words: str
    explicit: bool = False

    @property
    def likeness(self) -> str:
        """A key equal for symbols refused for the same reason; codes in the words are ignored."""
        market, _, bare = self.code.partition(".")
        text = re.sub(rf"\b(?:{market}\.)?{re.escape(bare)}\b", "", self.words)
        return "" if self.explicit else f"={_DIGITS.sub('', text)}"


@dataclass(slots=True)
class Evidence:
    """What one account has seen of one market.

    Attributes:
        answered_at: When a symbol was last answered; None: none ever was.
        refused: The last refusal of each symbol refused since then, oldest first.
        witnessed_at: When another market, or account, was first answered after the first of them.
        excepted: Symbols that were refused while others were answered: their trouble is their own,
            and no evidence.
        said_none: Whether OpenD says that the account has no right.
        under_way: Requests that have not ended.
        control_at: When a symbol was last asked as a control, to tell of another market.
    """

    answered_at: datetime | None = None
    refused: dict[Code, Refusal] = field(default_factory=dict)
    witnessed_at: datetime | None = None
    excepted: set[Code] = field(default_factory=set)
    said_none: bool = False
    under_way: int = 0
    control_at: datetime | None = None
    _alike: Counter[str] = field(default_factory=Counter)  # of `refused`, by likeness

    @property
    def suspect(self) -> str | None:
        """The likeness of so many refusals that the market may be the cause, or None."""
        alike = self._alike.items()
        return next((k for k, n in alike if n >= (ALIKE if k else EXPLICIT)), None)

    @property
    def awaits_witness(self) -> bool:
        """Whether an answer elsewhere is wanted, to tell whether the market is the cause."""
        return self.suspect is not None and self.witnessed_at is None

    @property
    def doubtful(self) -> bool:
        """Whether OpenD says that there is no right, and no answer has shown that there is."""
        return self.said_none and self.answered_at is None

    @property
    def full(self) -> bool:
        """Whether so many requests are under way that no further one should be sent now."""
        if self.answered_at is not None and not self.refused:
            return False
        return self.under_way >= (1 if self.doubtful or self.suspect is not None else UNPROVEN)

    def add(self, refusal: Refusal, asked_at: datetime) -> Refusal | None:
        """Add a refusal; return the last one that tells of a missing right, if there is none."""
        if refusal.code in self.excepted:
            return None
        if (before := self.refused.pop(refusal.code, None)) is not None:
            self._alike[before.likeness] -= 1
        self.refused[refusal.code] = refusal
        self._alike[refusal.likeness] += 1
        likeness = self.suspect
        if likeness is None:
            return None
        if likeness and (self.witnessed_at is None or self.witnessed_at > asked_at):
            return None
        return next(r for r in reversed(self.refused.values()) if r.likeness == likeness)

    def witness(self, now: datetime) -> None:
        """Record an answer of another market of the account, or of this one at another account."""
        if self.refused:
            self.witnessed_at = self.witnessed_at or now

    def clear(self, code: Code, now: datetime) -> bool:
        """Record an answer; return whether it ends a run of refusals."""
        ended = len(self.refused) >= ALIKE
        self.excepted |= self.refused.keys()
        self.excepted.discard(code)
        self.refused.clear()
        self._alike.clear()
        self.answered_at, self.witnessed_at = now, None
        return ended
