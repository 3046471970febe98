"""What other clients leave in Redis: every page and answer stays whole, and says what it lacks."""

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from poller.model import to_json
from poller.store.store import SYMBOLS
from poller.telemetry.observe import Trouble
from poller.telemetry.status import Poll, Polls
from tests.desk import HK, NOW, US, Desk, desk, record
from tests.service import PATIENCE, until

KEY = "{short-interest}:"
DEEP = "[" * 50_000
HUGE = "9" * 400
NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "1e308", HUGE, f"-{HUGE}", "-1", "true")
TEXTS = (r'"\ud800"', '"' + "x" * 100_000 + '"', "[]", "{}", DEEP)
PATHS = (
    "/",
    "/?sort=-ratio",
    f"/symbols/{HK}",
    "/readyz",
    "/metrics",
    "/api/status",
    "/api/symbols?sort=-percent",
    f"/api/symbols/{HK}",
    f"/api/symbols/{HK}/history.json",
    f"/api/symbols/{HK}/history.csv",
    f"/api/symbols/{HK}/series.json",
    "/releases/HK",
    "/api/releases/HK",
    "/api/events",
    "/api/events?after=0",
)


def strict(text: str) -> Any:  # noqa: ANN401  JSON has no types
    """Read JSON as its standard has it."""

    def refuse(name: str) -> NoReturn:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


async def answers(made: Desk) -> dict[str, str]:
    """Get every path; none may fail, and what is JSON must be."""
    found = {}
    async with aiohttp.ClientSession() as http:
        for path in PATHS:
            async with http.get(made.url + path) as answer:
                text = (await answer.read()).decode()
                expected = {200, 503 if path == "/readyz" else 404 if "/releases" in path else 200}
                assert answer.status in expected, (path, text)
                found[path] = text
                if path.startswith("/api/") and not path.endswith("csv"):
                    strict(text)
    list(text_string_to_metric_families(found["/metrics"]))
    assert not [fact for fact in made.facts if isinstance(fact, Trouble)], made.facts
    return found


def entry(**changes: str) -> dict[str, str]:
    """Return an event's fields, some of them another's."""
    data = '{"record":{"aggregated_short":1},"previous":null,"change":{"percent":1.5}}'
    fields = {
        "id": f"{HK}:2026-11-20:0",
        "type": "short_interest.reported",
        "code": HK,
        "market": "HK",
        "trading_day": "2026-11-20",
        "revision": "0",
        "observed_at": "2026-11-27T01:00:00.000Z",
        "data": data,
    }
    return fields | changes


async def test_entries_of_others(tmp_path: Path) -> None:
    """Numbers that are none, lone surrogates, depth and length in a foreign entry."""
    async with desk(tmp_path, HK) as made:
        await made.report()
        for value in (*NUMBERS, *TEXTS):
            for data in (
                f'{{"record":{{"aggregated_short":{value}}},"change":{{"percent":{value}}}}}',
                f'{{"record":{{"shares_short":1}},"change":{value}}}',
                f'{{"record":{value},"change":null}}',
                value,
            ):
                await made.raw.xadd("short-interest", entry(data=data))
        await made.raw.xadd("short-interest", entry(revision="9" * 5000, code="x" * 100_000))
        found = await answers(made)
        events = json.loads(found["/api/events"])["events"]
        spoiled = [each for each in events if "NaN" in str(each["data"])]
        assert all(isinstance(each["data"], str) for each in spoiled)
        assert len(spoiled) == 4
        assert "nan" not in found["/"]
        assert len(found["/"]) < 100_000
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{made.url}/events?after=0") as answer,
        ):
            for _ in range(len(events)):
                while not (line := await answer.content.readuntil(b"\n")).startswith(b"data: "):
                    pass
                strict(line.decode().removeprefix("data: "))


def day(**changes: str) -> str:
    """Return the JSON of a day of history, some values of it as they are spelled here."""
    spelled = json.loads(vintage_json(date(2026, 11, 20), 7))
    parts = {name: json.dumps(value) for name, value in spelled.items()} | changes
    return "{" + ",".join(f'"{name}":{text}' for name, text in parts.items()) + "}"


def vintage_json(newest: date, shares: int) -> str:
    """Return what a poll writes of a day."""
    told = record(HK, newest, shares).columns()
    return to_json(told | {"revision": 0, "observed_at": "2026-11-27T01:00:00.000Z"})


def spoiled_days() -> list[tuple[str, str]]:
    """Return name and text of many a day that no poll wrote."""
    columns = ("aggregated_short", "aggregated_short_ratio", "close_price", "revision", "timestamp")
    found = [day(**{column: value}) for column in columns for value in (*NUMBERS, *TEXTS)]
    found += [day(observed_at=f'"{year}-01-01T00:00:00+14:00"') for year in ("0001", "9999")]
    found += [day(observed_at=value) for value in (*NUMBERS, *TEXTS)]
    found += [*NUMBERS, *TEXTS, ""]
    days = [("2026-11-20", text) for text in found]
    for year in ("0001", "1969", "9999"):
        text = day(timestamp_str=f'"{year}-01-01"')
        days += [(f"{year}-01-01", text), ("2026-11-20", text)]
    return [*days, ("x" * 1000, day()), ("2026-11-20", day(timestamp_str='"20261120"'))]


async def test_a_history_of_others(tmp_path: Path) -> None:
    """Each such day is shown or left out and named; the others of the symbol stay."""
    async with desk(tmp_path, HK) as made:
        await made.publish(HK, 100, 120, 90)
        await made.shows(HK, 90)
        await made.report()
        history = made.status_store.keys.status.replace("status", f"history:{HK}")
        for name, text in spoiled_days():
            await made.raw.hset(history, name, text)
            await made.sources.overview._read([HK])  # noqa: SLF001  as after an event
            found = await answers(made)
            known = json.loads(found[f"/api/symbols/{HK}/history.json"])
            assert {each["timestamp_str"] for each in known} >= {"2026-11-13", "2026-11-06"}
            shown = found[f"/symbols/{HK}"]
            is_named = f"cannot be read in Redis: {name}" in shown
            assert is_named or len(name) > 20 or any(d["timestamp_str"] == name for d in known)
            await made.raw.hdel(history, name)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("status", {"host-1": DEEP, "host-2": "{}", "host-3": "\udcff"}),
        ("polls", {HK: DEEP}),
        (
            "polls",
            {
                HK: '{"polls":[{"at":"0001-01-01T00:00:00+14:00","answer":"\\ud800"}],'
                '"next_at":"9999-12-31T23:59:59-14:00","reason":"\\ud800"}'
            },
        ),
        ("webhook:desk:state", {"failing_since": "9e300", "hold_until": "9e300"}),
        ("webhook:desk:state", {"failing_since": "nan"}),
        ("webhook:desk:state", {"last_error": "x" * 100_000, "disabled": "\ud7ff"}),
        ("status", "of another type"),
        ("polls", "of another type"),
        ("lease", {"of": "another type"}),
        ("lease", "²:host"),
        ("simulated", {"of": "another type"}),
        ("webhook:desk:state", "of another type"),
        ("symbols", DEEP),
        ("symbols", "[NaN, 1e999]"),
    ],
)
async def test_keys_of_others(tmp_path: Path, key: str, values: str | Mapping[str, str]) -> None:
    """One spoiled key hides what stands in it, and nothing else."""
    async with desk(tmp_path, HK) as made:
        await made.publish(HK, 100, 120, 90)
        await made.shows(HK, 90)
        await made.report()
        await made.raw.xgroup_create("short-interest", "webhook:desk", "$")
        await made.raw.xgroup_create("short-interest", "webhook:other", "$")
        await made.raw.zadd(f"{KEY}webhook:desk:due", {"a": 1})
        await made.raw.delete(KEY + key)
        if isinstance(values, str):
            await made.raw.set(KEY + key, values)
        else:
            spelled = {k: v.encode(errors="surrogateescape") for k, v in values.items()}
            await made.raw.hset(KEY + key, mapping=spelled)
        found = await answers(made)
        assert ">90<" in found["/"]
        assert "other" in found["/"]


@pytest.mark.parametrize("text", ['[["HK.00700"]]', '[{"a": 1}]', "[null]", "7", "{}", DEEP])
async def test_watched_codes_of_others(tmp_path: Path, text: str) -> None:
    """What is no list of codes counts as absent: the page goes on with those that have figures."""
    async with desk(tmp_path, HK) as made:
        await made.raw.set(made.status_store.keys.symbols, text)
        assert await made.status_store.symbols() is None
        await made.store.streams.signal(SYMBOLS)
        await made.publish(HK, 100, 120, 90)
        await made.shows(HK, 90)


async def test_reports_of_others(tmp_path: Path) -> None:
    """Values no poller would report: all that is not theirs is shown, and JSON and metrics hold."""
    async with desk(tmp_path, HK) as made:
        await made.report()
        status = made.status_store.keys.status
        told = json.loads(await made.raw.hget(status, "host-1"))
        for name, value in {
            "budget": [10**300, 1e308],
            "lease": 10**400,
            "held": {"HK": 10**400},
            "troubles": {"\ud800": "\ud800"},
            "symbols": 10**400,
            "role": ["run"],
            "version": "\ud800",
            "markets": {
                "HK": {"phase": "sweeping", "day": "0001-01-01", "wanted": 10**400, "covered": -1}
            },
            "gateways": [
                {
                    "name": "\ud800",
                    "account": "\ud800",
                    "ready": 1,
                    "reason": "",
                    "since": "0001-01-01T00:00:00+14:00",
                }
            ],
        }.items():
            await made.raw.hset(status, "host-1", json.dumps(told | {name: value}))
            await answers(made)


async def test_a_very_long_history(tmp_path: Path) -> None:
    """80,000 days: the page shows its newest ten years of weeks, the API all, others are answered.

    Compared with each other, and in seconds of the processor, so that a slow machine does not
    matter.
    """
    first = date(1980, 1, 1)
    days = [first + timedelta(days=n) for n in range(80_000)]
    async with desk(tmp_path, HK, US) as made, aiohttp.ClientSession() as http:
        await made.report()
        history = made.status_store.keys.status.replace("status", f"history:{HK}")
        text = vintage_json(first, 7)
        for start in range(0, len(days), 2000):
            some = map(str, days[start : start + 2000])
            mapping = {each: text.replace(str(first), each) for each in some}
            await made.raw.hset(history, mapping=mapping)
        longest = 0.0

        async def look() -> None:
            nonlocal longest
            while True:
                asked = time.process_time()
                await asyncio.sleep(0.001)
                longest = max(longest, time.process_time() - asked)

        async def get(path: str) -> str:
            async with asyncio.timeout(PATIENCE), http.get(made.url + path) as answer:
                assert answer.status == 200
                return await answer.text()

        looking = asyncio.create_task(look())
        began = time.process_time()
        page = await get(f"/symbols/{HK}")
        assert page.count("<tr><th") == 521
        assert "79,480 older days are in the downloads" in page
        assert len(page) < 1_000_000
        assert (await get(f"/api/symbols/{HK}")).count('"observed_at":') == 80_001
        assert (await get(f"/api/symbols/{HK}/history.csv")).count("\r\n") == 80_001
        looking.cancel()
        assert longest < (time.process_time() - began) / 8


async def test_without_redis_the_last_look_is_shown(tmp_path: Path) -> None:
    """What was known stays, with its age, and never as "none"; events say that they are unknown."""
    async with desk(tmp_path, HK) as made, aiohttp.ClientSession() as http:
        await made.publish(HK, 100, 90)
        await made.shows(HK, 90)
        await made.report(troubles={"OpenD": "was slow"})
        await made.raw.xgroup_create("short-interest", "webhook:desk", "$")
        polls = Polls((Poll(NOW, "no newer day"),), NOW, "due")
        await made.raw.hset(made.status_store.keys.polls, HK, polls.to_json())
        before = await (await http.get(made.url)).text()
        assert "Last seen" not in before
        await made.raw.shutdown(nosave=True)
        await until(lambda: any(isinstance(fact, Trouble) for fact in made.facts))
        page = await (await http.get(made.url)).text()
        for part in ("Redis does not answer", "Last seen", "desk", "polling", "card stale", ">90<"):
            assert part in page, part
        for part in (
            "none configured",
            ">none<",
            "None yet",
            "no poller",
            "was slow",
            "All is well",
        ):
            assert part not in page, part
        status = json.loads(await (await http.get(f"{made.url}/api/status")).text())
        assert status["last_seen"] == "2026-11-24T04:00:00.000Z"
        assert not status["ready"]
        assert [each["name"] for each in status["endpoints"]] == ["desk"]


async def test_without_redis_from_the_start_all_is_unknown(tmp_path: Path) -> None:
    """Nothing was ever read: unknown is not none."""
    async with desk(tmp_path, HK) as made, aiohttp.ClientSession() as http:
        await made.raw.shutdown(nosave=True)
        await until(lambda: any(isinstance(fact, Trouble) for fact in made.facts))
        page = await (await http.get(made.url)).text()
        assert page.count(">unknown<") == 3
        for part in ("none configured", ">none<", "None yet", "no poller", "Nothing is watched"):
            assert part not in page, part


async def test_a_history_that_is_restored_is_shown_again(tmp_path: Path) -> None:
    """Deleted by another client and put back without an event: the row has its figure again."""
    async with desk(tmp_path, HK) as made:
        await made.publish(HK, 100, 120)
        await made.shows(HK, 120)
        overview, history = made.sources.overview, made.store.keys.history(HK)
        kept = await made.raw.hgetall(history)
        await made.raw.delete(history)
        await overview._read([HK])  # noqa: SLF001  as after an event
        assert overview.rows[HK].day is None
        await made.raw.hset(history, mapping=kept)
        await overview._adopt()  # noqa: SLF001  as at the next look
        assert overview.rows[HK].shares == 120
