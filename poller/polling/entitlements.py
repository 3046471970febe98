"""What each account may ask for, learned while it is asked and told once: `plan.rights` decides."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

from poller.errors import GatewayError, NoRight, Overdue
from poller.markets import Market, all_markets
from poller.model import Code, market_of
from poller.schedule.rights import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Access,
    Refusal,
    Rights,
    Withheld,
)
from poller.telemetry.observe import MarketRight, Observe, Recovered, Trouble, right_of

_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_NO_ANSWER: Final = "OpenD has no answer to its symbols in time"
"""One word for every silence about a symbol: how it comes about does not matter."""


class Entitlements:
    """Which markets every account of this process is asked for."""

    def __init__(
        self,
        observe: Observe,
        now: Callable[[], datetime],
        watches: Callable[[Market], bool] = lambda _: True,
    ) -> None:
        """`watches`: whether any symbol of a market is watched."""
        self._observe = observe
        self._now = now
        self._watches = watches
        self._rights = Rights()

    def access(self, account: str) -> Access:
        """Return what an account is asked for now."""
        return self._rights.access(account, self._now())

    def asked(self, account: str, code: Code) -> None:
        """Take note that an account is asked for a symbol."""
        trial = self._rights.asked(account, code, self._now())
        if trial is not None:
            self._observe(_fact(trial))

    def ended(self, account: str, code: Code) -> None:
        """Take note that what was asked for is under way no more, whatever came of it."""
        self._rights.ended(account, code)

    def answered(self, account: str, code: Code) -> bool:
        """Take note of a usable answer; returns whether its market is asked for again by it."""
        granted = self._rights.answered(account, code, self._now())
        if granted is None:
            return False
        self._observe(MarketRight(account, granted.market, granted=True))
        how = f"that is over, {code} was answered"
        self._observe(Recovered(right_of(account, granted.market), how))
        return True

    def refused(
        self, account: str, code: Code, problem: GatewayError, asked_at: datetime
    ) -> Withheld | None:
        """Take note of a look without a usable answer; returns the market if it rests from now."""
        words = _NO_ANSWER if isinstance(problem, Overdue) else str(problem)
        now = self._now()
        before = self._rights.rests(account, market_of(code))
        refusal = Refusal(code, words, explicit=isinstance(problem, NoRight))
        withheld = self._rights.refused(account, refusal, now, asked_at)
        if withheld is None:
            return None
        self._observe(_fact(withheld))
        if before:  # only its next trial has changed
            return None
        subject = right_of(account, withheld.market)
        self._observe(Trouble(subject, self._told(withheld, problem)))
        return withheld

    def hurry(self, account: str) -> None:
        """Try soon what rests at an account: it is said that its rights have changed."""
        self._rights.hurry(account, self._now())

    def rests(self, account: str, code: Code) -> bool:
        """Tell whether an account is not asked for the market of a symbol."""
        return self._rights.rests(account, market_of(code))

    def forget(self, codes: Iterable[Code]) -> None:
        """Forget symbols that are watched no longer."""
        self._rights.forget(codes)

    def _told(self, withheld: Withheld, problem: GatewayError) -> str:
        """Say what it was learned from, what goes on, when it is asked again, and the cure."""
        market = withheld.market
        others = [
            str(other)
            for other in all_markets()
            if self._watches(other) and not self._rights.rests(withheld.account, other)
        ]
        goes_on = f"{' and '.join(others)} goes on; " if others else ""
        return (
            f"{withheld.refusal.code} and others: {problem}; {goes_on}asked again in "
            f"{FIRST_PAUSE // _MINUTE} min, then ever more rarely, at least once in "
            f"{LONGEST_PAUSE // _HOUR} h; give the account the vendor's quote card for {market}, "
            "or add an [[opend]] whose account has it"
        )


def _fact(withheld: Withheld) -> MarketRight:
    reason = withheld.refusal.words
    return MarketRight(
        withheld.account,
        withheld.market,
        granted=False,
        reason=reason,
        since=withheld.since,
        next_at=withheld.next_at,
    )
