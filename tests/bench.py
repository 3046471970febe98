"""`make bench`: ratios against bare baselines in the same run, written to BENCHMARKS.md."""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from poller.detect.compare import Known, compare
from poller.events import encode
from poller.markets.hk import HkRecord
from poller.model import Code
from poller.simulator import World
from poller.simulator.wire import Proto
from poller.store.embedded import Embedded
from poller.store.redisstore import RedisStore
from poller.store.store import ONE_OFF
from tests import benchmarks
from tests.opend import Simulator
from tests.service import Service, store_of

SYMBOLS, ROWS, HOPS, REPEATS, POLLS, TURNS, STARTS = 200, 50, 1000, 5, 600, 3, 8
NOW = datetime(2026, 11, 20, tzinfo=UTC)


def rows() -> list[HkRecord]:
    """Return fifty weeks."""
    first = date(2025, 1, 3)
    days = [first + timedelta(days=7 * n) for n in range(ROWS)]
    return [HkRecord(None, str(day), 1000 + n, 0.5, 10.0, 9.0) for n, day in enumerate(days)]


async def commit_ratio(store: RedisStore, client: Any) -> tuple[float, float]:  # noqa: ANN401
    """Return rows a second committed, and pipelined bare XADD of the same bytes."""
    code = Code("HK.00001")
    plan = compare(code, rows(), Known(), observed_at=NOW, history=ROWS)
    entries = [encode(event) for event in plan.events]
    codes = [Code(f"HK.{n:05}") for n in range(SYMBOLS)]

    async def ours() -> None:
        for each in codes:
            snapshot = await store.records.snapshot(each)
            events = tuple(replace(event, code=each) for event in plan.events)
            await store.records.commit(each, replace(plan, events=events), snapshot, ONE_OFF)

    async def bare() -> None:
        for _ in codes:
            async with client.pipeline(transaction=False) as pipe:
                for entry in entries:
                    pipe.xadd("bare", entry)
                await pipe.execute()

    # in turns: a shared machine is not as quick now as it was a minute ago
    rates = [(await _rate(ours, client), await _rate(bare, client)) for _ in range(REPEATS)]
    mine, others = zip(*rates, strict=True)
    return statistics.median(mine), statistics.median(others)


async def _rate(work: Callable[[], Awaitable[None]], client: Any) -> float:  # noqa: ANN401
    await client.flushall()
    began = time.perf_counter()
    await work()
    return SYMBOLS * ROWS / (time.perf_counter() - began)


async def hops(store: RedisStore, client: Any) -> tuple[list[float], list[float]]:  # noqa: ANN401
    """Return milliseconds from commit, and from bare XADD, to a blocked reader."""
    await client.flushall()
    code, snapshot = Code("HK.00001"), await store.records.snapshot(Code("HK.00001"))
    ours, bare = [], []
    for n in range(HOPS):
        day = str(date(2013, 1, 1) + timedelta(days=n))
        record = replace(rows()[0], timestamp_str=day)
        found = compare(code, [record], snapshot.known, observed_at=NOW, history=1)
        commit = partial(store.records.commit, code, found, snapshot, ONE_OFF)
        ours.append(await _hop(client, store.keys.stream, commit))
        snapshot = await store.records.snapshot(code)
        fields = encode(found.events[0])
        bare.append(await _hop(client, "bare", partial(client.xadd, "bare", fields)))
    return ours, bare


async def _hop(client: Any, stream: str, send: Callable[[], Awaitable[Any]]) -> float:  # noqa: ANN401
    last = await client.xrevrange(stream, count=1)
    reader = asyncio.create_task(client.xread({stream: last[0][0] if last else "0"}, block=5000))
    await asyncio.sleep(0)
    while not (await client.info("clients"))["blocked_clients"]:
        pass
    began = time.perf_counter()
    sending = asyncio.ensure_future(send())
    await reader
    took = time.perf_counter() - began
    await sending
    return 1000 * took


def listing(folder: Path, symbols: int) -> tuple[World, Path]:
    """Return a world of so many symbols with twelve reports each, and a file that lists them."""
    world = World(made_up={"HK": symbols // 2, "US": symbols // 2}, without_rows=0.0, history=12)
    listed = folder / "list"
    listed.write_text("\n".join(world.codes()))
    return world, listed


def unhurried(folder: Path, port: int, listed: Path) -> Service:
    """Return a service that polls each listed symbol once, as fast as it can."""
    settings = {
        "POLLER_WATCHLIST__FILES": str(listed),
        "POLLER_WATCHLIST__HISTORY": "12",
        "POLLER_BUDGET__REQUESTS": "1000000",
        "POLLER_SCHEDULE__DUE": "3600",
        "POLLER_SCHEDULE__IDLE": "3600",
        "POLLER_SCHEDULE__LATE": "3600",
    }
    return Service(folder, port, "HK.00700", settings)


async def polls_per_second(latency: float) -> tuple[float, float]:
    """Return symbols a second, as OpenD sees them: the service, and the thirty-line script."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world, listed = listing(folder, POLLS)
        async with Simulator(world, requests=10**6, period=1.0) as opend:
            opend.faults.delay = latency
            service = unhurried(folder, opend.port, listed)
            async with Embedded(folder).running() as url:
                script = Path(__file__).with_name("thirty_lines.py")
                command = [sys.executable, str(script), str(opend.port), url, str(listed)]
                process = await asyncio.create_subprocess_exec(
                    *command, env=os.environ | {"HOME": name}, stdout=asyncio.subprocess.DEVNULL
                )
                if await process.wait():
                    raise RuntimeError("the thirty-line script failed")
                bare = _arrivals(opend)
                await service.start()
                async with store_of(service) as store:
                    while len(await store.records.watermarks()) < POLLS:
                        await asyncio.sleep(0.5)
                await service.stop()
                return _arrivals(opend), bare


async def polls(latency: float) -> tuple[float, float]:
    """Return the medians of some turns of `polls_per_second`."""
    turns = [await polls_per_second(latency) for _ in range(TURNS)]
    ours, bare = zip(*turns, strict=True)
    return statistics.median(ours), statistics.median(bare)


def _arrivals(opend: Simulator) -> float:
    """Return the rate at which requests for short interest came, and forget them."""
    at = [seen.at for seen in opend.seen if seen.proto == Proto.SHORT_INTEREST]
    opend.seen.clear()
    return (len(at) - 1) / (at[-1] - at[0])


async def start() -> float:
    """Return seconds from exec to the log's `ready`."""
    with tempfile.TemporaryDirectory() as name:
        world, listed = listing(Path(name), 100)
        async with Simulator(world, requests=10**6, period=1.0, remember=1) as opend:
            service = unhurried(Path(name), opend.port, listed)
            began = time.perf_counter()
            await service.start()
            await service.said("ready")
            took = time.perf_counter() - began
            await service.stop()
    return took


async def memory(symbols: int) -> float:
    """Return MiB of memory at the most, once each symbol was looked at."""
    with tempfile.TemporaryDirectory() as name:
        world, listed = listing(Path(name), symbols)
        async with Simulator(world, requests=10**6, period=1.0, remember=1) as opend:
            service = unhurried(Path(name), opend.port, listed)
            await service.start()
            async with store_of(service) as store:
                while len(await store.records.watermarks()) < symbols:
                    await asyncio.sleep(0.5)
            assert service.process is not None
            most = most_resident(service.process.pid)
            await service.stop()
    return most


def most_resident(pid: int) -> float:
    """Return the most resident memory a process had so far, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def p99(figures: list[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(figures, n=100)[98]


LOAD = """
import asyncio
from pathlib import Path
from poller.frozen import frozen_import
with frozen_import():
    from poller.cli import main, serving
from poller.gateway.sdk import Sdk
asyncio.run(Sdk(Path.home(), None).load())
"""
"""What `poller run` loads before it does anything."""


def loaded(code: str) -> tuple[float, float]:
    """Return seconds and MiB of a process that runs this code, and ends."""
    code += "\nimport os, resource"
    code += "\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True); os._exit(0)"
    with tempfile.TemporaryDirectory() as home:
        began = time.perf_counter()
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, env=os.environ | {"HOME": home}, capture_output=True, check=True
        )
        took = time.perf_counter() - began
    return took, int(done.stdout.split()[-1]) / 1024


@contextlib.contextmanager
def compiled() -> Iterator[None]:
    """Let programs keep their byte code, as an installation does: the first start is slower."""
    with tempfile.TemporaryDirectory() as name:
        before = dict(os.environ)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = name
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


async def measure() -> str:
    """Measure everything and return the table."""
    with tempfile.TemporaryDirectory() as folder:
        async with Embedded(Path(folder)).running() as url:
            store, client = RedisStore(url, "bench"), Redis.from_url(url, decode_responses=True)
            rate = await commit_ratio(store, client)
            hop, bare_hop = await hops(store, client)
            await store.close()
            await client.aclose()
    quick, distant = await polls(0.0), await polls(0.02)
    imports, starts = [], []
    with compiled():
        for _ in range(STARTS):
            imports.append(await asyncio.to_thread(loaded, "import futu"))
            starts.append(await start())
        base = tuple(statistics.median(figures) for figures in zip(*imports[1:], strict=True))
        ready = statistics.median(starts[1:])
        many = int(os.environ.get("BENCH_SYMBOLS", "10000"))
        await asyncio.to_thread(loaded, LOAD)
        _, code = await asyncio.to_thread(loaded, LOAD)
        small, large = await memory(100), await memory(many)
    p50 = statistics.median
    return (
        "Ratios against bare baselines in the same run (`make bench`); the absolute figures are of "
        f"one noisy machine.\n\n{benchmarks.HEAD}"
        + benchmarks.row("commit, rows/s / pipelined XADD", *rate, "≥ 0.5")
        + benchmarks.row(
            "commit → blocked reader, p50 ms / XADD → XREAD", p50(hop), p50(bare_hop), "≤ 2"
        )
        + benchmarks.row("the same, p99 ms", p99(hop), p99(bare_hop), "≤ 2")
        + benchmarks.row("symbols polled/s, OpenD answers at once / thirty lines", *quick, "")
        + benchmarks.row("the same, OpenD answers after 20 ms", *distant, "≥ 3")
        + benchmarks.row("start to ready, s / import futu", ready, base[0], "≤ 1.9")
        + benchmarks.row("memory of the loaded code alone, MiB / import futu", code, base[1], "")
        + benchmarks.row("most memory with 100 symbols, MiB / import futu", small, base[1], "")
        + benchmarks.row(
            f"most memory with {many:,} symbols, MiB / import futu", large, base[1], "≤ 1.6"
        )
    )


if __name__ == "__main__":
    measured = asyncio.run(measure())
    sys.stdout.write(measured)
    benchmarks.write("# Benchmarks", measured)
