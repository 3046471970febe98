"""`poller.history` of 26,000 rows against a bare redis-py and pandas read of the same hashes.

`python -m tests.bench_history`: in-process, on an embedded server; writes BENCHMARKS.md. Beside it,
how long the reading of one report takes, which a notice of a complete report waits for.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pandas as pd
from redis import Redis

import poller
from poller.detect.compare import compare
from poller.markets.hk import HONG_KONG, HkRecord
from poller.model import Code
from poller.store.embedded import Embedded
from poller.store.redisstore import RedisStore
from poller.store.reports import read_report
from poller.store.store import ONE_OFF
from tests import benchmarks

SYMBOLS: Final = 500
WEEKS: Final = 52
RUNS: Final = 5

CODES: Final = tuple(Code(f"HK.{n:05}") for n in range(1, SYMBOLS + 1))
NEWEST: Final = date(2026, 11, 20)


async def fill(store: RedisStore) -> None:
    """Publish a year of each symbol."""
    for number, code in enumerate(CODES):
        rows = [
            HkRecord(None, str(NEWEST - timedelta(weeks=n)), 10**6 + n * 37 + number, 0.5, 10.0)
            for n in range(WEEKS)
        ]
        known = await store.records.snapshot(code)
        found = compare(code, rows, known.known, observed_at=datetime.now(UTC), history=WEEKS)
        await store.records.commit(code, found, known, ONE_OFF)


def bare(url: str) -> pd.DataFrame:
    """Read the histories as a user would without this package."""
    client: Any = Redis.from_url(url, decode_responses=True)
    with client.pipeline(transaction=False) as pipe:
        for code in CODES:
            pipe.hgetall(f"{{short-interest}}:history:{code}")
        answers = pipe.execute()
    client.close()
    rows = [
        {"code": code} | json.loads(text)
        for code, texts in zip(CODES, answers, strict=True)
        for text in texts.values()
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(day=pd.to_datetime(frame["timestamp_str"])).set_index(["code", "day"])


def seconds(read: Callable[[], pd.DataFrame]) -> float:
    """Return the median time of some runs."""
    found = []
    for _ in range(RUNS):
        began = time.perf_counter()
        assert len(read()) == SYMBOLS * WEEKS
        found.append(time.perf_counter() - began)
    return statistics.median(found)


async def main() -> None:
    """Measure, and write BENCHMARKS.md."""
    with tempfile.TemporaryDirectory() as folder:
        async with Embedded(Path(folder)).running() as url:
            store = RedisStore(url, "short-interest")
            await fill(store)
            began = time.perf_counter()
            await read_report(store.archive, HONG_KONG, NEWEST, watched=(), newest=None)
            report = time.perf_counter() - began
            await store.close()
            ours, plain = seconds(lambda: poller.history(url=url)), seconds(lambda: bare(url))
    what = f"`poller.history`, {SYMBOLS * WEEKS:,} rows, s / redis-py and pandas"
    text = benchmarks.HEAD + benchmarks.row(what, ours, plain, "2 s")
    text += f"\nOne report of {SYMBOLS} symbols is read in {report:.2f} s.\n"
    sys.stdout.write(text)
    benchmarks.write("## Reading", text)


if __name__ == "__main__":
    asyncio.run(main())
