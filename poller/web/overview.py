"""Keeps the row of every watched symbol in memory, up to date by following the stream.

Reading thousands of histories for each page would be slow: they are read once, a few at a time, and
again only for symbols with a new event.
"""

import asyncio
import contextlib
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from poller.clock import wait_set
from poller.errors import BadCode, StoreDown, StoreMisfit
from poller.model import Code, parse_code
from poller.store.notifier import EventOf
from poller.store.ports import Instruments, Streams, Watermarks
from poller.store.position import START
from poller.store.store import NAMES, SYMBOLS, Entry, Stream
from poller.telemetry.observe import Observe, Recovered, Trouble
from poller.telemetry.status_store import StatusStore
from poller.web.watchlist_view import WatchlistRow, row_of

_TOGETHER: Final = 10  # histories read at a time: some 10 ms of parsing, then other tasks run
_BATCH: Final = 500
_PAUSE: Final = 1.0
_SETTLE: Final = 0.1  # seconds from the first event of a burst to reading all of it
_RECHECK: Final = 30.0  # seconds between two reads of the watched symbols without a signal


class Overview:
    """The rows of all watched symbols, kept up to date while `run` runs.

    Attributes:
        rows: By code, in the order of the watchlist.
        loaded: Whether all rows have been read once.
        grown: Set, and replaced by a new event, whenever the stream has grown.
    """

    def __init__(
        self,
        streams: Streams,
        watermarks: Watermarks,
        status_store: StatusStore,
        instruments: Instruments,
        codes: Sequence[Code],
        news: EventOf,
    ) -> None:
        """`codes`: assumed to be watched until a poller reports others; `news`: a notifier's."""
        self.rows: dict[Code, WatchlistRow] = {}
        self.loaded = False
        self.grown = asyncio.Event()
        self._streams = streams
        self._watermarks = watermarks
        self._status_store = status_store
        self._instruments = instruments
        self._codes = codes
        self._news = news
        self._symbols = news(SYMBOLS)
        self._renamed = news(NAMES)
        self._after = ""
        self._checked = float("-inf")

    async def run(self, observe: Observe) -> None:
        """Follow watchlist and stream for ever; while Redis is away, the rows stay as they are."""
        while True:
            try:
                await self._step()
            except (StoreDown, StoreMisfit) as problem:
                observe(Trouble("page", str(problem)))
                await asyncio.sleep(_PAUSE)
            else:
                observe(Recovered("page"))

    async def _step(self) -> None:
        news = self._news(Stream.EVENTS, SYMBOLS, NAMES)
        if not self._after:
            newest = await self._streams.last_entries(1)
            self._after = newest[0].id if newest else START
        if self._symbols.is_set() or time.monotonic() - self._checked >= _RECHECK:
            self._symbols = self._news(SYMBOLS)
            self._checked = float("-inf")  # if the next line fails, repeat it
            await self._adopt()
            self._checked = time.monotonic()
        if self._renamed.is_set():
            renamed = self._news(NAMES)
            # many signals follow one another; a name that changes is read with the next event
            await self._read_names([code for code, row in self.rows.items() if row.name is None])
            self._renamed = renamed
        entries = await self._streams.read(self._after, count=_BATCH, block=None)
        if entries:
            await self._read(_codes_of(entries) & self.rows.keys())
            self._after = entries[-1].id
            self._notify()
            return
        await wait_set(news, _RECHECK)
        await asyncio.sleep(_SETTLE)  # let publishing and delivery go first

    async def _adopt(self) -> None:
        """Adopt the symbols watched now, in their order."""
        watched = await self._status_store.symbols()
        if watched is None:
            watched = tuple(dict.fromkeys([*self._codes, *await self._watermarks.watermarks()]))
        if tuple(self.rows) == watched and self.loaded:
            await self._read_blank()
            return
        before = self.rows
        self.rows = {code: before.get(code, WatchlistRow(code)) for code in watched}
        new = [code for code in watched if code not in before or not self.loaded]
        await self._read(new)
        self.loaded = True

    async def _read_blank(self) -> None:
        """Read the empty rows of published symbols again: their history may have been restored."""
        if blank := {code for code, row in self.rows.items() if row.day is None}:
            await self._read(blank & (await self._watermarks.watermarks()).keys())

    async def _read(self, codes: Collection[Code]) -> None:
        wanted = list(codes)
        await self._read_names(wanted)
        for start in range(0, len(wanted), _TOGETHER):
            some = wanted[start : start + _TOGETHER]
            for code, history in zip(some, await self._status_store.histories(some), strict=True):
                self.rows[code] = row_of(code, history, self.rows[code].name)
            await asyncio.sleep(0)

    async def _read_names(self, codes: Sequence[Code]) -> None:
        """Read the names of watched symbols; if they cannot be read, the poller reports it."""
        with contextlib.suppress(StoreMisfit):
            for code, each in (await self._instruments.instruments(codes)).items():
                if each.name != self.rows[code].name:
                    self.rows[code] = replace(self.rows[code], name=each.name)

    def _notify(self) -> None:
        self.grown.set()
        self.grown = asyncio.Event()


def _codes_of(entries: Sequence[Entry]) -> set[Code]:
    """Return the symbols of these entries; entries of other clients are skipped."""
    found = set()
    for entry in entries:
        try:
            found.add(parse_code(entry.fields.get("code", "")))
        except BadCode:
            continue
    return found
