"""What many endpoints cost: idle, and until one event has reached them all.

`python -m tests.bench_endpoints` writes its section of BENCHMARKS.md. Core: processor time of this
process, which delivers and does nothing else. Commands: of all clients and scripts, as the server
counts them.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis

from poller.clock import wall_clock
from poller.delivery.destinations.webhook import SignedPost
from poller.delivery.endpoint import Endpoint
from poller.delivery.redisoutbox import RedisOutbox
from poller.delivery.relay import Relay
from poller.delivery.retry import Outcome
from poller.delivery.selection import Selection
from poller.events import Message
from poller.store.notifier import Notifier
from poller.store.redisstore import RedisStore
from poller.telemetry.observe import Fact, Trouble
from tests import benchmarks
from tests.bench_webhooks import EVERYTHING
from tests.feed import publish
from tests.receiver import SECRET
from tests.wire import Server

IDLE = float(os.environ.get("BENCH_IDLE", "60"))
BACKFILL = int(os.environ.get("BENCH_BACKFILL", "5000"))
NOTHING = Selection(frozenset({"revised"}))


@dataclass
class Arrivals:
    """Which endpoints have had how many events."""

    counts: dict[str, int] = field(default_factory=dict)

    async def all(self, names: Sequence[str], number: int) -> None:
        """Wait until each of them has had so many."""
        while any(self.counts.get(name, 0) < number for name in names):
            await asyncio.sleep(0.01)


@dataclass
class Noting:
    """A sender that tells when an event has arrived."""

    name: str
    post: SignedPost
    arrivals: Arrivals

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Send, and tell."""
        outcome = await self.post.send(messages)
        self.arrivals.counts[self.name] = self.arrivals.counts.get(self.name, 0) + 1
        return outcome

    async def close(self) -> None:
        """See `Sender.close`."""
        await self.post.close()


async def measure(redis: str, url: str, number: int, selection: Selection) -> str:
    """Return the rows of a number of endpoints that select so."""
    store, outbox = RedisStore(redis, "bench"), RedisOutbox(redis, "bench")
    arrivals, troubles = Arrivals(), set[str]()

    def observe(fact: Fact) -> None:
        if isinstance(fact, Trouble):
            troubles.add(fact.reason)

    def sender(endpoint: Endpoint) -> Noting:
        return Noting(endpoint.name, SignedPost(endpoint, now=wall_clock), arrivals)

    names = [f"desk{n}" for n in range(number)]
    notifier = Notifier(store.streams, observe)
    relay = Relay(outbox, observe, news=notifier.news, sender=sender, jitter=lambda: 0.0)
    relay.configure([Endpoint(name, url, (SECRET,), selection) for name in names])
    told = ""
    async with Redis.from_url(redis) as client:
        await client.flushall()
        running = [asyncio.create_task(work) for work in (notifier.run(), relay.run())]
        await asyncio.sleep(5)
        began, cpu = await _commands(client), time.process_time()
        await asyncio.sleep(IDLE)
        core = 100 * (time.process_time() - cpu) / IDLE
        commands = (await _commands(client) - began) / IDLE
        told += f"{number} endpoints, idle: {core:.2f} % of a core, {commands:.1f} commands/s\n"
        if selection is EVERYTHING:
            for turn in range(1, 4):
                began_at = time.perf_counter()
                await publish(store, "HK.00700", [turn])
                await arrivals.all(names, turn)
                took = time.perf_counter() - began_at
                told += f"{number} endpoints: one event reaches all in {took:.2f} s\n"
        else:
            cpu, began = time.process_time(), await _commands(client)
            for symbol in range(BACKFILL // 50):
                await publish(store, f"HK.{symbol:05}", range(1, 51))
            await asyncio.sleep(5)
            core, commands = time.process_time() - cpu, await _commands(client) - began
            told += (
                f"{number} endpoints that select none of {BACKFILL:,} events: {core:.2f} s of "
                f"processor time with publishing them, {commands:,} commands\n"
            )
        for task in running:
            task.cancel()
        await asyncio.wait(running)
    await store.close()
    await outbox.close()
    return told + "".join(f"trouble: {reason}\n" for reason in sorted(troubles))


async def _commands(client: Redis) -> int:
    stats = await client.info("commandstats")
    return sum(each["calls"] for each in stats.values())


async def main(folder: Path) -> None:
    """Measure everything."""
    server = Server(folder, fsync="everysec")
    await server.start()
    command = [sys.executable, "-m", "tests.bench_receiver"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:  # noqa: ASYNC220
        try:
            assert receiver.stdout is not None
            url = f"http://127.0.0.1:{receiver.stdout.readline().strip()}/"
            lines = ""
            for number, selection in ((50, EVERYTHING), (50, NOTHING), (400, EVERYTHING)):
                told = await measure(f"unix://{server.path}", url, number, selection)
                lines += "".join(f"- {line}\n" for line in told.splitlines())
                sys.stdout.write(told)
                sys.stdout.flush()
            benchmarks.write("## Many endpoints", lines)
        finally:
            receiver.terminate()
    server.kill()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(main(Path(place)))
