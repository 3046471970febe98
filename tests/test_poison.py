"""Whatever stands in an endpoint's keys or on the streams: its lane and the others go on."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.delivery.outbox import OutboxKeys, types_of
from poller.delivery.queued import (
    RAW_KEPT,
    DeadLetter,
    Delivery,
    from_sort_key,
    read_attempts,
    read_dead,
    read_delivery,
)
from poller.delivery.retry import Delivered, Failed, Outcome
from poller.errors import Unreadable
from poller.telemetry.observe import Defect, PassedOver, Recovered
from tests.feed import publish
from tests.relaying import EVERYTHING, Noted, Place, endpoint, place_at, until
from tests.servers import running

KEYS = OutboxKeys("short-interest", "desk")
A, B = "HK.00700", "HK.00005"
DEEP = "[" * 50_000


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """An empty server."""
    async with running("embedded", tmp_path) as url, place_at(url) as made:
        yield made


async def first_key(place: Place, lane: str = A) -> str:
    """Return the sort key of what stands first in a lane."""
    members = await place.raw.zrangebylex(KEYS.queue, f"[{lane}|", f"({lane}}}")
    return str(members[0]).partition("|")[2]


async def hdel(place: Place) -> None:
    """Remove a delivery from under its place in the queue."""
    await place.raw.hdel(KEYS.deliveries, await first_key(place))


async def deep(place: Place) -> None:
    """Nest it beyond what any parser takes."""
    await place.raw.hset(KEYS.deliveries, await first_key(place), DEEP)


async def foreign(place: Place) -> None:
    """Let it be JSON of something else."""
    await place.raw.hset(KEYS.deliveries, await first_key(place), '{"hello":"there"}')


async def attempts(place: Place) -> None:
    """Spoil the attempts."""
    await place.raw.hset(KEYS.attempts, await first_key(place), DEEP)


async def member(place: Place) -> None:
    """Queue what has neither lane nor id."""
    await place.raw.zadd(KEYS.queue, {"rubbish": 0, f"{A}|rubbish": 0, f"{A}|": 0, "|": 0})
    await place.raw.zadd(KEYS.due, {"nothing": 1, "": 1})


async def uneven(place: Place) -> None:
    """Queue what stands before and behind everything else, whatever it is called."""
    await place.raw.zadd(KEYS.queue, {"zzz": -1, "HK.zzz|x": -9e300, "A|x": 1, "B": 9e300})


async def nameless(place: Place) -> None:
    """Queue deliveries under bytes that are no text, one of them first in a lane of ours."""
    text = await place.raw.hget(KEYS.deliveries, await first_key(place))
    for lane, key in ((A.encode(), b"\x00\xff"), (b"\xff\xfe", b"x\xff"), (b"\xd6\xd0", b"\xce")):
        await place.raw.hset(KEYS.deliveries, key, text)
        await place.raw.zadd(KEYS.queue, {lane + b"|" + key: 0})
        await place.raw.zadd(KEYS.due, {lane: 1})


async def never_due(place: Place) -> None:
    """Put lanes off for ever."""
    await place.raw.zadd(KEYS.due, {A: "inf", B: 9e300})


async def timeless(place: Place) -> None:
    """Remove the times at which lanes are due."""
    await place.raw.delete(KEYS.due)


async def queueless(place: Place) -> None:
    """Remove the queue, beside a delivery that cannot be read."""
    await place.raw.delete(KEYS.queue)
    await place.raw.hset(KEYS.deliveries, "x", DEEP)


async def stateless(place: Place) -> None:
    """Remove all that is known of the endpoint, but its queue and its groups."""
    await place.raw.delete(KEYS.state)


async def wordy(place: Place) -> None:
    """Write a novel where a reason belongs."""
    await place.raw.hset(KEYS.state, mapping={"last_error": "x" * 10**6})


async def held(place: Place) -> None:
    """Hold the endpoint for ever."""
    await place.raw.hset(KEYS.state, "hold_until", "9e300")


async def words(place: Place) -> None:
    """Write words where times belong."""
    names = ("hold_until", "failing_since", "seen", "last_success", "last_error_at")
    await place.raw.hset(KEYS.state, mapping=dict.fromkeys(names, "abc") | {"disabled": ""})


async def odd(place: Place) -> None:
    """Write numbers that are no times."""
    texts = {"hold_until": "nan", "failing_since": "-9e300", "seen": "1e308", "last_success": "inf"}
    await place.raw.hset(KEYS.state, mapping=texts)


async def position(place: Place) -> None:
    """Write a position that is none."""
    await place.raw.hset(KEYS.state, mapping={"position:events": "x", "position:releases": DEEP})


async def no_text(place: Place) -> None:
    """Write positions that are no text in any encoding of ours."""
    mapping = {"position:events": b"\xd6\xd0\xce\xc4", "position:releases": b"\xff\xfe1-0"}
    await place.raw.hset(KEYS.state, mapping=mapping)


async def counts(place: Place) -> None:
    """Write counts and times of positions that are none."""
    names = ("position:events:at", "position:events:read")
    await place.raw.hset(KEYS.state, mapping=dict.fromkeys(names, "-1e999"))


async def claims(place: Place) -> None:
    """Claim every lane for a process that never was."""
    await place.raw.hset(KEYS.claims, mapping={A: "nobody", B: DEEP})


async def letters(place: Place) -> None:
    """Leave dead letters that are none."""
    await place.raw.hset(KEYS.dead, mapping={"x": DEEP, "y": '{"fields":{"id":1}}', "": "{}"})


LOST = {hdel: 1, deep: 1, foreign: 1}
"""Poisons that destroy what was to be delivered."""


@pytest.mark.parametrize(
    "poison",
    [
        hdel, deep, foreign, attempts, member, uneven, nameless, never_due, held, words, odd,
        position, no_text, counts, claims, letters, timeless, stateless, wordy, queueless,
    ],
    ids=lambda each: each.__name__,
)  # fmt: skip
async def test_whatever_stands_in_the_keys_the_rest_is_delivered(place: Place, poison: Any) -> None:  # noqa: ANN401
    """While it waits for a retry somebody spoils its keys: all that is still there arrives."""
    down = True

    def answer(_: str) -> Outcome:
        return Failed("503", 503) if down else Delivered(200)

    line = Noted(answer)
    async with place.delivering(desk=line):
        sent = await publish(place.store, A, [1, 2]) + await publish(place.store, B, [1])
        await until(lambda: any("fails: 503" in each for each in place.said))
    await poison(place)
    down = False
    sent += await publish(place.store, A, [3])
    async with place.delivering(desk=line):
        if poison not in {never_due, held, timeless, queueless}:
            await place.raw.zadd(KEYS.due, {A: 1, B: 1}, xx=True)  # instead of minutes of waiting
        await until(lambda: len(line.ids) >= len(sent) - LOST.get(poison, 0))
        arrived = sent[LOST.get(poison, 0) :]
        assert sorted(line.ids) == sorted(arrived)
        if poison is not queueless:  # what comes before the removal is seen goes first
            mine = [each for each in line.ids if each.startswith(A)]
            assert mine == [each for each in arrived if each.startswith(A)]
        await until(lambda: is_empty(place))
    assert not [fact for fact in place.facts if isinstance(fact, Defect)]
    found = await place.outbox.dead("desk")
    assert len(found) == {deep: 1, foreign: 1, letters: 3, queueless: 1}.get(poison, 0)
    assert all(each.message is None and each.problem for each in found)
    assert all(len(each.text) <= RAW_KEPT for each in found)
    status = await place.outbox.status("desk")
    assert (status.disabled, status.lag, len(status.last_error) <= 1024) == ("", 0, True)
    if poison in {hdel, member}:
        assert any("not in Redis any more, dropped" in each for each in place.said)


async def is_empty(place: Place) -> bool:
    """Return whether nothing waits that could be sent."""
    return not await place.raw.hlen(KEYS.deliveries)


@pytest.mark.parametrize("key", [*types_of(KEYS)], ids=lambda key: key.rpartition(":")[2])
@pytest.mark.parametrize("kind", ["string", "list"])
async def test_a_key_of_another_type_stops_one_endpoint(place: Place, key: str, kind: str) -> None:
    """It is named with its cure, the others go on; once it is removed, this one goes on as well."""
    desk, other = Noted(), Noted()
    async with place.delivering(desk=desk, other=other):
        sent = await publish(place.store, A, [1])
        await until(lambda: desk.ids == other.ids == sent)
        await until(lambda: is_empty(place))
        spoiling = place.raw.pipeline().delete(key)  # at once, as the endpoint writes meanwhile
        await (spoiling.set(key, "x") if kind == "string" else spoiling.rpush(key, "x")).execute()
        for day in (2, 3):
            sent += await publish(place.store, A, [day])
        await until(lambda: other.ids == sent)
        if not key.endswith((":claims", ":attempts", ":dead")) or desk.ids != sent:
            await until(lambda: any(f"DEL {key}" in each for each in place.said))
            assert f"holds a {kind}" in (await place.outbox.status("desk")).disabled
            await place.raw.delete(key)
            if key == KEYS.state:  # with it went the record; the group is still there
                assert (await place.outbox.names()) == ["desk", "other"]
            await place.store.streams.signal("webhook:desk")
            await until(lambda: Recovered("webhook desk") in place.facts)
        await until(lambda: {*desk.ids} == {*sent})
    assert not [fact for fact in place.facts if isinstance(fact, Defect)]


@pytest.mark.parametrize("key", ["short-interest", "{short-interest}:releases"])
async def test_a_stream_of_another_type_is_named(place: Place, key: str) -> None:
    """The other stream is delivered from; once the key is removed, so is this one."""
    line = Noted()
    async with place.delivering(desk=line):
        await place.raw.delete(key)
        await place.raw.set(key, "x")
        await place.store.streams.signal("anything")
        await until(lambda: any(f"(DEL {key})" in each for each in place.said))
        assert await place.outbox.names() == ["desk"]
        await place.raw.delete(key)
        sent = await publish(place.store, A, [1])
        await until(lambda: line.ids == sent)
    assert not [fact for fact in place.facts if isinstance(fact, Defect)]


async def test_entries_of_others_are_passed_over_and_told_once(place: Place) -> None:
    """A thousand of them cost one line, and nothing of ours is late."""
    line = Noted()
    async with place.delivering(desk=line):
        for text in (DEEP, "{}", "null", '{"record":NaN}', "x" * 10**6):
            await place.raw.xadd(
                "short-interest", {"type": "short_interest.reported", "data": text}
            )
        async with place.raw.pipeline() as pipe:
            for _ in range(1000):
                pipe.xadd("short-interest", {"hello": "there"})
            await pipe.execute()
        sent = await publish(place.store, A, [1])
        await until(lambda: line.ids == sent)
    assert len([each for each in place.said if "is not an event of ours" in each]) == 1
    passed = [fact for fact in place.facts if isinstance(fact, PassedOver)]
    assert {fact.stream for fact in passed} == {"events"}
    assert sum(fact.entries for fact in passed) == 1005


async def test_other_spacing_is_still_an_event(place: Place) -> None:
    """What an entry says counts, not the bytes it is said with."""
    line = Noted()
    async with place.delivering(desk=line):
        (event,) = await publish(place.store, A, [1])
        ((_, fields),) = await place.raw.xrange("short-interest")
        spaced = json.dumps(json.loads(fields["data"]), indent=2)
        await place.raw.xadd("short-interest", fields | {"data": spaced, "id": "other"})
        await until(lambda: line.ids == [event, "other"])


async def test_a_sender_that_fails_stops_one_endpoint(place: Place) -> None:
    """Its defect is told, the others' latency is as before, and its lane goes on by itself."""
    broken = True

    def answer(event: str) -> Outcome:
        if broken and event.startswith(A):
            raise ZeroDivisionError(event)
        return Delivered(200)

    desk, other = Noted(answer), Noted()
    async with place.delivering(desk=desk, other=other):
        sent = await publish(place.store, A, [1]) + await publish(place.store, B, [1])
        await until(lambda: {*other.ids} == {*sent})
        await until(lambda: any(isinstance(fact, Defect) for fact in place.facts))
        await until(lambda: desk.ids == sent[1:])
        (defect, *_) = [fact for fact in place.facts if isinstance(fact, Defect)]
        assert (defect.component, defect.label) == ("webhook desk", "webhook")
        assert isinstance(defect.error, ZeroDivisionError)
        broken = False
        await place.outbox.enable("desk")
        await place.store.streams.signal("webhook:desk")
        await until(lambda: {*desk.ids} == {*sent})


class Failing:
    """A compiled filter that fails at one symbol."""

    def eval(self, data: dict[str, object]) -> Any:  # noqa: ANN401  as the library's
        """Fail, or say yes."""
        if data["code"] == A:
            raise ZeroDivisionError
        return self

    def value(self) -> bool:
        """Say yes."""
        return True


async def test_a_filter_that_fails_loses_nothing(place: Place) -> None:
    """What it cannot judge is a dead letter, told once, and can be delivered all the same."""
    selection = replace(EVERYTHING, filter="true")
    object.__setattr__(selection, "_program", Failing())
    desk, other = endpoint("desk", selection=selection), endpoint("other")
    lines: Any = {"desk": Noted(), "other": Noted()}
    async with place.delivering(desk, other, **lines):
        unjudged = await publish(place.store, A, [1, 2])
        sent = await publish(place.store, B, [1])
        await until(lambda: lines["desk"].ids == sent)
        await until(lambda: {*lines["other"].ids} == {*unjudged, *sent})
        found = await place.outbox.dead("desk")
    assert [each.message.id for each in found if each.message] == unjudged
    assert all("its filter failed" in each.problem for each in found)
    told = [each for each in place.said if "its filter failed" in each]
    assert len({*told}) == 1
    assert "poller webhook dead desk" in told[0]


texts = st.text() | st.sampled_from(
    [DEEP, "", "[]", "null", '{"fields":{}}', '[{"at":1}]', "1e999"]
)


def test_decoded_deliveries_are_kept_within_a_bound() -> None:
    """As many long deliveries as make 8 million characters: the last ones are kept, few in all."""
    record = {"timestamp": 1777478400, "timestamp_str": "2026-04-30", "aggregated_short": 1}
    data = {"record": record, "later": "x" * 8000}
    fields = {"type": "short_interest.reported", "code": A, "data": json.dumps(data)}
    text = json.dumps(fields | {"observed_at": "2026-05-08T09:15:02Z"})
    keys = [f"{number:015}-{0:08}" for number in range(1, 1001)]
    read = [read_delivery(key, text) for key in keys]
    newest_first = reversed([*zip(keys, read, strict=True)])
    kept = [read_delivery(key, text) is one for key, one in newest_first]
    assert all(isinstance(one, Delivery) for one in read)
    assert kept[0]
    assert sum(kept) * len(text) < 3_000_000


@given(texts, texts)
def test_reading_a_queue_never_raises(key: str, text: str) -> None:
    """Whatever text stands there: a value, or one that says it cannot be read."""
    read_delivery(key, text)
    assert isinstance(read_attempts(text), tuple)
    (letter,) = read_dead({key: text})
    assert isinstance(letter, DeadLetter)
    try:
        from_sort_key(key)
    except Unreadable:
        return
