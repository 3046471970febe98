"""What the readers of `/events` share."""

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from poller.errors import StoreDown
from poller.store.notifier import Notifier
from poller.store.store import Entry, Stream, order
from poller.web.feed import BATCH, Feed
from tests.memorystore import MemoryStreams

if TYPE_CHECKING:
    from poller.telemetry.observe import Fact


class Counted(MemoryStreams):
    """Streams that count what is read of them, and can be away."""

    reads = 0
    away = False

    async def read(
        self, after: str, *, count: int, block: float | None, stream: Stream = Stream.EVENTS
    ) -> list[Entry]:
        """Read, unless the store is away."""
        self.reads += 1
        if self.away:
            raise StoreDown("away")
        return await super().read(after, count=count, block=block, stream=stream)


def append(streams: MemoryStreams, first: int, count: int, size: int = 1) -> None:
    """Append entries with these numbers."""
    numbers = range(first, first + count)
    streams.append(streams.entries, [{"id": str(n), "data": "x" * size} for n in numbers])


class Reader:
    """Follows a feed from a position, as a connection does.

    Attributes:
        got: The numbers it received.
    """

    def __init__(self, feed: Feed, position: str) -> None:
        self.got: list[int] = []
        self._feed, self._position = feed, position

    async def run(self) -> None:
        """Receive for ever."""
        while True:
            found, self._position = await self._feed.after(self._position)
            lines = found.decode().splitlines()
            data = [line for line in lines if line.startswith("data: ")]
            self.got += [int(line.split('"id":"')[1].split('"')[0]) for line in data]
            if not found:
                await self._feed.grown(self._position)


@asynccontextmanager
async def running(streams: MemoryStreams) -> AsyncIterator[tuple[Feed, list[asyncio.Task[None]]]]:
    """Run a feed of these streams; the tasks added to the list end with it."""
    facts: list[Fact] = []
    notifier = Notifier(streams, facts.append)
    feed = Feed(streams, notifier.news)
    tasks = [asyncio.create_task(notifier.run()), asyncio.create_task(feed.run(facts.append))]
    try:
        yield feed, tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def settle() -> None:
    """Let everything happen that waits for nothing."""
    for _ in range(200):
        await asyncio.sleep(0)


def streams() -> Counted:
    """Return empty streams whose clock runs with the loop's."""
    return Counted(asyncio.get_running_loop().time)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 3 * BATCH), st.sampled_from([1, 100_000])),
        st.tuples(st.just("read"), st.integers(0, 2000), st.just(0)),
        st.tuples(st.just("pass"), st.just(0), st.just(0)),
    ),
    max_size=12,
)


@given(STEPS)
@settings(max_examples=25, deadline=None)
def test_everybody_gets_what_follows(steps: list[tuple[str, int, int]]) -> None:
    """Each entry after its position once and in order, wherever and whenever a reader begins."""

    async def play() -> None:
        stored = streams()
        append(stored, 0, 5)
        async with running(stored) as (feed, tasks):
            readers: list[tuple[int, Reader]] = []
            for step, number, size in steps:
                if step == "append":
                    append(stored, len(stored.entries), number, 1 if number > BATCH else size)
                elif step == "read":
                    begin = min(number, len(stored.entries))
                    position = stored.entries[begin - 1].id if begin else "0"
                    readers.append((begin, Reader(feed, position)))
                    tasks.append(asyncio.create_task(readers[-1][1].run()))
                else:
                    await settle()
            await settle()
            every = list(range(len(stored.entries)))
            for begin, reader in readers:
                assert reader.got == every[begin:]

    asyncio.run(play())


async def test_readers_cost_no_reads() -> None:
    """However many are up to date, the stream is read as often as for none."""
    reads = []
    for count in (0, 200):
        stored = streams()
        append(stored, 0, 5)
        async with running(stored) as (feed, tasks):
            await settle()
            readers = [Reader(feed, await feed.newest()) for _ in range(count)]
            tasks += [asyncio.create_task(reader.run()) for reader in readers]
            for number in range(5, 15):
                append(stored, number, 1)
                await settle()
            assert all(reader.got == list(range(5, 15)) for reader in readers)
        reads.append(stored.reads)
    assert reads[0] == reads[1]


async def test_who_leaves_is_forgotten() -> None:
    """A wait that is given up leaves nothing behind, and the others are still woken."""
    stored = streams()
    async with running(stored) as (feed, _):
        await settle()
        stays = asyncio.create_task(feed.grown(await feed.newest()))
        for _ in range(50):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await feed.grown("0")
        await settle()
        assert feed.waiting == 1
        append(stored, 0, 1)
        await stays
        assert feed.waiting == 0


async def test_an_absent_store_ends_nothing() -> None:
    """What was known is still served, and what comes later is served when it answers again."""
    stored = streams()
    append(stored, 0, 2)
    async with running(stored) as (feed, _):
        await settle()
        append(stored, 2, 1)
        await settle()
        stored.away = True
        assert (await feed.after(stored.entries[1].id))[1] == stored.entries[2].id
        append(stored, 3, 1)
        await settle()
        stored.away = False
        await feed.grown(stored.entries[2].id)
        assert b'"id":"3"' in (await feed.after(stored.entries[2].id))[0]


async def test_what_was_deleted_costs_nothing() -> None:
    """A reader that begins before entries that were all deleted waits as any other."""
    stored = streams()
    append(stored, 0, 5)
    async with running(stored) as (feed, tasks):
        await settle()
        last, _ = order(stored.entries[-1].id)
        stored.entries.clear()
        reader = Reader(feed, "0")
        reads = stored.reads
        tasks.append(asyncio.create_task(reader.run()))
        await settle()
        assert stored.reads == reads + 1
        assert feed.waiting == 1
        stored.entries.append(Entry(f"{last + 1}-0", {"id": "5"}))
        append(stored, 6, 1)
        await settle()
        assert reader.got == [5, 6]


async def test_a_stream_that_begins_anew() -> None:
    """After one with an id of the far future, readers get what follows, and new ones, too."""
    stored = streams()
    stored.entries.append(Entry("9000000000000-0", {"id": "0"}))
    async with running(stored) as (feed, tasks):
        await settle()
        readers = [Reader(feed, await feed.newest())]
        tasks.append(asyncio.create_task(readers[0].run()))
        append(stored, 1, 1)
        await settle()
        stored.entries.clear()
        stored.append(stored.notices, [{}])  # wakes who waits for news
        await settle()
        for number in range(2, 5):
            append(stored, number, 1)
            await settle()
            readers.append(Reader(feed, await feed.newest()))
            tasks.append(asyncio.create_task(readers[-1].run()))
        await settle()
        assert [reader.got for reader in readers] == [[1, 2, 3, 4], [3, 4], [4], []]


async def test_what_readers_name_is_not_kept() -> None:
    """Whatever positions they begin at, what is kept for them is bounded."""
    stored = streams()
    append(stored, 0, 5)
    async with running(stored) as (feed, _):
        await settle()
        last, _ = order(stored.entries[-1].id)
        stored.entries.append(Entry(f"{last + 1}-0", {"id": "5", "data": "x" * 100_000}))
        append(stored, 6, 1)
        await settle()
        tracemalloc.start()
        for number in range(200):
            await feed.after(f"{last}-{number}")
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size < 2_000_000  # and 20 MB for all of them
