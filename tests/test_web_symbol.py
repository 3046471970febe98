"""A symbol's page over HTTP: of one time, which a visitor may choose."""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from poller.model import Vintage
from poller.telemetry.status import Poll, Polls, ReleaseState
from tests.desk import HK, NOW, Desk, desk, record
from tests.test_web import get, http, spoken

__all__ = ["http"]

DAY = date(2026, 11, 13)


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Desk]:
    """A page of one symbol of which nothing is known."""
    async with desk(tmp_path, HK) as made:
        await made.report()
        yield made


async def test_a_symbol_as_it_was_known(page: Desk, http: aiohttp.ClientSession) -> None:
    """Every part is of that time: cards, table and downloads; what is of now is left out."""
    then, later = NOW - timedelta(days=30), date(2026, 11, 20)
    old = Vintage(record(HK, date(2026, 10, 16), 70), 0, then).to_json()
    await page.raw.hset("{short-interest}:history:HK.00700", "2026-10-16", old)
    await page.publish(HK, 90, newest=later)
    await page.shows(HK, 90)
    known = quote((then + timedelta(hours=1)).isoformat())
    text, _ = await get(http, f"{page.url}/symbols/{HK}?as_known_at={known}")
    words = spoken(text)
    assert "Last report 2026-10-16 9 d old then, read 1 h ago" in words
    assert str(later) not in words
    for part in ("Next poll", "Last polls", "late", "Shares issued"):
        assert part not in words, part
    assert '<span id="its-zone" class="muted">HKT</span>' in text
    for kind in ("csv", "json"):
        assert f'/history.{kind}?as_known_at={known}"' in text


async def test_a_time_is_entered_in_the_zone_of_the_page(
    page: Desk, http: aiohttp.ClientSession
) -> None:
    """A form offers it: what is entered leads to an address that means the same everywhere."""
    url = f"{page.url}/symbols/{HK}"
    assert 'type="datetime-local"' in (await get(http, url))[0]
    for entered, meant in (
        ("2026-11-24T11:59", "2026-11-24T03:59:00.000Z"),
        ("2026-11-24T11:59:30", "2026-11-24T03:59:30.000Z"),
    ):
        async with http.get(f"{url}?as_known_at={quote(entered)}") as answer:
            assert answer.url.query == {"as_known_at": meant}
            assert f'value="{entered}' in await answer.text()
    async with http.get(f"{url}?as_known_at=") as answer:
        assert not answer.url.query
    for wrong in ("yesterday", "2026-02-30T10:00", "2026-11-24"):
        await get(http, f"{url}?as_known_at={wrong}", 400)


async def test_when_it_is_polled_next(page: Desk, http: aiohttp.ClientSession) -> None:
    """A symbol without rows: by when at the latest; one in rotation: in its turn, never "now"."""
    url = f"{page.url}/symbols/{HK}"
    polls = (Poll(NOW - timedelta(hours=6), "no rows"),)
    quiet = Polls(polls, None, "it has no rows: looked at once a day")
    await page.status_store.save_polls({HK: quiet})
    due = ReleaseState("watching", DAY, 2, 2, NOW - timedelta(seconds=1))
    await page.report(markets={"HK": due})
    words = spoken((await get(http, url))[0])
    assert "Next poll in 18 h at the latest, 2026-11-25 06:00 HKT; it has no rows: looked" in words
    assert "probed now" not in words
    await page.publish(HK, 90, newest=DAY)
    await page.shows(HK, 90)
    await page.status_store.save_polls({HK: Polls(polls, None, "one of 27 symbols")})
    words = spoken((await get(http, url))[0])
    assert "Next poll in its turn a symbol of HK is probed now; one of 27 symbols" in words
