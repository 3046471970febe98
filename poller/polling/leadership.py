"""One active poller, others on standby: who may poll, and for how long."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from poller.errors import LeaseLost, StoreDown, StoreError, StoreMisfit
from poller.polling.poll import Poller
from poller.store.ports import Leases
from poller.store.store import Lease
from poller.supervisor import supervise
from poller.telemetry.observe import (
    REDIS,
    Active,
    Defect,
    Fact,
    Observe,
    Quarantined,
    Recovered,
    Standby,
    Trouble,
    forgotten,
    heartbeat,
    quarantine_of,
    redis_trouble,
)

TTL: Final = 12.0
"""Seconds a lease lives without renewal: the longest gap after a kill -9, plus one `LOOK`."""

LEASE: Final = "lease"
"""Subject of the trouble when the lease's keys cannot be used and no process polls."""

LONGEST_PAUSE: Final = 30.0

RENEWAL: Final = 4.0
LOOK: Final = 1.0
"""Seconds between two looks of a poller on standby."""

_Beat = Callable[[], None]


class LeaderObserver:
    """Passes facts of the polling process on; when it becomes a standby, its troubles end.

    The new leader reports its own. Trouble with Redis or the lease stays, because it may be the
    reason why the lease was lost.
    """

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._ends: dict[str, tuple[Fact, ...]] = {}

    def __call__(self, fact: Fact) -> None:
        """Pass a fact on, and remember which troubles are open."""
        self._observe(fact)
        match fact:
            case Trouble(subject) if subject not in {REDIS, LEASE}:
                self._ends[subject] = (Recovered(subject),)
            case Defect(component):
                self._ends[component] = (Recovered(component),)
            case Recovered(subject):
                self._ends.pop(subject, None)
            case Quarantined(code, ()):
                self._ends.pop(quarantine_of(code), None)
            case Quarantined(code):
                self._ends[quarantine_of(code)] = forgotten(code)
            case Standby():
                for end in itertools.chain.from_iterable(self._ends.values()):
                    self._observe(end)
                self._ends.clear()


async def keep_polling(
    leases: Leases,
    owner: str,
    poller: Poller,
    observe: Observe,
    leader_tasks: Sequence[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = (),
) -> None:
    """Poll while holding the lease and stand by while another process does, for ever.

    `leader_tasks`: what else only the leader does, by name. They never end by themselves, and each
    is supervised as a component of its own.
    """
    with heartbeat(observe, "lease") as beat:
        while True:
            lease = await _acquire(leases, owner, observe, beat)
            observe(Active(lease.token))
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_renew(leases, lease, observe, beat), name="renew the lease")
                    group.create_task(poller.run(lease), name="poll")
                    for name, task in leader_tasks:
                        work = supervise(name, task, observe, fatal=(LeaseLost,))
                        group.create_task(work, name=name)
            except* LeaseLost:
                observe(Standby("another poller holds the lease, or Redis was away"))
            finally:
                await _release(leases, lease)


async def _acquire(leases: Leases, owner: str, observe: Observe, beat: _Beat) -> Lease:
    waiting, pause = False, LOOK
    while True:
        beat()
        try:
            lease = await _granted(leases, owner)
        except StoreDown as problem:
            observe(redis_trouble(problem))
        except StoreMisfit as problem:
            observe(Trouble(LEASE, str(problem)))
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            observe(Recovered(REDIS))
            observe(Recovered(LEASE))
            if lease is not None:
                return lease
            if not waiting:
                observe(Standby("another poller is active"))
            waiting, pause = True, LOOK
        await asyncio.sleep(pause)


async def _granted(leases: Leases, owner: str) -> Lease | None:
    """Ask for the lease; if cancelled meanwhile, give back what the server may have granted.

    Otherwise nobody could poll until that lease expires.
    """
    asking = asyncio.create_task(leases.acquire(owner, TTL), name="ask for the lease")
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        with contextlib.suppress(StoreError):
            if (lease := await asking) is not None:
                await _release(leases, lease)
        raise


async def _renew(leases: Leases, lease: Lease, observe: Observe, beat: _Beat) -> None:
    while True:
        await asyncio.sleep(RENEWAL)
        try:
            if not await leases.renew(lease, TTL):
                raise LeaseLost(lease.value)
        except StoreDown as problem:
            observe(redis_trouble(problem))
        except StoreMisfit as problem:  # the key no longer holds our lease
            observe(Trouble(LEASE, str(problem)))
            raise LeaseLost(lease.value) from problem
        beat()


async def _release(leases: Leases, lease: Lease) -> None:
    with contextlib.suppress(StoreError):  # the lease expires by itself
        await leases.release(lease)
