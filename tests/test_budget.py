"""The budget in virtual time: no window ever holds more than the limit, and little is left unused.

`BUDGET_REQUESTS=1000000` runs the first test over a million requests.
"""

import asyncio
import contextlib
import os
import random
import tracemalloc
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from itertools import count

import pytest

from poller.errors import Silent, StoreDown
from poller.model import Code, Page
from poller.polling.budget import Budget, Grant
from poller.polling.request import fetch
from poller.simulator.virtual import run_virtually
from poller.simulator.window import SlidingWindow
from tests.memorystore import MemoryLedger

REQUESTS, PERIOD = 30, 30.0
LONGEST_TRANSIT = 14.0
"""Seconds a request is on its way at the most; the budget allows for half a period."""

TOTAL = int(os.environ.get("BUDGET_REQUESTS", "50000"))
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class NoPace:
    """No pacing inside the process: the ledger alone must hold."""

    async def acquire(self) -> None:
        """Return at once."""


class Account:
    """One account at the gateway: counts what arrives, which a sender's death does not undo."""

    def __init__(self, chance: random.Random, *, steady: bool = False) -> None:
        self.window = SlidingWindow(REQUESTS, PERIOD)
        self.arrived = 0
        self._chance = chance
        self._steady = steady

    def _transit(self) -> float:
        """Return the seconds to the gateway: mostly some milliseconds, at times very long."""
        if self._steady:
            return 0.1
        if self._chance.random() < 0.02:
            return self._chance.uniform(0.0, LONGEST_TRANSIT)
        return self._chance.uniform(0.001, 0.05)

    async def ask(self) -> bool:
        """Send one request; tells whether an answer came."""
        loop, transit = asyncio.get_running_loop(), self._transit()
        loop.call_later(transit, self._arrive)
        await asyncio.sleep(transit + 0.1)
        return self._steady or self._chance.random() > 0.01

    def _arrive(self) -> None:
        self.arrived += 1
        self.window.admit(asyncio.get_running_loop().time())


async def process(budget: Budget, account: Account) -> None:
    """Spend as much as is to be had, with many requests on their way at once."""

    async def one(grant: Grant) -> None:
        answered = await account.ask()
        await budget.settle(grant, answered=answered)

    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(one(await budget.acquire()))


@pytest.mark.timeout(120 + TOTAL // 2000)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("names", [("main", "main"), ("main", "other")], ids="-".join)
def test_no_window_holds_more_than_the_limit(seed: int, names: tuple[str, str]) -> None:
    """Two processes of a user, killed at random, with requests lost and late: never over.

    Whether both name one account or each another.
    """
    chance = random.Random(seed)

    async def trial() -> Account:
        loop = asyncio.get_running_loop()
        ledger, account = MemoryLedger(loop.time), Account(chance)
        numbers = {name: count() for name in names}  # one process has a budget of each name

        async def lives(name: str) -> None:
            while account.arrived < TOTAL:
                budget = Budget(
                    ledger,
                    name,
                    f"p{next(numbers[name])}",
                    requests=REQUESTS,
                    period=PERIOD,
                    pace=NoPace(),
                    logins=lambda: ["7"],
                )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(chance.expovariate(1 / 60)):
                        await process(budget, account)

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(lives(name))
        return account

    account = run_virtually(BEGAN, trial())
    assert account.arrived >= TOTAL
    assert account.window.most == REQUESTS


def test_a_busy_poller_uses_what_it_may() -> None:
    """With answers after 0.2 s, a poller that always wants more uses at least 98 %."""
    periods = 100

    async def trial() -> Account:
        loop = asyncio.get_running_loop()
        ledger, account = MemoryLedger(loop.time), Account(random.Random(0), steady=True)
        budget = Budget(ledger, "main", "p", requests=REQUESTS, period=PERIOD, pace=NoPace())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(periods * PERIOD):
                await process(budget, account)
        return account

    account = run_virtually(BEGAN, trial())
    assert account.window.most == REQUESTS
    assert account.arrived >= 0.98 * REQUESTS * periods


class Unwritable(MemoryLedger):
    """A ledger that went away after the grant."""

    async def settle(
        self,
        account: str,
        request: str,
        *,
        period: float,
        margin: float,
        logins: Sequence[str] = (),
    ) -> None:
        """Fail, and `exhaust` with it."""
        del account, request, period, margin, logins
        raise StoreDown("nobody listens")


def test_what_the_store_does_not_hear_ends_nothing() -> None:
    """Neither an answer nor a refusal for the rate fails because the store is down."""

    async def work() -> bool:
        ledger = Unwritable(asyncio.get_running_loop().time)
        budget = Budget(ledger, "main", "p", requests=REQUESTS, period=PERIOD, pace=NoPace())
        grant = await budget.acquire()
        await budget.exhaust()
        await budget.settle(grant, answered=True)
        return budget.is_uncontended()

    assert not run_virtually(BEGAN, work())


class Counting:
    """A gateway that notes when a request arrives, half a margin after it was sent."""

    name, account, ready = "counting", "main", True

    def __init__(self) -> None:
        self.arrived: list[float] = []

    async def wait_ready(self) -> None:
        """Return at once."""

    async def page(self, code: Code, key: str | None) -> Page:
        """Return an empty page."""
        del code, key
        await asyncio.sleep(PERIOD / 4)
        self.arrived.append(asyncio.get_running_loop().time())
        return Page((), None)

    async def group(self, name: str) -> list[str]:
        """Return no code."""
        del name
        return []


@pytest.mark.parametrize(("delay", "spent"), [(0.0, 1), (7.0, 1), (8.0, 2), (3600.0, 2)])
def test_an_old_grant_is_not_sent_on(delay: float, spent: int) -> None:
    """What held it up, a request arrives while the ledger still counts it as under way."""

    async def work() -> int:
        loop = asyncio.get_running_loop()
        ledger, gateway = MemoryLedger(loop.time), Counting()
        budget = Budget(ledger, "main", "p", requests=REQUESTS, period=PERIOD, pace=NoPace())
        grant = await budget.acquire()
        await asyncio.sleep(delay)
        asking = asyncio.create_task(fetch(gateway, budget, grant, Code("HK.00700"), None))
        await asyncio.sleep(0.001)
        (*_, counted) = sorted(ledger.budgets["main"].values())
        await asking
        assert gateway.arrived[0] <= counted
        return len([at for at in ledger.budgets["main"].values() if at > loop.time() - PERIOD])

    assert run_virtually(BEGAN, work()) == spent


class Stalling:
    """A gateway behind a link that stalls: what is sent meanwhile arrives when it goes on.

    As the SDK has it: no answer for 12 s is an error, and the connection is given up; the next one
    is made when the link goes on. `window` counts what arrives.
    """

    name, account = "stalling", "main"

    def __init__(self, begin: float, end: float) -> None:
        self.window = SlidingWindow(REQUESTS, PERIOD)
        self.sent = 0
        self._begin, self._end = begin, end
        self._lost = False

    @property
    def ready(self) -> bool:
        """Whether the connection is not yet given up, or is a new one."""
        return not self._lost or self._over()

    def _over(self) -> bool:
        return asyncio.get_running_loop().time() >= self._end

    async def wait_ready(self) -> None:
        """Return once the link goes on."""
        if not self.ready:
            await asyncio.sleep(self._end - asyncio.get_running_loop().time())

    async def page(self, code: Code, key: str | None) -> Page:
        """Return an empty page, or fail as long as nothing passes."""
        del code, key
        loop = asyncio.get_running_loop()
        self.sent += 1
        stalls = self._begin <= loop.time() < self._end
        loop.call_at(self._end if stalls else loop.time() + 0.05, self._arrive)
        if not stalls:
            await asyncio.sleep(0.1)
            return Page((), None)
        await asyncio.sleep(12)
        self._lost = True
        problem = Silent("timeout")
        problem.replaced = self._over
        raise problem

    def _arrive(self) -> None:
        self.window.admit(asyncio.get_running_loop().time())

    async def group(self, name: str) -> list[str]:
        """Return no code."""
        del name
        return []


@pytest.mark.parametrize("stall", [5.0, 20.0, 44.0, 60.0, 100.0])
@pytest.mark.parametrize("spare", [False, True])
def test_a_link_that_stalls_delivers_no_more_than_the_limit(stall: float, *, spare: bool) -> None:
    """However long nothing passed, what arrives in one heap counts with what is granted then.

    With `spare`, another gateway of the account works all the time, and counts, too.
    """

    async def work() -> tuple[int, bool]:
        loop = asyncio.get_running_loop()
        gateway = Stalling(40.0, 40.0 + stall)
        gateways = [gateway]
        if spare:
            gateways.append(Stalling(1e9, 2e9))
            gateways[1].window = gateway.window
        budget = Budget(
            MemoryLedger(loop.time), "main", "p", requests=REQUESTS, period=PERIOD, pace=NoPace()
        )

        async def ask(number: int) -> None:
            choice = [each for each in gateways if each.ready] or [gateway]
            grant = await budget.acquire()
            one = choice[number % len(choice)]
            if not one.ready:
                await budget.settle(grant, answered=True)
                await one.wait_ready()
                return
            with contextlib.suppress(Silent):
                await fetch(one, budget, grant, Code("HK.00700"), None)

        async with asyncio.timeout(400), asyncio.TaskGroup() as group:
            for number in range(120):
                if not spare:
                    await gateway.wait_ready()
                group.create_task(ask(number))
                await asyncio.sleep(0.5)
        return gateway.window.most, budget.may_be_late()

    most, late = run_virtually(BEGAN, work())
    assert most <= REQUESTS
    assert late


def test_a_share_is_left_to_one_off_commands() -> None:
    """While nothing presses the poller leaves a tenth, which another process finds at once."""

    async def work() -> list[float]:
        loop = asyncio.get_running_loop()
        ledger = MemoryLedger(loop.time)
        poller, command = (
            Budget(ledger, "main", owner, requests=REQUESTS, period=PERIOD, pace=NoPace())
            for owner in ("poller", "command")
        )
        grants = []
        for _ in range(27):
            await poller.settle(await poller.acquire(leave_reserve=True), answered=True)
        waiting = asyncio.create_task(poller.acquire(leave_reserve=True))
        await asyncio.sleep(1)
        assert not waiting.done()
        for _ in range(3):
            await command.settle(await command.acquire(), answered=True)
            grants.append(loop.time())
        waiting.cancel()
        return grants

    assert run_virtually(BEGAN, work()) == [1.0] * 3


class Forgetful(MemoryLedger):
    """A ledger that grants whatever is asked, and keeps nothing."""

    async def grant(
        self,
        account: str,
        request: str,
        *,
        limit: int,
        period: float,
        margin: float,
        logins: Sequence[str] = (),
    ) -> float:
        """Grant it."""
        del account, request, limit, period, margin, logins
        return 0

    async def settle(
        self,
        account: str,
        request: str,
        *,
        period: float,
        margin: float,
        logins: Sequence[str] = (),
    ) -> None:
        """Do nothing."""
        del account, request, period, margin, logins


async def answered(budget: Budget, grant: Grant) -> None:
    """Say that its answer came."""
    await budget.settle(grant, answered=True)


async def given_up(budget: Budget, grant: Grant) -> None:
    """Say that nothing came, and that its connection was replaced."""
    await budget.settle(grant, answered=False, replaced=lambda: True)


async def forgotten(budget: Budget, grant: Grant) -> None:
    """Say nothing: whoever had it was cancelled, or failed."""
    del budget, grant


@pytest.mark.parametrize("end", [answered, given_up, forgotten])
def test_a_request_takes_no_memory(
    end: Callable[[Budget, Grant], Coroutine[None, None, None]],
) -> None:
    """A year of them is 30 million: what a thousand leave behind does not grow with the next."""

    async def work() -> int:
        ledger = Forgetful(asyncio.get_running_loop().time)
        budget = Budget(ledger, "main", "p", requests=REQUESTS, period=PERIOD, pace=NoPace())

        async def spend(count: int) -> int:
            for _ in range(count):
                await end(budget, await budget.acquire())
            return tracemalloc.get_traced_memory()[0]

        await spend(100)
        tracemalloc.start()
        try:
            return -await spend(1000) + await spend(1000)
        finally:
            tracemalloc.stop()

    assert run_virtually(BEGAN, work()) < 10_000
