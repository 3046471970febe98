"""One endpoint's deliveries in this process: claim, send, settle.

Thin: what follows an attempt is `retry`'s to decide, how much may be sent is `pace`'s, and what
must survive a kill is the outbox's. Order of effects: a delivery is settled after the endpoint
answered, so a kill in between can only repeat it, with the same `webhook-id`.

A claim's way: due in the outbox → claimed, `_ahead` → sent, `_flying` → ended, `_unsettled` →
written down, with which its lane is due again. What is ahead for too long skips the sending and is
given back; `_barred` keeps everything ahead where it is until the outbox has said what holds.

Two things go on at once. Up to `connections` tasks send what is claimed, each one claim after the
other. Beside them one exchange with the outbox at a time writes down everything that ended since
the last one and claims what may be sent soon; so no POST waits for Redis while there is another.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from poller.delivery.endpoint import Endpoint, Kind
from poller.delivery.intake import STORE, Intake, choose, woken
from poller.delivery.outbox import Attempt, Claim, Claimed, Outbox, Settlement
from poller.delivery.pace import Pace
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
from poller.delivery.webhook import Sender
from poller.errors import StoreDown, StoreMisfit
from poller.facts.observe import (
    LONGEST_TURN,
    Attempted,
    Happened,
    Observe,
    Recovered,
    Trouble,
    turning,
)
from poller.storage.store import Entry, Stream

GATHER: Final = 0.01
"""Seconds more deliveries may end in before they are settled, while there is enough to send."""

MOST_TOGETHER: Final = 2000
"""Events in one message to a chat; what is more goes into the next."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of a relay.

    `claim`: longer than an attempt may last, and `fresh` more: so long after the claim a delivery
    may still start. `look`: between two looks at what others changed. `block`: of one read of the
    stream. `pause`: while Redis is away. `grace`: for what is in flight when it stops.
    """

    claim: timedelta = timedelta(seconds=30)
    fresh: timedelta = timedelta(seconds=5)
    look: timedelta = timedelta(seconds=1)
    block: timedelta = timedelta(seconds=5)
    pause: timedelta = timedelta(seconds=1)
    grace: timedelta = timedelta(seconds=7)
    verdict: Callable[..., Verdict] = decide


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """A claim of this process. `asked`: the loop's time before it was made, seconds."""

    claim: Claim
    claimed: Claimed
    asked: float

    def at(self, now: float) -> datetime:
        """Return the server's clock at a time of the loop."""
        return self.claimed.at + timedelta(seconds=now - self.asked)


class Courier:
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
    ) -> None:
        """`jitter`: from -1 to 1, a new one each time."""
        self.endpoint = endpoint
        self._sender = sender
        self._outbox = outbox
        self._observe = observe
        self._jitter = jitter
        self._timing = timing
        self._subject = f"webhook {endpoint.name}"
        self._pace = Pace(connections=endpoint.connections, rate=endpoint.rate)
        self._ahead: deque[_Held] = deque()
        self._flying: set[_Held] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[Claimed] | None = None
        self._unsettled: list[Settlement] = []
        self._barred = False
        self._draining = False
        self._told: set[str] = set()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._intakes = [
            Intake(
                endpoint,
                outbox,
                observe,
                stream=stream,
                look=timing.look,
                pause=timing.pause,
                queued=self._work.set,
            )
            for stream in Stream
        ]

    def ring(self) -> None:
        """Tell it that a stream has grown."""
        for intake in self._intakes:
            intake.ring()

    async def run(self) -> None:
        """Take and deliver, for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                for intake in self._intakes:
                    group.create_task(intake.run(), name=f"{self._subject} intake")
                group.create_task(self._deliver_all(), name=f"{self._subject} deliveries")
        finally:
            await self._sender.close()

    async def _deliver_all(self) -> None:
        try:
            with turning(self._observe, f"{self._subject} deliveries") as turned:
                while True:
                    turned()
                    self._work.clear()
                    self._idle.clear()
                    try:
                        pause = await self._turn()
                    except (StoreDown, StoreMisfit) as problem:
                        self._observe(Trouble(STORE, str(problem)))
                        await asyncio.sleep(self._timing.pause.total_seconds())
                    else:
                        await woken(self._work, pause)
                    if self._ahead and self._unsettled:  # an exchange costs as much as a POST
                        await woken(self._idle, GATHER)
        finally:
            await self._drain()

    async def _turn(self) -> float:
        """Settle what has ended, claim and start what may start; returns seconds until the next."""
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.remove(task)
            task.result()  # raises what was a defect
        self._start()
        loop, look = asyncio.get_running_loop(), self._timing.look.total_seconds()
        wanted = self._pace.wanted(loop.time(), len(self._flying))
        if self._barred or not wanted:
            self._give_back()
        limit = max(wanted - len(self._ahead), 0)
        if not limit and not self._unsettled:
            return self._room_in(loop.time()) or look
        # never abandoned half-way: what it claimed would be nobody's until the claim runs out
        self._asking = asyncio.create_task(self._exchange(limit), name=f"{self._subject} exchange")
        claimed = await asyncio.shield(self._asking)
        if claimed.disabled:
            self._observe(Trouble(self._subject, disabled_text(self.endpoint.name, claimed)))
            return look
        if self._ahead or len(claimed.claims) == limit:  # there may be more due than was claimed
            return self._room_in(loop.time()) or look
        wait = look if claimed.wait is None else claimed.wait.total_seconds()
        return min(wait, look)

    def _room_in(self, now: float) -> float:
        """Return seconds until there may be room; less where a low rate makes it long."""
        return min(self._pace.pause(now), LONGEST_TURN / 2)

    async def _exchange(self, limit: int) -> Claimed:
        """Write down what has ended; it stays to be written while the store is away. Claim more."""
        asked, carried = asyncio.get_running_loop().time(), self._unsettled.copy()
        claimed = await self._outbox.exchange(
            self.endpoint.name,
            carried,
            secrets.token_hex(8),
            limit=limit,
            depth=1 if self.endpoint.kind is Kind.POST else MOST_TOGETHER,
            ttl=self._timing.claim,
        )
        del self._unsettled[: len(carried)]  # what ended meanwhile stands behind them
        if not claimed.retrying and any(each.how == "sent" for each in carried):
            self._observe(Recovered(self._subject))
            self._told.clear()
        self._ahead += [_Held(claim, claimed, asked) for claim in claimed.claims]
        self._barred = any(each.hold or each.disable for each in self._unsettled)
        self._start()
        return claimed

    def _start(self) -> None:
        while (held := self._next()) is not None:
            task = asyncio.create_task(self._fly(held), name=f"{self._subject} sending")
            task.add_done_callback(lambda _: self._idle.set())
            self._tasks.add(task)

    def _next(self) -> _Held | None:
        """Return the claim to send now, if one may start, and count it as in flight."""
        now = asyncio.get_running_loop().time()
        stale = now - self._timing.fresh.total_seconds()
        while self._ahead and self._ahead[0].asked <= stale:  # it could outlive its claim
            self._unsettled.append(Settlement(self._ahead.popleft().claim, "returned"))
        if not self._ahead or self._barred or self._draining:
            return None
        if not self._pace.room(now, len(self._flying)):
            return None
        held = self._ahead.popleft()
        self._pace.started()
        self._flying.add(held)
        return held

    async def _fly(self, first: _Held) -> None:
        """Send one claim after the other, as long as one may start."""
        loop, held = asyncio.get_running_loop(), first
        while True:
            began = loop.time()
            outcome = await self._sender.send(held.claim.deliveries)
            self._flying.remove(held)
            self._land(held, held.at(began), outcome)
            following = self._next()
            if following is None:
                return
            held = following

    def _land(self, held: _Held, at: datetime, outcome: Outcome) -> None:
        """Decide what follows an attempt made `at` this time that has ended."""
        good = isinstance(outcome, Delivered)
        self._pace.breaker.record(asyncio.get_running_loop().time(), good=good)
        lag = at - appended_at(held.claim.deliveries[0])
        self._observe(Attempted(self.endpoint.name, "delivered" if good else "failed", lag))
        settlement = self._judged(held, at, outcome)
        self._unsettled.append(settlement)
        # until it is written, no claim says that the endpoint is to be left alone
        self._barred |= bool(settlement.hold or settlement.disable)
        self._work.set()

    def _judged(self, held: _Held, at: datetime, outcome: Outcome) -> Settlement:
        claim, since = held.claim, held.claimed.failing_since
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
                wait = choose(self.endpoint, claim.deliveries[0]).wait
                return Settlement(claim, "sent", delay=wait)
            case Later(delay, hold):
                return Settlement(claim, "later", attempts, delay=delay, hold=hold)
            case Dead(hold):
                ids = ", ".join(entry.fields["id"] for entry in claim.deliveries)
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
        self._unsettled += [Settlement(held.claim, "returned") for held in self._ahead]
        self._ahead.clear()

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
            await asyncio.gather(*late, return_exceptions=True)
        self._ahead += self._flying
        self._give_back()
        if not self._unsettled:
            return
        try:
            await self._exchange(0)
        except (StoreDown, StoreMisfit) as problem:
            # the claims run out by themselves
            self._observe(Trouble(STORE, str(problem)))


def appended_at(entry: Entry) -> datetime:
    """Return when an entry was appended, on the server's clock."""
    return datetime.fromtimestamp(int(entry.id.partition("-")[0]) / 1000, UTC)


def disabled_text(name: str, claimed: Claimed) -> str:
    """Say why nothing is sent, and what to do."""
    return f"disabled: {claimed.disabled}; once it is mended: poller webhook enable {name}"
