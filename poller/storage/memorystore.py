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
from poller.storage.live import LiveList
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
    HeldWrite,
    Keys,
    Lease,
    News,
    Snapshot,
    Stream,
    Write,
    order,
)


@dataclass
class MemoryStore:
    """A `poller.storage.store.Store` in this process. `clock`: seconds, the server's clock."""

    clock: Callable[[], float]
    keys: Keys = field(default_factory=lambda: Keys("short-interest"))
    entries: list[Entry] = field(default_factory=list)
    watermark_texts: dict[str, str] = field(default_factory=dict)
    history_texts: dict[str, dict[str, str]] = field(default_factory=dict)
    vintage_texts: dict[str, dict[str, str]] = field(default_factory=dict)
    held_texts: dict[str, dict[str, str]] = field(default_factory=dict)
    quarantined: list[Entry] = field(default_factory=list)
    notices: list[Entry] = field(default_factory=list)
    signals: list[Entry] = field(default_factory=list)
    budgets: dict[str, dict[str, float]] = field(default_factory=dict)
    live: dict[Code, bool] = field(default_factory=dict)
    live_version: int = 0
    plans: dict[str, str] = field(default_factory=dict)
    fence: int = 0
    holder: Lease | None = None
    holder_until: float = 0.0
    _appended: asyncio.Condition = field(default_factory=asyncio.Condition)
    _snapshots: dict[Code, Snapshot] = field(default_factory=dict)
    _read: Callable[[Code, str, str, str], Vintage] = field(
        default_factory=lambda: cache(read_vintage)
    )

    async def snapshot(self, code: Code) -> Snapshot:
        """See `Store.snapshot`."""
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
        """See `Store.commit`."""
        writes = writes_of(comparison, snapshot)
        held_writes = held_writes_of(comparison, snapshot)
        watermark = str(comparison.watermark or "")
        if not writes and not held_writes and watermark == snapshot.watermark:
            return
        self._refuse(code, writes, held_writes, snapshot, lease)
        self._snapshots.pop(code, None)
        self._append(self.entries, [encode(event) for event in comparison.events])
        self._append(self.quarantined, quarantine_entries(code, comparison))
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
        async with self._appended:
            self._appended.notify_all()

    def _refuse(
        self,
        code: Code,
        writes: Sequence[Write],
        held_writes: Sequence[HeldWrite],
        snapshot: Snapshot,
        lease: Lease,
    ) -> None:
        """Raise unless everything is as it was read; nothing was written until then."""
        self._refuse_lease(lease)
        if self.watermark_texts.get(code, "") != snapshot.watermark:
            raise Superseded(f"{code}: watermark is not what was read")
        history, vintages = self.history_texts.get(code, {}), self.vintage_texts.get(code, {})
        for write in writes:
            used = write.revision is not None and f"{write.day}:{write.revision}" in vintages
            if history.get(write.day, "") != write.expected or used:
                raise Superseded(f"{code}: {write.day} is not what was read")
        held = self.held_texts.get(code, {})
        for each in held_writes:
            if held.get(each.day, "") != each.expected:
                raise Superseded(f"{code}: {each.day} is not what was read")

    def _refuse_lease(self, lease: Lease) -> None:
        if lease.value and lease != self._held():
            raise LeaseLost(self.keys.lease)

    async def announce(self, notice: Notice, lease: Lease) -> bool:
        """See `Store.announce`."""
        self._refuse_lease(lease)
        fields = encode(notice)
        if any(entry.fields["id"] == fields["id"] for entry in self.notices):
            return False
        self._append(self.notices, [fields])
        async with self._appended:
            self._appended.notify_all()
        return True

    async def watermarks(self) -> dict[Code, date]:
        """See `Store.watermarks`."""
        return {Code(c): date.fromisoformat(text) for c, text in self.watermark_texts.items()}

    async def vintages(self, code: Code) -> list[Vintage]:
        """See `Store.vintages`."""
        return read_vintages(code, self.vintage_texts.get(code, {}), keys=self.keys)

    async def held_codes(self) -> list[Code]:
        """See `Store.held_codes`."""
        return sorted(Code(code) for code, texts in self.held_texts.items() if texts)

    async def grant(
        self, account: str, request: str, *, limit: int, period: float, margin: float
    ) -> float:
        """See `Store.grant`."""
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
        """See `Store.settle`."""
        del period
        self.budgets.setdefault(account, {})[request] = self.clock() + margin

    async def exhaust(self, account: str, *, limit: int, period: float) -> None:
        """See `Store.exhaust`."""
        for n in range(limit):
            await self.settle(account, f"held-{n}", period=period, margin=0)

    async def spent(self, account: str, *, period: float) -> int:
        """See `Store.spent`."""
        since = self.clock() - period
        return sum(at > since for at in self.budgets.get(account, {}).values())

    async def acquire_lease(self, owner: str, ttl: float) -> Lease | None:
        """See `Store.acquire_lease`."""
        if self._held() is not None:
            self.holder_until = min(self.holder_until, self.clock() + ttl)
            return None
        self.fence += 1
        self.holder, self.holder_until = Lease(f"{self.fence}:{owner}"), self.clock() + ttl
        return self.holder

    async def renew_lease(self, lease: Lease, ttl: float) -> bool:
        """See `Store.renew_lease`."""
        if lease != self._held():
            return False
        self.holder_until = self.clock() + ttl
        return True

    async def release_lease(self, lease: Lease) -> None:
        """See `Store.release_lease`."""
        if lease == self._held():
            self.holder = None

    def _held(self) -> Lease | None:
        return self.holder if self.clock() < self.holder_until else None

    async def watch(self, codes: Sequence[Code], *, wanted: bool) -> None:
        """See `Store.watch`."""
        self.live |= dict.fromkeys(codes, wanted)
        self.live_version += 1
        await self.signal(WATCHLIST)

    async def watched(self) -> LiveList:
        """See `Store.watched`."""
        return LiveList(dict(self.live))

    async def watch_version(self) -> int:
        """See `Store.watch_version`."""
        return self.live_version

    async def schedule(self) -> dict[str, str]:
        """See `Store.schedule`."""
        return dict(self.plans)

    async def save_schedule(self, texts: Mapping[str, str], lease: Lease) -> None:
        """See `Store.save_schedule`."""
        self._refuse_lease(lease)
        self.plans |= texts

    async def read(
        self, after: str, *, count: int, block: float | None, stream: Stream = Stream.EVENTS
    ) -> list[Entry]:
        """See `Store.read`."""
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
        """See `Store.last_entries`."""
        return self._entries_of(stream)[-count:]

    async def signal(self, subject: str) -> None:
        """See `Store.signal`."""
        self._append(self.signals, [{"subject": subject}])
        del self.signals[: -2 * SIGNALS_KEPT]
        async with self._appended:
            self._appended.notify_all()

    async def news(self, position: Mapping[str, str] | None, *, block: float) -> News:
        """See `Store.news`."""
        if position is None:
            return News(self._position(), None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(block), self._appended:
                await self._appended.wait_for(lambda: self._position() != position)
        newest = self._position()
        signals = self.signals[_behind(self.signals, position[self.keys.signals]) :]
        if len(signals) >= SIGNALS_KEPT:
            return News(newest, None)
        grown = {s for s in Stream if newest[k := self.keys.stream_of(s)] != position[k]}
        return News(newest, frozenset(grown | {each.fields["subject"] for each in signals}))

    def _position(self) -> dict[str, str]:
        streams = {
            self.keys.stream: self.entries,
            self.keys.releases: self.notices,
            self.keys.signals: self.signals,
        }
        return {key: entries[-1].id if entries else "0-0" for key, entries in streams.items()}

    def _entries_of(self, stream: Stream) -> list[Entry]:
        return self.entries if stream is Stream.EVENTS else self.notices

    def _append(self, stream: list[Entry], entries: Sequence[Mapping[str, str]]) -> None:
        """Append under ids of this moment, or right behind the last one."""
        for fields in entries:
            milliseconds, number = order(stream[-1].id) if stream else (0, 0)
            id_ = max((milliseconds, number + 1), (int(self.clock() * 1000), 0))
            stream.append(Entry(f"{id_[0]}-{id_[1]}", fields))


def _behind(entries: Sequence[Entry], after: str) -> int:
    return bisect_right(entries, order(after), key=lambda entry: order(entry.id))
