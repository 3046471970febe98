"""Many endpoints: what can be done once for all is, and nothing while nothing is due."""

import asyncio
import itertools
import math
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from poller.delivery.outbox import Take
from poller.delivery.redisoutbox import RedisOutbox
from poller.delivery.retry import Outcome
from poller.delivery.selection import Selection
from poller.delivery.worker import Timing
from poller.events import Message
from poller.store.redisstore import RedisStore
from poller.telemetry.observe import Trouble
from tests import nodes
from tests.bench_idle import measured
from tests.feed import publish
from tests.machine import at_most
from tests.relaying import Noted, Place, endpoint, place_at, until
from tests.servers import running

DOCUMENT = Path("docs/redis.md").read_text(encoding="utf-8")
NAMES = [f"desk{n}" for n in range(120)]
WATCHED = 3.0
"""Seconds in which nothing happens."""


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """An empty server."""
    async with running("embedded", tmp_path) as url, place_at(url) as made:
        yield made


async def calls(place: Place, *commands: str) -> int:
    """Return how often the server has run these commands, or any, within scripts, too."""
    stats = await place.raw.info("commandstats")
    return sum(
        told["calls"]
        for name, told in stats.items()
        if not commands or name.removeprefix("cmdstat_") in commands
    )


async def quiet(place: Place, fewer_than: float, *commands: str) -> None:
    """Wait for some seconds with fewer calls; what an event brings ends a little later than it."""
    async with at_most(what=f"{WATCHED} s with fewer than {fewer_than} calls"):
        found = math.inf
        while found >= fewer_than:
            before = await calls(place, *commands)
            await asyncio.sleep(WATCHED)
            found = await calls(place, *commands) - before


async def test_endpoints_at_rest_ask_nothing(place: Place) -> None:
    """A hundred of them, for seconds: fewer commands than endpoints, by far."""
    lines: Any = {name: Noted() for name in NAMES}
    async with place.delivering(timing=Timing(), **lines):
        (sent,) = await publish(place.store, "HK.00700", [1])
        await until(lambda: all(line.ids == [sent] for line in lines.values()))
        await quiet(place, len(NAMES) / 4)
    assert not [fact for fact in place.facts if isinstance(fact, Trouble)]


async def test_what_others_did_is_looked_for_with_one_call_for_all(place: Place) -> None:
    """However often that is done: nobody is woken who has nothing due."""
    lines: Any = {name: Noted() for name in NAMES}
    look = timedelta(seconds=WATCHED / 6)
    async with place.delivering(timing=Timing(look=look), **lines):
        (sent,) = await publish(place.store, "HK.00700", [1])
        await until(lambda: all(line.ids == [sent] for line in lines.values()))
        # two streams are looked at as well, and no script is for more than a hundred endpoints
        await quiet(place, 6 * len(NAMES) / 4, "evalsha")


async def test_a_service_at_rest_asks_little() -> None:
    """Each part of it, the page and the lease as well, waits for what is notified.

    The lease alone is renewed every 4 s; no connection is made for a read that waits.
    """
    found, _ = await measured(2, 1, 3 * WATCHED, WATCHED)
    assert found.pop("new connections", 0) == 0
    assert found.total() < 180, found.most_common()


async def test_a_stream_is_read_once_for_all(place: Place) -> None:
    """Each entry is read by one process once, and those that want none of it cost nothing."""
    nothing = Selection(frozenset({"revised"}))
    lines: Any = {name: Noted() for name in NAMES}
    endpoints = [endpoint(name, selection=nothing) for name in NAMES[1:]]
    async with place.delivering(endpoint(NAMES[0]), *endpoints, timing=Timing(), **lines):
        reads, claims = await calls(place, "xrange"), await calls(place, "hget")
        sent = [
            event for day in range(1, 21) for event in await publish(place.store, "HK.00700", [day])
        ]
        await until(lambda: lines[NAMES[0]].ids == sent)
        assert await calls(place, "xrange") - reads <= 4 * len(sent)
        assert await calls(place, "hget") - claims <= 20 * len(sent) + 10 * len(NAMES)


class Slow(Noted):
    """One that takes a thousand messages, and waits then until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = asyncio.Event()

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Note what is sent, in time."""
        if len(self.ids) >= 1000:
            await self.goes_on.wait()
        return await super().send(messages)


async def test_who_is_far_behind_holds_nobody_up(place: Place) -> None:
    """One catches up over thousands of entries; in the middle the head has what is new at once."""
    late, head = Slow(), Noted()
    await place.outbox.begin(["late"])
    for symbol in range(60):
        await publish(place.store, f"HK.{symbol:05}", range(1, 51))
    await place.outbox.begin(["head"])
    async with place.delivering(late=late, head=head):
        (sent,) = await publish(place.store, "HK.09999", [1])
        await until(lambda: head.ids == [sent])
        late.goes_on.set()
        await until(lambda: len(late.ids) == 3001)
    for code, mine in itertools.groupby(sorted(late.ids), key=lambda event: event[:8]):
        assert len({*mine}) == (1 if code == "HK.09999" else 50)


async def test_places_in_between_meet(place: Place) -> None:
    """Endpoints at many places of a stream end at one, each with what stood behind its place."""
    sent = [e for day in range(1, 41) for e in await publish(place.store, "HK.00700", [day])]
    entries = await place.store.streams.read("0", count=100, block=None)
    names = NAMES[:20]
    await place.outbox.begin(names)
    last = entries[-1].id
    takes = [Take(name, last, entries[2 * n].id) for n, name in enumerate(names)]
    await place.outbox.take(takes)
    lines: Any = {name: Noted() for name in names}
    async with place.delivering(**lines):
        wanted = {name: sent[2 * n + 1 :] for n, name in enumerate(names)}
        await until(lambda: all(len(lines[name].ids) >= len(wanted[name]) for name in names))
        assert {name: lines[name].ids for name in names} == wanted


async def test_a_cluster_serves_them_from_any_of_its_nodes(tmp_path: Path) -> None:
    """Whichever node is named, the owner of the slot is found, for scripts sent together, too."""
    with nodes.cluster(tmp_path) as members:
        owner = nodes.owner(members, "short-interest")
        url = next(each.url for each in members if each is not owner)
        async with Redis.from_url(owner.url, decode_responses=True) as raw:
            store, outbox = RedisStore(url, "short-interest"), RedisOutbox(url, "short-interest")
            place = Place(url, store, outbox, raw)
            lines: Any = {name: Noted() for name in NAMES[:20]}
            async with place.delivering(**lines):
                sent = await publish(store, "HK.00700", [1, 2])
                await until(lambda: all(line.ids == sent for line in lines.values()))
            await store.close()
            await outbox.close()


async def test_the_documented_user_may_do_all_of_it(tmp_path: Path) -> None:
    """No right beyond the documented ones is needed, also where a group vanished."""
    found = re.search(r"^ACL SETUSER poller .*$", DOCUMENT, re.MULTILINE)
    assert found is not None
    with nodes.node(tmp_path) as server:
        server.ask(*found[0].replace("PASSWORD", "pw").split())
        url = server.url.replace("//", "//poller:pw@")
        async with (
            Redis.from_url(server.url, decode_responses=True) as raw,
            place_at(url) as opened,
        ):
            place = replace(opened, raw=raw)
            lines: Any = {"desk": Noted(), "other": Noted()}
            async with place.delivering(**lines):
                sent = await publish(place.store, "HK.00700", [1])
                await until(lambda: all(line.ids == sent for line in lines.values()))
                await raw.delete("short-interest")
                sent += await publish(place.store, "HK.00700", [2])
                await until(lambda: all(line.ids == sent for line in lines.values()))
            assert await place.outbox.names(thorough=True) == ["desk", "other"]
            await place.outbox.enable("desk")
            await place.outbox.forget("desk")
            assert not [fact for fact in place.facts if isinstance(fact, Trouble)]
