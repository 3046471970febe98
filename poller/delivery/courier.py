"""One endpoint's deliveries in this process: take from the stream, claim, send, settle.

Thin: what follows an attempt is `retry`'s to decide, how much may be sent is `pace`'s, and what
must survive a kill is the outbox's. Order of effects: a delivery is settled after the endpoint
answered, so a kill in between can only repeat it, with the same `webhook-id`.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from poller.delivery.endpoint import Endpoint, Kind
from poller.delivery.outbox import Attempt, Chosen, Claim, Claimed, Outbox, Settlement
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
from poller.delivery.webhook import Sender, is_event
from poller.errors import StoreDown, StoreMisfit, Superseded
from poller.facts.observe import Attempted, Happened, Observe, Recovered, Trouble, turning
from poller.storage.store import Entry, Store

BATCH: Final = 200
"""Stream entries looked at in one intake."""

STORE: Final = "redis for webhooks"
"""What is in trouble when Redis is: the poll loop tells of its own, and may recover later."""

MOST_TOGETHER: Final = 2000
"""Events in one message to a chat; what is more goes into the next."""

_TICK: Final = 0.001
"""Seconds: shorter waits would only ask the same again."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of a relay.

    `claim`: longer than an attempt may last. `look`: between two looks at what others changed.
    `block`: of one read of the stream. `pause`: while Redis is away. `grace`: for what is in
    flight when it stops.
    """

    claim: timedelta = timedelta(seconds=30)
    look: timedelta = timedelta(seconds=1)
    block: timedelta = timedelta(seconds=5)
    pause: timedelta = timedelta(seconds=1)
    grace: timedelta = timedelta(seconds=7)
    verdict: Callable[..., Verdict] = decide


@dataclass(frozen=True, slots=True)
class _Flight:
    """A claim that is being sent."""

    claim: Claim
    claimed: Claimed
    sending: "asyncio.Task[Outcome]"


class Courier:
    """Drives one endpoint until cancelled; then finishes or gives back what is in flight."""

    def __init__(
        self,
        endpoint: Endpoint,
        sender: Sender,
        store: Store,
        outbox: Outbox,
        observe: Observe,
        *,
        jitter: Callable[[], float],
        timing: Timing,
    ) -> None:
        """`jitter`: from -1 to 1, a new one each time."""
        self.endpoint = endpoint
        self._sender = sender
        self._store = store
        self._outbox = outbox
        self._observe = observe
        self._jitter = jitter
        self._timing = timing
        self._subject = f"webhook {endpoint.name}"
        self._pace = Pace(connections=endpoint.connections, rate=endpoint.rate)
        self._flights: list[_Flight] = []
        self._unsettled: list[Settlement] = []
        self._told: set[str] = set()
        self._news = asyncio.Event()
        self._work = asyncio.Event()

    def ring(self) -> None:
        """Tell it that the stream has grown."""
        self._news.set()

    async def run(self) -> None:
        """Take and deliver, for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._take_all(), name=f"{self._subject} intake")
                group.create_task(self._deliver_all(), name=f"{self._subject} deliveries")
        finally:
            await self._sender.close()

    async def _take_all(self) -> None:
        position = ""
        while True:
            self._news.clear()
            try:
                position = position or await self._outbox.begin(self.endpoint.name)
                taken = await self._take(position)
            except Superseded:
                position = ""
                continue
            except (StoreDown, StoreMisfit) as problem:
                await self._stumble(problem)
                position = ""
                continue
            if taken == position:
                await _woken(self._news, self._timing.look.total_seconds())
            position = taken

    async def _take(self, position: str) -> str:
        """Queue what follows `position`; returns where the group stands then."""
        entries = await self._store.read(position, count=BATCH, block=None)
        if not entries:
            return position
        chosen = [choose(self.endpoint, entry) for entry in entries if self._wants(entry)]
        await self._outbox.take(self.endpoint.name, position, entries, chosen)
        if chosen:
            self._work.set()
        return entries[-1].id

    def _wants(self, entry: Entry) -> bool:
        if is_event(entry.fields):
            return self.endpoint.selection.matches(entry.fields)
        self._observe(Happened(f"{self._subject}: {entry.id} is no event of ours, passed over"))
        return False

    async def _deliver_all(self) -> None:
        try:
            with turning(self._observe, f"{self._subject} deliveries") as turned:
                while True:
                    turned()
                    self._work.clear()
                    try:
                        pause = await self._turn()
                    except (StoreDown, StoreMisfit) as problem:
                        await self._stumble(problem)
                    else:
                        await _woken(self._work, pause)
        finally:
            await self._drain()

    async def _turn(self) -> float:
        """Settle what has ended and start what may start; returns seconds until the next look."""
        self._land()
        await self._settle()
        loop, look = asyncio.get_running_loop(), self._timing.look.total_seconds()
        room = self._pace.room(loop.time(), len(self._flights))
        if not room:
            return self._pace.pause(loop.time()) or look
        claimed = await self._outbox.claim(
            self.endpoint.name,
            secrets.token_hex(8),
            limit=room,
            depth=1 if self.endpoint.kind is Kind.POST else MOST_TOGETHER,
            ttl=self._timing.claim,
        )
        if claimed.disabled:
            self._observe(Trouble(self._subject, disabled_text(self.endpoint.name, claimed)))
            return look
        self._start(claimed)
        if len(claimed.claims) == room:  # there may be more due than there was room for
            return self._pace.pause(loop.time()) or look
        wait = look if claimed.wait is None else claimed.wait.total_seconds()
        return min(wait, look)

    def _start(self, claimed: Claimed) -> None:
        for claim in claimed.claims:
            sending = asyncio.create_task(
                self._sender.send(claim.deliveries), name=f"{self._subject} {claim.lane}"
            )
            sending.add_done_callback(lambda _: self._work.set())
            self._flights.append(_Flight(claim, claimed, sending))
        self._pace.started(len(claimed.claims))

    def _land(self) -> None:
        """Decide what follows every attempt that has ended."""
        now = asyncio.get_running_loop().time()
        flying = []
        for flight in self._flights:
            if not flight.sending.done():
                flying.append(flight)
                continue
            outcome = flight.sending.result()
            good = isinstance(outcome, Delivered)
            self._pace.breaker.record(now, good=good)
            lag = flight.claimed.at - appended_at(flight.claim.deliveries[0])
            self._observe(Attempted(self.endpoint.name, "delivered" if good else "failed", lag))
            self._unsettled.append(self._judged(flight, outcome))
        self._flights = flying

    def _judged(self, flight: _Flight, outcome: Outcome) -> Settlement:
        claim, claimed = flight.claim, flight.claimed
        attempts = claim.attempts
        if isinstance(outcome, Failed):
            attempts = (*attempts, Attempt.of(outcome, claimed.at))
            self._complain(outcome.reason)
        verdict = self._timing.verdict(
            outcome,
            attempt=len(attempts),
            failing=claimed.at - (claimed.failing_since or claimed.at),
            jitter=self._jitter(),
        )
        match verdict:
            case Done():
                return Settlement(claim, "sent")
            case Later(delay, hold):
                return Settlement(claim, "later", attempts, delay=delay, hold=hold)
            case Dead(hold):
                ids = ", ".join(entry.fields["id"] for entry in claim.deliveries)
                self._observe(Happened(f"{self._subject}: gave up on {ids}, a dead letter now"))
                return Settlement(claim, "dead", attempts, hold=hold)
            case Disable(reason):
                return Settlement(claim, "later", attempts, disable=reason)

    async def _settle(self) -> None:
        """Write down what was decided; it stays to be written while the store is away."""
        if not self._unsettled:
            return
        retrying = await self._outbox.settle(self.endpoint.name, self._unsettled)
        if not retrying and any(each.how == "sent" for each in self._unsettled):
            self._observe(Recovered(self._subject))
            self._told.clear()
        self._unsettled.clear()

    def _complain(self, reason: str) -> None:
        """Tell each reason once until it recovers; two that alternate are no news each time."""
        if reason not in self._told:
            self._told.add(reason)
            self._observe(Trouble(self._subject, f"fails: {reason}"))

    async def _drain(self) -> None:
        """Let what is in flight end, give back the rest."""
        sending = [flight.sending for flight in self._flights]
        if sending:
            _, late = await asyncio.wait(sending, timeout=self._timing.grace.total_seconds())
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        returned = [f for f in self._flights if f.sending.cancelled()]
        self._flights = [f for f in self._flights if not f.sending.cancelled()]
        self._land()
        self._unsettled += [Settlement(flight.claim, "returned") for flight in returned]
        try:
            await self._settle()
        except (StoreDown, StoreMisfit) as problem:
            # the claims run out by themselves
            self._observe(Trouble(STORE, str(problem)))

    async def _stumble(self, problem: StoreDown | StoreMisfit) -> None:
        self._observe(Trouble(STORE, str(problem)))
        await asyncio.sleep(self._timing.pause.total_seconds())


def appended_at(entry: Entry) -> datetime:
    """Return when an entry was appended, on the server's clock."""
    return datetime.fromtimestamp(int(entry.id.partition("-")[0]) / 1000, UTC)


def choose(endpoint: Endpoint, entry: Entry) -> Chosen:
    """Return the lane of an event: its symbol, or its market and day where they go together."""
    fields = entry.fields
    if endpoint.kind is Kind.POST:
        return Chosen(entry, fields["code"])
    return Chosen(entry, f"{fields['market']}:{fields['trading_day']}", endpoint.wait)


def disabled_text(name: str, claimed: Claimed) -> str:
    """Say why nothing is sent, and what to do."""
    return f"disabled: {claimed.disabled}; once it is mended: poller webhook enable {name}"


async def _woken(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(seconds, _TICK)):
            await event.wait()
    except TimeoutError:
        return
