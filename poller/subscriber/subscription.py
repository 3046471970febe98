"""`subscribe`: the events one by one, across restarts of the server and of the subscriber."""

import asyncio
import logging
import os
import secrets
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final, Protocol, TypeVar

from poller.errors import LockedOut, StoreDown, StoreError, StoreMisfit
from poller.events import Foreign, StreamEvent, decode
from poller.store.connections import named
from poller.store.ports import Streams
from poller.store.position import START, Start, is_stream_id
from poller.store.redisstore import RedisStore
from poller.store.store import Entry
from poller.subscriber.redisgroup import TTL, RedisGroup

_BATCH: Final = 50
_SHARE: Final = 10  # entries of a batch of one of several readers: other readers get the others
_BLOCK: Final = 5.0
_SOON: Final = 0.2
_PAUSE: Final = 1.0
_LOG_EVERY: Final = 3600.0
"""Seconds between two log lines about entries that are no events."""

_RESERVED: Final = "webhook:"
_log = logging.getLogger("poller.subscribe")
_Answer = TypeVar("_Answer")


@asynccontextmanager
async def subscribe(
    url: str,
    *,
    namespace: str = "short-interest",
    group: str | None = None,
    share: bool = False,
    after: str = "$",
) -> AsyncIterator[AsyncIterator[StreamEvent]]:
    """Follow the stream. Use `async with` on this `as events`, then `async for event in events`.

    With a `group`, Redis stores the position, even if the group or the stream is deleted. An event
    counts as processed when the next one is requested, or when the block is left without an
    exception; otherwise it is delivered again: each at least once, in order. One subscriber of a
    group is active; if it stops, another takes over within ten seconds. With `share`, all that say
    so are active: each event goes to one of them, and each symbol stays in order, as long as one
    has events of it that do not count as processed; what a crashed one had goes to another within
    fifteen seconds.
    Without a group every subscriber gets every event, and stores `event.position` itself.

    `after`: where to begin: a position, "0" (the oldest entry) or "$" (new entries only); an
    existing group goes on where it was. While the server does not answer, this waits. Raises
    ValueError for invalid arguments, and StoreMisfit if Redis rejects the user or a key holds
    another type.
    """
    if after != "$" and not is_stream_id(after):
        raise ValueError(f'after={after!r}: give a position, like "1715152502123-0", "0" or "$"')
    if group is not None and (not group or group.startswith(_RESERVED)):
        raise ValueError(f"group={group!r}: choose another name")
    if share and group is None:
        raise ValueError("share=True: give the group, too")
    url = named(url, "subscriber")
    async with AsyncExitStack() as stack:
        store = RedisStore(url, namespace)
        stack.push_async_callback(store.close)
        streams = store.streams
        source: _Source
        if group is None:
            source = _Ungrouped(streams, await _patiently(lambda: _position(streams, after)))
        else:
            reader = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
            member = RedisGroup(url, namespace, group, reader, share=share)
            stack.push_async_callback(member.close)
            batch = _SHARE if share else _BATCH
            source = await stack.enter_async_context(_active(member, streams, after, batch))
        events = _Events(source)
        yield events
        with suppress(TimeoutError):  # if the server does not answer, the event is delivered again
            async with asyncio.timeout(_BLOCK):
                await events.done()


class _Source(Protocol):
    async def next(self) -> Entry:
        """Wait for the next entry."""

    async def done(self, entry: Entry) -> None:
        """Record that an entry was processed."""


class _Events(AsyncIterator[StreamEvent]):
    """Yields events, and reports each as done when the next one is requested."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._current: Entry | None = None
        self._foreign = 0
        self._logged_at = -_LOG_EVERY

    async def __anext__(self) -> StreamEvent:
        while True:
            await self.done()
            self._current = await self._source.next()
            event = decode(self._current.id, self._current.fields)
            if isinstance(event, StreamEvent):
                return event
            self._log(event.reason if isinstance(event, Foreign) else "a notice of a release")

    def _log(self, reason: str) -> None:
        self._foreign += 1
        now = asyncio.get_running_loop().time()
        if self._current is not None and now >= self._logged_at + _LOG_EVERY:
            line = "passed over %s, which is not an event: %s (%d since the last such line)"
            _log.warning(line, self._current.id, reason, self._foreign)
            self._foreign, self._logged_at = 0, now

    async def done(self) -> None:
        """Report the last event as processed."""
        if self._current is not None:
            await self._source.done(self._current)
            self._current = None


class _Ungrouped:
    """Reads without a group."""

    def __init__(self, streams: Streams, after: str) -> None:
        self._streams = streams
        self._after = after
        self._waiting: deque[Entry] = deque()

    async def next(self) -> Entry:
        while not self._waiting:
            self._waiting += await _patiently(
                lambda: self._streams.read(self._after, count=_BATCH, block=_BLOCK)
            )
        self._after = self._waiting[0].id
        return self._waiting.popleft()

    async def done(self, entry: Entry) -> None:
        """Do nothing: the caller stores its position."""


class _Member:
    """Reads as a member of a group."""

    def __init__(self, group: RedisGroup, streams: Streams, after: str, batch: int) -> None:
        self._group = group
        self._streams = streams
        self._after = after
        self._batch = batch
        self._waiting: deque[Entry] = deque()

    async def next(self) -> Entry:
        while not self._waiting:
            batch = await _patiently(lambda: self._group.receive(self._after, self._batch))
            if batch is not None and batch.resumed is not None:
                self._log(batch.resumed)
            if batch is None:
                await asyncio.sleep(_PAUSE)
            elif batch.entries:
                self._waiting += batch.entries
            elif batch.waiting:  # for who has other entries of these symbols
                await asyncio.sleep(_SOON)
            else:
                await self._wait_for_entry(batch.last)
        return self._waiting.popleft()

    def _log(self, start: Start) -> None:
        gap = ""
        if start.missed is not None:
            gap = f"; entries before {start.missed} that it had not read, if any, are gone"
        _log.warning(
            "the group was gone from the stream: it goes on after %s%s", start.position, gap
        )

    async def _wait_for_entry(self, last: str) -> None:
        # a plain read: only `receive` checks that this is still the active reader
        await _patiently(lambda: self._streams.read(last, count=1, block=_BLOCK))

    async def done(self, entry: Entry) -> None:
        self._after = entry.id
        if not await _patiently(lambda: self._group.acknowledge(entry.id)):
            self._waiting.clear()  # another reader may have them by now


@asynccontextmanager
async def _active(
    group: RedisGroup, streams: Streams, after: str, batch: int
) -> AsyncIterator[_Member]:
    """Stay an active reader while an event is processed, however long that takes."""
    renewing = asyncio.create_task(_keep_renewing(group), name="remain the active reader")
    try:
        yield _Member(group, streams, after, batch)
    finally:
        renewing.cancel()
        await asyncio.wait([renewing])  # awaiting it would raise its cancellation here
        with suppress(StoreError):  # the lock expires by itself
            await group.leave()


async def _keep_renewing(group: RedisGroup) -> None:
    while True:
        await asyncio.sleep(TTL / 3)
        with suppress(StoreError):  # `receive` and `acknowledge` raise what lasts
            await group.renew()


async def _position(streams: Streams, after: str) -> str:
    if after != "$":
        return after
    last = await streams.last_entries(1)
    return last[0].id if last else START


async def _patiently(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Ask until Redis answers; log each new reason why it does not, and once that it does again."""
    logged = ""
    while True:
        try:
            answer = await ask()
        except LockedOut as problem:  # subscribers expect one error for whatever waiting cannot fix
            raise StoreMisfit(str(problem)) from problem
        except StoreDown as problem:
            if logged != str(problem):
                logged = str(problem)
                _log.warning("Redis: %s", logged)
            await asyncio.sleep(_PAUSE)
        else:
            if logged:
                _log.warning("Redis answers again")
            return answer
