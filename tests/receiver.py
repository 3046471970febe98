"""An endpoint's server on a real socket: it verifies with the reference library and misbehaves."""

import asyncio
import base64
import contextlib
import json
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from standardwebhooks import Webhook

from tests.machine import at_most

SECRET: Final = "whsec_" + base64.b64encode(b"a secret of some thirty-two bytes").decode()


@dataclass(frozen=True)
class Seen:
    """One POST whose signature was good."""

    id: str
    body: dict[str, Any]
    path: str = "/"

    @property
    def event(self) -> str:
        """The event's own id."""
        return str(self.body["data"]["id"])


def status(code: int, *headers: str, body: bytes = b"") -> bytes:
    """Return a whole answer."""
    lines = [f"HTTP/1.1 {code} -", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


OK: Final = status(200)
SILENCE: Final = b""
Answer = Callable[[Seen], bytes | asyncio.Event]


@dataclass
class RawReceiver:
    """Reads requests, signature or not, and answers bytes. `heads`, `bodies`: what it read.

    `answer`: from the number of the request on its connection, from 0, and its head, the bytes to
    send, and the seconds after which the connection is closed; None keeps it open, a negative
    number resets it at once.
    """

    answer: Callable[[int, bytes], tuple[bytes, float | None]]
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    port: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["RawReceiver"]:
        """Listen on a loopback port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in self.writers:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        loop, count = asyncio.get_running_loop(), 0
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *([0-9]+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                self.heads.append(head)
                self.bodies.append(body)
                answer, closes = self.answer(count, head)
                count += 1
                writer.write(answer)
                await writer.drain()
                if closes is not None:
                    loop.call_later(closes, _end, writer, closes < 0)


def _end(writer: asyncio.StreamWriter, reset: bool) -> None:  # noqa: FBT001  of call_later
    if writer.is_closing():
        return
    if reset:  # sent instead of FIN when nothing may linger
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()


@dataclass
class Receiver:
    """Records what it gets. `answer`: bytes to send; an event is waited for, then 200 is sent.

    An empty answer, or one that is cut short, closes the connection.
    """

    answer: Answer = lambda _: OK
    secrets: tuple[str, ...] = (SECRET,)
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    refused: list[Exception] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    connected: int = 0
    _serving: set["asyncio.Task[None]"] = field(default_factory=set)
    _grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self.port}/hook"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Receiver"]:
        """Listen on a loopback port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        # a cancelled task of a stream server is reported as a failure by Python 3.11
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._one(reader, writer):
                pass
            writer.close()
            return
        writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; True when the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(": ") for line in head[1:] if line)
        self.headers = {name.lower(): value for name, _, value in pairs}
        raw = await reader.readexactly(int(self.headers["content-length"]))
        body = self._verify(raw)
        seen = Seen(self.headers["webhook-id"], body, head[0].split()[1])
        self.seen.append(seen)
        async with self._grown:
            self._grown.notify_all()
        answer = self.answer(seen)
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            answer = OK
        writer.write(answer)
        await writer.drain()
        return answer == OK

    def _verify(self, raw: bytes) -> dict[str, Any]:
        """Read a body as any one of the secrets vouches for it."""
        problems: list[Exception] = []
        for secret in self.secrets:
            try:
                body: dict[str, Any] = Webhook(secret).verify(raw, self.headers)
            except Exception as problem:  # noqa: BLE001  whatever the library says is recorded
                problems.append(problem)
            else:
                return body
        self.refused += problems
        unverified: dict[str, Any] = json.loads(raw)
        return unverified

    async def until(self, count: int, patience: float = 30.0) -> None:
        """Wait until `count` different events were seen."""
        async with at_most(patience, f"{count} events at the receiver"), self._grown:
            await self._grown.wait_for(lambda: len({seen.id for seen in self.seen}) >= count)

    def orders(self) -> dict[str, list[str]]:
        """Return the events of each symbol in the order of their first arrival."""
        found: dict[str, list[str]] = {}
        for event in dict.fromkeys(seen.event for seen in self.seen):
            found.setdefault(event.partition(":")[0], []).append(event)
        return found

    def repeats(self) -> int:
        """Return how many POSTs were more than the first of their event."""
        return sum(Counter(seen.id for seen in self.seen).values()) - len(
            {seen.id for seen in self.seen}
        )
