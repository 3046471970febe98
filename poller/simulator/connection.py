"""One client of the simulator: packets in, planned replies out."""

import asyncio
import contextlib
from dataclasses import dataclass

from poller.simulator.wire import HEADER_SIZE, Header, Message, Session


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision on one request. `reply` None: none; `hold`: seconds."""

    reply: Message | None
    hold: float = 0.0

    def write(self, packet: bytes, writer: asyncio.StreamWriter) -> None:
        """Write the packet that holds the reply."""
        writer.write(packet)


@dataclass(slots=True)
class Connection:
    """One client's stream. `number` counts the simulator's connections from 1."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    session: Session
    logged_in: bool = False

    async def receive(self) -> tuple[Header, bytes]:
        """Read one packet; IncompleteReadError at the end of the stream, Garbled for noise."""
        header = Header.parse(await self.reader.readexactly(HEADER_SIZE))
        return header, self.session.open(header, await self.reader.readexactly(header.length))

    async def send(self, header: Header, plan: Plan) -> None:
        """Carry out the plan for the request that came with `header`."""
        if plan.reply is None:
            return
        await asyncio.sleep(plan.hold)
        body = plan.reply.SerializeToString()
        packet = self.session.seal(header.proto, header.serial, body)
        plan.write(packet, self.writer)
        if not self.writer.is_closing():
            await self.writer.drain()

    async def close(self) -> None:
        """Close the socket, after what is written has left unless nobody reads it."""
        if self.writer.transport.get_write_buffer_size():
            self.writer.transport.abort()
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
