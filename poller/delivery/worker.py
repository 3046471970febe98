"""One endpoint's deliveries in this process: claim, send, settle.

Thin: `retry` decides what follows an attempt, `pace` how much may be sent, and the outbox keeps
what must survive a crash. Order of effects: a delivery is settled after the endpoint has answered,
so a crash in between can only repeat it, with the same `webhook-id`.

Life of a claim: due in the outbox → `_prefetched` → `_sending` → `_unsettled` → settled, which
makes its lane due again. A claim that was prefetched too long ago is returned unsent. `_paused`
stops sending until the outbox has stored a hold or a disablement.

Two activities run concurrently. Up to `connections` tasks each send one claim after another.
Meanwhile one exchange with the outbox at a time settles what has ended and claims what may be sent
soon, so no POST waits for Redis while others are prefetched. There is an exchange only if something
has ended, is due, or the worker was woken.

A defect while sending counts as a failed attempt, so that the delivery cannot block the others for
ever. It also ends this worker; its supervisor reports the defect and starts another.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from typing import Any, Final

from poller.delivery.destinations import Sender, destination_of
from poller.delivery.endpoint import Endpoint
from poller.delivery.enqueuer import STORE, wait_any
from poller.delivery.log_lines import (
    disabled_text,
    dropped_text,
    queued_again_text,
    subject_of,
    unreadable_text,
)
from poller.delivery.outbox import (
    Claim,
    Claimed,
    Outbox,
    QueueItem,
    Settlement,
    WrongKeyType,
    queue,
)
from poller.delivery.pace import Pace
from poller.delivery.queued import Attempt, Delivery, read_delivery
from poller.delivery.retry import (
    Dead,
    Delivered,
    Disable,
    Done,
    Failed,
    Later,
    NextStep,
    Outcome,
    decide,
)
from poller.delivery.routes import route
from poller.errors import StoreDown, StoreError, StoreMisfit
from poller.telemetry.observe import (
    LONGEST_TURN,
    Attempted,
    Happened,
    Observe,
    Recovered,
    Trouble,
    heartbeat,
)

GATHER: Final = 0.01
"""Seconds to wait for more deliveries to end before settling, while there is enough to send."""

UNREADABLE: Final = "unreadable"
"""The lane of unreadable deliveries on their way to the dead letters."""

_BEAT: Final = LONGEST_TURN / 2
"""Seconds between an idle worker's heartbeats, which do not ask Redis."""


_RECONSIDERED: Final = 1.0
"""Seconds between two checks whether prefetched claims are too old because the endpoint is slow."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of a relay.

    Attributes:
        claim: How long a claim lasts: longer than `fresh` and an attempt together.
        fresh: How long after its claim a delivery may still start.
        look: Between two checks, for all endpoints at once, for changes without a signal.
        pause: Between two tries while Redis does not answer.
        grace: How long deliveries in flight may take when the worker stops.
        next_step: Decides what follows an attempt.
    """

    claim: timedelta = timedelta(seconds=30)
    fresh: timedelta = timedelta(seconds=5)
    look: timedelta = timedelta(seconds=30)
    pause: timedelta = timedelta(seconds=1)
    grace: timedelta = timedelta(seconds=7)
    next_step: Callable[..., NextStep] = decide


@dataclass(frozen=True, slots=True, eq=False)
class _Lane:
    """A claim of this process. `asked`: the loop's time when it was requested, in seconds."""

    claim: Claim
    claimed: Claimed
    asked: float

    def at(self, now: float) -> datetime:
        """Convert a time of the loop to the server's clock."""
        return self.claimed.at + timedelta(seconds=now - self.asked)


class EndpointWorker:
    """Delivers to one endpoint until cancelled; then finishes or returns its claims."""

    def __init__(
        self,
        endpoint: Endpoint,
        sender: Sender,
        outbox: Outbox,
        observe: Observe,
        *,
        jitter: Callable[[], float],
        timing: Timing,
        wake: asyncio.Event,
    ) -> None:
        """`jitter`: returns chance from -1 to 1. `wake`: set when there may be more to do."""
        self._endpoint = endpoint
        self._sender = sender
        self._outbox = outbox
        self._observe = observe
        self._jitter = jitter
        self._timing = timing
        self._wake = wake
        self._subject = subject_of(endpoint.name)
        self._pace = Pace(connections=endpoint.connections, rate=endpoint.rate)
        self._prefetched: deque[_Lane] = deque()
        self._sending: set[_Lane] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[Claimed] | None = None
        self._unsettled: list[Settlement] = []
        self._due = -inf
        self._paused = False
        self._draining = False
        self._has_wrong_type = False
        self._reported: set[str] = set()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            with heartbeat(self._observe, f"{self._subject} deliveries") as beat:
                while True:
                    beat()
                    if self._wake.is_set():
                        self._wake.clear()
                        self._due = -inf
                    self._ended.clear()
                    pause = await self._work_safely()
                    await wait_any(
                        (self._wake,), min(pause, _RECONSIDERED) if self._prefetched else pause
                    )
                    if self._prefetched and self._unsettled:  # an exchange costs as much as a POST
                        await wait_any((self._ended,), GATHER)
        finally:
            await self._drain()
            await self._sender.close()

    async def _work_safely(self) -> float:
        """Work once, reporting problems with Redis; return seconds until the next time."""
        try:
            return await self._work()
        except WrongKeyType as problem:
            self._observe(Trouble(self._subject, str(problem)))
            self._has_wrong_type, self._due = True, -inf
            return _BEAT
        except (StoreDown, StoreMisfit) as problem:
            self._observe(Trouble(STORE, str(problem)))
            await asyncio.sleep(self._timing.pause.total_seconds())
            return 0

    async def _work(self) -> float:
        """Settle what has ended, claim and start what may start; return seconds until the next."""
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.remove(task)
            task.result()  # raises its defect
        self._start()
        now = asyncio.get_running_loop().time()
        wanted = self._pace.wanted(now, len(self._sending))
        if self._paused or not wanted:
            self._return_claims()
        limit = max(wanted - len(self._prefetched), 0)
        if not self._unsettled and (not limit or now < self._due):
            return self._room_in(now) if not limit else self._until_due(now)
        # never cancelled half-way: nobody could send what it claimed until the claims expire
        self._asking = asyncio.create_task(self._exchange(limit), name=f"{self._subject} exchange")
        claimed = await asyncio.shield(self._asking)
        if claimed.disabled:
            self._observe(
                Trouble(self._subject, disabled_text(self._endpoint.name, claimed.disabled))
            )
        elif self._prefetched or len(claimed.claims) == limit:  # more may be due than was claimed
            self._due = -inf
            return self._room_in(asyncio.get_running_loop().time())
        return self._until_due(asyncio.get_running_loop().time())

    def _room_in(self, now: float) -> float:
        """Return seconds until there may be room, at most `_BEAT`."""
        return min(self._pace.pause(now) or _BEAT, _BEAT)

    def _until_due(self, now: float) -> float:
        return min(max(self._due - now, 0), _BEAT)

    async def _exchange(self, limit: int) -> Claimed:
        """Settle what has ended and claim more; settlements are kept if the store fails."""
        asked, carried = asyncio.get_running_loop().time(), self._unsettled.copy()
        claimed = await self._outbox.exchange(
            self._endpoint.name,
            carried,
            secrets.token_hex(8),
            limit=limit,
            depth=destination_of(self._endpoint).depth,
            ttl=self._timing.claim,
        )
        del self._unsettled[: len(carried)]  # what ended meanwhile follows them
        self._due = inf
        if claimed.wait is not None and not claimed.disabled:
            # also regularly while anything waits: so the outbox notices a clock that was set back
            self._due = asked + min(claimed.wait.total_seconds(), _BEAT)
        taken = not claimed.retrying and any(each.how == "sent" for each in carried)
        if taken or self._has_wrong_type:
            self._has_wrong_type = False
            self._observe(Recovered(self._subject))
            self._reported.clear()
        if claimed.missing:
            line = dropped_text(self._endpoint.name)
            self._observe(Happened(line, (("dropped", claimed.missing),)))
        if claimed.unplaced:
            await self._place_again()
        for claim in claimed.claims:
            self._accept(_Lane(claim, claimed, asked))
        self._paused = any(each.hold or each.disable for each in self._unsettled)
        self._start()
        return claimed

    async def _place_again(self) -> None:
        """Queue all stored deliveries again, because somebody has removed the queue."""
        items = []
        for key, text in await self._outbox.unplaced(self._endpoint.name):
            found = read_delivery(key, text)
            if isinstance(found, Delivery):
                items.append(route(self._endpoint, found))
            else:  # claimed like any other, and parked at that point
                items.append(QueueItem(key, text, UNREADABLE))
        await queue(self._outbox, self._endpoint.name, items)
        line = queued_again_text(self._endpoint.name)
        self._observe(Happened(line, (("queued", len(items)),)))
        self._wake.set()

    def _accept(self, lane: "_Lane") -> None:
        """Prefetch a claim; its unreadable deliveries are parked when it is settled."""
        claim = lane.claim
        if claim.parked:
            line = unreadable_text(self._endpoint.name, claim.parked[0])
            self._observe(Happened(line, (("parked", len(claim.parked)),)))
        if claim.deliveries:
            self._prefetched.append(lane)
        else:
            self._unsettled.append(Settlement(claim, "returned"))
            self._wake.set()

    def _start(self) -> None:
        while (lane := self._next()) is not None:
            task = asyncio.create_task(self._send(lane), name=f"{self._subject} sending")
            task.add_done_callback(self._note_end)
            self._tasks.add(task)

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        self._ended.set()
        if not task.cancelled() and task.exception() is not None:
            self._wake.set()

    def _next(self) -> "_Lane | None":
        """Return the claim to send now, marked as being sent; None: none may start."""
        now = asyncio.get_running_loop().time()
        stale = now - self._timing.fresh.total_seconds()
        while self._prefetched and self._prefetched[0].asked <= stale:  # sent now, it could expire
            self._unsettled.append(Settlement(self._prefetched.popleft().claim, "returned"))
        if not self._prefetched or self._paused or self._draining:
            return None
        if not self._pace.room(now, len(self._sending)):
            return None
        lane = self._prefetched.popleft()
        self._pace.started()
        self._sending.add(lane)
        return lane

    async def _send(self, first: "_Lane") -> None:
        """Send one claim after another, as long as one may start."""
        loop, lane = asyncio.get_running_loop(), first
        while True:
            began = loop.time()
            messages = [delivery.message for delivery in lane.claim.deliveries]
            try:
                outcome = await self._sender.send(messages)
            except Exception as error:
                outcome = Failed(f"a defect of this service: {type(error).__name__}")
                self._on_result(lane, lane.at(began), outcome)
                self._draining = True  # start nothing more: this worker ends
                raise
            self._on_result(lane, lane.at(began), outcome)
            following = self._next()
            if following is None:
                return
            lane = following

    def _on_result(self, lane: "_Lane", at: datetime, outcome: Outcome) -> None:
        """Decide what follows an attempt that has ended; `at`: when it was made."""
        self._sending.remove(lane)
        good = isinstance(outcome, Delivered)
        self._pace.breaker.record(asyncio.get_running_loop().time(), good=good)
        lag = max(at - lane.claim.deliveries[0].appended_at, timedelta(0))
        self._observe(Attempted(self._endpoint.name, "delivered" if good else "failed", lag))
        settlement = self._settlement_of(lane, at, outcome)
        self._unsettled.append(settlement)
        # the outbox hands out claims until it has stored the hold or disablement
        self._paused |= bool(settlement.hold or settlement.disable)
        self._wake.set()

    def _settlement_of(self, lane: "_Lane", at: datetime, outcome: Outcome) -> Settlement:
        claim, since = lane.claim, lane.claimed.failing_since
        attempts = claim.attempts
        if isinstance(outcome, Failed):
            attempts = (*attempts, Attempt.of(outcome, at))
            self._report_failure(outcome.reason)
        next_step = self._timing.next_step(
            outcome, attempt=len(attempts), failing=at - (since or at), jitter=self._jitter()
        )
        match next_step:
            case Done():
                # events queued meanwhile gather again
                wait = route(self._endpoint, claim.deliveries[0]).wait
                return Settlement(claim, "sent", delay=wait)
            case Later(delay, hold):
                return Settlement(claim, "later", attempts, delay=delay, hold=hold)
            case Dead(hold):
                ids = ", ".join(delivery.message.id for delivery in claim.deliveries[:_NAMED])
                more = len(claim.deliveries) - _NAMED
                ids += f" and {more} more" if more > 0 else ""
                self._observe(Happened(f"{self._subject}: gave up on {ids}, a dead letter now"))
                return Settlement(claim, "dead", attempts, hold=hold)
            case Disable(reason):
                return Settlement(claim, "later", attempts, disable=reason)

    def _report_failure(self, reason: str) -> None:
        """Report each reason once until the endpoint recovers, even if two alternate."""
        if reason not in self._reported:
            self._reported.add(reason)
            self._observe(Trouble(self._subject, f"fails: {reason}"))

    def _return_claims(self) -> None:
        """Return the prefetched claims, for another process or for later."""
        self._unsettled += [Settlement(lane.claim, "returned") for lane in self._prefetched]
        self._prefetched.clear()

    async def _drain(self) -> None:
        """Let what is in flight end, and return all other claims."""
        self._draining = True
        ending: set[asyncio.Task[Any]] = {*self._tasks}
        if self._asking is not None:
            ending.add(self._asking)
        if ending:
            _, late = await asyncio.wait(ending, timeout=self._timing.grace.total_seconds())
            for task in late:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
        self._prefetched += self._sending
        self._return_claims()
        if not self._unsettled:
            return
        try:
            await self._exchange(0)
        except StoreError as problem:
            # the claims expire by themselves
            self._observe(Trouble(STORE, str(problem)))


_NAMED: Final = 10
"""Events named in one log line; the others are counted."""
