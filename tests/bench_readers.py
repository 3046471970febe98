"""A thousand readers of `/events`: `python -m tests.bench_readers`.

Memory of `poller web` as a process of its own, with and without them, and the time from an event's
append until a reader has it: for single events, and for the last of a burst of thirty.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

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


async def measure(service: Service, address: str, client: Any) -> list[str]:  # noqa: ANN401
    """Return the lines of the report."""
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    before = resident(service)
    connected = asyncio.Semaphore(0)
    readers = [Reader() for _ in range(READERS)]
    lines = []
    async with asyncio.TaskGroup() as work:
        tasks = [work.create_task(each.run(host, int(port), connected)) for each in readers]
        for _ in readers:
            await connected.acquire()
        single = []
        for _ in range(SINGLE):
            single += await everybody(readers, await append(client, 1))
            await asyncio.sleep(_APART)
        single.sort()
        burst = await everybody(readers, await append(client, BURST))
        after = resident(service)
        for task in tasks:
            task.cancel()
    lines.append(
        f"{READERS} readers: {after - before:.0f} MiB more ({before:.0f} MiB without), "
        f"{1024 * (after - before) / READERS:.0f} KiB each"
    )
    lines.append(f"one event: p50 {p(single, 0.5):.0f} ms, p99 {p(single, 0.99):.0f} ms")
    lines.append(f"a burst of {BURST}: p50 {p(burst, 0.5):.0f} ms, p99 {p(burst, 0.99):.0f} ms")
    return lines


async def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as text:
        async with Embedded(Path(text)).running() as url:
            await fill(url)
            service, address, _ = await started(Path(text))
            client: Any = Redis.from_url(url)
            try:
                lines = await measure(service, address, client)
            finally:
                await client.aclose()
                await service.stop()
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    asyncio.run(main())
