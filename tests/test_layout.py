"""The page as Chromium lays it out: at no width does a figure break, or is anything cut off."""

import re
from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from poller.model import Code, Instrument
from poller.telemetry.status import Poll, Polls, ReleaseState
from poller.web.pages import COLUMNS
from tests.desk import HK, NOW, US, Desk, desk
from tests.machine import needs
from tests.service import until
from tests.test_page import CHROMIUM, browser

pytestmark = needs(CHROMIUM)

WIDTHS = (320, 360, 390, 460, 600, 736, 737, 768, 833, 992, 993, 1024, 1216, 1217, 1280, 1440, 1920)
LATE, LONE, SILENT = Code("HK.09988"), Code("US.BRK.B"), Code("HK.80737")
NAMES = {HK: "TENCENT", US: "Apple", LATE: "Birch Logistics & Harbour <Holdings>"}
WEEK = timedelta(weeks=1)

BROKEN = """() => {
  // figures, dates, moments and single words of heads and badges
  const whole = /[+−±≤≥]? ?[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{2}:[0-9]{2}(:[0-9]{2})?( [A-Z]{2,4})?\
|[+−±≤≥]?[0-9][0-9,.]*( (%|k|M|B)(?![a-z]))?/gu;
  const lines = (node, start, end) => {
    const range = document.createRange();
    range.setStart(node, start);
    range.setEnd(node, end);
    const tops = [...range.getClientRects()].filter((box) => box.width).map((box) => box.top);
    return tops.length ? Math.max(...tops) - Math.min(...tops) : 0;
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode()); ) {
    const kept = node.parentElement.closest(".figure, .badge, .value, time, thead th");
    const words = kept ? [...node.data.matchAll(/[^\\s]+/gu)] : [];
    if (node.parentElement.matches(".badge, .value, td.figure") && node.data.trim()) {
      words.push(Object.assign([node.data], { index: 0 }));
    }
    for (const word of [...words, ...node.data.matchAll(whole)]) {
      if (lines(node, word.index, word.index + word[0].length) > 3) found.push(word[0].trim());
    }
  }
  return found;
}"""
"""Returns what is broken over lines and must not be."""

CUT = """() => {
  const found = [];
  // the live chart follows its window a moment later
  const shown = (node) => node.checkVisibility() && !node.closest(".hidden, .skip, svg, .panels");
  if (document.documentElement.scrollWidth > innerWidth) found.push("the window scrolls sideways");
  for (const node of document.querySelectorAll("body *")) {
    if (!shown(node) || getComputedStyle(node).overflowX === "visible") continue;
    const told = node.matches(".name, input, select") || (node.matches(".scroll")
      && node.previousElementSibling.matches(".hint") && shown(node.previousElementSibling));
    const name = node.className || node.id;
    if (!told && node.scrollWidth > node.clientWidth) found.push(`${name} is cut`);
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode()); ) {
    const parent = node.parentElement;
    if (!node.data.trim() || !shown(parent) || parent.closest(".name, option")) continue;
    const box = parent.closest("td, th, .card, main, header, footer, .plot");
    const range = document.createRange();
    range.selectNodeContents(node);
    if (box && range.getBoundingClientRect().right > box.getBoundingClientRect().right + 0.5) {
      found.push(`${node.data.trim()} runs out of its box`);
    }
  }
  return found;
}"""
"""Returns what is hidden by an edge without a word that it can be scrolled to."""


async def misfits(window: Page) -> dict[int, list[str]]:
    """Return width of the window → what is broken or cut off in the page that is shown there."""
    found = {}
    for width in WIDTHS:
        await window.set_viewport_size({"width": width, "height": 900})
        if wrong := [*await window.evaluate(BROKEN), *await window.evaluate(CUT)]:
            found[width] = wrong
    return found


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Desk]:
    """A page with large figures, every badge, a planned poll, and a symbol that is months late."""
    async with desk(tmp_path, HK, LATE, SILENT, US, LONE) as made:
        figures = [41_000_000 + 100_003 * (n % 7) for n in range(40)]
        await made.publish(HK, *(figure * 20 for figure in figures), 61_480_638)
        await made.publish(HK, *(figure * 20 for figure in figures), 1_314_084_009)
        await made.publish(LATE, *figures, newest=date(2026, 5, 1))
        await made.publish(US, *figures, 820_591_779)
        await made.publish(LONE, *figures, 2_148_447)
        await made.shows(US, 820_591_779)
        await made.shows(LONE, 2_148_447)
        names = {
            code: Instrument(name, 9_100_000_000, 9_050_000_000, NOW, NOW)
            for code, name in NAMES.items()
        }
        await made.store.instruments.save_instruments(names)
        await until(lambda: all(made.sources.overview.rows[code].name for code in NAMES))
        waits = Polls((Poll(NOW, "newest day 2026-11-13"),), None, "one of 2 watched in rotation")
        await made.status_store.save_polls({LONE: waits})
        await made.report(
            markets={"US": ReleaseState("watching", next_at=NOW + timedelta(hours=20))}
        )
        yield made


async def planned(page: Desk) -> None:
    """Let the watchlist have its widest column: when each symbol is polled next, and why."""
    why = f"the report of {date(2026, 11, 20)} is expected from 2026-11-27 01:00 UTC on"
    polls = Polls((Poll(NOW, "no newer day"),), NOW + timedelta(minutes=47), why)
    await page.status_store.save_polls(dict.fromkeys((HK, LATE, US), polls))


PATHS = ("/", f"/symbols/{HK}", f"/symbols/{US}", f"/symbols/{LATE}", f"/symbols/{SILENT}")


FAR = ("/?zone=Asia/Kathmandu", f"/symbols/{LONE}")


async def test_nothing_is_broken_or_cut_off(page: Desk) -> None:
    """At no width, whether a report is new or not, and in no order, with a plan or without."""
    async with browser() as (window, _):
        for path in PATHS:
            await window.goto(page.url + path)
            assert await misfits(window) == {}, path
        await planned(page)
        await page.detected(HK, date(2026, 11, 13))
        await page.detected(US, date(2026, 11, 13))
        reports = ("/releases/HK", "/releases/US?sort=days_to_cover", "/releases/US?sort=zscore")
        for path in (*PATHS, "/?sort=-ratio", "/?sort=-percentile&zone=UTC", *reports, *FAR):
            await window.goto(page.url + path)
            assert await misfits(window) == {}, path


async def test_the_order_is_seen_at_every_width(page: Desk) -> None:
    """The head that the rows are sorted by has an arrow; of a new report, a sentence says more."""
    await page.detected(HK, date(2026, 11, 13))
    async with browser() as (window, _):
        for sort in ("", *(f"?sort=-{key}" for key, *_ in COLUMNS)):
            await window.goto(f"{page.url}/{sort}")
            for width in WIDTHS:
                await window.set_viewport_size({"width": width, "height": 900})
                for table in (".movers", ".watchlist"):
                    head = window.locator(f"{table} thead [aria-sort]")
                    await expect(head).to_have_text(re.compile("[▾▴]"))
                    await expect(head).to_be_visible()
        await window.goto(page.url)
        await expect(window.get_by_text("By the size of the change in shares, up")).to_be_visible()
