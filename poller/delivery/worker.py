"""One endpoint's deliveries in this process: claim, send, settle.

Thin: what follows an attempt is `retry`'s to decide, how much may be sent is `pace`'s, and what
must survive a kill is the outbox's. Order of effects: a delivery is settled after the endpoint
answered, so a kill in between can only repeat it, with the same `webhook-id`.

A claim's way: due in the outbox → claimed, `_prefetched` → sent, `_sending` → ended, `_unsettled`
→ written down, with which its lane is due again. What is prefetched for too long skips the sending
and is given back; `_paused` keeps everything prefetched where it is until the outbox has said what
holds.

Two things go on at once. Up to `connections` tasks send what is claimed, each one claim after the
other. Beside them one exchange with the outbox at a time writes down everything that ended since
the last one and claims what may be sent soon; so no POST waits for Redis while there is another.
There is no exchange unless something ended, is due, or whoever wakes the worker says that it is.

A defect while sending counts as a failed attempt, so that the delivery does not keep the others
from being sent for ever; and it ends this worker, whose supervisor tells it and starts another.
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
from poller.delivery.enqueuer import STORE, waited
from poller.delivery.gaps import disabled_text, dropped_text, queued_again_text, unreadable_text
from poller.delivery.outbox import (
    Claim,
    Claimed,
    Outbox,
    OutOfOrder,
    QueueItem,
    Settlement,
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
    Outcome,
    Verdict,
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
"""Seconds more deliveries may end in before they are settled, while there is enough to send."""

UNREADABLE: Final = "unreadable"
"""The lane of what cannot be read, on its way to the dead letters."""

_BEAT: Final = LONGEST_TURN / 2
"""Seconds an idle worker waits before it shows that it is not stuck; Redis is not asked for it."""


_RECONSIDERED: Final = 1.0
"""Seconds after which it is seen that an endpoint has become too slow for what is prefetched."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of a relay.

    Attributes:
        claim: Longer than an attempt may last, and `fresh` more.
        fresh: So long after the claim a delivery may still start.
        look: Between two looks, for all endpoints at once, at what others did without a signal.
        pause: While Redis is away.
        grace: For what is in flight when it stops.
    """

    claim: timedelta = timedelta(seconds=30)
    fresh: timedelta = timedelta(seconds=5)
    look: timedelta = timedelta(seconds=30)
    pause: timedelta = timedelta(seconds=1)
    grace: timedelta = timedelta(seconds=7)
    verdict: Callable[..., Verdict] = decide


@dataclass(frozen=True, slots=True, eq=False)
class _Lane:
    """A claim of this process. `asked`: the loop's time before it was made, seconds."""

    claim: Claim
    claimed: Claimed
    asked: float

    def at(self, now: float) -> datetime:
        """Return the server's clock at a time of the loop."""
        return self.claimed.at + timedelta(seconds=now - self.asked)


class EndpointWorker:
    """Drives one endpoint until cancelled; then finishes or gives back what is in flight."""

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
        """`jitter`: from -1 to 1, a new one each time. `wake`: set when there may be more to do."""
        self._endpoint = endpoint
        self._sender = sender
        self._outbox = outbox
        self._observe = observe
        self._jitter = jitter
        self._timing = timing
        self._wake = wake
        self._subject = f"webhook {endpoint.name}"
        self._pace = Pace(connections=endpoint.connections, rate=endpoint.rate)
        self._prefetched: deque[_Lane] = deque()
        self._sending: set[_Lane] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[Claimed] | None = None
        self._unsettled: list[Settlement] = []
        self._due = -inf
        self._paused = False
        self._draining = False
        self._out_of_order = False
        self._told: set[str] = set()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Deliver, for ever."""
        try:
            with heartbeat(self._observe, f"{self._subject} deliveries") as beat:
                while True:
                    beat()
                    if self._wake.is_set():
                        self._wake.clear()
                        self._due = -inf
                    self._ended.clear()
                    pause = await self._safely_turn()
                    await waited(
                        (self._wake,), min(pause, _RECONSIDERED) if self._prefetched else pause
                    )
                    if self._prefetched and self._unsettled:  # an exchange costs as much as a POST
                        await waited((self._ended,), GATHER)
        finally:
            await self._drain()
            await self._sender.close()

    async def _safely_turn(self) -> float:
        """Take a turn; returns seconds until the next."""
        try:
            return await self._turn()
        except OutOfOrder as problem:
            self._observe(Trouble(self._subject, str(problem)))
            self._out_of_order, self._due = True, -inf
            return _BEAT
        except (StoreDown, StoreMisfit) as problem:
            self._observe(Trouble(STORE, str(problem)))
            await asyncio.sleep(self._timing.pause.total_seconds())
            return 0

    async def _turn(self) -> float:
        """Settle what has ended, claim and start what may start; returns seconds until the next."""
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.remove(task)
            task.result()  # raises what was a defect
        self._start()
        now = asyncio.get_running_loop().time()
        wanted = self._pace.wanted(now, len(self._sending))
        if self._paused or not wanted:
            self._give_back()
        limit = max(wanted - len(self._prefetched), 0)
        if not self._unsettled and (not limit or now < self._due):
            return self._room_in(now) if not limit else self._until_due(now)
        # never abandoned half-way: what it claimed would be nobody's until the claim runs out
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
        """Return seconds until there may be room; less where a low rate makes it long."""
        return min(self._pace.pause(now) or _BEAT, _BEAT)

    def _until_due(self, now: float) -> float:
        return min(max(self._due - now, 0), _BEAT)

    async def _exchange(self, limit: int) -> Claimed:
        """Write down what has ended; it stays to be written while the store is away. Claim more."""
        asked, carried = asyncio.get_running_loop().time(), self._unsettled.copy()
        claimed = await self._outbox.exchange(
            self._endpoint.name,
            carried,
            secrets.token_hex(8),
            limit=limit,
            depth=destination_of(self._endpoint).depth,
            ttl=self._timing.claim,
        )
        del self._unsettled[: len(carried)]  # what ended meanwhile stands behind them
        self._due = inf
        if claimed.wait is not None and not claimed.disabled:
            # asked now and then while anything waits: by that the outbox notices a clock set back
            self._due = asked + min(claimed.wait.total_seconds(), _BEAT)
        taken = not claimed.retrying and any(each.how == "sent" for each in carried)
        if taken or self._out_of_order:
            self._out_of_order = False
            self._observe(Recovered(self._subject))
            self._told.clear()
        if claimed.missing:
            told = dropped_text(self._endpoint.name)
            self._observe(Happened(told, (("dropped", claimed.missing),)))
        if claimed.unplaced:
            await self._place_again()
        for claim in claimed.claims:
            self._accept(_Lane(claim, claimed, asked))
        self._paused = any(each.hold or each.disable for each in self._unsettled)
        self._start()
        return claimed

    async def _place_again(self) -> None:
        """Queue what is kept and has no place, because somebody has removed the queue."""
        items = []
        for key, text in await self._outbox.unplaced(self._endpoint.name):
            found = read_delivery(key, text)
            if isinstance(found, Delivery):
                items.append(route(self._endpoint, found))
            else:  # claimed like any other, and parked then
                items.append(QueueItem(key, text, UNREADABLE))
        await queue(self._outbox, self._endpoint.name, items)
        told = queued_again_text(self._endpoint.name)
        self._observe(Happened(told, (("queued", len(items)),)))
        self._wake.set()

    def _accept(self, lane: "_Lane") -> None:
        """Prefetch a claim; what cannot be read in it is parked when it is settled."""
        claim = lane.claim
        if claim.parked:
            told = unreadable_text(self._endpoint.name, claim.parked[0])
            self._observe(Happened(told, (("parked", len(claim.parked)),)))
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
        """Return the claim to send now, if one may start, and count it as in flight."""
        now = asyncio.get_running_loop().time()
        stale = now - self._timing.fresh.total_seconds()
        while self._prefetched and self._prefetched[0].asked <= stale:  # it could outlive its claim
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
        """Send one claim after the other, as long as one may start."""
        loop, lane = asyncio.get_running_loop(), first
        while True:
            began = loop.time()
            messages = [delivery.message for delivery in lane.claim.deliveries]
            try:
                outcome = await self._sender.send(messages)
            except Exception as error:
                outcome = Failed(f"a defect of this service: {type(error).__name__}")
                self._on_result(lane, lane.at(began), outcome)
                self._draining = True  # nothing more is started: this worker ends
                raise
            self._on_result(lane, lane.at(began), outcome)
            following = self._next()
            if following is None:
                return
            lane = following

    def _on_result(self, lane: "_Lane", at: datetime, outcome: Outcome) -> None:
        """Decide what follows an attempt made `at` this time that has ended."""
        self._sending.remove(lane)
        good = isinstance(outcome, Delivered)
        self._pace.breaker.record(asyncio.get_running_loop().time(), good=good)
        lag = max(at - lane.claim.deliveries[0].appended_at, timedelta(0))
        self._observe(Attempted(self._endpoint.name, "delivered" if good else "failed", lag))
        settlement = self._judged(lane, at, outcome)
        self._unsettled.append(settlement)
        # until it is written, no claim says that the endpoint is to be left alone
        self._paused |= bool(settlement.hold or settlement.disable)
        self._wake.set()

    def _judged(self, lane: "_Lane", at: datetime, outcome: Outcome) -> Settlement:
        claim, since = lane.claim, lane.claimed.failing_since
        attempts = claim.attempts
        if isinstance(outcome, Failed):
            attempts = (*attempts, Attempt.of(outcome, at))
            self._complain(outcome.reason)
        verdict = self._timing.verdict(
            outcome, attempt=len(attempts), failing=at - (since or at), jitter=self._jitter()
        )
        match verdict:
            case Done():
                # what was queued meanwhile gathers anew
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

    def _complain(self, reason: str) -> None:
        """Tell each reason once until it recovers; two that alternate are no news each time."""
        if reason not in self._told:
            self._told.add(reason)
            self._observe(Trouble(self._subject, f"fails: {reason}"))

    def _give_back(self) -> None:
        """Let somebody else, or a later turn, have what is claimed and not being sent."""
        self._unsettled += [Settlement(lane.claim, "returned") for lane in self._prefetched]
        self._prefetched.clear()

    async def _drain(self) -> None:
        """Let what is in flight end, give back the rest."""
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
        self._give_back()
        if not self._unsettled:
            return
        try:
            await self._exchange(0)
        except StoreError as problem:
            # the claims run out by themselves
            self._observe(Trouble(STORE, str(problem)))


_NAMED: Final = 10
"""Events named in one line of the log; the others are counted."""
