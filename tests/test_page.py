"""The page in Chromium, where the machine has one: by keyboard, in the dark, on a phone, live."""

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright, expect

from poller.model import Code, Instrument
from tests.desk import HK, US, Desk, desk
from tests.machine import needs, scaled
from tests.service import until

CHROMIUM = "chromium"
"""Debian's program."""

pytestmark = needs(CHROMIUM)

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1360, "height": 900}


@contextlib.asynccontextmanager
async def browser(**options: Any) -> AsyncIterator[tuple[Page, list[str]]]:  # noqa: ANN401
    """Open a window; yields it and everything it complains of: errors, refused content."""
    complaints: list[str] = []
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    async with async_playwright() as playwright:
        process = await playwright.chromium.launch(
            executable_path=shutil.which(CHROMIUM), args=arguments
        )
        window = await process.new_page(**{"viewport": DESKTOP, **options})
        window.set_default_timeout(scaled(15_000))
        window.on("console", lambda message: complaints.append(message.text))
        window.on("pageerror", lambda problem: complaints.append(str(problem)))
        yield window, complaints
        await process.close()


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Desk]:
    """A page of two symbols with a year of reports, and a poller that is well."""
    async with desk(tmp_path, HK, US) as made:
        await made.publish(HK, *range(1_000_000, 1_052_000, 1000))
        await made.publish(US, *range(5_052_000, 5_000_000, -1000))
        await made.shows(US, 5_001_000)
        await made.report()
        yield made


async def named(page: Desk) -> None:
    """Give both symbols names that take room, and as many shares as there can be."""
    await page.store.instruments.save_instruments(
        {HK: Instrument("騰" * 100, 2**62, 2**61), US: Instrument('Long "Q" <Holdings> & Co ' * 4)}
    )
    await until(lambda: None not in {row.name for row in page.sources.overview.rows.values()})


async def test_by_keyboard_alone(page: Desk) -> None:
    """`/` finds the filter, Enter applies it, heads sort and a symbol opens: no mouse needed."""
    async with browser() as (window, complaints):
        await window.goto(page.url)
        await window.keyboard.press("Tab")
        await expect(window.get_by_role("link", name="Skip to the content")).to_be_focused()
        await window.keyboard.press("/")
        await window.keyboard.type("aapl")
        await window.keyboard.press("Enter")
        await window.wait_for_url("**q=aapl**")
        rows = window.get_by_role("rowheader")
        await expect(rows).to_have_text(["US.AAPL"])
        await window.goto(page.url)
        await window.get_by_role("link", name="Shares short").focus()
        await window.keyboard.press("Enter")
        await window.wait_for_url("**sort=-shares")
        await expect(rows).to_have_text(["US.AAPL", "HK.00700"])
        head = window.locator("#watchlist").get_by_role("columnheader", name="Shares short")
        await expect(head).to_have_attribute("aria-sort", "descending")
        await window.get_by_role("link", name="HK.00700").first.focus()
        await window.keyboard.press("Enter")
        await expect(window.get_by_role("heading", level=1)).to_have_text("HK.00700")
        assert complaints == []


async def test_to_a_screen_reader(page: Desk) -> None:
    """Landmarks, tables, gauges, pictures and fields have names; heads belong to their columns."""
    async with browser() as (window, _):
        await window.goto(page.url)
        table = window.get_by_role("table", name=re.compile("Watched symbols, 2 found"))
        await expect(table.get_by_role("columnheader")).to_have_count(10)
        for role, name in (
            ("main", None),
            ("contentinfo", None),
            ("searchbox", "Part of a code"),
            ("combobox", "Market"),
            ("region", "Watchlist"),
            ("meter", re.compile("In the last 30 s")),
            ("progressbar", re.compile("1 of 1")),
            ("img", re.compile("26 reports, from .* to 5,001,000")),
        ):
            found: Any = window.get_by_role(role, name=name)  # type: ignore[arg-type]
            await expect(found.first).to_be_visible()
        await window.goto(f"{page.url}/symbols/{HK}")
        chart = window.get_by_role("slider", name="Short interest of HK.00700")
        await expect(chart).to_have_attribute(
            "aria-valuetext", re.compile("2026-11-13; Shares short 1,051,000 [(][+]1,000")
        )
        days = window.get_by_role("table", name=re.compile("Every reported day"))
        await expect(days.get_by_role("rowheader")).to_have_count(52)


async def test_from_the_biggest_moves_to_the_whole_report(page: Desk) -> None:
    """By keyboard and by name: the moves are the first table, and a folded list stays open."""
    more = [Code(f"HK.0000{n}") for n in range(1, 8)]
    await page.status_store.save_symbols((HK, US, *more))
    await until(lambda: more[-1] in page.sources.overview.rows)
    await asyncio.gather(*(page.publish(code, 5, newest=date(2026, 11, 6)) for code in more))
    await page.shows(more[-1], 5)
    await page.detected(HK, date(2026, 11, 13))
    async with browser() as (window, complaints):
        await window.goto(page.url)
        moves = window.get_by_role("region", name="Biggest moves of this report")
        table = moves.get_by_role("table", name="Biggest moves of Hong Kong, 2026-11-13")
        await expect(table.get_by_role("rowheader")).to_have_text(["HK.00700"])
        await expect(window.get_by_role("table").first).to_have_class("movers")
        await moves.get_by_role("link", name="The whole report").focus()
        await window.keyboard.press("Enter")
        await expect(window.get_by_role("heading", level=1)).to_contain_text("Hong Kong")
        await expect(window.get_by_role("progressbar", name="Show this report")).to_be_visible()
        await window.get_by_text("who they are").focus()
        await window.keyboard.press("Enter")
        await expect(window.get_by_role("link", name="HK.00007")).to_be_visible()
        await page.publish(more[0], 5, 9)
        await expect(window.get_by_role("rowheader")).to_have_text(["HK.00700", "HK.00001"])
        await expect(window.get_by_role("link", name="HK.00007")).to_be_visible()
        head = window.get_by_role("columnheader", name="Change, %")
        await head.get_by_role("link").click()
        await expect(head).to_have_attribute("aria-sort", "descending")
        await expect(window.get_by_role("rowheader")).to_have_text(["HK.00001", "HK.00700"])
        assert complaints == []


async def test_light_and_dark_are_legible(page: Desk) -> None:
    """Either scheme has a ground of its own and text with a contrast of 4.5 or more.

    A link beside other text is underlined: colour alone would not tell it.
    """
    await page.detected(HK, date(2026, 11, 13))
    grounds = []
    for scheme in ("light", "dark"):
        async with browser(color_scheme=scheme) as (window, _):
            for path in ("", f"/symbols/{HK}", "/releases/HK"):
                await window.goto(page.url + path)
                found = await window.evaluate(_CONTRASTS)
                assert min(found["contrasts"]) >= 4.5
                assert await window.evaluate(_PLAIN_LINKS) == []
                grounds.append(found["ground"])
    assert len(set(grounds)) == 2


_PLAIN_LINKS = """() => [...document.querySelectorAll("p a, li a")]
  .filter((link) => link.parentElement.textContent.trim() !== link.textContent.trim())
  .filter((link) => getComputedStyle(link).textDecorationLine !== "underline")
  .map((link) => link.outerHTML)"""

_CONTRASTS = """() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const found = parts(getComputedStyle(node).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const contrasts = [...document.querySelectorAll("h1, h2, p, td, th, li, a, label, text, time")]
    .filter((node) => node.textContent.trim())
    .map((node) => {
      const style = getComputedStyle(node);
      const ink = light(parts(node.tagName === "text" ? style.fill : style.color));
      const under = light(ground(node));
      return (Math.max(ink, under) + 0.05) / (Math.min(ink, under) + 0.05);
    });
  return { contrasts, ground: getComputedStyle(document.body).backgroundColor };
}"""


async def test_on_a_phone(page: Desk) -> None:
    """Nothing is wider than the screen, figures are there, and what is tapped is large enough."""
    await named(page)
    async with browser(viewport=PHONE, has_touch=True) as (window, _):
        for address in (page.url, f"{page.url}/symbols/{HK}"):
            await window.goto(address)
            assert await window.evaluate("document.documentElement.scrollWidth") == 390
            assert await window.evaluate(_STICKING_OUT) == []
        await expect(window.get_by_text("the table scrolls sideways.")).to_be_visible()
        await window.goto(page.url)
        await expect(window.get_by_role("cell", name="5,001,000", exact=True)).to_be_visible()
        for name in ("Filter",):
            box = await window.get_by_role("button", name=name).bounding_box()
            assert box is not None
            assert box["height"] >= 36


_STICKING_OUT = """() => {
  const edge = document.querySelector(".cards").getBoundingClientRect().right + 0.5;
  return [...document.querySelectorAll("body *")]
    .filter((node) => !node.closest(".history") && node.getBoundingClientRect().right > edge)
    .map((node) => `${node.tagName} ${node.textContent.slice(0, 40)}`);
}"""


async def test_the_chart_fits(page: Desk) -> None:
    """The drawn one is as wide as the page, to its newest day, with text that can be read."""
    async with browser(java_script_enabled=False) as (window, _):
        await window.goto(f"{page.url}/symbols/{HK}")
        chart = window.get_by_role("img", name="Short interest of HK.00700")
        for width in (320, 390, 700, 900, 1360):
            await window.set_viewport_size({"width": width, "height": 900})
            await expect(chart).to_have_count(1)
            shown = await chart.bounding_box()
            cards = await window.locator("#figures").bounding_box()
            assert shown is not None
            assert cards is not None
            assert shown["width"] == pytest.approx(cards["width"], abs=1)
            newest = await chart.get_by_text("2026-11-13", exact=True).last.bounding_box()
            assert newest is not None
            assert newest["x"] + newest["width"] <= shown["x"] + shown["width"]
            assert 9 <= newest["height"] <= 22


async def test_lists_fit_a_small_phone(page: Desk) -> None:
    """From 320 px on, large figures, badges and names are seen without scrolling sideways."""
    await named(page)
    await page.publish(HK, *range(1_000_000, 1_051_000, 1000), 134_084_000)
    await page.shows(HK, 134_084_000)
    await page.detected(HK, date(2026, 11, 13))
    sizes = "part => [part.scrollWidth, part.clientWidth]"
    async with browser() as (window, _):
        for path, parts in (
            ("", ("#watchlist", "#fresh .sheet")),
            ("/releases/HK", ("#standings",)),
        ):
            await window.goto(page.url + path)
            for width in (320, 360, 440):
                await window.set_viewport_size({"width": width, "height": 800})
                for part in parts:
                    place = window.locator(part)
                    scrolled, seen = await place.evaluate(sizes)
                    assert scrolled <= seen, (path, part, width)
                    figure = place.get_by_text("134,084,000").locator("visible=true")
                    await expect(figure).to_have_count(1)
                for kind in ("revised", "high") if not path else ():
                    await expect(window.locator(f"#watchlist .badge.{kind}").first).to_be_visible()


async def test_a_revision_makes_no_row_higher(page: Desk) -> None:
    """On a phone, too, every row of the watchlist has one line."""
    await page.publish(HK, *range(1_000_000, 1_051_000, 1000), 1_025_500)
    await page.shows(HK, 1_025_500)
    async with browser(viewport=PHONE) as (window, _):
        await window.goto(page.url)
        rows = window.locator(".watchlist tbody tr")
        heights = await rows.evaluate_all("rows => rows.map((row) => row.offsetHeight)")
        assert len(heights) == 2
        assert max(heights) - min(heights) <= 1  # the last one has no line below


async def test_what_is_published_appears_by_itself(page: Desk) -> None:
    """A revision reaches the open page without a reload; the focus stays where it was."""
    async with browser() as (window, complaints):
        await window.goto(page.url)
        await window.evaluate("window.mine = true")
        await window.locator(f"#row-{US.replace('.', chr(92) + '.')}").focus()
        await page.publish(HK, *range(1_000_000, 1_051_000, 1000), 1_300_000)
        cells = window.locator("#watchlist").get_by_role("cell", name="1,300,000", exact=True)
        await expect(cells).to_be_visible()
        await expect(window.locator("#events tbody tr").first).to_contain_text("revised")
        assert await window.evaluate("window.mine")
        assert await window.evaluate("document.activeElement.id") == f"row-{US}"
        assert complaints == []


async def test_whole_without_script(page: Desk) -> None:
    """With scripts off, everything is there: figures, filter, sorting, downloads."""
    async with browser(java_script_enabled=False) as (window, _):
        await window.goto(page.url)
        await window.get_by_role("searchbox").fill("hk")
        await window.get_by_role("button", name="Filter").click()
        await expect(window.get_by_role("rowheader")).to_have_text(["HK.00700"])
        zones = window.get_by_role("navigation", name="Time zone").get_by_role("link")
        await expect(zones).to_have_text(["market’s", "UTC"])
        await window.get_by_role("link", name="HK.00700").first.click()
        chart = window.get_by_role("img", name="Short interest of HK.00700")
        await expect(chart).to_have_count(1)
        await expect(window.get_by_role("slider")).to_have_count(0)
        async with window.expect_download() as download:
            await window.get_by_role("link", name="CSV").click()
        assert (await download.value).suggested_filename == "HK.00700.csv"


async def test_the_token_is_asked_for_once(tmp_path: Path) -> None:
    """Whoever comes without the token gets a form, and with it the live page."""
    token = "correct-horse-battery"  # noqa: S105  of the test
    async with desk(tmp_path, HK, token=token) as made, browser() as (window, _):
        await window.goto(made.url)
        await window.get_by_label("Token").fill(token)
        await window.keyboard.press("Enter")
        await expect(window.get_by_role("heading", name="Watchlist")).to_be_visible()
        assert await window.evaluate("fetch('/events').then((answer) => answer.status)") == 200
        assert await window.evaluate("document.cookie") == ""


WIDTHS = [320, 360, 440, 600, 705, 736, 737, 850, 965, 991, 993, 1216, 1217, 1440, 1920]


async def test_no_page_is_wider_than_its_window(page: Desk) -> None:
    """From 320 to 1,920 px, with the longest code, name and entry, with Redis and without.

    What is shown of the last look while Redis is away is legible in either scheme.
    """
    await named(page)
    longest = Code("US.ABCDEFGHIJKLMNOPQRST")
    await page.status_store.save_symbols((HK, US, longest))
    await until(lambda: longest in page.sources.overview.rows)
    await page.publish(longest, 10**12, 2 * 10**12)
    await page.shows(longest, 2 * 10**12)
    await page.raw.xgroup_create("short-interest", f"webhook:{'a-long-name-' * 5}", "$")
    fields = {"code": "W" * 1000, "trading_day": "9" * 90, "observed_at": "9" * 90}
    data = '{"record":{"shares_short":1},"change":{"percent":1e308}}'
    await page.raw.xadd("short-interest", {**fields, "type": "x" * 90, "data": data})
    await page.report(troubles={"x" * 300: "y" * 300})
    await page.detected(HK, date(2026, 11, 13))
    await page.detected(longest, date(2026, 11, 13))
    reports = [
        "/releases",
        "/releases/HK",
        "/releases/US?sort=days_to_cover",
        "/releases/US?sort=zscore",
    ]
    addresses = [
        "/",
        *reports,
        f"/symbols/{HK}",
        f"/symbols/{longest}",
        "/login",
        f"/symbols/{'x' * 300}",
    ]
    async with browser() as (window, _):
        for address in addresses:
            await window.goto(page.url + address)
            assert await too_wide(window) == [], address
        await page.raw.shutdown(nosave=True)
        await window.goto(page.url)
        await expect(window.get_by_role("note").get_by_text("Last seen")).to_be_visible()
        assert await too_wide(window) == []
        for scheme in ("light", "dark"):
            await window.emulate_media(color_scheme=scheme)
            assert min((await window.evaluate(_CONTRASTS))["contrasts"]) >= 4.5


async def too_wide(window: Page) -> list[int]:
    """Return the widths at which the page that is shown can be scrolled sideways."""
    found = []
    for width in WIDTHS:
        await window.set_viewport_size({"width": width, "height": 900})
        if await window.evaluate("document.documentElement.scrollWidth") > width:
            found.append(width)
    return found
