"""The list of symbols: its order, filters, columns and badges, and what is told around it."""

import json
from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path

import aiohttp
import pytest

from poller.markets.hk import HkRecord
from poller.model import Code, Vintage
from poller.telemetry.status import Poll, Polls, ReleaseState
from poller.web.service_status import ServiceStatus, folded, troubled
from poller.web.watchlist_view import View, listed, row_of
from tests.desk import HK, NOW, US, Desk, desk
from tests.test_web import get, http, spoken

__all__ = ["http"]

QUIET, BARE = Code("HK.00001"), Code("HK.00002")
DAY = date(2026, 11, 13)


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Desk]:
    """A big move, a small one, a high of the year in the United States, and one without."""
    async with desk(tmp_path, HK, QUIET, BARE, US) as made:
        await made.publish(HK, 1_000_000, 700_000)
        await made.publish(QUIET, 1_000, 1_001)
        await made.publish(US, *range(1_000_000, 1_030_000, 1000))
        for code, shares in ((HK, 700_000), (QUIET, 1_001), (US, 1_029_000)):
            await made.shows(code, shares)
        await made.report()
        yield made


async def shown(http: aiohttp.ClientSession, page: Desk, query: str) -> list[str]:
    """Return the codes that the API lists; the page lists the same."""
    found = json.loads((await get(http, f"{page.url}/api/symbols?{query}"))[0])
    codes = [row["code"] for row in found["symbols"]]
    text, _ = await get(http, f"{page.url}/?{query}")
    places = [text.find(f'id="row-{code}"') for code in codes]
    assert -1 not in places
    assert text.count('id="row-') == len(codes)
    assert not query.startswith("sort") or places == sorted(places)
    return codes


@pytest.mark.parametrize(
    ("query", "codes"),
    [
        ("sort=-moved", [HK, US, QUIET, BARE]),
        ("moved=2.5", [HK]),
        ("moved=0.09", [QUIET, HK, US]),
        ("only=extreme", [US]),
        ("only=new", [QUIET, HK, US]),
        ("only=silent", [BARE]),
        ("sort=-shares&size=2", [US, HK]),
        ("sort=-shares&size=2&page=2", [QUIET, BARE]),
        ("only=trouble", [QUIET]),
        ("only=trouble&market=US", []),
    ],
)
async def test_the_list_is_ordered_and_filtered(
    page: Desk, http: aiohttp.ClientSession, query: str, codes: list[Code]
) -> None:
    """By the size of a move either way; by how far it moved, by highs and lows, by trouble."""
    await page.report(troubles={f"{QUIET} quarantine": "1 figure awaits a decision"})
    assert await shown(http, page, query) == codes


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("moved=x", "moved: 'x' is no percentage"),
        ("only=x", "only: 'x' is unknown; use new, extreme"),
    ],
)
async def test_a_filter_that_cannot_be_used(
    page: Desk, http: aiohttp.ClientSession, query: str, told: str
) -> None:
    """It is refused in a line that says what to write."""
    assert told in (await get(http, f"{page.url}/?{query}", 400))[0]
    assert told in (await get(http, f"{page.url}/api/symbols?{query}", 400))[0]


def test_new_is_what_was_read_since_yesterday() -> None:
    """A row that was read a day ago is not new any more."""
    row = row_of(HK, history((100, 0.5, 10.0)))
    view = View(only="new")
    assert listed([row], view, (), NOW + timedelta(hours=23)).found == 1
    assert listed([row], view, (), NOW + timedelta(hours=24)).found == 0


async def test_the_order_is_by_moves_while_a_report_is_new(
    page: Desk, http: aiohttp.ClientSession
) -> None:
    """Usually by code; while a report is new, by the size of the move, unless asked otherwise."""

    async def order(query: str) -> list[str]:
        text, _ = await get(http, f"{page.url}/{query}")
        return sorted((HK, QUIET, US), key=lambda code: text.find(f'id="row-{code}"'))

    assert await order("") == [QUIET, HK, US]
    await page.detected(HK, DAY)
    assert await order("") == [HK, US, QUIET]
    assert await order("?sort=code") == [QUIET, HK, US]
    text, _ = await get(http, f"{page.url}/?q=0&sort=code")
    assert '<input type="hidden" name="sort" value="code">' in text
    assert 'name="sort"' not in (await get(http, f"{page.url}/?q=0"))[0]


async def test_columns_and_badges(page: Desk, http: aiohttp.ClientSession) -> None:
    """Days to cover are a column where a market on the page reports them; a high is told."""
    text, _ = await get(http, page.url)
    words = spoken(text)
    assert "Days to cover" in words
    assert f"{US} {DAY} 10 d year high 1,029,000 0.50 % 2.50 1 k 100.0 +1,000" in words
    for head in ("Days to cover", "Average volume", "Percentile, 1 y"):
        assert head in words
        assert head not in (await get(http, f"{page.url}/?market=HK"))[0]
    words = spoken((await get(http, f"{page.url}/symbols/{US}"))[0])
    assert "Percentile, all 100.0 percent of its last 30 reports" in words
    assert "Percentile, 1 y: 100.0" in words
    assert "the highest of the last 365 days" in words
    assert "Percentile" not in (await get(http, f"{page.url}/symbols/{HK}"))[0]
    rows = json.loads((await get(http, f"{page.url}/api/symbols"))[0])["symbols"]
    names = ("days_to_cover", "average_volume", "year_percentile", "year")
    assert [tuple(row[name] for name in names) for row in rows] == [
        *[(None, None, None, None)] * 3,
        (2.5, 1000, 100.0, "high"),
    ]


async def test_when_a_market_is_probed_next_is_told_once(
    page: Desk, http: aiohttp.ClientSession
) -> None:
    """The market's card tells it; a row does only if its symbol has a time of its own."""
    polls = Polls((Poll(NOW, "no newer day"),), None, "one of 3 symbols watched in rotation")
    await page.status_store.save_polls({HK: polls})
    at = NOW + timedelta(minutes=30, seconds=17)
    await page.report(markets={"HK": ReleaseState("watching", DAY, 2, 2, at)})
    text, _ = await get(http, page.url)
    assert spoken(text).count("HK is probed next at 12:30:17 HKT") == 1
    assert "Next poll" not in text
    assert "in turn" not in text
    words = spoken((await get(http, f"{page.url}/symbols/{HK}"))[0])
    assert "12:30:17 HKT HK is probed next at that time; one of 3 symbols watched" in words
    markets = json.loads((await get(http, f"{page.url}/api/status"))[0])["markets"]
    assert [each["probed_at"] for each in markets] == ["2026-11-24T04:30:17.000Z", None]
    late = ReleaseState("watching", DAY, 2, 2, NOW - timedelta(seconds=1))
    await page.report(markets={"HK": late})
    assert "HK is probed next at now" not in (words := spoken((await get(http, page.url))[0]))
    assert "HK is probed now" in words


async def test_without_redis_nothing_is_none(page: Desk, http: aiohttp.ClientSession) -> None:
    """What was not there at the last look is unknown now, with the time of that look."""
    assert "none configured" in (await get(http, page.url))[0]
    await page.raw.shutdown(nosave=True)
    words = spoken((await get(http, page.url))[0])
    assert "Webhooks unknown, last seen now" in words
    assert "none configured" not in words


def test_troubles_are_folded_by_kind() -> None:
    """The same reason for many symbols is one kind; another reason, or subject, is another."""
    troubles = {
        "HK.00700": "no answer",
        "HK.00005": "no answer",
        "HK.00005 quarantine": "a figure of HK.00005 awaits a decision",
        "US.AAPL quarantine": "a figure of US.AAPL awaits a decision",
        "webhook desk": "no answer",
    }
    kinds = [fold.subjects for fold in folded(troubles)]
    assert kinds == [
        ("HK.00700", "HK.00005"),
        ("HK.00005 quarantine", "US.AAPL quarantine"),
        ("webhook desk",),
    ]
    service = ServiceStatus(NOW, unreadable=troubles)
    assert troubled(service) == {"HK.00700", "HK.00005", "US.AAPL"}


def history(*weeks: tuple[int, float, float]) -> dict[str, str]:
    """Return a history hash of weekly shares, ratio and price, oldest first."""
    found = {}
    for n, (shares, ratio, price) in enumerate(reversed(weeks)):
        record = HkRecord(None, str(DAY - timedelta(weeks=n)), shares, ratio, price, price)
        found[record.timestamp_str] = Vintage(record, 0, NOW).to_json()
    return found


def test_a_split_is_no_move() -> None:
    """Four shares for one: the move is what is left, and no high of the year."""
    weeks = [(1_000_000 + n % 3 * 50_000, 0.5, 40.0) for n in range(40)]
    row = row_of(HK, history(*weeks, (4_040_000, 0.5, 10.1)))
    assert (row.change, row.percent) == (40_000, 1.0)
    assert row.extreme is None


@pytest.mark.parametrize(
    ("weeks", "shares", "extreme"),
    [(40, 9_000, "high"), (40, 900, "low"), (40, 1_000, None), (40, 0, None), (20, 9_000, None)],
)
def test_highs_and_lows_of_the_year(weeks: int, shares: int, extreme: str | None) -> None:
    """Above or below all reports of a year, of which half must be known; 0 is no figure."""
    known = [(1_000 + n % 3, 0.5, 10.0) for n in range(weeks)]
    assert row_of(HK, history(*known, (shares, 0.5, 10.0))).extreme == extreme
