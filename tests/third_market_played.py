"""A market that is one file: from the simulated OpenD to everybody who reads. See test_markets.py.

It runs in a pytest of its own (`-p tests.third_market`), since the markets are what they are from
the beginning of a process.
"""

import asyncio
import contextlib
import csv
import io
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from poller.detect.compare import Known, compare
from poller.events import StreamEvent, decode
from poller.markets import Record, all_markets
from poller.model import Code, EventType, Vintage, market_of, parse_code
from poller.schedule.calendar import expected_after, missing_days, release_of, released_by
from poller.simulator import World
from tests.chats import text_of_card
from tests.machine import at_most
from tests.receiver import SECRET, Receiver
from tests.service import PATIENCE, Service, entries, now, simulator, store_of, until, with_rows
from tests.third_market import TOKYO, TokyoRecord

# late, so that the next day to be reported has passed
WORLD = World(
    made_up={"JP": 2}, tencent=False, without_rows=0.0, history=30, shift=timedelta(days=60)
)
FIRST, SECOND = WORLD.codes()
GROWTH = 4_321.5


def newer(row: Record) -> TokyoRecord:
    """Return the row of the report after this one, with more shares."""
    assert isinstance(row, TokyoRecord)
    day = expected_after(TOKYO, row.day).day
    stamp = int(datetime.combine(day, datetime.min.time(), TOKYO.zone).timestamp())
    balance = (row.margin_balance or 0) + GROWTH
    return replace(row, timestamp=stamp, timestamp_str=str(day), margin_balance=balance)


async def run(service: Service, *arguments: str) -> str:
    """Run one command with the third market; returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.third_market", *arguments),
        env=service.environment() | {"COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with at_most(PATIENCE, f"poller {' '.join(arguments)}"):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


@contextlib.asynccontextmanager
async def bot(posts: list[str]) -> AsyncIterator[str]:
    """Run a Feishu bot; yields its URL."""

    async def answer(request: web.Request) -> web.Response:
        posts.append(text_of_card((await request.json())["card"]))
        return web.json_response({"code": 0})

    app = web.Application()
    app.router.add_post("/bot", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/bot"
    finally:
        await runner.cleanup()


def webhooks(desk: Receiver, other: Receiver, chat: str) -> dict[str, str]:
    """Configure an endpoint whose filter fits, one whose does not, and a chat."""
    endpoints = (
        {
            "NAME": "desk",
            "URL": desk.url,
            "SECRET": SECRET,
            "EVENTS": "reported,release.detected",
            "FILTER": "shares > 1000 && change.shares == 4321.5 && record.margin_balance == shares",
        },
        {
            "NAME": "other",
            "URL": other.url,
            "SECRET": SECRET,
            "EVENTS": "reported",
            "FILTER": 'shares < 1000 || market != "JP" || record.shares_short > 0',
        },
        {"NAME": "chat", "URL": chat, "FEISHU": "true", "WAIT": "0.2", "EVENTS": "reported"},
    )
    return {
        f"POLLER_WEBHOOKS__{number}__{key}": text
        for number, endpoint in enumerate(endpoints)
        for key, text in endpoint.items()
    }


async def test_from_the_gateway_to_every_reader(tmp_path: Path) -> None:
    """Wire, store, stream, filter, chat, page, and the commands show it with its own figures."""
    desk, other, posts = Receiver(), Receiver(), list[str]()
    async with (
        desk.running(),
        other.running(),
        bot(posts) as chat,
        simulator(WORLD) as opend,
    ):
        service = Service(tmp_path, opend.port, f"{FIRST},{SECOND}", webhooks(desk, other, chat))
        service.module = "tests.third_market"
        await service.start()
        async with store_of(service) as store:
            known = {code: WORLD.records(code, now()) for code in (FIRST, SECOND)}
            await entries(store, sum(map(len, known.values())))
            report = newer(known[FIRST][0])
            opend.world = with_rows(opend.world, FIRST, (report, *known[FIRST]))
            await desk.until(2)
            await until(lambda: bool(posts))
            published = [decode(each.id, each.fields) for each in await entries(store, 1)]
            vintages = (await store.records.snapshot(FIRST)).known.vintages
        event = next(each for each in published if str(report.day) in getattr(each, "id", ""))
        assert isinstance(event, StreamEvent)
        assert (event.kind, event.market, event.record) == ("reported", TOKYO, report)
        assert event.previous == known[FIRST][0]
        assert event.change is not None
        assert event.change.shares == GROWTH
        assert vintages[report.day].record == report
        sent = {seen.body["type"].rpartition(".")[2]: seen.body["data"] for seen in desk.seen}
        assert sent["reported"]["record"] == report.columns()
        assert (sent["detected"]["market"], sent["detected"]["code"]) == ("JP", FIRST)
        assert other.seen == []
        assert f" reported {report.shares:,} shares short" in posts[0]
        assert FIRST in posts[0]  # behind its name, if that was known by then
        await shown_by_the_commands(service, report)
        url = next(line["url"] for line in service.log() if line["event"].startswith("page"))
        await shown_by_the_page(str(url).rstrip("/"), report)
        assert await service.stop() == 0
        assert not [line for line in service.log() if line["level"] == "error"]


async def shown_by_the_commands(service: Service, report: TokyoRecord) -> None:
    """Check that each reader shows the figures of a report under the market's own names."""
    tail, history, table, export, release, explain = await asyncio.gather(
        run(service, "tail", "-n", "1", "--no-follow"),
        run(service, "history", FIRST, "--format", "json"),
        run(service, "history", FIRST),
        run(service, "export", "--format", "csv"),
        run(service, "release", "jp", "--format", "json"),
        run(service, "explain", FIRST),
    )
    assert f"{FIRST}" in tail
    assert f"{report.shares:,} short" in tail
    assert f"{GROWTH:+,}" in tail
    assert json.loads(history)[0]["margin_balance"] == report.margin_balance
    assert f"{report.shares:,}" in "".join(table.splitlines()[:3])  # a name may be first
    exported = list(csv.DictReader(io.StringIO(export)))
    assert float(exported[0]["margin_balance"]) > 0
    assert set(TOKYO.columns) < set(exported[0])
    released = json.loads(release)
    assert (released["market"], released["trading_day"]) == ("JP", str(report.day))
    assert released["symbols"][0]["change"] == GROWTH
    assert str(report.day) in explain


async def shown_by_the_page(url: str, report: TokyoRecord) -> None:
    """Check the watchlist, the symbol, and the JSON beside them."""
    async with aiohttp.ClientSession(raise_for_status=True) as http:

        async def get(path: str) -> str:
            async with http.get(url + path) as response:
                return await response.text()

        async def status() -> dict[str, Any]:
            answer: dict[str, Any] = json.loads(await get(f"/api/symbols/{FIRST}"))
            return answer

        async with at_most(PATIENCE, "the page to show the report"):
            while (found := await status())["row"]["shares"] != report.shares:
                await asyncio.sleep(0.05)
        assert found["row"]["change"] == GROWTH
        assert found["history"][0]["margin_balance"] == report.margin_balance
        index = await get("/?market=JP")
        assert "<h2>Japan</h2>" in index
        assert f"{report.shares:,}" in index
        symbol = await get(f"/symbols/{FIRST}")
        assert "close price, yen" in symbol
        assert "made up for the tests" in symbol
        assert "Days to cover" not in symbol
        assert (
            "JP"
            in json.loads(await get("/api/openapi.json"))["paths"]["/api/symbols"]["get"][
                "parameters"
            ][1]["schema"]["enum"]
        )


@pytest.mark.parametrize(
    ("text", "hint"),
    [("JP.720", "expected HK. or JP. or US. and a symbol"), ("JP.toyota", "write 'JP.7203'")],
)
def test_a_wrong_code_is_told_what_to_write(text: str, hint: str) -> None:
    """The pattern and the hint are the market's own."""
    with pytest.raises(ValueError, match=hint):
        parse_code(text)
    assert parse_code("JP.130A") == "JP.130A"


def test_its_calendar_plans_its_polls() -> None:
    """Expected days, missing days and releases are those of its own rule."""
    assert expected_after(TOKYO, date(2026, 1, 30)).day == date(2026, 2, 27)
    opens = release_of(TOKYO, date(2026, 1, 30)).opens
    assert (opens.date(), opens.utcoffset()) == (date(2026, 2, 16), timedelta(hours=9))
    assert released_by(TOKYO, opens) == date(2026, 1, 30)
    gaps = missing_days(TOKYO, [date(2025, 11, 28), date(2026, 1, 30)], opens)
    assert gaps == (date(2025, 12, 30),)


def rows(*figures: float) -> list[TokyoRecord]:
    """Return the reports of these shares, newest first."""
    days = [expected_after(TOKYO, date(2025, 1, 1)).day]
    for _ in figures[1:]:
        days.append(expected_after(TOKYO, days[-1]).day)
    made = zip(days, figures, strict=True)
    return [TokyoRecord(None, str(day), each, 1.0, 50.0) for day, each in made][::-1]


CODE = Code("JP.7203")
SEEN = datetime(2026, 11, 1, tzinfo=TOKYO.zone)


def test_decimals_are_compared_exactly() -> None:
    """A difference has no digits that nobody wrote; a hundredth of a share is a change."""
    found = compare(CODE, rows(100.1, 100.3, 100.31), Known(), observed_at=SEEN, history=50)
    changes = [event.change for event in found.events]
    assert [None if each is None else each.shares for each in changes] == [None, 0.2, 0.01]
    assert changes[2] is not None
    assert (changes[2].percentile, changes[2].year_high) == (100.0, True)


def test_a_rescaled_history_of_decimals_is_one_restatement() -> None:
    """Three for two, rounded to hundredths: one event, its factor exact."""
    before = rows(100.11, 207.37, 150.53, 160.01)
    known = {row.day: Vintage(row, 0, SEEN) for row in before}
    now_ = [
        replace(row, margin_balance=round((row.margin_balance or 0) * 1.5, 2)) for row in before
    ]
    found = compare(CODE, now_, Known(max(known), known), observed_at=SEEN, history=50)
    assert [event.type for event in found.events] == [EventType.RESTATED]
    fact = found.events[0].restated
    assert fact is not None
    assert (fact.factor, fact.column, len(fact.days)) == (1.5, "margin_balance", 4)


def test_a_figure_beyond_its_bounds_is_held() -> None:
    """What a column cannot be is the market's own to say."""
    broken = [replace(rows(5.5)[0], margin_share=250.0)]
    found = compare(CODE, broken, Known(), observed_at=SEEN, history=50)
    assert not found.events
    assert len(found.held) == 1


def test_it_is_one_of_three() -> None:
    """It stands beside the real ones, which are what they were."""
    assert [market.name for market in all_markets()] == ["HK", "JP", "US"]
    assert market_of(FIRST) is TOKYO
