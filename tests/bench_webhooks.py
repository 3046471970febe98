"""Deliveries a second, against bare POSTs and against job queues; memory with 100,000 pending.

Part of `make bench`; alone: `python -m tests.bench_webhooks`. One receiver, one server for all.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from redis.asyncio import Redis

from poller.delivery.destinations.webhook import SignedPost, body_of
from poller.delivery.endpoint import Endpoint
from poller.delivery.outbox import QueueItem
from poller.delivery.queued import sort_key, text_of
from poller.delivery.redisoutbox import RedisOutbox
from poller.delivery.relay import Relay
from poller.delivery.retry import Outcome
from poller.delivery.selection import Selection
from poller.detect.compare import Known, compare
from poller.events import Message, encode
from poller.model import Code
from poller.store.notifier import Notifier
from poller.store.redisstore import RedisStore
from poller.store.store import Entry
from poller.telemetry.observe import Fact
from tests import benchmarks
from tests.feed import SEEN, message_of, row
from tests.receiver import SECRET
from tests.wire import Server

POSTS = int(os.environ.get("BENCH_POSTS", "10000"))
PENDING = int(os.environ.get("BENCH_PENDING", "100000"))
EVERYTHING = Selection(frozenset({"reported", "revised", "backfilled"}))


def entry(number: int) -> Entry:
    """Return an event of a symbol of its own."""
    code = Code(f"HK.{number:05}")
    found = compare(code, [row(1)], Known(), observed_at=SEEN, history=1)
    return Entry(f"{number + 1}-0", encode(found.events[0]))


def _flat(one: Entry) -> list[str]:
    return [text for pair in one.fields.items() for text in pair]


@dataclass
class Counting:
    """A sender that knows when it has sent everything."""

    post: SignedPost
    ended: list[float]
    whole: asyncio.Event
    expected: int

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Send, and count."""
        outcome = await self.post.send(messages)
        self.ended.append(time.perf_counter())
        if len(self.ended) == self.expected:
            self.whole.set()
        return outcome

    async def close(self) -> None:
        """See `Sender.close`."""
        await self.post.close()


def silent(_: Fact) -> None:
    """Tell nobody."""


async def ours(redis: str, url: str, at_once: int) -> float:
    """Return deliveries a second through outbox and relay, settled one by one."""
    store, outbox = RedisStore(redis, "bench"), RedisOutbox(redis, "bench")
    async with Redis.from_url(redis) as client:
        await client.flushall()
        await outbox.begin(["desk"])
        async with client.pipeline(transaction=False) as pipe:
            for number in range(POSTS):
                pipe.execute_command("XADD", "bench", "*", *_flat(entry(number)))
            await pipe.execute()
    endpoint = Endpoint("desk", url, (SECRET,), EVERYTHING, connections=at_once, rate=1e6)
    post = SignedPost(endpoint, now=lambda: datetime.now(UTC))
    sender = Counting(post, [], asyncio.Event(), POSTS)
    news = Notifier(store.streams, silent)
    relay = Relay(outbox, silent, news=news.news, sender=lambda _: sender, jitter=lambda: 0.0)
    relay.configure([endpoint])
    running = [asyncio.create_task(work) for work in (news.run(), relay.run())]
    await sender.whole.wait()
    for task in running:
        task.cancel()
    await asyncio.wait(running)
    assert (await outbox.status("desk")).waiting == 0
    await store.close()
    await outbox.close()
    return _rate(sender.ended)


def _body(number: int) -> bytes:
    return body_of(message_of(entry(number).fields)).encode()


async def bare(url: str, at_once: int) -> float:
    """Return POSTs a second of the same bodies in a bare aiohttp loop."""
    bodies = [_body(number) for number in range(POSTS)]
    ended: list[float] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def work() -> None:
            while bodies:
                async with session.post(url, data=bodies.pop()) as response:
                    await response.read()
                ended.append(time.perf_counter())

        await asyncio.gather(*(work() for _ in range(at_once)))
    return _rate(ended)


async def signed(url: str, at_once: int) -> float:
    """Return signed POSTs a second, made from entries at hand: all of ours but the outbox."""
    endpoint = Endpoint("desk", url, (SECRET,), EVERYTHING, connections=at_once, rate=1e6)
    post = SignedPost(endpoint, now=lambda: datetime.now(UTC))
    entries = [entry(number) for number in range(POSTS)]
    ended: list[float] = []

    async def work() -> None:
        while entries:
            one = entries.pop()
            await post.send([message_of(one.fields, one.id)])
            ended.append(time.perf_counter())

    await asyncio.gather(*(work() for _ in range(at_once)))
    await post.close()
    return _rate(ended)


def _rate(ended: Sequence[float]) -> float:
    return (len(ended) - 1) / (max(ended) - min(ended))


def jobs(python: Path, kind: str, socket: Path, url: str, at_once: int) -> float:
    """Return jobs a second of arq or saq."""
    script = Path(__file__).with_name("bench_jobs.py")
    command = [str(python), str(script), kind, str(socket), url, str(POSTS), str(at_once)]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=300)
    return float(done.stdout.split()[-1])


def with_queues(folder: Path) -> Path:
    """Return a Python that has arq and saq; they want another redis-py than the project."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-q", "aiohttp", "arq", "saq[redis]"]
    subprocess.run(install, check=True, capture_output=True)
    return python


async def pending(redis: str) -> float:
    """Return bytes of server memory a delivery waiting in the outbox costs."""
    outbox = RedisOutbox(redis, "bench")
    async with Redis.from_url(redis) as client:
        await client.flushall()
        await outbox.begin(["desk"])
        before = (await client.info("memory"))["used_memory"]
        for first in range(0, PENDING, 500):
            batch = [entry(number) for number in range(first, first + 500)]
            items = [QueueItem(sort_key(e.id), text_of(e), e.fields["code"]) for e in batch]
            await outbox.add("desk", items)
        after = (await client.info("memory"))["used_memory"]
        await client.flushall()
    await outbox.close()
    return float(after - before)


async def rows(folder: Path) -> str:
    """Measure everything and return the rows of the table."""
    server, python = (
        Server(folder, fsync="everysec"),
        await asyncio.to_thread(with_queues, folder / "venv"),
    )
    await server.start()
    redis, told = f"unix://{server.path}", benchmarks.HEAD
    command = [sys.executable, "-m", "tests.bench_receiver"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:  # noqa: ASYNC220
        try:
            assert receiver.stdout is not None
            url = f"http://127.0.0.1:{receiver.stdout.readline().strip()}/"
            for at_once in (1, 10, 100):
                turns = [
                    (
                        await ours(redis, url, at_once),
                        await signed(url, at_once),
                        await bare(url, at_once),
                    )
                    for _ in "123"
                ]
                mine, post, base = (statistics.median(each) for each in zip(*turns, strict=True))
                what = f"deliveries/s with {at_once} connections"
                told += benchmarks.row(f"{what} / bare aiohttp POSTs", mine, base, "≥ 0.6")
                told += benchmarks.row(
                    f"signed POSTs/s with {at_once} connections, no outbox / bare", post, base, ""
                )
                for kind in ("arq", "saq"):
                    other = await asyncio.to_thread(jobs, python, kind, server.path, url, at_once)
                    told += benchmarks.row(
                        f"{what} / the same as jobs of {kind}", mine, other, "≥ 2"
                    )
            told += f"| memory of {PENDING:,} pending deliveries, MiB | "
            told += f"{await pending(redis) / 2**20:.0f} | | | |\n"
        finally:  # leaving the block waits for it
            receiver.terminate()
    server.kill()
    return told


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        measured = asyncio.run(rows(Path(place)))
    sys.stdout.write(measured)
    benchmarks.write("## Delivery", f"{POSTS:,} POSTs to one receiver.\n\n{measured}")
