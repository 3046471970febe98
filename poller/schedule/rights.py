"""Learns from answers which markets an account has a right to. Pure.

A right belongs to an account and a market. OpenD has many words for a missing one, and uses some of
them for other troubles as well. Refusals that name a right count after two symbols. For any other
refusal it takes three symbols refused alike with no answer in between, then an answer of another
market or of this one at another account, then one more refusal: so a passing trouble of the gateway
is not mistaken for a missing right. If no other market is asked anyway, one of its symbols is asked
as a control.

A market that rests is tried with one symbol from time to time, ever more rarely. The first usable
answer ends the rest.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from poller.markets import Market
from poller.model import Code, market_of

EXPLICIT: Final = 2
"""Symbols refused in words that name a missing right, after which the market rests."""

ALIKE: Final = 3
"""Symbols refused in the same words, or not answered, after which it may rest."""

UNPROVEN: Final = ALIKE + 1
"""Most requests under way at once in a market whose last poll was not answered.

Otherwise a whole budget would be under way before the first of them times out. Once a market is
suspect, one request at a time is enough to decide.
"""

FIRST_PAUSE: Final = timedelta(minutes=1)
"""Pause before the first trial of a resting market; doubled after each trial that fails."""

HINT_PAUSE: Final = timedelta(seconds=10)
"""Shortest pause between two trials after a hint that rights have changed."""

LONGEST_PAUSE: Final = timedelta(days=1)

_DIGITS: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Access:
    """What an account may be asked for now.

    Attributes:
        resting: Markets that are not asked, and when each is tried next.
        controls: Markets whose answer shows whether another one's trouble is the gateway's.
        full: Markets that are not asked until a request under way has ended.
        doubtful: Markets that OpenD says it has no right to, though none of their symbols was
            refused yet: the others come first.
    """

    account: str = ""
    resting: Mapping[Market, datetime] = field(default_factory=dict)
    controls: frozenset[Market] = frozenset()
    full: frozenset[Market] = frozenset()
    doubtful: frozenset[Market] = frozenset()


EVERYTHING: Final = Access()


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


@dataclass(frozen=True, slots=True)
class Withheld:
    """A market that rests at an account. Instants are aware.

    Attributes:
        refusal: The last of the refusals it was learned from.
        codes: The symbols that were refused.
        since: When it was learned.
        next_at: When it is tried next.
        pause: The pause before the next trial.
        trial: The symbol being tried now.
        tried_at: When the last trial was sent; None before the first.
    """

    account: str
    market: Market
    refusal: Refusal
    codes: tuple[Code, ...]
    since: datetime
    next_at: datetime
    pause: timedelta = FIRST_PAUSE
    trial: Code | None = None
    tried_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """A market that rested at an account is asked again, because `code` was answered."""

    account: str
    market: Market
    code: Code


@dataclass(slots=True)
class _Sight:
    """What one account has seen of one market; `refused` since its last answer, oldest first."""

    answered_at: datetime | None = None
    refused: dict[Code, Refusal] = field(default_factory=dict)
    alike: Counter[str] = field(default_factory=Counter)
    witnessed_at: datetime | None = (
        None  # when another market, or account, was first answered after the first refusal
    )
    troubled: set[Code] = field(default_factory=set)  # refused although their market was answered
    control_at: datetime | None = None  # when one of its symbols was last asked as a control
    resting: Withheld | None = None
    under_way: int = 0
    hinted: bool = False  # whether OpenD says that the account has no right to it

    @property
    def full(self) -> bool:
        """Whether no further symbol is asked now."""
        is_proven = self.answered_at is not None and not self.refused
        most = UNPROVEN if self.suspect is None and not self.doubtful else 1
        return self.under_way >= most and not is_proven

    @property
    def doubtful(self) -> bool:
        """Whether OpenD says that there is no right, and no answer has shown that there is."""
        return self.hinted and self.answered_at is None

    def was_control(self, now: datetime) -> bool:
        """Return whether one of its symbols was asked as a control within `FIRST_PAUSE`."""
        return self.control_at is not None and now - FIRST_PAUSE < self.control_at <= now

    def count(self, refusal: Refusal) -> None:
        """Count a refusal; of each symbol only the last one counts."""
        if (before := self.refused.pop(refusal.code, None)) is not None:
            self.alike[before.likeness] -= 1
        self.refused[refusal.code] = refusal
        self.alike[refusal.likeness] += 1

    @property
    def suspect(self) -> str | None:
        """The likeness of so many refusals that the market may be the cause, or None."""
        if self.resting is not None:
            return None
        return next((k for k, n in self.alike.items() if n >= (ALIKE if k else EXPLICIT)), None)

    def clear(self, code: Code, now: datetime) -> bool:
        """Count an answer; return whether it ends a run of refusals or a rest."""
        ended = len(self.refused) >= ALIKE or self.resting is not None
        self.troubled |= self.refused.keys()
        self.troubled.discard(code)
        self.refused.clear()
        self.alike.clear()
        self.answered_at, self.witnessed_at, self.resting = now, None, None
        return ended


class Rights:
    """The rights of every account of this process."""

    def __init__(self) -> None:
        self._sights: dict[tuple[str, Market], _Sight] = {}

    def access(self, account: str, now: datetime) -> Access:
        """Return what an account may be asked for now."""
        # if the clock was set back, no trial waits longer than its pause
        resting = {
            each.market: min(each.next_at, now + each.pause)
            for each in self.resting()
            if each.account == account
        }
        own = {market: s for (other, market), s in self._sights.items() if other == account}
        full = frozenset(m for m, s in own.items() if s.full or self._waits(m, own, now))
        controls = frozenset(self._controls(account, now)) - full
        doubtful = frozenset(m for m, s in own.items() if s.doubtful)
        return Access(account, resting, controls, full, doubtful)

    @staticmethod
    def _waits(market: Market, own: Mapping[Market, _Sight], now: datetime) -> bool:
        """Return whether a control is under way that will decide about a suspect market."""
        sight = own[market]
        return (
            sight.suspect is not None
            and sight.witnessed_at is None
            and any(
                other is not market and seen.under_way > 0 and seen.was_control(now)
                for other, seen in own.items()
            )
        )

    def _controls(self, account: str, now: datetime) -> Iterator[Market]:
        own = {market: s for (other, market), s in self._sights.items() if other == account}
        for market, sight in own.items():
            if sight.suspect is None or sight.witnessed_at is not None:
                continue
            for control, seen in own.items():
                fresh = seen.resting is None and not seen.was_control(now)
                if control is not market and fresh:
                    yield control

    def resting(self) -> Iterator[Withheld]:
        """Yield every resting market, with its account."""
        yield from (s.resting for s in self._sights.values() if s.resting is not None)

    def rests(self, account: str, market: Market) -> bool:
        """Return whether a market rests at an account."""
        return self._sight(account, market).resting is not None

    def asked(self, account: str, code: Code, now: datetime) -> Withheld | None:
        """Record that a symbol is asked; return the market if it rests, as this is its trial."""
        market = market_of(code)
        sight = self._sight(account, market)
        sight.under_way += 1
        if market in self.access(account, now).controls:
            sight.control_at = now
        if sight.resting is not None:
            next_at = now + sight.resting.pause
            sight.resting = replace(sight.resting, next_at=next_at, trial=code, tried_at=now)
        return sight.resting

    def ended(self, account: str, code: Code) -> None:
        """Record that the request for a symbol has ended, whatever its result."""
        self._sight(account, market_of(code)).under_way -= 1

    def answered(self, account: str, code: Code, now: datetime) -> Granted | None:
        """Record a usable answer; return the market if this ends its rest."""
        market = market_of(code)
        sight = self._sight(account, market)
        rested = sight.resting is not None
        if sight.clear(code, now):
            self._hurry(account, market, now)
        for (other, of), seen in self._sights.items():
            if (other == account) != (of is market) and seen.refused:
                seen.witnessed_at = seen.witnessed_at or now
        return Granted(account, market, code) if rested else None

    def refused(
        self, account: str, refusal: Refusal, now: datetime, asked_at: datetime
    ) -> Withheld | None:
        """Record a poll without a usable answer; return the market if it rests from now on.

        Also if it rested already and this was its trial: then its next trial has changed.
        """
        market = market_of(refusal.code)
        sight = self._sight(account, market)
        if sight.resting is not None:
            if sight.resting.trial != refusal.code:  # it was asked before the market rested
                return None
            pause = min(2 * sight.resting.pause, LONGEST_PAUSE)
            sight.resting = replace(sight.resting, next_at=now + pause, pause=pause, trial=None)
            return sight.resting
        if refusal.code in sight.troubled:
            return None
        sight.count(refusal)
        likeness = sight.suspect
        if likeness is None:
            return None
        witnessed_at = sight.witnessed_at
        if likeness and (witnessed_at is None or witnessed_at > asked_at):
            return None
        last = next(r for r in reversed(sight.refused.values()) if r.likeness == likeness)
        codes = tuple(sight.refused)
        sight.resting = Withheld(account, market, last, codes, now, now + FIRST_PAUSE)
        return sight.resting

    def hurry(self, account: str, now: datetime) -> None:
        """Try the resting markets of an account soon: its rights may have changed.

        At the earliest `HINT_PAUSE` after the last trial, however often this is called.
        """
        for (other, _), sight in self._sights.items():
            if other == account and (resting := sight.resting) is not None:
                soonest = (resting.tried_at or resting.since) + HINT_PAUSE
                next_at = min(resting.next_at, max(now, soonest))
                sight.resting = replace(resting, next_at=next_at, pause=FIRST_PAUSE)

    def hint(self, account: str, without: Collection[Market], now: datetime) -> None:
        """Take which markets OpenD says the account has no right to.

        A right that has come back is tried at once.
        """
        known = {market for other, market in self._sights if other == account}
        for market in known.union(without):
            sight = self._sight(account, market)
            came_back = sight.hinted and market not in without
            sight.hinted = market in without
            if came_back and sight.resting is not None:
                sight.resting = replace(sight.resting, next_at=now, pause=FIRST_PAUSE)

    def hinted(self, account: str, market: Market) -> bool:
        """Return whether OpenD says that the account has no right to a market."""
        return self._sight(account, market).hinted

    def forget(self, codes: Iterable[Code]) -> None:
        """Forget symbols that are no longer watched."""
        for sight in self._sights.values():
            sight.troubled.difference_update(codes)

    def _sight(self, account: str, market: Market) -> _Sight:
        return self._sights.setdefault((account, market), _Sight())

    def _hurry(self, account: str, market: Market, now: datetime) -> None:
        """Try the other resting markets at once: they may have had the same trouble."""
        for (other, of), sight in self._sights.items():
            if other == account and of is not market and sight.resting is not None:
                sight.resting = replace(sight.resting, next_at=now, pause=FIRST_PAUSE)
