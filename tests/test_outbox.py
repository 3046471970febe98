"""One suite for every outbox: in memory, the embedded Valkey, Debian's Redis, Redis 8."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from poller.delivery.destinations.webhook import body_of
from poller.delivery.outbox import (
    FURTHEST,
    MOST_WAITS,
    NOTED,
    Claim,
    Claimed,
    Outbox,
    OutboxKeys,
    QueueItem,
    Settlement,
    Take,
    Taken,
    WrongKeyType,
)
from poller.delivery.queued import (
    Attempt,
    delivery_of,
    from_sort_key,
    release_key,
    sort_key,
    text_of,
)
from poller.delivery.redisoutbox import RedisOutbox
from poller.errors import StoreMisfit
from poller.events import Foreign, decode
from poller.markets.hk import HONG_KONG
from poller.model import Code
from poller.schedule.notice import Detected
from poller.store.position import SKEW, Start
from poller.store.redisstore import RedisStore
from poller.store.store import ONE_OFF, Entry, Stream, order
from tests.feed import Store, publish
from tests.machine import at_most
from tests.memoryoutbox import MemoryOutbox
from tests.memorystore import MemoryStore
from tests.servers import KINDS, running

NAME = "desk"
A, B = Code("HK.00700"), Code("HK.00005")
NOW = datetime(2026, 5, 8, 9, tzinfo=UTC)
KEYS = OutboxKeys("short-interest", NAME)
TTL = timedelta(seconds=30)
AGAIN = timedelta(minutes=5)
WAIT = 60.0
"""Seconds."""


@dataclass(frozen=True)
class Place:
    """A store and the outbox over its stream; `raw`: a plain client where there is a server."""

    store: Store
    outbox: Outbox
    raw: Any = None

    async def publish(self, code: Code, *days: int) -> list[Entry]:
        """Append an event a day of January 2020; returns all entries."""
        await publish(self.store, code, days)
        return await self.store.streams.read("0", count=100, block=None)

    async def announce(self, *days: int) -> list[Entry]:
        """Tell of reports of days of January 2020; returns all notices."""
        for day in days:
            notice = Detected(HONG_KONG, date(2020, 1, day), NOW, A)
            await self.store.plans.announce(notice, ONE_OFF)
        return await self.store.streams.read("0", count=100, block=None, stream=Stream.RELEASES)

    async def queue(self, *entries: Entry) -> None:
        """Take everything that follows; queue the given entries."""
        after = await self.begin()
        new = await self.store.streams.read(after, count=100, block=None)
        upto = new[-1].id if new else after
        assert await self.take(after, upto, [chosen(e) for e in entries])

    async def begin(self, name: str = NAME, stream: Stream = Stream.EVENTS) -> str:
        """Return where an endpoint goes on."""
        start = (await self.outbox.begin([name], stream))[name]
        assert not isinstance(start, WrongKeyType)
        return start.position

    async def take(
        self,
        after: str,
        upto: str,
        items: Sequence[QueueItem] = (),
        stream: Stream = Stream.EVENTS,
    ) -> bool:
        """Take for the endpoint; False when its record was another."""
        taken = (await self.outbox.take([Take(NAME, after, upto, items)], stream))[NAME]
        assert not taken.problem
        return not taken.superseded

    async def claim(self, *, limit: int = 10, depth: int = 1, ttl: timedelta = TTL) -> list[Claim]:
        """Claim what is due, under a token of its own."""
        return list((await self.exchange(limit=limit, depth=depth, ttl=ttl)).claims)

    async def settle(self, *settlements: Settlement) -> int:
        """Write down how claims ended, claiming nothing; returns how many lanes retry."""
        return (await self.exchange(*settlements, limit=0)).retrying

    async def exchange(
        self, *settlements: Settlement, limit: int = 10, depth: int = 1, ttl: timedelta = TTL
    ) -> Claimed:
        """Do both in one, under a token of its own."""
        token = f"{time.perf_counter_ns()}"
        return await self.outbox.exchange(
            NAME, settlements, token, limit=limit, depth=depth, ttl=ttl
        )

    async def later(self, by: timedelta) -> None:
        """Leave the endpoint's times as they would stand had the clock stepped ahead since.

        So does a service that was off; a negative span: the clock was set back.
        """
        seconds = by.total_seconds()
        if isinstance(self.outbox, MemoryOutbox):
            queue = self.outbox.queues[NAME]
            queue.due = {lane: at - seconds for lane, at in queue.due.items()}
            queue.hold_until -= seconds
            for name in ("seen", "failing_since"):
                at = getattr(queue, name)
                setattr(queue, name, None if at is None else at - seconds)
            return
        keys, millis = OutboxKeys("short-interest", NAME), round(seconds * 1000)
        for lane in await self.raw.zrange(keys.due, 0, -1):
            await self.raw.zincrby(keys.due, -millis, lane)
        for name in ("seen", "failing_since", "hold_until"):
            if await self.raw.hexists(keys.state, name):
                await self.raw.hincrby(keys.state, name, -millis)


@pytest.fixture(params=["memory", *KINDS])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """An outbox of each kind, whose endpoint begins at an empty stream."""
    if request.param == "memory":
        memory = MemoryStore(time.time)
        made = Place(memory, MemoryOutbox(memory, time.time))
        await made.begin()
        yield made
        return
    async with running(request.param, tmp_path) as url:
        store, outbox = RedisStore(url, "short-interest"), RedisOutbox(url, "short-interest")
        raw = Redis.from_url(url, decode_responses=True)
        await outbox.begin([NAME])
        yield Place(store, outbox, raw)
        for each in (store, outbox):
            await each.close()
        await raw.aclose()


def chosen(entry: Entry) -> QueueItem:
    """Route an entry to the lane of its symbol."""
    return item(entry, entry.fields["code"])


def item(entry: Entry, lane: str, wait: float = 0) -> QueueItem:
    """Route an entry to a lane."""
    return QueueItem(sort_key(entry.id), text_of(entry), lane, timedelta(seconds=wait))


def ids(claim: Claim) -> list[str]:
    """Return what a claim holds, by the ids on the stream."""
    return [from_sort_key(delivery.key) for delivery in claim.deliveries]


def told(claims: Sequence[Claim]) -> dict[str, list[str]]:
    """Return the trading days of each claimed lane."""
    return {c.lane: [f"{d.message.trading_day:%d}" for d in c.deliveries] for c in claims}


def failed(claim: Claim, reason: str = "503", **how: Any) -> Settlement:  # noqa: ANN401
    """Return a settlement of a failed attempt, to be repeated much later."""
    attempts = (*claim.attempts, Attempt(NOW, 503, reason, "sorry"))
    return Settlement(claim, "later", attempts, **{"delay": AGAIN, **how})


async def test_a_lane_is_sent_in_order_one_at_a_time(place: Place) -> None:
    """The later event of a symbol waits for the earlier one; symbols do not wait for others."""
    await place.publish(A, 2, 10, 17)
    await place.queue(*await place.publish(B, 2))
    first = await place.claim()
    assert told(first) == {A: ["02"], B: ["02"]}
    assert await place.claim() == []
    await place.settle(*[Settlement(claim, "sent") for claim in first])
    (second,) = await place.claim()
    assert told([second]) == {A: ["10"]}
    await place.settle(failed(second))
    assert await place.claim() == []
    status = await place.outbox.status(NAME)
    assert (status.waiting, status.retrying, status.lag) == (2, 1, 0)
    assert status.last_error == "503"
    assert status.last_success is not None
    assert status.failing_since is not None
    assert status.next_attempt is not None
    assert AGAIN - TTL < status.next_attempt - datetime.now(UTC) <= AGAIN


async def test_of_two_processes_one_takes(place: Place) -> None:
    """Two processes that read the same entries queue them once; the other is told."""
    entries = await place.publish(A, 2, 10)
    after, items = await place.begin(), [chosen(e) for e in entries]
    outcomes = await asyncio.gather(*[place.take(after, entries[-1].id, items) for _ in "12"])
    assert sorted(outcomes) == [False, True]
    assert (await place.outbox.status(NAME)).waiting == 2
    assert await place.begin() == entries[-1].id


async def test_many_endpoints_take_at_once(place: Place) -> None:
    """Each has what it takes; one that another process has moved is left alone, the others not."""
    names = [f"desk{n}" for n in range(150)]
    entries = await place.publish(A, 2, 10)
    begun = await place.outbox.begin(names)
    upto = entries[-1].id
    await place.outbox.take([Take(names[1], upto, upto)])
    takes = [Take(name, upto, upto, [chosen(entries[0])]) for name in names]
    takes[1] = Take(names[1], "1-0", upto, [chosen(entries[0])])
    taken = await place.outbox.take(takes)
    assert [name for name in names if taken[name].superseded] == [names[1]]
    waiting = [(await place.outbox.status(name)).waiting for name in names[:3]]
    assert waiting == [1, 0, 1]
    assert len(begun) == 150
    assert await place.outbox.due(names) == {*names} - {names[1]}


async def test_what_many_endpoints_get_is_decoded_once(place: Place) -> None:
    """What one endpoint claims is the very object that another does, with the same body.

    It is the one that was made when the entry was read from the stream.
    """
    entries = await place.publish(A, 2)
    message = decode(entries[0].id, entries[0].fields)
    assert not isinstance(message, Foreign)
    read = delivery_of(sort_key(entries[0].id), entries[0], message)
    names = ["one", "two"]
    await place.outbox.begin(names)
    for name in names:
        await place.outbox.add(name, [chosen(entries[0])])
    one, two = [
        (await place.outbox.exchange(n, [], "t", limit=1, depth=1, ttl=TTL)).claims[0]
        for n in names
    ]
    assert one.deliveries[0] is two.deliveries[0] is read
    assert body_of(one.deliveries[0].message) is body_of(two.deliveries[0].message)


async def test_a_new_endpoint_starts_with_what_comes_next(place: Place) -> None:
    """What stood on the stream before is not sent, and counts as no lag."""
    await place.publish(A, 2)
    assert await place.begin("new") == (await place.store.streams.last_entries(1))[0].id
    assert (await place.outbox.status("new")).lag == 0
    assert (await place.outbox.status(NAME)).lag == 1


async def test_the_group_tells_how_far_the_endpoint_is(place: Place) -> None:
    """Whoever asks the server sees how much was read, where the server counts it."""
    if place.raw is None:
        return
    after = await place.begin()
    first, *_ = await place.publish(A, 2, 3, 4)
    taken = await place.outbox.take([Take(NAME, after, first.id)], read=1)
    assert taken[NAME] == Taken()
    (group,) = await place.raw.xinfo_groups("short-interest")
    assert group["last-delivered-id"] == first.id
    assert (group.get("entries-read", 1), group.get("lag", 2)) == (1, 2)


async def test_the_releases_are_taken_beside_the_events(place: Place) -> None:
    """A position on each stream, one lag; who moves one leaves the other where it was."""
    begun = await place.begin(stream=Stream.RELEASES)
    told = await place.announce(2, 9)
    events = await place.publish(A, 2)
    assert list((await place.outbox.follow(begun, 9, Stream.RELEASES)).entries) == told
    assert (await place.outbox.status(NAME)).lag == 3
    notices = [item(Entry(release_key(e.id), e.fields), "release:HK") for e in told]
    upto = told[-1].id
    await place.begin()
    assert not await place.take("7-7", upto, notices)
    assert await place.take(begun, upto, notices, Stream.RELEASES)
    assert not await place.take(begun, upto, notices, Stream.RELEASES)
    await place.queue(*events)
    assert (await place.outbox.status(NAME)).lag == 0
    assert await place.begin(stream=Stream.RELEASES) == upto
    lanes = {claim.lane: claim.deliveries[0].message.id for claim in await place.claim()}
    assert lanes == {A: f"{A}:2020-01-02:0", "release:HK": "HK:2020-01-02:detected"}


async def test_a_notice_is_no_event_of_the_same_id(place: Place) -> None:
    """Ids of the two streams may be equal; fields, attempts and dead letters are not mixed up."""
    (event,) = await place.publish(A, 2)
    (told,) = await place.announce(2)
    notice = item(Entry(release_key(event.id), told.fields), "release:HK")
    both = [chosen(event), notice]
    assert await place.outbox.add(NAME, both) == 2
    assert await place.outbox.add(NAME, both) == 0
    claims = {claim.lane: claim for claim in await place.claim()}
    assert [d.message.id for d in claims[A].deliveries] == [event.fields["id"]]
    assert [d.message.id for d in claims["release:HK"].deliveries] == [told.fields["id"]]
    failure = failed(claims["release:HK"], delay=timedelta(0))
    await place.settle(failure, Settlement(claims[A], "dead", failure.attempts))
    (again,) = await place.claim()
    assert (ids(again), len(again.attempts)) == ([release_key(event.id)], 1)
    await place.settle(Settlement(again, "dead", again.attempts))
    keys = {letter.key for letter in await place.outbox.dead(NAME)}
    assert keys == {sort_key(event.id), notice.key}
    assert await place.outbox.add(NAME, both[1:]) == 1
    assert [letter.key for letter in await place.outbox.dead(NAME)] == [sort_key(event.id)]


@given(st.integers(0, 10**14), st.integers(0, 10**7), st.booleans())
def test_a_sort_key_is_read_back(milliseconds: int, number: int, notice: bool) -> None:  # noqa: FBT001
    """What comes back is what was given, whichever stream it is of."""
    entry_id = f"{milliseconds}-{number}"
    given_id = release_key(entry_id) if notice else entry_id
    assert release_key(release_key(entry_id)) == release_key(entry_id)
    assert from_sort_key(sort_key(given_id)) == given_id


async def test_a_lost_claim_comes_back(place: Place) -> None:
    """The lane of a killed process is claimed anew; the late settlement changes nothing."""
    await place.queue(*await place.publish(A, 2))
    (lost,) = await place.claim(ttl=timedelta(0))
    (again,) = await place.claim()
    assert ids(again) == ids(lost)
    await place.settle(failed(lost))
    assert (await place.outbox.status(NAME)).retrying == 0
    await place.settle(Settlement(again, "sent"))
    assert (await place.outbox.status(NAME)).waiting == 0


async def test_an_exchange_settles_before_it_claims(place: Place) -> None:
    """What a settlement sets free is claimed at once; written twice, it changes nothing more."""
    await place.queue(*await place.publish(A, 2, 10, 17))
    (first,) = await place.claim()
    (second,) = (await place.exchange(Settlement(first, "sent"))).claims
    assert told([second]) == {A: ["10"]}
    assert (await place.exchange(Settlement(first, "sent"))).claims == ()
    assert (await place.outbox.status(NAME)).waiting == 2
    claimed = await place.exchange(
        failed(second, delay=timedelta(0), hold=timedelta(seconds=60)), Settlement(first, "sent")
    )
    assert (claimed.claims, claimed.retrying) == ((), 1)
    assert claimed.failing_since == claimed.at


async def test_many_are_settled_and_claimed_at_once(place: Place) -> None:
    """However many lanes there are, each is claimed once and nothing of it is left behind."""
    lanes = [f"HK.{n:05}" for n in range(2500)]
    for code in lanes[:5]:
        entries = await place.publish(Code(code), 2)
    fields = entries[0].fields
    many = [item(Entry(f"9-{n}", fields), lane) for n, lane in enumerate(lanes)]
    assert await place.outbox.add(NAME, many) == 2500
    claims = await place.claim(limit=3000)
    assert sorted(claim.lane for claim in claims) == lanes
    sent = [Settlement(claim, "sent") for claim in claims]
    assert (await place.exchange(*sent, limit=9)).claims == ()
    status = await place.outbox.status(NAME)
    assert (status.waiting, status.next_attempt) == (0, None)


async def test_what_follows_on_the_stream(place: Place) -> None:
    """Entries after an id, oldest first, as many as are asked for, with whatever text they hold."""
    entries = await place.publish(A, 2, 10, 17)
    batch = await place.outbox.follow("0-0", 2)
    assert (list(batch.entries), batch.whole) == (entries[:2], False)
    batch = await place.outbox.follow(entries[0].id, 9)
    assert (list(batch.entries), batch.whole) == (entries[1:], True)
    assert (batch.first, batch.last) == (entries[0].id, entries[-1].id)
    assert list((await place.outbox.follow(entries[-1].id, 9)).entries) == []
    if place.raw is not None:
        odd = {'é\n"': "\u2028\x00/\\"}
        id_ = await place.raw.xadd("short-interest", odd)
        assert list((await place.outbox.follow(entries[-1].id, 9)).entries) == [Entry(id_, odd)]


async def test_what_was_returned_is_due_at_once(place: Place) -> None:
    """A process that stops gives back what it has not tried."""
    await place.queue(*await place.publish(A, 2))
    (claim,) = await place.claim()
    await place.settle(Settlement(claim, "returned"))
    (again,) = await place.claim()
    assert (ids(again), again.attempts) == (ids(claim), ())


@pytest.mark.parametrize("place", KINDS, indirect=True)  # memory forgets nothing
async def test_where_an_endpoint_was_is_told_to_a_server_that_forgot(place: Place) -> None:
    """What its process remembers counts while there is no record of it, and no longer."""
    first, second, last = await place.publish(A, 1, 2, 3)
    for remembered, position in ((first.id, first.id), (second.id, first.id)):
        found = await place.outbox.begin(["late"], remembered={"late": remembered})
        assert isinstance(found["late"], Start)
        assert found["late"].position == position
    found = await place.outbox.begin(["new"], remembered={"late": second.id})
    assert isinstance(found["new"], Start)
    assert found["new"].position == last.id


@pytest.mark.parametrize("place", KINDS, indirect=True)
@pytest.mark.parametrize("sign", ["last_success", "last_error_at"])
async def test_an_endpoint_without_a_record_goes_on_from_its_last_sign_of_life(
    place: Place, sign: str
) -> None:
    """An older version left no position, and its group is lost: what came since is not."""
    state, now = OutboxKeys("short-interest", "old").state, int(1000 * time.time())
    await place.publish(A, 1)
    await place.raw.hset(state, "last_success", now - 3_600_000)
    await place.raw.hset(state, sign, now - 300_000)
    found = (await place.outbox.begin(["old"]))["old"]
    assert isinstance(found, Start)
    assert found.gone
    assert order(found.position)[0] == now - 300_000 - SKEW


async def test_attempts_are_remembered(place: Place) -> None:
    """Every failed attempt of a delivery is there when it is claimed again, and only its own."""
    await place.queue(*await place.publish(A, 2, 10))
    for n in range(2):
        (claim,) = await place.claim()
        assert len(claim.attempts) == n
        await place.settle(failed(claim, delay=timedelta(0)))
    (claim,) = await place.claim()
    assert [(a.status, a.reason, a.answer, a.at) for a in claim.attempts] == [
        (503, "503", "sorry", NOW)
    ] * 2
    await place.settle(Settlement(claim, "sent"))
    (following,) = await place.claim()
    assert following.attempts == ()


async def test_a_dead_letter_keeps_everything_and_can_be_sent_again(place: Place) -> None:
    """Event and attempts are kept, the lane goes on; re-queued, it stands before younger ones."""
    await place.queue(*await place.publish(A, 2, 10))
    (claim,) = await place.claim()
    attempts = (Attempt(NOW, 500, "500", "é\n"), Attempt(NOW, None, "no answer", ""))
    await place.settle(Settlement(claim, "dead", attempts))
    (letter,) = await place.outbox.dead(NAME)
    assert (letter.key, letter.message) == (claim.deliveries[0].key, claim.deliveries[0].message)
    assert letter.attempts == attempts
    assert (await place.outbox.status(NAME)).dead == 1
    again = QueueItem(letter.key, letter.text, A)
    assert await place.outbox.add(NAME, [again]) == 1
    assert await place.outbox.add(NAME, [again]) == 0
    assert await place.outbox.dead(NAME) == []
    assert told(await place.claim(depth=5)) == {A: ["02", "10"]}


async def test_a_disabled_endpoint_takes_but_does_not_send(place: Place) -> None:
    """Disabled, events are still queued; enabled, all of it is due with all its attempts."""
    await place.queue(*await place.publish(A, 2))
    (claim,) = await place.claim()
    await place.settle(failed(claim, disable="it answered 410"))
    await place.queue((await place.publish(B, 2))[-1])
    claimed = await place.exchange()
    assert (claimed.claims, claimed.disabled) == ((), "it answered 410")
    status = await place.outbox.status(NAME)
    assert (status.disabled, status.next_attempt) == ("it answered 410", None)
    await place.outbox.enable(NAME)
    claims = await place.claim()
    assert told(claims) == {A: ["02"], B: ["02"]}
    assert [claim.attempts for claim in claims] == [(), ()]


async def test_enabling_leaves_alone_what_is_being_sent(place: Place) -> None:
    """A lane in flight is not claimed by a second process because somebody enables."""
    await place.queue(*await place.publish(A, 2))
    await place.claim()
    await place.outbox.enable(NAME)
    assert await place.claim() == []


@pytest.mark.parametrize("place", KINDS, indirect=True)
async def test_enabling_finds_lanes_whose_time_is_gone(place: Place) -> None:
    """Somebody removed them: everything that waits is due, and not only what has a time."""
    codes = [A, B, Code("HK.00001"), Code("HK.00002")]
    for code in codes:
        entries = await place.publish(code, 2)
    await place.queue(*entries)
    await place.raw.zrem(KEYS.due, *codes[1:])
    await place.outbox.enable(NAME)
    assert told(await place.claim()) == {code: ["02"] for code in codes}


@pytest.mark.parametrize("place", KINDS, indirect=True)
async def test_a_queue_out_of_order_is_put_in_order(place: Place) -> None:
    """A score that another client gave a delivery hides neither its lane nor another one."""
    await place.publish(A, 1, 2)
    entries = await place.publish(B, 3)
    await place.queue(*entries)
    _, later, other = (f"{entry.fields['code']}|{sort_key(entry.id)}" for entry in entries)
    await place.raw.zadd(KEYS.queue, {later: -3, other: 5})
    assert told(await place.claim(depth=10)) == {A: ["01", "02"], B: ["03"]}


@pytest.mark.parametrize("place", KINDS, indirect=True)
async def test_a_lane_that_holds_nothing_is_let_go(place: Place) -> None:
    """Somebody gave it a time: it is no claim, keeps no other lane, and is due no longer."""
    await place.queue(*await place.publish(A, 2))
    await place.raw.zadd(KEYS.due, {"ghost": 0})
    assert told(await place.claim()) == {A: ["02"]}
    assert await place.raw.zscore(KEYS.due, "ghost") is None


async def test_who_has_something_due(place: Place) -> None:
    """An endpoint with a lane whose time has come; none whose lanes wait, and none without any."""
    entries, after = await place.publish(A, 2), await place.begin()
    assert await place.outbox.due([NAME]) == frozenset()
    assert await place.take(after, entries[-1].id, [item(entries[0], A, WAIT)])
    assert await place.outbox.due([NAME]) == frozenset()
    await place.later(timedelta(seconds=WAIT + 1))
    assert await place.outbox.due(["nobody", NAME]) == {NAME}


@pytest.mark.parametrize("place", KINDS, indirect=True)
async def test_what_has_no_time_of_ours_is_looked_at(place: Place) -> None:
    """One that was removed, one beyond all bounds, a key of another type: nothing waits for it."""
    await place.queue(*await place.publish(A, 2))
    await place.raw.delete(KEYS.due)
    assert await place.outbox.due([NAME]) == {NAME}
    beyond = datetime.now(UTC) + FURTHEST + timedelta(hours=1)
    await place.raw.zadd(KEYS.due, {A: 1000 * beyond.timestamp()})
    assert await place.outbox.due([NAME]) == {NAME}
    await place.raw.set(KEYS.due, "x")
    assert await place.outbox.due([NAME]) == {NAME}


async def test_a_held_endpoint_is_left_alone(place: Place) -> None:
    """After a 429 no lane of the endpoint is sent, until its time; other endpoints do not care."""
    await place.queue(*await place.publish(A, 2))
    (claim,) = await place.claim()
    hold = timedelta(seconds=60)
    await place.settle(failed(claim, hold=hold))
    await place.queue((await place.publish(B, 2))[-1])
    claimed = await place.exchange()
    assert claimed.claims == ()
    assert claimed.wait is not None
    assert hold - TTL < claimed.wait <= hold


async def test_the_longest_hold_counts(place: Place) -> None:
    """A shorter one that is written later, as a 502's after a Retry-After, ends it no sooner."""
    await place.publish(A, 2)
    await place.queue(*await place.publish(B, 2))
    first, second = await place.claim()
    hold = timedelta(hours=1)
    await place.settle(failed(first, hold=hold))
    await place.settle(failed(second, hold=timedelta(seconds=5)))
    held = await place.exchange()
    assert held.wait is not None
    assert hold - TTL < held.wait <= hold


async def test_what_cannot_be_read_is_parked_and_the_lane_goes_on(place: Place) -> None:
    """Put aside whatever came of the rest of its claim; its text is kept, its lane is free."""
    entries = await place.publish(A, 2, 10)
    poison = QueueItem(sort_key("1-0"), '{"data":"[["}', A)
    assert await place.outbox.add(NAME, [poison, *map(chosen, entries)]) == 3
    (claim,) = await place.claim(depth=2)
    assert [each.key for each in claim.parked] == [poison.key]
    assert told([claim]) == {A: ["02"]}
    await place.settle(failed(claim, delay=timedelta(0)))
    (letter,) = await place.outbox.dead(NAME)
    assert (letter.key, letter.text, letter.message) == (poison.key, poison.text, None)
    (again,) = await place.claim()
    assert (told([again]), len(again.attempts)) == ({A: ["02"]}, 1)
    await place.settle(Settlement(again, "sent"))
    assert (await place.outbox.status(NAME)).waiting == 1


async def test_what_is_due_outlives_a_clock_set_back(place: Place) -> None:
    """No lane waits for the hour that the server's clock was set back by; none comes early."""
    await place.publish(A, 2)
    await place.queue(*await place.publish(B, 2))
    first, second = await place.claim()
    await place.settle(failed(first))
    await place.later(timedelta(hours=-1))
    assert (await place.exchange()).claims == ()
    assert TTL - timedelta(seconds=5) < timedelta(seconds=await due(place)) <= TTL + NOTED
    await place.settle(Settlement(second, "sent"))
    assert AGAIN - TTL < timedelta(seconds=await due(place)) <= AGAIN + NOTED
    await place.outbox.enable(NAME)
    (again,) = await place.claim()
    await place.settle(failed(again, hold=AGAIN))
    await place.later(timedelta(hours=-1))
    held = await place.exchange()
    assert held.wait is not None
    assert AGAIN - TTL < held.wait <= AGAIN + NOTED


@pytest.mark.parametrize("hours", [-200, 200])
async def test_only_time_in_which_it_was_tried_counts_as_failing(place: Place, hours: int) -> None:
    """Neither a clock that steps nor a service that was off for days disables an endpoint."""
    await place.queue(*await place.publish(A, 2))
    (claim,) = await place.claim()
    await place.settle(failed(claim))
    await place.later(timedelta(hours=hours))
    told = await place.exchange()
    assert told.failing_since is not None
    assert timedelta(0) <= told.at - told.failing_since < timedelta(minutes=1)


@pytest.mark.parametrize(("minutes", "counts"), [(55, True), (65, False)])
async def test_a_pause_counts_as_failing_up_to_an_hour(
    place: Place, minutes: int, *, counts: bool
) -> None:
    """As long as the longest pauses between retries at the beginning; longer, nobody tried."""
    await place.queue(*await place.publish(A, 2))
    (claim,) = await place.claim()
    await place.settle(failed(claim))
    await place.later(timedelta(minutes=minutes))
    told = await place.exchange()
    assert told.failing_since is not None
    assert (told.at - told.failing_since > timedelta(minutes=50)) == counts


def gathered(entry: Entry, wait: float = WAIT) -> QueueItem:
    """Route an entry to a lane that gathers."""
    return item(entry, "HK:2026-05-08", wait)


def ago(seconds: float) -> str:
    """Return the id of an entry appended so long before now."""
    return f"{round((time.time() - seconds) * 1000)}-{time.perf_counter_ns() % 10**8}"


async def due(place: Place) -> float:
    """Return in how many seconds the first lane is due."""
    found = (await place.outbox.status(NAME)).next_attempt
    assert found is not None
    return (found - datetime.now(UTC)).total_seconds()


async def test_a_gathering_lane_waits_and_goes_together(place: Place) -> None:
    """It is due once nothing was queued for its wait, and then goes all at once."""
    entries = await place.publish(A, 2, 10)
    await place.outbox.add(NAME, [gathered(entries[0], 0.2)])
    began = time.monotonic()
    await place.outbox.add(NAME, [gathered(entries[1], 0.4)])
    claims: list[Claim] = []
    async with at_most(5):
        while not claims:
            await asyncio.sleep(0.01)
            claims = await place.claim(depth=9)
    assert time.monotonic() - began > 0.39
    assert told(claims) == {"HK:2026-05-08": ["02", "10"]}


@pytest.mark.parametrize(
    ("began", "left"),
    [(0, WAIT), (MOST_WAITS * WAIT - 5 * WAIT, WAIT), (MOST_WAITS * WAIT - WAIT / 2, WAIT / 2)],
)
async def test_a_lane_does_not_gather_for_ever(place: Place, began: float, left: float) -> None:
    """What is added puts the time off by the wait, up to so many waits after the first entry."""
    fields = (await place.publish(A, 2))[0].fields
    await place.outbox.add(NAME, [gathered(Entry(ago(began), fields), 0.01)])
    await place.outbox.add(NAME, [gathered(Entry(ago(0), fields))])
    assert left - 5 < await due(place) <= left + 0.01


async def test_what_is_replayed_gathers_as_well(place: Place) -> None:
    """Queued long after it was appended, a lane waits once, and no older entry hurries it."""
    fields = (await place.publish(A, 2))[0].fields
    await place.outbox.add(NAME, [gathered(Entry(ago(10**6), fields))])
    assert WAIT - 5 < await due(place) <= WAIT
    await place.outbox.add(NAME, [gathered(Entry(ago(2 * 10**6), fields))])
    assert WAIT - 5 < await due(place) <= WAIT


@pytest.mark.parametrize("replayed", [False, True])
async def test_a_retry_keeps_its_time(place: Place, replayed: bool) -> None:  # noqa: FBT001
    """What is added to a lane that waits for a retry, behind or before it, does not move it."""
    fields = (await place.publish(A, 2))[0].fields
    await place.outbox.add(NAME, [gathered(Entry(ago(60), fields), 0.001)])
    await asyncio.sleep(0.01)
    (claim,) = await place.claim()
    await place.settle(failed(claim, delay=timedelta(seconds=2)))
    for _ in range(2):
        await place.outbox.add(NAME, [gathered(Entry(ago(90 if replayed else 0), fields))])
    assert await due(place) <= 2
    await place.outbox.enable(NAME)
    (claim,) = await place.claim()
    await place.settle(failed(claim))
    await place.outbox.add(NAME, [gathered(Entry(ago(0), fields))])
    assert await due(place) > AGAIN.total_seconds() - 5


async def test_what_comes_during_a_message_gathers_anew(place: Place) -> None:
    """A lane in flight keeps its time; what was added meanwhile waits after it was sent."""
    fields = (await place.publish(A, 2))[0].fields
    await place.outbox.add(NAME, [gathered(Entry(ago(0), fields), 0.001)])
    await asyncio.sleep(0.01)
    (claim,) = await place.claim()
    late = Entry(ago(0), fields)
    await place.outbox.add(NAME, [gathered(late)])
    assert await due(place) <= TTL.total_seconds()
    await place.settle(Settlement(claim, "sent", delay=timedelta(seconds=WAIT)))
    assert WAIT - 5 < await due(place) <= WAIT
    await place.settle(Settlement(claim, "sent"))
    await place.outbox.enable(NAME)
    (claim,) = await place.claim()
    assert ids(claim) == [late.id]


async def test_only_lanes_that_gather_are_put_off(place: Place) -> None:
    """A lane without a wait is due from its first entry on, whatever comes behind."""
    entries = await place.publish(A, 2, 10)
    await place.outbox.add(NAME, [chosen(entries[0])])
    await place.outbox.add(NAME, [chosen(entries[1])])
    assert await due(place) <= 0


async def test_trimming_the_stream_loses_nothing(place: Place) -> None:
    """What is queued is a copy."""
    if place.raw is None:
        return
    entries = await place.publish(A, 2)
    await place.queue(*entries)
    await place.raw.xtrim("short-interest", maxlen=0)
    assert told(await place.claim()) == {A: ["02"]}


async def test_many_endpoints_cost_one_look(place: Place) -> None:
    """Their states come together, and each stream is asked for its groups once, however many."""
    names = sorted(f"desk-{n}" for n in range(40))
    await place.publish(A, 2)
    for stream in Stream:
        await place.outbox.begin(names, stream)
    await place.publish(A, 3, 4)
    before = await looks(place)
    found = await place.outbox.statuses()
    assert await looks(place) - before == (len(Stream) if place.raw is not None else 0)
    assert {name: found[name].lag for name in names} == dict.fromkeys(names, 2)
    assert found == {name: await place.outbox.status(name) for name in found}
    assert list(await place.outbox.statuses(names[:1])) == names[:1]
    assert await place.outbox.statuses([]) == {}


async def looks(place: Place) -> int:
    """Return how often a server was asked for the groups of a stream."""
    if place.raw is None:
        return 0
    told = await place.raw.info("commandstats")
    return sum(each["calls"] for name, each in told.items() if name.startswith("cmdstat_xinfo"))


async def test_forgetting_leaves_nothing(place: Place) -> None:
    """Groups and keys of a removed endpoint go; others stay."""
    await place.queue(*await place.publish(A, 2))
    begun = await place.begin(stream=Stream.RELEASES)
    await place.announce(2)
    await place.begin("other")
    assert await place.outbox.names() == [NAME, "other"]
    await place.outbox.forget(NAME)
    assert await place.outbox.names() == ["other"]
    status = await place.outbox.status(NAME)
    assert (status.waiting, status.lag) == (0, 0)
    assert await place.begin(stream=Stream.RELEASES) > begun
    await place.outbox.forget(NAME)
    if place.raw is not None:
        prefix = OutboxKeys("short-interest", NAME).state.removesuffix("state")
        assert not [key async for key in place.raw.scan_iter(f"{prefix}*")]


@pytest.mark.parametrize("place", KINDS, indirect=True)  # nothing stops half-way in memory
async def test_what_was_half_forgotten_can_be_forgotten_again(place: Place) -> None:
    """However far it came: as long as anything is kept under a name, the name is listed."""
    for refused in ("-del", "-xgroup|destroy"):
        await place.begin()
        await place.queue(*await place.publish(A, 2))
        await place.raw.execute_command("ACL", "SETUSER", "default", refused)
        with pytest.raises(StoreMisfit):
            await place.outbox.forget(NAME)
        await place.raw.execute_command("ACL", "SETUSER", "default", "+@all")
        assert await place.outbox.names() == [NAME]
        await place.outbox.forget(NAME)
        assert await place.outbox.names() == []
        assert not await place.raw.exists(*OutboxKeys("short-interest", NAME).all())
