"""The page over HTTP, on a real server: what it shows, to whom, and what it survives."""

import asyncio
import contextlib
import csv
import io
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from poller.delivery.outbox import Status
from poller.delivery.redisoutbox import RedisOutbox
from poller.errors import ConfigError
from poller.markets import Market
from poller.model import Code, Instrument
from poller.settings.config import load
from poller.simulator import World
from poller.store.embedded import Embedded
from poller.store.plain import DESCRIBED, history_names
from poller.telemetry.observe import Happened, Recovered
from poller.telemetry.status import Poll, Polls, ReleaseState
from poller.web.samples import samples_of
from poller.web.service_status import unready
from poller.web.watchlist_view import WatchlistRow
from tests.desk import HK, NOW, US, Desk, desk
from tests.machine import at_most
from tests.service import PATIENCE, Service, simulator, until

TOKEN = "correct-horse-battery"  # noqa: S105  of the tests
DAY = date(2026, 11, 13)
HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Desk]:
    """A page that watches two symbols of which some weeks are known, and a poller that is well."""
    async with desk(tmp_path, HK, US) as made:
        await made.publish(HK, 100, 120, 90)
        await made.publish(US, 5_000_000, 6_000_000)
        await made.shows(US, 6_000_000)
        await made.report()
        yield made


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that follows no redirect and keeps cookies."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        yield session


async def get(
    http: aiohttp.ClientSession, url: str, status: int = 200, **headers: str
) -> tuple[str, dict[str, str]]:
    """Get a page that answers with this status; returns text and headers."""
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    async with http.get(url, headers=sent, allow_redirects=False) as answer:
        text = await answer.text()
        assert answer.status == status, text
        return text, {str(name): value for name, value in answer.headers.items()}


def spoken(text: str) -> str:
    """Return the words of a page without its markup."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)).replace(" ,", ",").replace(" ;", ";")


async def test_the_whole_service_on_one_screen(page: Desk, http: aiohttp.ClientSession) -> None:
    """Figure, change, age, next look, budget, OpenD and events stand in the page as served."""
    soon = NOW + timedelta(minutes=7)
    polls = Polls((Poll(NOW, "no newer day"),), soon, "the report is due")
    await page.raw.hset(page.status_store.keys.polls, HK, polls.to_json())
    text, _ = await get(http, page.url)
    words = spoken(text)
    for part in (
        "All is well: 2 symbols watched",
        "HK.00700 2026-11-13 11 d 90 0.50 % – – −30 −25.00 %",
        "2026-11-20 is expected in 2 d 21 h, 2026-11-27 09:00 HKT",
        "in 7 min",
        "1 of 1 reported",
        "6,000,000 0.50 % 2.50 1 k +1,000,000 +20.00 %",
        "0 of 30",
        "ready 127.0.0.1:11111",
        "polling poller run",
        "backfilled HK.00700 3 days, up to 2026-11-13",
    ):
        assert part in words
    assert "Simulation" not in words
    text, _ = await get(http, f"{page.url}/symbols/{HK}")
    assert "the report is due" in text
    assert "2026-11-13 90 −30 −25.00 % 0.50 %" in spoken(text)
    assert "2026-10-30 100 – – 0.50 %" in spoken(text)
    assert "no newer day" in text


async def test_a_zero_of_hong_kong_is_no_figure(page: Desk, http: aiohttp.ClientSession) -> None:
    """0 means below the reporting threshold: said in words, without ratio or change, on each page.

    The file keeps the figure as OpenD gave it.
    """
    await page.publish(HK, 100, 120, 0)
    await page.shows(HK, 0)
    words = spoken((await get(http, page.url))[0])
    assert "HK.00700 2026-11-13 11 d rev ised below threshold – – –" in words
    assert "revised HK.00700 2026-11-13 – below threshold" in words
    assert "100.00 %" not in words
    text, _ = await get(http, f"{page.url}/symbols/{HK}")
    assert "2026-11-13 below threshold –" in spoken(text)
    assert 'class="below"' in text
    rows = json.loads((await get(http, f"{page.url}/api/symbols/{HK}/history.json"))[0])
    assert rows[0]["aggregated_short"] == 0
    series = json.loads((await get(http, f"{page.url}/api/symbols/{HK}/series.json"))[0])
    assert [each["shares"] for each in series] == [100, 120, None]
    assert series[0] == {
        "trading_day": "2026-10-30",
        "shares": 100,
        "ratio": 0.5,
        "days_to_cover": None,
        "close_price": 12.0,
        "revision": 0,
    }


async def test_a_history_as_it_was_known(page: Desk, http: aiohttp.ClientSession) -> None:
    """In the files, the API and on the page: without later events, and with a day's old figure."""
    before = quote((NOW - timedelta(seconds=1)).isoformat())
    after = quote(NOW.isoformat())
    history = f"{page.url}/api/symbols/{HK}/history"
    now = json.loads((await get(http, f"{history}.json"))[0])
    assert len(now) == 3
    assert json.loads((await get(http, f"{history}.json?as_known_at={after}"))[0]) == now
    assert json.loads((await get(http, f"{history}.json?as_known_at={before}"))[0]) == []
    text, _ = await get(http, f"{history}.csv?as_known_at={before}")
    assert len(text.splitlines()) == 1
    whole = f"{page.url}/api/symbols/{HK}?as_known_at="
    assert json.loads((await get(http, f"{whole}{after}"))[0])["history"] == now
    shown, _ = await get(http, f"{page.url}/symbols/{HK}?as_known_at={before}")
    assert "Nothing is known yet." in shown
    assert "As known at 2026-11-24 11:59:59 HKT" in spoken(shown)
    for wrong in ("yesterday", "", "2026-11-24", "2026-11-24T10:00:00", "2026-11-24T25:00:00Z"):
        said, _ = await get(http, f"{whole}{wrong}", 400)
        assert "write it like 2026-05-08T10:00:00Z" in said
    for early in ("0001-01-01T00:00:00%2B14:00", "2026-11-24t00:00:00.123456789z"):
        assert json.loads((await get(http, f"{history}.json?as_known_at={early}"))[0]) == []
    await get(http, f"{page.url}/api/symbols/HK.09999?as_known_at={before}", 404)


async def test_a_history_has_the_columns_of_export(page: Desk, http: aiohttp.ClientSession) -> None:
    """As JSON, as CSV and beside the symbol: each day with its change since the day before."""
    await page.publish(HK, 100, 120, 150)
    await page.shows(HK, 150)
    url = f"{page.url}/api/symbols/{HK}"
    rows = json.loads((await get(http, f"{url}/history.json"))[0])
    assert list(rows[0]) == [*history_names([HK]), *DESCRIBED]
    assert [(row["change"], row["change_percent"], row["streak"]) for row in rows] == [
        (30, 25.0, 2),
        (20, 20.0, 1),
        (None, None, None),
    ]
    assert json.loads((await get(http, url))[0])["history"] == rows
    table = list(csv.DictReader(io.StringIO((await get(http, f"{url}/history.csv"))[0])))
    assert [list(row) for row in table] == [list(row) for row in rows]
    assert [row["change"] for row in table] == ["30", "20", ""]


async def test_who_is_late_is_named(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """A release that one symbol lacks is not in progress for ever: the card and the row name it."""
    other = Code("HK.00005")
    async with desk(tmp_path, HK, other) as made:
        await made.publish(HK, 1, 2)
        await made.publish(other, 1, 2, newest=date(2026, 10, 30))
        await made.shows(HK, 2)
        await made.shows(other, 2)
        behind = ReleaseState("paused", date(2026, 11, 13), 2, 1)
        await made.report(markets={"HK": behind})
        words = spoken((await get(http, made.url))[0])
        assert "1 of 2 reported" in words
        assert "HK.00005 still shows 2026-10-30" in words
        assert "HK.00005 2026-10-30 25 d late 2" in words
        assert "Working: 2 symbols watched, 1 of them late" in words
        assert "in progress" not in words
        assert "others show 2026-11-13" in spoken(
            (await get(http, f"{made.url}/symbols/{other}"))[0]
        )
        await made.report(markets={"HK": ReleaseState("sweeping", date(2026, 11, 13), 2, 1)})
        words = spoken((await get(http, made.url))[0])
        assert "Release in progress: 1 of 2" in words
        assert "late" not in words


async def test_a_simulation_says_so(page: Desk, http: aiohttp.ClientSession) -> None:
    """Where a simulator made the figures up, every page says it before anything else."""
    await page.raw.set("{short-interest}:simulated", 1)
    for path in ("/", f"/symbols/{HK}"):
        words = spoken((await get(http, page.url + path))[0])
        assert words.index("Simulation. Every figure here is made up") < words.index("Watchlist")
    assert json.loads((await get(http, f"{page.url}/api/status"))[0])["simulated"]


async def test_a_simulation_says_when_it_plays_on(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    """Until it has caught up, no calendar says when a report comes: its own pace does."""
    async with desk(tmp_path, US) as made:
        await made.raw.set("{short-interest}:simulated", 1)
        await made.publish(US, 100, newest=date(2021, 12, 15))
        await made.shows(US, 100)
        words = spoken((await get(http, made.url))[0])
        assert "2021-12-31 is expected within 45 s: the simulation plays one each 45 s" in words
        assert "is expected now" not in words


async def test_a_browser_finds_its_way_back(page: Desk, http: aiohttp.ClientSession) -> None:
    """A missing page is a page with a link home and the fix; a program gets a line."""
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    text, headers = await get(http, f"{page.url}/symbols/HK.99999", 404, **browser)
    assert "poller watch add HK.99999" in text
    assert '<a href="/">Watchlist</a>' in text
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    text, _ = await get(http, f"{page.url}/symbols/{HOSTILE.replace('/', '')}", 400, **browser)
    assert "<img" not in text
    await get(http, f"{page.url}/nothing", 404, **browser)
    assert "<" not in (await get(http, f"{page.url}/symbols/HK.99999", 404))[0]


@pytest.mark.parametrize("path", ["/api", "/api/"])
async def test_the_api_says_what_there_is(
    page: Desk, http: aiohttp.ClientSession, path: str
) -> None:
    """Its root lists every path."""
    told = json.loads((await get(http, page.url + path))[0])
    document = json.loads((await get(http, f"{page.url}/api/openapi.json"))[0])
    assert told.keys() == document["paths"].keys()


async def test_the_api_refuses_a_parameter_it_does_not_know(
    page: Desk, http: aiohttp.ClientSession
) -> None:
    """A typing error is told with the names there are; the page, which people type, ignores it."""
    for path, told in (
        ("/api/symbols?markt=HK", "'markt' is no parameter of this; use q, market, moved, only"),
        (f"/api/symbols/{HK}?as_know_at=x", "use as_known_at"),
        (f"/api/symbols/{HK}/history.csv?sort=day", "use as_known_at"),
        ("/api/events?limit=5", "use after, count"),
        ("/api/status?x=1", "there is none here"),
        ("/api?x=1", "there is none here"),
    ):
        assert told in json.loads((await get(http, page.url + path, 400))[0])["error"]
    await get(http, f"{page.url}/?markt=HK")


async def test_readiness_names_what_is_wrong(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """No poller, OpenD away, no lease: 503 with that reason; all well: 200. The loop turns."""
    async with desk(tmp_path) as made:
        assert "no poller reports" in (await get(http, f"{made.url}/readyz", 503))[0]
        await made.report()
        assert json.loads((await get(http, f"{made.url}/readyz"))[0])["reasons"] == []
        await made.report(ready=False)
        assert "nobody listens" in (await get(http, f"{made.url}/readyz", 503))[0]
        await made.raw.delete("{short-interest}:lease")
        assert "no poller holds the lease" in (await get(http, f"{made.url}/readyz", 503))[0]
        await get(http, f"{made.url}/healthz")


async def test_what_is_wrong_is_told_once(page: Desk, http: aiohttp.ClientSession) -> None:
    """OpenD away is one line, although its process calls it a trouble, too."""
    troubles = {"OpenD 127.0.0.1:11111": "nobody listens", HK: "OpenD refuses it"}
    await page.report(ready=False, troubles=troubles)
    words = spoken((await get(http, page.url))[0])
    assert "Not working: OpenD 127.0.0.1:11111: nobody listens" in words
    assert words.count("nobody listens") == 1
    assert "HK.00700 : OpenD refuses it" in words


class Stuck(RedisOutbox):
    """An outbox whose look at the endpoints never ends, though Redis answers."""

    async def statuses(self, names: Sequence[str] | None = None) -> dict[str, Status]:
        """Wait for ever."""
        await asyncio.Event().wait()
        return await super().statuses(names)


async def test_a_look_that_takes_too_long_does_not_blame_redis(page: Desk) -> None:
    """Where Redis answers a single question, the page looks for the reason elsewhere."""
    (url,) = {Embedded(page.sources.config.state_dir).url}
    stuck = replace(page.sources, outbox=Stuck(url, "short-interest"))
    service = await stuck.service_status()
    (reason,) = unready(service)
    assert reason.startswith("Redis answers, but")
    assert next(iter(samples_of(service))).value == 1
    await page.raw.shutdown(nosave=True)
    (reason,) = unready(await stuck.service_status())
    assert reason.startswith("Redis does not answer")
    await stuck.outbox.close()  # type: ignore[attr-defined]


async def test_without_redis_the_page_says_so(page: Desk, http: aiohttp.ClientSession) -> None:
    """The server gone: health and metrics answer, the rest says Redis does not; then it heals."""
    await page.raw.shutdown(nosave=True)
    await get(http, f"{page.url}/healthz")
    assert "Redis does not answer" in (await get(http, f"{page.url}/readyz", 503))[0]
    assert "Redis does not answer" in (await get(http, page.url))[0]
    assert "error" in json.loads((await get(http, f"{page.url}/api/events", 503))[0])
    assert "poller_redis_up 0.0" in (await get(http, f"{page.url}/metrics"))[0]
    await until(lambda: bool(page.troubles))


async def test_what_others_write_is_text(page: Desk, http: aiohttp.ClientSession) -> None:
    """A symbol, a trouble, a gateway's or an endpoint's words, and the query are never markup."""
    entry = {"code": HOSTILE, "type": f"short_interest.{HOSTILE}", "trading_day": HOSTILE}
    data = json.dumps({"record": {"shares_short": 1}, "previous": None, "change": None})
    await page.raw.xadd("short-interest", entry | {"observed_at": HOSTILE, "data": data})
    await page.raw.xadd("short-interest", {"anything": HOSTILE})
    polls = Polls((Poll(NOW, HOSTILE),), NOW, HOSTILE)
    await page.raw.hset(page.status_store.keys.polls, HK, polls.to_json())
    await page.raw.xgroup_create("short-interest", "webhook:desk", "$")
    state = {"disabled": "", "failing_since": "1000", "last_error": HOSTILE}
    await page.raw.hset("{short-interest}:webhook:desk:state", mapping=state)
    await page.store.instruments.save_instruments({HK: Instrument(HOSTILE)})
    await page.report(troubles={HOSTILE: HOSTILE})
    await until(lambda: page.sources.overview.rows[HK].name == HOSTILE)
    for path in ("/", f"/?q={HOSTILE}", f"/symbols/{HK}"):
        text, headers = await get(http, page.url + path)
        assert "<script>alert" not in text
        assert "<img src" not in text
        assert "script-src 'self'" in headers["Content-Security-Policy"]
    text, _ = await get(http, page.url)
    assert text.count("&lt;script&gt;") >= 5


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({}, "idle not used yet desk"),
        ({"last_error": "503", "last_error_at": "1000"}, "idle active desk"),
        ({"last_success": "1000"}, "good ok desk delivered"),
        ({"failing_since": "1000", "last_error": "503"}, "warn failing desk 503"),
        ({"disabled": "it answered 410", "last_success": "1"}, "bad disabled desk it answered 410"),
    ],
)
async def test_how_an_endpoint_is(
    page: Desk, http: aiohttp.ClientSession, state: dict[str, str], told: str
) -> None:
    """One that was never used is not said to work."""
    await page.raw.xgroup_create("short-interest", "webhook:desk", "$")
    if state:
        await page.raw.hset("{short-interest}:webhook:desk:state", mapping=state)
    text, _ = await get(http, page.url)
    marked = re.sub(r'<span class="mark (\w+)">', r" \1 ", text)
    assert told in spoken(marked)


class Defective(WatchlistRow):
    """A row that only an answer of the page trips over, with a visitor's words in its text.

    Its other columns are sound: the page also reads rows while nobody asks for it.
    """

    @property
    def market(self) -> Market:
        """Fail."""
        raise ZeroDivisionError("a visitor's words")


async def test_a_defect_of_the_page_tells_nothing_of_a_visitor(
    page: Desk, http: aiohttp.ClientSession
) -> None:
    """Its type and place are reported, without its text; the next good answer ends it."""
    await page.shows(HK, 90)
    row = page.sources.overview.rows[HK]
    async with at_most(what="the defect"):
        status = 200
        while status == 200:  # an event still to be read may replace the row
            page.sources.overview.rows[HK] = Defective(HK, DAY)
            async with http.get(page.url) as answer:
                status, text = answer.status, await answer.text()
    assert status == 500
    assert "a defect of the page; the log has it" in text
    (told,) = page.troubles
    assert re.search(r"please report it: ZeroDivisionError at \w+\.py:\d+$", told)
    page.sources.overview.rows[HK] = row
    await get(http, page.url)
    assert Recovered("page /") in page.facts


@pytest.mark.parametrize(
    "path", ["/symbols/rubbish", "/symbols/HK.700", "/?sort=x", "/?page=x", "/?market=x"]
)
async def test_a_wrong_address_is_told_in_a_line(
    page: Desk, http: aiohttp.ClientSession, path: str
) -> None:
    """What cannot be used is named with what can, and on the API it is JSON."""
    text, _ = await get(http, page.url + path, 400)
    assert len(text.splitlines()) == 1
    api = path.replace("/symbols", "/api/symbols").replace("/?", "/api/symbols?")
    assert json.loads((await get(http, page.url + api, 400))[0])["error"]


async def test_downloads_hold_every_day(page: Desk, http: aiohttp.ClientSession) -> None:
    """CSV and JSON have the SDK's columns and the same days, newest first."""
    base = f"{page.url}/api/symbols/{HK}/history"
    rows = json.loads((await get(http, f"{base}.json"))[0])
    text, headers = await get(http, f"{base}.csv")
    table = list(csv.DictReader(io.StringIO(text)))
    assert [row["aggregated_short"] for row in table] == ["90", "120", "100"]
    assert [row["timestamp_str"] for row in rows] == [row["timestamp_str"] for row in table]
    assert headers["Content-Disposition"] == f'attachment; filename="{HK}.csv"'
    await get(http, f"{page.url}/api/symbols/HK.00001/history.csv", 404)
    async with http.head(f"{base}.csv") as answer:
        assert answer.status == 200
        assert await answer.read() == b""


async def test_a_revision_is_shown_with_what_it_replaced(
    page: Desk, http: aiohttp.ClientSession
) -> None:
    """The chart rings the day, the table has both vintages."""
    await page.publish(HK, 100, 120, 95)
    text, _ = await get(http, f"{page.url}/symbols/{HK}")
    assert 'class="revised"' in text
    assert re.search(r'class="replaced".*?<td class="figure">90</td>', text, re.DOTALL)


async def lines_of(answer: aiohttp.ClientResponse, count: int) -> list[str]:
    """Return the ids of the next `count` events of a stream."""
    found: list[str] = []
    async with at_most(20):
        while len(found) < count:
            line = (await answer.content.readline()).decode().rstrip()
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")).get("id", ""))
    return found


async def test_events_replay_and_go_on(page: Desk, http: aiohttp.ClientSession) -> None:
    """A reader that was away gets what it missed, then what comes, once each and in order."""
    newest = (await page.store.streams.read("0", count=10, block=None))[-2]
    headers = {"Last-Event-ID": newest.id}
    async with http.get(f"{page.url}/events", headers=headers) as answer:
        assert await lines_of(answer, 1) == ["US.AAPL:2026-11-13:0"]
        await page.publish(US, 5_000_000, 6_000_001)
        await page.raw.xadd("short-interest", {"id": "alien\n\ndata: x", "code": "?"})
        assert await lines_of(answer, 2) == ["US.AAPL:2026-11-13:1", "alien\n\ndata: x"]
    await get(http, f"{page.url}/events", 400, Last_Event_ID="yesterday")


async def test_whoever_asks_for_the_heads_of_events_alone_is_no_reader(page: Desk) -> None:
    """The answer ends: a probe takes nobody's place, and its next request is answered."""
    where = URL(page.url)
    reader, writer = await asyncio.open_connection(where.host, where.port)
    writer.write(b"HEAD /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    async with at_most(what="the end of an answer to HEAD"):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/event-stream" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_a_browser_finds_its_way_back_after_any_id(
    page: Desk, http: aiohttp.ClientSession
) -> None:
    """An entry of another client may have an id of nanoseconds; ours follow it, and are read."""
    foreign = "1764334000000000000-1844674407370955161"
    await page.raw.xadd("short-interest", {"id": "theirs"}, id=foreign)
    await page.publish(US, 5_000_000, 6_000_001)
    found = json.loads((await get(http, f"{page.url}/api/events?after={foreign}"))[0])
    assert [event["id"] for event in found["events"]] == [f"{US}:2026-11-13:1"]
    async with http.get(f"{page.url}/events", headers={"Last-Event-ID": foreign}) as answer:
        assert answer.status == 200
        assert await lines_of(answer, 1)
    for after in ("9" * 19, "1-" + "2" * 20, "1" * 21):
        await get(http, f"{page.url}/api/events?after={after}", 400)


async def test_cursor_reads_can_be_cached(page: Desk, http: aiohttp.ClientSession) -> None:
    """What follows a cursor lasts once it is full; until then it is asked for again by its tag."""
    full, partial = f"{page.url}/api/events?after=0&count=2", f"{page.url}/api/events?after=0"
    events = json.loads((await get(http, partial))[0])["events"]
    assert len(events) > 2
    _, headers = await get(http, full)
    assert headers["Cache-Control"] == "public, max-age=86400, immutable"
    _, headers = await get(http, partial)
    assert headers["Cache-Control"] == "public, no-cache"
    text, _ = await get(http, partial, 304, If_None_Match=headers["Etag"])
    assert text == ""
    await get(
        http, partial, 304, If_None_Match=f"W/{headers['Etag']}"
    )  # by a proxy that compresses
    await page.publish(US, 5_000_000, 6_000_001)
    text, fresh = await get(http, partial, 200, If_None_Match=headers["Etag"])
    assert len(json.loads(text)["events"]) == len(events) + 1
    nothing = f"{page.url}/api/events?after={json.loads(text)['events'][-1]['stream_id']}"
    _, none = await get(http, nothing)
    await get(http, nothing, 304, If_None_Match=none["Etag"])
    assert len({headers["Etag"], fresh["Etag"], none["Etag"]}) == 3
    assert (await get(http, f"{page.url}/api/events"))[1]["Cache-Control"] == "no-store"


async def test_a_reader_that_stands_still_holds_up_nobody(
    page: Desk, http: aiohttp.ClientSession
) -> None:
    """One that never reads costs one batch; another one gets every event meanwhile."""
    host, port = page.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(b"GET /events?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for start in range(0, 20_000, 1000):
        pipe = page.raw.pipeline()
        for n in range(start, start + 1000):
            pipe.xadd("short-interest", {"id": str(n), "data": "x" * 500})
        await pipe.execute()
    async with http.get(f"{page.url}/events?after=0") as answer:
        assert (await lines_of(answer, 20_005))[-1] == "19999"
    assert not reader.at_eof()
    writer.close()
    await writer.wait_closed()


async def test_only_localhost_is_answered_without_a_token(
    page: Desk, http: aiohttp.ClientSession
) -> None:
    """Another site whose name points here gets nothing; every spelling of localhost is served."""
    for host in ("evil.example", "127.0.0.1.evil.example:80", "[::2]", "10.0.0.1", "@", "[x"):
        text, _ = await get(http, page.url, 421, Host=host)
        assert "HK.00700" not in text
    for host in ("localhost", "LOCALHOST:1", "127.0.0.2:80", "[::1]:80"):
        await get(http, page.url, 200, Host=host)


async def test_a_token_is_demanded(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """Bearer or form, nothing else; the cookie is not the token, and scripts cannot see it."""
    async with desk(tmp_path, token=TOKEN) as made:
        await get(http, f"{made.url}/healthz")
        for path in ("/", "/readyz", "/metrics", "/events", "/api/status", "/static/page.js"):
            await get(http, made.url + path, 401)
            await get(http, made.url + path, 401, Authorization=f"Bearer {TOKEN}x")
            await get(http, made.url + path, 401, Cookie=f"poller-session={TOKEN}")
            await get(http, made.url + path, 401, Authorization="Bearer \udcff")
        _, headers = await get(http, made.url, 303, Accept="text/html")
        assert headers["Location"] == "/login"
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        await get(http, f"{made.url}/metrics", 200, **bearer, Host="elsewhere.example")
        async with http.post(f"{made.url}/login", data={"token": "wrong"}) as answer:
            assert answer.status == 401
            assert "not the token" in await answer.text()
        async with http.post(
            f"{made.url}/login", data={"token": TOKEN}, allow_redirects=False
        ) as answer:
            assert answer.status == 303
            cookie = answer.headers["Set-Cookie"]
        assert TOKEN not in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in (await get(http, made.url))[0]


async def test_nothing_is_written_through_the_page(page: Desk, http: aiohttp.ClientSession) -> None:
    """Every method but reading is refused, everywhere."""
    for path in ("/", f"/symbols/{HK}", "/api/symbols", "/metrics", "/events"):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            async with http.request(method, page.url + path) as answer:
                assert answer.status == 405


async def test_metrics_tell_what_redis_knows(page: Desk, http: aiohttp.ClientSession) -> None:
    """The text parses; watermark, coverage, budget and lease have their values and base units."""
    text, _ = await get(http, f"{page.url}/metrics")
    samples = {
        (sample.name, *(text for _, text in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["poller_ready",] == 1
    assert samples["poller_lease_token",] == 1
    assert samples["poller_budget_headroom_requests", "main"] == 30
    midnight = samples["poller_watermark_timestamp_seconds", "HK"]
    assert midnight == NOW.timestamp() - NOW.timestamp() % 86400 - 11 * 86400 - 8 * 3600
    assert samples["poller_watermark_overdue_seconds", "HK"] == 0
    assert samples["poller_sweep_covered_symbols", "US"] == 1
    assert samples["poller_gateway_ready", "main", "127.0.0.1:11111"] == 1


async def test_a_port_in_use_is_told_and_tried_again(tmp_path: Path) -> None:
    """The page says where the trouble is, and comes up by itself once the port is free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with desk(tmp_path, port=port) as made:
            assert f"port {port}" in made.troubles[0]
            assert "web.port" in made.troubles[0]
            taken.close()
            await until(lambda: any(isinstance(fact, Happened) for fact in made.facts))
            assert made.url.endswith(f":{port}")


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"POLLER_WEB__HOST": "0.0.0.0"}, "set web.token_file"),  # noqa: S104
        ({"POLLER_WEB__HOST": "page.example"}, "set web.token_file"),
        ({"POLLER_WEB__TOKEN": "short"}, "at least 16"),
        ({"POLLER_WEB__TOKEN_FILE": "missing"}, "POLLER_WEB__TOKEN_FILE: missing"),
    ],
)
def test_an_open_page_is_refused(settings: dict[str, str], part: str) -> None:
    """Another address without a token, or with a weak one, is refused with the fix."""
    with pytest.raises(ConfigError) as caught:
        load(None, {"POLLER_CONFIG": "/dev/null", **settings})
    assert part in str(caught.value)
    assert "short" not in str(caught.value)


async def test_the_api_keeps_to_its_document(page: Desk) -> None:
    """Schemathesis finds no request to which the API answers otherwise than it says."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{page.url}/api/openapi.json"]
    options = ["--max-examples", "15", "--checks", "all", "--seed", "1", "--no-color"]
    options += ["--suppress-health-check", "too_slow", "--request-timeout", str(PATIENCE)]
    process = await asyncio.create_subprocess_exec(
        *command,
        *options,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=page.sources.config.state_dir,
    )
    try:
        async with at_most(100, "the end of schemathesis"):
            out, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    assert process.returncode == 0, out.decode()[-6000:]


async def test_a_watchlist_of_many_pages(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """A hundred rows a page; what has no report comes last, and links lead through all."""
    codes = [Code(f"HK.{n:05}") for n in range(1, 251)]
    found: list[str] = []
    address: str | None = "/?sort=-shares"
    async with desk(tmp_path, *codes, US) as made:
        await made.publish(US, 1)
        await made.shows(US, 1)
        while address:
            text, _ = await get(http, made.url + address)
            found += re.findall(r'id="row-([^"]+)"', text)
            following = re.search(r'id="next" rel="next" href="([^"]+)"', text)
            address = "/" + following[1].replace("&amp;", "&") if following else None
    assert found == [US, *codes]


async def status_of(http: aiohttp.ClientSession, url: str) -> int:
    """Return the status of an answer, read whole."""
    async with http.get(url) as answer:
        await answer.read()
        return answer.status


async def test_the_page_of_another_process(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """`poller web` beside `poller poll` shows what that one polls, and misses it when it ends."""
    async with simulator(World()) as opend:
        service = Service(tmp_path, opend.port, HK, role="poll")
        await service.start()
        await service.said("published")
        reader = Service(tmp_path, opend.port, US, {"POLLER_BUDGET__REQUESTS": "7"}, role="web")
        await reader.start()
        await service.said("page")
        (url,) = [line["url"] for line in service.log() if line["event"] == "page"]
        async with at_most():
            while await status_of(http, f"{url}readyz") != 200:
                await asyncio.sleep(0.05)
            told = json.loads((await get(http, f"{url}api/status"))[0])
            # the page looks once a second at what is watched, and may come before its own report
            while told["symbols"] != 1 or len(told["processes"]) != 2:
                await asyncio.sleep(0.05)
                told = json.loads((await get(http, f"{url}api/status"))[0])
        assert {each["role"] for each in told["processes"]} == {"poll", "web"}
        assert told["gateways"][0]["ready"]
        (budget,) = told["budgets"]
        assert (budget["account"], budget["limit"]) == ("main", 30)
        assert "51,480,638" in (await get(http, url))[0]
        assert await service.stop() == 0
        async with at_most():
            while await status_of(http, f"{url}readyz") != 503:
                await asyncio.sleep(0.05)
        assert await reader.stop() == 0


async def test_run_counts_what_it_does(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """The page inside `run` has the polls and events of its own process."""
    async with simulator(World()) as opend:
        service = Service(tmp_path, opend.port, HK)
        await service.start()
        await service.said("page")
        (url,) = [line["url"] for line in service.log() if line["event"] == "page"]
        text = ""
        async with at_most():
            while 'poller_events_total{market="HK",type="backfilled"} 10.0' not in text:
                text, _ = await get(http, f"{url}metrics")
                await asyncio.sleep(0.05)
        assert 'poller_polls_total{market="HK",outcome="answered"}' in text
        assert await service.stop() == 0
