"""The request budget of an account: at most `requests` in any `period`, as the gateway counts them.

`asyncio-throttle` paces requests inside the process, but forgets them with it. The ledger in the
store decides: it is exact, uses one clock, and spans restarts and all processes of the account. A
request is spent before it is sent. Until its answer arrives it counts as sent `MARGIN` after the
grant, then as sent when the answer came: the gateway counts it somewhere in between.

OpenD counts by user. So a request is counted against the account that the configuration names, and
against the user that its gateways are logged in as, whom another account may share.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from asyncio_throttle.throttler import Throttler

from poller.errors import StoreError
from poller.store.ports import Ledger

GUARD: Final = 1 / 300
"""Fraction of the period added to it, for clocks of slightly different rates (0.1 s in 30 s)."""

MARGIN: Final = 1 / 2
"""Fraction of the period an unanswered request may still need to reach the gateway (15 s)."""

_PROMPT: Final = 1 / 4
"""Fraction of the period within which a granted request must be sent (7.5 s).

The rest of MARGIN is allowed for its transit.
"""

_LONGEST_SLEEP: Final = 60.0  # seconds; then the ledger is asked again

LATEST: Final = 4
"""Periods during which an unanswered request may still arrive over a stalled link (2 min)."""

UNCONTENDED_AFTER: Final = 10
"""Periods without a rate refusal after which no other program is assumed to spend."""

SPARE: Final = 1 / 10
"""Fraction of the budget left to other processes while no release is under way."""


class Throttle(Protocol):
    """The part of asyncio-throttle's Throttler that is used."""

    async def acquire(self) -> None:
        """Return when one more request may start."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The right to send one request.

    It carries all that the budget needs, so a grant that is never settled leaks no memory.

    Attributes:
        name: The request's name in the ledger.
        asked: When the ledger was asked for it, in seconds of the loop's clock.
        logins: The users it is counted against.
    """

    name: str
    asked: float
    logins: tuple[str, ...] = ()


@dataclass(slots=True)
class _Late:
    """A request without an answer: when it was given up and last counted, in loop seconds."""

    grant: Grant
    replaced: Callable[[], bool]
    since: float
    counted: float


class Budget:
    """The budget of one account in this process."""

    def __init__(  # noqa: PLR0913  each is one independent property of the budget
        self,
        ledger: Ledger,
        account: str,
        owner: str,
        *,
        requests: int,
        period: float,
        pace: Throttle | None = None,
        waiting: Callable[[], None] = lambda: None,
        logins: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`owner`: a name no other process uses. `period`: seconds.

        `logins` returns the users that the account's gateways are logged in as, as far as known.

        `waiting` is called whenever the ledger makes a caller wait, to show it is not stuck.
        """
        self.account = account
        self._ledger = ledger
        self._waiting = waiting
        self.logins = logins
        self._requests = requests
        self._period = period * (1 + GUARD)
        self._margin = period * MARGIN
        self._prompt = period * _PROMPT
        self._late: dict[str, _Late] = {}
        self._late_until = float("-inf")
        self._refused = float("-inf")
        self._pace = pace or Throttler(requests, self._period, min(0.02, period / 1000))
        # asyncio-throttle serves waiters in no order, and each of them polls: admit one at a time
        self._turn = asyncio.Lock()
        # with the account, because two of one owner may be counted in one ledger, their user's
        self._names = (f"{owner}-{account}-{n}" for n in itertools.count())

    async def acquire(self, *, leave_reserve: bool = False) -> Grant:
        """Wait for one request's worth of budget, first come first served.

        Send at once, while it `is_valid`, and `settle` whatever comes of it. `leave_reserve`: leave
        the last tenth to other processes of the account. Raises StoreDown.
        """
        limit = self._requests - int(self._requests * SPARE) * leave_reserve
        name, loop = next(self._names), asyncio.get_running_loop()
        async with self._turn:
            await self._pace.acquire()
            asked = loop.time()
            while wait := await self._grant(name, limit, logins := self._known_logins()):
                self._waiting()
                await asyncio.sleep(min(wait, _LONGEST_SLEEP))
                asked = loop.time()
        return Grant(name, asked, logins)

    def _known_logins(self) -> tuple[str, ...]:
        return tuple(sorted(self.logins()))

    async def _grant(self, name: str, limit: int, logins: tuple[str, ...]) -> float:
        await self._count_late()
        return await self._ledger.grant(
            self.account,
            name,
            limit=limit,
            period=self._period,
            margin=self._margin,
            logins=logins,
        )

    async def _count_late(self) -> None:
        """Keep counting unanswered requests while their link may still deliver them.

        A stalled link delivers everything at once when it recovers, minutes after it was sent. So
        they are counted once more when the link was replaced, and then forgotten.
        """
        now = asyncio.get_running_loop().time()
        for name, late in list(self._late.items()):
            replaced = late.replaced()
            if replaced or now > late.counted + self._margin / 2:
                late.counted = now
                await self._settle(late.grant, self._margin)
            if replaced or now > late.since + LATEST * self._period:
                del self._late[name]

    def is_valid(self, grant: Grant) -> bool:
        """Return whether a request sent now arrives while the ledger still counts it."""
        return asyncio.get_running_loop().time() < grant.asked + self._prompt

    async def settle(
        self, grant: Grant, *, answered: bool, replaced: Callable[[], bool] | None = None
    ) -> None:
        """Count a request as sent now or, if unanswered, as possibly still in transit.

        `replaced`: see `Unavailable`; until it returns True the request counts as in transit, for
        at most `LATEST` periods.
        """
        name = grant.name
        if replaced is not None and not answered:
            now = asyncio.get_running_loop().time()
            self._late[name] = _Late(grant, replaced, now, now)
            self._late_until = now + (LATEST + 2) * self._period
        margin = 0.0 if answered else self._margin
        # if the store is down, the ledger keeps the later time recorded at the grant
        with contextlib.suppress(StoreError):
            await self._settle(grant, margin)

    async def _settle(self, grant: Grant, margin: float) -> None:
        await self._ledger.settle(
            self.account, grant.name, period=self._period, margin=margin, logins=grant.logins
        )

    async def exhaust(self) -> None:
        """Block the budget for a full period: the gateway reports that it is used up."""
        self._refused = asyncio.get_running_loop().time()
        # if the store is down nothing is granted anyway; the gateway will refuse again if need be
        with contextlib.suppress(StoreError):
            await self._ledger.exhaust(
                self.account,
                limit=self._requests,
                period=self._period,
                logins=self._known_logins(),
            )

    def may_be_late(self) -> bool:
        """Return whether the gateway may be counting late requests of this process."""
        return asyncio.get_running_loop().time() < self._late_until

    def is_uncontended(self) -> bool:
        """Return whether no other program has spent from the account for a while."""
        return asyncio.get_running_loop().time() - self._refused > UNCONTENDED_AFTER * self._period
