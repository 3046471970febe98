"""The time zone of the page: each market's own, UTC or the visitor's, chosen by a link."""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from playwright.async_api import expect

from poller.markets.hk import HONG_KONG
from poller.telemetry.status import ReleaseState
from poller.web.zone_choice import COOKIE
from poller.web.zones import EACH_MARKET, zone_named
from tests.desk import HK, NOW, US, Desk, desk
from tests.machine import needs
from tests.test_page import CHROMIUM, browser
from tests.test_web import get, http, spoken

__all__ = ["http"]


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Desk]:
    """A page of both markets; Hong Kong is probed in a while."""
    async with desk(tmp_path, HK, US) as made:
        await made.publish(HK, 100, 120)
        await made.publish(US, 5_000_000, 6_000_000)
        await made.shows(US, 6_000_000)
        at = NOW + timedelta(minutes=30, seconds=17)
        state = ReleaseState("watching", date(2026, 11, 13), 1, 1, at)
        await made.report(markets={"HK": state})
        yield made


CHOSEN: Final = [
    ("market", "12:30:17 HKT", ["2026-11-24 12:00 HKT", "2026-11-23 23:00 EST"]),
    ("UTC", "04:30:17 UTC", ["2026-11-24 04:00 UTC"]),
    ("Asia/Tokyo", "13:30:17 JST", ["2026-11-24 13:00 JST"]),
    ("America/Sao_Paulo", "01:30:17 UTC-03", ["2026-11-24 01:00 UTC-03"]),
]
"""A zone, when Hong Kong is probed, and when either market's events were published."""


async def test_times_are_in_the_zone_that_was_chosen(
    page: Desk, http: aiohttp.ClientSession
) -> None:
    """The link remembers the choice, on every page, and keeps what else the address asks for."""
    for zone, probed, published in CHOSEN:
        query = {"market": "HK", "zone": zone, "q": "0"}
        async with http.get(page.url, params=query, allow_redirects=False) as answer:
            assert answer.status == 303
            assert answer.headers["Location"] == "/?market=HK&q=0"
            cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "Max-Age=31536000" in cookie
        text, _ = await get(http, page.url)
        words = spoken(text)
        assert f"HK is probed next at {probed}" in words
        assert all(each in words for each in published)
        assert text.count('aria-current="true"') == 1
        assert published[0] in spoken((await get(http, f"{page.url}/symbols/{HK}"))[0])


async def test_an_unknown_zone_is_none(page: Desk, http: aiohttp.ClientSession) -> None:
    """In a link it is refused with what to write; in a cookie, it is as if there were none."""
    for name in ("", "local", "../../etc/passwd", "/etc/passwd", "Europe", "x" * 99):
        assert zone_named(name) is None
        async with http.get(page.url, params={"zone": name}, allow_redirects=False) as answer:
            assert answer.status == 400
            assert "use market, UTC or a name like Europe/Berlin" in await answer.text()
        words = spoken((await get(http, page.url, Cookie=f"{COOKIE}={name}"))[0])
        assert "12:30:17 HKT" in words


def test_times_of_no_market_are_utc_unless_a_zone_is_chosen() -> None:
    """Those of the service belong to no market."""
    assert EACH_MARKET.text(NOW, "%H:%M", None) == "04:00 UTC"
    assert EACH_MARKET.text(NOW, "%H:%M", HONG_KONG) == "12:00 HKT"


@needs(CHROMIUM)
async def test_the_zone_of_the_browser(page: Desk) -> None:
    """The script puts its name into the link, and whoever takes it reads local times."""
    async with browser(timezone_id="Asia/Tokyo") as (window, complaints):
        await window.goto(f"{page.url}/?q=0")
        zones = window.get_by_role("navigation", name="Time zone")
        await zones.get_by_role("link", name="local").click()
        await window.wait_for_url(f"{page.url}/?q=0")
        await expect(window.locator("#cards")).to_contain_text("13:30:17 JST")
        await expect(zones.locator("[aria-current]")).to_have_text("local")
        assert complaints == []
