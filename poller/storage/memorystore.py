"""The store in memory: the same promises without a server, for simulation and pure tests.

It counts as a stand-in only because it passes the same suite as the real servers.
"""

import asyncio
import contextlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache

from poller.detect.compare import Comparison
from poller.errors import LeaseLost, Superseded
from poller.events import encode
from poller.model import Code, Vintage
from poller.plan.notice import Notice
from poller.storage.ports import (
    Leases,
    Ledger,
    LiveWatchlist,
    Plans,
    PollerRecords,
    Signals,
    Spent,
    Streams,
    Vintages,
)
from poller.storage.snapshots import (
    held_writes_of,
    quarantine_entries,
    read_snapshot,
    read_vintage,
    read_vintages,
    writes_of,
)
from poller.storage.store import (
    SIGNALS_KEPT,
    WATCHLIST,
    Entry,
    Keys,
    Lease,
    LiveList,
    News,
    Snapshot,
    Stream,
    Write,
    order,
)

_KEYS = Keys("short-interest")


class MemoryStore:
    """The ports of a namespace in this process, as `RedisStore` has them."""

    def __init__(self, clock: Callable[[], float], *, leases: "MemoryLeases | None" = None) -> None:
        """`clock`: seconds, the server's clock. `leases`: instead of the usual ones."""
        self.keys = _KEYS
        self.leases = leases or MemoryLeases(clock)
        self.ledger = MemoryLedger(clock)
        self.streams = MemoryStreams(clock)
        self.watchlist = MemoryWatchlist(self.streams)
        self.records = MemoryRecords(self.streams, self.leases)
        self.plans = MemoryPlans(self.streams, self.leases)


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
            raise LeaseLost(_KEYS.lease)

    def _held(self) -> Lease | None:
        return self.holder if self.clock() < self.holder_until else None


@dataclass
class MemoryLedger(Ledger, Spent):
    """What each account has spent. `clock`: seconds."""

    clock: Callable[[], float]
    budgets: dict[str, dict[str, float]] = field(default_factory=dict)

    async def grant(
        self, account: str, request: str, *, limit: int, period: float, margin: float
    ) -> float:
        now = self.clock()
        log = self.budgets.setdefault(account, {})
        for name in [name for name, at in log.items() if at <= now - period]:
            del log[name]
        for name, at in log.items():
            log[name] = min(at, now + margin)
        if request in log:
            return 0
        if len(log) < limit:
            log[request] = now + margin
            return 0
        return max(1e-6, min(sorted(log.values())[len(log) - limit], now) + period - now)

    async def settle(self, account: str, request: str, *, period: float, margin: float) -> None:
        del period
        self.budgets.setdefault(account, {})[request] = self.clock() + margin

    async def exhaust(self, account: str, *, limit: int, period: float) -> None:
        for n in range(limit):
            await self.settle(account, f"held-{n}", period=period, margin=0)

    async def spent(self, account: str, *, period: float) -> int:
        since = self.clock() - period
        return sum(at > since for at in self.budgets.get(account, {}).values())


@dataclass
class MemoryStreams(Streams, Signals):
    """The streams and the signals. `clock`: seconds."""

    clock: Callable[[], float]
    entries: list[Entry] = field(default_factory=list)
    notices: list[Entry] = field(default_factory=list)
    signals: list[Entry] = field(default_factory=list)
    _appended: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def read(
        self, after: str, *, count: int, block: float | None, stream: Stream = Stream.EVENTS
    ) -> list[Entry]:
        entries = self._entries_of(stream)
        position = len(entries) if after == "$" else _behind(entries, after)
        if len(entries) <= position and block:
            try:
                async with asyncio.timeout(block), self._appended:
                    await self._appended.wait_for(lambda: len(entries) > position)
            except TimeoutError:
                return []
        return entries[position : position + count]

    async def last_entries(self, count: int, stream: Stream = Stream.EVENTS) -> list[Entry]:
        return self._entries_of(stream)[-count:]

    async def signal(self, subject: str) -> None:
        self.append(self.signals, [{"subject": subject}])
        del self.signals[: -2 * SIGNALS_KEPT]
        await self.notify()

    async def news(self, position: Mapping[str, str] | None, *, block: float) -> News:
        if position is None:
            return News(self._position(), None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(block), self._appended:
                await self._appended.wait_for(lambda: self._position() != position)
        newest = self._position()
        signals = self.signals[_behind(self.signals, position[_KEYS.signals]) :]
        if len(signals) >= SIGNALS_KEPT:
            return News(newest, None)
        grown = {s for s in Stream if newest[k := _KEYS.stream_of(s)] != position[k]}
        return News(newest, frozenset(grown | {each.fields["subject"] for each in signals}))

    def _position(self) -> dict[str, str]:
        streams = {
            _KEYS.stream: self.entries,
            _KEYS.releases: self.notices,
            _KEYS.signals: self.signals,
        }
        return {key: entries[-1].id if entries else "0-0" for key, entries in streams.items()}

    def _entries_of(self, stream: Stream) -> list[Entry]:
        return self.entries if stream is Stream.EVENTS else self.notices

    def append(self, stream: list[Entry], entries: Sequence[Mapping[str, str]]) -> None:
        """Append under ids of this moment, or right behind the last one."""
        for fields in entries:
            milliseconds, number = order(stream[-1].id) if stream else (0, 0)
            id_ = max((milliseconds, number + 1), (int(self.clock() * 1000), 0))
            stream.append(Entry(f"{id_[0]}-{id_[1]}", fields))

    async def notify(self) -> None:
        """Wake whoever waits for what was appended."""
        async with self._appended:
            self._appended.notify_all()


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
class MemoryPlans(Plans):
    """What the plans remember, and the notices they give."""

    streams: MemoryStreams
    leases: MemoryLeases
    texts: dict[str, str] = field(default_factory=dict)
    keys: Keys = _KEYS

    async def announce(self, notice: Notice, lease: Lease) -> bool:
        self.leases.refuse(lease)
        fields = encode(notice)
        if any(entry.fields["id"] == fields["id"] for entry in self.streams.notices):
            return False
        self.streams.append(self.streams.notices, [fields])
        await self.streams.notify()
        return True

    async def schedule(self) -> dict[str, str]:
        return dict(self.texts)

    async def save_schedule(self, texts: Mapping[str, str], lease: Lease) -> None:
        self.leases.refuse(lease)
        self.texts |= texts


@dataclass
class MemoryRecords(PollerRecords, Vintages):
    """What is known of each symbol."""

    streams: MemoryStreams
    leases: MemoryLeases
    keys: Keys = _KEYS
    watermark_texts: dict[str, str] = field(default_factory=dict)
    history_texts: dict[str, dict[str, str]] = field(default_factory=dict)
    vintage_texts: dict[str, dict[str, str]] = field(default_factory=dict)
    held_texts: dict[str, dict[str, str]] = field(default_factory=dict)
    quarantined: list[Entry] = field(default_factory=list)
    _snapshots: dict[Code, Snapshot] = field(default_factory=dict)
    _read: Callable[[Code, str, str, str], Vintage] = field(
        default_factory=lambda: cache(read_vintage)
    )

    async def snapshot(self, code: Code) -> Snapshot:
        if (kept := self._snapshots.get(code)) is not None:
            return kept
        watermark = self.watermark_texts.get(code, "")
        history = self.history_texts.get(code, {})
        vintages, held = self.vintage_texts.get(code, {}), self.held_texts.get(code, {})
        found = read_snapshot(
            code, watermark, history, vintages, held, keys=self.keys, read=self._read
        )
        self._snapshots[code] = found
        return found

    async def commit(
        self, code: Code, comparison: Comparison, snapshot: Snapshot, lease: Lease
    ) -> None:
        writes = writes_of(comparison, snapshot)
        held_writes = held_writes_of(comparison, snapshot)
        watermark = str(comparison.watermark or "")
        if not writes and not held_writes and watermark == snapshot.watermark:
            return
        self._refuse(code, writes, held_writes, snapshot, lease)
        self._snapshots.pop(code, None)
        self.streams.append(self.streams.entries, [encode(event) for event in comparison.events])
        self.streams.append(self.quarantined, quarantine_entries(code, comparison))
        held = self.held_texts.setdefault(code, {})
        held.update({each.day: each.text for each in held_writes})
        self.held_texts[code] = {day: text for day, text in held.items() if text}
        history = self.history_texts.setdefault(code, {})
        vintages = self.vintage_texts.setdefault(code, {})
        for write in writes:
            history[write.day] = write.text
            if write.revision is not None:
                vintages[f"{write.day}:{write.revision}"] = write.text
        if watermark:
            self.watermark_texts[code] = watermark
        await self.streams.notify()

    def _refuse(
        self,
        code: Code,
        writes: Sequence[Write],
        held_writes: Sequence[Write],
        snapshot: Snapshot,
        lease: Lease,
    ) -> None:
        """Raise unless everything is as it was read; nothing was written until then."""
        self.leases.refuse(lease)
        if self.watermark_texts.get(code, "") != snapshot.watermark:
            raise Superseded(f"{code}: watermark is not what was read")
        history, vintages = self.history_texts.get(code, {}), self.vintage_texts.get(code, {})
        for write in writes:
            used = write.revision is not None and f"{write.day}:{write.revision}" in vintages
            if history.get(write.day, "") != write.expected or used:
                raise Superseded(f"{code}: {write.day} is not what was read")
        held = self.held_texts.get(code, {})
        if changed := [each.day for each in held_writes if held.get(each.day, "") != each.expected]:
            raise Superseded(f"{code}: {changed[0]} is not what was read")

    async def watermarks(self) -> dict[Code, date]:
        return {Code(c): date.fromisoformat(text) for c, text in self.watermark_texts.items()}

    async def vintages(self, code: Code) -> list[Vintage]:
        return read_vintages(code, self.vintage_texts.get(code, {}), keys=self.keys)

    async def history_codes(self) -> list[Code]:
        return sorted(map(Code, self.vintage_texts))

    async def held_codes(self) -> list[Code]:
        return sorted(Code(code) for code, texts in self.held_texts.items() if texts)


def _behind(entries: Sequence[Entry], after: str) -> int:
    return bisect_right(entries, order(after), key=lambda entry: order(entry.id))
