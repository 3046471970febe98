"""Names from a simulated OpenD to whoever reads them, through the unmodified SDK."""

import asyncio
import csv
import html
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from poller.model import Code
from poller.simulator import Proto, World, replies
from poller.simulator.securities import name_of
from poller.simulator.wire import Message
from poller.store.redisstore import RedisStore
from poller.store.store import Entry, Stream
from tests.chats import text_of_card
from tests.machine import at_most
from tests.opend import Simulator
from tests.service import Service, entries, later, now, poller, simulator, store_of, whole

TENCENT = Code("HK.00700")
WORLD = World(made_up={"HK": 30, "US": 6}, without_rows=0.0, history=3)
UNKNOWN = Code("HK.09998")
MARKED = next(code for code in WORLD.codes() if "<" in name_of(WORLD.seed, code))
"""A symbol whose name has to be escaped on a page."""


@asynccontextmanager
async def running(
    folder: Path, opend: Simulator, *codes: Code, **settings: str
) -> AsyncIterator[tuple[Service, RedisStore]]:
    """Run a service on this gateway; it ends well."""
    service = Service(folder, opend.port, ",".join(codes))
    service.settings = {"POLLER_WATCHLIST__HISTORY": "1", **settings}
    async with store_of(service) as store:
        await service.start()
        try:
            yield service, store
        finally:
            assert await service.stop() == 0


async def named(store: RedisStore, *codes: Code) -> dict[Code, str | None]:
    """Wait until all of these symbols have been asked for; returns their names."""
    async with at_most(what="names"):
        while True:
            found = await store.instruments.instruments(codes)
            if len(found) == len(codes) and all(each.named_at for each in found.values()):
                return {code: each.name for code, each in found.items()}
            await asyncio.sleep(0.02)


async def counted(store: RedisStore, code: Code) -> None:
    """Wait until a named symbol's shares are known: they come by a call of their own."""
    async with at_most(what="shares"):
        while not (await store.instruments.instruments([code]))[code].counted_at:
            await asyncio.sleep(0.02)


def release(opend: Simulator, code: Code) -> None:
    """Report one more day of a symbol."""
    rows = opend.world.records(code, now())
    figures = {rows[0].SHARES: (rows[0].shares or 0) + 1_000}
    shown = {**opend.world.extra, code: (later(rows[0], days=1, **figures), *rows)}
    opend.world = replace(opend.world, extra=shown)


async def reported(store: RedisStore, code: Code) -> Entry:
    """Wait for the first reported event of a symbol."""
    async with at_most(what=f"a report of {code}"):
        while True:
            for entry in await entries(store, 1, code):
                if entry.fields["type"] == "short_interest.reported":
                    return entry
            await asyncio.sleep(0.02)


async def page(service: Service, path: str) -> str:
    """Return a page of the service."""
    await service.said("page")
    (line,) = [line for line in service.log() if line["event"] == "page"]
    async with aiohttp.ClientSession(str(line["url"]), raise_for_status=whole) as http:
        answer = await http.get(path)
        return await answer.text()


async def test_a_name_is_everywhere(tmp_path: Path) -> None:
    """In the event, in `tail`, `watch list` and `history`, on both pages and in the API."""
    name = name_of(WORLD.seed, MARKED)
    async with (
        simulator(WORLD) as opend,
        running(tmp_path, opend, TENCENT, MARKED) as (service, store),
    ):
        await named(store, TENCENT, MARKED)
        await counted(store, MARKED)
        await entries(store, 2)
        release(opend, MARKED)
        entry = await reported(store, MARKED)
        data = json.loads(entry.fields["data"])
        assert data["name"] == name
        known = (await store.instruments.instruments([MARKED]))[MARKED]
        part = 100 * data["record"]["aggregated_short"] / (known.outstanding_shares or 0)
        assert data["outstanding_percent"] == pytest.approx(part, abs=1e-4)
        _, tail, _ = await poller(service, "tail", "--no-follow")
        assert f"  {name}\n" in tail
        _, listed, _ = await poller(service, "watch", "list")
        assert f"{TENCENT}  TENCENT" in listed
        _, listed, _ = await poller(service, "watch", "list", "--json")
        assert {each["code"]: each["name"] for each in json.loads(listed)} == {
            TENCENT: "TENCENT",
            MARKED: name,
        }
        _, history, _ = await poller(service, "history", TENCENT)
        assert history.startswith("TENCENT (HK.00700)\n")
        _, history, _ = await poller(service, "history", MARKED)
        assert history.endswith(" % of the outstanding shares are short\n")
        for verb in ("history", "export"):
            _, text, _ = await poller(service, verb, TENCENT, MARKED, "--format", "csv")
            rows = list(csv.DictReader(io.StringIO(text)))
            assert {row["code"]: row["name"] for row in rows} == {TENCENT: "TENCENT", MARKED: name}
            newest = next(row for row in rows if row["code"] == MARKED)
            assert float(newest["outstanding_percent"]) == data["outstanding_percent"]
        async with at_most(what="names on the page"):
            while "TENCENT" not in (front := await page(service, "/?q=tencent")):
                await asyncio.sleep(0.05)
        assert f'id="row-{MARKED}"' not in front
        front = await page(service, "/")
        assert f">{html.escape(name)}</span>" in front
        assert name not in front
        shown = await page(service, f"/symbols/{TENCENT}")
        assert "<h1>TENCENT (HK.00700)</h1>" in shown
        assert "9,192,971,000" in shown
        rows = json.loads(await page(service, "/api/symbols"))["symbols"]
        assert {row["code"]: row["name"] for row in rows} == {TENCENT: "TENCENT", MARKED: name}
        told = json.loads(await page(service, f"/api/symbols/{TENCENT}"))
        assert (told["name"], told["issued_shares"]) == ("TENCENT", 9_192_971_000)


async def test_who_moved_most_is_in_the_notice(tmp_path: Path) -> None:
    """As `release` ranks the report: the same symbols, changes, ranks and names."""
    codes = [code for code in WORLD.codes() if code.startswith("HK.") and code != TENCENT][:3]
    async with simulator(WORLD) as opend, running(tmp_path, opend, *codes) as (service, store):
        await named(store, *codes)
        await entries(store, len(codes))
        for code in codes:
            release(opend, code)
        async with at_most(what="a completion"):
            while not (
                complete := [
                    entry
                    for entry in await store.streams.last_entries(9, Stream.RELEASES)
                    if entry.fields["type"] == "release.completed"
                ]
            ):
                await asyncio.sleep(0.02)
        told = json.loads(complete[0].fields["data"])["biggest"]
        _, text, _ = await poller(service, "release", "HK", "--format", "json")
        rows = [row for row in json.loads(text)["symbols"] if row["change"]]
        assert [{name: row[name] for name in told[0]} for row in rows] == told
        assert {row["name"] for row in rows} == {name_of(WORLD.seed, code) for code in codes}
        _, line, _ = await poller(service, "tail", "--releases", "--no-follow")
        first = told[0]
        assert f"; biggest: {first['name']} ({first['code']}) {first['change']:+,}" in line
        _, table, _ = await poller(service, "release", "HK", "--sort", "zscore")
        assert all(len(row) <= 80 for row in table.splitlines()[:-1])


async def test_a_new_symbol_and_a_restart(tmp_path: Path) -> None:
    """A symbol added while it runs has its name within seconds; a restart asks for nothing."""
    first, second = WORLD.codes()[1:3]
    async with simulator(WORLD) as opend:
        async with running(tmp_path, opend, first) as (service, store):
            await named(store, first)
            await poller(service, "watch", "add", second)
            async with at_most(10):
                assert await named(store, second) == {second: name_of(WORLD.seed, second)}
            await counted(store, second)
        asked = [seen.proto for seen in opend.seen]
        async with running(tmp_path, opend, first) as (_, store):
            release(opend, first)
            entry = await reported(store, first)
        assert json.loads(entry.fields["data"])["name"] == name_of(WORLD.seed, first)
        again = [seen.proto for seen in opend.seen][len(asked) :]
        assert Proto.STATIC_INFO in asked
        assert Proto.STATIC_INFO not in again
        assert Proto.SNAPSHOT not in again


async def test_an_unknown_code_costs_the_others_no_name(tmp_path: Path) -> None:
    """OpenD refuses a request that holds it; the others have theirs within a few requests."""
    codes = [*(code for code in WORLD.codes() if code.startswith("HK.")), UNKNOWN]
    async with simulator(WORLD) as opend, running(tmp_path, opend, *codes) as (service, store):
        found = await named(store, *codes)
        assert found == {c: None if c == UNKNOWN else name_of(WORLD.seed, c) for c in codes}
        assert (
            sum(seen.proto == Proto.STATIC_INFO for seen in opend.seen) <= 10
        )  # the limit of 30 s
        assert service.told("names of") == 0


def nonsense(asked: Message, reply: Message) -> Message:
    """Return a reply with names and shares that no company has, for codes nobody asked for."""
    del asked
    for each in (
        *getattr(reply.s2c, "staticInfoList", ()),
        *getattr(reply.s2c, "snapshotList", ()),
    ):
        each.basic.name = "\u202e\x1b[2J" * 100
        each.basic.security.code = f"X{each.basic.security.code}"
    return reply


TROUBLES = {
    "refused": ("", lambda _, __: replies.refusal(Proto.STATIC_INFO, "NN_ProtoRet_TimeOut")),
    "no right": ("", lambda _, __: replies.refusal(Proto.STATIC_INFO, "行情权限不足")),
    "too old": ("", lambda _, __: replies.refusal(Proto.STATIC_INFO, "NN_ProtoRet_SvrFailed")),
    "nonsense": (None, nonsense),
    "mute": (None, None),
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_whatever_goes_wrong_there_stops_nothing_else(tmp_path: Path, trouble: str) -> None:
    """Events go on without a name; it is told in one line for each call, and `/readyz` is 200."""
    told, alter = TROUBLES[trouble]
    async with simulator(WORLD) as opend:
        for proto in (Proto.STATIC_INFO, Proto.SNAPSHOT):
            if alter is None:
                opend.faults.mute_calls.add(proto)
            else:
                opend.faults.alter[proto] = alter
        async with running(tmp_path, opend, TENCENT) as (service, store):
            await entries(store, 1)
            if told is not None:
                await service.said("names of HK, account main")
                await service.said("share counts of HK, account main")
            else:
                await opend.until_seen(1, Proto.SNAPSHOT)
            release(opend, TENCENT)
            entry = await reported(store, TENCENT)
            assert "name" not in json.loads(entry.fields["data"])
            async with at_most(what="a service that is ready"):  # the first report takes a second
                while not json.loads(await page(service, "/readyz"))["ready"]:
                    await asyncio.sleep(0.1)
            assert service.told("names of HK") == (told is not None)
            assert service.told("defect") == 0
            assert service.told("the connection was lost") == 0


async def test_a_name_in_a_chat(tmp_path: Path) -> None:
    """A message says whom it is about, in a form that no chat takes for formatting."""
    posted: list[str] = []

    async def take(request: web.Request) -> web.Response:
        posted.append(text_of_card((await request.json())["card"]))
        return web.json_response({"code": 0})

    application = web.Application()
    application.router.add_post("/", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        settings = {
            "POLLER_WEBHOOKS__0__NAME": "chat",
            "POLLER_WEBHOOKS__0__URL": f"http://127.0.0.1:{runner.addresses[0][1]}/",
            "POLLER_WEBHOOKS__0__FEISHU": "true",
            "POLLER_WEBHOOKS__0__WAIT": "0.5",
            "POLLER_WEBHOOKS__0__EVENTS": "reported",
        }
        async with (
            simulator(WORLD) as opend,
            running(tmp_path, opend, MARKED, **settings) as (_, store),
        ):
            await named(store, MARKED)
            await entries(store, 1)
            release(opend, MARKED)
            async with at_most(what="a message"):
                while not posted:
                    await asyncio.sleep(0.02)
    finally:
        await runner.cleanup()
    plain = " ".join(name_of(WORLD.seed, MARKED).replace("<", " ").replace(">", " ").split())
    assert f"\n{plain} ({MARKED}) reported " in posted[0]
