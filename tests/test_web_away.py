"""The page while Redis does not answer: what it knew, of one moment, in time, in its own words."""

import asyncio
from datetime import date, timedelta
from pathlib import Path

import aiohttp

from poller.model import Code
from poller.telemetry.observe import Trouble
from poller.telemetry.status import ReleaseState
from tests.desk import HK, NOW, desk
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
