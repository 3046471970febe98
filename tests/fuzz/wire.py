"""A connection in memory, for what speaks to a transport: no socket carries its bytes."""

import asyncio
import socket
from typing import Any, Final, cast

_HIGH_WATER: Final = 64 * 1024


class Wire(asyncio.Transport):
    """A visitor's connection. Whoever reads it at the other end may stand still.

    It keeps asyncio's promises: `connection_lost` comes once, in a turn of its own; after `close`
    what is written still leaves, after `abort` nothing does; nothing is received while reading is
    paused; writing is paused while more than `_HIGH_WATER` bytes wait for a reader.
    """

    def __init__(self, sock: socket.socket, address: object) -> None:
        super().__init__({"socket": sock, "peername": address, "sockname": ("127.0.0.1", 8080)})
        self.sent = bytearray()
        self.is_open = True
        self.stalls = False
        self.protocol: asyncio.Protocol
        self._waiting: list[bytes] = []
        self._unread = 0
        self._is_paused = False
        self._is_full = False
        self._closing = False

    def receive(self, data: bytes) -> None:
        """Let bytes arrive, unless reading is paused: then later."""
        if self._is_paused:
            self._waiting.append(data)
        elif not self._closing:
            self.protocol.data_received(data)

    def end(self) -> None:
        """Let the visitor say that no more will come."""
        if not self._closing and not self._is_paused and not self.protocol.eof_received():
            self.close()

    def read_on(self) -> None:
        """Let the visitor take what was written."""
        self.stalls, self._unread = False, 0
        if self._is_full:
            self._is_full = False
            self.protocol.resume_writing()
        if self._closing:
            self._lose()

    def write(self, data: Any) -> None:  # noqa: ANN401  any kind of bytes
        """Take what is to be sent."""
        if self._closing and not self._unread:
            return
        self.sent += data
        if self.stalls:
            self._unread += len(data)
            if self._unread > _HIGH_WATER and not self._is_full:
                self._is_full = True
                self.protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:  # noqa: ANN401  as above
        """Take several parts of it."""
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        """Tell whether it was closed at this end."""
        return self._closing

    def close(self) -> None:
        """Close once everything written has left."""
        if not self._closing:
            self._closing = True
            if not self._unread:
                self._lose()

    def abort(self) -> None:
        """Close at once."""
        self._closing, self._unread = True, 0
        self._lose()

    def _lose(self) -> None:
        if self.is_open:
            self.is_open = False
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def pause_reading(self) -> None:
        """Keep what arrives back."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """Hand over what arrived, and go on."""
        self._is_paused = False
        asyncio.get_running_loop().call_soon(self._take_waiting)

    def _take_waiting(self) -> None:
        while self._waiting and not self._is_paused:
            self.receive(self._waiting.pop(0))

    def is_reading(self) -> bool:
        """Tell whether what arrives is handed over."""
        return not self._is_paused

    def get_write_buffer_size(self) -> int:
        """Return how much no reader has taken."""
        return self._unread

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Replace who is told."""
        self.protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who is told."""
        return self.protocol
