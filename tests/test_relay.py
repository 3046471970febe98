"""The relay in virtual time: days of retries in a moment, on the real workers."""

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.delivery.endpoint import Endpoint
from poller.delivery.outbox import MOST_WAITS, Claimed, QueueItem, WrongKeyType
from poller.delivery.pace import BURST, MOST_PREFETCHED, OPEN_FOR, Breaker, Pace
from poller.delivery.queued import sort_key, text_of
from poller.delivery.relay import Relay
from poller.delivery.retry import (
    DELAYS,
    GIVE_UP,
    Dead,
    Delivered,
    Disable,
    Done,
    Failed,
    Later,
    Outcome,
    decide,
    retry_after,
)
from poller.delivery.selection import EVENTS, Selection
from poller.delivery.worker import Timing
from poller.errors import StoreDown
from poller.events import Message
from poller.markets import Market, all_markets
from poller.markets.hk import HONG_KONG
from poller.markets.us import UNITED_STATES
from poller.model import Code
from poller.schedule.notice import Completed, Detected
from poller.simulator.virtual import VirtualLoop, run_virtually
from poller.store.notifier import Notifier
from poller.store.store import ONE_OFF, Entry, Stream, signal_of_webhook
from poller.telemetry.observe import (
    LONGEST_TURN,
    Defect,
    Fact,
    Happened,
    HeartbeatBeat,
    Recovered,
    Trouble,
)
from tests.feed import publish
from tests.memoryoutbox import MemoryOutbox
from tests.memorystore import MemoryStore

BEGAN = datetime(2026, 5, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)
DOWN = Failed("503", 503)


@dataclass
class Line:
    """A sender that answers what `answer` says and remembers when it was asked."""

    answer: Callable[[str, float], Outcome]
    takes: float = 0.0
    calls: list[tuple[float, str]] = field(default_factory=list)
    closed: bool = False
    most_at_once: int = 0
    _now: int = 0

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Answer, after `takes` seconds."""
        (message,) = messages
        self.calls.append((asyncio.get_running_loop().time(), message.id))
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await asyncio.sleep(self.takes)
        self._now -= 1
        return self.answer(message.id, asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Remember it."""
        self.closed = True


class Cut(MemoryOutbox):
    """An outbox whose second exchange is cut off before the server has it."""

    cuts = 0

    async def exchange(self, *told: Any, **how: Any) -> Claimed:  # noqa: ANN401  as they come
        """See `Outbox.exchange`."""
        self.cuts += 1
        if self.cuts == 2:
            raise StoreDown("the connection was cut")
        return await super().exchange(*told, **how)


class CutLate(MemoryOutbox):
    """An outbox whose second exchange is done, and its answer cut off."""

    cuts = 0

    async def exchange(self, *told: Any, **how: Any) -> Claimed:  # noqa: ANN401  as they come
        """See `Outbox.exchange`."""
        claimed = await super().exchange(*told, **how)
        self.cuts += 1
        if self.cuts == 2:
            raise StoreDown("the connection was cut")
        return claimed


class Noting(MemoryOutbox):
    """An outbox that remembers when each lane was claimed last, in the loop's seconds."""

    async def exchange(self, *told: Any, **how: Any) -> Claimed:  # noqa: ANN401  as they come
        """See `Outbox.exchange`."""
        claimed = await super().exchange(*told, **how)
        now = asyncio.get_running_loop().time()
        NOTED.update((claim.lane, now) for claim in claimed.claims)
        return claimed


NOTED: dict[str, float] = {}


class Emptied(MemoryOutbox):
    """An outbox of which somebody has removed the queue, beside 450 deliveries that are kept."""

    told = False

    async def exchange(self, *told: Any, **how: Any) -> Claimed:  # noqa: ANN401  as they come
        """See `Outbox.exchange`; it says so once."""
        claimed, first = await super().exchange(*told, **how), not self.told
        self.told = True
        return replace(claimed, unplaced=450) if first else claimed

    async def unplaced(self, name: str) -> list[tuple[str, str]]:
        """See `Outbox.unplaced`."""
        return [(f"{name}-{n}", "text") for n in range(450)]

    async def add(self, name: str, items: Sequence[QueueItem]) -> int:
        """Note how many were queued in one write."""
        del name
        PUT_BACK.append(len(items))
        return len(items)


PUT_BACK: list[int] = []


@dataclass
class Slowing(Line):
    """A line that takes longer, `then`, from its three hundredth call on."""

    then: float = 60.0

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """See `Line.send`."""
        if len(self.calls) == 299:
            self.takes = self.then
        return await super().send(messages)


@dataclass
class Reader:
    """A chat that remembers when it got which events; `answer` is given how many it had before."""

    answer: Callable[[int], Outcome] = lambda _: Delivered()
    takes: float = 1.0
    calls: list[tuple[float, list[str]]] = field(default_factory=list)

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Answer, after `takes` seconds."""
        ids = [message.id for message in messages]
        self.calls.append((asyncio.get_running_loop().time(), ids))
        await asyncio.sleep(self.takes)
        return self.answer(len(self.calls) - 1)

    async def close(self) -> None:
        """Do nothing."""


@dataclass
class Scene:
    """A relay over memory, in a virtual loop, with a line for each endpoint."""

    lines: dict[str, Any]
    store: MemoryStore
    outbox: MemoryOutbox
    relay: Relay
    facts: list[Fact]
    relaying: asyncio.Task[None]

    async def publish(self, code: str, *days: int) -> None:
        """Append events of one symbol."""
        await publish(self.store, code, days)

    def said(self, kind: type[Fact]) -> list[Fact]:
        """Return the facts of a kind."""
        return [fact for fact in self.facts if isinstance(fact, kind)]


def endpoint(name: str = "desk", **how: Any) -> Endpoint:  # noqa: ANN401
    """Return an endpoint that wants everything."""
    every = Selection(frozenset({"reported", "revised", "backfilled"}))
    return Endpoint(name, "https://example.org/", ("whsec_x",), every, **how)


@dataclass
class Far(MemoryOutbox):
    """An outbox whose exchanges take a second after they are done, as over a slow line."""

    async def exchange(self, *told: Any, **how: Any) -> Claimed:  # noqa: ANN401  as they come
        """See `Outbox.exchange`."""
        claimed = await super().exchange(*told, **how)
        await asyncio.sleep(1)
        return claimed


def play(
    act: Callable[[Scene], Coroutine[Any, Any, None]],
    *endpoints: Endpoint,
    outbox_type: type[MemoryOutbox] = MemoryOutbox,
    look: timedelta = timedelta(minutes=10),
    **lines: Line | Reader,
) -> Scene:
    """Run a scene in virtual time until `act` returns; the relay runs beside it."""

    async def whole() -> Scene:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        clock = lambda: loop.now().timestamp()  # noqa: E731
        store, facts, chance = MemoryStore(clock), list[Fact](), random.Random(1)
        outbox = outbox_type(store, clock)
        notifier = Notifier(store.streams, facts.append, block=3600)
        relay = Relay(
            outbox,
            facts.append,
            news=notifier.news,
            sender=lambda endpoint: lines[endpoint.name],
            jitter=lambda: chance.uniform(-1, 1),
            timing=Timing(look=look),
        )
        relay.configure(endpoints or (endpoint(),))
        for each, stream in itertools.product(endpoints or (endpoint(),), Stream):
            await outbox.begin([each.name], stream)
        relaying, notifying = (asyncio.create_task(one.run()) for one in (relay, notifier))
        scene = Scene(lines, store, outbox, relay, facts, relaying)
        await act(scene)
        running = (scene.relaying, notifying)
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        return scene

    return run_virtually(BEGAN, whole())


def test_the_retry_timeline() -> None:
    """Ten attempts within 75 hours, each delay within a fifth of its length; then a dead letter.

    Which is told, by the id of its event.
    """

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", 1)
        await asyncio.sleep(100 * 3600)
        (letter,) = await scene.outbox.dead("desk")
        assert [attempt.status for attempt in letter.attempts] == [503] * 10
        (told,) = [fact for fact in scene.said(Happened) if "gave up on" in str(fact)]
        assert letter.message is not None
        assert letter.message.id in str(told)
        assert (await scene.outbox.status("desk")).waiting == 0

    line = Line(lambda *_: DOWN)
    play(act, desk=line)
    times = [at for at, _ in line.calls]
    assert len(times) == 10
    delays = [later - earlier for earlier, later in itertools.pairwise(times)]
    for delay, planned in zip(delays, DELAYS, strict=True):
        assert abs(delay / planned.total_seconds() - 1) <= 0.2 + 1e-3
    assert abs((times[-1] - times[0]) / (75.6 * 3600) - 1) <= 0.2


def test_whoever_has_caught_up_goes_on_with_the_others() -> None:
    """An endpoint that was away is behind at first; what comes then it gets as promptly."""

    async def act(scene: Scene) -> None:
        scene.relay.configure([endpoint()])
        await scene.publish("HK.00700", 1, 2)
        await asyncio.sleep(30)
        scene.relay.configure([endpoint(), endpoint("late")])
        await asyncio.sleep(30)
        await scene.publish("HK.00700", 3)
        await asyncio.sleep(30)

    desk, late = Line(lambda *_: Delivered()), Line(lambda *_: Delivered())
    play(act, endpoint(), endpoint("late"), desk=desk, late=late)
    assert len(desk.calls) == 3
    assert [sent for _, sent in late.calls] == [sent for _, sent in desk.calls]


def test_a_long_outage_loses_nothing_and_keeps_the_order() -> None:
    """Back after 30 hours, everything arrives, each symbol in order; told once, ended once."""
    codes = [f"HK.{n:05}" for n in range(1, 21)]

    async def act(scene: Scene) -> None:
        for code in codes:
            await scene.publish(code, 1, 2, 3)
        await asyncio.sleep(80 * 3600)
        assert (await scene.outbox.status("desk")).waiting == 0

    line = Line(lambda _, at: Delivered(200) if at > 30 * 3600 else DOWN)
    scene = play(act, desk=line)
    arrived = [event for at, event in line.calls if at > 30 * 3600]
    assert len(set(arrived)) == 60
    for code in codes:
        mine = [event for event in arrived if event.startswith(code)]
        assert mine == sorted(mine)
    assert {fact for fact in scene.said(Trouble) if isinstance(fact, Trouble)} == {
        Trouble("webhook desk", "fails: 503")
    }
    assert Recovered("webhook desk") in scene.facts


def test_a_relay_that_ended_delivers_again() -> None:
    """Run again, as after a defect, it serves its endpoints as at first."""

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", 1)
        await asyncio.sleep(60)
        scene.relaying.cancel()
        await asyncio.wait([scene.relaying])
        scene.relaying = asyncio.create_task(scene.relay.run())
        await scene.publish("HK.00700", 2)
        await asyncio.sleep(60)

    line = Line(lambda *_: Delivered(200))
    play(act, desk=line)
    assert len(line.calls) == 2


@dataclass
class Counting(MemoryOutbox):
    """An outbox that counts how often it is asked."""

    asked: int = 0

    async def exchange(self, *told: Any, **how: Any) -> Claimed:  # noqa: ANN401  as they come
        """See `Outbox.exchange`."""
        self.asked += 1
        return await super().exchange(*told, **how)


def test_nothing_is_asked_while_nothing_ended_or_is_due() -> None:
    """An hour of nothing costs no exchange; an event costs its own, and a retry at its time."""
    marks: list[int] = []

    async def act(scene: Scene) -> None:
        assert isinstance(scene.outbox, Counting)
        for day in (0, 1, 2):
            if day:
                await scene.publish("HK.00700", day)
            await asyncio.sleep(3600)
            marks.append(scene.outbox.asked)

    first: list[Outcome] = [Delivered(200), DOWN]
    answers: Iterator[Outcome] = itertools.chain(first, itertools.repeat(Delivered(200)))
    line = Line(lambda *_: next(answers))
    play(act, outbox_type=Counting, look=timedelta(seconds=30), desk=line)
    assert len(line.calls) == 3
    assert marks[0] == 1
    assert marks[1] - marks[0] <= 3
    assert marks[2] - marks[1] <= 6


@dataclass
class Broken(Line):
    """A line whose sender has a defect, of which it is mended after some calls."""

    defects: int = 3

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Fail, or see `Line.send`."""
        outcome = await super().send(messages)
        if len(self.calls) <= self.defects:
            raise ZeroDivisionError
        return outcome


def test_a_defect_ends_one_endpoint_for_a_moment() -> None:
    """It is told each time, counts as an attempt, and the others' latency is as it was."""

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", 1)
        await asyncio.sleep(3600)
        await scene.publish("HK.00005", 1)
        await asyncio.sleep(3600)

    desk, up = Broken(lambda *_: Delivered(200)), Line(lambda *_: Delivered(200))
    scene = play(act, endpoint("desk"), endpoint("up"), desk=desk, up=up)
    defects = scene.said(Defect)
    assert [fact.component for fact in defects if isinstance(fact, Defect)] == ["webhook desk"] * 3
    times = [at for at, _ in desk.calls]
    assert len(times) == 5
    for delay, planned in zip(itertools.pairwise(times), DELAYS[:3], strict=False):
        assert abs((delay[1] - delay[0]) / planned.total_seconds() - 1) < 0.3
    assert [round(at % 3600) for at, _ in up.calls] == [0, 0]


@dataclass
class Disordered(MemoryOutbox):
    """An outbox whose keys are out of order at the first exchange."""

    asked: int = 0

    async def exchange(self, *told: Any, **how: Any) -> Claimed:  # noqa: ANN401  as they come
        """See `Outbox.exchange`."""
        self.asked += 1
        if self.asked == 1:
            raise WrongKeyType("its queue is a string")
        return await super().exchange(*told, **how)


def test_keys_in_order_again_are_told_once() -> None:
    """What follows is the endpoint's: while it fails, nothing says that it has recovered."""

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", 1)
        await asyncio.sleep(3600)

    scene = play(act, outbox_type=Disordered, desk=Line(lambda *_: DOWN))
    told = [fact for fact in scene.facts if isinstance(fact, Trouble | Recovered)]
    mine = [fact for fact in told if fact.subject == "webhook desk"]
    assert [type(fact) for fact in mine] == [Trouble, Recovered, Trouble]


def test_what_is_queued_without_a_signal_is_found() -> None:
    """What a process queued that was killed before it said so goes out with the next look."""

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", 1)
        await asyncio.sleep(5)
        (entry,) = await scene.store.streams.read("0", count=10, block=None)
        await scene.outbox.add("desk", [QueueItem(sort_key(entry.id), text_of(entry), "HK.00700")])
        await asyncio.sleep(31)

    line = Line(lambda *_: Delivered(200))
    play(act, look=timedelta(seconds=30), desk=line)
    assert len(line.calls) == 2


def test_one_endpoint_down_does_not_delay_another() -> None:
    """Beside an endpoint that never answers, the other has everything at once."""

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", *range(1, 51))
        await asyncio.sleep(30)

    down, up = Line(lambda *_: Failed("no answer"), takes=20), Line(lambda *_: Delivered(200))
    play(act, endpoint("down"), endpoint("up", rate=1000), down=down, up=up)
    assert len(up.calls) == 50
    assert up.calls[-1][0] < 5


def test_ten_thousand_due_retries_are_no_stampede() -> None:
    """At most eight at once and twenty a second after a first burst."""

    async def act(scene: Scene) -> None:
        for n in range(1000):
            await scene.publish(f"HK.{n:05}", 1)
        await asyncio.sleep(60)

    line = Line(lambda *_: Delivered(200), takes=0.1)
    play(act, desk=line)
    assert line.most_at_once == 8
    assert len(line.calls) == 1000
    times = [at for at, _ in line.calls]
    assert max(sum(at <= t < at + 10 for t in times) for at in times[::50]) <= 10 * 20 + BURST


def test_the_breaker_spares_a_failing_endpoint() -> None:
    """With hundreds of lanes due, a dead endpoint is tried some ten times, then every 30 s."""

    async def act(scene: Scene) -> None:
        for n in range(300):
            await scene.publish(f"HK.{n:05}", 1)
        await asyncio.sleep(300)

    line = Line(lambda *_: DOWN)
    play(act, desk=line)
    assert len(line.calls) <= 10 + 8 + 300 / OPEN_FOR + 1
    assert len([at for at, _ in line.calls if at > 60]) >= 7


def test_a_low_rate_is_no_stuck_loop() -> None:
    """One delivery an hour is kept to, and the loop still turns within half its longest turn."""

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", 1)
        await scene.publish("HK.00005", 1)
        await asyncio.sleep(7200)

    line = Line(lambda *_: Delivered(200))
    slow = endpoint(rate=1 / 3600, connections=1)
    scene = play(act, slow, look=timedelta(seconds=1), desk=line)
    (first, _), (second, _) = line.calls
    assert 3600 - 1e-6 <= second - first < 3600 + LONGEST_TURN
    turns = scene.facts.count(HeartbeatBeat("webhook desk deliveries"))
    assert turns >= 3600 / (LONGEST_TURN / 2)


def test_429_holds_the_endpoint() -> None:
    """After a 429 nothing at all is sent for the time it asked, then all of it."""
    asked = Failed("429", 429, "", timedelta(minutes=3))

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", 1)
        await asyncio.sleep(10)
        await scene.publish("HK.00005", 1)
        await asyncio.sleep(600)

    line = Line(lambda _, at: asked if at < 5 else Delivered(200))
    play(act, desk=line)
    assert len(line.calls) == 3
    assert min(at for at, _ in line.calls[1:]) >= 180


@pytest.mark.parametrize("kind", [MemoryOutbox, Far])
def test_429_stops_what_was_claimed_ahead(kind: type[MemoryOutbox]) -> None:
    """Of hundreds of lanes at hand, only what is in flight still goes out; the rest is kept."""
    asked = Failed("429", 429, "", timedelta(minutes=3))

    async def act(scene: Scene) -> None:
        for n in range(500):
            await scene.publish(f"HK.{n:05}", 1)
        await asyncio.sleep(600)
        assert (await scene.outbox.status("desk")).waiting == 0

    def answer(event: str, _: float) -> Outcome:
        events = [called for _, called in line.calls]
        return asked if events.index(event) == 49 and events.count(event) == 1 else Delivered(200)

    line = Line(answer, takes=0.01)
    play(act, endpoint(connections=4, rate=1000), outbox_type=kind, desk=line)
    refused = line.calls[49][0] + 0.01
    meanwhile = [at for at, _ in line.calls if refused < at < refused + 180]
    assert meanwhile == []
    assert len([at for at, _ in line.calls if at <= refused]) < 50 + 4
    assert max(at for at, _ in line.calls) > refused + 180
    assert len({event for _, event in line.calls}) == 500


def test_no_claim_is_sent_late() -> None:
    """Of an endpoint that gets slower, what waited long is claimed anew before it is sent."""
    ages: list[float] = []

    async def act(scene: Scene) -> None:
        for n in range(500):
            await scene.publish(f"HK.{n:05}", 1)
        await asyncio.sleep(60)
        ages.extend(at - NOTED[event[:8]] for at, event in line.calls)
        assert (await scene.outbox.status("desk")).waiting == 0

    line = Slowing(lambda *_: Delivered(200), takes=0.001, then=0.15)
    play(act, endpoint(connections=1, rate=1000), outbox_type=Noting, desk=line)
    assert len(line.calls) == 500
    assert max(ages) <= 5.0


def test_what_was_claimed_ahead_is_given_back_in_time() -> None:
    """Of an endpoint that gets slow, no lane is kept from other processes, or sent too late."""

    async def act(scene: Scene) -> None:
        for n in range(500):
            await scene.publish(f"HK.{n:05}", 1)
        await asyncio.sleep(3)
        free = await scene.outbox.exchange("desk", [], "t", limit=500, depth=1, ttl=HOUR)
        sent = {event[:8] for _, event in scene.lines["desk"].calls}
        assert {claim.lane for claim in free.claims}.isdisjoint(sent)
        assert len(free.claims) + len(sent) == 500

    slowing = Slowing(lambda *_: Delivered(200), takes=0.01)
    play(act, endpoint(rate=1000), look=timedelta(seconds=1), desk=slowing)


@pytest.mark.parametrize("kind", [Cut, CutLate])
def test_a_settlement_that_did_not_get_through_is_repeated(kind: type[MemoryOutbox]) -> None:
    """Cut off from Redis before or after it was written down, a delivery is not sent again."""

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", 1)
        await asyncio.sleep(120)
        assert (await scene.outbox.status("desk")).waiting == 0

    line = Line(lambda *_: Delivered(200), takes=1)
    scene = play(act, outbox_type=kind, desk=line)
    assert len(line.calls) == 1
    assert any("the connection was cut" in str(fact) for fact in scene.said(Trouble))


def test_a_lost_queue_is_put_back_in_parts() -> None:
    """However many deliveries wait: no single write keeps the server from the others for long."""
    PUT_BACK.clear()

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", 1)
        await asyncio.sleep(60)

    play(act, outbox_type=Emptied, desk=Line(lambda *_: Delivered(200)))
    assert PUT_BACK[-3:] == [200, 200, 50]


def test_410_disables_and_enabling_sends_what_waited() -> None:
    """Nothing is sent to an endpoint that is gone, what comes meanwhile is kept."""

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", 1)
        await asyncio.sleep(60)
        await scene.publish("HK.00700", 2)
        await asyncio.sleep(10 * 3600)
        assert len(scene.lines["desk"].calls) == 1
        assert (await scene.outbox.status("desk")).waiting == 2
        await scene.outbox.enable("desk")
        await scene.store.streams.signal(signal_of_webhook("desk"))
        await asyncio.sleep(3600)

    line = Line(lambda _, at: Failed("410", 410) if at < 60 else Delivered(200))
    scene = play(act, desk=line)
    assert [event[-4:] for _, event in line.calls] == ["01:0", "01:0", "02:0"]
    assert any("poller webhook enable desk" in str(fact) for fact in scene.said(Trouble))


def test_five_days_of_failing_disable() -> None:
    """An endpoint that has failed for five days is given up, and its events are kept."""

    async def act(scene: Scene) -> None:
        for day in range(1, 9):
            await scene.publish(f"HK.{day:05}", day)
            await asyncio.sleep(24 * 3600)
        status = await scene.outbox.status("desk")
        assert "failed for 5 days" in status.disabled
        assert status.waiting > 0

    line = Line(lambda *_: DOWN)
    play(act, desk=line)
    assert GIVE_UP.total_seconds() <= line.calls[-1][0] < GIVE_UP.total_seconds() + 48 * 3600


def test_a_changed_endpoint_gets_what_waited() -> None:
    """Reconfigured, the queue goes to the new place; one left out is closed and keeps its own."""

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", 1, 2)
        await asyncio.sleep(1)
        scene.lines["desk"] = Line(lambda *_: Delivered(200))
        scene.relay.configure([endpoint(rate=7.0)])
        await asyncio.sleep(60)
        assert [event[-4:] for _, event in scene.lines["desk"].calls] == ["01:0", "02:0"]
        scene.relay.configure([])
        await asyncio.sleep(1)
        assert scene.lines["desk"].closed

    line = Line(lambda *_: DOWN)
    play(act, desk=line)
    assert line.closed
    assert len(line.calls) == 1


@pytest.mark.parametrize("takes", [3.0, 60.0])
def test_stopping_finishes_or_gives_back(takes: float) -> None:
    """What ends in time is settled; the rest is due at once for another process."""

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", 1)
        await asyncio.sleep(1)

    async def later(scene: Scene) -> tuple[int, int]:
        claimed = await scene.outbox.exchange("desk", [], "t", limit=9, depth=1, ttl=HOUR)
        return (await scene.outbox.status("desk")).waiting, len(claimed.claims)

    scene = play(act, desk=Line(lambda *_: Delivered(200), takes=takes))
    assert run_virtually(BEGAN, later(scene)) == ((0, 0) if takes < 7 else (1, 1))


@pytest.mark.parametrize(("kind", "after"), [(MemoryOutbox, 0.2), (Far, 1.5)])
def test_stopping_gives_back_what_was_claimed_ahead(kind: type[MemoryOutbox], after: float) -> None:
    """Stopped amid hundreds of lanes: each was delivered once, or is due for another at once."""

    async def act(scene: Scene) -> None:
        for n in range(500):
            await scene.publish(f"HK.{n:05}", 1)
        await asyncio.sleep(after)

    async def later(scene: Scene) -> int:
        return len((await scene.outbox.exchange("desk", [], "t", **every)).claims)

    every: Any = {"limit": 500, "depth": 1, "ttl": HOUR}
    line = Line(lambda *_: Delivered(200), takes=0.01)
    scene = play(act, endpoint(rate=1000), outbox_type=kind, desk=line)
    assert 0 < len(line.calls) < 500
    assert run_virtually(BEGAN, later(scene)) + len(line.calls) == 500


def test_foreign_entries_are_passed_over() -> None:
    """Whatever else somebody appends to the stream is named, and stops nothing."""

    async def act(scene: Scene) -> None:
        scene.store.streams.entries.append(Entry("1-0", {"hello": "world"}))
        await scene.publish("HK.00700", 1)
        await asyncio.sleep(1)

    line = Line(lambda *_: Delivered(200))
    scene = play(act, desk=line)
    assert len(line.calls) == 1
    assert any("1-0 is not an event of ours" in str(fact) for fact in scene.said(Happened))


CHAT = endpoint("chat", destination="feishu", wait=timedelta(seconds=60))


def notices(*markets: Market) -> list[Detected | Completed]:
    """Return the two notices of a report of each market."""
    day, at = date(2020, 1, 3), BEGAN
    return [
        notice
        for market in markets
        for notice in (
            Detected(market, day, at, Code(f"{market}.00700")),
            Completed(market, day, at, 299, (Code(f"{market}.00005"),)),
        )
    ]


def test_notices_go_to_whom_selected_them() -> None:
    """By kind and by market, a market's in order; nobody else's lag grows."""

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", 1)
        for notice in notices(HONG_KONG, UNITED_STATES):
            await scene.store.plans.announce(notice, ONE_OFF)
        scene.store.streams.notices.append(Entry("9999999999999-0", {"type": "release.detected"}))
        await scene.publish("HK.00005", 1)
        await asyncio.sleep(3600)
        for name in lines:
            status = await scene.outbox.status(name)
            assert (status.lag, status.waiting) == (0, 0)

    both = Selection(frozenset({"release.detected", "release.completed"}))
    hk = Selection(frozenset({"release.completed", "backfilled"}), ("HK.00700",), "shares > 1e9")
    lines: Any = {name: Line(lambda *_: Delivered(200)) for name in ("all", "hk", "events")}
    endpoints = [
        Endpoint("all", "https://example.org/", ("whsec_x",), both),
        Endpoint("hk", "https://example.org/", ("whsec_x",), hk),
        endpoint("events"),
    ]
    scene = play(act, *endpoints, **lines)
    told = {name: [event for _, event in line.calls] for name, line in lines.items()}
    assert sorted(told["all"]) == [
        "HK:2020-01-03:completed", "HK:2020-01-03:detected",
        "US:2020-01-03:completed", "US:2020-01-03:detected",
    ]  # fmt: skip
    for market in all_markets():
        mine = [event[14:] for event in told["all"] if event.startswith(market.name)]
        assert mine == ["detected", "completed"]
    assert told["hk"] == ["HK:2020-01-03:completed"]
    assert sorted(told["events"]) == ["HK.00005:2020-01-01:0", "HK.00700:2020-01-01:0"]
    assert max(at for at, _ in lines["all"].calls) < 1
    assert any("9999999999999-0 is not an event of ours" in str(f) for f in scene.said(Happened))


def test_a_chat_hears_of_a_report_at_once() -> None:
    """A notice is a message of its own and waits for no digest, nor the second for the first."""

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00700", 1)
        for notice in notices(HONG_KONG):
            await scene.store.plans.announce(notice, ONE_OFF)
            await asyncio.sleep(2)
        await asyncio.sleep(600)

    reader = Reader(takes=3)
    every = Selection(frozenset(EVENTS))
    chat = replace(CHAT, selection=every)
    play(act, chat, chat=reader)
    assert [ids for _, ids in reader.calls] == [
        ["HK:2020-01-03:detected"], ["HK:2020-01-03:completed"], ["HK.00700:2020-01-01:0"],
    ]  # fmt: skip
    assert [at for at, _ in reader.calls] == pytest.approx([0, 3, 60], abs=1)


def test_a_sweep_is_one_message_a_market_and_day() -> None:
    """500 symbols over eight minutes, a few of them with two days: sent a minute after the last."""

    async def act(scene: Scene) -> None:
        for n in range(1, 501):
            await asyncio.sleep(0.96)
            if n % 20 == 0:
                await scene.publish(f"HK.{n:05}", 1, 2)
            else:
                await scene.publish(f"HK.{n:05}", 1)
            if n % 2 == 0:
                await scene.publish(f"US.A{n}", 1)
        await asyncio.sleep(600)

    reader = Reader()
    play(act, CHAT, chat=reader)
    sizes = {(ids[0][:2], ids[0].split(":")[1]): len(ids) for _, ids in reader.calls}
    assert len(reader.calls) == 3
    assert sizes == {
        ("HK", "2020-01-01"): 500, ("HK", "2020-01-02"): 25, ("US", "2020-01-01"): 250,
    }  # fmt: skip
    assert all(at == pytest.approx(480 + 60, abs=1) for at, _ in reader.calls)


def test_a_trickle_without_end_is_cut() -> None:
    """A symbol every fifty seconds: a message every half hour, and nothing twice or never."""

    async def act(scene: Scene) -> None:
        for n in range(1, 101):
            await scene.publish(f"HK.{n:05}", 1)
            await asyncio.sleep(50)
        await asyncio.sleep(600)

    reader = Reader()
    play(act, CHAT, chat=reader)
    times = [at for at, _ in reader.calls]
    assert times[0] == pytest.approx(MOST_WAITS * 60, abs=1)
    assert all(later - earlier <= 1900 for earlier, later in itertools.pairwise(times))
    assert len(times) == 3
    arrived = [event for _, ids in reader.calls for event in ids]
    assert len(arrived) == len(set(arrived)) == 100


def test_a_message_that_failed_is_retried_at_its_time() -> None:
    """What comes meanwhile neither hurries the retry nor puts it off, and goes with it."""

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00001", 1)
        await asyncio.sleep(62)
        await scene.publish("HK.00002", 1)
        await asyncio.sleep(10)
        for n in range(3, 8):
            await scene.publish(f"HK.{n:05}", 1)
            await asyncio.sleep(30)
        await asyncio.sleep(600)

    reader = Reader(lambda calls: Delivered() if calls == 2 else DOWN)
    play(act, CHAT, chat=reader)
    (first, _), (second, two), (third, seven) = reader.calls
    assert second - first - 1 == pytest.approx(5, rel=0.21)
    assert third - second - 1 == pytest.approx(300, rel=0.21)
    assert [len(two), len(seven)] == [2, 7]


def test_what_comes_late_is_in_the_next_message() -> None:
    """While a message is sent, and long after: it gathers anew."""

    async def act(scene: Scene) -> None:
        await scene.publish("HK.00001", 1)
        await asyncio.sleep(61)
        await scene.publish("HK.00002", 1)
        await asyncio.sleep(3600)
        await scene.publish("HK.00003", 1)
        await asyncio.sleep(30)
        await scene.publish("HK.00004", 1)
        await asyncio.sleep(600)

    reader = Reader(takes=5)
    play(act, CHAT, chat=reader)
    assert [[event[:8] for event in ids] for _, ids in reader.calls] == [
        ["HK.00001"], ["HK.00002"], ["HK.00003", "HK.00004"],
    ]  # fmt: skip
    assert [at for at, _ in reader.calls] == pytest.approx([60, 125, 3661 + 90], abs=1)


@pytest.mark.parametrize(
    ("outcome", "attempt", "verdict"),
    [
        (Delivered(204), 3, Done()),
        (DOWN, 1, Later(timedelta(seconds=5))),
        (DOWN, 9, Later(timedelta(hours=24))),
        (DOWN, 10, Dead()),
        (Failed("429", 429), 1, Later(timedelta(minutes=1), timedelta(minutes=1))),
        (Failed("429", 429), 4, Later(timedelta(hours=2), timedelta(minutes=1))),
        (Failed("429", 429), 10, Dead(timedelta(minutes=1))),
        (Failed("502", 502), 2, Later(timedelta(minutes=5), timedelta(seconds=5))),
        (Failed("503", 503, "", HOUR), 1, Later(HOUR, HOUR)),
        (Failed("503", 503, "", 99 * HOUR), 1, Later(24 * HOUR, 24 * HOUR)),
        (Failed("410", 410), 1, Disable("it answered 410: the receiver is gone for good")),
    ],
)
def test_what_follows_an_attempt(outcome: Outcome, attempt: int, verdict: object) -> None:
    """The schedule, Retry-After as a floor, and the two answers that mean more."""
    assert decide(outcome, attempt=attempt, failing=timedelta(0), jitter=0) == verdict


@given(attempt=st.integers(1, 9), jitter=st.floats(-1, 1))
def test_jitter_stays_within_a_fifth(attempt: int, jitter: float) -> None:
    """No delay is shortened or lengthened by more."""
    verdict = decide(DOWN, attempt=attempt, failing=timedelta(0), jitter=jitter)
    assert isinstance(verdict, Later)
    ratio = verdict.delay / DELAYS[attempt - 1]
    assert 0.8 - 1e-6 <= ratio <= 1.2 + 1e-6


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120), ("0", 0), ("1.5", 1.5), ("1e99", 86400), ("-3", None), ("inf", None),
        ("nan", None), ("soon", None), ("", None), (None, None),
        ("Fri, 08 May 2026 00:02:00 -0000", 120), ("Fri, 08 May 2026 02:02:00 +0200", 120),
        ("Fri, 08 May 2026 00:02:00 GMT", 120), ("Fri, 08 May 2020 00:02:00 GMT", 0),
    ],
)  # fmt: skip
def test_retry_after_in_both_forms(text: str | None, seconds: float | None) -> None:
    """Seconds or a date; what cannot be read counts as absent, what is past as now."""
    found = retry_after(text, BEGAN)
    assert found == (None if seconds is None else timedelta(seconds=seconds))


@given(st.text())
def test_retry_after_never_raises(text: str) -> None:
    """Whatever a server writes there."""
    retry_after(text, BEGAN)


def test_how_much_is_claimed_ahead() -> None:
    """As much as ended in the last half second; nothing to an endpoint that is slow."""
    pace = Pace(connections=8, rate=1e6)
    assert pace.wanted(0, 0) == 8
    for n in range(100):
        pace.breaker.record(n / 100, good=True)
    assert pace.wanted(1, 0) == 8 + 49
    assert pace.wanted(1, 8) == 49
    assert pace.wanted(2, 8) == 0
    for _ in range(2 * MOST_PREFETCHED):
        pace.breaker.record(2, good=True)
    assert pace.wanted(2, 0) == 8 + MOST_PREFETCHED
    for _ in range(10 * MOST_PREFETCHED):
        pace.breaker.record(2, good=False)
    assert pace.wanted(2, 0) == 0
    assert pace.wanted(2 + OPEN_FOR, 0) == 1


def test_the_breaker() -> None:
    """Seven of ten open it, one probe decides after 30 s, old attempts are forgotten."""
    breaker = Breaker()
    for n in range(10):
        breaker.record(n, good=n < 3)
    assert breaker.opens_at() == 9 + OPEN_FOR
    pace = Pace(connections=8, rate=100)
    pace.breaker = breaker
    assert [pace.room(t, 0) for t in (10, 38, 39)] == [0, 0, 1]
    assert pace.room(39, 1) == 0
    pace.started()
    breaker.record(40, good=False)
    assert pace.room(60, 0) == 0
    pace.started()
    breaker.record(71, good=True)
    assert pace.room(71, 0) == 8
    for n in range(9):
        breaker.record(100 + n, good=False)
    breaker.record(100 + 301, good=False)
    assert breaker.opens_at() is None
