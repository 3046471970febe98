"""`tail`, `history`, `release`, `export` as a user types them, on a real server."""

import asyncio
import csv
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from pyarrow import parquet
from redis.asyncio import Redis

import poller as library
from poller.cli.export import INSTALL, destination
from poller.detect.compare import compare
from poller.errors import BadCode
from poller.markets.hk import HONG_KONG, HkRecord
from poller.markets.us import UNITED_STATES, UsRecord
from poller.model import Code, Vintage, isoformat, market_of
from poller.schedule.notice import Completed, Detected
from poller.store.embedded import Embedded
from poller.store.plain import DESCRIBED
from poller.store.redisstore import RedisStore
from poller.store.store import ONE_OFF
from tests.feed import publish
from tests.machine import at_most
from tests.service import Service, poller, python

HK, SECOND, US = Code("HK.00700"), Code("HK.00005"), Code("US.AAPL")
FIRST_SEEN = datetime(2026, 5, 8, 9, tzinfo=UTC)
REVISED = FIRST_SEEN + timedelta(hours=3)
HK_COLUMNS, US_COLUMNS = (list(market_of(code).columns) for code in (HK, US))


def hk(day: str, shares: int, ratio: float, close: float) -> HkRecord:
    """Return a Hong Kong row."""
    return HkRecord(None, day, shares, ratio, close, 9.0)


async def tell(store: RedisStore, code: Code, rows: Sequence[Any], at: datetime) -> None:
    """Publish these rows of a symbol."""
    snapshot = await store.records.snapshot(code)
    found = compare(code, rows, snapshot.known, observed_at=at, history=len(rows))
    await store.records.commit(code, found, snapshot, ONE_OFF)


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """A server with two reports of Hong Kong, one figure revised, and two of the US."""
    async with Embedded(tmp_path).running() as url:
        store = RedisStore(url, "short-interest")
        old = hk("2026-04-24", 51_888_755, 0.56, 493.4)
        await tell(store, HK, [hk("2026-04-30", 51_480_638, 0.5, 467.8), old], FIRST_SEEN)
        await tell(store, HK, [hk("2026-04-30", 50_000_000, 0.5, 467.8), old], REVISED)
        rows = [hk("2026-04-30", 0, 0.0, 0.013), hk("2026-04-24", 8_000, 1.25, 0.5)]
        await tell(store, SECOND, rows, FIRST_SEEN)
        day, before = ("2026-04-30", "2026-04-15")
        us = [
            UsRecord(None, day, 2_500_000_000, 12.345, 1_000, 999.99, 715_000.0, 9.0),
            UsRecord(None, before, 1_000_000_000, 0.5, 1_000, 2.0, 600_000.0, 9.0),
        ]
        await tell(store, US, us, FIRST_SEEN)
        await publish(store, "US.MSFT", [1])
        await store.close()
        yield url


@pytest.fixture
def service(url: str, tmp_path: Path) -> Service:
    """The same, for the command line; it watches a symbol without any report, too."""
    del url
    return Service(tmp_path, 1, f"{HK},{SECOND},HK.00001,{US}")


def unfinished(folder: Path) -> list[Path]:
    """Return the exports that are not whole."""
    return list(folder.glob(".*.part"))


async def lines(service: Service, *arguments: str) -> list[str]:
    """Return what a command prints that succeeds."""
    code, out, err = await poller(service, *arguments)
    assert (code, err) == (0, "")
    return out.splitlines()


async def test_tail_begins_with_the_last_events(service: Service) -> None:
    """Ten, or as many as asked for; without following, the command ends."""
    whole = await lines(service, "tail", "--from", "0", "--no-follow", "--json")
    assert len(whole) == 8
    assert await lines(service, "tail", "--no-follow", "--json") == whole
    assert await lines(service, "tail", "-n", "3", "--no-follow", "--json") == whole[-3:]
    third = json.loads(whole[2])["stream_id"]
    assert await lines(service, "tail", "--from", third, "--no-follow", "--json") == whole[3:]
    assert await lines(service, "tail", "--count", "2", "--json") == whole[-2:]
    assert await lines(service, "tail", "--from", "0", "--count", "2", "--json") == whole[:2]
    none = "poller: the stream of releases has no entries\n"
    assert await poller(service, "tail", "--releases", "--no-follow") == (0, "", none)


async def test_tail_follows(service: Service, url: str) -> None:
    """After the last events come the new ones, until there were as many as asked for."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "poller", "tail", "-n", "1", "--count", "2", "--json"),
        env=service.environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with at_most(what="tail"):
        first = json.loads(await process.stdout.readline())
        assert first["code"] == "US.MSFT"
        store = RedisStore(url, "short-interest")
        await publish(store, "US.MSFT", [2])
        await store.close()
        assert json.loads(await process.stdout.readline())["trading_day"] == "2020-01-02"
        assert await process.wait() == 0


async def test_a_table_of_history(service: Service) -> None:
    """It fits 80 columns; decimals stand below each other; what is below the threshold is said."""
    header, *rows = await lines(service, "history", HK)
    names = ["day", "shares", "change", "change %", "ratio", "days to cover", "close"]
    assert [name.strip() for name in header.split("  ") if name.strip()] == names
    assert rows == [
        "2026-04-30  50,000,000  -1,888,755     -3.64   0.50              -  467.80",
        "2026-04-24  51,888,755           -         -   0.56              -  493.40",
    ]
    several = await lines(service, "history", SECOND, US)
    assert several[0] == SECOND
    assert several[2].split() == ["2026-04-30", "below", "threshold", "-", "-", "-", "-", "0.013"]
    assert several[5] == US
    assert several[7].split()[1:4] == ["2,500,000,000", "+1,500,000,000", "+150.00"]
    assert several[7].split()[4:] == ["12.345", "≥", "999.99", "715,000.00"]
    assert max(map(len, several)) <= 80


async def test_forms_of_history(service: Service) -> None:
    """All columns, named as in the SDK's DataFrame; with several codes, the code is first."""
    one = json.loads("\n".join(await lines(service, "history", US, "--format", "json")))
    assert list(one[0]) == [*US_COLUMNS, "revision", "observed_at", *DESCRIBED]
    found = list(csv.DictReader(await lines(service, "history", HK, US, "--format", "csv")))
    assert list(found[0])[:2] == ["code", "timestamp"]
    assert {*HK_COLUMNS, *US_COLUMNS} < {*found[0]}
    assert [(row["code"], row["timestamp_str"]) for row in found] == [
        (code, day)
        for code, days in ((HK, ("2026-04-30", "2026-04-24")), (US, ("2026-04-30", "2026-04-15")))
        for day in days
    ]
    assert (found[0]["shares_short"], found[2]["aggregated_short"]) == ("", "")
    wide, *_ = await lines(service, "history", HK, "--wide")
    assert {*wide.split()} == {*HK_COLUMNS, "revision", "observed_at", *DESCRIBED[1:]}


async def test_history_as_it_was_known(service: Service) -> None:
    """The vintage of that time counts; before the first nothing was known."""
    at = ("--as-known-at", "2026-05-08T18:00:00+08:00")
    told, _, newest, _ = await lines(service, "history", HK, *at)
    assert told == "As known at 2026-05-08 10:00:00 UTC:"
    assert "51,480,638" in newest
    rows = await lines(service, "export", "--format", "json", *at)
    assert json.loads(rows[2])["aggregated_short"] == 51_480_638
    code, out, err = await poller(service, "history", HK, US, "--as-known-at", "2026-05-08")
    assert (code, out) == (1, "")
    assert err.count("nothing was known of") == 2


async def test_what_was_reported_counts(url: str) -> None:
    """An edited entry of history does not; a day that stands there alone does."""
    redis: Any = Redis.from_url(url)
    key = f"{{short-interest}}:history:{HK}"
    await redis.hset(key, "2026-04-30", Vintage(hk("2026-04-30", 7, 1, 1), 1, REVISED).to_json())
    await redis.hset(key, "2026-04-17", Vintage(hk("2026-04-17", 8, 1, 1), 0, REVISED).to_json())
    await redis.aclose()
    frame = library.history(HK, url=url)
    assert list(frame["aggregated_short"]) == [8, 51_888_755, 50_000_000]


async def test_one_unreadable_day_hides_no_other(service: Service, url: str) -> None:
    """What another client left is named with its key and the cure; the rest is printed."""
    redis: Any = Redis.from_url(url)
    key = f"{{short-interest}}:history:{HK}"
    await redis.hset(key, "2026-05-08", "[" * 50_000)
    await redis.hset(
        key, "2026-05-15", Vintage(hk("2026-05-15", 2**64 - 1, 1, 1), 0, REVISED).to_json()
    )
    await redis.delete(f"{{short-interest}}:history:{SECOND}")
    await redis.set(f"{{short-interest}}:history:{SECOND}", "text")
    await redis.aclose()
    for arguments in (("history", HK, SECOND), ("export", "--format", "csv")):
        code, out, err = await poller(service, *arguments)
        assert code == 1
        assert "Traceback" not in err
        assert f"HDEL {key} 2026-05-08" in err
        assert "does not fit into 64 bits" in err
        assert f"DEL {{short-interest}}:history:{SECOND}" in err
        assert "2026-04-24" in out
    code, out, err = await poller(service, "release", "HK")
    assert code == 1
    assert out.startswith("HK, the report of 2026-04-30: 1 of 1 symbols show it")
    assert f"DEL {{short-interest}}:history:{SECOND}" in err


async def test_a_report(service: Service) -> None:
    """Who moved most, how many show it, and who is missing."""
    first, _, *rows = await lines(service, "release", "hk", "2026-04-30")
    assert first == "HK, the report of 2026-04-30: 2 of 2 symbols show it; by |change| in shares"
    assert [row.split()[:2] for row in rows[:2]] == [["1", HK], ["-", SECOND]]
    assert rows[2].startswith("not expected, without any of the three reports before: ")
    told = json.loads("\n".join(await lines(service, "release", "US", "--format", "json")))
    assert (told["trading_day"], told["found"], told["expected"]) == ("2026-04-30", 1, 1)
    (apple,) = told["symbols"]
    assert (apple["rank"], apple["code"], apple["percent"]) == (1, US, 150.0)
    found = csv.DictReader(await lines(service, "release", "HK", "--top", "1", "--format", "csv"))
    assert [row["code"] for row in found] == [HK]
    told = await poller(service, "release", "SH")
    assert told == (2, "", "poller: 'SH' is no market: write HK or US\n")


async def test_a_symbol_that_lacks_the_report_is_named(service: Service, url: str) -> None:
    """With the last day it shows; a day that nobody shows is refused with those near it."""
    store = RedisStore(url, "short-interest")
    await tell(store, HK, [hk("2026-05-08", 7, 0.5, 1.0)], REVISED)
    await store.close()
    out = await lines(service, "release", "HK")
    assert "HK, the report of 2026-05-08: 1 of 2" in out[0]
    assert f"missing: {SECOND} (last 2026-04-30)" in out
    code, _, err = await poller(service, "release", "HK", "2026-05-07")
    assert code == 1
    assert err.endswith("the nearest reports: 2026-04-24, 2026-04-30, 2026-05-08\n")


async def test_an_export_is_whole(service: Service, tmp_path: Path) -> None:
    """All symbols in one file, as CSV and as JSON lines, the same rows in both."""
    file = tmp_path / "all.csv"
    code, out, err = await poller(service, "export", "--format", "csv", "-o", str(file))
    assert (code, out) == (0, "")
    assert "7 rows of 4 symbols" in err
    found = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
    rows = [json.loads(line) for line in await lines(service, "export", "--format", "json")]
    assert len(found) == len(rows) == 7
    for text, row in zip(found, rows, strict=True):
        assert {name: value for name, value in text.items() if value} == {
            name: str(value) for name, value in row.items() if value is not None
        }
    assert list(rows[0]) == ["code", *HK_COLUMNS, "revision", "observed_at", *DESCRIBED]
    assert not unfinished(tmp_path)


async def test_an_export_that_fails_leaves_what_was_there(service: Service, tmp_path: Path) -> None:
    """Nothing takes the file's name but a whole export; a link stays one."""
    file, link = tmp_path / "kept.csv", tmp_path / "link.csv"
    file.write_text("kept", encoding="utf-8")
    link.symlink_to(file)
    code, _, err = await poller(service, "export", "US.NONE", "--format", "csv", "-o", str(link))
    assert code == 1
    assert "nothing is known of US.NONE" in err
    assert file.read_text(encoding="utf-8") == "kept"
    code, _, err = await poller(
        service, "export", US, "US.NONE", "--format", "csv", "-o", str(link)
    )
    assert code == 1
    assert "2 rows of 1 symbols" in err
    assert link.is_symlink()
    assert US in file.read_text(encoding="utf-8")
    assert not unfinished(tmp_path)


def test_an_export_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    """Whatever ends it before its end, the unfinished file goes."""
    stack = ExitStack()
    file = stack.enter_context(destination(tmp_path / "stopped.csv"))
    file.write(b"half")
    assert unfinished(tmp_path)
    with pytest.raises(asyncio.CancelledError), stack:
        raise asyncio.CancelledError
    assert not list(tmp_path.iterdir())


async def test_parquet_has_typed_columns(service: Service, tmp_path: Path) -> None:
    """Whole numbers, figures and times are such, and the rows are those of the other formats."""
    file = tmp_path / "all.parquet"
    code, out, _ = await poller(service, "export", "--format", "parquet", "-o", str(file))
    assert (code, out) == (0, "")
    table = parquet.read_table(file)
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["aggregated_short"] == kinds["revision"] == "int64"
    assert kinds["days_to_cover"] == "double"
    assert kinds["observed_at"] == "timestamp[ms, tz=UTC]"
    text = await lines(service, "export", "--format", "json")
    rows = [{n: v for n, v in row.items() if v is not None} for row in table.to_pylist()]
    for row in rows:
        row["observed_at"] = isoformat(row["observed_at"])
    wanted = [{n: v for n, v in json.loads(line).items() if v is not None} for line in text]
    assert rows == wanted


async def test_parquet_is_an_extra(service: Service, tmp_path: Path) -> None:
    """Where pyarrow is not installed, the line to type, and no file; CSV works as everywhere."""
    installed, without = Path(pd.__file__).parents[1], tmp_path / "packages"
    without.mkdir()
    for each in installed.iterdir():
        if not each.name.startswith("pyarrow"):
            (without / each.name).symlink_to(each)
    service.settings = {"PYTHONPATH": f"{without}{os.pathsep}{Path.cwd()}"}
    file = tmp_path / "all.parquet"
    export = ("-S", "-m", "poller", "export")  # -S: only PYTHONPATH says where packages are
    code, _, err = await python(service, *export, "--format", "parquet", "-o", str(file))
    assert (code, err) == (1, f"poller: --format parquet needs pyarrow: {INSTALL}\n")
    assert "short-interest-poller[parquet]" in INSTALL
    assert not file.exists()
    code, out, err = await python(service, *export, "--format", "csv")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 8


async def test_a_data_frame(url: str) -> None:
    """By code and day, oldest first, with the same types whatever is absent."""
    frame = library.history(url=url)
    assert frame.index.names == ["code", "day"]
    assert frame.index.is_monotonic_increasing
    assert len(frame) == 7
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == {
        "timestamp": "Int64",
        "timestamp_str": "object",
        "aggregated_short": "Int64",
        "aggregated_short_ratio": "float64",
        "close_price": "float64",
        "last_close_price": "float64",
        "shares_short": "Int64",
        "short_percent": "float64",
        "avg_daily_share_volume": "Int64",
        "days_to_cover": "float64",
        "revision": "Int64",
        "observed_at": "datetime64[ns, UTC]",
        "name": "object",
        "outstanding_percent": "float64",
        "change": "Int64",
        "change_percent": "float64",
        "days_to_cover_change": "float64",
        "zscore": "float64",
        "streak": "Int64",
        "split_factor": "float64",
        "flags": "object",
    }
    assert frame.loc[(US, "2026-04-30"), "shares_short"] == 2_500_000_000
    before = library.history([HK], url=url, as_known_at=FIRST_SEEN + timedelta(hours=1))
    assert before.loc[(HK, "2026-04-30"), "aggregated_short"] == 51_480_638
    assert list(library.history("US.NONE", url=url).columns) == [
        *US_COLUMNS,
        "revision",
        "observed_at",
        *DESCRIBED,
    ]
    with pytest.raises(BadCode):
        library.history(["HK.700"], url=url)


async def test_a_data_frame_of_nothing(url: str) -> None:
    """A namespace in which nothing is known yet, and an empty list of symbols."""
    nowhere = library.history(url=url, namespace="nobody")
    for frame in (nowhere, library.history([], url=url)):
        assert len(frame) == 0
        assert frame.index.names == ["code", "day"]
        assert str(frame.index.get_level_values("day").dtype) == "datetime64[ns]"
        assert str(frame["observed_at"].dtype) == "datetime64[ns, UTC]"


async def test_reports_as_a_data_frame(url: str) -> None:
    """One row a report, oldest first, with the same types whatever is absent."""
    store = RedisStore(url, "short-interest")
    early, late = date(2026, 4, 24), date(2026, 4, 30)
    for notice in (
        Detected(HONG_KONG, late, REVISED, Code(HK)),
        Detected(HONG_KONG, early, FIRST_SEEN, Code(HK)),
        Completed(HONG_KONG, early, REVISED, 2, (Code(SECOND),)),
        Completed(UNITED_STATES, late, REVISED, 1),
    ):
        await store.plans.announce(notice, ONE_OFF)
    await store.close()
    redis: Any = Redis.from_url(url)
    await redis.xadd("{short-interest}:releases", {"who": "knows"})
    await redis.aclose()
    frame = library.releases(url=url)
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == {
        "market": "object",
        "day": "datetime64[ns]",
        "detected_at": "datetime64[ns, UTC]",
        "completed_at": "datetime64[ns, UTC]",
        "found": "Int64",
        "expected": "Int64",
        "missing": "Int64",
    }
    assert frame.dtypes.equals(library.releases("US", url=url, namespace="empty").dtypes)
    assert [*zip(frame["market"], frame["day"].dt.date, strict=True)] == [
        ("HK", early),
        ("HK", late),
        ("US", late),
    ]
    first, open_, unseen = (row for _, row in frame.iterrows())
    assert (first["found"], first["expected"], first["missing"]) == (2, 3, 1)
    assert (first["detected_at"], first["completed_at"]) == (FIRST_SEEN, REVISED)
    assert pd.isna(open_["completed_at"])
    assert pd.isna(open_["found"])
    assert pd.isna(unseen["detected_at"])
    assert len(library.releases("HK", url=url)) == 2
    with pytest.raises(ValueError, match="write HK or US"):
        library.releases("hk", url=url)


async def test_an_export_is_the_data_frame(service: Service, url: str, tmp_path: Path) -> None:
    """Other programs read the same rows from each format, to the digit, as from Redis."""
    frame = library.history(url=url)
    files = {form: tmp_path / f"all.{form}" for form in ("csv", "json", "parquet")}
    for form, file in files.items():
        code, out, _ = await poller(service, "export", "--format", form, "-o", str(file))
        assert (code, out) == (0, "")
    read: dict[str, Callable[[Path], pd.DataFrame]] = {
        "csv": lambda file: pd.read_csv(file, parse_dates=["observed_at"]),
        "json": lambda file: pd.read_json(file, lines=True, dtype=False),
        "parquet": pd.read_parquet,
    }
    tables = {f"pandas: {form}": read[form](file) for form, file in files.items()}
    for form, file in files.items():
        tables[f"DuckDB: {form}"] = duckdb.execute("FROM query_table($1)", [str(file)]).df()
    assert len(tables) == 6
    for form, table in tables.items():
        table["timestamp_str"] = table["timestamp_str"].astype(str).str[:10]
        table["observed_at"] = pd.to_datetime(table["observed_at"], utc=True).dt.as_unit("ns")
        table["day"] = pd.to_datetime(table["timestamp_str"]).dt.as_unit("ns")
        for text in ("name", "flags"):
            table[text] = table[text].astype(object).where(table[text].notna(), None)
        rows = table.set_index(["code", "day"]).sort_index()
        for name, kind in frame.dtypes.items():
            pd.testing.assert_series_equal(
                rows[name].astype(kind), frame[name], check_index_type=False, obj=f"{form} {name}"
            )
