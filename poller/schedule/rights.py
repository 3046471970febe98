"""Which markets an account may ask for, learned from what it is answered. Pure.

A right is a property of account and market, and OpenD has many words for a missing one; some of
them it also has for other troubles. Words that name a right are believed of two symbols. Of all
others it takes three that are refused alike while none is answered, then an answer of another
market, or of this one at another account, and then one refusal more: so what ails the gateway, be
it for a moment, is not taken for a missing right. Where nothing else is asked anyway, one symbol of
another market is, as a control.

A market that rests is tried with one symbol now and then, ever more rarely; the first usable answer
ends it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from poller.markets import Market
from poller.model import Code, market_of

EXPLICIT: Final = 2
"""Symbols whose refusals name a missing right, after which the market rests."""

ALIKE: Final = 3
"""Symbols refused in the same words, or left without an answer, after which it rests, too."""

UNPROVEN: Final = ALIKE + 1
"""Symbols that are under way at once, at the most, in a market whose last look was not answered.

Else a whole budget would be on its way before the first of them is given up. One is enough where it
is about to be decided.
"""

FIRST_PAUSE: Final = timedelta(minutes=1)
"""From the moment a market rests to the first trial; each one that fails doubles it."""

HINT_PAUSE: Final = timedelta(seconds=10)
"""From a trial to the next one at the least, where it is said that rights have changed."""

LONGEST_PAUSE: Final = timedelta(days=1)

_DIGITS: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Access:
    """What an account is asked for: all markets but those `resting`, each until its next trial.

    Attributes:
        controls: Markets of which one answer tells whether another one's trouble is the gateway's.
        full: Markets of which nobody is asked until one of those that were has ended.
    """

    account: str = ""
    resting: Mapping[Market, datetime] = field(default_factory=dict)
    controls: frozenset[Market] = frozenset()
    full: frozenset[Market] = frozenset()


EVERYTHING: Final = Access()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A look without a usable answer, as far as it may be the market's trouble.

    Attributes:
        words: What OpenD said; the code in it does not count. One word for all that timed out.
        explicit: Whether the words name a missing right.
    """

    code: Code
    words: str
    explicit: bool = False

    @property
    def likeness(self) -> str:
        """What is equal for two symbols that are refused for one reason."""
        market, _, bare = self.code.partition(".")
        text = re.sub(rf"\b(?:{market}\.)?{re.escape(bare)}\b", "", self.words)
        return "" if self.explicit else f"={_DIGITS.sub('', text)}"


@dataclass(frozen=True, slots=True)
class Withheld:
    """A market rests at an account from `since` on; it is tried again at `next_at`.

    Attributes:
        refusal: The last one of those it was learned from.
        codes: The symbols that were refused.
        pause: Between the last two trials, or before the first.
        trial: The symbol being tried now.
        tried_at: When the last one was asked for; None: none was yet.
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
    """A market that rested at an account is asked for again: `code` was answered."""

    account: str
    market: Market
    code: Code


@dataclass(slots=True)
class _Sight:
    """One market seen by one account. `refused`: since its last usable answer, oldest first."""

    answered_at: datetime | None = None
    refused: dict[Code, Refusal] = field(default_factory=dict)
    alike: Counter[str] = field(default_factory=Counter)
    witnessed_at: datetime | None = None  # when others were first answered after the first of them
    troubled: set[Code] = field(default_factory=set)  # refused while others were answered
    control_at: datetime | None = None  # when a symbol of it was last asked as a control
    resting: Withheld | None = None
    under_way: int = 0

    @property
    def full(self) -> bool:
        """Whether nobody else is asked for now."""
        is_proven = self.answered_at is not None and not self.refused
        most = UNPROVEN if self.suspect is None else 1
        return self.under_way >= most and not is_proven

    def was_control(self, now: datetime) -> bool:
        """Tell whether a symbol of it was asked as a control a short while ago."""
        return self.control_at is not None and now - FIRST_PAUSE < self.control_at <= now

    def count(self, refusal: Refusal) -> None:
        """Take note of a refusal, of each symbol the last one."""
        if (before := self.refused.pop(refusal.code, None)) is not None:
            self.alike[before.likeness] -= 1
        self.refused[refusal.code] = refusal
        self.alike[refusal.likeness] += 1

    @property
    def suspect(self) -> str | None:
        """What so many symbols are refused for that it may be the market's trouble."""
        if self.resting is not None:
            return None
        return next((k for k, n in self.alike.items() if n >= (ALIKE if k else EXPLICIT)), None)

    def clear(self, code: Code, now: datetime) -> bool:
        """Take note of an answer; returns whether it ends a row of refusals."""
        ended = len(self.refused) >= ALIKE or self.resting is not None
        self.troubled |= self.refused.keys()
        self.troubled.discard(code)
        self.refused.clear()
        self.alike.clear()
        self.answered_at, self.witnessed_at, self.resting = now, None, None
        return ended


class Rights:
    """What every account of a process may ask for, as far as it is known."""

    def __init__(self) -> None:
        self._sights: dict[tuple[str, Market], _Sight] = {}

    def access(self, account: str, now: datetime) -> Access:
        """Return what an account is asked for now."""
        # after a step back of the clock no trial waits for longer than it was meant to
        resting = {
            each.market: min(each.next_at, now + each.pause)
            for each in self.resting()
            if each.account == account
        }
        own = {market: s for (other, market), s in self._sights.items() if other == account}
        full = frozenset(m for m, s in own.items() if s.full or self._waits(m, own, now))
        return Access(account, resting, frozenset(self._controls(account, now)) - full, full)

    @staticmethod
    def _waits(market: Market, own: Mapping[Market, _Sight], now: datetime) -> bool:
        """Tell whether a control is under way that will tell what ails a market."""
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
        """Yield every market that rests, with the account."""
        yield from (s.resting for s in self._sights.values() if s.resting is not None)

    def rests(self, account: str, market: Market) -> bool:
        """Tell whether a market rests at an account."""
        return self._sight(account, market).resting is not None

    def asked(self, account: str, code: Code, now: datetime) -> Withheld | None:
        """Take note that a symbol is asked for; returns the market if it rests: that is a trial."""
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
        """Take note that a symbol that was asked for is under way no more, whatever came of it."""
        self._sight(account, market_of(code)).under_way -= 1

    def answered(self, account: str, code: Code, now: datetime) -> Granted | None:
        """Take note of a usable answer; returns the market if it rests no more."""
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
        """Take note of a look without a usable answer; returns the market if it rests now.

        Or, where it does already and this was its trial, when the next one comes.
        """
        market = market_of(refusal.code)
        sight = self._sight(account, market)
        if sight.resting is not None:
            if sight.resting.trial != refusal.code:  # it was asked before
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
        """Try what rests at an account soon: its rights may have changed.

        Some seconds after the last trial at the earliest, however often this is told.
        """
        for (other, _), sight in self._sights.items():
            if other == account and (resting := sight.resting) is not None:
                soonest = (resting.tried_at or resting.since) + HINT_PAUSE
                next_at = min(resting.next_at, max(now, soonest))
                sight.resting = replace(resting, next_at=next_at, pause=FIRST_PAUSE)

    def forget(self, codes: Iterable[Code]) -> None:
        """Forget symbols that are watched no longer."""
        for sight in self._sights.values():
            sight.troubled.difference_update(codes)

    def _sight(self, account: str, market: Market) -> _Sight:
        return self._sights.setdefault((account, market), _Sight())

    def _hurry(self, account: str, market: Market, now: datetime) -> None:
        """Try what rests at once: whatever ailed this market may have ailed the others."""
        for (other, of), sight in self._sights.items():
            if other == account and of is not market and sight.resting is not None:
                sight.resting = replace(sight.resting, next_at=now, pause=FIRST_PAUSE)
