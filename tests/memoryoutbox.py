"""The outbox in memory: the same promises without a server, for virtual time.

It counts as a stand-in only because it passes the same suite as the real servers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from poller.delivery.outbox import (
    ABSENT,
    MOST_WAITS,
    NOTED,
    Chosen,
    Claim,
    Claimed,
    DeadLetter,
    Settlement,
    Status,
    attempts_json,
    dead_json,
    padded,
    read_claim,
    read_dead,
)
from poller.errors import Superseded
from poller.model import to_json
from poller.storage.memorystore import MemoryStore
from poller.storage.store import Entry, Stream


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

    async def begin(self, name: str, stream: Stream = Stream.EVENTS) -> str:
        """See `Outbox.begin`."""
        positions = self.queues.setdefault(name, _Queue()).positions
        if stream not in positions:
            last = await self.store.last_entries(1, stream)
            positions[stream] = last[0].id if last else "0-0"
        return positions[stream]

    async def follow(self, after: str, count: int, stream: Stream = Stream.EVENTS) -> list[Entry]:
        """See `Outbox.follow`."""
        return await self.store.read(after, count=count, block=None, stream=stream)

    async def take(
        self,
        name: str,
        after: str,
        entries: Sequence[Entry],
        chosen: Sequence[Chosen],
        stream: Stream = Stream.EVENTS,
    ) -> None:
        """See `Outbox.take`."""
        positions = self.queues.get(name, _Queue()).positions
        following = await self.store.read(after, count=len(entries), block=None, stream=stream)
        told = [entry.id for entry in following] == [entry.id for entry in entries]
        if positions.get(stream) != after or not told:
            raise Superseded(f"webhook {name}: another process took what follows {after}")
        positions[stream] = entries[-1].id
        await self.add(name, chosen)

    async def add(self, name: str, chosen: Sequence[Chosen]) -> int:
        """See `Outbox.add`."""
        queue, queued, now = self.queues[name], 0, self.clock()
        gathering: dict[str, float] = {}
        for each in chosen:
            name_of = padded(each.entry.id)
            queue.dead.pop(name_of, None)
            lane = queue.lanes.setdefault(each.lane, {})
            if name_of not in lane:
                lane[name_of] = to_json(dict(each.entry.fields))
                if each.wait:
                    gathering[each.lane] = each.wait.total_seconds()
                else:
                    queue.due.setdefault(each.lane, now)
                queued += 1
        for name_of_lane, wait in gathering.items():
            queue.gather(name_of_lane, wait, now)
        return queued

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
        chosen = sorted(waiting)[:depth]
        attempts = queue.attempts.get(chosen[0], "")
        return read_claim(lane, token, attempts, [(each, waiting[each]) for each in chosen])

    def _settle(self, queue: _Queue, settlement: Settlement, now: float) -> None:
        claim = settlement.claim
        lane, ids = claim.lane, [padded(entry.id) for entry in claim.deliveries]
        match settlement.how:
            case "sent":
                queue.last_success, queue.failing_since = now, None
            case "later" | "dead":
                self._failed(queue, settlement, now)
        if settlement.how == "later":
            queue.attempts[ids[0]] = attempts_json(settlement.attempts)
        if settlement.how in {"sent", "dead"}:
            for entry, name_of in zip(claim.deliveries, ids, strict=True):
                if settlement.how == "dead":
                    queue.dead[name_of] = dead_json(entry, settlement.attempts)
                queue.lanes[lane].pop(name_of, None)
                queue.attempts.pop(name_of, None)
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
            lag += len(await self.store.read(position, count=10_000, block=None, stream=stream))
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
            next_attempt=None if first is None else _moment(max(first, queue.hold_until)),
        )

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

    async def names(self) -> list[str]:
        """See `Outbox.names`."""
        return sorted(self.queues)

    async def forget(self, name: str) -> None:
        """See `Outbox.forget`."""
        self.queues.pop(name, None)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _maybe(seconds: float | None) -> datetime | None:
    return None if seconds is None else _moment(seconds)
