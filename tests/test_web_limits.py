"""What a connection to the page may take: how many there are, and for how long."""

import asyncio
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from redis import exceptions

from poller.errors import StoreDown
from poller.service.descriptors import MOST_DESCRIPTORS
from poller.simulator import World
from poller.store.translation import translated
from poller.telemetry.observe import Fact, Happened, Recovered, Trouble
from poller.web.connections import MOST_CONNECTIONS, Limits, PageConnections, limits_of
from poller.web.throttle import (
    FORGET_AFTER,
    FREE_TRIES,
    LONGEST_WAIT,
    MOST_ADDRESSES,
    WrongTokens,
    network_of,
)
from tests.desk import HK, Desk, desk
from tests.machine import at_most, scaled
from tests.service import PATIENCE, Service, simulator, until, whole

TOKEN = "correct-horse-battery"  # noqa: S105  of the tests
HALF = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-"
EVENTS = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = (
    b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\ntok"
)
FULL = "the most it takes"

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def peers(url: str) -> AsyncIterator["Opener"]:
    """Yield what opens connections; all of them are closed at the end."""
    opener = Opener(url)
    try:
        yield opener
    finally:
        for _, writer in opener.all:
            writer.close()


class Opener:
    """Opens connections and sends something on each."""

    def __init__(self, url: str) -> None:
        self.host, port = url.removeprefix("http://").rstrip("/").split(":")
        self.port = int(port)
        self.all: list[Peer] = []

    async def __call__(self, sent: bytes, count: int = 1) -> list[Peer]:
        """Open `count` of them, one after the other."""
        found = []
        for _ in range(count):
            peer = await asyncio.open_connection(self.host, self.port)
            self.all.append(peer)
            with contextlib.suppress(ConnectionError):
                peer[1].write(sent)
            found.append(peer)
        return found


async def rest(peer: Peer) -> bytes:
    """Return what still comes until the other side closes."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await peer[0].read()
        except ConnectionError:
            return b""


def alive(peer: Peer) -> bool:
    """Tell whether the other side has not closed it yet, as far as this one has heard."""
    return not peer[0].at_eof()


async def healthy(url: str) -> bool:
    """Ask over a connection of its own whether the loop turns."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.get(f"{url.rstrip('/')}/healthz") as answer,
    ):
        return answer.status == 200


def told(made: Desk) -> list[Fact]:
    """Return what was said of the limit."""
    return [
        fact
        for fact in made.facts
        if isinstance(fact, Trouble | Recovered) and fact.subject == "page connections"
    ]


async def test_who_waits_longest_makes_room(tmp_path: Path) -> None:
    """Unfinished and idle connections are closed, oldest first; events go on; it is reported once.

    A connection over which requests are answered counts from its last answer.
    """
    limits = Limits(8, quiet=scaled(0.5))
    async with desk(tmp_path, HK, limits=limits) as made, peers(made.url) as opened:
        (events,) = await opened(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await events[0].readuntil(b"retry: 2000\n")
        oldest, lively = await opened(HALF), await opened(WHOLE)
        await lively[0][0].readuntil(b"}")
        others = await opened(HALF, 5)
        lively[0][1].write(WHOLE)
        await lively[0][0].readuntil(b"}")
        assert await healthy(made.url)
        assert await rest(oldest[0]) == b""
        assert all(map(alive, [events, *lively, *others]))
        await opened(HALF, 300)
        assert await healthy(made.url)
        assert await rest(lively[0]) == b""
        await made.raw.xadd("short-interest", {"id": "after the flood"})
        async with asyncio.timeout(PATIENCE):
            await events[0].readuntil(b"after the flood")
        await until(lambda: len(told(made)) == 2)
        trouble, recovered = told(made)
        assert isinstance(trouble, Trouble)
        assert trouble.reason.startswith(f"8 connections, {FULL}")
        assert isinstance(recovered, Recovered)


async def test_events_leave_room(tmp_path: Path) -> None:
    """Readers of events take half of the connections; the next one is told to come back."""
    sent = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with desk(tmp_path, HK, limits=Limits(8)) as made, peers(made.url) as opened:
        for reader, _ in await opened(sent, 4):
            await reader.readuntil(b"retry: 2000\n")
        (one,) = await opened(sent)
        assert b"HTTP/1.1 503" in await one[0].readuntil(b"\r\n\r\n")
        assert await healthy(made.url)


async def test_readers_that_leave_make_room(tmp_path: Path) -> None:
    """At once, and not at the next write: all may come back together, after a proxy's restart."""
    async with desk(tmp_path, HK, limits=Limits(4)) as made, peers(made.url) as opened:
        feed = made.sources.feed
        for reader, writer in await opened(EVENTS, 2):
            assert b" 200 " in await reader.readline()
            await until(lambda: feed.waiting > 0)
            writer.close()
        closed = time.monotonic()
        await until(lambda: not feed.waiting)
        assert time.monotonic() - closed < 14  # the next write is after 15 s
        ((reader, _),) = await opened(EVENTS)
        assert b" 200 " in await reader.readline()


async def test_headers_must_come_in_time(tmp_path: Path) -> None:
    """However busily bytes trickle in, first request or not, the headers' time is counted once."""
    limits = Limits(header=scaled(0.4), idle=1e6)
    async with desk(tmp_path, HK, limits=limits) as made, peers(made.url) as opened:
        (slow,), (silent,) = await opened(HALF), await opened(b"")
        (second,) = await opened(WHOLE)
        await second[0].readuntil(b"}")
        second[1].write(HALF)

        async def trickle() -> None:
            while True:
                for peer in (slow, second):
                    peer[1].write(b"x")
                await asyncio.sleep(0.05)

        trickling = asyncio.create_task(trickle())
        try:
            assert [await rest(peer) for peer in (slow, silent, second)] == [b"", b"", b""]
        finally:
            trickling.cancel()
        assert await healthy(made.url)


async def test_a_body_must_come_in_time(tmp_path: Path) -> None:
    """Half a form is answered with 408; meanwhile it makes room like any unfinished request."""
    limits = Limits(4, body=scaled(0.3))
    async with desk(tmp_path, HK, token=TOKEN, limits=limits) as made, peers(made.url) as opened:
        (half,) = await opened(BODY)
        assert b"HTTP/1.1 408" in await rest(half)
    async with (
        desk(tmp_path, HK, token=TOKEN, limits=Limits(4)) as made,
        peers(made.url) as opened,
    ):
        halves = await opened(BODY, 40)
        assert await healthy(made.url)
        assert [await rest(peer) for peer in halves[:30]] == [b""] * 30


async def test_idle_connections_end(tmp_path: Path) -> None:
    """After an answer a connection is kept for a while, then closed; a reader of events stays."""
    limits = Limits(idle=scaled(0.3))
    async with desk(tmp_path, HK, limits=limits) as made, peers(made.url) as opened:
        (events,) = await opened(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await events[0].readuntil(b"retry: 2000\n")
        (idle,) = await opened(WHOLE)
        assert b"200 OK" in await rest(idle)
        assert alive(events)


async def test_an_answer_nobody_takes_ends() -> None:
    """A reader that stands still in the middle of an answer is cut off; one that reads is not."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=bytes(30_000_000))

    limits = Limits(stall=scaled(1), header=scaled(2), quiet=0.1)
    async with served(answer, limits) as (connections, url), peers(url) as opened:
        sent = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        (reading,), (standing,) = await opened(sent), await opened(sent)
        assert len(await rest(reading)) > 30_000_000
        standing[1].transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: not len(connections))


@contextlib.asynccontextmanager
async def served(
    answer: Callable[[web.Request], Awaitable[web.Response]], limits: Limits
) -> AsyncIterator[tuple[PageConnections, str]]:
    """Answer `/` under these limits while the block runs; yields the connections and the URL."""
    connections = PageConnections(limits, lambda _: None)
    app = web.Application(middlewares=[connections.answered])
    app.add_routes([web.get("/", answer)])
    async with contextlib.AsyncExitStack() as stack:
        runner = web.AppRunner(app, access_log=None)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        server = await asyncio.get_running_loop().create_server(
            lambda: connections.protocol_of(runner.server),  # type: ignore[arg-type]
            "127.0.0.1",
            0,
        )
        stack.callback(server.close)
        watching = asyncio.create_task(connections.watch())
        stack.callback(watching.cancel)
        yield connections, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [(-1, MOST_CONNECTIONS), (16_384, MOST_CONNECTIONS), (1024, 256), (128, 32), (40, 10), (1, 1)],
)
def test_the_page_takes_a_quarter(descriptors: int, connections: int) -> None:
    """Of what may be open the page takes a quarter, and stays clear of the last one."""
    limits = limits_of(descriptors)
    assert limits.connections == connections
    assert limits.at_once == 1 or 4 * limits.at_once <= connections
    if descriptors > 4:
        assert limits.ceiling == descriptors - descriptors // 4


async def test_descriptors_are_kept_for_the_work(tmp_path: Path) -> None:
    """Where others have most descriptors, connections make room long before their own limit."""
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    limits = replace(Limits(), ceiling=held[-1] + 20)
    try:
        async with desk(tmp_path, HK, limits=limits) as made, peers(made.url) as opened:
            await opened(HALF, 60)
            assert await healthy(made.url)
            assert isinstance(told(made)[0], Trouble)
    finally:
        for file in held:
            os.close(file)


def connect(url: str, count: int) -> None:
    """Connect so often, while the loop of this thread accepts nobody."""
    address = urlsplit(url)
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            place = address.hostname, address.port
            stack.enter_context(socket.create_connection(place, timeout=0.5))


async def test_who_comes_in_a_burst_stands_in_line(tmp_path: Path) -> None:
    """The loop accepts one at a time here: the system lets the others wait, and not try again."""
    async with desk(tmp_path, HK, limits=Limits(4)) as made:
        connect(made.url, 20)
        assert await healthy(made.url)


async def test_a_flood_without_a_token(tmp_path: Path) -> None:
    """A process with 128 descriptors works on under 600 connections, and logs one line.

    Half requests, silence, half bodies, and whole requests whose connection is kept.
    """
    settings = {"FILES": "128", "POLLER_WEB__TOKEN": TOKEN}
    async with simulator(World()) as opend:
        service = Service(tmp_path, opend.port, HK, settings, module="tests.lowered")
        await service.start()
        assert service.process is not None
        await service.said("page")
        (url,) = [line["url"] for line in service.log() if line["event"] == "page"]
        own = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
        assert own == (128, 128)
        async with peers(url) as opened:
            for sent in (HALF, b"", BODY, WHOLE):
                with contextlib.suppress(ConnectionError):
                    await opened(sent, 150)
                assert len(os.listdir(f"/proc/{service.process.pid}/fd")) <= 96  # noqa: PTH208
                assert await healthy(url)
            bearing = {"Authorization": f"Bearer {TOKEN}"}
            async with aiohttp.ClientSession(headers=bearing, raise_for_status=whole) as http:
                async with asyncio.timeout(PATIENCE):
                    while (await http.get(f"{url}readyz")).status != 200:
                        await asyncio.sleep(0.05)
                answered = await (await http.get(f"{url}api/symbols/{HK}")).json()
                assert len(answered["history"]) == 10
        assert service.told(FULL) == 1
        assert not [each for each in service.log() if each["level"] == "error"]
        assert await service.stop() == 0


def test_the_soft_limit_is_raised() -> None:
    """To the hard one, or to the bound; never lowered, and an error is not among the outcomes."""
    script = """
import json, resource, sys
from poller.service.descriptors import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, tuple(map(int, sys.argv[1:])))
print(json.dumps([raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    cases = [(64, 512), (512, 512)]
    if hard > MOST_DESCRIPTORS or hard == resource.RLIM_INFINITY:
        cases.append((1024, MOST_DESCRIPTORS + 1))
    for soft, most in cases:
        run = subprocess.run(
            [sys.executable, "-c", script, str(soft), str(most)], capture_output=True, check=True
        )
        wanted = min(most, MOST_DESCRIPTORS)
        assert json.loads(run.stdout) == [wanted, wanted, most]


def test_wrong_tokens_wait_longer_and_longer() -> None:
    """A few are free; then the wait doubles up to a minute, and an hour of peace forgets them."""
    clock = [0.0]
    wrong = WrongTokens(lambda: clock[0])
    waits = []
    for _ in range(FREE_TRIES + 10):
        wrong.wrong("192.0.2.1")
        waits.append(wrong.wait("192.0.2.1"))
        clock[0] += waits[-1]
        assert wrong.wait("192.0.2.1") == 0
    assert waits[: FREE_TRIES - 1] == [0] * (FREE_TRIES - 1)
    assert waits[FREE_TRIES - 1 :] == [1, 2, 4, 8, 16, 32, *[LONGEST_WAIT] * 5]
    clock[0] += FORGET_AFTER + 1
    wrong.wrong("192.0.2.1")
    assert wrong.wait("192.0.2.1") == 0
    wrong.right("192.0.2.1")
    assert len(wrong) == 0


def test_what_is_remembered_of_wrong_tokens_is_bounded() -> None:
    """However many addresses try: the one that was wrong longest ago is forgotten."""
    wrong = WrongTokens(lambda: 0.0)
    for n in range(MOST_ADDRESSES + 500):
        wrong.wrong(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert len(wrong) == MOST_ADDRESSES


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("nonsense", ""),
        (None, ""),
    ],
)
def test_an_address_stands_for_its_network(address: str | None, network: str) -> None:
    """IPv6 counts by the /64 of one subscriber, IPv4 in IPv6 as IPv4."""
    assert network_of(address) == network


async def refused_for(http: aiohttp.ClientSession, url: str) -> int:
    """Try a wrong token; returns for how many seconds no more is taken, 0 if it was taken."""
    answer = await http.post(f"{url}/login", data={"token": "wrong"})
    return 0 if answer.status == 401 else int(answer.headers["Retry-After"])


async def test_guessing_has_to_wait(tmp_path: Path) -> None:
    """Bearer and form share one count per address; the cookie and other addresses go on.

    The right token has to wait as well; the answer comes at once and says for how long.
    """

    def bearer(token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    elsewhere = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        desk(tmp_path, HK, token=TOKEN) as made,
        aiohttp.ClientSession(raise_for_status=whole) as http,
        aiohttp.ClientSession(connector=elsewhere, raise_for_status=whole) as other,
        aiohttp.ClientSession(cookie_jar=jar, raise_for_status=whole) as browser,
    ):
        url = made.url
        assert (await browser.post(f"{url}/login", data={"token": TOKEN})).status == 200
        for n in range(FREE_TRIES):
            if n % 2:
                answer = await http.post(f"{url}/login", data={"token": f"wrong {n}"})
            else:
                answer = await http.get(f"{url}/readyz", headers=bearer(f"wrong{n}"))
            assert answer.status == 401
        async with at_most():  # until it is refused for seconds, as the next requests take a while
            while (await refused_for(http, url)) <= 2:
                await asyncio.sleep(0.1)
        for _ in range(3):
            answer = await http.get(f"{url}/readyz", headers=bearer(TOKEN))
            assert answer.status == 429
            assert int(answer.headers["Retry-After"]) > 0
        answer = await http.post(f"{url}/login", data={"token": TOKEN})
        assert answer.status == 429
        assert "too many wrong tokens" in await answer.text()
        assert (await http.get(f"{url}/readyz")).status == 401
        assert (await browser.get(f"{url}/metrics")).status == 200
        assert (await other.get(f"{url}/metrics", headers=bearer(TOKEN))).status == 200
        async with asyncio.timeout(PATIENCE):
            while (await http.get(f"{url}/metrics", headers=bearer(TOKEN))).status != 200:
                await asyncio.sleep(0.1)
        answer = await http.get(f"{url}/metrics", headers=bearer("wrong"))
        assert answer.status == 401
        assert not [fact for fact in made.facts if isinstance(fact, Trouble)]
        assert [fact for fact in made.facts if isinstance(fact, Happened)]


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("max number of clients reached", "the server takes no more clients"),
        ("Error 24 connecting to x:1. Too many open files.", "too many files are open here"),
    ],
)
async def test_what_is_used_up_is_named(text: str, side: str) -> None:
    """The operator reads which side has no descriptor left, and the fix."""
    with pytest.raises(StoreDown, match=rf"{side}.*ulimit -n"), translated():
        raise exceptions.ConnectionError(text)
