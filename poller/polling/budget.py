"""The request budget of an account: at most `requests` in any `period`, as the gateway counts them.

`asyncio-throttle` paces inside the process. Its memory ends with the process, so the ledger in the
store decides: exact, on one clock, over restarts and every process of the account. A request is
spent before it is sent; until its answer is in it counts as sent a margin later than granted, and
then as sent when the answer came, because the gateway counts it somewhere in between.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from asyncio_throttle.throttler import Throttler

from poller.errors import StoreError
from poller.store.ports import Ledger

GUARD: Final = 1 / 300
"""Of the period, added to it: clocks that run at slightly different rates (0.1 s in 30 s)."""

MARGIN: Final = 1 / 2
"""Of the period: how long an unanswered request may still be on its way to the gateway (15 s)."""

_PROMPT: Final = 1 / 4
"""Of the period: how long after its grant a request may be sent; the rest of MARGIN is its way."""

_LONGEST_SLEEP: Final = 60.0  # then the ledger is asked again, however long it bade us wait


LATEST: Final = 4
"""Periods for which a request without an answer may arrive late, while its link stalls (2 min)."""

UNCONTENDED_AFTER: Final = 10
"""Periods without a refusal for the rate, after which nobody else spends any more."""

SPARE: Final = 1 / 10
"""Of the requests, left to others who ask while nothing presses."""


class Throttle(Protocol):
    """What is needed of asyncio-throttle's Throttler."""

    async def acquire(self) -> None:
        """Return when one more request may start."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One request's worth of budget. `asked`: when the ledger was asked for it, in loop seconds.

    It carries what the budget must know of it, so one that is never settled takes no memory.
    """

    name: str
    asked: float


@dataclass(slots=True)
class _Late:
    """A request without an answer. `since`, `counted`: when it was given up, and last counted."""

    replaced: Callable[[], bool]
    since: float
    counted: float


class Budget:
    """The budget of one account in this process."""

    def __init__(
        self,
        ledger: Ledger,
        account: str,
        owner: str,
        *,
        requests: int,
        period: float,
        pace: Throttle | None = None,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """`owner`: a name no other process uses. `period`: seconds.

        `waiting` is called each time the ledger bids us wait: that is not being stuck.
        """
        self.account = account
        self._ledger = ledger
        self._waiting = waiting
        self._requests = requests
        self._period = period * (1 + GUARD)
        self._margin = period * MARGIN
        self._prompt = period * _PROMPT
        self._late: dict[str, _Late] = {}
        self._late_until = float("-inf")
        self._refused = float("-inf")
        self._pace = pace or Throttler(requests, self._period, min(0.02, period / 1000))
        # asyncio-throttle serves its waiters in no order, each of them polling: let in one
        self._turn = asyncio.Lock()
        self._names = (f"{owner}-{n}" for n in itertools.count())

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
            while wait := await self._grant(name, limit):
                self._waiting()
                await asyncio.sleep(min(wait, _LONGEST_SLEEP))
                asked = loop.time()
        return Grant(name, asked)

    async def _grant(self, name: str, limit: int) -> float:
        await self._count_late()
        return await self._ledger.grant(
            self.account, name, limit=limit, period=self._period, margin=self._margin
        )

    async def _count_late(self) -> None:
        """Count what a link that stalls may still deliver, for the last time when it works again.

        What is on a stalled link arrives together when it goes on, minutes after it was sent.
        """
        now = asyncio.get_running_loop().time()
        for name, late in list(self._late.items()):
            replaced = late.replaced()
            if replaced or now > late.counted + self._margin / 2:
                late.counted = now
                await self._ledger.settle(
                    self.account, name, period=self._period, margin=self._margin
                )
            if replaced or now > late.since + LATEST * self._period:
                del self._late[name]

    def is_valid(self, grant: Grant) -> bool:
        """Tell whether a request sent now still arrives while the ledger counts it."""
        return asyncio.get_running_loop().time() < grant.asked + self._prompt

    async def settle(
        self, grant: Grant, *, answered: bool, replaced: Callable[[], bool] | None = None
    ) -> None:
        """Count a request as sent now, or, unanswered, as possibly still on its way.

        `replaced`: see `Unavailable`; until then the request counts as on its way, within reason.
        """
        name = grant.name
        if replaced is not None and not answered:
            now = asyncio.get_running_loop().time()
            self._late[name] = _Late(replaced, now, now)
            self._late_until = now + (LATEST + 2) * self._period
        margin = 0.0 if answered else self._margin
        # with the store down, the ledger keeps the later time it was given at the grant
        with contextlib.suppress(StoreError):
            await self._ledger.settle(self.account, name, period=self._period, margin=margin)

    async def exhaust(self) -> None:
        """Spend nothing for a full period: the gateway says that somebody else did."""
        self._refused = asyncio.get_running_loop().time()
        # with the store down nothing is granted either; should it be back sooner, we are told again
        with contextlib.suppress(StoreError):
            await self._ledger.exhaust(self.account, limit=self._requests, period=self._period)

    def may_be_late(self) -> bool:
        """Tell whether requests of ours, given up lately, may be what the gateway counts."""
        return asyncio.get_running_loop().time() < self._late_until

    def is_uncontended(self) -> bool:
        """Tell whether nobody else has spent of the account for a while."""
        return asyncio.get_running_loop().time() - self._refused > UNCONTENDED_AFTER * self._period
