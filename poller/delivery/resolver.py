"""Looks names up in threads of its own.

A look-up whose name servers are dead occupies its thread for 10 to 30 s. In asyncio's few shared
threads, a handful of such endpoints would delay connections to OpenD and Redis.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

_MOST: Final = 32
"""Look-ups at once; a further one waits, within its attempt's time."""

_THREADS: Final = ThreadPoolExecutor(_MOST, thread_name_prefix="webhook names")
_NUMERIC: Final = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


class Resolver(AbstractResolver):
    """The system's resolver, for deliveries."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name, at least one; raises OSError."""
        look_up = partial(
            socket.getaddrinfo,
            host,
            port,
            family=family,
            type=socket.SOCK_STREAM,
            flags=socket.AI_ADDRCONFIG,
        )
        found = await asyncio.get_running_loop().run_in_executor(_THREADS, look_up)
        return [
            ResolveResult(
                hostname=host,
                host=socket.getnameinfo(address, _NUMERIC)[0],  # keeps a link-local address's scope
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Do nothing: the threads are shared by all endpoints."""
