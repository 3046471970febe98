"""`subscribe`: the events, one by one, over restarts of the server and of the subscriber."""

import asyncio
import logging
import os
import re
import secrets
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final, Protocol, TypeVar

from poller.errors import LockedOut, StoreDown, StoreError, StoreMisfit
from poller.events import Foreign, StreamEvent, decode
from poller.store.ports import Streams
from poller.store.position import Start
from poller.store.redisstore import RedisStore
from poller.store.store import Entry
from poller.subscriber.redisgroup import TTL, RedisGroup

_BATCH: Final = 50
_BLOCK: Final = 5.0
_PAUSE: Final = 1.0
_TELL_EVERY: Final = 3600.0
"""Seconds between two lines about entries that are no events."""

_RESERVED: Final = "webhook:"
_log = logging.getLogger("poller.subscribe")
_Answer = TypeVar("_Answer")


@asynccontextmanager
async def subscribe(
    url: str, *, namespace: str = "short-interest", group: str | None = None, after: str = "$"
) -> AsyncIterator[AsyncIterator[StreamEvent]]:
    """Follow the stream. Write `async with` this `as events`, then `async for event in events`.

    With a `group`, Redis remembers where it is, also when the group or the stream is deleted. An
    event counts as worked on when the next is asked for, or when the block is left without an
    exception; else it comes again: each at least once, in order. Of the subscribers of a group one
    is active, the others take over within ten seconds.
    Without a group every subscriber gets everything, and remembers `event.position` itself.

    `after`: where to begin, a position, "0" (all there is) or "$" (what is yet to come); a group
    that exists goes on where it was. A server that is away is waited for. Raises ValueError for
    arguments that cannot be, StoreMisfit when Redis refuses the user or holds something else there.
    """
    if re.fullmatch(r"\$|[0-9]+(-[0-9]+)?", after) is None:
        raise ValueError(f'after={after!r}: give a position, like "1715152502123-0", "0" or "$"')
    if group is not None and (not group or group.startswith(_RESERVED)):
        raise ValueError(f"group={group!r}: choose another name")
    async with AsyncExitStack() as stack:
        store = RedisStore(url, namespace)
        stack.push_async_callback(store.close)
        streams = store.streams
        source: _Source
        if group is None:
            source = _Alone(streams, await _patiently(lambda: _position(streams, after)))
        else:
            reader = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
            member = RedisGroup(url, namespace, group, reader)
            stack.push_async_callback(member.close)
            source = await stack.enter_async_context(_active(member, streams, after))
        events = _Events(source)
        yield events
        with suppress(TimeoutError):  # with the server away it comes again
            async with asyncio.timeout(_BLOCK):
                await events.done()


class _Source(Protocol):
    async def next(self) -> Entry:
        """Wait for the next entry."""

    async def done(self, entry: Entry) -> None:
        """Learn that it was worked on."""


class _Events(AsyncIterator[StreamEvent]):
    """Asks for an event when the one before is done."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._current: Entry | None = None
        self._foreign = 0
        self._told = -_TELL_EVERY

    async def __anext__(self) -> StreamEvent:
        while True:
            await self.done()
            self._current = await self._source.next()
            event = decode(self._current.id, self._current.fields)
            if isinstance(event, StreamEvent):
                return event
            self._tell(event.reason if isinstance(event, Foreign) else "a notice of a release")

    def _tell(self, reason: str) -> None:
        self._foreign += 1
        now = asyncio.get_running_loop().time()
        if self._current is not None and now >= self._told + _TELL_EVERY:
            told = "passed over %s, which is no event: %s (%d since the last such line)"
            _log.warning(told, self._current.id, reason, self._foreign)
            self._foreign, self._told = 0, now

    async def done(self) -> None:
        """Count the event given last as worked on."""
        if self._current is not None:
            await self._source.done(self._current)
            self._current = None


class _Alone:
    """Reads for itself."""

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
        """Nobody needs to know."""


class _Member:
    """Reads for a group."""

    def __init__(self, group: RedisGroup, streams: Streams, after: str) -> None:
        self._group = group
        self._streams = streams
        self._after = after
        self._waiting: deque[Entry] = deque()

    async def next(self) -> Entry:
        while not self._waiting:
            batch = await _patiently(lambda: self._group.receive(self._after, _BATCH))
            if batch is not None and batch.resumed is not None:
                self._tell(batch.resumed)
            if batch is None:
                await asyncio.sleep(_PAUSE)
            elif batch.entries:
                self._waiting += batch.entries
            else:
                await self._something_after(batch.last)
        return self._waiting.popleft()

    def _tell(self, start: Start) -> None:
        gap = ""
        if start.missed is not None:
            gap = f"; entries before {start.missed} that it had not read, if any, are gone"
        _log.warning(
            "the group was gone from the stream: it goes on after %s%s", start.position, gap
        )

    async def _something_after(self, last: str) -> None:
        # read, not received: only who may work on an entry is given it
        await _patiently(lambda: self._streams.read(last, count=1, block=_BLOCK))

    async def done(self, entry: Entry) -> None:
        self._after = entry.id
        if not await _patiently(lambda: self._group.acknowledge(entry.id)):
            self._waiting.clear()  # another reader has them by now


@asynccontextmanager
async def _active(group: RedisGroup, streams: Streams, after: str) -> AsyncIterator[_Member]:
    """Remain the active reader while an event is worked on, however long that takes."""
    renewing = asyncio.create_task(_keep_renewing(group), name="remain the active reader")
    try:
        yield _Member(group, streams, after)
    finally:
        renewing.cancel()
        await asyncio.wait([renewing])  # its cancellation is not this one's
        with suppress(StoreError):  # the right to read runs out by itself
            await group.leave()


async def _keep_renewing(group: RedisGroup) -> None:
    while True:
        await asyncio.sleep(TTL / 3)
        with suppress(StoreError):  # a server that refuses is raised where events are asked for
            await group.renew()


async def _position(streams: Streams, after: str) -> str:
    if after != "$":
        return after
    last = await streams.last_entries(1)
    return last[0].id if last else "0-0"


async def _patiently(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Ask until there is an answer; say once that there is none, and once that there is again."""
    said = ""
    while True:
        try:
            answer = await ask()
        except LockedOut as problem:  # to a subscriber the same: nothing it can wait for
            raise StoreMisfit(str(problem)) from problem
        except StoreDown as problem:
            if said != str(problem):
                said = str(problem)
                _log.warning("Redis: %s", said)
            await asyncio.sleep(_PAUSE)
        else:
            if said:
                _log.warning("Redis answers again")
            return answer
