"""Kill -9 while delivering, at random and at every point between two effects.

Two delivering processes share the work of three endpoints that fail 30 % of the time. What is
killed, and where: a process before a command reaches the server, after the server has done it and
before the process knows, when the endpoint has the POST and has not answered; the server once.
Small here; `DELIVERIES=10000 DELIVERY_KILLS=200` for more. The seed and the share are printed.
"""

import asyncio
import contextlib
import itertools
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import pytest

from poller.delivery.redisoutbox import RedisOutbox
from poller.markets.hk import HONG_KONG
from poller.model import Code
from poller.schedule.notice import Completed, Detected, id_of
from poller.store.redisstore import RedisStore
from poller.store.store import ONE_OFF, Stream
from tests.feed import SEEN, publish
from tests.machine import at_most, scaled
from tests.receiver import OK, Receiver, Seen, status
from tests.wire import Point, Server, Wire

EVENTS = int(os.environ.get("DELIVERIES", "300"))
KILLS = int(os.environ.get("DELIVERY_KILLS", "12"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
HK = HONG_KONG
NAMES = ("one", "two", "three")
CODES = tuple(f"HK.{n:05}" for n in range(1, 11))
POSTED = "a POST unanswered"
TARGETS = (
    *(Point(step, done) for step in ("enqueue", "exchange") for done in (False, True)),
    POSTED,
    None,
)
REACHED = scaled(3.0)
"""Seconds a point may take to come up; with everything delivered some never do."""


def void(_: bool) -> None:  # noqa: FBT001  what `on_post` wants to be told
    """Return nothing."""


@dataclass
class Endpoint:
    """A receiver that takes seven of ten and remembers what it took."""

    chance: random.Random
    receiver: Receiver = field(default_factory=Receiver)
    accepted: list[str] = field(default_factory=list)
    on_post: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        """Answer by chance."""
        self.receiver.answer = self.answer

    def answer(self, seen: Seen) -> bytes:
        """Refuse three of ten; a process that is to be killed now never hears of it."""
        self.on_post()
        if self.chance.random() < 0.3:
            return status(503)
        self.accepted.append(seen.event)
        return OK


@dataclass
class Trial:
    """The parts under test, and what was published."""

    server: Server
    store: RedisStore
    folder: Path
    chance: random.Random
    endpoints: dict[str, Endpoint]
    stack: contextlib.AsyncExitStack
    truth: dict[str, list[str]] = field(default_factory=dict)
    running: list[tuple[asyncio.subprocess.Process, Wire]] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    started: int = 0

    async def enter(self) -> None:
        """Start one more delivering process, over a wire of its own."""
        self.started += 1
        wire = Wire(self.server, self.folder / f"wire{self.started}")
        url = await self.stack.enter_async_context(wire.laid())
        targets = [f"{name}={each.receiver.url}" for name, each in self.endpoints.items()]
        command = (sys.executable, "-m", "tests.deliverer", url, *targets)
        with (self.folder / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(*command, stderr=log)
        self.running.append((process, wire))

    async def news(self, count: int) -> None:
        """Publish events of every symbol, and as many notices of the market."""
        for code in CODES:
            known = self.truth.setdefault(code, [])
            first = len(known) + 1
            known += await publish(self.store, code, range(first, first + count))
        told = self.truth.setdefault("HK:", [])
        for n in range(len(told), len(told) + count):
            day = date(2020, 1, 1) + timedelta(days=n // 2)
            code = Code(CODES[0])
            notice = Completed(HK, day, SEEN, n) if n % 2 else Detected(HK, day, SEEN, code)
            assert await self.store.plans.announce(notice, ONE_OFF)
            told.append(id_of(notice))

    async def strike(self, count: int) -> None:
        """Kill the older process somewhere while there is news, and start another."""
        process, wire = self.running.pop(0)
        target, reached = self.chance.choice(TARGETS), asyncio.Event()

        def hit(point: Point | str) -> bool:
            if point != target or reached.is_set():
                return True
            reached.set()
            process.kill()
            return False

        wire.at = hit
        for each in self.endpoints.values():
            each.on_post = lambda: void(hit(POSTED))
        await self.news(count)
        patience = self.chance.uniform(0, 0.5) if target is None else REACHED
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await reached.wait()
        self.struck[str(target) if reached.is_set() else "at any moment"] += 1
        if process.returncode is None:
            process.kill()
        await process.wait()
        await self.enter()

    def delivered(self) -> bool:
        """Return whether every endpoint took everything."""
        return all(len(set(e.accepted)) >= self.published for e in self.endpoints.values())

    @property
    def published(self) -> int:
        """How many events there are."""
        return sum(map(len, self.truth.values()))


@pytest.fixture
async def trial(tmp_path: Path) -> AsyncIterator[Trial]:
    """A server and three endpoints, whose groups begin at an empty stream."""
    server, chance = Server(tmp_path), random.Random(SEED)
    await server.start()
    url = f"unix://{server.path}"
    store, outbox = RedisStore(url, "short-interest"), RedisOutbox(url, "short-interest")
    for name, stream in itertools.product(NAMES, Stream):
        await outbox.begin([name], stream)
    await outbox.close()
    async with contextlib.AsyncExitStack() as stack:
        endpoints = {name: Endpoint(chance) for name in NAMES}
        for each in endpoints.values():
            await stack.enter_async_context(each.receiver.running())
        made = Trial(server, store, tmp_path, chance, endpoints, stack)
        yield made
        for process, _ in made.running:
            process.kill()
            await process.wait()
    await store.close()
    server.kill()


@pytest.mark.timeout(60 + 5 * KILLS + EVENTS / 10)
async def test_kills_lose_no_delivery(trial: Trial) -> None:
    """Each event and notice at each endpoint at least once, in order; repeats share their id."""
    await trial.enter()
    await trial.enter()
    batch = max(1, EVENTS // (KILLS * len(CODES)))
    for kill in range(KILLS):
        await trial.strike(batch)
        if kill == KILLS // 2:
            await trial.server.kill_and_restart()
    async with at_most(40 + EVENTS / 12):
        while not trial.delivered():
            await asyncio.sleep(0.02)
    posts = repeats = 0
    for name, each in trial.endpoints.items():
        assert not each.receiver.refused
        ids = {(seen.event, seen.id) for seen in each.receiver.seen}
        assert len(ids) == len({id_ for _, id_ in ids}) == trial.published
        for code, events in trial.truth.items():
            arrived = [e.event for e in each.receiver.seen if e.event.startswith(code)]
            places = [events.index(event) for event in arrived]
            assert places == sorted(places), f"{name} {code}, seed {SEED}"
        posts += len(each.accepted)
        repeats += len(each.accepted) - trial.published
    struck = dict(sorted(trial.struck.items()))
    sys.stdout.write(f"seed {SEED}: {struck}; {repeats} of {posts} taken twice\n")
