"""The outbox in memory: the same promises without a server, for virtual time.

It counts as a stand-in only because it passes the same suite as the real servers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from poller.delivery.outbox import (
    ABSENT,
    MOST_WAITS,
    NOTED,
    Batch,
    Claim,
    Claimed,
    QueueItem,
    Settlement,
    Status,
    Take,
    Taken,
    WrongKeyType,
)
from poller.delivery.queued import (
    DeadLetter,
    Delivery,
    Parked,
    attempts_json,
    dead_json,
    problem_json,
    read_attempts,
    read_dead,
    read_delivery,
    undecided_json,
)
from poller.store.position import START, ReaderState, Start, StreamState, start_of
from poller.store.store import Entry, Stream
from tests.memorystore import MemoryStore


@dataclass
class _Queue:
    """What is kept of one endpoint; times are seconds on the store's clock."""

    positions: dict[Stream, str] = field(default_factory=dict)
    lanes: dict[str, dict[str, str]] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    claims: dict[str, str] = field(default_factory=dict)
    attempts: dict[str, str] = field(default_factory=dict)
    dead: dict[str, str] = field(default_factory=dict)
    disabled: str = ""
    hold_until: float = 0.0
    failing_since: float | None = None
    last_success: float | None = None
    last_error: str = ""
    last_error_at: float | None = None
    seen: float | None = None

    def keep_time(self, now: float) -> None:
        """Let what is due come nearer when the clock was set back; take note of the time."""
        passed = now - (self.seen or now)
        if passed < 0:
            later = {lane: due for lane, due in self.due.items() if due > now}
            self.due |= {lane: max(now, due + passed) for lane, due in later.items()}
            self.hold_until += passed
        if self.failing_since is not None and (passed < 0 or passed > ABSENT.total_seconds()):
            self.failing_since = min(now, self.failing_since + passed)
        if self.seen is None or passed < 0 or passed > NOTED.total_seconds():
            self.seen = now

    def gather(self, lane: str, wait: float, now: float) -> None:
        """See `Chosen`; what is queued long after it was appended waits all the same."""
        waiting = self.lanes[lane]
        if lane not in self.due:
            self.due[lane] = now + wait
        elif lane not in self.claims and self.attempts.keys().isdisjoint(waiting):
            began = int(min(waiting).partition("-")[0]) / 1000
            self.due[lane] = max(self.due[lane], min(now + wait, began + MOST_WAITS * wait))


@dataclass
class MemoryOutbox:
    """A `poller.delivery.outbox.Outbox` over the streams of a `MemoryStore`. `clock`: seconds."""

    store: MemoryStore
    clock: Callable[[], float]
    queues: dict[str, _Queue] = field(default_factory=dict)

    async def begin(
        self,
        names: Sequence[str],
        stream: Stream = Stream.EVENTS,
        *,
        remembered: Mapping[str, str] | None = None,
    ) -> dict[str, Start | WrongKeyType]:
        """See `Outbox.begin`."""
        del remembered  # nothing is forgotten here
        found: dict[str, Start | WrongKeyType] = {}
        for name in names:
            positions = self.queues.setdefault(name, _Queue()).positions
            position = positions.get(stream, "")
            group = position or None  # nothing but this process removes it
            start = start_of(ReaderState(position, group=group), await self._state(stream))
            positions[stream] = start.position
            found[name] = start
        return found

    async def _state(self, stream: Stream) -> StreamState:
        entries = await self.store.streams.read("0", count=10**6, block=None, stream=stream)
        if not entries:
            return StreamState(self.clock() * 1000, added=0)
        now = self.clock() * 1000
        return StreamState(now, entries[-1].id, entries[0].id, len(entries))

    async def follow(self, after: str, count: int, stream: Stream = Stream.EVENTS) -> Batch:
        """See `Outbox.follow`."""
        entries: list[Entry] = await self.store.streams.read(
            after, count=count, block=None, stream=stream
        )
        newest = await self.store.streams.last_entries(1, stream)
        state = await self._state(stream) if entries else StreamState(0)
        last = newest[0].id if newest else START
        return Batch(entries, last, state.first or (START if newest else None), state.added)

    async def take(
        self, takes: Sequence[Take], stream: Stream = Stream.EVENTS, *, read: int | None = None
    ) -> dict[str, Taken]:
        """See `Outbox.take`."""
        del read
        found = {}
        for take in takes:
            queue = self.queues.setdefault(take.name, _Queue())
            if queue.positions.get(stream, "") != take.after:
                found[take.name] = Taken(superseded=True)
                continue
            queue.positions[stream] = take.upto
            await self.add(take.name, [item for item in take.items if not item.problem])
            for item in take.items:
                if item.problem:
                    queue.dead[item.key] = undecided_json(item.text, item.problem)
            found[take.name] = Taken()
        return found

    async def add(self, name: str, items: Sequence[QueueItem]) -> int:
        """See `Outbox.add`."""
        queue, queued, now = self.queues[name], 0, self.clock()
        gathering: dict[str, float] = {}
        for each in items:
            queue.dead.pop(each.key, None)
            lane = queue.lanes.setdefault(each.lane, {})
            if each.key not in lane:
                lane[each.key] = each.text
                queued += 1
                if each.wait:
                    gathering[each.lane] = each.wait.total_seconds()
            if not each.wait:
                queue.due.setdefault(each.lane, now)
        for name_of_lane, wait in gathering.items():
            queue.gather(name_of_lane, wait, now)
        return queued

    async def unplaced(self, name: str) -> list[tuple[str, str]]:
        """See `Outbox.unplaced`; nothing loses its place here."""
        del name
        return []

    async def due(self, names: Sequence[str]) -> frozenset[str]:
        """See `Outbox.due`."""
        now = self.clock()
        kept = {name: self.queues[name].due.values() for name in names if name in self.queues}
        return frozenset(name for name, times in kept.items() if min(times, default=now + 1) <= now)

    async def exchange(
        self,
        name: str,
        settlements: Sequence[Settlement],
        token: str,
        *,
        limit: int,
        depth: int,
        ttl: timedelta,
    ) -> Claimed:
        """See `Outbox.exchange`."""
        queue, now = self.queues.setdefault(name, _Queue()), self.clock()
        queue.keep_time(now)
        for settlement in settlements:
            claim = settlement.claim
            if queue.claims.get(claim.lane) == claim.token:
                del queue.claims[claim.lane]
                self._settle(queue, settlement, now)
        told = Claimed(
            _moment(now),
            retrying=len(queue.attempts),
            disabled=queue.disabled,
            failing_since=_maybe(queue.failing_since),
        )
        if queue.disabled:
            return told
        if queue.hold_until > now:
            return replace(told, wait=timedelta(seconds=queue.hold_until - now))
        ready = sorted((due, lane) for lane, due in queue.due.items() if due <= now)
        claims = tuple(self._claim(queue, lane, token, depth) for _, lane in ready[:limit])
        for claim in claims:
            queue.due[claim.lane] = now + ttl.total_seconds()
        first = min(queue.due.values(), default=None)
        wait = None if first is None else timedelta(seconds=max(first - now, 0))
        return replace(told, claims=claims, wait=wait)

    def _claim(self, queue: _Queue, lane: str, token: str, depth: int) -> Claim:
        queue.claims[lane] = token
        waiting = queue.lanes[lane]
        keys = sorted(waiting)[:depth]
        found = [read_delivery(key, waiting[key]) for key in keys]
        return Claim(
            lane,
            token,
            tuple(each for each in found if isinstance(each, Delivery)),
            read_attempts(queue.attempts.get(keys[0], "")),
            tuple(each for each in found if isinstance(each, Parked)),
        )

    def _settle(self, queue: _Queue, settlement: Settlement, now: float) -> None:
        claim = settlement.claim
        lane, ids = claim.lane, [delivery.key for delivery in claim.deliveries]
        for parked in claim.parked:
            queue.dead[parked.key] = problem_json(parked.text, f"unreadable: {parked.reason}")
            queue.lanes[lane].pop(parked.key, None)
            queue.attempts.pop(parked.key, None)
        match settlement.how:
            case "sent":
                queue.last_success, queue.failing_since = now, None
            case "later" | "dead":
                self._failed(queue, settlement, now)
        if settlement.how == "later":
            queue.attempts[ids[0]] = attempts_json(settlement.attempts)
        if settlement.how in {"sent", "dead"}:
            for delivery in claim.deliveries:
                if settlement.how == "dead":
                    queue.dead[delivery.key] = dead_json(delivery, settlement.attempts)
                queue.lanes[lane].pop(delivery.key, None)
                queue.attempts.pop(delivery.key, None)
        if queue.lanes[lane]:
            queue.due[lane] = now + settlement.delay.total_seconds()
        else:
            del queue.lanes[lane], queue.due[lane]

    def _failed(self, queue: _Queue, settlement: Settlement, now: float) -> None:
        if queue.failing_since is None:
            queue.failing_since = now
        queue.last_error, queue.last_error_at = settlement.attempts[-1].reason, now
        if settlement.hold:
            queue.hold_until = max(queue.hold_until, now + settlement.hold.total_seconds())
        queue.disabled = queue.disabled or settlement.disable

    async def status(self, name: str) -> Status:
        """See `Outbox.status`."""
        queue = self.queues.get(name)
        if queue is None:
            return Status()
        lag = 0
        for stream, position in queue.positions.items():
            lag += len(
                await self.store.streams.read(position, count=10_000, block=None, stream=stream)
            )
        first = min(queue.due.values(), default=None)
        return Status(
            disabled=queue.disabled,
            lag=lag,
            waiting=sum(map(len, queue.lanes.values())),
            retrying=len(queue.attempts),
            dead=len(queue.dead),
            failing_since=_maybe(queue.failing_since),
            last_success=_maybe(queue.last_success),
            last_error=queue.last_error,
            last_error_at=_maybe(queue.last_error_at),
            next_attempt=(
                None if first is None or queue.disabled else _moment(max(first, queue.hold_until))
            ),
        )

    async def statuses(self, names: Sequence[str] | None = None) -> dict[str, Status]:
        """See `Outbox.statuses`."""
        wanted = await self.names() if names is None else names
        return {name: await self.status(name) for name in wanted}

    async def dead(self, name: str) -> list[DeadLetter]:
        """See `Outbox.dead`."""
        return read_dead(self.queues[name].dead)

    async def enable(self, name: str) -> None:
        """See `Outbox.enable`."""
        queue = self.queues[name]
        queue.disabled, queue.hold_until, queue.failing_since = "", 0.0, None
        queue.attempts.clear()
        for lane in queue.due:
            if lane not in queue.claims:
                queue.due[lane] = self.clock()

    async def names(self, *, thorough: bool = False) -> list[str]:
        """See `Outbox.names`."""
        del thorough
        return sorted(self.queues)

    async def forget(self, name: str) -> None:
        """See `Outbox.forget`."""
        self.queues.pop(name, None)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _maybe(seconds: float | None) -> datetime | None:
    return None if seconds is None else _moment(seconds)
