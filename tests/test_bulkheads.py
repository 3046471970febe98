"""A defect in one part of the service stops that part alone: in virtual time, on real parts.

The parts take their ports as arguments, so a defect is a port that raises what nobody expects.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from poller.errors import StoreMisfit
from poller.markets.hk import HkRecord
from poller.model import Code, Page
from poller.polling.budget import Budget
from poller.polling.leadership import LeaderObserver, keep_polling
from poller.polling.poll import Poller
from poller.schedule.release import Intervals
from poller.schedule.schedule import Schedule
from poller.service.composition import Component, run_together
from poller.simulator.virtual import VirtualLoop, run_virtually
from poller.store.store import Lease
from poller.supervisor import STEADY
from poller.telemetry.observe import (
    Active,
    Defect,
    Fact,
    Observe,
    Polled,
    Recovered,
    Standby,
    Trouble,
)
from poller.telemetry.status import ProcessReport
from poller.web.service_status import ServiceStatus, unready
from tests.memorystore import MemoryLeases, MemoryLedger, MemoryStore
from tests.test_vitals import NoPace

BEGAN = datetime(2026, 11, 16, tzinfo=UTC)
GOOD, BAD = Code("HK.00005"), Code("HK.00700")


class Spoiled:
    """A gateway whose answer for one symbol is a defect of whoever reads it."""

    name, account, ready = "spoiled", "main", True

    def __init__(self, *, until: float = float("inf")) -> None:
        """`until`: the loop's time at which it is mended."""
        self._until = until
        self.asked: dict[Code, list[float]] = {}

    async def wait_ready(self) -> None:
        """Return at once."""

    async def page(self, code: Code, key: str | None) -> Page:
        """Return a row, or raise what is no part of the contract."""
        del key
        now = asyncio.get_running_loop().time()
        self.asked.setdefault(code, []).append(now)
        if code == BAD and now < self._until:
            raise RecursionError("maximum recursion depth exceeded")
        return Page((HkRecord(None, "2026-11-06", 1000, 0.5, None, None),), None)

    async def group(self, name: str) -> list[str]:
        """Return no code."""
        del name
        return []


@dataclass
class Scene:
    """A poller that looks after two symbols."""

    store: MemoryStore
    facts: list[Fact] = field(default_factory=list)

    def defects(self) -> list[str]:
        """Return the components that a defect stopped."""
        return [fact.component for fact in self.facts if isinstance(fact, Defect)]

    def answered(self, code: Code) -> int:
        """Return how often a symbol was polled with success."""
        outcomes = [(f.code, f.outcome) for f in self.facts if isinstance(f, Polled)]
        return outcomes.count((code, "answered"))


def poller_of(store: MemoryStore, gateway: Spoiled, observe: Observe) -> Poller:
    """Return a poller of both symbols."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    intervals = Intervals(*(timedelta(seconds=s) for s in (30, 60, 30)))
    poller = Poller(
        store,
        [gateway],
        {"main": Budget(store.ledger, "main", "x", requests=30, period=30.0, pace=NoPace())},
        Schedule(intervals),
        history=0,
        observe=observe,
        now=loop.now,
    )
    poller.watch([GOOD, BAD])
    return poller


def play(
    gateway: Spoiled,
    seconds: float,
    *,
    leases: type[MemoryLeases] = MemoryLeases,
    ledger: type[MemoryLedger] = MemoryLedger,
) -> Scene:
    """Poll for so long."""

    async def run() -> Scene:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        store = MemoryStore(loop.time, leases=leases(loop.time))
        store.ledger = ledger(loop.time)
        scene = Scene(store)
        leader = LeaderObserver(scene.facts.append)
        poller = poller_of(store, gateway, leader)
        polling = Component(
            "polling", lambda: keep_polling(store.leases, "test", poller, leader), label="polling"
        )
        task = asyncio.create_task(run_together([polling], scene.facts.append))
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return scene

    return run_virtually(BEGAN, run())


def test_a_defect_in_one_symbols_poll_is_that_symbols() -> None:
    """The other symbol is polled as ever, the poller keeps its lease, the defect is told."""
    gateway = Spoiled()
    scene = play(gateway, 3600)
    assert set(scene.defects()) == {f"poll of {BAD}"}
    assert len(gateway.asked[BAD]) > 1
    assert scene.answered(GOOD) > 20
    assert not any(isinstance(fact, Standby) for fact in scene.facts)


def test_a_symbol_that_is_mended_recovers() -> None:
    """Its next good answer ends the trouble."""
    scene = play(Spoiled(until=600), 7200)
    assert Recovered(f"poll of {BAD}") in scene.facts
    assert scene.answered(BAD) > 0


def test_a_defect_of_a_chore_does_not_end_polling() -> None:
    """What the active poller does beside polling is tried again, and is told under its name."""

    async def run() -> list[Fact]:
        facts, store = list[Fact](), MemoryStore(asyncio.get_running_loop().time)
        poller = poller_of(store, Spoiled(until=0), facts.append)

        async def task() -> None:
            await asyncio.sleep(1)
            raise IndexError

        leader_tasks = [("trimming", task)]
        polling = asyncio.create_task(
            keep_polling(store.leases, "test", poller, facts.append, leader_tasks)
        )
        await asyncio.sleep(600)
        assert not polling.done()
        polling.cancel()
        await asyncio.wait([polling])
        return facts

    facts = run_virtually(BEGAN, run())
    defects = [fact.component for fact in facts if isinstance(fact, Defect)]
    assert set(defects) == {"trimming"}
    assert len(defects) > 1
    assert len([fact for fact in facts if isinstance(fact, Active)]) == 1
    assert len([fact for fact in facts if isinstance(fact, Polled)]) > 3


class NoGrants(MemoryLedger):
    """A ledger that cannot grant a request for a while: its key is somebody else's."""

    async def grant(  # noqa: D102
        self,
        account: str,
        request: str,
        *,
        limit: int,
        period: float,
        margin: float,
        logins: Sequence[str] = (),
    ) -> float:
        if self.clock() < 100:
            raise StoreMisfit("the key holds a list")
        return await super().grant(
            account, request, limit=limit, period=period, margin=margin, logins=logins
        )


class BrokenGrants(MemoryLedger):
    """A ledger whose grants are a defect for a while."""

    async def grant(  # noqa: D102
        self,
        account: str,
        request: str,
        *,
        limit: int,
        period: float,
        margin: float,
        logins: Sequence[str] = (),
    ) -> float:
        if self.clock() < 100:
            raise ZeroDivisionError
        return await super().grant(
            account, request, limit=limit, period=period, margin=margin, logins=logins
        )


def test_a_ledger_that_cannot_be_used_is_trouble() -> None:
    """Named with its key; polling goes on when it is mended, under the same lease."""
    scene = play(Spoiled(until=0), 1000, ledger=NoGrants)
    assert Trouble("ledger of account main", "the key holds a list") in scene.facts
    assert Recovered("ledger of account main") in scene.facts
    assert scene.defects() == []
    assert scene.answered(GOOD) > 3
    assert not any(isinstance(fact, Standby) for fact in scene.facts)


def test_a_dispatcher_that_fails_starts_again() -> None:
    """With growing pauses, under the same lease; then it recovers by itself."""
    scene = play(Spoiled(until=0), 1000, ledger=BrokenGrants)
    name = "dispatcher of account main"
    assert 3 <= scene.defects().count(name) <= 12
    assert Recovered(name) in scene.facts
    assert scene.answered(GOOD) > 3
    assert not any(isinstance(fact, Standby) for fact in scene.facts)


class NoLease(MemoryLeases):
    """A lease that cannot be taken for a while."""

    async def acquire(self, owner: str, ttl: float) -> Lease | None:  # noqa: D102
        if self.clock() < 30:
            raise StoreMisfit("the key {short-interest}:lease holds a list")
        return await super().acquire(owner, ttl)


def test_a_lease_that_cannot_be_taken_is_trouble() -> None:
    """Named with its key; polling begins when it is gone, and recovers when it was steady."""
    scene = play(Spoiled(until=0), 300, leases=NoLease)
    assert Trouble("lease", "the key {short-interest}:lease holds a list") in scene.facts
    assert scene.defects() == []
    assert scene.answered(GOOD) > 0
    assert Recovered("lease") in scene.facts


def test_a_component_that_fails_leaves_the_others_up() -> None:
    """At its start, and again and again; the error that ends the process ends it."""

    async def run() -> list[Fact]:
        facts: list[Fact] = []
        ticks: list[float] = []

        async def broken() -> None:
            raise KeyError("x")

        async def ticking() -> None:
            while True:
                ticks.append(asyncio.get_running_loop().time())
                await asyncio.sleep(1)

        async def unusable() -> None:
            await asyncio.sleep(STEADY)
            raise StoreMisfit("cannot be used")

        components = [
            Component("page", broken),
            Component("reports", ticking),
            Component("server", unusable, fatal=(StoreMisfit,)),
        ]
        with pytest.raises(ExceptionGroup) as caught:
            await run_together(components, facts.append)
        assert isinstance(caught.value.exceptions[0], StoreMisfit)
        assert ticks == pytest.approx([float(n) for n in range(len(ticks))])
        assert len(ticks) >= STEADY
        return facts

    facts = run_virtually(BEGAN, run())
    assert {fact.component for fact in facts if isinstance(fact, Defect)} == {"page"}


def test_readiness_tells_shared_components_from_single_ones() -> None:
    """The service works without one endpoint or one symbol, and not without its dispatcher."""

    def reasons(component: str) -> list[str]:
        report = ProcessReport(
            BEGAN, "run", "0", lease=1, defects={component: "stopped by a defect"}
        )
        return unready(ServiceStatus(BEGAN, reports={"me": report}, lease="1:me"))

    assert reasons("webhook desk") == reasons(f"poll of {BAD}")
    extra = set(reasons("dispatcher of account main")) - set(reasons("webhook desk"))
    assert extra == {"dispatcher of account main: stopped by a defect"}
