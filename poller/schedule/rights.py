"""Learns from answers which markets an account has a right to. Pure.

A right belongs to an account and a market; `evidence` says when it is missing. If no other market
is asked anyway, one of its symbols is asked as a control. What OpenD itself says of rights is a
hint: it decides what is asked last, and when a market is tried.

A market without right rests: it is tried with one symbol from time to time, ever more rarely. The
first usable answer ends the rest.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from poller.markets import Market
from poller.model import Code, market_of
from poller.schedule.evidence import Evidence, Refusal

FIRST_PAUSE: Final = timedelta(minutes=1)
"""Pause before the first trial of a resting market; doubled after each trial that fails."""

HINT_PAUSE: Final = timedelta(seconds=10)
"""Shortest pause between two trials after a hint that rights have changed."""

LONGEST_PAUSE: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Access:
    """What an account may be asked for now.

    Attributes:
        resting: Markets that are not asked, and when each is tried next.
        controls: Markets whose answer shows whether another one's trouble is the gateway's.
        full: Markets that are not asked until a request under way has ended.
        doubtful: Markets that OpenD says it has no right to, and of which no symbol was answered:
            the others come first.
    """

    account: str = ""
    resting: Mapping[Market, datetime] = field(default_factory=dict)
    controls: frozenset[Market] = frozenset()
    full: frozenset[Market] = frozenset()
    doubtful: frozenset[Market] = frozenset()


EVERYTHING: Final = Access()


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


class Rights:
    """The rights of every account of this process."""

    def __init__(self) -> None:
        # account → market → what was seen, or where it rests
        self._seen: defaultdict[str, dict[Market, Evidence]] = defaultdict(dict)
        self._resting: defaultdict[str, dict[Market, Withheld]] = defaultdict(dict)

    def access(self, account: str, now: datetime) -> Access:
        """Return what an account may be asked for now."""
        rests, seen = self._resting[account], self._seen[account]
        # if the clock was set back, no trial waits longer than its pause
        resting = {m: min(each.next_at, now + each.pause) for m, each in rests.items()}
        full = frozenset(m for m, s in seen.items() if s.full or self._waits(account, m, now))
        controls = frozenset(self._controls(account, now)) - full
        doubtful = frozenset(m for m, s in seen.items() if s.doubtful)
        return Access(account, resting, controls, full, doubtful)

    def _suspects(self, account: str) -> list[Market]:
        """Return the markets of an account that await an answer of another one."""
        seen, rests = self._seen[account], self._resting[account]
        return [m for m, evidence in seen.items() if m not in rests and evidence.awaits_witness]

    def _waits(self, account: str, market: Market, now: datetime) -> bool:
        """Return whether a control is under way that will decide about a suspect market."""
        return market in self._suspects(account) and any(
            other is not market and seen.under_way > 0 and _was_control(seen, now)
            for other, seen in self._seen[account].items()
        )

    def _controls(self, account: str, now: datetime) -> Iterator[Market]:
        seen, rests = self._seen[account], self._resting[account]
        fresh = [m for m, s in seen.items() if m not in rests and not _was_control(s, now)]
        for market in self._suspects(account):
            yield from (control for control in fresh if control is not market)

    def resting(self) -> Iterator[Withheld]:
        """Yield every resting market, with its account."""
        for rests in self._resting.values():
            yield from rests.values()

    def rests(self, account: str, market: Market) -> bool:
        """Return whether a market rests at an account."""
        return market in self._resting[account]

    def asked(self, account: str, code: Code, now: datetime) -> Withheld | None:
        """Record that a symbol is asked; return the market if it rests, as this is its trial."""
        market = market_of(code)
        seen, rests = self._evidence(account, market), self._resting[account]
        seen.under_way += 1
        if market in self.access(account, now).controls:
            seen.control_at = now
        if (resting := rests.get(market)) is None:
            return None
        rests[market] = replace(resting, next_at=now + resting.pause, trial=code, tried_at=now)
        return rests[market]

    def ended(self, account: str, code: Code) -> None:
        """Record that the request for a symbol has ended, whatever its result."""
        self._evidence(account, market_of(code)).under_way -= 1

    def answered(self, account: str, code: Code, now: datetime) -> bool:
        """Record a usable answer; return whether it ends the rest of its market."""
        market = market_of(code)
        rested = self._resting[account].pop(market, None) is not None
        if self._evidence(account, market).clear(code, now) or rested:
            for other in self._resting[account]:  # it may have had the same trouble
                self._try_at(account, other, now)
        for name, markets in self._seen.items():
            for other, seen in markets.items():
                if (name == account) != (other is market):
                    seen.witness(now)
        return rested

    def refused(
        self, account: str, refusal: Refusal, now: datetime, asked_at: datetime
    ) -> Withheld | None:
        """Record a poll without a usable answer; return the market if it rests from now on.

        Also if it rested already and this was its trial: then its next trial has changed.
        """
        market = market_of(refusal.code)
        rests = self._resting[account]
        if (resting := rests.get(market)) is not None:
            if resting.trial != refusal.code:  # it was asked before the market rested
                return None
            pause = min(2 * resting.pause, LONGEST_PAUSE)
            rests[market] = replace(resting, next_at=now + pause, pause=pause, trial=None)
            return rests[market]
        seen = self._evidence(account, market)
        if (last := seen.add(refusal, asked_at)) is None:
            return None
        rests[market] = Withheld(account, market, last, tuple(seen.refused), now, now + FIRST_PAUSE)
        return rests[market]

    def hurry(self, account: str, now: datetime) -> None:
        """Try the resting markets of an account soon: its rights may have changed.

        At the earliest `HINT_PAUSE` after the last trial, however often this is called.
        """
        for market, resting in self._resting[account].items():
            soonest = (resting.tried_at or resting.since) + HINT_PAUSE
            self._try_at(account, market, min(resting.next_at, max(now, soonest)))

    def hint(self, account: str, without: Collection[Market], now: datetime) -> None:
        """Take which markets OpenD says the account has no right to.

        A right that has come back is tried at once.
        """
        for market in {*self._seen[account], *without}:
            seen = self._evidence(account, market)
            came_back = seen.said_none and market not in without
            seen.said_none = market in without
            if came_back and market in self._resting[account]:
                self._try_at(account, market, now)

    def said_none(self, account: str, market: Market) -> bool:
        """Return whether OpenD says that the account has no right to a market."""
        return self._evidence(account, market).said_none

    def forget(self, codes: Iterable[Code]) -> None:
        """Forget symbols that are no longer watched."""
        gone = frozenset(codes)
        for markets in self._seen.values():
            for seen in markets.values():
                seen.excepted -= gone

    def _evidence(self, account: str, market: Market) -> Evidence:
        return self._seen[account].setdefault(market, Evidence())

    def _try_at(self, account: str, market: Market, at: datetime) -> None:
        """Try a resting market then, and more rarely again only after that."""
        rests = self._resting[account]
        rests[market] = replace(rests[market], next_at=at, pause=FIRST_PAUSE)


def _was_control(seen: Evidence, now: datetime) -> bool:
    """Return whether one of its symbols was asked as a control within `FIRST_PAUSE`."""
    return seen.control_at is not None and now - FIRST_PAUSE < seen.control_at <= now
