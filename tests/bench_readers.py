"""A thousand readers of `/events`, and three thousand: `python -m tests.bench_readers`.

Memory of `poller web` as a process of its own, with and without a thousand of them, and the time
from an event's append until a reader has it: for single events, and for each of a burst of thirty.
The readers share one process and its core, so the times hold its work, too.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio import Redis

from poller.service.descriptors import raise_descriptor_limit
from poller.store.embedded import Embedded
from tests.bench_web import fill, resident, started
from tests.service import Service

READERS: Final = 1_000
SINGLE: Final = 40
BURST: Final = 30
_APART: Final = 0.25  # seconds between two single events
_QUIET: Final = 20.0  # seconds until a reader that got nothing counts as lost


@dataclass
class Reader:
    """A connection that follows the events.

    Attributes:
        got: When each event arrived, by its id.
    """

    got: dict[bytes, float] = field(default_factory=dict)

    async def run(self, host: str, port: int, connected: asyncio.Semaphore) -> None:
        """Follow the events until cancelled."""
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 16)
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"retry: 2000")
        connected.release()
        while line := await reader.readline():
            if line.startswith(b"id: "):
                self.got[line[4:].strip()] = time.perf_counter()


async def append(client: Any, count: int) -> dict[bytes, float]:  # noqa: ANN401
    """Append so many events at once; returns when each was, by its id."""
    pipe = client.pipeline(transaction=False)
    for number in range(count):
        pipe.xadd("short-interest", {"id": f"HK.{number:05}:2026-11-20:0", "data": "x" * 600})
    began = time.perf_counter()
    return dict.fromkeys(await pipe.execute(), began)


async def everybody(readers: Sequence[Reader], sent: dict[bytes, float]) -> list[float]:
    """Wait until every reader has these events; returns the seconds each took, sorted."""
    async with asyncio.timeout(_QUIET):
        while any(not sent.keys() <= reader.got.keys() for reader in readers):
            await asyncio.sleep(0.01)
    return sorted(reader.got[id_] - at for reader in readers for id_, at in sent.items())


def p(took: Sequence[float], part: float) -> float:
    """Return a percentile of sorted seconds, in milliseconds."""
    return 1000 * took[min(len(took) - 1, int(part * len(took)))]


@asynccontextmanager
async def following(addresses: Sequence[str]) -> AsyncIterator[list[Reader]]:
    """Connect `READERS` readers to each page while the block runs."""
    connected = asyncio.Semaphore(0)
    readers = [Reader() for _ in range(READERS * len(addresses))]
    async with asyncio.TaskGroup() as work:
        tasks = []
        for number, reader in enumerate(readers):
            place = urlsplit(addresses[number % len(addresses)])
            follow = reader.run(str(place.hostname), int(place.port or 80), connected)
            tasks.append(work.create_task(follow))
        for _ in readers:
            await connected.acquire()
        yield readers
        for task in tasks:
            task.cancel()


async def measure(service: Service, addresses: Sequence[str], client: Any) -> str:  # noqa: ANN401
    """Return a line of the report. `service`: the first of the pages."""
    before = resident(service)
    single: list[float] = []
    async with following(addresses) as readers:
        for _ in range(SINGLE):
            single += await everybody(readers, await append(client, 1))
            await asyncio.sleep(_APART)
        burst = await everybody(readers, await append(client, BURST))
        more = resident(service) - before
    single.sort()
    return (
        f"{len(readers):,} readers of {len(addresses)} pages: {more:.0f} MiB more a page, "
        f"{1024 * more / READERS:.0f} KiB a reader; one event: p50 {p(single, 0.5):.0f} ms, "
        f"p99 {p(single, 0.99):.0f} ms; a burst of {BURST}: p50 {p(burst, 0.5):.0f} ms, "
        f"p99 {p(burst, 0.99):.0f} ms\n"
    )


async def main() -> None:
    """Measure and print."""
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory() as text:
        async with Embedded(Path(text)).running() as url:
            await fill(url)
            client: Any = Redis.from_url(url)
            for pages in (1, 3):
                opened = [await started(Path(text)) for _ in range(pages)]
                try:
                    services, addresses, _ = zip(*opened, strict=True)
                    sys.stdout.write(await measure(services[0], addresses, client))
                finally:
                    for service, *_ in opened:
                        await service.stop()
            await client.aclose()


if __name__ == "__main__":
    asyncio.run(main())
