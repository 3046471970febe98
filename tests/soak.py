"""An hour of the real service with faults now and then: `make soak`, SOAK_MINUTES=60, SOAK_SEED=1.

`poller run` against the simulator, which reports a new day of every symbol again and again, with a
webhook whose receiver fails at times and a reader of `/`, `/metrics` and `/events`. Every few
seconds it is looked what the process holds of the system; at the end nothing may be lost or doubled
in the stream, at the receiver or for the reader, and the budget must have held. All the time a
second endpoint answers nonsense, one symbol is refused, and a neighbour leaves rubbish in Redis.
"""

import asyncio
import contextlib
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
from redis.asyncio import Redis
from redis.exceptions import RedisError

from poller.model import Code
from poller.simulator import World
from poller.store.embedded import Embedded
from tests.opend import Simulator
from tests.receiver import OK, SECRET, Receiver, Seen, status
from tests.service import Service, later, now, with_rows

MINUTES: Final = float(os.environ.get("SOAK_MINUTES", "60"))
SEED: Final = int(os.environ.get("SOAK_SEED", "1"))
SYMBOLS: Final = 30
REQUESTS, PERIOD = 30, 5.0
SAMPLE: Final = 5.0
RELEASE: Final = (20.0, 40.0)  # seconds from one release to the next
FAULT: Final = (15.0, 45.0)
FAILING: Final = 0.02  # of the deliveries
WARM_UP: Final = 0.2  # of the samples are left out of the slope: caches fill
BACK: Final = 10.0
"""Seconds from a kill of the server until everything answers as before, at the most."""

DRAIN: Final = 900.0
"""Seconds the rest may take at the end: a delivery that failed twice waits five minutes."""

SETTINGS: Final = {
    "POLLER_BUDGET__REQUESTS": str(REQUESTS),
    "POLLER_BUDGET__PERIOD": str(PERIOD),
    "POLLER_SCHEDULE__DUE": "2",
    "POLLER_SCHEDULE__IDLE": "2",
    "POLLER_SCHEDULE__LATE": "2",
    "POLLER_WATCHLIST__HISTORY": "5",
    "POLLER_WEBHOOKS__0__NAME": "desk",
    "POLLER_WEBHOOKS__0__SECRET": SECRET,
    "POLLER_WEBHOOKS__0__EVENTS": "reported,revised,backfilled",
    "POLLER_WEBHOOKS__1__NAME": "nonsense",
    "POLLER_WEBHOOKS__1__SECRET": SECRET,
}
REFUSED: Final = Code("HK.09999")
"""Watched, and unknown to OpenD."""

NEIGHBOUR: Final = 2.0
"""Seconds between two pieces of rubbish that the neighbour leaves in Redis."""

RUBBISH: Final = (
    "[" * 50_000,
    "NaN",
    "9e300",
    '{"at":"0001-01-01T00:00:00+14:00"}',
    "\x1b[31m",
    "",
)
NONSENSE: Final = (
    (
        b"HTTP/1.1 503 -\r\nRetry-After: Mon, 01 Jan 2026 00:00:00 -9999999999991999\r\n"
        b"Content-Length: 0\r\n\r\n"
    ),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/9.9 \xff\r\n\r\n",
    b"HTTP/1.1 308 -\r\nLocation: \x1b]0;title\x07\r\nContent-Length: 0\r\n\r\n",
    b"\x16\x03\x01",
    b"",
)
Sample = Mapping[str, float]


@dataclass
class Soak:
    """The parts, what is expected of them, and what was seen."""

    service: Service
    opend: Simulator
    receiver: Receiver
    codes: tuple[Code, ...]
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    truth: dict[Code, list[str]] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    samples: list[Sample] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    down: bool = False
    killed_at: float = -BACK
    address: str = ""

    def answer(self, delivery: Seen) -> bytes:
        """Answer a delivery: one in fifty fails, all do while the receiver is down."""
        if self.down or self.chance.random() < FAILING:
            return status(503)
        self.taken.add(delivery.event)
        return OK

    async def releases(self) -> None:
        """Report a new day of every symbol now and then, and in between revise a figure."""
        while True:
            await asyncio.sleep(self.chance.uniform(*RELEASE))
            for code in self.codes:
                self._show(code, days=1)
            await asyncio.sleep(self.chance.uniform(*RELEASE))
            code = self.chance.choice(self.codes)
            if self.truth[code][-1] in self.heard:  # what was never published is not revised
                self._show(code, days=0)

    def _show(self, code: Code, *, days: int) -> None:
        rows = self.opend.world.records(code, now())
        level = round(
            rows[0].shares or 1_000_000
        )  # a step a market can take; another would be held
        shares = level + self.chance.choice((-1, 1)) * self.chance.randint(1, level // 10)
        new = later(rows[0], days=days, aggregated_short=shares)
        self.opend.world = with_rows(self.opend.world, code, (new, *rows[1 - min(days, 1) :]))
        revision = 0 if days else int(self.truth[code][-1].rpartition(":")[2]) + 1
        self.truth[code].append(f"{code}:{new.timestamp_str}:{revision}")

    async def faults(self) -> None:
        """Let something go wrong now and then."""
        opend = ("kick", "cut", "garbage", "mute", "silent", "refuse", "too frequent")
        while True:
            await asyncio.sleep(self.chance.uniform(*FAULT))
            what = self.chance.choice((*opend, "server killed", "receiver down"))
            self.struck[what] += 1
            await self._strike(what)

    async def _strike(self, what: str) -> None:
        faults = self.opend.faults
        match what:
            case "kick":
                faults.kick()
            case "cut":
                faults.cut = self.chance.randrange(1, 200)
            case "garbage":
                faults.garbage_next = 1
            case "mute":
                faults.silence_next = 3
            case "silent":
                faults.silence = True
                await asyncio.sleep(8)
                faults.silence = False
            case "refuse":
                faults.refuse_login = "未登录"
                faults.kick()
                await asyncio.sleep(5)
                faults.refuse_login = None
            case "too frequent":
                faults.too_frequent_next = 1
            case "server killed":
                await self._kill_server()
            case _:
                self.down = True
                await asyncio.sleep(4)
                self.down = False

    async def neighbour(self) -> None:
        """Leave rubbish where it must stop one endpoint or one symbol at the most."""
        own = "{short-interest}:webhook:nonsense:"
        while True:
            await asyncio.sleep(NEIGHBOUR)
            text = self.chance.choice(RUBBISH)
            with contextlib.suppress(RedisError, OSError):  # it was killed just now
                async with Redis.from_url(Embedded(self.service.state_dir).url) as client:
                    data = {"data": text, "type": "short_interest.reported", "code": "HK.00005"}
                    await client.xadd("short-interest", data)  # type: ignore[arg-type]
                    part = self.chance.choice(("state", "deliveries", "attempts", "dead"))
                    name = self.chance.choice(("hold_until", "seen", "garbage"))
                    await client.hset(f"{own}{part}", name, text)
                    await client.hset("{short-interest}:polls", REFUSED, text)
                    await client.hset("{short-interest}:status", "somebody", text)
                    await client.hset(f"{{short-interest}}:history:{REFUSED}", "soon", text)

    async def nonsense(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a POST with what no HTTP server says."""
        with contextlib.suppress(OSError):
            await reader.read(4096)
            writer.write(self.chance.choice(NONSENSE))
            await writer.drain()
        writer.close()

    async def _kill_server(self) -> None:
        """Kill -9 the embedded server, which the service started."""
        async with Redis.from_url(Embedded(self.service.state_dir).url) as client:
            found: Any = await client.info("server")
        self.killed_at = time.monotonic()
        os.kill(found["process_id"], 9)

    async def read_pages(self) -> None:
        """Ask for page and metrics as a browser and Prometheus do; they answer whatever happens.

        While the server is away, with 503.
        """
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
            while True:
                for path in ("", "metrics", "healthz"):
                    async with http.get(self.address + path) as answer:
                        away = time.monotonic() - self.killed_at < BACK
                        told = {200, 503} if away and path != "healthz" else {200}
                        assert answer.status in told, f"/{path}: {answer.status}"
                        await answer.read()
                await asyncio.sleep(SAMPLE)

    async def listen(self) -> None:
        """Follow `/events` from the first one on; now and then leave and come back."""
        last = coming = "0"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:
            while True:
                end = time.monotonic() + self.chance.uniform(30, 90)
                async with http.get(
                    f"{self.address}events", headers={"Last-Event-ID": last}
                ) as answer:
                    assert answer.status == 200
                    with contextlib.suppress(TimeoutError):
                        async for name, text in _fields(answer, end):
                            if name == "id":
                                coming = text
                            elif name == "data":
                                last = coming
                                event = json.loads(text)
                                if "id" in event:
                                    self.heard.append(event["id"])

    async def sample(self) -> None:
        """Look again and again at what the process holds of the system."""
        while True:
            process = self.service.process
            assert process is not None
            assert process.returncode is None, "the service has ended"
            self.samples.append(held(process.pid))
            await asyncio.sleep(SAMPLE)

    async def settled(self) -> None:
        """Wait until everything expected has arrived everywhere, without faults."""
        wanted = {one for ids in self.truth.values() for one in ids}
        async with asyncio.timeout(DRAIN):
            while not (wanted <= set(self.heard) and wanted <= self.taken):
                await asyncio.sleep(1)


async def _fields(answer: aiohttp.ClientResponse, end: float) -> AsyncIterator[tuple[str, str]]:
    """Yield the fields of server-sent events until `end`; TimeoutError then."""
    while True:
        async with asyncio.timeout(end - time.monotonic()):
            line = await answer.content.readline()
        if not line:
            return
        name, _, text = line.decode().rstrip("\n").partition(": ")
        yield name, text


def held(pid: int) -> Sample:
    """Return what a process holds: memory, threads, sockets, all descriptors, seconds of work."""
    own = Path(f"/proc/{pid}")
    words = dict(line.split(":", 1) for line in (own / "status").read_text().splitlines())
    links = []
    for each in (own / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed since
            links.append(str(each.readlink()))
    times = (own / "stat").read_text().rpartition(")")[2].split()
    return {
        "RSS MiB": int(words["VmRSS"].split()[0]) / 1024,
        "threads": int(words["Threads"]),
        "sockets": sum(link.startswith("socket:") for link in links),
        "descriptors": len(links),
        "CPU s": (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK"),
    }


def table(samples: Sequence[Sample]) -> str:
    """Return first, median, last and most of every quantity, and its slope after the warm-up."""
    warm = samples[int(len(samples) * WARM_UP) :]
    hours = [n * SAMPLE / 3600 for n in range(len(warm))]
    lines = [f"{'':12}{'first':>9}{'median':>9}{'last':>9}{'most':>9}{'per hour':>10}"]
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        slope = statistics.linear_regression(hours, [sample[name] for sample in warm]).slope
        shown = (values[0], statistics.median(values), values[-1], max(values))
        lines.append(f"{name:12}" + "".join(f"{v:9.1f}" for v in shown) + f"{slope:+10.2f}")
    return "\n".join(lines) + "\n"


async def verify(soak: Soak) -> None:
    """Compare what stream, reader and receiver hold with the truth."""
    async with (
        Embedded(soak.service.state_dir).running() as url,
        Redis.from_url(url, decode_responses=True) as client,
    ):
        entries: Any = await client.xrange("short-interest")
    # the neighbour's are none of ours
    stream = [fields["id"] for _, fields in entries if "id" in fields]
    assert len(stream) == len(set(stream)), "an entry was doubled"
    for code, ids in soak.truth.items():
        assert [one for one in stream if one.startswith(f"{code}:")] == ids, code
        assert soak.receiver.orders()[code] == ids, f"{code} at the receiver"
    assert soak.heard == stream, "the reader of /events"
    assert not soak.receiver.refused
    assert soak.opend.most_in_window() <= REQUESTS
    seen = len(soak.receiver.seen)
    sys.stdout.write(
        f"{len(stream)} entries, none lost or doubled; {seen} POSTs, {soak.receiver.repeats()} "
        f"of them again; most requests in {PERIOD:g} s: {soak.opend.most_in_window()}; "
        f"{len(soak.opend.seen)} requests; {len(soak.service.log())} lines of log\n"
    )


async def run(folder: Path) -> None:
    """Play, then verify and print."""
    room = timedelta(days=round(MINUTES * 2) + 60)
    since = now().date() - 2 * room
    world = World(
        seed=SEED,
        made_up={"HK": SYMBOLS},
        tencent=False,
        without_rows=0.0,
        history=20,
        since=since,
        shift=room,
    )
    receiver = Receiver()
    async with Simulator(world, requests=REQUESTS, period=PERIOD) as opend, receiver.running():
        codes = world.codes()
        settings = {**SETTINGS, "POLLER_WEBHOOKS__0__URL": receiver.url}
        service = Service(folder, opend.port, ",".join((*codes, REFUSED)), settings)
        soak = Soak(service, opend, receiver, codes)
        odd = await asyncio.start_server(soak.nonsense, "127.0.0.1", 0)
        port = odd.sockets[0].getsockname()[1]
        settings["POLLER_WEBHOOKS__1__URL"] = f"http://127.0.0.1:{port}/"
        for code in codes:
            days = [row.timestamp_str for row in reversed(world.records(code, now())[:5])]
            soak.truth[code] = [f"{code}:{day}:0" for day in days]
        await soak.service.start()
        try:
            await soak.service.said("page")
            soak.address = next(e["url"] for e in soak.service.log() if e["event"] == "page")
            await _play(soak)
        finally:
            ended = await soak.service.stop()
            odd.close()
        assert ended == 0
        defects = [one["event"] for one in service.log() if "please report it" in one["event"]]
        assert defects == []
        await verify(soak)
    sys.stdout.write(f"faults: {dict(sorted(soak.struck.items()))}\n")


async def _play(soak: Soak) -> None:
    soak.receiver.answer = soak.answer
    async with asyncio.TaskGroup() as readers:
        always = [readers.create_task(w) for w in (soak.sample(), soak.listen(), soak.read_pages())]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60 * MINUTES), asyncio.TaskGroup() as work:
                work.create_task(soak.releases())
                work.create_task(soak.faults())
                work.create_task(soak.neighbour())
        soak.opend.faults.silence, soak.opend.faults.refuse_login = False, None
        soak.down = False
        sys.stdout.write(table(soak.samples))
        await soak.settled()
        for task in always:
            task.cancel()


def main() -> None:
    """Soak."""
    sys.stdout.write(f"seed {SEED}, {MINUTES:g} minutes; ")
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    sys.stdout.write(f"log in {folder}; it is kept when something is wrong\n")
    sys.stdout.flush()
    asyncio.run(run(folder))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
