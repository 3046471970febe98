"""The page of 5,000 symbols with a year of reports each: `python -m tests.bench_web`.

Seconds until every history is read, of a page and of its refresh in Chromium, and the memory of
`poller web` as a process of its own, beside that of the same process with nothing to show.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
from redis.asyncio import Redis

from poller.markets.hk import HkRecord
from poller.model import Code, Vintage
from poller.store.embedded import Embedded
from poller.store.redis_status import RedisStatusStore
from poller.store.store import Keys
from tests.service import Service

SYMBOLS: Final = 5_000
WEEKS: Final = 52
_LOADS: Final = 30


async def fill(url: str) -> None:
    """Write the histories as a poller would have left them."""
    keys = Keys("short-interest")
    client: Any = Redis.from_url(url)
    codes = [Code(f"HK.{n:05}") for n in range(1, SYMBOLS + 1)]
    newest, seen = date(2026, 11, 13), datetime(2026, 11, 20, 9, tzinfo=UTC)
    for start in range(0, SYMBOLS, 500):
        pipe = client.pipeline(transaction=False)
        for number, code in enumerate(codes[start : start + 500], start):
            days = [newest - timedelta(weeks=n) for n in range(WEEKS)]
            rows = [HkRecord(0, str(d), number * 1000 + d.day, 0.5, 10.0, 9.0) for d in days]
            texts = {row.timestamp_str: Vintage(row, 0, seen).to_json() for row in rows}
            pipe.hset(keys.history(code), mapping=texts)
            pipe.hset(keys.watermark, code, str(newest))
        await pipe.execute()
    status_store = RedisStatusStore(url, "short-interest")
    await status_store.save_symbols(codes)
    await status_store.close()
    await client.aclose()


def resident(service: Service) -> float:
    """Return the memory of its process in MiB."""
    assert service.process is not None
    pages = int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def started(folder: Path) -> tuple[Service, str, float]:
    """Start `poller web`; returns it, its address, and the seconds until all was read."""
    service = Service(folder, 1, "HK.00001", role="web")
    (folder / "log").unlink(missing_ok=True)
    began = time.perf_counter()
    await service.start()
    await service.said("page")
    address = next(line["url"] for line in service.log() if line["event"] == "page")
    async with aiohttp.ClientSession() as http:
        while True:
            async with http.get(f"{address}api/status") as answer:
                if (await answer.json())["loaded"]:
                    return service, address, time.perf_counter() - began
            await asyncio.sleep(0.05)


async def loads(address: str) -> list[float]:
    """Return the seconds of some page loads, one after the other."""
    took = []
    async with aiohttp.ClientSession() as http:
        for path in ("", "?sort=-percent&page=7", "?q=07") * (_LOADS // 3):
            began = time.perf_counter()
            async with http.get(address + path) as answer:
                await answer.read()
            took.append(time.perf_counter() - began)
    return took


async def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as text:
        async with Embedded(Path(text)).running() as url:
            service, _, empty = await started(Path(text))
            before = resident(service)
            await service.stop()
            await fill(url)
            service, address, full = await started(Path(text))
            took = sorted(await loads(address))
            after = resident(service)
            await service.stop()
    sys.stdout.write(
        f"until all was read: {full:.1f} s ({empty:.1f} s with one symbol)\n"
        f"page of 100 rows: p50 {1000 * statistics.median(took):.0f} ms, "
        f"worst {1000 * took[-1]:.0f} ms\n"
        f"memory: {after:.0f} MiB ({before:.0f} MiB with one symbol)\n"
    )


if __name__ == "__main__":
    asyncio.run(main())
