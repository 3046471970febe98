"""`subscribe(share=True)`: several active readers of a group, and each symbol in order."""

import asyncio
import contextlib
import random
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from poller import Received, subscribe
from poller.errors import StoreMisfit
from poller.store.redisstore import RedisStore
from poller.subscriber.redisgroup import TTL, RedisGroup
from tests import nodes
from tests.service import until, whole_lines
from tests.test_subscribe import CODES, publish, server, store, take

__all__ = ["server", "store"]  # fixtures

STREAM, GROUP = "short-interest", "desk"
SHARERS = "{short-interest}:sharers:desk"
LOCK = "{short-interest}:reader:desk"
SUBSCRIBER = """
import asyncio, sys
from poller import subscribe
async def main(url):
    async with subscribe(url, group="desk", share=True, after="0") as events:
        async for event in events:
            await asyncio.sleep(0.02)
            print(event.id, flush=True)
asyncio.run(main(sys.argv[1]))
"""


def by_symbol(ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the ids of each symbol in their order."""
    found = defaultdict(list)
    for id_ in ids:
        found[id_.partition(":")[0]].append(id_)
    return found


def pending(server: nodes.Node) -> int:
    """Return how many entries were delivered to the group and not acknowledged."""
    return int(server.ask("XPENDING", STREAM, GROUP)["pending"])


def sharers(server: nodes.Node) -> int:
    """Return how many readers of the group there are."""
    return int(server.ask("ZCARD", SHARERS))


async def test_the_load_is_shared(server: nodes.Node, store: RedisStore) -> None:
    """Each event goes to one reader, once; of a symbol never two at a time, and in order."""
    done: list[str] = []
    under_way: set[str] = set()
    shares = [0, 0, 0]

    async def work(number: int, events: AsyncIterator[Received]) -> None:
        async for event in events:
            assert event.code not in under_way
            under_way.add(event.code)
            await asyncio.sleep(0.002)
            under_way.remove(event.code)
            done.append(event.id)
            shares[number] += 1

    async with AsyncExitStack() as stack:
        tasks = []
        for number in range(3):
            source = subscribe(server.url, group=GROUP, share=True, after="0")
            events = await stack.enter_async_context(source)
            tasks.append(asyncio.create_task(work(number, events)))
        await until(lambda: sharers(server) == 3)  # the first would have read all for itself
        expected = await publish(store, range(30))
        await until(lambda: len(done) >= len(expected))
        await until(lambda: pending(server) == 0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert by_symbol(done) == by_symbol(expected)
    assert min(shares) > 0
    assert not server.ask("EXISTS", SHARERS)  # all have left


async def test_a_killed_reader_loses_nothing(
    server: nodes.Node, store: RedisStore, tmp_path: Path
) -> None:
    """Kill -9 of one of three: the others get what it had, and only one of that may come twice."""
    logs = [tmp_path / f"{number}" for number in range(3)]
    processes = []

    def told(*some: Path) -> list[str]:
        return [id_ for log in some for id_ in whole_lines(log)]

    try:
        for log in logs:
            with log.open("wb") as out:
                command = (sys.executable, "-c", SUBSCRIBER, server.url)
                processes.append(await asyncio.create_subprocess_exec(*command, stdout=out))
        await until(lambda: sharers(server) == 3)
        publishing = asyncio.create_task(publish(store, range(40)))
        await until(lambda: bool(told(logs[0])))
        processes[0].kill()
        await processes[0].wait()
        (name,) = (n for n in server.ask("ZRANGE", SHARERS, 0, -1) if f"-{processes[0].pid}-" in n)
        server.ask("ZREM", SHARERS, name)  # instead of the seconds until it counts as dead
        expected = await publishing
        await until(lambda: {*told(*logs)} >= {*expected})
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    assert {*told(*logs)} == {*expected}
    assert len(told(*logs)) <= len(expected) + 1
    for log in logs[1:]:
        for symbol, ids in by_symbol(told(log)).items():
            assert ids == [id_ for id_ in by_symbol(expected)[symbol] if id_ in ids]


async def test_one_alone_or_several(server: nodes.Node, store: RedisStore) -> None:
    """Who wants the group for itself waits for those who share it, and they for it."""
    expected = await publish(store, range(3))
    async with subscribe(server.url, group=GROUP, share=True, after="0") as sharing:
        assert await take(sharing, 1) == expected[:1]
        async with subscribe(server.url, group=GROUP, after="0") as alone:
            waiting = asyncio.create_task(take(alone, 2))
            assert await take(sharing, 2) == expected[1:3]
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])
    async with subscribe(server.url, group=GROUP, after="0") as alone:
        assert await take(alone, 1) == expected[3:4]
        async with subscribe(server.url, group=GROUP, share=True, after="0") as sharing:
            waiting = asyncio.create_task(take(sharing, 1))
            assert await take(alone, 2) == expected[4:6]
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens(server: nodes.Node, store: RedisStore, seed: int) -> None:
    """Readers come, crash, are presumed dead and return; entries are trimmed, others write.

    No symbol is with two living readers at once, each comes in order, and nothing is lost.
    """
    chance = random.Random(seed)
    play = Play(server, store)
    try:
        for _ in range(150):
            await chance.choices(
                (play.publish, play.receive, play.work, play.crash, play.presume, play.noise),
                (2, 6, 12, 1, 1, 1),
            )[0](chance)
        await play.end()
    finally:
        for reader in play.readers.values():
            await reader.close()


class Play:
    """Readers of a group, and what each has received and not acknowledged.

    Attributes:
        published: The ids of all events, in order.
        done: Those that were processed, in order.
    """

    def __init__(self, server: nodes.Node, store: RedisStore) -> None:
        self.published: list[str] = []
        self.done: list[str] = []
        self.readers: dict[str, RedisGroup] = {}
        self._server, self._store = server, store
        self._received: dict[str, list[tuple[str, str]]] = {}
        self._days = 0
        self._count = 0

    async def publish(self, chance: random.Random) -> None:
        """Publish some days of every symbol."""
        days = range(self._days, self._days + chance.randint(1, 4))
        self._days = days.stop
        self.published += await publish(self._store, days)

    async def noise(self, chance: random.Random) -> None:
        """Append an entry that has no symbol, or one that nobody gets: it is deleted."""
        (id_) = self._server.ask("XADD", STREAM, "*", "hello", "there")
        if chance.random() < 0.5:
            self._server.ask("XDEL", STREAM, id_)

    async def receive(self, chance: random.Random) -> None:
        """Let a new reader, or one that has nothing left, ask for more."""
        idle = [name for name in self.readers if not self._received[name]]
        if len(self.readers) < 4 and (not idle or chance.random() < 0.1):
            self._count += 1
            name = f"reader-{self._count}"
            self.readers[name] = RedisGroup(
                self._server.url, "short-interest", GROUP, name, share=True
            )
            self._received[name] = []
        elif not idle:
            return
        else:
            name = chance.choice(idle)
        batch = await self.readers[name].receive("0", chance.randint(1, 5))
        assert batch is not None
        self._received[name] = [(e.id, e.fields.get("id", "")) for e in batch.entries]
        mine = {symbol for symbol in by_symbol([id_ for _, id_ in self._received[name]]) if symbol}
        for other, entries in self._received.items():
            if other != name and self._server.ask("ZSCORE", SHARERS, other) is not None:
                assert mine.isdisjoint(by_symbol([id_ for _, id_ in entries]))

    async def work(self, chance: random.Random) -> None:
        """Let a reader process one entry; who counted as dead forgets the others."""
        busy = [name for name, entries in self._received.items() if entries]
        if not busy:
            return
        name = chance.choice(busy)
        entry, id_ = self._received[name].pop(0)
        self.done.append(id_)
        if not await self.readers[name].acknowledge(entry):
            self._received[name].clear()

    async def crash(self, chance: random.Random) -> None:
        """End a reader, which is presumed dead at once."""
        if self.readers:
            name = chance.choice(list(self.readers))
            self._server.ask("ZREM", SHARERS, name)
            del self._received[name]
            await self.readers.pop(name).close()

    async def presume(self, chance: random.Random) -> None:
        """Let a living reader count as dead, as after a long stall."""
        if self.readers:
            self._server.ask("ZADD", SHARERS, "XX", "1", chance.choice(list(self.readers)))

    async def end(self) -> None:
        """Let one reader end what is left; nothing is missing, and each symbol came in order."""
        for name in list(self.readers):
            self._server.ask("ZREM", SHARERS, name)
        last = self.readers["last"] = RedisGroup(
            self._server.url, "short-interest", GROUP, "last", share=True
        )
        while (batch := await last.receive("0", 10)) is not None and batch.entries:
            for entry in batch.entries:
                assert await last.acknowledge(entry.id)
                self.done.append(entry.fields.get("id", ""))
        assert pending(self._server) == 0
        assert {*self.published} <= {*self.done}
        first = list(dict.fromkeys(id_ for id_ in self.done if id_))
        assert by_symbol(first) == by_symbol(self.published)


async def test_each_gets_a_share_of_the_symbols(server: nodes.Node, store: RedisStore) -> None:
    """Also of few; what follows of a symbol that another reader has waits until that is done."""
    first, second = (RedisGroup(server.url, STREAM, GROUP, name, share=True) for name in "ab")
    try:
        for reader in (first, second):
            assert await received(reader) == ([], 0)
        expected = by_symbol(await publish(store, range(8)))
        one, other, last = (expected[code] for code in CODES)
        has, waiting = await received(first)
        assert (by_symbol(has), waiting) == ({CODES[0]: one, CODES[1]: other}, 8)
        assert await received(second, acknowledge=True) == (last, 0)
        more = by_symbol(await publish(store, [8]))
        assert await received(second) == (more[CODES[2]], 2)
    finally:
        await first.close()
        await second.close()


async def received(group: RedisGroup, *, acknowledge: bool = False) -> tuple[list[str], int]:
    """Return the ids of what a reader receives, and how many entries wait for others."""
    batch = await group.receive("0", 50)
    assert batch is not None
    if acknowledge:
        for entry in batch.entries:
            await group.acknowledge(entry.id)
    return [entry.fields["id"] for entry in batch.entries], batch.waiting


async def test_who_works_long_stays_a_reader(server: nodes.Node, store: RedisStore) -> None:
    """Each renewal prolongs the lock, the reader's own place, and the symbols it holds."""
    await publish(store, [1])
    reader = RedisGroup(server.url, STREAM, GROUP, "a", share=True)
    try:
        assert (await received(reader))[0]
        keys = [f"{{short-interest}}:{key}:desk" for key in ("reader", "sharers", "shared")]
        for key in keys:
            server.ask("PEXPIRE", key, 1000)
        server.ask("ZADD", SHARERS, "1", "a")
        await reader.renew()
        assert [server.ask("PTTL", key) > 0.9 * TTL * 1000 for key in keys] == [True] * 3
        assert float(server.ask("ZSCORE", SHARERS, "a")) > 1
    finally:
        await reader.close()


async def test_a_lock_without_an_end_ends(server: nodes.Node, store: RedisStore) -> None:
    """What somebody else has set there keeps those that share waiting no longer than a reader."""
    await publish(store, [1])
    server.ask("SET", "{short-interest}:reader:desk", "somebody")
    reader = RedisGroup(server.url, STREAM, GROUP, "a", share=True)
    try:
        assert await reader.receive("0", 50) is None
        assert 0 < server.ask("PTTL", "{short-interest}:reader:desk") <= TTL * 1000
        server.ask("SET", "{short-interest}:reader:desk", "somebody", "PX", "3000")
        assert await reader.receive("0", 50) is None  # who waits does not prolong it
        assert 0 < server.ask("PTTL", "{short-interest}:reader:desk") <= 3000
    finally:
        await reader.close()


async def test_what_was_deleted_meanwhile_is_not_awaited(
    server: nodes.Node, store: RedisStore
) -> None:
    """An entry that was received, and deleted before an answer got lost, is pending no longer."""
    expected = await publish(store, [1])
    reader = RedisGroup(server.url, STREAM, GROUP, "a", share=True)
    try:
        assert (await received(reader))[0] == expected
        first, *_ = server.ask("XRANGE", STREAM, "-", "+", "COUNT", "1")
        server.ask("XDEL", STREAM, first[0])
        assert (await received(reader))[0] == expected[1:]
        assert pending(server) == len(expected) - 1
    finally:
        await reader.close()


@pytest.mark.parametrize("key", ["sharers", "shared"])
async def test_a_key_of_another_type_is_named(
    server: nodes.Node, store: RedisStore, key: str
) -> None:
    """What no waiting mends is raised, with the key and what to do."""
    await publish(store, [1])
    server.ask("RPUSH", f"{{short-interest}}:{key}:desk", "x")
    with pytest.raises(StoreMisfit, match=rf"DEL \{{short-interest\}}:{key}:desk"):
        async with subscribe(server.url, group=GROUP, share=True, after="0") as events:
            await anext(events)


async def test_a_spoiled_holder_blocks_nothing(server: nodes.Node, store: RedisStore) -> None:
    """A symbol held by nobody, or a reader that lives for ever: the entries come all the same."""
    expected = await publish(store, range(2))
    server.ask("HSET", "{short-interest}:shared:desk", CODES[0], "nobody")
    server.ask("ZADD", SHARERS, "9e300", "eternal")
    server.ask("HSET", "{short-interest}:shared:desk", CODES[1], "eternal")
    async with subscribe(server.url, group=GROUP, share=True, after="0") as events:
        assert await take(events, len(expected)) == expected


async def test_a_group_to_share_has_a_name() -> None:
    """Without one there is nothing to share."""
    with pytest.raises(ValueError, match="give the group"):
        async with subscribe("redis://127.0.0.1:1", share=True):
            pass


async def test_a_deleted_group_goes_on(server: nodes.Node, store: RedisStore) -> None:
    """It goes on after the last event up to which all were acknowledged."""
    expected = await publish(store, range(2))
    async with subscribe(server.url, group=GROUP, share=True, after="0") as events:
        await take(events, 3)
    server.ask("XGROUP", "DESTROY", STREAM, GROUP)
    async with subscribe(server.url, group=GROUP, share=True, after="0") as events:
        assert await take(events, 3) == expected[3:]


async def test_a_group_deleted_meanwhile(server: nodes.Node, store: RedisStore) -> None:
    """A reader that has entries of a deleted group, or stream, goes on; it gets them again."""
    expected = await publish(store, range(2))
    async with subscribe(server.url, group=GROUP, share=True, after="0") as events:
        assert await take(events, 2) == expected[:2]
        server.ask("XGROUP", "DESTROY", STREAM, GROUP)
        assert await take(events, 2) == expected[1:3]
        server.ask("DEL", STREAM)
        later = await publish(store, [2])
        assert await take(events, 3) == later


async def test_who_was_stalled_leaves_it_to_the_next(server: nodes.Node, store: RedisStore) -> None:
    """A reader that returns after another had the group for itself goes on with nothing it had."""
    await publish(store, range(2))
    stalled, alone = (
        RedisGroup(server.url, STREAM, GROUP, name, share=name == "a") for name in "ab"
    )
    try:
        had = await stalled.receive("0", 50)
        server.ask("DEL", LOCK)  # instead of the seconds until it expires
        assert await alone.receive("0", 50) == had
        assert had is not None
        assert not await stalled.acknowledge(had.entries[0].id)
    finally:
        await stalled.close()
        await alone.close()


async def test_a_short_stall_keeps_the_group(server: nodes.Node, store: RedisStore) -> None:
    """Who renews again in time, before anybody took over, is one of its readers as before."""
    await publish(store, range(2))
    stalled, alone = (
        RedisGroup(server.url, STREAM, GROUP, name, share=name == "a") for name in "ab"
    )
    try:
        had = await stalled.receive("0", 50)
        server.ask("DEL", LOCK)
        await stalled.renew()
        assert await alone.receive("0", 50) is None
        assert had is not None
        assert await stalled.acknowledge(had.entries[0].id)
    finally:
        await stalled.close()
        await alone.close()


async def test_huge_entries_are_taken_few_at_a_time(server: nodes.Node, store: RedisStore) -> None:
    """Of entries of any size, no call reads more than a few, or no call would end in time."""
    await publish(store, range(1))
    for _ in range(30):
        server.ask("XADD", STREAM, "*", "code", CODES[0], "data", "x" * 1_000_000)
    reader = RedisGroup(server.url, STREAM, GROUP, "a", share=True)
    try:
        batch = await reader.receive("0", 50)
        assert batch is not None
        assert len(batch.entries) + batch.waiting == 10
    finally:
        await reader.close()
