"""What is said to be in trouble ends with whoever looked after it, in virtual time."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from poller.markets.hk import HkRecord
from poller.model import Code, Page
from poller.polling.budget import Budget
from poller.polling.leadership import LOOK, TTL, LeaderObserver, keep_polling
from poller.polling.poll import Poller
from poller.schedule.release import Intervals
from poller.schedule.schedule import Schedule
from poller.simulator.virtual import VirtualLoop, run_virtually
from poller.store.store import Lease
from poller.telemetry.observe import (
    LONGEST_TURN,
    Active,
    Fact,
    HeartbeatBeat,
    Observe,
    Quarantined,
    Recovered,
    Standby,
    Trouble,
)
from tests.memorystore import MemoryLeases, MemoryStore
from tests.test_vitals import NoPace

CODE = Code("HK.00700")
BEGAN = datetime(2026, 11, 16, tzinfo=UTC)
OTHER = Lease("9:another")


class Odd:
    """A gateway whose every answer is odd, and holds a day that has not ended."""

    name, account, ready = "odd", "main", True

    async def wait_ready(self) -> None:
        """Return at once."""

    async def page(self, code: Code, key: str | None) -> Page:
        """Return what cannot be published and what was dropped, after a second."""
        del code, key
        await asyncio.sleep(1)
        future = HkRecord(None, "2026-12-31", 1, 0.5, None, None)
        return Page((future,), None, ("a row without a day was dropped",))

    async def group(self, name: str) -> list[str]:
        """Return no code."""
        del name
        return []


def open_troubles(facts: Sequence[Fact]) -> set[str]:
    """Return the subjects in trouble, and the symbols of which figures are held."""
    found: set[str] = set()
    for fact in facts:
        match fact:
            case Trouble(subject):
                found.add(subject)
            case Recovered(subject):
                found.discard(subject)
            case Quarantined(code, held):
                (found.add if held else found.discard)(f"held of {code}")
    return found


TROUBLES = {f"{CODE} answer", f"held of {CODE}"}


def poller_of(store: MemoryStore, observe: Observe) -> Poller:
    """Return a poller of one symbol, through the odd gateway."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    intervals = Intervals(timedelta(seconds=30), timedelta(minutes=40), timedelta(minutes=5))
    budget = Budget(store.ledger, "main", "test", requests=30, period=30.0, pace=NoPace())
    poller = Poller(
        store,
        [Odd()],
        {"main": budget},
        Schedule(intervals),
        history=0,
        observe=observe,
        now=loop.now,
    )
    poller.watch([CODE])
    return poller


def watched(
    work: Callable[[MemoryStore, Poller, list[Fact]], object], seconds: float, after: float = 60
) -> list[Fact]:
    """Poll for so long, let `work` happen, poll for `after` more; returns all facts."""

    async def run() -> list[Fact]:
        facts: list[Fact] = []
        store = MemoryStore(asyncio.get_running_loop().time)
        leader = LeaderObserver(facts.append)
        poller = poller_of(store, leader)
        polling = asyncio.create_task(keep_polling(store.leases, "test", poller, leader))
        await asyncio.sleep(seconds)
        work(store, poller, facts)
        await asyncio.sleep(after)
        polling.cancel()
        await asyncio.wait([polling])
        return facts

    return run_virtually(BEGAN, run())


def take_off(store: MemoryStore, poller: Poller, facts: list[Fact]) -> None:
    """Watch nothing any more."""
    del store, facts
    poller.watch([])


@pytest.mark.parametrize("seconds", [0.5, 10.0])
def test_a_symbol_taken_off_is_in_no_trouble(seconds: float) -> None:
    """Nor does it have anything held; also when its answer was still on its way."""
    facts = watched(take_off, seconds)
    assert any(isinstance(fact, Quarantined) and fact.held for fact in facts)
    assert open_troubles(facts) == set()


def test_who_stands_by_is_in_no_trouble() -> None:
    """Another poller tells of the symbols then; back in office, it tells again."""

    def depose(store: MemoryStore, poller: Poller, facts: list[Fact]) -> None:
        del poller
        assert open_troubles(facts) == TROUBLES
        store.leases.holder, store.leases.holder_until = OTHER, 1e9

    facts = watched(depose, 10, after=TTL / 2)
    assert any(isinstance(fact, Standby) for fact in facts)
    assert open_troubles(facts) == set()

    def interrupt(store: MemoryStore, poller: Poller, facts: list[Fact]) -> None:
        del poller, facts
        store.leases.holder, store.leases.holder_until = OTHER, 20

    facts = watched(interrupt, 10)
    assert any(isinstance(fact, Standby) for fact in facts)
    assert open_troubles(facts) == TROUBLES


def test_whoever_comes_second_says_once_why_it_waits() -> None:
    """And polls as soon as the lease is free."""

    async def run() -> list[tuple[float, Fact]]:
        loop = asyncio.get_running_loop()
        facts, began = list[tuple[float, Fact]](), loop.time()
        store = MemoryStore(loop.time)
        store.leases.holder, store.leases.holder_until = OTHER, began + TTL
        leader = LeaderObserver(lambda fact: facts.append((loop.time() - began, fact)))
        poller = poller_of(store, leader)
        polling = asyncio.create_task(keep_polling(store.leases, "test", poller, leader))
        await asyncio.sleep(90)
        polling.cancel()
        await asyncio.wait([polling])
        return facts

    facts = run_virtually(BEGAN, run())
    assert [(at, f.reason) for at, f in facts if isinstance(f, Standby)] == [
        (0, "another poller is active")
    ]
    (active,) = [at for at, fact in facts if isinstance(fact, Active)]
    assert TTL <= active <= TTL + 2 * LOOK


class Taken(MemoryLeases):
    """A lease that somebody else holds for good."""

    async def acquire(self, owner: str, ttl: float) -> None:
        """Refuse."""
        del owner, ttl


def test_who_stands_by_comes_round() -> None:
    """Waiting for the lease is not being stuck: a watchdog is told within its longest turn."""
    facts: list[Fact] = []

    async def stand_by() -> None:
        store = MemoryStore(asyncio.get_running_loop().time)
        leases, poller = Taken(store.leases.clock), poller_of(store, facts.append)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10 * LONGEST_TURN):
                await keep_polling(leases, "test", poller, facts.append)

    run_virtually(BEGAN, stand_by())
    assert facts.count(HeartbeatBeat("lease")) >= 10


def test_trouble_with_redis_outlives_the_lease() -> None:
    """It may be why the lease was lost."""
    facts: list[Fact] = []
    leader = LeaderObserver(facts.append)
    for fact in (Trouble("redis", "away"), Trouble(CODE, "refused"), Standby("Redis was away")):
        leader(fact)
    assert open_troubles(facts) == {"redis"}


class Slow(MemoryLeases):
    """Leases whose server grants at once, and whose answers take a second."""

    async def acquire(self, owner: str, ttl: float) -> Lease | None:
        """Grant, and answer late."""
        granted = await super().acquire(owner, ttl)
        await asyncio.sleep(1)
        return granted


def test_a_lease_granted_while_stopping_is_given_back() -> None:
    """Who is told to stop before the answer arrives leaves no lease that nobody knows of."""

    async def story() -> None:
        facts: list[Fact] = []
        clock = asyncio.get_running_loop().time
        leases = Slow(clock)
        store = MemoryStore(clock, leases=leases)
        poller = poller_of(store, facts.append)
        work = asyncio.create_task(keep_polling(leases, "one", poller, facts.append))
        await asyncio.sleep(0.5)
        granted = leases.holder
        work.cancel()
        await asyncio.wait([work])
        assert work.cancelled()
        assert (granted, leases.holder) == (Lease("1:one"), None)
        assert not any(isinstance(fact, Active) for fact in facts)

    run_virtually(BEGAN, story())
