"""The rows of every watched symbol in memory, kept up by following the stream.

Reading thousands of histories for each page would be slow for the reader and heavy on Redis: they
are read once, a few at a time, and again only for symbols of which something was published.
"""

import asyncio
import time
from collections.abc import Collection, Sequence
from typing import Final

from poller.clock import wait_set
from poller.errors import BadCode, StoreDown, StoreMisfit
from poller.model import Code, parse_code
from poller.store.notifier import EventOf
from poller.store.ports import Streams, Watermarks
from poller.store.store import SYMBOLS, Entry, Stream
from poller.telemetry.observe import Observe, Recovered, Trouble
from poller.telemetry.status_store import StatusStore
from poller.web.watchlist_view import Row, row_of

_TOGETHER: Final = 20  # histories read in one go: some 10 ms of parsing, then others have a turn
_BATCH: Final = 500
_PAUSE: Final = 1.0
_SETTLE: Final = 0.1  # seconds from the first event of a burst to reading what came with it
_LOOK: Final = 30.0  # seconds between two looks at what is watched, when nothing is signalled


class Overview:
    """Keep it up with `run`. `bell` is replaced and set whenever the stream has grown."""

    def __init__(
        self,
        streams: Streams,
        watermarks: Watermarks,
        board: StatusStore,
        codes: Sequence[Code],
        news: EventOf,
    ) -> None:
        """`codes`: what is taken to be watched until a poller has told. `news`: a notifier's."""
        self.rows: dict[Code, Row] = {}
        self.loaded = False
        self.bell = asyncio.Event()
        self._streams = streams
        self._watermarks = watermarks
        self._board = board
        self._codes = codes
        self._news = news
        self._symbols = news(SYMBOLS)
        self._after = ""
        self._looked = float("-inf")

    async def run(self, observe: Observe) -> None:
        """Follow watchlist and stream for ever; while Redis is away the rows stay as they were."""
        while True:
            try:
                await self._step()
            except (StoreDown, StoreMisfit) as problem:
                observe(Trouble("page", str(problem)))
                await asyncio.sleep(_PAUSE)
            else:
                observe(Recovered("page"))

    async def _step(self) -> None:
        news = self._news(Stream.EVENTS, SYMBOLS)
        if not self._after:
            newest = await self._streams.last_entries(1)
            self._after = newest[0].id if newest else "0-0"
        if self._symbols.is_set() or time.monotonic() - self._looked >= _LOOK:
            self._symbols = self._news(SYMBOLS)
            self._looked = float("-inf")  # should it fail, it is done again
            await self._adopt()
            self._looked = time.monotonic()
        entries = await self._streams.read(self._after, count=_BATCH, block=None)
        if entries:
            await self._read(_codes_of(entries) & self.rows.keys())
            self._after = entries[-1].id
            self._ring()
            return
        await wait_set(news, _LOOK)
        await asyncio.sleep(_SETTLE)  # what publishes and delivers goes first

    async def _adopt(self) -> None:
        """Take up what is watched now, in its order."""
        try:
            told = await self._board.symbols()
        except RecursionError:  # another client's text, as deep as that
            told = None
        if told is None:
            told = tuple(dict.fromkeys([*self._codes, *await self._watermarks.watermarks()]))
        if tuple(self.rows) == told and self.loaded:
            await self._read_blank()
            return
        before = self.rows
        self.rows = {code: before.get(code, Row(code)) for code in told}
        await self._read([code for code in told if code not in before or not self.loaded])
        self.loaded = True

    async def _read_blank(self) -> None:
        """Read again what shows nothing although something was published: it may be restored."""
        if blank := {code for code, row in self.rows.items() if row.day is None}:
            await self._read(blank & (await self._watermarks.watermarks()).keys())

    async def _read(self, codes: Collection[Code]) -> None:
        wanted = list(codes)
        for start in range(0, len(wanted), _TOGETHER):
            some = wanted[start : start + _TOGETHER]
            for code, history in zip(some, await self._board.histories(some), strict=True):
                self.rows[code] = row_of(code, history)
            await asyncio.sleep(0)

    def _ring(self) -> None:
        self.bell.set()
        self.bell = asyncio.Event()


def _codes_of(entries: Sequence[Entry]) -> set[Code]:
    """Return the symbols these entries speak of; anybody may append others."""
    found = set()
    for entry in entries:
        try:
            found.add(parse_code(entry.fields.get("code", "")))
        except BadCode:
            continue
    return found
