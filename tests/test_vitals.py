"""What a service manager hears: ready, alive while every loop turns, how it goes, stopping."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from poller.errors import StoreDown
from poller.markets.hk import HONG_KONG
from poller.markets.us import UNITED_STATES
from poller.model import Code, Page
from poller.polling.budget import Budget
from poller.polling.leadership import keep_polling
from poller.polling.poll import Poller
from poller.schedule.release import Intervals
from poller.schedule.schedule import Schedule
from poller.simulator import World
from poller.simulator.virtual import VirtualLoop, run_virtually
from poller.store.store import Lease
from poller.telemetry.notify import Notify
from poller.telemetry.observe import (
    LONGEST_TURN,
    Active,
    Fact,
    HeartbeatBeat,
    HeartbeatStarted,
    HeartbeatStopped,
    Newest,
    Observe,
    Ready,
    Recovered,
    Rejected,
    Reloading,
    Standby,
    Trouble,
)
from poller.telemetry.vitals import Vitals, status_line
from tests.memorystore import MemoryLeases, MemoryLedger, MemoryStore
from tests.service import Service, simulator, until

CODE = Code("HK.00700")
BEGAN = datetime(2026, 11, 16, tzinfo=UTC)


@dataclass
class Manager:
    """A service manager's socket, as systemd opens it."""

    listening: socket.socket
    heard: list[dict[str, str]] = field(default_factory=list)

    def hear(self) -> list[dict[str, str]]:
        """Return every datagram so far as name → value."""
        with contextlib.suppress(BlockingIOError):
            while True:
                text = self.listening.recv(65536, socket.MSG_DONTWAIT).decode()
                self.heard.append(dict(line.split("=", 1) for line in text.splitlines()))
        return self.heard

    def values(self, name: str) -> list[str]:
        """Return what was said under one name."""
        return [message[name] for message in self.hear() if name in message]


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A notification socket's address, of both kinds."""
    return str(tmp_path / "notify") if request.param == "path" else f"@poller-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    """A service manager that listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address.replace("@", "\0"))
        yield Manager(listening)


def test_every_loop_must_turn(manager: Manager, address: str) -> None:
    """One loop that does not come round ends the petting, whatever the others do."""
    vitals = Vitals(Notify(address), lambda: "watching 2 symbols, 0 due")
    begin: list[Fact] = [
        HeartbeatStarted("a"),
        HeartbeatStarted("b"),
        Ready(),
        HeartbeatBeat("a"),
        HeartbeatBeat("a"),
    ]
    for fact in begin:
        vitals(fact)
    assert manager.values("WATCHDOG") == []
    vitals(HeartbeatBeat("b"))
    assert manager.values("WATCHDOG") == ["1"]
    end: list[Fact] = [
        HeartbeatBeat("a"),
        HeartbeatStopped("b"),
        HeartbeatBeat("a"),
        HeartbeatBeat("unheard of"),
    ]
    for fact in end:
        vitals(fact)
    assert manager.values("WATCHDOG") == ["1", "1"]


def test_a_start_that_waits_is_given_time(manager: Manager, address: str) -> None:
    """Before it is ready, each turn asks for more time to start instead of petting."""
    vitals = Vitals(Notify(address), lambda: "")
    vitals(HeartbeatStarted("start"))
    vitals(HeartbeatBeat("start"))
    vitals(Trouble("redis", "nobody listens"))
    assert manager.values("EXTEND_TIMEOUT_USEC") == ["180000000"]
    assert manager.values("WATCHDOG") == []
    assert manager.values("STATUS")[-1] == "starting; redis: nobody listens"


def test_a_reload_is_told_from_begin_to_end(manager: Manager, address: str) -> None:
    """RELOADING comes with the monotonic time, READY follows, also after a refusal."""
    vitals = Vitals(Notify(address), lambda: "")
    vitals(Reloading())
    vitals(Rejected(("x",)))
    first, second = manager.hear()
    assert first["RELOADING"] == "1"
    assert int(first["MONOTONIC_USEC"]) > 0
    assert second == {"READY": "1"}


def test_status_follows_the_news(manager: Manager, address: str) -> None:
    """Trouble, its end and standby are sent at once, each as one line."""
    vitals = Vitals(Notify(address), lambda: "watching 2 symbols, 0 due")
    vitals(Newest(HONG_KONG, date(2026, 11, 13)))
    for fact in (Ready(), Trouble("redis", "away\n now"), Recovered("redis"), Recovered("redis")):
        vitals(fact)
    vitals(Standby("another poller is active"))
    vitals(Active(3))
    work = "watching 2 symbols, 0 due; last report HK 2026-11-13"
    assert manager.values("STATUS") == [
        work,
        f"{work}; redis: away now",
        work,
        "standing by: another poller is active; last report HK 2026-11-13",
        work,
    ]


def test_a_status_line_names_one_trouble_and_counts_the_others() -> None:
    """The line stays a line."""
    newest = {UNITED_STATES: date(2026, 10, 30), HONG_KONG: date(2026, 11, 13)}
    line = status_line("watching 412 symbols, 3 due", newest, {"a": "x", "b": "y", "c": "z"})
    assert line == (
        "watching 412 symbols, 3 due; last report HK 2026-11-13, US 2026-10-30; a: x (and 2 more)"
    )


def test_nobody_listens() -> None:
    """Without a manager, or with one that went away, nothing happens."""
    Notify(None)(READY=1)
    Notify("/nonexistent/socket")(READY=1)


class Quiet:
    """A gateway that knows nothing of any symbol, or is away."""

    name = "quiet"
    account = "main"

    def __init__(self, *, ready: bool = True) -> None:
        self.ready = ready

    async def wait_ready(self) -> None:
        """Return when ready; never, when away."""
        await asyncio.sleep(0 if self.ready else 1e9)

    async def page(self, code: Code, key: str | None) -> Page:
        """Return an empty page."""
        del code, key
        return Page((), None)

    async def group(self, name: str) -> list[str]:
        """Return no code."""
        del name
        return []


class NoPace:
    """No pacing beside the ledger's."""

    async def acquire(self) -> None:
        """Return at once."""


class Hanging(MemoryLedger):
    """A ledger that never answers who asks to spend."""

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
        """Wait for ever."""
        del account, request, limit, period, margin, logins
        await asyncio.sleep(1e9)
        return 0.0


class Taken(MemoryLeases):
    """A lease that another poller holds."""

    async def acquire(self, owner: str, ttl: float) -> Lease | None:
        """Give nobody the lease."""
        del owner, ttl
        return None


class Full(MemoryLedger):
    """A ledger that is always full: other programs spend everything."""

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
        """Bid the caller wait."""
        del account, request, limit, period, margin, logins
        return 45.0


class Away(MemoryLedger):
    """A ledger that is down from the first spending on."""

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
        """Fail."""
        del account, request, limit, period, margin, logins
        raise StoreDown("nobody listens")


def poller_of(store: MemoryStore, observe: Observe, *, ready: bool = True) -> Poller:
    """Return a poller of one symbol, on the loop's clock."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    name = "dispatcher of account main"
    budget = Budget(
        store.ledger,
        "main",
        "test",
        requests=30,
        period=30.0,
        pace=NoPace(),
        waiting=lambda: observe(HeartbeatBeat(name)),
    )
    intervals = Intervals(timedelta(seconds=30), timedelta(hours=6), timedelta(minutes=5))
    gateway = Quiet(ready=ready)
    poller = Poller(
        store,
        [gateway],
        {"main": budget},
        Schedule(intervals),
        history=0,
        observe=observe,
        now=loop.now,
    )
    poller.watch([CODE])
    return poller


def pets_in_a_day(part: type[MemoryLeases | MemoryLedger], *, ready: bool = True) -> list[float]:
    """Return the seconds of a virtual day at which the watchdog is petted."""

    async def day() -> list[float]:
        loop = asyncio.get_running_loop()
        pets: list[float] = []

        class Listener(Notify):
            def __call__(self, **fields: str | int) -> None:
                if "WATCHDOG" in fields:
                    pets.append(loop.time())

        vitals = Vitals(Listener(None), lambda: "", clock=loop.time)
        vitals(Ready())
        made = part(loop.time)
        memory = MemoryStore(loop.time)
        if isinstance(made, MemoryLeases):
            memory.leases = made
        else:
            memory.ledger = made
        polling = asyncio.create_task(
            keep_polling(memory.leases, "test", poller_of(memory, vitals, ready=ready), vitals)
        )
        await asyncio.wait([polling], timeout=86_400)
        polling.cancel()
        await asyncio.wait([polling])
        return pets

    return run_virtually(BEGAN, day())


@pytest.mark.parametrize(
    ("part", "ready"),
    [(MemoryLedger, True), (MemoryLedger, False), (Taken, True), (Full, True), (Away, True)],
    ids=["nothing due", "no OpenD", "standby", "full ledger", "no Redis"],
)
def test_whoever_waits_for_a_good_reason_lives(
    part: type[MemoryLeases | MemoryLedger], *, ready: bool
) -> None:
    """For a whole day no two pets are further apart than two turns."""
    pets = [0.0, *pets_in_a_day(part, ready=ready), 86_400.0]
    assert max(b - a for a, b in pairwise(pets)) <= 2 * LONGEST_TURN


def test_a_stuck_dispatcher_dies() -> None:
    """A call that never returns ends the petting, although the lease is still renewed."""
    assert max(pets_in_a_day(Hanging), default=0.0) < 2 * LONGEST_TURN


@pytest.fixture
async def watched(tmp_path: Path, address: str) -> AsyncIterator[Service]:
    """A service that talks to the manager at `address`; it asks a simulator."""
    async with simulator(World()) as opend:
        made = Service(tmp_path, opend.port, CODE, {"NOTIFY_SOCKET": address})
        yield made
        if made.process is not None and made.process.returncode is None:
            await made.stop()


async def test_a_process_from_start_to_stop(manager: Manager, watched: Service) -> None:
    """READY once everything is up, STATUS with the last report, WATCHDOG, STOPPING first."""
    await watched.start()
    await until(lambda: bool(manager.values("READY")))
    assert [line["event"] for line in watched.log()].count("store") == 1
    await until(lambda: any("HK 2026-04-30" in text for text in manager.values("STATUS")))
    assert any(text.startswith("watching 1 symbols") for text in manager.values("STATUS"))
    await until(lambda: bool(manager.values("WATCHDOG")))
    assert await watched.stop() == 0
    assert manager.values("STOPPING") == ["1"]
    assert manager.values("READY") == ["1"]
