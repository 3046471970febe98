"""The poller's store in memory, for `poller simulate` and for tests without a server.

A verified fake: it passes the same suite as the real servers.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from typing import Final

from poller.detect.compare import Comparison
from poller.errors import Superseded
from poller.events import encode
from poller.model import Code, Vintage
from poller.schedule.notice import Notice
from poller.store.ports import Ledger, Plans, PollerRecords
from poller.store.snapshots import (
    held_writes_of,
    quarantine_entries,
    read_snapshot,
    read_vintage,
    writes_of,
)
from poller.store.store import Entry, Keys, Lease, Snapshot, Unparsed, Write, order

KEYS: Final = Keys("short-interest")


def _refuse_nobody(lease: Lease) -> None:
    """Accept every lease as held."""


@dataclass
class MemoryLedger(Ledger):
    """The requests each account has spent. `clock`: seconds."""

    clock: Callable[[], float]
    budgets: dict[str, dict[str, float]] = field(default_factory=dict)

    async def grant(
        self,
        account: str,
        request: str,
        *,
        limit: int,
        period: float,
        margin: float,
        logins: Sequence[str] = (),
    ) -> float:
        now = self.clock()
        logs = self._logs(account, logins)
        for log in logs:
            for name in [name for name, at in log.items() if at <= now - period]:
                del log[name]
            for name, at in log.items():
                log[name] = min(at, now + margin)
        if request in logs[0]:
            return 0
        full = [log for log in logs if len(log) >= limit]
        if full:
            blocking = max(sorted(log.values())[len(log) - limit] for log in full)
            return max(1e-6, min(blocking, now) + period - now)
        for log in logs:
            log[request] = now + margin
        return 0

    def _logs(self, account: str, logins: Sequence[str]) -> list[dict[str, float]]:
        names = [account, *(f"login:{login}" for login in logins)]
        return [self.budgets.setdefault(name, {}) for name in names]

    async def settle(
        self,
        account: str,
        request: str,
        *,
        period: float,
        margin: float,
        logins: Sequence[str] = (),
    ) -> None:
        del period
        for log in self._logs(account, logins):
            log[request] = self.clock() + margin

    async def exhaust(
        self, account: str, *, limit: int, period: float, logins: Sequence[str] = ()
    ) -> None:
        for n in range(limit):
            await self.settle(account, f"held-{n}", period=period, margin=0, logins=logins)


@dataclass
class MemoryStreams:
    """The streams. `clock`: seconds."""

    clock: Callable[[], float]
    entries: list[Entry] = field(default_factory=list)
    notices: list[Entry] = field(default_factory=list)

    def append(self, stream: list[Entry], entries: Sequence[Mapping[str, str]]) -> None:
        """Append with ids of the current time, or directly after the last one."""
        for fields in entries:
            milliseconds, number = order(stream[-1].id) if stream else (0, 0)
            id_ = max((milliseconds, number + 1), (int(self.clock() * 1000), 0))
            stream.append(Entry(f"{id_[0]}-{id_[1]}", fields))


@dataclass
class MemoryPlans(Plans):
    """The plans of the markets, and the notices they announce."""

    streams: MemoryStreams
    refuse: Callable[[Lease], None] = _refuse_nobody
    texts: dict[str, str] = field(default_factory=dict)
    keys: Keys = KEYS

    async def announce(self, notice: Notice, lease: Lease) -> Notice | None:
        self.refuse(lease)
        fields = encode(notice)
        if any(entry.fields["id"] == fields["id"] for entry in self.streams.notices):
            return None
        self.streams.append(self.streams.notices, [fields])
        return notice

    async def schedule(self) -> dict[str, str]:
        return dict(self.texts)

    async def save_schedule(self, texts: Mapping[str, str], lease: Lease) -> None:
        self.refuse(lease)
        self.texts |= texts


@dataclass
class MemoryRecords(PollerRecords):
    """What is known of each symbol."""

    streams: MemoryStreams
    refuse: Callable[[Lease], None] = _refuse_nobody
    keys: Keys = KEYS
    watermark_texts: dict[str, str] = field(default_factory=dict)
    history_texts: dict[str, dict[str, str]] = field(default_factory=dict)
    vintage_texts: dict[str, dict[str, str]] = field(default_factory=dict)
    held_texts: dict[str, dict[str, str]] = field(default_factory=dict)
    quarantined: list[Entry] = field(default_factory=list)
    _snapshots: dict[Code, Snapshot] = field(default_factory=dict)
    _versions: Counter[Code] = field(default_factory=Counter)
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

    def touched(self, code: Code) -> None:
        """Take note that the texts of a symbol have changed."""
        self._snapshots.pop(code, None)
        self._versions[code] += 1

    async def unparsed(self, code: Code) -> Unparsed:
        found = await self.snapshot(code)
        return Unparsed(b"%d" % self._versions[code], lambda: found)

    async def commit(
        self, code: Code, comparison: Comparison, snapshot: Snapshot, lease: Lease
    ) -> None:
        writes = writes_of(comparison, snapshot)
        held_writes = held_writes_of(comparison, snapshot)
        watermark = str(comparison.watermark or "")
        if not writes and not held_writes and watermark == snapshot.watermark:
            return
        self._refuse(code, writes, held_writes, snapshot, lease)
        self.touched(code)
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

    def _refuse(
        self,
        code: Code,
        writes: Sequence[Write],
        held_writes: Sequence[Write],
        snapshot: Snapshot,
        lease: Lease,
    ) -> None:
        """Raise unless everything is as it was read; called before anything is written."""
        self.refuse(lease)
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


class PollerMemory:
    """The poller's ports, and the ledger of its budgets."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: returns the server's time in seconds."""
        self.ledger = MemoryLedger(clock)
        self.streams = MemoryStreams(clock)
        self.records = MemoryRecords(self.streams)
        self.plans = MemoryPlans(self.streams)
