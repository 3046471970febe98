"""The quickest endpoint there can be, as a process: answers 200 to whatever it is sent."""

import asyncio
import sys

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Quick(asyncio.Protocol):
    """Counts the end of heads and reads bodies by their length."""

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end].lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(self._rest) < end + 4 + length:
                return
            self._rest = self._rest[end + 4 + length :]
            self._transport.write(_OK)


async def serve() -> None:
    """Listen on a loopback port, print it, and answer for ever."""
    server = await asyncio.get_running_loop().create_server(Quick, "127.0.0.1", 0, backlog=512)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
