"""Kill -9 at random and at every point between two effects: the stream equals the truth at the end.

Two pollers share a Redis, so that a killed one's work goes on at once. What is killed, and where:
a poller or the server, before a command reaches the server, after the server has done it and before
anybody knows, while OpenD answers, or at any moment. Connections are cut there, too. Twenty kills
here; `CHAOS_KILLS=1000 make chaos` for more. The seed is printed.
"""

import asyncio
import contextlib
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from itertools import count
from pathlib import Path

import pytest
from redis.asyncio import Redis

from poller.model import Code
from poller.simulator import World
from poller.store.redisstore import RedisStore
from poller.store.store import Entry, Stream
from tests.machine import scaled
from tests.opend import Simulator
from tests.service import Service, entries, later, now, with_rows
from tests.wire import Point, Server, Wire

KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
REACHED = scaled(4.0)
"""Seconds a point may take to come up; a poller that has nothing to say never reaches some."""

POINTS = tuple(
    Point(step, done)
    for step in ("lease", "grant", "snapshot", "settle", "commit", "announce", "renew")
    for done in (False, True)
)
STEP_OF = {"spend": "settle"}
ASKED = Point("asking OpenD", done=True)


def void(_: bool) -> None:  # noqa: FBT001  what `mutate` wants to be told
    """Return nothing."""


@dataclass
class Trial:
    """The parts under test, and what is expected of them."""

    opend: Simulator
    server: Server
    store: RedisStore
    client: "Redis"
    folder: Path
    codes: tuple[Code, ...]
    chance: random.Random
    truth: dict[Code, list[str]] = field(default_factory=dict)
    pollers: list[tuple[Service, Wire]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)
    struck: Counter[str] = field(default_factory=Counter)

    async def enter(self, stack: contextlib.AsyncExitStack) -> None:
        """Start one more poller, which stands by while another is active."""
        home = self.folder / str(next(self.numbers))
        home.mkdir()
        wire = Wire(self.server, home / "wire.sock")
        url = await stack.enter_async_context(wire.laid())
        service = Service(home, self.opend.port, ",".join(self.codes))
        service.settings = {"POLLER_WATCHLIST__HISTORY": "1000", "POLLER_REDIS__URL": url}
        await service.start()
        self.pollers.append((service, wire))

    async def news(self) -> None:
        """Let OpenD report a new day of a symbol, or revise the day that was published last."""
        code = self.chance.choice(self.codes)
        rows = self.opend.world.records(code, now())
        known = (await self.store.records.snapshot(code)).known
        last = known.vintages.get(rows[0].day)
        level = round(
            rows[0].shares or 1_000_000
        )  # a step a market can take; another would be held
        shares = level + self.chance.choice((-1, 1)) * self.chance.randint(1, level // 5 or 1)
        settled = last is not None and last.record.shares == rows[0].shares
        if settled and self.chance.random() < 0.3:
            assert last is not None
            changed = later(rows[0], days=0, aggregated_short=shares)
            rows = (changed, *rows[1:])
            self.truth[code].append(f"{code}:{changed.timestamp_str}:{last.revision + 1}")
        elif rows[0].day < now().date() - timedelta(days=2):
            rows = (later(rows[0], days=1, aggregated_short=shares), *rows)
            self.truth[code].append(f"{code}:{rows[0].timestamp_str}:0")
        self.opend.world = with_rows(self.opend.world, code, rows)

    async def strike(self, stack: contextlib.AsyncExitStack) -> None:
        """Kill or cut something once, somewhere; replace what was killed."""
        what = self.chance.choices(("poller", "server", "wire", "opend"), (70, 12, 12, 6))[0]
        if what == "opend":
            await self._trouble_at_opend()
            return
        (service, wire), reached = self.pollers[0], asyncio.Event()
        target = self.chance.choice((*POINTS, ASKED, None))

        def hit(point: Point) -> bool:
            step = replace(point, step=STEP_OF.get(point.step, point.step))
            if step != target or reached.is_set():
                return True
            reached.set()
            if what == "poller":
                assert service.process is not None
                service.process.kill()
            elif what == "server":
                self.server.kill()
            return False

        wire.at = hit
        if target is ASKED:
            for code in self.codes:
                self.opend.faults.mutate[code] = lambda _: void(hit(ASKED))
        patience = self.chance.uniform(0, 1) if target is None else REACHED
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await reached.wait()
        self.opend.faults.mutate.clear()
        wire.at = lambda _: True  # a point that comes up late strikes nobody: not who starts anew
        where = target if target is not None and reached.is_set() else "at any moment"
        self.struck[f"{what} {where}"] += 1
        await self._replace(what, service, stack, struck=reached.is_set())

    async def _replace(
        self, what: str, service: Service, stack: contextlib.AsyncExitStack, *, struck: bool
    ) -> None:
        if what == "server":
            if not struck:
                self.server.kill()
            await self.server.start()
        elif what == "poller":
            await service.kill()
            self.pollers.pop(0)
            # that a dead one's lease runs out has a test of its own: here it would be idle time
            await self.client.delete(self.store.keys.lease)
            await self.enter(stack)

    async def _trouble_at_opend(self) -> None:
        faults = self.opend.faults
        way = self.chance.choice(("kick", "cut", "refuse", "silence", "garbage"))
        self.struck[f"OpenD: {way}"] += 1
        match way:
            case "kick":
                faults.kick()
            case "cut":
                faults.cut = self.chance.randrange(1, 200)
            case "refuse":
                faults.refuse_login = "未登录"
                faults.kick()
                await asyncio.sleep(0.5)
                faults.refuse_login = None
            case "silence":
                faults.silence_next = 2
            case _:
                faults.garbage_next = 1


@pytest.fixture
async def trial(tmp_path: Path) -> AsyncIterator[Trial]:
    """A world whose releases lie far in the past, which leaves room for a new day per kill."""
    room = timedelta(days=KILLS + 250)
    since = now().date() - 2 * room
    world = World(made_up={"HK": 4}, without_rows=0.0, history=20, since=since, shift=room)
    codes = world.codes()[1:]
    server = Server(tmp_path)
    await server.start()
    store = RedisStore(f"unix://{server.path}", "short-interest")
    client = Redis(unix_socket_path=str(server.path))
    async with Simulator(world, requests=30, period=1.0) as opend:
        made = Trial(opend, server, store, client, tmp_path, codes, random.Random(SEED))
        for code in codes:
            days = [row.timestamp_str for row in reversed(world.records(code, now()))]
            made.truth[code] = [f"{code}:{day}:0" for day in days]
        yield made
    await store.close()
    await client.aclose()
    server.kill()


@pytest.mark.timeout(120 + 6 * KILLS)
async def test_kills_lose_and_double_nothing(trial: Trial) -> None:
    """Whatever is killed or cut: no id twice, nothing missing, budget held, watermark newest.

    Each report is told to be out once, the newest too, and complete at most once, after that.
    """
    async with contextlib.AsyncExitStack() as stack:
        await trial.enter(stack)
        await trial.enter(stack)
        for _ in range(KILLS):
            await trial.news()
            await trial.strike(stack)
        expected = sum(map(len, trial.truth.values()))
        found = await entries(trial.store, expected)
        watermarks = await trial.store.records.watermarks()
        notices = await announced(trial.store, found, max(watermarks.values()))
        for service, _ in trial.pollers:
            await service.said("ready")
        assert [await service.stop() for service, _ in trial.pollers] == [0, 0]
    sys.stdout.write(f"seed {SEED}: {dict(sorted(trial.struck.items()))}\n")
    for code, ids in trial.truth.items():
        told = [entry.fields["id"] for entry in found if entry.fields["code"] == code]
        assert told == ids, f"{code}, seed {SEED}"
        assert str(watermarks[code]) == max(ids).split(":")[1]
    assert trial.opend.most_in_window() <= 30, f"seed {SEED}"
    assert len(set(notices)) == len(notices), f"seed {SEED}"
    for number, notice in enumerate(notices):
        market, day, kind = notice.split(":")
        assert kind == "detected" or f"{market}:{day}:detected" in notices[:number], f"seed {SEED}"


async def announced(store: RedisStore, found: Sequence[Entry], newest: date) -> list[str]:
    """Return the ids on the stream of releases, with the newest day's unless it is first sight."""
    news = {entry.fields["trading_day"] for entry in found if "reported" in entry.fields["type"]}
    while True:
        notices = await store.streams.read("0", count=10_000, block=None, stream=Stream.RELEASES)
        ids = [entry.fields["id"] for entry in notices]
        if str(newest) not in news or f"HK:{newest}:detected" in ids:
            return ids
        await asyncio.sleep(0.1)
