"""Bytes that visitors send to the page: through the real parser, middleware and handlers.

A connection is a transport in memory under the page's own protocol, in virtual time: all that can
happen has happened when the clock jumps, and time limits cost nothing.
"""

import asyncio
import itertools
import random
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

from aiohttp import web
from pydantic import SecretStr

from poller.model import Code
from poller.settings.config import Config, Web
from poller.simulator.virtual import VirtualLoop
from poller.store.archive import Archived
from poller.store.notifier import never
from poller.store.store import Entry
from poller.telemetry.observe import Fact, Recovered
from poller.telemetry.status import GatewayState, Poll, Polls, ProcessReport
from poller.web.connections import Limits, PageConnections
from poller.web.feed import Feed
from poller.web.metrics import Metrics
from poller.web.overview import Overview
from poller.web.server import running
from poller.web.sources import Sources
from tests.fuzz.engine import NOW, Noise, Read, Target, bounded
from tests.fuzz.wire import Wire
from tests.golden import VERSIONS, written
from tests.memoryoutbox import MemoryOutbox
from tests.memorystore import MemoryStore

_TOKEN: Final = "correct-horse-battery"  # noqa: S105  of the tests
_MOST_ANSWER: Final = 512 * 1024
"""Bytes that one request of an input may bring, on the average."""

_HK, _US = Code("HK.00700"), Code("US.JXDH")
_STATUS: Final = re.compile(rb"HTTP/\d\.\d (\d\d\d) [^\r\n]*\r\n")
_LIMITS: Final = Limits(connections=8, header=2.0, body=1.0, idle=3.0, stall=2.0)
_SETTLED: Final = 0.2
"""Virtual seconds after which everything that was sent has been answered."""

_OVERDUE: Final = 8.0
"""Virtual seconds after which a connection that says nothing was closed, whatever it waited for."""


@dataclass
class _Unchanging:
    """A status store on which nothing changes."""

    store: MemoryStore

    async def reports(self) -> dict[str, ProcessReport]:
        gateway = GatewayState("127.0.0.1:11111", "main", True, "connected", NOW)  # noqa: FBT003
        return {"host-1": ProcessReport(NOW, "run", "0.1.0", 1, (gateway,), 2)}

    async def symbols(self) -> tuple[Code, ...]:
        return (_HK, _US)

    async def polls(self, codes: Sequence[Code]) -> dict[Code, Polls]:
        polls = Polls((Poll(NOW, "no newer day"),), NOW + timedelta(minutes=7), "the report is due")
        return dict.fromkeys(codes, polls)

    async def histories(self, codes: Sequence[Code]) -> list[Mapping[str, str]]:
        return [self.store.records.history_texts.get(code, {}) for code in codes]

    async def vintages(self, code: Code, names: Sequence[str]) -> list[str | None]:
        known = self.store.records.vintage_texts.get(code, {})
        return [known.get(name) for name in names]

    async def lease(self) -> str:
        return "1:host-1"

    async def simulated(self) -> bool:
        return False

    async def stream_length(self) -> int:
        return len(self.store.streams.entries)


class _Empty:
    """An archive in which no report is known."""

    async def codes(self) -> tuple[Code, ...]:
        return ()

    async def days(self, codes: Sequence[Code]) -> tuple[dict[Code, list[date]], list[str]]:
        return {code: [] for code in codes}, []

    async def histories(self, codes: Sequence[Code], _: datetime) -> AsyncIterator[Archived]:
        for code in codes:
            yield Archived(code, ())


def _store(clock: Callable[[], float]) -> MemoryStore:
    """Return a store that holds what a released version wrote."""
    keys = written(VERSIONS[-1])
    store = MemoryStore(clock)
    store.streams.entries = [Entry(id_, fields) for id_, fields in keys[store.keys.stream]["value"]]
    for code in (_HK, _US):
        store.records.history_texts[code] = keys[store.keys.history(code)]["value"]
        store.records.vintage_texts[code] = keys[store.keys.vintages(code)]["value"]
    return store


@dataclass
class Page:
    """The page twice: open on the loopback, and behind a token."""

    noise: Noise
    sock: socket.socket
    facts: list[Fact] = field(default_factory=list)
    doors: list[tuple[web.AppRunner, PageConnections]] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def open(self, folder: Path) -> None:
        """Set both up; the rows of the watchlist are read before the first visitor."""
        clock = asyncio.get_running_loop().time
        for token in (None, SecretStr(_TOKEN)):
            store = _store(clock)
            status_store = _Unchanging(store)
            overview = Overview(
                store.streams,
                store.records,
                cast("Any", status_store),
                store.instruments,
                (_HK,),
                never,
            )
            sources = Sources(
                Config(state_dir=folder, web=Web(token=token)),
                store.streams,
                store.records,
                cast("Any", _Empty()),
                store.ledger,
                cast("Any", status_store),
                store.instruments,
                cast("Any", MemoryOutbox(store, clock)),
                overview,
                Feed(store.streams, never),
                Metrics(NOW),
                self.facts.append,
                lambda: NOW,
            )
            connections = PageConnections(_LIMITS, self.facts.append)
            runner = await running(sources, connections)
            self.doors.append((runner, connections))
            work = (
                overview.run(self.facts.append),
                sources.feed.run(self.facts.append),
                connections.watch(),
            )
            self.tasks += [asyncio.create_task(each) for each in work]
            while not overview.loaded:
                await asyncio.sleep(0)
        self.facts.clear()

    async def close(self) -> None:
        """End everything."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for runner, _ in self.doors:
            await runner.cleanup()

    def protocol_of(self, door: int) -> asyncio.Protocol:
        """Return the protocol of a new connection; `door`: 0 is open, 1 behind a token."""
        runner, connections = self.doors[door]
        return connections.protocol_of(cast("web.Server", runner.server))

    async def visit(self, data: bytes) -> bytes:
        """Send the bytes of one connection; returns what came back once it is closed."""
        chance = random.Random(data)
        door = chance.random() < 0.3
        wire = Wire(self.sock, chance.choice(_ADDRESSES))
        wire.set_protocol(self.protocol_of(door))
        wire.stalls = chance.random() < 0.1
        wire.protocol.connection_made(wire)
        for piece in _pieces(chance, data):
            wire.receive(piece)
            if chance.random() < 0.5:
                await asyncio.sleep(chance.choice((0, _SETTLED / 10)))
        await asyncio.sleep(_SETTLED)
        match chance.randrange(12):
            case 0 | 1 | 2:
                wire.end()
            case 3:
                await asyncio.sleep(_OVERDUE)
                wire.read_on()
        if wire.is_open:
            wire.abort()
        await asyncio.sleep(_SETTLED)
        if left := len(self.doors[door][1]):
            self.noise.lines.append(f"{left} connections stayed open")
        return bytes(wire.sent)


_ADDRESSES: Final = (
    *(("127.0.0.1", port) for port in (40000, 40001)),
    *((f"192.0.2.{number}", 40000) for number in range(1, 255)),
    ("fe80::1%lo", 40000, 0, 0),
    ("2001:db8::1", 40000, 0, 0),
    None,
)


def _pieces(chance: random.Random, data: bytes) -> Iterator[bytes]:
    """Split bytes as a network may: as one, in a few pieces, or byte by byte."""
    if len(data) <= 300 and chance.random() < 0.05:
        yield from (data[place : place + 1] for place in range(len(data)))
        return
    cuts = sorted(chance.randint(0, len(data)) for _ in range(chance.choice((0, 0, 1, 3))))
    for start, end in itertools.pairwise((0, *cuts, len(data))):
        yield data[start:end]


@contextmanager
def _page(folder: Path) -> Iterator[Read]:
    """Open the page, and return what sends it the bytes of one connection."""
    noise = Noise()
    with socket.socket() as sock, asyncio.Runner(loop_factory=lambda: VirtualLoop(NOW)) as runner:
        page = Page(noise, sock)
        with noise.of(runner.get_loop()):
            runner.run(page.open(folder))
            try:
                yield lambda data: _judged(page, runner.run(page.visit(data)))
            finally:
                runner.run(page.close())


def _judged(page: Page, answer: bytes) -> None:
    """Raise for whatever nobody may meet: a trace, a defect, an answer of 5xx, one without end."""
    found = page.noise.take()
    found += [repr(fact) for fact in page.facts if not isinstance(fact, Recovered)]
    page.facts.clear()
    statuses = _STATUS.findall(answer)
    found += [f"status {status.decode()}" for status in statuses if status >= b"500"]
    if found:
        raise AssertionError("; ".join(found))
    bounded(answer, _MOST_ANSWER * max(1, len(statuses)))
    if answer and not statuses:
        raise AssertionError(f"no HTTP: {answer[:100]!r}")


def _request(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join((line, "Host: localhost", *headers, "", "")).encode("latin-1") + body


_FORM: Final = "Content-Type: application/x-www-form-urlencoded"
_BROWSER: Final = (
    "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8",
    "Accept-Language: zh-HK, en;q=0.5",
    "Accept-Encoding: gzip, deflate, br",
    "Cookie: poller-session=0123456789abcdef; other=%22x",
)


def requests() -> list[bytes]:
    """Return what visitors send who speak HTTP, some of them two requests at once."""
    form = b"token=" + _TOKEN.encode()
    paths = ("/", "/healthz", "/readyz", "/metrics", "/login", "/static/page.css", "/api")
    apis = ("openapi.json", "status", "symbols", f"symbols/{_HK}", f"symbols/{_US}/history.csv")
    found = [_request(f"GET {path} HTTP/1.1", *_BROWSER) for path in paths]
    found += [_request(f"GET /api/{path} HTTP/1.1", "Accept: application/json") for path in apis]
    found += [
        _request(f"GET /symbols/{_HK} HTTP/1.1", *_BROWSER),
        _request(f"HEAD /api/symbols/{_HK}/history.json HTTP/1.1"),
        _request("GET /?sort=-shares&market=HK&page=1&q=700 HTTP/1.1", *_BROWSER),
        _request("GET /api/symbols?sort=code&page=1&q=%E8%85%BE HTTP/1.1"),
        _request("GET /api/events?after=1-1&count=5 HTTP/1.1"),
        _request("GET /events?after=0 HTTP/1.1", "Accept: text/event-stream"),
        _request("GET /events HTTP/1.1", "Last-Event-ID: 1795857163468-0"),
        _request("GET /static/page.css HTTP/1.1", "Range: bytes=0-9", 'If-None-Match: "x"'),
        _request("GET / HTTP/1.1", f"Authorization: Bearer {_TOKEN}", "Connection: close"),
        _request("GET / HTTP/1.1", "Authorization: Bearer wrong", "If-Modified-Since: never"),
        _request("POST /login HTTP/1.1", _FORM, f"Content-Length: {len(form)}", body=form),
        _request(
            "POST /login HTTP/1.1", f"{_FORM}; charset=utf-8", "Content-Length: 7", body=b"token=x"
        ),
        _request("GET / HTTP/1.1", "Upgrade: websocket", "Connection: upgrade", body=b"xx"),
        _request("GET / HTTP/1.0", "Connection: keep-alive"),
        _request("OPTIONS * HTTP/1.1", "Expect: 100-continue"),
    ]
    chunks = b"6;x=y\r\ntoken=\r\n1\r\nx\r\n0\r\nTrailer: x\r\n\r\n"
    for kind in (
        _FORM,
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Type: text/plain",
    ):
        found.append(
            _request("POST /login HTTP/1.1", kind, "Transfer-Encoding: chunked", body=chunks)
        )
    part = b'--x\r\nContent-Disposition: form-data; name="token"\r\n\r\nx\r\n--x--\r\n'
    multipart = "Content-Type: multipart/form-data; boundary=x"
    found.append(
        _request("POST /login HTTP/1.1", multipart, f"Content-Length: {len(part)}", body=part)
    )
    found += [first + second for first, second in itertools.pairwise(found)]
    return found


_WORDS: Final = (
    *(
        b"\r\n\r\n",
        b"\r\n",
        b"\n",
        b"%",
        b"[",
        b"]",
        b"//",
        b"\xed\xa0\x80",
        b"\xff",
        b"%ff",
        b"%00",
    ),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Content-Length: -1\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    *(b"Content-Encoding: gzip\r\n", b"Expect: 100-continue\r\n", b"Expect: \xff\r\n"),
    *(b"; charset=utf-16", b"; charset=nonsense", b"boundary=", b"Host: evil.example\r\n"),
    *(b"Cookie: a=\xff; =; ;;poller-session\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    *(
        b"ffffffffffffffff\r\n",
        b"Connection: close\r\n",
        b"HTTP/9.9",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ),
    *(b"/symbols/", b"/api/", b"/events?after=", b"&count=", b"&sort=", b"text/html", b"X" * 8190),
)

_METHODS: Final = ("GET", "GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
_TARGETS: Final = (
    *(
        "/",
        "/login",
        "/api",
        "/api/status",
        "/metrics",
        "/events?after=0",
        "/none",
        "//",
        "/symbols/",
    ),
    *(f"/symbols/{_HK}", f"/api/symbols/{_US}", f"/api/symbols/{_HK}/history.csv", "/static/none"),
    *("/?sort=-shares&market=HK&page=1&q=700", "/api/symbols?sort=percent&page=2&q=x&market=US"),
    *("/api/events?after=1795857163468-0&count=5", "http://localhost/", "/api/openapi.json"),
)


def _parts() -> list[bytes]:
    """Return requests taken apart: a byte for the method, the target, headers, the body."""
    form = f"token={_TOKEN}"
    headers = [*_BROWSER, _FORM, "Authorization: Bearer x", "Last-Event-ID: 5-0", "Range: bytes=0-"]
    return [
        "\x00".join((chr(number), target, *headers[number % 4 :], form)).encode()
        for number, target in itertools.product(range(len(_METHODS)), _TARGETS)
    ]


def _assembled(data: bytes) -> bytes:
    """Return a request that the parser takes, of parts which may hold anything."""
    first, target, *headers, body = [*data.split(b"\x00"), b"/", b""][:40]
    method = _METHODS[first[0] % len(_METHODS)] if first else "GET"
    lines = [f"{method} {quote(target[:4000], safe='/?&=%+:#[]@!$,;') or '/'} HTTP/1.1"]
    for header in headers:
        name, _, value = header.partition(b":")
        name = _NO_NAME.sub(b"", name) or b"X"
        lines.append(f"{name.decode()}: {_NO_VALUE.sub(b'', value)[:4000].decode('latin-1')}")
    lines.append(f"Content-Length: {len(body)}")
    return _request(lines[0], *lines[1:], body=body)


_NO_NAME: Final = re.compile(rb"[^A-Za-z0-9-]")
_NO_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@contextmanager
def _requested(folder: Path) -> Iterator[Read]:
    with _page(folder) as read:
        yield lambda data: read(_assembled(data))


TARGETS: Final = (
    Target("HTTP bytes", requests, _page, words=_WORDS),
    Target("HTTP requests", _parts, _requested, words=_WORDS),
)
