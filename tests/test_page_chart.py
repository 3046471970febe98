"""The live chart of a symbol in Chromium, and the drawn one where there is no script or library."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Locator, Page, expect

from poller.web import assets
from poller.web.connections import Limits, PageConnections
from poller.web.server import application
from tests.desk import HK, US, Desk, desk
from tests.machine import needs
from tests.test_page import CHROMIUM, browser
from tests.test_web import get, http

__all__ = ["http"]

in_browser = needs(CHROMIUM)

DAY = 86_400_000
SPAN = "graphs.map((graph) => graph.xAxisRange())"


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Desk]:
    """Four years of weekly reports, of which four are below the threshold."""
    async with desk(tmp_path, HK, US) as made:
        figures = [0 if 50 <= n < 54 else 1_000_000 + 1000 * n for n in range(208)]
        await made.publish(HK, *figures)
        await made.publish(US, *range(5_000_000, 5_030_000, 1000))
        await made.shows(US, 5_029_000)
        await made.report()
        yield made


async def spans(window: Page) -> list[tuple[float, float]]:
    """Return the first and the last day that each panel shows."""
    return [(first / DAY, last / DAY) for first, last in await window.evaluate(SPAN)]


async def ranged(window: Page) -> None:
    """Try every button."""
    for word, days in (("All", 1449), ("3M", 91), ("3Y", 1096), ("1Y", 365)):
        button = window.get_by_role("button", name=word, exact=True)
        await button.click()
        await expect(button).to_have_attribute("aria-pressed", "true")
        (shown,) = set(await spans(window))
        assert shown[1] - shown[0] == days


async def pointed(window: Page) -> None:
    """Hover over one panel, and zoom in on it, while it shows a year."""
    box = await window.locator(".panel.ratio canvas").last.bounding_box()
    assert box is not None
    await window.mouse.move(box["x"] + box["width"] - 10, box["y"] + 30)
    readout = window.locator("#readout")
    await expect(readout).to_have_text(
        "2026-11-13Shares short 1,207,000 (+1,000, +0.08 %)Ratio, % 0.50"
        "Close, in its trading currency 14.00"
    )
    await window.mouse.move(box["x"] + 100, box["y"] + 30)
    await expect(readout).not_to_contain_text("2026-11-13")
    await window.mouse.down()
    await window.mouse.move(box["x"] + 300, box["y"] + 30)
    await window.mouse.up()
    (zoomed,) = set(await spans(window))
    assert zoomed[1] - zoomed[0] < 300


async def keyed(window: Page, chart: Locator) -> None:
    """Go to the oldest report, which is out of the range, and from there to one below threshold."""
    await chart.focus()
    await window.keyboard.press("Home")
    await expect(chart).to_have_attribute("aria-valuenow", "1")
    (shown,) = set(await spans(window))
    assert shown[1] - shown[0] == 1449
    for _ in range(5):
        await window.keyboard.press("PageUp")
    words = await chart.get_attribute("aria-valuetext")
    assert words is not None
    assert "; Shares short below threshold; Ratio, % –; Close" in words


@in_browser
async def test_the_live_chart(page: Desk) -> None:
    """Ranges, zoom, hover and keys: every panel shows the same days, and figures are read out.

    The content policy refuses nothing, the range is remembered, and a new report is in the chart
    that is open.
    """
    async with browser() as (window, complaints):
        await window.goto(f"{page.url}/symbols/{HK}")
        chart = window.get_by_role("slider", name="Short interest of HK.00700")
        await expect(window.locator(".panel-head")).to_have_text(
            ["Shares short", "Ratio, %", "Close, in its trading currency"]
        )
        await expect(window.locator("#drawn svg").first).to_be_hidden()
        await expect(chart).to_have_attribute("aria-valuemax", "208")
        await ranged(window)
        await pointed(window)
        await keyed(window, chart)
        await window.reload()
        year = window.get_by_role("button", name="1Y")
        await expect(year).to_have_attribute("aria-pressed", "true")
        await page.publish(HK, 1_000_000, 1_300_000)
        await expect(chart).to_have_attribute("aria-valuetext", _REVISED)
        assert complaints == []


_REVISED = (
    "2026-11-13; Shares short 1,300,000 (+300,000, +30.00 %); Ratio, % 0.50; "
    "Close, in its trading currency 12.00; revised"
)


@contextlib.asynccontextmanager
async def without_library(page: Desk) -> AsyncIterator[str]:
    """Serve the same page as if the library were not installed; yields its address."""
    connections = PageConnections(Limits(), page.facts.append)
    app = application(page.sources, connections)
    app[assets.PLOTTER] = ""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    made = cast("web.Server", runner.server)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: connections.protocol_of(made), "127.0.0.1", 0)
    try:
        yield "http://{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()
        await runner.cleanup()


@in_browser
async def test_without_the_library_the_drawn_chart_stays(page: Desk) -> None:
    """An older environment may lack it: the page is whole, and complains of nothing."""
    async with without_library(page) as address, browser() as (window, complaints):
        await window.goto(f"{address}/symbols/{HK}")
        drawn = window.get_by_role("img", name="Short interest of HK.00700")
        await expect(drawn).to_have_count(1)
        await expect(window.get_by_role("slider")).to_have_count(0)
        assert complaints == []


async def test_the_library_is_served_from_its_package(
    page: Desk, http: aiohttp.ClientSession
) -> None:
    """Its address changes with it, so a browser may keep it; only a symbol's page asks for it."""
    text, _ = await get(http, f"{page.url}/symbols/{HK}")
    address = text.split('<script src="/static/dygraph')[1].split('"')[0]
    script, headers = await get(http, f"{page.url}/static/dygraph{address}")
    assert "MIT-licensed" in script
    assert "immutable" in headers["Cache-Control"]
    assert "dygraph" not in (await get(http, page.url))[0]
