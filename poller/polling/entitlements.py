"""Reports which markets each account has a right to; `schedule.rights` decides."""

from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Final

from poller.errors import GatewayError, NoRight, Overdue
from poller.markets import Market, all_markets
from poller.model import Code, market_of
from poller.schedule.evidence import Refusal
from poller.schedule.rights import FIRST_PAUSE, LONGEST_PAUSE, Access, Rights, Withheld
from poller.telemetry.observe import MarketRight, Observe, Recovered, Trouble, right_of

_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)
_NO_ANSWER: Final = "OpenD has no answer to its symbols in time"
"""The words of every timeout, whatever its cause."""


class Entitlements:
    """The rights of every account of this process, observed and reported."""

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
        """Return what an account may be asked for now."""
        return self._rights.access(account, self._now())

    def asked(self, account: str, code: Code) -> None:
        """Record that an account is asked for a symbol."""
        trial = self._rights.asked(account, code, self._now())
        if trial is not None:
            self._observe(_fact(trial))

    def ended(self, account: str, code: Code) -> None:
        """Record that the request for a symbol has ended, whatever its result."""
        self._rights.ended(account, code)

    def answered(self, account: str, code: Code) -> bool:
        """Record a usable answer; return whether it ends the rest of its market."""
        if not self._rights.answered(account, code, self._now()):
            return False
        market = market_of(code)
        self._observe(MarketRight(account, market, granted=True))
        how = f"that is over, {code} was answered"
        self._observe(Recovered(right_of(account, market), how))
        return True

    def refused(
        self, account: str, code: Code, problem: GatewayError, asked_at: datetime
    ) -> Withheld | None:
        """Record a poll without a usable answer; return the market if it rests from now on."""
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
        self._observe(Trouble(subject, self._explained(withheld, problem)))
        return withheld

    def hurry(self, account: str) -> None:
        """Try the resting markets of an account soon: its rights may have changed."""
        self._rights.hurry(account, self._now())

    def hint(self, account: str, without: Collection[Market]) -> None:
        """Take which markets OpenD says the account has no right to."""
        self._rights.hint(account, without, self._now())

    def rests(self, account: str, market: Market) -> bool:
        """Return whether a market rests at an account."""
        return self._rights.rests(account, market)

    def forget(self, codes: Iterable[Code]) -> None:
        """Forget symbols that are no longer watched."""
        self._rights.forget(codes)

    def _explained(self, withheld: Withheld, problem: GatewayError) -> str:
        """Return the evidence, what goes on, when it is tried again, and the fix, in words."""
        market = withheld.market
        others = [
            str(other)
            for other in all_markets()
            if self._watches(other) and not self._rights.rests(withheld.account, other)
        ]
        goes_on = f"{' and '.join(others)} goes on; " if others else ""
        said = self._rights.said_none(withheld.account, market)
        says = "OpenD itself says that it has none; " if said else ""
        return (
            f"{withheld.refusal.code} and others: {problem}; {says}{goes_on}asked again in "
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
