"""When a poller is first told what to watch, in virtual time."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from poller.errors import Refused, StoreDown
from poller.model import Code, Page
from poller.polling.budget import Budget
from poller.polling.watchlist import Watchlist
from poller.simulator.virtual import run_virtually
from poller.storage.memorystore import MemoryStore
from tests.test_vitals import NoPace

BEGAN = datetime(2026, 11, 16, tzinfo=UTC)
MINE, THEIRS = Code("HK.00005"), Code("HK.00941")
BOTH, ALONE = (MINE, THEIRS), (MINE,)


class Slow:
    """A gateway that is there after some seconds, and tells of its group after some more."""

    name, account = "slow", "main"

    def __init__(self, there: float, takes: float, *, knows: bool) -> None:
        self.ready = False
        self._there, self._takes, self._knows = there, takes, knows

    async def wait_ready(self) -> None:
        """Return when it is there."""
        await asyncio.sleep(max(self._there - asyncio.get_running_loop().time(), 0))
        self.ready = True

    async def page(self, code: Code, key: str | None) -> Page:
        """Know nothing of short interest."""
        raise Refused(f"{code} {key}")

    async def group(self, name: str) -> list[str]:
        """Return the group, or refuse its name."""
        await asyncio.sleep(self._takes)
        if not self._knows:
            raise Refused(f"{name}: no such group")
        return [THEIRS]


@pytest.mark.parametrize(
    ("groups", "gateway", "told"),
    [
        ((), (0.0, 5.5, True), [(0.0, ALONE)]),
        (("theirs",), (0.0, 5.5, True), [(6.0, BOTH)]),
        (("theirs",), (300.0, 5.5, True), [(306.0, BOTH)]),  # nothing is polled before either
        (("theirs",), (0.0, 5.5, False), [(6.0, ALONE)]),
        (("theirs",), (10.5, 99.0, True), [(71.0, ALONE), (110.0, BOTH)]),
    ],
    ids=["no group", "read", "OpenD is away", "no such group", "no answer for long"],
)
def test_the_first_codes_are_those_of_all_sources(
    groups: Sequence[str],
    gateway: tuple[float, float, bool],
    told: list[tuple[float, tuple[Code, ...]]],
) -> None:
    """They wait until every group was asked for, a minute from the first connection at the most."""
    there, takes, knows = gateway

    async def work() -> list[tuple[float, tuple[Code, ...]]]:
        loop = asyncio.get_running_loop()
        found: list[tuple[float, tuple[Code, ...]]] = []
        store = MemoryStore(loop.time)
        watchlist = Watchlist([MINE], (), groups, store, lambda _: None)
        budget = Budget(store, "main:groups", "me", requests=10, period=30, pace=NoPace())
        gateways = [Slow(there, takes, knows=knows)]
        tasks = [
            asyncio.create_task(watchlist.follow_groups(gateways, budget)),
            asyncio.create_task(
                watchlist.follow(lambda codes: found.append((round(loop.time(), 3), tuple(codes))))
            ),
        ]
        await asyncio.sleep(500)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return found

    assert run_virtually(BEGAN, work())[: len(told)] == told


class Away(MemoryStore):
    """A store that answers from its tenth second on."""

    async def watch_version(self) -> int:
        """Count the changes of the live list."""
        if asyncio.get_running_loop().time() < 10:
            raise StoreDown("away")
        return await super().watch_version()


def test_the_first_codes_wait_for_the_live_list() -> None:
    """While Redis is away nothing is polled; a list without its live part would look complete."""

    async def work() -> list[tuple[float, tuple[Code, ...]]]:
        loop = asyncio.get_running_loop()
        found: list[tuple[float, tuple[Code, ...]]] = []
        store = Away(loop.time)
        await store.watch([THEIRS], wanted=True)
        watchlist = Watchlist([MINE], (), (), store, lambda _: None)
        task = asyncio.create_task(
            watchlist.follow(lambda codes: found.append((round(loop.time(), 3), tuple(codes))))
        )
        await asyncio.sleep(100)
        task.cancel()
        await asyncio.wait([task])
        return found

    assert run_virtually(BEGAN, work()) == [(10.0, BOTH)]
