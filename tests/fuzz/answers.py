"""What receivers may answer: bytes over a real connection, by the real client, to a verdict."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Final, cast

from poller.delivery.client import redirect_hint
from poller.delivery.destinations import Sender
from poller.delivery.destinations.bot import Bot
from poller.delivery.destinations.chat import Chat
from poller.delivery.destinations.feishu import code_of
from poller.delivery.destinations.webhook import SignedPost
from poller.delivery.endpoint import Endpoint
from poller.delivery.queued import Attempt, attempts_json, read_attempts
from poller.delivery.retry import LONGEST_HOLD, Delivered, Failed, Outcome, decide, retry_after
from poller.delivery.selection import Selection
from poller.events import Message, decode
from poller.model import Code
from tests.chats import DIALECTS
from tests.fuzz.engine import NOW, Noise, OverBounds, Read, Target, bounded, plain
from tests.golden import VERSIONS, written
from tests.receiver import SECRET, status

_PATH_TOKEN: Final = "7c1f0a9e5b3d4826"  # noqa: S105  of the tests
_MOST_REASON: Final = 400
"""Characters told of why an attempt failed: one line of the log."""

_PATIENCE: Final = 5.0


def _header(data: bytes) -> None:
    """Read a Retry-After, a Location and the code of a chat, as a client hands them over."""
    text = data.decode("utf-8", "surrogateescape")
    asked = retry_after(text, NOW)
    if asked is not None and not timedelta(0) <= asked <= LONGEST_HOLD:
        raise OverBounds(f"{asked} to wait")
    bounded(redirect_hint(text, lambda part: part), 200)
    code = code_of(data)
    assert code is None or abs(code) < 10**9


@dataclass
class _Receiver(asyncio.Protocol):
    """Reads a request and answers `answer`, in pieces, then hangs up."""

    answer: bytes = b""
    chance: random.Random = field(default_factory=random.Random)

    def __call__(self) -> asyncio.Protocol:
        """Return what speaks on one connection."""
        return _Speaking(self)


class _Speaking(asyncio.Protocol):
    def __init__(self, owner: _Receiver) -> None:
        self._owner = owner
        self._read = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, whole, body = self._read.partition(b"\r\n\r\n")
        _, _, length = head.lower().partition(b"content-length: ")
        if not whole or len(body) < int(length.split(b"\r\n")[0]):
            return
        answer, chance = self._owner.answer, self._owner.chance
        cut = chance.choice((len(answer), chance.randint(0, len(answer))))
        self._transport.write(answer[:cut])
        asyncio.get_running_loop().call_soon(self._say_the_rest, answer[cut:])

    def _say_the_rest(self, data: bytes) -> None:
        self._transport.write(data)
        if self._owner.chance.random() < 0.05:
            self._transport.abort()
        else:
            self._transport.close()


@dataclass
class _Delivery:
    """A receiver, and what sends to it."""

    noise: Noise
    receiver: _Receiver = field(default_factory=_Receiver)
    senders: list[Sender] = field(default_factory=list)

    async def open(self) -> asyncio.Server:
        """Listen, and make a sender of each kind."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self.receiver, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/{_PATH_TOKEN}"
        post = Endpoint("desk", url, (SECRET,), Selection())
        chat = Endpoint("chat", url, ("a secret",), Selection())
        bots = [Bot(each, chat, now=lambda: NOW, timeout=_PATIENCE) for each in DIALECTS]
        self.senders = [
            SignedPost(post, now=lambda: NOW, timeout=_PATIENCE),
            *(Chat(bot, chat, _nobody) for bot in bots),
        ]
        return server

    async def send(self, data: bytes) -> Outcome:
        """Deliver an event that is answered by these bytes."""
        chance = random.Random(data)
        self.receiver.answer, self.receiver.chance = data, chance
        return await chance.choice(self.senders).send([_EVENT])

    async def close(self, server: asyncio.Server) -> None:
        """Hang up."""
        for sender in self.senders:
            await sender.close()
        server.close()
        await server.wait_closed()


async def _nobody() -> dict[Code, date]:
    """Return nobody's watermarks."""
    return {}


def _event() -> Message:
    _, fields = written(VERSIONS[-1])["short-interest"]["value"][0]
    return cast("Message", decode("1-0", fields))


_EVENT: Final = _event()


@contextmanager
def _delivering(_: Path) -> Iterator[Read]:
    noise = Noise()
    with asyncio.Runner() as runner, noise.of(runner.get_loop()):
        delivery = _Delivery(noise)
        server = runner.run(delivery.open())
        try:
            yield lambda data: _judged(noise, runner.run(delivery.send(data)))
        finally:
            runner.run(delivery.close(server))


def _judged(noise: Noise, outcome: Outcome) -> None:
    """Decide what follows, and keep it; raise where more is told than may be."""
    if found := noise.take():
        raise AssertionError("; ".join(found))
    for attempt, failing in ((1, timedelta(0)), (11, timedelta(0)), (2, timedelta(days=6))):
        decide(outcome, attempt=attempt, failing=failing, jitter=1.0)
    match outcome:
        case Delivered(status=code):
            assert code is None or 200 <= code < 300
        case Failed():
            bounded(outcome.reason, _MOST_REASON)
            bounded(outcome.answer, 4096)
            told = f"{outcome.reason} {outcome.answer}"
            assert _PATH_TOKEN not in told
            assert SECRET not in told
            kept = attempts_json([Attempt.of(outcome, NOW)])
            assert len(read_attempts(kept)) == 1
            assert "\n" not in outcome.reason


def _answers() -> list[bytes]:
    soon = f"retry-after: {NOW:%a, %d %b %Y %H:%M:%S} GMT"
    codes = (
        b'{"code":0}',
        b'{"code":9499,"msg":"too fast"}',
        b'{"code":"19021"}',
        b'{"StatusCode":0}',
    )
    found = [status(200, body=body) for body in (b"", b"ok", *codes, b"x" * 5000)]
    found += [status(code, "retry-after: 120", body=b"later") for code in (408, 429, 500, 502, 503)]
    found += [status(code, soon) for code in (410, 401, 413, 504)]
    for where in ("https://example.org/there", "/there", "//x:y@example.org:99/", "?a=b"):
        found.append(status(308, f"location: {where}"))
    found += [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            b'5;a=b\r\n{"cod\r\n4\r\ne":0\r\n1\r\n}\r\n0\r\n\r\n'
        ),
        b"HTTP/1.0 500 -\r\n\r\n" + _PATH_TOKEN.encode() + b" " + SECRET.encode(),
        b"HTTP/1.1 200 OK\r\nset-cookie: a=b; path=/\r\ncontent-encoding: gzip\r\n\r\n\x1f\x8b\x08",
        f"HTTP/1.1 302 -\r\nlocation: http://h/{_PATH_TOKEN}\r\n\r\n".encode(),
    ]
    return found


_WORDS: Final = (
    *(
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 999 x\r\n",
        b"\r\n\r\n",
    ),
    *(
        b"retry-after: ",
        b"location: http://",
        b"content-length: 5\r\n",
        b"transfer-encoding: chunked\r\n",
    ),
    *(b"content-length: -1\r\n", b"connection: close\r\n", b"connection: keep-alive\r\n", b"\xff"),
    *(b'{"code":', b"0\r\n\r\n", _PATH_TOKEN.encode(), SECRET.encode(), b"%37c1f0a9e", b"X" * 8190),
    *(b"content-encoding: br\r\n", b"set-cookie: ", b"upgrade: websocket\r\n", b"ffffffff\r\n"),
)


def _headers() -> list[bytes]:
    return [
        *(b"120", b"Fri, 08 May 2026 09:15:00 GMT", b"08 May 2026 09:15:00 +0800", b"1e3"),
        *(b"Mon, 01 Jan 2026 00:00:00 -9999999999991999", b"https://x:y@example.org:99/a?b"),
        *(
            b"//example.org",
            b"/there",
            b'{"code":0}',
            b'{"code":"9499"}',
            b'{"code":19021,"msg":""}',
        ),
    ]


TARGETS: Final = (
    Target("header of an answer", _headers, plain(_header)),
    Target("answer of a receiver", _answers, _delivering, words=_WORDS),
)
