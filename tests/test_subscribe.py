"""`subscribe`: each event at least once and in order, whoever is killed; nothing to misuse."""

import asyncio
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from poller import Received, subscribe
from poller.detect.compare import compare
from poller.errors import StoreMisfit
from poller.markets.hk import HONG_KONG, HkRecord
from poller.model import Code
from poller.simulator.virtual import run_virtually
from poller.store.redisstore import RedisStore
from poller.store.store import ONE_OFF
from poller.subscriber.redisgroup import TTL, RedisGroup
from poller.subscriber.subscription import _active
from tests import nodes
from tests.machine import at_most, scaled
from tests.service import now, until, whole_lines

CODES = tuple(Code(f"HK.0000{n}") for n in range(1, 4))
READER = "{short-interest}:reader:desk"
RECORD = "{short-interest}:subscriber:desk"
SUBSCRIBER = """
import asyncio, sys
from poller import subscribe
async def main(url):
    async with subscribe(url, group="desk", after="0") as events:
        async for event in events:
            await asyncio.sleep(0.01)
            print(event.id, flush=True)
asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[nodes.Node]:
    """An empty server that keeps what it acknowledged."""
    with nodes.node(tmp_path / "server") as running:
        yield running


@pytest.fixture
async def store(server: nodes.Node) -> AsyncIterator[RedisStore]:
    """Where events are published."""
    made = RedisStore(server.url, "short-interest")
    yield made
    await made.close()


async def publish(store: RedisStore, days: Sequence[int]) -> list[str]:
    """Let each symbol report these days in turn; returns the event ids in order."""
    told = []
    for n in days:
        day = str(date(2020, 1, 1) + timedelta(days=n))
        for code in CODES:
            snapshot = await store.records.snapshot(code)
            row = HkRecord(None, day, 100 + n, 0.5, 10.0, 9.0)
            found = compare(code, [row], snapshot.known, observed_at=now(), history=50)
            await store.records.commit(code, found, snapshot, ONE_OFF)
            told += [event.id for event in found.events]
    return told


async def take(events: AsyncIterator[Received], count: int) -> list[str]:
    """Return the ids of the next `count` events."""
    async with at_most(20):
        return [(await anext(events)).id for _ in range(count)]


async def test_an_event_is_a_typed_value(server: nodes.Node, store: RedisStore) -> None:
    """What a subscriber gets has the SDK's columns, what changed, and where it stood."""
    await publish(store, [1, 2])
    async with subscribe(server.url, after="0") as events:
        await take(events, 3)
        event = await anext(events)
    assert (event.code, event.market, event.trading_day) == (
        "HK.00001",
        HONG_KONG,
        date(2020, 1, 3),
    )
    assert isinstance(event.record, HkRecord)
    assert (event.type, event.record.aggregated_short) == ("short_interest.reported", 102)
    assert event.previous is not None
    assert event.change is not None
    assert (event.previous.shares, event.change.shares) == (101, 1)
    async with subscribe(server.url, after=event.position) as events:
        assert await take(events, 1) == ["HK.00002:2020-01-03:0"]


async def test_kills_repeat_but_lose_nothing(
    server: nodes.Node, store: RedisStore, tmp_path: Path
) -> None:
    """Kill -9 of the active subscriber, another follows: at most one event twice, all in order."""
    expected = await publish(store, range(40))
    heard: list[str] = []
    for limit in (30, 70, len(expected)):
        log = tmp_path / f"{limit}"
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", SUBSCRIBER, server.url), stdout=out
            )
        began = time.monotonic()
        await heard_of(log, heard, limit)
        assert time.monotonic() - began < TTL + scaled(5)
        process.kill()
        await process.wait()
        heard += whole_lines(log)
        if limit > 30:  # the first one's right to read has run out by itself
            server.ask("DEL", "{short-interest}:reader:desk")
    assert list(dict.fromkeys(heard)) == expected
    assert len(heard) <= len(expected) + 2


async def heard_of(log: Path, before: Sequence[str], count: int) -> None:
    """Wait until a subscriber and those before it have told of so many events."""
    await until(lambda: len({*before, *whole_lines(log)}) >= count)


async def test_only_what_was_worked_on_counts(server: nodes.Node, store: RedisStore) -> None:
    """An exception gives the event back; the next one, or leaving in peace, counts it."""
    expected = await publish(store, range(3))

    async def work(count: int, failing: str = "") -> list[str]:
        done = []
        async with subscribe(server.url, group="desk", after="0") as events:
            async for event in events:
                if event.id == failing:
                    raise RuntimeError(failing)
                done.append(event.id)
                if len(done) == count:
                    break
        return done

    with pytest.raises(RuntimeError):
        await work(9, failing=expected[2])
    assert await work(4) == expected[2:6]
    assert await work(3) == expected[6:]
    assert server.ask("XPENDING", "short-interest", "desk")["pending"] == 0


async def test_one_of_a_group_is_active(server: nodes.Node, store: RedisStore) -> None:
    """Two in a group share nothing out; who stands by takes over at once when the other leaves."""
    expected = await publish(store, range(2))
    async with subscribe(server.url, group="desk", after="0") as second:
        async with subscribe(server.url, group="desk", after="0") as first:
            assert await take(first, 2) == expected[:2]
            waiting = asyncio.create_task(take(second, 3))
            assert await take(first, 1) == expected[2:3]
            assert not waiting.done()
        async with at_most(3):
            assert await waiting == expected[3:]


async def test_a_turn_of_an_earlier_clock_ends(server: nodes.Node, store: RedisStore) -> None:
    """After the server's clock stepped back an hour, a killed reader's group is soon read again."""
    expected = await publish(store, range(1))
    server.ask("SET", READER, "killed", "EX", "3600")
    async with subscribe(server.url, group="desk", after="0") as events:
        waiting = asyncio.create_task(take(events, 3))
        await until(lambda: 0 < server.ask("PTTL", READER) <= TTL * 1000)
        server.ask("DEL", READER)
        assert await waiting == expected


async def test_a_turn_without_an_end_ends(server: nodes.Node, store: RedisStore) -> None:
    """What somebody else has set in the reader's key blocks the group no longer than a reader."""
    sent = await publish(store, [0])
    server.ask("SET", READER, "somebody")
    async with subscribe(server.url, group="desk", after="0") as events:
        taken = asyncio.create_task(take(events, len(sent)))
        await until(lambda: 0 < server.ask("PTTL", READER) <= TTL * 1000)
        server.ask("DEL", READER)  # instead of the seconds until it ends
        assert await taken == sent


@pytest.mark.parametrize("group", [None, "desk"])
async def test_a_server_that_restarts(
    server: nodes.Node, store: RedisStore, group: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Kill -9 of the server while it is listened to: waited for, said once, nothing missed."""
    first = await publish(store, [1])
    async with subscribe(server.url, group=group, after="0") as events:
        assert await take(events, 3) == first
        waiting = asyncio.create_task(take(events, 3))
        await until(lambda: server.ask("INFO", "clients")["blocked_clients"] == 1)
        server.kill()
        await until(lambda: "Redis: " in caplog.text)
        server.start()
        second = await publish(store, [2])
        assert await waiting == second
    told = [record.message for record in caplog.records if record.name == "poller.subscribe"]
    assert len(told) <= 3
    assert told[-1] == "Redis answers again"


async def test_what_is_no_event_is_passed_over(
    server: nodes.Node, store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else's entry, and columns of a later version, stop nobody."""
    caplog.set_level(logging.WARNING)
    (event, *_) = await publish(store, [1])
    server.ask("XADD", "short-interest", "*", "hello", "there")
    ((_, fields),) = server.ask("XRANGE", "short-interest", "-", "+", "COUNT", "1")
    data = json.loads(fields["data"]) | {"flags": ["x"], "later": 1}
    data["record"]["new"] = 1
    later = [text for pair in (fields | {"data": json.dumps(data)}).items() for text in pair]
    server.ask("XADD", "short-interest", "*", *later)
    async with subscribe(server.url, group="desk", after="0") as events:
        await take(events, 3)
        last = await anext(events)
    assert (last.id, last.extra, last.flags) == (event, {"later": 1}, ("x",))
    assert "which is not an event" in caplog.text
    assert server.ask("XPENDING", "short-interest", "desk")["pending"] == 0


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({"after": "now"}, "give a position"),
        ({"after": "18446744073709551616"}, "give a position"),
        ({"group": "webhook:desk"}, "another name"),
    ],
)
async def test_arguments_that_cannot_be(arguments: dict[str, Any], cure: str) -> None:
    """They are refused at once, with what to write."""
    with pytest.raises(ValueError, match=cure):
        async with subscribe("redis://127.0.0.1:1", **arguments):
            pass


async def test_a_user_who_may_not_read(server: nodes.Node) -> None:
    """What no waiting mends is raised."""
    url = server.url.replace("//", "//nobody:wrong@")
    with pytest.raises(StoreMisfit, match="user or password"):
        async with subscribe(url) as events:
            await anext(events)


async def test_a_refusal_does_not_hide_the_readers_own_error(
    server: nodes.Node, store: RedisStore
) -> None:
    """A group whose server refuses by then is left with the exception that was raised inside."""
    await publish(store, [1])
    admin: Any = Redis.from_url(server.url)  # typed in part
    async with admin:
        await admin.execute_command("ACL", "SETUSER", "desk", "on", ">pw", "~*", "+@all")
        url = server.url.replace("//", "//desk:pw@")

        async def work() -> None:
            async with subscribe(url, group="desk", after="0") as events:
                await take(events, 1)
                await admin.execute_command("ACL", "SETUSER", "desk", "-@scripting")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work()


def test_importing_is_light() -> None:
    """A subscriber imports neither the SDK nor pandas."""
    look = "import sys; from poller import subscribe; print({'futu', 'pandas'} & {*sys.modules})"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


@pytest.mark.parametrize("running", [True, False], ids=["running", "down"])
@pytest.mark.parametrize("how", ["group", "stream", "renamed"])
async def test_a_group_outlives_what_vanishes(
    server: nodes.Node,
    store: RedisStore,
    how: str,
    running: bool,  # noqa: FBT001
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Group or stream deleted: it goes on after what it acknowledged, and says so once."""

    async def vanish() -> list[str]:
        commands = {
            "group": ("XGROUP", "DESTROY", "short-interest", "desk"),
            "stream": ("DEL", "short-interest"),
            "renamed": ("RENAME", "short-interest", "elsewhere"),
        }
        server.ask(*commands[how])
        return await publish(store, range(2, 9))

    expected = await publish(store, [1])
    async with subscribe(server.url, group="desk", after="0") as events:
        assert await take(events, 3) == expected
        if running:
            await anext_is_waited_for(server, events)
            expected = await vanish()
            assert await take(events, len(expected)) == expected
    if not running:
        expected = await vanish()
        async with subscribe(server.url, group="desk", after="$") as events:
            assert await take(events, len(expected)) == expected
    told = [r.message for r in caplog.records if "the group was gone" in r.message]
    assert len(told) == 1
    assert server.ask("XPENDING", "short-interest", "desk")["pending"] == 0


@pytest.mark.parametrize("at", ["nan", "-inf", "1e400", "-1e308", "soon", "9" * 400, "\x1b[31m"])
async def test_a_group_whose_record_was_spoiled(
    server: nodes.Node, store: RedisStore, at: str
) -> None:
    """A record without a place, and with a time that is none: the group begins as a new one."""
    expected = await publish(store, [1])
    server.ask("HSET", RECORD, "at", at)
    async with subscribe(server.url, group="desk", after="0") as events:
        assert await take(events, len(expected)) == expected


async def anext_is_waited_for(server: nodes.Node, events: AsyncIterator[Received]) -> None:
    """Let the subscriber acknowledge what it has, and wait for more."""
    waiting = asyncio.ensure_future(anext(events))
    await until(lambda: server.ask("XPENDING", "short-interest", "desk")["pending"] == 0)
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_a_group_of_a_version_without_records(server: nodes.Node, store: RedisStore) -> None:
    """Its place is taken from the group: what was pending comes again, also when it vanishes."""
    expected = await publish(store, [1, 2])
    server.ask("XGROUP", "CREATE", "short-interest", "desk", "0")
    read = ("XREADGROUP", "GROUP", "desk", "killed", "COUNT", "4")
    server.ask(*read, "STREAMS", "short-interest", ">")
    first, *_ = server.ask("XRANGE", "short-interest", "-", "+")
    server.ask("XACK", "short-interest", "desk", first[0])
    async with subscribe(server.url, group="desk", after="$") as events:
        assert await take(events, 1) == expected[1:2]
        server.ask("XGROUP", "DESTROY", "short-interest", "desk")
        assert (await take(events, 3))[-1] == expected[4]
    assert server.ask("HGET", RECORD, "acknowledged")


@pytest.mark.parametrize("key", [READER, RECORD])
async def test_a_key_of_another_type_is_named(
    server: nodes.Node, store: RedisStore, key: str
) -> None:
    """What no waiting mends is raised, with the key and what to do."""
    await publish(store, [1])
    server.ask("RPUSH", key, "x")
    with pytest.raises(StoreMisfit, match=re.escape(f"DEL {key}")):
        async with subscribe(server.url, group="desk", after="0") as events:
            await anext(events)


@pytest.mark.parametrize("at", ["nan", "-inf", "inf", "1e400", "9e300", "", "x"])
async def test_a_time_that_is_none_counts_as_absent(
    server: nodes.Node, store: RedisStore, at: str
) -> None:
    """Whatever another client writes as the time of a group that is gone, the group goes on."""
    expected = await publish(store, [1])
    server.ask("HSET", RECORD, "at", at)
    async with subscribe(server.url, group="desk", after="0") as events:
        assert await take(events, 3) == expected


class Lingering:
    """A group whose last renewal takes a second to end."""

    async def renew(self) -> None:
        """Wait for ever, and end late."""
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)

    async def leave(self) -> None:
        """Do nothing."""


def test_leaving_swallows_no_cancellation() -> None:
    """A limit around `subscribe` that passes while the block is left is still raised."""

    async def story() -> None:
        async with asyncio.timeout(TTL / 3 + 1.5):
            async with _active(cast("RedisGroup", Lingering()), cast("Any", None), "0", 50):
                await asyncio.sleep(TTL / 3 + 1)

    with pytest.raises(TimeoutError):
        run_virtually(datetime(2026, 5, 8, tzinfo=UTC), story())


async def test_poison_does_not_block_a_group(
    server: nodes.Node, store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Entries nobody can read are passed over, acknowledged and told once, with their number."""
    for text in ("[" * 50_000, "x", "null"):
        server.ask("XADD", "short-interest", "*", "data", text)
    expected = await publish(store, [1])
    async with subscribe(server.url, group="desk", after="0") as events:
        assert await take(events, 3) == expected
    assert server.ask("XPENDING", "short-interest", "desk")["pending"] == 0
    assert len([r for r in caplog.records if "passed over" in r.message]) == 1
