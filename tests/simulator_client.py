"""A client of OpenD that speaks the bare protocol, for what the SDK hides."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from poller.simulator import Proto
from poller.simulator.wire import (
    HEADER_SIZE,
    Header,
    Message,
    Session,
    parse,
    request,
)
from tests.opend import Simulator


def plain_packet(proto: Proto, serial: int, message: Message) -> bytes:
    """Return the packet of an unencrypted message: what a client sends, or a test compares."""
    return Session(None).seal(proto, serial, message.SerializeToString())


@dataclass
class Client:
    """The least client there is: packets out, packets in."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    serials: Iterator[int] = field(default_factory=lambda: count(1))

    def send(self, proto: Proto, **fields: object) -> int:
        """Send a request whose fields are named as in the message; return its serial."""
        message = request(proto)
        for name, value in fields.items():
            setattr(message.c2s, name, value)
        return self.send_message(proto, message)

    def send_message(self, proto: Proto, message: Message) -> int:
        """Send a request as it is; return its serial."""
        serial = next(self.serials)
        self.writer.write(plain_packet(proto, serial, message))
        return serial

    def page(self, code: str, next_key: str = "", num: int | None = None) -> int:
        """Ask for short interest of a Hong Kong or US code."""
        message = request(Proto.SHORT_INTEREST)
        market, _, symbol = code.partition(".")
        message.c2s.security.market = {"HK": 1, "US": 11, "SH": 21}[market]
        message.c2s.security.code = symbol
        if next_key:
            message.c2s.nextKey = next_key
        if num is not None:
            message.c2s.num = num
        return self.send_message(Proto.SHORT_INTEREST, message)

    async def receive(self) -> tuple[int, Message]:
        """Return serial and message of the next reply."""
        header = Header.parse(await self.reader.readexactly(HEADER_SIZE))
        plain = Session(None).open(header, await self.reader.readexactly(header.length))
        return header.serial, parse(Proto(header.proto), plain, reply=True)

    async def login(self) -> Message:
        """Send InitConnect and return the reply."""
        self.send(Proto.INIT_CONNECT, clientVer=1011, clientID="test", packetEncAlgo=-1)
        _, reply = await self.receive()
        return reply

    async def gone(self) -> bool:
        """Tell whether the other end hung up without another byte."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def connected(simulator: Simulator, *, login: bool = True) -> AsyncIterator[Client]:
    """Connect, log in, and hang up at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
    client = Client(reader, writer)
    try:
        if login:
            assert (await client.login()).retType == 0
        yield client
    finally:
        writer.close()
