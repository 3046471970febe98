"""Reads the stream once for all readers of `/events`, and encodes each entry once.

A reader has a position. What follows it is usually among the newest entries, which are kept here;
only a reader that is further behind reads the stream itself.
"""

import asyncio
from collections import deque
from itertools import islice
from typing import Final

from poller.clock import wait_set
from poller.errors import StoreError, StoreMisfit
from poller.store.notifier import EventOf
from poller.store.ports import Streams
from poller.store.position import START
from poller.store.store import Entry, Stream, order
from poller.telemetry.observe import Observe, Recovered, Trouble
from poller.web.safe_json import entry_text

BATCH: Final = 100
"""Entries of one read, and of one answer."""

_KEPT: Final = 1_000  # entries: some 1 MB, and more than one report of a watchlist
_LARGEST: Final = 1 << 22  # bytes kept, as another client may write entries of any size
_JOINED: Final = 16  # positions; readers name any, and most that wait have the same
_TOGETHER: Final = 50  # readers woken at once: some 2 ms of writing, then other tasks run
_PAUSE: Final = 1.0
_RECHECK: Final = 30.0  # seconds between two reads without a signal
_SUBJECT: Final = "events of the page"


class Feed:
    """The newest entries, ready to send, kept up to date while `run` runs."""

    def __init__(self, streams: Streams, news: EventOf) -> None:
        """`news`: a notifier's."""
        self._streams = streams
        self._news = news
        self._kept: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._before = ""  # the position just before the oldest entry kept; "": not begun
        self._joined: dict[str, tuple[bytes, str]] = {}  # what follows a position, until it grows
        self._low: str | None = None  # the newest id of a stream that ends before our last one
        self._former = START  # the last id of the stream before this one
        self._waiting: dict[asyncio.Future[None], None] = {}

    async def run(self, observe: Observe) -> None:
        """Follow the stream for ever; while Redis is away, nothing new is known."""
        while True:
            news = self._news(Stream.EVENTS)
            try:
                grown = await self._step()
            except StoreError as problem:
                if isinstance(problem, StoreMisfit):  # that Redis is away is told by others
                    observe(Trouble(_SUBJECT, str(problem)))
                await asyncio.sleep(_PAUSE)
                continue
            observe(Recovered(_SUBJECT))
            if not grown:
                await wait_set(news, _RECHECK)

    async def newest(self) -> str:
        """Return the position after the newest entry; raises StoreError."""
        return self._last if self._before else await self._newest_stored()

    async def after(self, position: str) -> tuple[bytes, str]:
        """Return what follows a position, empty if nothing does, and the position after it.

        At most `BATCH` entries. Raises StoreError.
        """
        before = self._before
        if not before or order(position) < order(before):
            entries = await self._streams.read(position, count=BATCH, block=None)
            if entries:
                return b"".join(map(_encoded, entries)), entries[-1].id
            return b"", before or position  # all up to there was deleted
        if order(self._last) < order(position) <= order(self._former):
            position = before
        if (found := self._joined.get(position)) is None:
            found = self._join(position)
            if len(self._joined) < _JOINED:
                self._joined[position] = found
        return found

    async def grown(self, position: str) -> None:
        """Wait until something may follow a position, the last one that `after` returned."""
        if self._before and order(self._last) > order(position):
            return
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = None
        try:
            await waiting
        finally:  # a reader that leaves, or only says that it is still here, waits no longer
            self._waiting.pop(waiting, None)

    @property
    def waiting(self) -> int:
        """How many readers wait for what follows."""
        return len(self._waiting)

    @property
    def _last(self) -> str:
        return self._kept[-1][0] if self._kept else self._before

    def _join(self, position: str) -> tuple[bytes, str]:
        wanted = order(position)
        newer = len(self._kept)
        while newer and order(self._kept[newer - 1][0]) > wanted:
            newer -= 1
        some = list(islice(self._kept, newer, newer + BATCH))
        return b"".join(text for _, text in some), some[-1][0] if some else position

    async def _step(self) -> bool:
        """Read what is new; returns whether anything was."""
        if not self._before:
            self._before = await self.newest()
        entries = await self._streams.read(self._last, count=BATCH, block=None)
        if not entries:
            return await self._begun_anew()
        for entry in entries:
            self._keep(entry)
        self._low = None
        self._joined.clear()
        await self._wake()
        return True

    async def _begun_anew(self) -> bool:
        """Go on with a stream that was deleted and has lower ids now; returns whether it was.

        Then its newest id rises while below ours; if entries were deleted, it does not.
        """
        newest, last = await self._newest_stored(), self._last
        low, self._low = self._low, newest if order(newest) < order(last) else None
        if low is None or self._low is None or order(newest) <= order(low):
            return False
        self._former, self._before = last, low
        self._bytes = 0
        self._kept.clear()
        self._joined.clear()
        return True

    async def _newest_stored(self) -> str:
        entries = await self._streams.last_entries(1)
        return entries[0].id if entries else START

    def _keep(self, entry: Entry) -> None:
        text = _encoded(entry)
        self._kept.append((entry.id, text))
        self._bytes += len(text)
        while len(self._kept) > _KEPT or (self._bytes > _LARGEST and len(self._kept) > 1):
            self._before, oldest = self._kept.popleft()
            self._bytes -= len(oldest)

    async def _wake(self) -> None:
        """Wake all readers that wait now, a few at a time: they all write at once."""
        waiting = iter(list(self._waiting))
        while some := tuple(islice(waiting, _TOGETHER)):
            for reader in some:
                if not reader.done():
                    reader.set_result(None)
            await asyncio.sleep(0)


def _encoded(entry: Entry) -> bytes:
    """Return one event; its data is JSON on one line, so nothing in it can end the event."""
    return f"id: {entry.id}\ndata: {entry_text(entry)}\n\n".encode()
