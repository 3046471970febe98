"""What a service costs that has nothing to do: `python -m tests.bench_idle [symbols endpoints]`.

A service at an OpenD that has told everything it knows: new connections to Redis and commands a
minute, those inside scripts too, and what of a core the process takes. Without arguments both rows
of BENCHMARKS.md are measured.
"""

import asyncio
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from poller.model import Code
from poller.simulator import World
from poller.store.embedded import Embedded
from tests import benchmarks
from tests.opend import Simulator
from tests.receiver import SECRET, Receiver
from tests.service import PATIENCE, Service

ROWS: Final = ((20, 1), (5000, 50))
"""Symbols and endpoints."""

SECONDS: Final = 60
_AT_ONCE: Final = 10**6  # requests a second: what comes before the rest is not measured
_SETTLE: Final = 15  # until what a start brings is over
_OWN: Final = ("info", "config|resetstat")


def settings(receiver: Receiver, endpoints: int) -> dict[str, str]:
    """Return what makes a service wait: nothing is due for as long as it is measured."""
    hook = {"URL": receiver.url, "SECRET": SECRET, "EVENTS": "reported"}
    return {
        f"POLLER_WEBHOOKS__{n}__{key}": text
        for n in range(endpoints)
        for key, text in {"NAME": f"desk-{n}", **hook}.items()
    } | {
        "POLLER_BUDGET__REQUESTS": str(_AT_ONCE),
        "POLLER_SCHEDULE__DUE": "3600",
        "POLLER_SCHEDULE__IDLE": "3600",
        "POLLER_SCHEDULE__LATE": "3600",
    }


def processor(service: Service) -> float:
    """Return the seconds of a core that the process has taken."""
    assert service.process is not None
    fields = Path(f"/proc/{service.process.pid}/stat").read_text(encoding="utf-8").split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


async def calls(client: Any) -> Counter[str]:  # noqa: ANN401  redis-py types no answer
    """Return how often each command was called, and how many connections were made."""
    stats = await client.info("commandstats")
    found = Counter({name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()})
    for own in _OWN:
        found.pop(own, None)
    found["new connections"] = (await client.info("stats"))["total_connections_received"]
    return found


async def measured(
    symbols: int, endpoints: int, seconds: float = SECONDS, settle: float = _SETTLE
) -> tuple[Counter[str], float]:
    """Return what a minute of idleness costs: calls by command, and the share of a core."""
    codes = ",".join(f"HK.{n:05}" for n in range(1, symbols + 1))
    known = tuple(Code(code) for code in codes.split(","))
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Simulator(World(named=known), requests=_AT_ONCE, period=1.0) as opend,
            Receiver().running() as receiver,
        ):
            service = Service(Path(folder), opend.port, codes, settings(receiver, endpoints))
            await service.start()
            try:
                return await _watched(service, symbols, seconds, settle)
            finally:
                await service.stop()


async def _watched(
    service: Service, symbols: int, seconds: float, settle: float
) -> tuple[Counter[str], float]:
    await service.said("ready")
    async with (
        Embedded(service.state_dir).running() as url,
        Redis.from_url(url, decode_responses=True) as client,
    ):
        async with asyncio.timeout(PATIENCE + symbols):
            while await client.hlen("{short-interest}:watermark") < symbols:
                await asyncio.sleep(0.1)
        await asyncio.sleep(settle)
        before, core = await calls(client), processor(service)
        await asyncio.sleep(seconds)
        after = await calls(client)
        minute = 60 / seconds
        grown = Counter({name: round(n * minute) for name, n in (after - before).items()})
        return grown, (processor(service) - core) / seconds


async def main(rows: Sequence[tuple[int, int]]) -> None:
    """Measure, print by command, and write BENCHMARKS.md when all rows were measured."""
    text = (
        f"Nothing due for {SECONDS} s:\n\n"
        "| symbols | endpoints | new connections to Redis a minute | commands a minute | core |\n"
        "|---|---|---|---|---|\n"
    )
    for symbols, endpoints in rows:
        found, core = await measured(symbols, endpoints)
        for name, count in found.most_common():
            sys.stdout.write(f"{count:6} {name}\n")
        connections = found.pop("new connections", 0)
        row = f"| {symbols:,} | {endpoints} | {connections} | {found.total():,} | {core:.2%} |\n"
        sys.stdout.write(row)
        text += row
    if rows == ROWS:
        benchmarks.write("## Idle", text)


if __name__ == "__main__":
    asked = tuple(int(text) for text in sys.argv[1:3])
    asyncio.run(main([(asked[0], asked[1])] if len(asked) == 2 else ROWS))
