"""The stream forgets by age; what a group has not read waits, is named, and has a deadline."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.polling.trim import keep_trimmed, trim
from poller.simulator import World
from poller.store.connections import Connections
from poller.store.embedded import Embedded
from poller.store.redisstore import RedisStore
from poller.store.retention import GRACE, Group, LateGroup, Trim, trim_of
from poller.store.store import order
from poller.telemetry.observe import Fact, Happened, Recovered, Trouble
from tests import nodes
from tests.service import Service, simulator, until

NOW = datetime(2026, 6, 1, tzinfo=UTC)
KEEP = timedelta(days=90)
STREAM = "short-interest"


def at(days: float, number: int = 0) -> str:
    """Return the id of an entry appended so many days before NOW."""
    return f"{round((NOW - timedelta(days=days)).timestamp() * 1000)}-{number}"


@pytest.mark.parametrize(
    ("unread", "before", "late"),
    [
        ([], at(90), ()),
        ([None], at(90), ()),
        ([at(1)], at(90), ()),
        ([at(90)], at(90), ()),
        ([at(91, 3)], at(91, 3), (at(91, 3),)),
        ([at(1), at(91), at(95)], at(95), (at(91), at(95))),
        ([at(98)], at(97), (at(98),)),
    ],
)
def test_what_is_forgotten(unread: list[str | None], before: str, late: tuple[str, ...]) -> None:
    """By age alone; a late group holds back what it has not read, for a week and no longer."""
    groups = [Group(str(n), entry) for n, entry in enumerate(unread)]
    names = [group.name for group in groups if group.unread in late]
    deadlines = [_time(entry) + KEEP + GRACE for entry in late]
    expected = tuple(LateGroup(*each) for each in zip(names, deadlines, strict=True))
    assert trim_of(groups, NOW, KEEP) == Trim(before, expected)


def _time(entry: str) -> datetime:
    return datetime.fromtimestamp(int(entry.partition("-")[0]) / 1000, UTC)


@given(
    st.lists(st.none() | st.floats(0, 200).map(at), max_size=5),
    st.floats(0, 200),
)
def test_nothing_unread_goes_before_its_deadline(unread: list[str | None], age: float) -> None:
    """An entry younger than asked never goes; an unread one only a week later; the rest does."""
    found = trim_of([Group(str(n), entry) for n, entry in enumerate(unread)], NOW, KEEP)
    gone = _order(at(age)) < _order(found.before)
    waits = any(entry is not None and _order(entry) <= _order(at(age)) for entry in unread)
    limit = KEEP + GRACE if waits else KEEP
    assert gone == (NOW - _time(at(age)) > limit)


def _order(entry: str) -> tuple[int, ...]:
    return tuple(map(int, entry.split("-")))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[RedisStore, Any]]:
    """A store with entries of 100, 95 and 91 days ago and of today, and a plain client to it."""
    async with Embedded(tmp_path).running() as url:
        store, client = RedisStore(url, STREAM), Connections(url).brief()
        for age in (100, 95, 91, 0):
            await client.xadd(STREAM, {"age": age}, id=at(age))
        yield store, client
        await store.close()
        await client.aclose()


async def ages(client: Any) -> list[int]:  # noqa: ANN401  redis-py types no answer
    """Return how old the entries are that the stream still has."""
    return [int(fields["age"]) for _, fields in await client.xrange(STREAM)]


async def test_a_group_is_waited_for_and_named(server: tuple[RedisStore, Any]) -> None:
    """What a group has not acknowledged stays to its deadline; it is named until it has."""
    store, client = server
    facts: list[Fact] = []
    await client.xgroup_create(STREAM, "desk", "0")
    await client.xreadgroup("desk", "me", {STREAM: ">"}, count=3)
    late = await trim(store.streams, KEEP, facts.append, NOW)
    assert await ages(client) == [95, 91, 0]
    assert [fact.subject for fact in facts if isinstance(fact, Trouble)] == ["consumer group desk"]
    await client.xack(STREAM, "desk", at(95))
    late = await trim(store.streams, KEEP, facts.append, NOW, before=late)
    assert await ages(client) == [91, 0]
    assert "until 2026-06-07 00:00 UTC" in str(facts[-2])
    await client.xack(STREAM, "desk", at(91), at(100))
    assert await trim(store.streams, KEEP, facts.append, NOW, before=late) == set()
    assert await ages(client) == [0]
    assert Recovered("consumer group desk") in facts
    assert any(isinstance(fact, Happened) for fact in facts)


async def test_the_releases_are_trimmed_and_waited_for_as_well(
    server: tuple[RedisStore, Any],
) -> None:
    """An endpoint's group has one name on both streams; each is waited for and named alone."""
    store, client = server
    releases, facts = store.keys.releases, list[Fact]()
    for age in (100, 91, 0):
        await client.xadd(releases, {"age": age}, id=at(age))
    for stream, read in ((STREAM, "$"), (releases, "0")):
        await client.xgroup_create(stream, "webhook:desk", read)
    late = await trim(store.streams, KEEP, facts.append, NOW)
    assert late == {"consumer group webhook:desk of the releases"}
    assert await ages(client) == [0]
    assert await client.xlen(releases) == 2
    await client.xgroup_setid(releases, "webhook:desk", "$")
    assert await trim(store.streams, KEEP, facts.append, NOW, before=late) == set()
    assert await client.xlen(releases) == 1
    assert Recovered("consumer group webhook:desk of the releases") in facts


async def test_without_groups_age_decides(server: tuple[RedisStore, Any]) -> None:
    """Nobody reads in a group: what is older goes; an empty stream is nothing to stumble over."""
    store, client = server
    await trim(store.streams, KEEP, lambda _: None, NOW)
    assert await ages(client) == [0]
    await client.delete(STREAM)
    assert await trim(store.streams, KEEP, lambda _: None, NOW) == set()


async def test_a_user_who_may_not_trim_goes_on_polling(server: tuple[RedisStore, Any]) -> None:
    """Missing rights are reported, and end nothing else."""
    store, client = server
    await client.execute_command("ACL", "SETUSER", "default", "-xtrim")
    facts: list[Fact] = []
    trimming = asyncio.create_task(keep_trimmed(store.streams, KEEP, facts.append, lambda: NOW))
    await until(lambda: any(isinstance(fact, Trouble) for fact in facts))
    assert not trimming.done()
    trimming.cancel()
    assert "xtrim" in str(facts[-1])


async def test_the_service_trims(tmp_path: Path) -> None:
    """With `redis.keep_days` the active poller removes what is older, and says so."""
    with nodes.node(tmp_path / "server") as server:
        server.ask("XADD", STREAM, "1-1", "age", "old")
        async with simulator(World()) as opend:
            settings = {"POLLER_REDIS__URL": server.url, "POLLER_REDIS__KEEP_DAYS": "90"}
            service = Service(tmp_path, opend.port, "HK.00700", settings)
            await service.start()
            await service.said("trimmed the stream")
            assert await service.stop() == 0
        assert all("old" not in fields for _, fields in server.ask("XRANGE", STREAM, "-", "+"))


def test_an_entry_of_the_far_future_keeps_nothing_from_being_forgotten() -> None:
    """Anybody may append under an id of the year 33658: what it holds up has a bound."""
    far = Group("desk", "999999999999999-0")
    found = trim_of([far], NOW, KEEP)
    assert order(found.before) == (round((NOW - KEEP).timestamp() * 1000), 0)
    assert found.late == ()
