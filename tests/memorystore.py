"""The whole store in memory, for tests without a server.

It counts as a stand-in only because it passes the same suite as the real servers.
"""

import asyncio
import contextlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from poller.errors import LeaseLost
from poller.model import Code, Instrument, Vintage
from poller.store import memory
from poller.store.memory import KEYS, MemoryPlans
from poller.store.ports import (
    Instruments,
    Leases,
    LiveWatchlist,
    Signals,
    Spent,
    Streams,
    Vintages,
)
from poller.store.snapshots import read_vintages
from poller.store.store import (
    NAMES,
    SIGNALS_KEPT,
    WATCHLIST,
    Entry,
    Lease,
    LiveList,
    News,
    Stream,
    order,
)


class MemoryStore:
    """The ports of a namespace in this process, as `RedisStore` has them."""

    def __init__(self, clock: Callable[[], float], *, leases: "MemoryLeases | None" = None) -> None:
        """`clock`: seconds, the server's clock. `leases`: instead of the usual ones."""
        self.keys = KEYS
        self.leases = leases or MemoryLeases(clock)
        self.ledger = MemoryLedger(clock)
        self.streams = MemoryStreams(clock)
        self.watchlist = MemoryWatchlist(self.streams)
        self.instruments = MemoryInstruments(self.streams)
        self.records = MemoryRecords(self.streams, self.leases.refuse)
        self.plans = MemoryPlans(self.streams, self.leases.refuse)


@dataclass
class MemoryLeases(Leases):
    """The lease of the active poller. `clock`: seconds."""

    clock: Callable[[], float]
    fence: int = 0
    holder: Lease | None = None
    holder_until: float = 0.0

    async def acquire(self, owner: str, ttl: float) -> Lease | None:
        if self._held() is not None:
            self.holder_until = min(self.holder_until, self.clock() + ttl)
            return None
        self.fence += 1
        self.holder, self.holder_until = Lease(f"{self.fence}:{owner}"), self.clock() + ttl
        return self.holder

    async def renew(self, lease: Lease, ttl: float) -> bool:
        if lease != self._held():
            return False
        self.holder_until = self.clock() + ttl
        return True

    async def release(self, lease: Lease) -> None:
        if lease == self._held():
            self.holder = None

    def refuse(self, lease: Lease) -> None:
        """Raise LeaseLost when `lease` is no longer held."""
        if lease.value and lease != self._held():
            raise LeaseLost(KEYS.lease)

    def _held(self) -> Lease | None:
        return self.holder if self.clock() < self.holder_until else None


@dataclass
class MemoryLedger(memory.MemoryLedger, Spent):
    """What each account has spent. `clock`: seconds."""

    async def spent(self, account: str, *, period: float) -> int:
        since = self.clock() - period
        return sum(at > since for at in self.budgets.get(account, {}).values())


@dataclass
class MemoryStreams(memory.MemoryStreams, Streams, Signals):
    """The streams and the signals. `clock`: seconds."""

    signals: list[Entry] = field(default_factory=list)
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    def append(self, stream: list[Entry], entries: Sequence[Mapping[str, str]]) -> None:
        """Append, and wake whoever waits."""
        super().append(stream, entries)
        self._grown.set()
        self._grown = asyncio.Event()

    async def _until(self, grown: Callable[[], bool], seconds: float) -> None:
        """Wait for that, or for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not grown():
                    await self._grown.wait()

    async def read(
        self, after: str, *, count: int, block: float | None, stream: Stream = Stream.EVENTS
    ) -> list[Entry]:
        entries = self._entries_of(stream)
        position = len(entries) if after == "$" else _behind(entries, after)
        if block:
            await self._until(lambda: len(entries) > position, block)
        return entries[position : position + count]

    async def last_entries(self, count: int, stream: Stream = Stream.EVENTS) -> list[Entry]:
        return self._entries_of(stream)[-count:]

    async def signal(self, subject: str) -> None:
        self.append(self.signals, [{"subject": subject}])
        del self.signals[: -2 * SIGNALS_KEPT]

    async def news(self, position: Mapping[str, str] | None, *, block: float) -> News:
        if position is None:
            return News(self._position(), None)
        await self._until(lambda: self._position() != position, block)
        newest = self._position()
        signals = self.signals[_behind(self.signals, position[KEYS.signals]) :]
        if len(signals) >= SIGNALS_KEPT:
            return News(newest, None)
        grown = {s for s in Stream if newest[k := KEYS.stream_of(s)] != position[k]}
        return News(newest, frozenset(grown | {each.fields["subject"] for each in signals}))

    def _position(self) -> dict[str, str]:
        streams = {
            KEYS.stream: self.entries,
            KEYS.releases: self.notices,
            KEYS.signals: self.signals,
        }
        return {key: entries[-1].id if entries else "0-0" for key, entries in streams.items()}

    def _entries_of(self, stream: Stream) -> list[Entry]:
        return self.entries if stream is Stream.EVENTS else self.notices


@dataclass
class MemoryWatchlist(LiveWatchlist):
    """The live watchlist."""

    streams: MemoryStreams
    marks: dict[Code, bool] = field(default_factory=dict)
    changes: int = 0

    async def watch(self, codes: Sequence[Code], *, wanted: bool) -> None:
        self.marks |= dict.fromkeys(codes, wanted)
        self.changes += 1
        await self.streams.signal(WATCHLIST)

    async def watched(self) -> LiveList:
        return LiveList(dict(self.marks))

    async def version(self) -> int:
        return self.changes


@dataclass
class MemoryInstruments(Instruments):
    """The names and numbers of shares."""

    streams: MemoryStreams
    texts: dict[Code, str] = field(default_factory=dict)

    async def instruments(self, codes: Sequence[Code]) -> dict[Code, Instrument]:
        return {
            code: Instrument.from_json(self.texts[code]) for code in codes if code in self.texts
        }

    async def save_instruments(self, found: Mapping[Code, Instrument]) -> None:
        self.texts |= {code: each.to_json() for code, each in found.items()}
        await self.streams.signal(NAMES)


@dataclass
class MemoryRecords(memory.MemoryRecords, Vintages):
    """What is known of each symbol."""

    async def vintages(self, code: Code) -> list[Vintage]:
        return read_vintages(code, self.vintage_texts.get(code, {}), keys=self.keys)

    async def history_codes(self) -> list[Code]:
        return sorted(map(Code, self.vintage_texts))

    async def held_codes(self) -> list[Code]:
        return sorted(Code(code) for code, texts in self.held_texts.items() if texts)


def _behind(entries: Sequence[Entry], after: str) -> int:
    return bisect_right(entries, order(after), key=lambda entry: order(entry.id))
