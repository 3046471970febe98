"""One client's connection: reads packets, writes planned replies."""

import asyncio
import contextlib
from dataclasses import dataclass

from poller.simulator.wire import HEADER_SIZE, Header, Message, Session


@dataclass(frozen=True, slots=True)
class PlannedReply:
    """The reply to one request; None: no reply. `hold`: seconds before it is sent."""

    reply: Message | None
    hold: float = 0.0

    def write(self, packet: bytes, writer: asyncio.StreamWriter) -> None:
        """Write the packet of the reply."""
        writer.write(packet)


@dataclass(slots=True)
class ClientConnection:
    """One client's connection. `number`: counted from 1 in each simulator."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    session: Session
    logged_in: bool = False

    async def receive(self) -> tuple[Header, bytes]:
        """Read one packet; raises IncompleteReadError at the end, Garbled for anything else."""
        header = Header.parse(await self.reader.readexactly(HEADER_SIZE))
        return header, self.session.open(header, await self.reader.readexactly(header.length))

    async def send(self, header: Header, plan: PlannedReply) -> None:
        """Send the planned reply to the request with `header`."""
        if plan.reply is None:
            return
        await asyncio.sleep(plan.hold)
        body = plan.reply.SerializeToString()
        packet = self.session.seal(header.proto, header.serial, body)
        plan.write(packet, self.writer)
        if not self.writer.is_closing():
            await self.writer.drain()

    async def close(self) -> None:
        """Close the socket; unread output is discarded."""
        if self.writer.transport.get_write_buffer_size():
            self.writer.transport.abort()
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
