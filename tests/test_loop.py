"""The loop of the real service: no step of it keeps the others waiting."""

import asyncio
from pathlib import Path

import aiohttp

from poller.model import Code
from poller.simulator import World
from tests.machine import at_most
from tests.receiver import SECRET, Receiver
from tests.service import Service, simulator, store_of, whole
from tests.stepped import LONG

LONG_KNOWN = Code("HK.00941")
DAYS = 1500
WORLD = World(
    made_up={"HK": 20, "US": 20}, named=(LONG_KNOWN,), history=20, depth={LONG_KNOWN: DAYS}
)
PAGES = (
    "/",
    f"/symbols/{LONG_KNOWN}",
    f"/api/symbols/{LONG_KNOWN}",
    "/metrics",
    "/readyz",
    "/api/status",
    "/api/openapi.json",
    "/?sort=percent",
)


async def ask(service: Service) -> None:
    """Ask for every kind of page at once, twice: the first answers cost the most."""
    (line,) = [line for line in service.log() if line["event"] == "page"]
    async with aiohttp.ClientSession(str(line["url"]), raise_for_status=whole) as http:
        for _ in range(2):
            answers = await asyncio.gather(*(http.get(path) for path in PAGES))
            assert not any(answer.status == 500 for answer in answers)


async def test_no_step_of_the_loop_is_long(tmp_path: Path) -> None:
    """From the first connection over pages, histories and webhooks to the end: no step is long."""
    async with simulator(WORLD) as opend, Receiver().running() as receiver:
        service = Service(
            tmp_path,
            opend.port,
            ",".join(WORLD.codes()),
            {
                "POLLER_WATCHLIST__HISTORY": str(DAYS),
                "POLLER_WEBHOOKS__0__NAME": "desk",
                "POLLER_WEBHOOKS__0__URL": receiver.url,
                "POLLER_WEBHOOKS__0__SECRET": SECRET,
                "POLLER_WEBHOOKS__0__EVENTS": "reported,revised,backfilled",
                "POLLER_WEBHOOKS__0__FILTER": "trading_day >= '2026-09-01'",
            },
            module="tests.stepped",
        )
        await service.start()
        await service.said("page")
        await ask(service)
        async with store_of(service) as store, at_most():
            while LONG_KNOWN not in await store.records.watermarks():
                await asyncio.sleep(0.1)
        await receiver.until(20)
        await ask(service)
        assert await service.stop() == 0
    assert [line for line in service.log() if line["event"] == LONG] == []
