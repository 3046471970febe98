"""Visitors who speak no HTTP, or strange HTTP: an answer of 4xx or none, and no trace of it."""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from poller.telemetry.observe import Fact, HeartbeatBeat, Recovered
from poller.web.connections import Limits
from tests.desk import HK, Desk, desk
from tests.machine import at_most, scaled

TOKEN = "correct-horse-battery"  # noqa: S105  of the tests
SEED = 20261128
ROUNDS, TOGETHER = 500, 25
QUICK = Limits(header=scaled(0.2), body=scaled(0.2), idle=scaled(0.5))
"""So that what is never whole ends soon; nothing here takes so long on its way."""
FORM = "Content-Type: application/x-www-form-urlencoded"
MARK = "visitor-said-this"


@pytest.fixture
async def defects() -> AsyncIterator[list[dict[str, Any]]]:
    """What the event loop's handler receives of exceptions that nobody retrieved."""
    found: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: found.append(context))
    yield found
    loop.set_exception_handler(None)


async def exchanged(made: Desk, sent: bytes) -> bytes:
    """Send bytes on a connection of their own, and no more; returns all that comes of it."""
    host, port = made.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(sent)
        async with at_most(20):
            return await reader.read()
    except ConnectionError:  # cut off: the rest of it was not wanted
        return b""
    finally:
        writer.close()


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    """Return a request as bytes, a character a byte."""
    lines = [line, *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


LOCAL = "Host: localhost"
NONSENSE = {
    "garbage": random.Random(SEED).randbytes(512),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(40),
    "a long header": request("GET / HTTP/1.1", LOCAL, "X: " + "x" * 70_000),
    "many headers": request("GET / HTTP/1.1", LOCAL, *(f"X{n}: x" for n in range(5000))),
    "a long line": request("GET /" + "x" * 70_000 + " HTTP/1.1", LOCAL),
    "no chunk": request(
        "POST /login HTTP/1.1", LOCAL, "Transfer-Encoding: chunked", body=b"zz\r\n"
    ),
    "a long chunk": request(
        "POST /login HTTP/1.1", LOCAL, FORM, "Transfer-Encoding: chunked", body=b"F" * 40
    ),
    "two lengths": request("GET / HTTP/1.1", LOCAL, "Content-Length: 1", "Content-Length: 2"),
    "a negative length": request("GET / HTTP/1.1", LOCAL, "Content-Length: -1"),
    "both": request("GET / HTTP/1.1", LOCAL, "Content-Length: 1", "Transfer-Encoding: chunked"),
    "no host": request("GET / HTTP/1.1"),
    "two hosts": request("GET / HTTP/1.1", LOCAL, "Host: evil.example"),
    "a bracket as host": request("GET / HTTP/1.1", "Host: ["),
    "a host of bytes": request("GET / HTTP/1.1", "Host: \xff\xfe"),
    "a host with a bad port": request("GET / HTTP/1.1", "Host: localhost:99999999999"),
    "half an escape": request("GET /symbols/%E0%A4%A HTTP/1.1", LOCAL),
    "an escape that is no UTF-8": request("GET /symbols/%ff%fe HTTP/1.1", LOCAL),
    "an escaped zero": request("GET /symbols/%00 HTTP/1.1", LOCAL),
    "a zero in a file": request("GET /static/%00 HTTP/1.1", LOCAL),
    "a zero": request("GET /\x00 HTTP/1.1", LOCAL),
    "out of the directory": request("GET /static/..%2f..%2f..%2f..%2fetc%2fpasswd HTTP/1.1", LOCAL),
    "a long name of a file": request(f"GET /static/{'x' * 4000} HTTP/1.1", LOCAL),
    "another host's": request("GET http://evil.example/ HTTP/1.1", "Host: evil.example"),
    "a URI without a host": request("GET http:/// HTTP/1.1", LOCAL),
    "a URI with a bad port": request("GET http://localhost:x/ HTTP/1.1", LOCAL),
    "a URI with a huge port": request("GET http://localhost:9999999/ HTTP/1.1", LOCAL),
    "a URI with a bracket": request("GET http://[::1/ HTTP/1.1", LOCAL),
    "two slashes": request("GET //[ HTTP/1.1", LOCAL),
    "a tunnel": request("CONNECT localhost:22 HTTP/1.1", LOCAL),
    "a tunnel to nowhere": request("CONNECT [ HTTP/1.1", LOCAL),
    "a tunnel without a target": request("CONNECT ", LOCAL),
    "an expectation of bytes": request("GET / HTTP/1.1", LOCAL, "Expect: \xff"),
    "a star": request("OPTIONS * HTTP/1.1", LOCAL),
    "an unknown method": request("BREW / HTTP/1.1", LOCAL),
    "an expectation": request("GET / HTTP/1.1", LOCAL, "Expect: cake"),
    "a bad query": request("GET /?page=%ff&sort=%00&q=%ed%a0%80 HTTP/1.1", LOCAL),
    "a bad id": request("GET /events?after=%ed%a0%80 HTTP/1.1", LOCAL),
    "a bad cookie": request("BREW / HTTP/1.1", LOCAL, "Cookie: a=\xff; =; ;;poller-session"),
    "a bad type": request("POST /login HTTP/1.1", LOCAL, "Content-Type: ;;;=", "Content-Length: 0"),
    "a bad range": request("GET /static/none HTTP/1.1", LOCAL, "Range: bytes=9-1"),
    "a header of bytes": request("GET /none HTTP/1.1", LOCAL, "X: \x80\x00\x01"),
}


async def test_nonsense_is_refused_quietly(tmp_path: Path, defects: list[dict[str, Any]]) -> None:
    """A refusal (4xx) or no answer: never a 500, a line in the log or an exception of the loop's.

    Also behind a good request on the same connection, and the page answers others afterwards.
    """
    well = request("GET /healthz HTTP/1.1", LOCAL)
    async with desk(tmp_path, HK, limits=QUICK) as made:
        before = news(made)
        answers = await asyncio.gather(*(exchanged(made, sent) for sent in NONSENSE.values()))
        for name, answer in zip(NONSENSE, answers, strict=True):
            assert set(statuses(answer)) <= {"4"}, (name, answer[:300])
        first = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answers = await asyncio.gather(
            *(exchanged(made, first + sent) for sent in NONSENSE.values())
        )
        for name, answer in zip(NONSENSE, answers, strict=True):
            assert set(statuses(answer)) <= {"2", "4"}, (name, answer[:300])
        assert statuses(await exchanged(made, well)) == ["2"]
        assert news(made) == before
    assert defects == []


def news(made: Desk) -> list[Fact]:
    """Return the facts, except "recovered", which is not shown, and the beats of a sound loop."""
    return [fact for fact in made.facts if not isinstance(fact, Recovered | HeartbeatBeat)]


def statuses(answer: bytes) -> list[str]:
    """Return the first digits of all statuses in what came back."""
    return [each.decode() for each in re.findall(rb"HTTP/1\.[01] (\d)\d\d [A-Z]", answer)]


async def test_mutated_requests(tmp_path: Path, defects: list[dict[str, Any]]) -> None:
    """Requests with bytes replaced, inserted, doubled and cut: never a 5xx, nothing is logged."""
    chance = random.Random(SEED)
    seeds = [
        *NONSENSE.values(),
        request("GET /symbols/HK.00700 HTTP/1.1", LOCAL, "Accept: text/html"),
        request("GET /api/symbols?sort=-shares&page=1&q=x HTTP/1.1", LOCAL),
        request("GET /api/events?after=1-1&count=5 HTTP/1.1", LOCAL),
        request("GET /static/page.css HTTP/1.1", LOCAL, "Range: bytes=0-9", 'If-None-Match: "x"'),
        request("GET / HTTP/1.1", LOCAL, "Cookie: poller-session=x", "Authorization: Bearer x"),
        request("POST /login HTTP/1.1", LOCAL, FORM, "Content-Length: 7", body=b"token=x"),
        request("GET / HTTP/1.1", LOCAL, "Upgrade: websocket", "Connection: upgrade", body=b"xx"),
        request(
            "POST /login HTTP/1.1",
            LOCAL,
            "Content-Type: multipart/form-data; boundary=x",
            "Content-Length: 50",
            body=b"--x\r\nContent-Disposition: form-data; name=t\r\n\r\n--x--",
        ),
    ]
    async with desk(tmp_path, HK, limits=QUICK) as made:
        before = news(made)
        for _ in range(ROUNDS // TOGETHER):
            sent = [mutated(chance, chance.choice(seeds)) for _ in range(TOGETHER)]
            answers = await asyncio.gather(*(exchanged(made, each) for each in sent))
            for asked, answer in zip(sent, answers, strict=True):
                assert set(statuses(answer)) <= {"1", "2", "3", "4"}, (asked, answer[:500])
        well = request("GET /healthz HTTP/1.1", LOCAL)
        assert statuses(await exchanged(made, well)) == ["2"]
        assert news(made) == before
    assert defects == []


def mutated(chance: random.Random, text: bytes) -> bytes:
    """Return a text with one to six changes."""
    spice = [b"\x00", b"\xff", b"\r\n", b"\n", b" ", b"%", b"[", b"]", b":", b"//", b"\xed\xa0\x80"]
    found = bytearray(text[:4000])
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(found) + 1)
        match chance.randrange(5):
            case 0:
                found[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                found[place:place] = chance.choice(spice)
            case 2:
                found[place:place] = found[place : place + chance.randrange(40)]
            case 3:
                del found[place : place + chance.randrange(8)]
            case _:
                line_end = found.find(b"\r\n", place)
                found[place : max(place, line_end)] = chance.choice(spice) * chance.randint(1, 5)
    return bytes(found)


FORMS = {
    "unknown charset": (f"{FORM}; charset={MARK}", f"token={MARK}".encode()),
    "another charset": (f"{FORM}; charset=utf-16", f"token={MARK}".encode("utf-16")),
    "bytes": (FORM, b"token=\xff\xfe" + MARK.encode()),
    "an escape that is no UTF-8": (FORM, b"token=%ff%fe" + MARK.encode()),
    "many fields": (FORM, b"&".join([MARK.encode()] * 50)),
    "a huge form": (FORM, b"token=" + MARK.encode() * 1000),
    "no boundary": ("Content-Type: multipart/form-data", f"--x\r\n{MARK}".encode()),
    "a bad boundary": (f"Content-Type: multipart/form-data; boundary={MARK * 9}", b"--"),
    "a file": (
        "Content-Type: multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="token"; filename="'
        + MARK.encode()
        + b'"\r\n\r\nx\r\n--x--\r\n',
    ),
    "JSON": ("Content-Type: application/json", f'{{"token": "{MARK}"}}'.encode()),
    "no type": ("X-Type: none", f"token={MARK}".encode()),
}


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_a_form_that_is_none(tmp_path: Path, token: str | None) -> None:
    """It is refused as the asker's mistake; what was sent stands neither in page nor log."""
    async with desk(tmp_path, HK, token=token, limits=QUICK) as made:
        before = news(made)
        for (name, (kind, body)), accept in product(FORMS.items(), ("text/html", "*/*")):
            headers = [LOCAL, kind, f"Accept: {accept}", f"Content-Length: {len(body)}"]
            answer = await exchanged(made, request("POST /login HTTP/1.1", *headers, body=body))
            assert answer[9:12] in {b"400", b"413"}, (name, answer[:300])
            assert MARK.encode() not in answer, name
        assert news(made) == before
