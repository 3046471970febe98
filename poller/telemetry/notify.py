"""Notifies systemd as sd_notify(3) does: one datagram of `NAME=value` lines."""

import contextlib
import socket
import time


class Notify:
    """Sends to the service manager's socket. It never waits and never raises."""

    def __init__(self, address: str | None) -> None:
        """`address`: `NOTIFY_SOCKET`, a path, or `@` and an abstract name; None: send nothing."""
        self._address = address and (f"\0{address[1:]}" if address[0] == "@" else address)

    def __call__(self, **fields: str | int) -> None:
        """Send these fields in one datagram."""
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        with (
            contextlib.suppress(OSError),  # full or gone: the next one may arrive
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.sendto(text.encode(), socket.MSG_DONTWAIT, self._address)

    def reloading(self) -> None:
        """Notify that a reload begins; READY=1 ends it."""
        self(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
