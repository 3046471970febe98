"""From OpenD's answer to the webhook: 30 answers at once, ours against a bare script.

`python -m tests.bench_latency` prints one row for BENCHMARKS.md. The bare script asks through the
same SDK, appends to a stream and posts what it read, signed, with nothing kept in between.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import aiohttp
from redis.asyncio import Redis
from standardwebhooks import Webhook

from poller.clock import wall_clock
from poller.model import Code
from poller.simulator import World
from poller.store.embedded import Embedded
from tests import benchmarks
from tests.opend import Simulator
from tests.receiver import OK, SECRET, Receiver, Seen
from tests.service import PATIENCE, Service, later, now, store_of, with_rows

BURST: Final = 30
ROUNDS: Final = 6  # a day each: more would lie in the future, and be held
WORLD: Final = World(made_up={"HK": BURST}, named=(), without_rows=0.0, history=12)


class Arrivals:
    """When each symbol's POST arrived; the answer of a `Receiver`."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}

    def __call__(self, seen: Seen) -> bytes:
        """Take note, and accept."""
        self.at.setdefault(f"{seen.body['data']['code']}", time.monotonic())
        return OK


def with_a_new_day(world: World) -> World:
    """Return a world in which every symbol has one more report."""
    for code in world.codes():
        rows = world.records(code, now())
        world = with_rows(world, code, (later(rows[0], days=1), *rows))
    return world


def answered(opend: Simulator, codes: Sequence[Code], since: int) -> dict[str, float]:
    """Return when each symbol was first asked for after a request."""
    found: dict[str, float] = {}
    for seen in opend.seen[since:]:
        if seen.code in codes:
            found.setdefault(seen.code, seen.at)
    return found


async def burst(opend: Simulator, arrivals: Arrivals) -> list[float]:
    """Let all symbols report at once; return milliseconds from each answer to its POST."""
    arrivals.at.clear()
    # what is on its way shows the day before
    await asyncio.sleep(1.5)
    since = len(opend.seen)
    opend.world = with_a_new_day(opend.world)
    codes = opend.world.codes()
    async with asyncio.timeout(PATIENCE):
        while len(arrivals.at) < len(codes):
            await asyncio.sleep(0.01)
    asked = answered(opend, codes, since)
    return [1000 * (arrivals.at[code] - asked[code]) for code in codes]


async def ours() -> list[float]:
    """Measure the service."""
    arrivals, found = Arrivals(), list[float]()
    with tempfile.TemporaryDirectory() as name:
        async with (
            Simulator(WORLD, requests=10**6, period=1.0) as opend,
            Receiver(arrivals).running() as receiver,
        ):
            webhook = {"NAME": "desk", "URL": receiver.url, "SECRET": SECRET, "EVENTS": "reported"}
            settings = {f"POLLER_WEBHOOKS__0__{key}": text for key, text in webhook.items()}
            settings |= {"POLLER_BUDGET__REQUESTS": str(BURST + 5), "POLLER_BUDGET__PERIOD": "1"}
            service = Service(Path(name), opend.port, ",".join(WORLD.codes()), settings)
            await service.start()
            async with store_of(service) as store, asyncio.timeout(PATIENCE):
                while (
                    len(await store.records.watermarks()) < BURST
                ):  # else the new day is a first sight
                    await asyncio.sleep(0.1)
            for _ in range(ROUNDS):
                found += await burst(opend, arrivals)
            await service.stop()
    return found


async def bare() -> list[float]:
    """Measure the bare script, as a process of its own."""
    arrivals, found = Arrivals(), list[float]()
    with tempfile.TemporaryDirectory() as name:
        async with (
            Simulator(WORLD, requests=10**6, period=1.0) as opend,
            Receiver(arrivals).running() as receiver,
            Embedded(Path(name)).running() as url,
        ):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench_latency", "bare"),
                *(str(opend.port), url, receiver.url, name, *WORLD.codes()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdout.readline()
            for _ in range(ROUNDS):
                process.stdin.write(b"\n")
                found += await burst(opend, arrivals)
            process.stdin.close()
            await process.wait()
    return found


async def script(port: int, url: str, hook: str, home: str, codes: Sequence[str]) -> None:
    """Ask for all symbols at once whenever a line comes; append and post each answer."""
    import os  # noqa: PLC0415

    os.environ["HOME"] = home
    import futu  # noqa: PLC0415  it opens a log in HOME

    futu.SysConfig.set_all_thread_daemon(True)
    futu.SysConfig.enable_console_log(False)  # noqa: FBT003
    context = await asyncio.to_thread(futu.OpenQuoteContext, "127.0.0.1", port)
    client: Any = Redis.from_url(url)
    signer = Webhook(SECRET)

    async def one(session: aiohttp.ClientSession, code: str) -> None:
        _, _, frame = await asyncio.to_thread(context.get_short_interest, code)
        row = {name: str(value) for name, value in frame.iloc[0].items()}
        position = (await client.xadd("bare", row)).decode()
        data = f'{{"data":{{"id":"{position}","code":"{code}"}}}}'
        at = wall_clock()
        headers = {
            "webhook-id": position,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": signer.sign(position, at, data),
        }
        async with session.post(hook, data=data, headers=headers) as response:
            await response.read()

    async with aiohttp.ClientSession() as session:
        await client.ping()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while await asyncio.to_thread(sys.stdin.readline):
            await asyncio.sleep(2)  # until the world has changed
            await asyncio.gather(*(one(session, code) for code in codes))
    os._exit(0)


def _shown(latencies: Sequence[float]) -> tuple[float, float]:
    cuts = quantiles(latencies, n=100)
    return cuts[49], cuts[98]


async def main() -> None:
    """Measure both and print the rows."""
    (our50, our99), (bare50, bare99) = _shown(await ours()), _shown(await bare())
    what = "answer → webhook, 30 at once, ms"
    sys.stdout.write(benchmarks.HEAD)
    sys.stdout.write(benchmarks.row(f"{what}: p50", our50, bare50, "≤ 3"))
    sys.stdout.write(benchmarks.row(f"{what}: p99", our99, bare99, "≤ 3"))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["bare", port, url, hook, home, *codes]:
            asyncio.run(script(int(port), url, hook, home, codes))
        case _:
            asyncio.run(main())
