"""A report as a whole over HTTP, and what the page opens with while one is new."""

import json
from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from poller.events import encode
from poller.model import Code, Instrument, Vintage, market_of
from poller.schedule.notice import Completed
from poller.telemetry.status import ReleaseState
from tests.desk import HK, NOW, US, Desk, desk, record
from tests.service import until
from tests.test_web import get, http, spoken

__all__ = ["http"]

UP, DOWN, MISSING = Code("HK.00001"), Code("HK.00002"), Code("HK.00005")
LAST, DAY = date(2026, 11, 13), date(2026, 11, 20)


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Desk]:
    """Three symbols show Hong Kong's newest report, and one lacks it."""
    async with desk(tmp_path, HK, UP, DOWN, MISSING, US) as made:
        await made.publish(HK, 1_000_000, 1_000_100, newest=DAY)
        await made.publish(UP, 100, 300, newest=DAY)
        await made.publish(DOWN, 50_000, 20_000, newest=DAY)
        await made.publish(MISSING, 5, 7, newest=LAST)
        await made.publish(US, 5_000_000, 6_000_000, newest=LAST)
        await made.store.instruments.save_instruments({DOWN: Instrument("HOLDINGS <2>")})
        rows = made.sources.overview.rows
        await until(lambda: all(row.day for row in rows.values()) and bool(rows[DOWN].name))
        await made.report(markets={"HK": ReleaseState("watching", DAY, 4, 3)})
        yield made


async def report(http: aiohttp.ClientSession, page: Desk, path: str) -> dict[str, Any]:
    """Return a report as JSON."""
    found: dict[str, Any] = json.loads((await get(http, f"{page.url}/api/releases{path}"))[0])
    return found


async def test_a_report_as_a_whole(page: Desk, http: aiohttp.ClientSession) -> None:
    """Whoever moved most is first, with name and rank; coverage and who is missing are told."""
    found = await report(http, page, f"/HK/{DAY}")
    assert found == await report(http, page, "/HK")
    assert (found["trading_day"], found["found"], found["expected"]) == (str(DAY), 3, 4)
    assert found["missing"] == [{"code": MISSING, "last_day": str(LAST)}]
    ranks = [(each["rank"], each["code"], each["change"]) for each in found["symbols"]]
    assert ranks == [(1, DOWN, -30_000), (2, UP, 200), (3, HK, 100)]
    assert [each["name"] for each in found["symbols"]] == ["HOLDINGS <2>", None, None]
    words = spoken((await get(http, f"{page.url}/releases/HK/{DAY}"))[0])
    assert "Hong Kong: the report of 2026-11-20" in words
    assert "3 of 4 symbols" in words
    assert f"{MISSING} last {LAST}" in words
    assert "1 HK.00002 HOLDINGS &lt;2&gt; 20,000 −30,000 to 20,000 −60.00 %" in words
    assert words.index(DOWN) < words.index(UP) < words.index(HK)


async def test_who_stopped_reporting_is_named(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """Front page, report and API agree on who is expected; who is not is named, with its last."""
    silent = Code("HK.00009")
    async with desk(tmp_path, UP, DOWN, MISSING, silent) as page:
        await page.publish(UP, *range(1, 7), newest=DAY)
        await page.publish(DOWN, *range(1, 7), newest=DAY)
        await page.publish(MISSING, 5, newest=LAST)
        await page.publish(silent, 7, newest=date(2026, 4, 30))
        rows = page.sources.overview.rows
        await until(lambda: all(row.day for row in rows.values()))
        await page.report(markets={"HK": ReleaseState("paused", DAY, 4, 2)})
        found = await report(http, page, "/HK")
        assert (found["found"], found["expected"], found["not_expected"]) == (2, 3, 1)
        assert found["not_expected_symbols"] == [{"code": silent, "last_day": "2026-04-30"}]
        words = spoken((await get(http, f"{page.url}/releases/hk"))[0])  # as the command takes it
        assert "1 watched symbol not expected: without any of the three reports before" in words
        assert f"{silent} last 2026-04-30" in words
        words = spoken((await get(http, page.url))[0])
        assert "2 of 3 reported" in words
        assert f"{silent} still shows" not in words
        assert f"{MISSING} still shows {LAST}" in words


async def test_a_report_is_ranked_as_asked(page: Desk, http: aiohttp.ClientSession) -> None:
    """`sort` ranks by another figure, `top` shows only the first; the rest is counted."""
    found = await report(http, page, "/HK?sort=percent&top=2")
    assert [each["code"] for each in found["symbols"]] == [UP, DOWN]
    assert found["found"] == 3
    text, _ = await get(http, f"{page.url}/releases/HK?sort=percent&top=2")
    assert "Show more: 1 follows" in text
    assert f'href="/symbols/{HK}"' not in text
    found = await report(http, page, "/US?sort=days_to_cover")
    assert found["symbols"][0]["days_to_cover"] == 2.5
    assert "Days to cover" in (await get(http, f"{page.url}/releases/US"))[0]
    assert "Days to cover" not in (await get(http, f"{page.url}/releases/HK"))[0]


async def test_how_unusual_a_move_is(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """By z-score, a small move of a quiet symbol is before a large one of a lively symbol."""
    async with desk(tmp_path, UP, DOWN) as made:
        await made.publish(UP, *(1000 + n % 2 for n in range(12)), 1_100, newest=DAY)
        await made.publish(DOWN, *(1000 + n % 2 * 900 for n in range(13)), newest=DAY)
        found = await report(http, made, "/HK?sort=zscore")
        first, second = found["symbols"]
        assert (first["code"], first["rank"], first["percentile"]) == (UP, 1, 100.0)
        assert first["zscore"] > 10 > abs(second["zscore"])
        others = (await report(http, made, "/HK"))["symbols"]
        assert {each["code"]: each["zscore"] for each in others} == {
            each["code"]: each["zscore"] for each in (first, second)
        }
        words = spoken((await get(http, f"{made.url}/releases/HK?sort=zscore"))[0])
        assert f"1 HK.00001 1,100 +99 to 1,100 +9.89 % 0.50 % {first['zscore']:.2f}" in words
        assert "z-score" in (await get(http, f"{made.url}/releases/HK"))[0]


async def test_a_zscore_is_kept_until_there_is_news(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """It is read once, not at each request, and again after an event of its symbol."""
    async with desk(tmp_path, UP) as made:
        await made.publish(UP, *(1000 + n % 2 for n in range(12)), 1_100, newest=LAST)
        await made.shows(UP, 1_100)

        async def zscore() -> float:
            (one,) = (await report(http, made, f"/HK/{LAST}"))["symbols"]
            return float(one["zscore"])

        first = await zscore()
        early = LAST - timedelta(weeks=1)
        other = Vintage(record(UP, early, 1_050), 0, NOW).to_json()
        await made.raw.hset(f"{{short-interest}}:vintages:{UP}", f"{early}:0", other)
        assert await zscore() == first
        await made.publish(UP, 900, newest=DAY)
        await made.shows(UP, 900)
        assert await zscore() < first


async def test_the_reports_are_listed(page: Desk, http: aiohttp.ClientSession) -> None:
    """Of each market, newest first, with what the notices tell; each leads to its report."""
    await page.detected(HK, DAY)
    done = Completed(market_of(HK), DAY, NOW, 3, (MISSING,))
    await page.raw.xadd("{short-interest}:releases", encode(done))
    for path in ("", "/"):
        found = (await report(http, page, path))["releases"]
        assert [(each["market"], each["trading_day"], each["symbols"]) for each in found] == [
            ("HK", str(DAY), 3),
            ("US", str(LAST), 1),
            ("HK", str(LAST), 4),
            ("US", "2026-11-06", 1),
            ("HK", "2026-11-06", 1),
        ]
        moment = "2026-11-24T04:00:00.000Z"
        assert (found[0]["detected_at"], found[0]["completed_at"]) == (moment, moment)
        assert (found[0]["found"], found[0]["expected"], found[0]["missing"]) == (3, 4, 1)
        assert found[1]["detected_at"] is None
        text, _ = await get(http, f"{page.url}/releases{path}")
        assert f'href="/releases/HK/{DAY}"' in text
        assert "2026-11-20 3 3 of 4 2026-11-24 12:00 HKT 2026-11-24 12:00 HKT" in spoken(text)
    assert 'href="/releases"' in (await get(http, f"{page.url}/releases/HK"))[0]


async def test_what_is_published_is_in_the_report(page: Desk, http: aiohttp.ClientSession) -> None:
    """A symbol that comes late is no longer missing, and has a rank of its own."""
    await page.publish(MISSING, 7, 900_000, newest=DAY)
    await page.shows(MISSING, 900_000)
    found = await report(http, page, "/HK")
    assert (found["found"], found["missing"]) == (4, [])
    assert found["symbols"][0]["code"] == MISSING


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/XX", 400, "'XX' is no market: use HK or US"),
        ("/HK/yesterday", 400, "'yesterday' is no day: write it like 2026-04-30"),
        (
            "/HK/2026-11-19",
            404,
            "no symbol of HK shows 2026-11-19; the nearest reports: ",
        ),
        ("/HK?sort=size", 400, "sort: 'size' does not rank a report of HK; use change, percent"),
        (
            "/HK?sort=days_to_cover",
            400,
            "sort: 'days_to_cover' does not rank a report of HK; use change, percent, ratio, zs",
        ),
        ("/HK?top=0", 400, "top: '0' is no number from 1 to 1000"),
        ("/HK?as_known_at=2026-11-24T00:00:00Z", 400, "reports are shown as last revised, not as"),
    ],
)
async def test_a_report_that_cannot_be_shown(
    page: Desk, http: aiohttp.ClientSession, path: str, status: int, told: str
) -> None:
    """A line says what to write instead, as JSON below /api."""
    assert told in (await get(http, f"{page.url}/releases{path}", status))[0]
    text, _ = await get(http, f"{page.url}/api/releases{path}", status)
    assert told in json.loads(text)["error"]


async def test_the_page_opens_with_a_new_report(page: Desk, http: aiohttp.ClientSession) -> None:
    """For a day after its first event, the biggest moves come before all else; then it is quiet."""
    assert "Biggest moves" not in (await get(http, page.url))[0]
    await page.detected(HK, DAY, ago=timedelta(hours=23, minutes=59))
    words = spoken((await get(http, page.url))[0])
    top = words[words.index("Biggest moves of this report") : words.index("Requests to OpenD")]
    assert "First seen 24 h ago · 1 missing" in top
    assert "HK.00002 HOLDINGS &lt;2&gt; −30,000 to 20,000 −60.00 % 20,000" in top
    assert top.index(DOWN) < top.index(UP) < top.index(HK)
    assert "about" not in top
    status = json.loads((await get(http, f"{page.url}/api/status"))[0])
    assert [each["first_seen"] for each in status["markets"]] == ["2026-11-23T04:01:00.000Z", None]
    await page.detected(HK, DAY, ago=timedelta(hours=24))
    assert "Biggest moves" not in (await get(http, page.url))[0]


async def test_a_release_in_progress(page: Desk, http: aiohttp.ClientSession) -> None:
    """Its progress, who lacks it, and the time that the budget takes for them at least."""
    await page.report(markets={"HK": ReleaseState("sweeping", DAY, 1203, 3)})
    await page.detected(HK, DAY, ago=timedelta(minutes=2))
    words = spoken((await get(http, page.url))[0])
    assert "3 of 4 symbols show it, about 1 s left 3 of 4" in words
    assert "First seen 2 min ago · 1 missing" in words
    words = spoken((await get(http, f"{page.url}/releases/HK"))[0])
    assert "Release in progress: about 1 s left" in words
    assert "First seen 2 min ago, 2026-11-24 11:58 HKT" in words
