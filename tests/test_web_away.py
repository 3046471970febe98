"""The page while Redis does not answer: what it knew, of one moment, in time, in its own words."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path

import aiohttp

from poller.model import Code
from poller.telemetry.observe import Trouble
from poller.telemetry.status import ReleaseState
from tests.desk import HK, NOW, Desk, desk
from tests.machine import scaled
from tests.service import until
from tests.test_web import spoken

OTHER = Code("HK.00005")


async def test_without_redis_rows_and_markets_agree(tmp_path: Path) -> None:
    """What came after the last look is in the markets, too: no row is late, no move denied."""
    async with desk(tmp_path, HK, OTHER) as made, aiohttp.ClientSession() as http:
        for code in (HK, OTHER):
            await made.publish(code, 100, 90)
            await made.shows(code, 90)
        await made.report(markets={"HK": ReleaseState("watching", date(2026, 11, 13), 2, 2)})
        await made.detected(HK, date(2026, 11, 13))
        assert "Biggest moves" in await (await http.get(made.url)).text()
        for code in (HK, OTHER):
            await made.publish(code, 70, newest=date(2026, 11, 20))
            await made.shows(code, 70)
        await made.raw.shutdown(nosave=True)
        await until(lambda: any(isinstance(fact, Trouble) for fact in made.facts))
        page = spoken(await (await http.get(made.url)).text())
        assert "Last seen now" in page
        assert "Hong Kong 2026-11-20" in page
        assert "2 of 2 reported" in page
        for part in (" late", "No figure has moved", "2026-11-13"):
            assert part not in page, part


async def test_the_state_is_recent_although_nobody_looked(tmp_path: Path) -> None:
    """Without an open page, the state is read now and then: gone, Redis was seen just before."""
    async with desk(tmp_path, HK, refresh=timedelta(milliseconds=20)) as made:
        await made.report()

        async def read() -> int:
            found = await made.raw.info("commandstats")
            return int(found.get("cmdstat_xlen", {"calls": 0})["calls"])

        before = await read()
        while await read() < before + 2:
            await asyncio.sleep(0)
        await made.raw.shutdown(nosave=True)
        service = await made.sources.service_status()
        assert service.redis
        assert service.seen == NOW
        assert [each.ready for each in service.gateways] == [True]


async def test_a_frozen_redis_is_told_in_time(tmp_path: Path) -> None:
    """A Redis that accepts and does not answer: each page and answer says so within seconds.

    In words of ours, with no path of this machine; what is in memory is shown.
    """
    paths = ("/", f"/symbols/{HK}", "/releases/HK", f"/api/symbols/{HK}", "/api/releases/HK")
    async with desk(tmp_path, HK) as made, aiohttp.ClientSession() as http, frozen(made):
        texts = await asyncio.gather(
            *(told(http, made.url + path) for path in (*paths, "/api/events", "/api/symbols"))
        )
        for path, (status, text) in zip(paths, texts, strict=False):
            assert status == (200 if path == "/" else 503)
            assert "Redis does not answer: nothing within 2" in text, path
            assert str(tmp_path) not in text
        assert [status for status, _ in texts[-2:]] == [503, 200]


async def test_a_redis_that_freezes_after_a_look(tmp_path: Path) -> None:
    """The page shows the look, and that the rest is unknown, instead of waiting for it."""
    always = timedelta(seconds=1)  # the clock stands still
    async with desk(tmp_path, HK, fresh=always) as made, aiohttp.ClientSession() as http:
        await made.report()
        assert "Last seen" not in (await told(http, made.url))[1]
        async with frozen(made):
            status, text = await told(http, made.url)
        assert status == 200
        assert "Redis does not answer: nothing within 2 s" in text
        assert "Unknown, last seen now" in text


@contextlib.asynccontextmanager
async def frozen(made: Desk) -> AsyncIterator[None]:
    """Stop the server while the block runs: it accepts connections, and answers nothing."""
    process = int((await made.raw.info("server"))["process_id"])
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


async def told(http: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    """Return an answer that comes as soon as a visitor would wait for it."""
    async with asyncio.timeout(scaled(6)), http.get(url) as answer:
        return answer.status, await answer.text()
