"""Delivery as processes: the service, the delivering role, and the commands beside them."""

import asyncio
import json
import runpy
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis
from standardwebhooks import Webhook

from poller.clock import wall_clock
from poller.delivery.outbox import Settlement
from poller.delivery.queued import Attempt
from poller.delivery.redisoutbox import RedisOutbox
from poller.model import Code
from poller.simulator import World
from poller.store.embedded import Embedded
from poller.store.redis_status import RedisStatusStore
from poller.telemetry.status import DEAD_AFTER, ProcessReport
from tests.feed import publish
from tests.machine import at_most, needs
from tests.receiver import OK, SECRET, Receiver, status
from tests.service import (
    Service,
    entries,
    later,
    poller,
    simulator,
    store_of,
    until,
    with_rows,
)

CODE = Code("HK.00700")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """An endpoint's server."""
    async with Receiver().running() as made:
        yield made


@pytest.fixture
async def service(tmp_path: Path, receiver: Receiver) -> AsyncIterator[Service]:
    """A delivering process with one endpoint that wants everything, not started."""
    made = Service(tmp_path, 1, CODE, settings(receiver), role="deliver")
    yield made
    if made.process is not None and made.process.returncode is None:
        await made.stop()


def settings(receiver: Receiver, name: str = "desk") -> dict[str, str]:
    """Return an endpoint's configuration, as environment variables."""
    return {
        "POLLER_WEBHOOKS__0__NAME": name,
        "POLLER_WEBHOOKS__0__URL": receiver.url,
        "POLLER_WEBHOOKS__0__SECRET": SECRET,
        "POLLER_WEBHOOKS__0__EVENTS": "reported,revised,backfilled",
    }


async def test_the_service_delivers(tmp_path: Path, receiver: Receiver) -> None:
    """`run` with an endpoint: the ten rows of the vendor's page arrive, signed and in order."""
    async with simulator(World()) as opend:
        service = Service(tmp_path, opend.port, CODE, settings(receiver))
        await service.start()
        await receiver.until(10)
        assert await service.stop() == 0
    assert receiver.refused == []
    days = [seen.body["data"]["trading_day"] for seen in receiver.seen]
    assert days == sorted(days)
    assert (days[0], days[-1]) == ("2026-02-27", "2026-04-30")
    assert receiver.seen[-1].body["data"]["change"]["shares"] == 51480638 - 51888755


async def begin(service: Service) -> None:
    """Start it once its endpoint has begun: what comes earlier it would not get."""
    async with store_of(service):
        assert (await poller(service, "webhook", "enable", "desk"))[0] == 0
        await service.start()
        await service.said("ready")


async def test_a_release_is_told_to_who_selected_it(tmp_path: Path, receiver: Receiver) -> None:
    """Out, then complete, in this order and signed; a replay brings both again under their ids."""
    rows, other = World().records(CODE, wall_clock()), Code("HK.00005")
    world = with_rows(World(), other, rows)
    async with simulator(world) as opend:
        selected = {"POLLER_WEBHOOKS__0__EVENTS": "reported,release.detected,release.completed"}
        service = Service(tmp_path, opend.port, f"{CODE},{other}", settings(receiver) | selected)
        await service.start()
        async with store_of(service) as store:
            await entries(store, 20)
            new = later(rows[0], days=8)
            opend.world = with_rows(with_rows(world, other, (new, *rows)), CODE, (new, *rows))
            await receiver.until(4)
            (line,) = (await poller(service, "webhook", "list", "--json"))[1].splitlines()
            assert (json.loads(line)["lag"], receiver.refused) == (0, [])
            out = (await poller(service, "webhook", "replay", "desk", "--since", "2026-05-08"))[1]
            assert out == "4 events to deliver again\n"
            await until(lambda: len(receiver.seen) == 8)
            one = ("webhook", "replay", "desk", "--id", "HK:2026-05-08:completed")
            assert (await poller(service, *one))[1] == "1 event to deliver again\n"
            await until(lambda: len(receiver.seen) == 9)
        assert await service.stop() == 0
    told = [seen for seen in receiver.seen if seen.body["type"].startswith("release.")]
    ids = ["HK:2026-05-08:detected", "HK:2026-05-08:completed"]
    assert [seen.event for seen in told] == [seen.id for seen in told] == [*ids, *ids, ids[1]]
    assert told[0].body["type"] == "release.detected"
    assert told[0].body["data"]["code"] in {CODE, other}
    assert told[1].body["data"] == {
        "id": ids[1],
        "market": "HK",
        "trading_day": "2026-05-08",
        "found": 2,
        "expected": 2,
        "missing": 0,
        "missing_codes": [],
        "biggest": [],  # the new day shows the same figures
    }


async def test_an_outage_is_told_once_and_its_end_once(
    service: Service, receiver: Receiver
) -> None:
    """The log says why it fails, and `recovered`; `webhook list` has it all in one place."""
    receiver.answer = lambda _: status(503, body=b"later")
    await begin(service)
    async with store_of(service) as store:
        await publish(store, CODE, range(1, 4))
    await service.said("webhook desk: fails: 503")
    (line,) = (await poller(service, "webhook", "list", "--json"))[1].splitlines()
    told = json.loads(line)
    assert (told["name"], told["state"], told["waiting"], told["lag"]) == ("desk", "failing", 3, 0)
    assert told["last_error"] == "503"
    assert told["next_attempt"] is not None
    receiver.answer = lambda _: OK
    # the second retry is minutes away, should the first have come before
    assert (await poller(service, "watch", "add", CODE))[0] == 0  # it begins a server
    assert (await poller(service, "webhook", "enable", "desk"))[0] == 0
    await service.said("webhook desk: recovered")
    await receiver.until(3)
    assert await service.stop() == 0
    said = [line["event"] for line in service.log()]
    assert said.count("webhook desk: fails: 503") == said.count("webhook desk: recovered") == 1
    assert SECRET not in (service.state_dir / "log").read_text()
    assert "desk  active" in (await poller(service, "webhook", "list"))[1]


async def test_a_stop_lets_what_is_in_flight_end(service: Service, receiver: Receiver) -> None:
    """A POST that is being answered when SIGTERM comes is finished and not sent again."""
    answered = asyncio.Event()
    receiver.answer = lambda _: answered
    await begin(service)
    async with store_of(service) as store:
        await publish(store, CODE, [1])
        await receiver.until(1)
        stopping = asyncio.create_task(service.stop())
        await asyncio.sleep(0)
        answered.set()
        assert await stopping == 0
        await service.start()
        await publish(store, CODE, [2])
        await receiver.until(2)
    assert receiver.repeats() == 0


async def test_replay_and_dead_letters(service: Service, receiver: Receiver) -> None:
    """By id, by time, and from the dead letters; each event keeps its `webhook-id`."""
    async with store_of(service) as store:
        assert (await poller(service, "webhook", "enable", "desk"))[0] == 0
        first, second = await publish(store, CODE, [1, 2])
        await service.start()
        await receiver.until(2)
        as_sent = first.replace(".", "~")  # as the receiver got it
        assert (await poller(service, "webhook", "replay", "desk", "--id", as_sent))[0] == 0
        await until(lambda: len(receiver.seen) == 3)
        out = (await poller(service, "webhook", "replay", "desk", "--since", "2026-05-08"))[1]
        assert out == "2 events to deliver again\n"
        out = (await poller(service, "webhook", "replay", "desk", "--since", "2026-05-30"))[1]
        assert out.startswith("0 events to deliver again; desk selects none of that time")
        await until(lambda: len(receiver.seen) == 5)
        code, _, said = await poller(service, "webhook", "replay", "desk", "--id", "HK.1:x:0")
        assert (code, "HK.1:x:0" in said) == (1, True)
        assert await service.stop() == 0
        await bury(service, store.url)
        out = (await poller(service, "webhook", "dead", "desk", "--json"))[1]
        letter = json.loads(out)
        assert (letter["id"], letter["attempts"][0]["status"]) == (second, 500)
        code, out, _ = await poller(service, "webhook", "dead", "desk", "--requeue")
        assert (code, out.partition(";")[0]) == (0, "1 event to deliver again")
        assert (await poller(service, "webhook", "dead", "desk", "--json"))[1] == ""
        await service.start()
        await until(lambda: len(receiver.seen) == 6)
    assert [seen.event for seen in receiver.seen] == [
        first, second, first, first, second, second,
    ]  # fmt: skip
    assert len({seen.id for seen in receiver.seen}) == 2


async def test_a_command_says_what_it_finds(service: Service, receiver: Receiver) -> None:
    """A group that was gone is told by the command that made it again: no log will."""
    async with store_of(service) as store:
        assert (await poller(service, "webhook", "enable", "desk"))[2] == ""
        await publish(store, CODE, [1])
        async with Redis.from_url(store.url) as raw:
            await raw.xgroup_destroy("short-interest", "webhook:desk")
        code, _, said = await poller(service, "webhook", "enable", "desk")
        assert (code, "its group on the stream of events was gone" in said) == (0, True)
        await service.start()
        await receiver.until(1)
        assert await service.stop() == 0


async def test_a_replay_recovers_what_the_stream_lost(service: Service, receiver: Receiver) -> None:
    """Deleted while delivery is down: the log names the range and the command, which finds it."""
    await begin(service)
    async with store_of(service) as store:
        sent = await publish(store, CODE, [1])
        await receiver.until(1)
        assert await service.stop() == 0
        sent += await publish(store, CODE, [2, 3])
        async with Redis.from_url(store.url) as raw:
            await raw.delete("short-interest")
        sent += await publish(store, CODE, [4])
        await service.start()
        await receiver.until(2)
        await service.said("its group on the stream of events was gone")
        (told,) = [
            line["event"] for line in service.log() if "poller webhook replay" in line["event"]
        ]
        assert "an unknown number" in told
        since = ("--since", "2026-05-08T08:00:00Z")
        code, out, _ = await poller(service, "webhook", "replay", "desk", *since)
        assert code == 0
        assert "4 events to deliver again; 1 as the stream has them, 3 rebuilt from history" in out
        await until(lambda: len(receiver.seen) >= 6)
        assert await service.stop() == 0
    assert [seen.event for seen in receiver.seen] == [sent[0], sent[3], *sent]
    assert len({seen.id for seen in receiver.seen}) == 4


async def bury(service: Service, url: str) -> None:
    """Make a dead letter of the newest event, as ten failures would."""
    code, _, _ = await poller(service, "webhook", "replay", "desk", "--since", "2026-05-08")
    assert code == 0
    outbox = RedisOutbox(url, "short-interest")
    attempt = Attempt(wall_clock(), 500, "500", "")
    once: Any = {"limit": 1, "depth": 1, "ttl": timedelta(seconds=30)}
    (first,) = (await outbox.exchange("desk", [], "a", **once)).claims
    sent = Settlement(first, "sent")
    (second,) = (await outbox.exchange("desk", [sent], "b", **once)).claims
    await outbox.exchange("desk", [Settlement(second, "dead", (attempt,))], "c", **once)
    await outbox.close()


async def test_a_test_event(service: Service, receiver: Receiver) -> None:
    """It is signed, says that it is a test, and a refusal is the command's failure."""
    code, out, _ = await poller(service, "webhook", "test", "desk")
    assert (code, out) == (0, "desk took it: 200\n")
    assert receiver.refused == []
    assert receiver.seen[0].body["type"] == "short_interest.test"
    # the shape of a real one, and nothing a receiver that stores by it could hold already
    assert receiver.seen[0].body["data"]["id"] == "HK.00000:1970-01-01:0"
    receiver.answer = lambda _: status(400, body=b"no thanks")
    code, _, err = await poller(service, "webhook", "test", "desk")
    assert code == 1
    assert "400; it said: no thanks" in err


async def test_what_is_left_behind_is_named_and_forgotten(
    service: Service, receiver: Receiver
) -> None:
    """`check` names the queue of an endpoint that is configured no more; one command removes it."""
    assert (await poller(service, "watch", "add", CODE))[0] == 0  # it begins a server
    assert (await poller(service, "webhook", "enable", "desk"))[0] == 0
    assert (await poller(service, "webhook", "forget", "desk"))[0] == 2
    service.settings = settings(receiver, "other")
    listed = (await poller(service, "webhook", "list"))[1]
    assert "not configured" in listed
    assert "poller webhook forget desk" in (await poller(service, "check"))[1]
    assert (await poller(service, "webhook", "forget", "desk"))[0] == 0
    assert "desk" not in (await poller(service, "webhook", "list"))[1]
    code, _, err = await poller(service, "webhook", "dead", "nobody")
    assert (code, err) == (2, "poller: there is no webhook 'nobody'; known: other\n")


async def test_forgetting_names_who_may_take_it_up_again(
    service: Service, receiver: Receiver
) -> None:
    """Living processes that deliver are named with the cure; who has gone or only polls is not."""
    assert (await poller(service, "watch", "add", CODE))[0] == 0  # it begins a server
    assert (await poller(service, "webhook", "enable", "desk"))[0] == 0
    service.settings = settings(receiver, "other")
    async with Embedded(service.state_dir).running() as url:
        status_store = RedisStatusStore(url, "short-interest")
        await status_store.report("lives-1", ProcessReport(wall_clock(), "deliver", "0"))
        await status_store.report("polls-2", ProcessReport(wall_clock(), "poll", "0"))
        await status_store.report(
            "gone-3", ProcessReport(wall_clock() - 2 * DEAD_AFTER, "run", "0")
        )
        await status_store.close()
        _, out, _ = await poller(service, "webhook", "forget", "desk")
    assert "lives-1: reload (SIGHUP)" in out
    assert "polls-2" not in out
    assert "gone-3" not in out


async def in_node(secret: str, headers: Mapping[str, str], body: bytes) -> Any:  # noqa: ANN401
    """Let the lines for Node look at a delivery."""
    script = (
        "import {verify} from './config/examples/verify.mjs';"
        "const [secret, headers, body] = process.argv.slice(1);"
        "console.log(JSON.stringify(verify(secret, JSON.parse(headers), body)))"
    )
    process = await asyncio.create_subprocess_exec(
        *("node", "--input-type=module", "-e", script, secret, json.dumps(headers), body.decode()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with at_most(what="Node"):
        out, _ = await process.communicate()
    if process.returncode:
        raise ValueError("Node refuses it")
    return json.loads(out)


async def in_python(secret: str, headers: Mapping[str, str], body: bytes) -> Any:  # noqa: ANN401
    """Let the lines for Python look at a delivery."""
    return runpy.run_path("config/examples/verify.py")["verify"](secret, headers, body)


@pytest.mark.parametrize("look", [in_python, pytest.param(in_node, marks=needs("node"))])
async def test_the_receivers_half(look: Callable[..., Awaitable[Any]]) -> None:
    """The six documented lines take what is signed, and refuse a changed body and an old one."""
    body = '{"type":"é","data":1.0}'

    def signed(at: datetime) -> dict[str, str]:
        signature = f"v1,bm8= {Webhook(SECRET).sign('HK~1', at, body)}"
        times = {"webhook-timestamp": str(int(at.timestamp()))}
        return {"webhook-id": "HK~1", "webhook-signature": signature} | times

    assert await look(SECRET, signed(wall_clock()), body.encode()) == json.loads(body)
    refused = [
        (SECRET, signed(wall_clock()), body.replace("1", "2").encode()),
        (SECRET, signed(wall_clock() - timedelta(minutes=6)), body.encode()),
        ("whsec_" + "B" * 32, signed(wall_clock()), body.encode()),
    ]
    for case in refused:
        with pytest.raises(ValueError, match=r"Node|poller"):
            await look(*case)


async def test_a_chat_gets_one_message(service: Service, tmp_path: Path) -> None:
    """The events of a day go to a Feishu bot together, and only once it says so are they done."""
    posts: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        posts.append(await request.json())
        return web.json_response({"code": 0 if len(posts) > 1 else 9499, "msg": "too many"})

    app = web.Application()
    app.router.add_post("/bot", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.settings = {
        "POLLER_WEBHOOKS__0__NAME": "chat",
        "POLLER_WEBHOOKS__0__FEISHU": "true",
        "POLLER_WEBHOOKS__0__WAIT": "0.5",
        "POLLER_WEBHOOKS__0__URL": f"http://127.0.0.1:{runner.addresses[0][1]}/bot",
        "POLLER_WEBHOOKS__0__EVENTS": "reported,backfilled",
    }
    async with store_of(service) as store:
        assert (await poller(service, "webhook", "enable", "chat"))[0] == 0
        codes = [f"HK.{n:05}" for n in range(1, 6)]
        for code in codes:
            await publish(store, code, [1])
        await service.start()
        await service.said("webhook chat: fails: Feishu: 9499")
        assert len(posts) == 1
        assert all(code in json.dumps(posts[0]["card"]) for code in codes)
        assert await service.stop() == 0
        assert (await poller(service, "webhook", "test", "chat"))[0] == 0
        assert "This is a test" in json.dumps(posts[1]["card"])
    await runner.cleanup()
    assert "/bot" not in (tmp_path / "log").read_text()
