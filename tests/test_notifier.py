"""The notifier against real servers: every wait ends, whatever happens to the connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from poller.model import Code
from poller.store.notifier import SUBJECT, Notifier
from poller.store.position import LAST
from poller.store.redis_status import RedisStatusStore
from poller.store.redisstore import RedisStore
from poller.store.store import WATCHLIST, Stream
from poller.telemetry.observe import Fact, Recovered, Trouble
from tests import nodes, wire
from tests.machine import scaled
from tests.test_connections import eventually, move_slot, publish

CODE = Code("HK.00700")
PATIENCE = scaled(30.0)


@contextlib.asynccontextmanager
async def notifying(store: RedisStore, *, block: float = 5.0) -> AsyncIterator["Notified"]:
    """Run a notifier while the block runs; its pauses are short."""
    facts: list[Fact] = []
    notifier = Notifier(store.streams, collected(facts), block=block, pause=0.05)
    task = asyncio.create_task(notifier.run())
    try:
        made = Notified(notifier, facts)
        await made.ready()
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()


def collected(facts: list[Fact]) -> Callable[[Fact], None]:
    """Return what keeps the troubles and their ends."""
    return lambda fact: facts.append(fact) if isinstance(fact, Trouble | Recovered) else None


class Notified:
    """A running notifier, and the facts it reported."""

    def __init__(self, notifier: Notifier, facts: list[Fact]) -> None:
        self.notifier = notifier
        self.facts = facts

    async def ready(self) -> None:
        """Return once the first position is read, of which everything is notified."""
        await wait(self.notifier.news("anything"))

    @property
    def troubles(self) -> list[str]:
        """Return the reasons reported, each as often as it was."""
        return [fact.reason for fact in self.facts if isinstance(fact, Trouble)]


async def wait(event: asyncio.Event) -> None:
    """Wait for an event, a long time."""
    async with asyncio.timeout(PATIENCE):
        await event.wait()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[wire.Server]:
    """A server that may be killed."""
    made = wire.Server(tmp_path)
    await made.start()
    yield made
    made.kill()


def store_of(server: wire.Server) -> RedisStore:
    """Return a store on a server."""
    return RedisStore(f"unix://{server.path}", "short-interest")


async def connections(client: Redis) -> int:
    """Return how many connections a server was ever asked for."""
    stats = await client.info("stats")
    return int(stats["total_connections_received"])


async def test_each_topic_has_its_event(server: wire.Server) -> None:
    """An event is set by news of its topics alone, and the next one waits for the next news."""
    store = store_of(server)
    async with notifying(store) as told:
        news = told.notifier.news
        events, releases = news(Stream.EVENTS), news(Stream.RELEASES)
        either, watchlist = news(Stream.EVENTS, "webhook:desk"), news(WATCHLIST)
        assert news(Stream.EVENTS) is events
        await publish(store, CODE)
        await wait(events)
        await wait(either)
        assert news(Stream.EVENTS) is not events
        assert not releases.is_set()
        either = news(Stream.EVENTS, "webhook:desk")
        await store.streams.signal("webhook:desk")
        await wait(either)
        await store.watchlist.watch([CODE], wanted=True)
        await wait(watchlist)
        assert not news(Stream.EVENTS).is_set()
        assert told.troubles == []


async def test_one_connection_for_all_that_waits(server: wire.Server) -> None:
    """However often something is waited for, in vain or not, no connection is made for it."""
    store = store_of(server)
    async with (
        notifying(store, block=0.02) as told,
        Redis(unix_socket_path=str(server.path)) as client,
    ):
        before = await connections(client)
        for n in range(20):
            event = told.notifier.news(Stream.EVENTS)
            await publish(store, Code(f"HK.{n + 1:05}"))
            await wait(event)
            await store.streams.read("$", count=1, block=0.02)
        # the first read has one of its own, and short commands that overlap may need one more
        assert await connections(client) - before <= 3


@pytest.mark.parametrize("ahead", [LAST, "9223372036854775807-5"])
async def test_signals_that_began_again_are_heard(server: wire.Server, ahead: str) -> None:
    """Their key was deleted, after an id of another client or of a clock that was ahead."""
    store = store_of(server)
    async with (
        Redis(unix_socket_path=str(server.path)) as client,
        notifying(store, block=0.1) as told,
    ):
        for _ in range(2):
            await client.xadd(store.keys.signals, {"subject": "theirs"}, id=ahead)
            await wait(told.notifier.news("theirs"))
            await client.delete(store.keys.signals)
            for _ in range(3):
                watchlist = told.notifier.news(WATCHLIST)
                await store.streams.signal(WATCHLIST)
                await wait(watchlist)
        other = told.notifier.news("other")  # by now it is over: only who waits for it is woken
        for _ in range(3):
            watchlist = told.notifier.news(WATCHLIST)
            await store.streams.signal(WATCHLIST)
            await wait(watchlist)
        assert not other.is_set()
        assert told.troubles == []


async def test_a_cut_connection_is_replaced_without_a_word(server: wire.Server) -> None:
    """What may have been missed is notified; an operator has nothing to do."""
    store = store_of(server)
    async with notifying(store) as told, Redis(unix_socket_path=str(server.path)) as client:
        for _ in range(3):
            releases = told.notifier.news(Stream.RELEASES)
            await client.client_kill_filter(_type="normal", skipme=True)
            await wait(releases)
            events = told.notifier.news(Stream.EVENTS)
            await store.streams.signal("short")  # the commands' own connection was killed, too
            await publish(store, Code(f"HK.{await client.dbsize() + 1:05}"))
            await wait(events)
        assert told.troubles == []


async def test_a_server_away_is_told_once_and_everything_is_notified_after(
    server: wire.Server,
) -> None:
    """Killed and started again: one trouble, its end, and an event for every topic."""
    store = store_of(server)
    async with notifying(store) as told:
        webhook = told.notifier.news("webhook:desk")
        server.kill()
        await until(lambda: bool(told.troubles))
        assert not webhook.is_set()
        await server.start()
        await wait(webhook)
        await until(lambda: told.facts[-1] == Recovered(SUBJECT))
        assert set(told.troubles) <= {"nobody listens at " + str(server.path)}
        events = told.notifier.news(Stream.EVENTS)
        await publish(store, CODE)
        await wait(events)


async def test_a_key_of_another_type_is_told_and_asked_for_until_mended(
    server: wire.Server,
) -> None:
    """The key is named, and everything is notified once it is mended."""
    store = store_of(server)
    async with Redis(unix_socket_path=str(server.path)) as client:
        await client.set(store.keys.signals, "mine")
        facts: list[Fact] = []
        notifier = Notifier(store.streams, collected(facts), pause=0.01)
        task = asyncio.create_task(notifier.run())
        await until(lambda: len(facts) > 4)
        reason = (
            f"the key {store.keys.signals} holds a string, where this service keeps a stream: "
            "choose another redis.namespace, or look at the key and delete it: redis-cli DEL "
            "'{short-interest}:signals'"
        )
        assert set(facts) == {Trouble(SUBJECT, reason)}
        await client.delete(store.keys.signals)
        await wait(notifier.news(WATCHLIST))
        await until(lambda: facts[-1] == Recovered(SUBJECT))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()


@pytest.mark.parametrize("key", ["signals", "releases", "stream"])
async def test_a_key_of_another_type_leaves_who_reads_the_streams_looking(
    server: wire.Server, key: str
) -> None:
    """One key fails the read of all three: readers of the others get their news all the same."""
    store = store_of(server)
    async with (
        notifying(store, block=0.2) as told,
        Redis(unix_socket_path=str(server.path)) as client,
    ):
        spoiled = getattr(store.keys, key)
        await client.delete(spoiled)
        await client.set(spoiled, "mine")
        await until(lambda: bool(told.troubles))
        for _ in range(20):
            for stream in Stream:
                await wait(told.notifier.news(stream))
        assert len(set(told.troubles)) == 1
        assert spoiled in told.troubles[0]


async def test_without_signals_the_codes_are_reported_all_the_same(server: wire.Server) -> None:
    """Who reports does not fail over another type in the signals' place."""
    store = store_of(server)
    status_store = RedisStatusStore(store.url, "short-interest")
    async with Redis(unix_socket_path=str(server.path)) as client:
        await client.set(store.keys.signals, "mine")
        await status_store.save_symbols([CODE])
    assert await status_store.symbols() == (CODE,)
    await status_store.close()
    await store.close()


@pytest.mark.parametrize("end", ["killed", "frozen", "demoted"])
async def test_a_failover_is_followed(tmp_path: Path, end: str) -> None:
    """However the primary that is waited at ceases to be one, the next one is waited at."""
    with nodes.watched(tmp_path) as (primary, replica, watchers):
        store = RedisStore(nodes.sentinel_url(watchers) + "?socket_timeout=1", "short-interest")
        async with notifying(store, block=1.0) as told:
            await publish(store, CODE)
            await asyncio.to_thread(nodes.until, lambda: nodes.caught_up(primary))
            everything = told.notifier.news("whatever")
            match end:
                case "killed":
                    primary.kill()
                case "frozen":
                    primary.freeze()
                case _:
                    watchers[0].ask("SENTINEL", "FAILOVER", nodes.WATCHED)
            await wait(everything)
            await asyncio.to_thread(nodes.until, lambda: role(replica) == "master")
            assert await eventually(store, Code("HK.00001")) < PATIENCE
            events = told.notifier.news(Stream.EVENTS)
            await publish(store, Code("HK.00002"))
            await wait(events)


def role(node: nodes.Node) -> str:
    """Return what a node is now."""
    return str(node.ask("INFO", "replication")["role"])


async def test_a_slot_that_moves_is_followed(tmp_path: Path) -> None:
    """One that waits at a node of a Cluster is sent to the slot's next owner."""
    with nodes.cluster(tmp_path) as members:
        store = RedisStore(members[0].url, "short-interest")
        async with notifying(store) as told:
            before = nodes.owner(members, "short-interest")
            await asyncio.to_thread(
                move_slot, members, before, next(node for node in members if node is not before)
            )
            assert await eventually(store, CODE) < PATIENCE
            events = told.notifier.news(Stream.EVENTS)
            await publish(store, Code("HK.00001"))
            await wait(events)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)
