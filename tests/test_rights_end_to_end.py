"""A market the account may not see, beside one it may, through the unmodified SDK."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from poller.gateway.opend import LATE
from poller.gateway.sdk import CALL_LIMIT
from poller.model import Code
from poller.schedule.evidence import UNPROVEN
from poller.schedule.rights import FIRST_PAUSE, HINT_PAUSE
from poller.simulator import Proto, World
from poller.store.redisstore import RedisStore
from tests.machine import at_most
from tests.opend import Simulator, gateway_event, quote_rights
from tests.service import PATIENCE, Service, entries, later, now, poller, simulator, store_of, whole

TIMED_OUT = "NN_ProtoRet_TimeOut"
TEXTS = (TIMED_OUT, "行情权限不足", "获取空头持仓失败, no permission")
PERIOD = 1.0
WORLD = World(
    made_up={"HK": 20, "US": 100},
    tencent=False,
    without_rows=0.0,
    history=3,
    since=now().date() - timedelta(days=400),
    shift=timedelta(days=200),
)
HK = tuple(code for code in WORLD.codes() if code.startswith("HK."))
US = tuple(code for code in WORLD.codes() if code.startswith("US."))
LEARNED = "account main has no right to US quotes"


@asynccontextmanager
async def running(
    folder: Path, gateways: Sequence[Simulator], codes: Sequence[Code], **settings: str
) -> AsyncIterator[tuple[Service, RedisStore]]:
    """Run a service on these gateways, each of an account of its own; it ends well."""
    names = ("main", "other")
    service = Service(folder, gateways[0].port, ",".join(codes))
    service.settings = {
        "POLLER_WATCHLIST__HISTORY": "1",
        **{f"POLLER_OPEND__{n}__PORT": str(gateway.port) for n, gateway in enumerate(gateways)},
        **{f"POLLER_OPEND__{n}__ACCOUNT": names[n] for n in range(len(gateways))},
        **settings,
    }
    async with store_of(service) as store:
        await service.start()
        try:
            yield service, store
        finally:
            assert await service.stop() == 0


def asked(opend: Simulator, market: str, since: float = 0.0) -> int:
    """Return how many requests for short interest of a market arrived from then on."""
    return sum(
        seen.proto == Proto.SHORT_INTEREST and seen.code.startswith(f"{market}.")
        for seen in opend.seen
        if seen.at >= since
    )


def release(opend: Simulator) -> None:
    """Report one more day of every Hong Kong symbol."""
    shown = {code: opend.world.records(code, now()) for code in HK}
    extra = {
        code: (later(rows[0], days=1, aggregated_short=(rows[0].shares or 0) + 1), *rows)
        for code, rows in shown.items()
    }
    opend.world = replace(opend.world, extra=extra)


async def page(service: Service, path: str) -> tuple[int, str]:
    """Return status and body of a page of the service."""
    await service.said("page")
    (line,) = [line for line in service.log() if line["event"] == "page"]
    async with aiohttp.ClientSession(str(line["url"]), raise_for_status=whole) as http:
        answer = await http.get(path)
        return answer.status, await answer.text()


@pytest.mark.parametrize("text", TEXTS)
async def test_the_market_that_may_be_seen_notices_nothing(tmp_path: Path, text: str) -> None:
    """Told in one line; the release of the other market is as early, and no connection is lost."""
    async with simulator(WORLD) as opend:
        opend.faults.no_right["US"] = text
        async with running(tmp_path, [opend], [*HK, *US]) as (service, store):
            await service.said(LEARNED)
            await entries(store, len(HK))
            assert asked(opend, "US") <= 10
            learned = time.monotonic()
            release(opend)
            await entries(store, 2 * len(HK))
            await opend.until_seen(len(opend.seen) + 20)
            assert asked(opend, "US", learned) <= 0.05 * asked(opend, "HK", learned) + 1
            assert (await page(service, "/readyz"))[0] == 200
            assert service.told(LEARNED) == 1
            assert service.told(": connected") == 1
            assert service.told("looks in a row") == 0


async def test_a_market_that_is_mute_costs_no_connection(tmp_path: Path) -> None:
    """No reply to any of its symbols: the link is sound, says a call of another kind."""
    async with simulator(WORLD) as opend:
        opend.faults.mute_markets.add("US")
        async with running(tmp_path, [opend], [*HK[:4], *US]) as (service, store):
            await entries(store, 4)
            async with at_most(what="a page that has heard of the connection"):
                while (await page(service, "/readyz"))[0] != 200:
                    await asyncio.sleep(0.1)
            release(opend)
            async with asyncio.timeout(CALL_LIMIT - LATE):  # what is under way holds nobody up
                await entries(store, 8)
            while not service.told(LEARNED):
                status, body = await page(service, "/readyz")
                assert status == 200, body
                await asyncio.sleep(0.5)
            assert asked(opend, "US") <= 2 * UNPROVEN
            assert service.told(": connected") == 1
            assert service.told("no answer for") == service.told("requests in a row") == 0


@pytest.mark.parametrize("text", TEXTS)
async def test_another_account_is_asked_for_what_one_may_not_see(tmp_path: Path, text: str) -> None:
    """All twelve symbols are served, and the account without right is not asked on."""
    async with simulator(WORLD) as first, simulator(WORLD) as second:
        first.faults.no_right["US"] = text
        watched = [*HK[:3], *US[:12]]
        async with running(tmp_path, [first, second], watched) as (service, store):
            found = await entries(store, len(watched))
            assert {entry.fields["code"] for entry in found} == set(watched)
            await service.said(LEARNED)
            before = asked(first, "US")
            await second.until_seen(len(second.seen) + 20)
            assert asked(first, "US") <= before + 1
            assert (await page(service, "/readyz"))[0] == 200
            assert "watch remove" not in (await poller(service, "explain", US[0]))[1]
            code, out, _ = await poller(service, "backfill", US[0])
            assert (code, out.endswith(" days added\n")) == (0, True)


async def test_a_right_is_told_everywhere_and_comes_back(tmp_path: Path) -> None:
    """Metric, page, `/readyz` and `explain` name it; the first trial ends it, and all is served."""
    async with simulator(WORLD) as opend:
        opend.faults.no_right["US"] = TIMED_OUT
        async with running(tmp_path, [opend], [*HK, *US[:5]]) as (service, store):
            await service.said(LEARNED)
            body = await told(service, "/readyz", LEARNED)
            assert json.loads(body)["ready"] is True
            series = 'poller_market_right{account="main",market="%s"} %s'
            text = await told(service, "/metrics", series % ("US", "0.0"))
            assert series % ("HK", "1.0") in text
            assert "US quotes, account main" in await told(service, "/", "no right")
            status = json.loads((await page(service, "/api/status"))[1])
            assert [(r["account"], r["market"]) for r in status["resting"]] == [("main", "US")]
            code, out, _ = await poller(service, "explain", US[0])
            assert (code, LEARNED in out, "watch remove" in out) == (0, True, False)
            assert "when an account may see it" in out
            assert "right" not in (await poller(service, "explain", HK[0]))[1]
            opend.faults.no_right.clear()
            async with at_most(FIRST_PAUSE.total_seconds() + PATIENCE, "the trial"):
                while not service.told(f"{LEARNED}: that is over"):
                    await asyncio.sleep(0.2)
            found = await entries(store, len(HK) + 5)
            assert {e.fields["code"] for e in found} == {*HK, *US[:5]}
            await told(service, "/metrics", series % ("US", "1.0"))
            assert service.told(LEARNED) == 2


async def test_notifications_are_hints(tmp_path: Path) -> None:
    """Changed rights are tried soon, and not only when the next trial is due; events are told."""
    async with simulator(WORLD) as opend:
        opend.faults.no_right["US"] = TEXTS[1]
        async with running(tmp_path, [opend], [*HK[:3], *US[:3]]) as (service, store):
            await service.said(LEARNED)
            opend.notify(gateway_event(7, "在别处登录"))
            await service.said("OpenD was logged out by a login of its account elsewhere")
            opend.faults.no_right.clear()
            opend.notify(quote_rights(3, 3))
            async with at_most(HINT_PAUSE.total_seconds() + PATIENCE / 2, "a trial"):
                while not service.told(f"{LEARNED}: that is over"):
                    await asyncio.sleep(0.2)
            await entries(store, 6)


async def told(service: Service, path: str, text: str) -> str:
    """Wait until a page of the service holds a text; returns the page."""
    async with at_most(what=f"{text} in {path}"):
        while text not in (body := (await page(service, path))[1]):
            await asyncio.sleep(0.1)
    return body
