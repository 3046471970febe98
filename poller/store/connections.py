"""Makes all connections to Redis.

Short commands have a time limit and are repeated once after a lost connection: each of them is
idempotent, or refused when repeated. A blocking read has a connection of its own, which is kept for
the next one; its time limit is longer than the read, and it is repeated only when redirected.

All keys of a namespace share a hash slot, so one server takes the writes in any topology: a single
server, a Cluster's owner of the slot, or the primary named by the Sentinels. A connection goes to
that server, and to its successor after a redirection; transactions and scripts need nothing else.
"""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import ConstantBackoff, NoBackoff

from poller.store.location import Location, Node, locate
from poller.store.translation import UNHEARD, absence, translated

PROGRAM: Final = "poller"
"""How the names of this program's connections begin, in every version."""

PROCESS: Final = f"{PROGRAM}-{secrets.token_hex(4)}"
"""The name of this process's connections, where the URL gives no other."""

_CONNECT_LIMIT: Final = 2.0
_ANSWER_LIMIT: Final = 5.0
_NOWHERE: Final = "no server takes the writes now"


def named(url: str, name: str) -> str:
    """Return a URL whose connections have this name, unless it gives them one already."""
    return f"{url}{'&' if '?' in url else '?'}client_name={name}"


class Connections:
    """Makes clients for the Redis at a URL; typed Any, as redis-py's answers are."""

    def __init__(self, url: str) -> None:
        """Connect to nothing yet; raises ValueError for an invalid `url`.

        Its option `socket_timeout`: seconds an answer may take, on top of what a read blocks.
        """
        location = locate(url)
        self._settings: dict[str, Any] = {**parse_url(location.url)}
        self._answer_limit = float(self._settings.pop("socket_timeout", _ANSWER_LIMIT))
        if location.nodes:
            tls = self._settings.pop("connection_class", None) is SSLConnection
            self._settings["connection_class"] = _TlsConnection if tls else _TcpConnection
            self._settings["guide"] = (
                _Sentinels(location, self._settings) if location.primary else _Nodes(location.nodes)
            )

    def brief(self, *, exact: bool = False) -> Any:  # noqa: ANN401
        """Return a client for short commands; calls wait for a free connection.

        Bytes that are not UTF-8 are read as U+FFFD; with `exact`, as lone surrogates, which are
        written back as the same bytes, so that texts can be compared with what is stored.
        """
        return self._client(16, self._answer_limit, Retry(ConstantBackoff(0.1), 1), exact=exact)

    def blocking(self) -> "Blocking":
        """Return a pool of connections for blocking reads."""
        if_moved = Retry(ConstantBackoff(0), 1, supported_errors=(_Moved,))
        return Blocking(lambda: self._client(1, None, if_moved), self._answer_limit)

    def _client(
        self, connections: int, limit: float | None, retry: Retry, *, exact: bool = False
    ) -> Any:  # noqa: ANN401
        settings: dict[str, Any] = {
            "max_connections": connections,
            "timeout": 5,
            "socket_timeout": limit,
            "socket_connect_timeout": _CONNECT_LIMIT,
            "retry": retry,
            # no PING before a command: a command on a dead connection is repeated anyway
            "health_check_interval": 0,
            "decode_responses": True,
            "encoding_errors": "surrogateescape" if exact else "replace",
            "client_name": PROCESS,
            "driver_info": None,  # else each connection reads the package's metadata from disk
        }
        return Redis.from_pool(BlockingConnectionPool(**(settings | self._settings)))


class Blocking:
    """Lends a connection to each blocking read, and keeps it for the next one."""

    def __init__(self, make: Callable[[], Any], answer_limit: float) -> None:
        """`make`: returns a client of one connection, without a time limit.

        `answer_limit`: seconds an answer may take, on top of what a read blocks.
        """
        self._make = make
        self._answer_limit = answer_limit
        self._idle: list[Any] = []
        self._closed = False

    @asynccontextmanager
    async def reading(self, wait: float) -> AsyncIterator[Any]:
        """Yield a client for one read that blocks up to `wait` seconds; translates its errors.

        The time limit is set here, because redis-py's own may lose a cancellation until the read
        ends. A failed read may leave its answer in the connection, which is therefore closed.
        """
        client = self._idle.pop() if self._idle else self._make()
        completed = False
        try:
            with translated():
                async with asyncio.timeout(wait + self._answer_limit):
                    yield client
            completed = True
        finally:
            if completed and not self._closed:
                self._idle.append(client)
            else:
                await _fully(client.aclose())

    async def aclose(self) -> None:
        """Close the idle connections; one in use is closed when its read ends."""
        self._closed = True
        while self._idle:
            await _fully(self._idle.pop().aclose())


async def _fully(closing: Coroutine[Any, Any, None]) -> None:
    """Finish closing even if cancelled: a half-closed connection would stay open."""
    task = asyncio.create_task(closing)
    try:
        await asyncio.shield(task)
    finally:
        await task


class _Guide(ABC):
    """Knows which server takes the writes."""

    @property
    def several(self) -> bool:
        """Whether there is more than one server to try."""
        return True

    @abstractmethod
    async def where(self) -> Node:
        """Return the server to connect to; raises redis-py's ConnectionError."""

    def failed(self, node: Node) -> None:  # noqa: B027  Sentinels will know
        """Take note that nothing listens there."""

    def moved_to(self, node: Node) -> None:  # noqa: B027  Sentinels watch no Cluster
        """Take note that a Cluster named this node as the owner of the slot."""


class _Nodes(_Guide):
    """One server, or nodes of a Cluster, each of which answers or names the owner."""

    def __init__(self, nodes: tuple[Node, ...]) -> None:
        self._nodes = deque(nodes)

    @property
    def several(self) -> bool:
        return len(self._nodes) > 1

    async def where(self) -> Node:
        return self._nodes[0]

    def failed(self, node: Node) -> None:
        if node == self._nodes[0]:
            self._nodes.rotate(-1)

    def moved_to(self, node: Node) -> None:
        if node in self._nodes:
            self._nodes.remove(node)
        self._nodes.appendleft(node)


class _Sentinels(_Guide):
    """Sentinels, asked again for every connection, as the primary may have changed."""

    def __init__(self, location: Location, settings: Mapping[str, Any]) -> None:
        self._name = location.primary or ""
        tls = {name: value for name, value in settings.items() if name.startswith("ssl_")}
        asking: dict[str, Any] = {
            **tls,
            "ssl": settings["connection_class"] is _TlsConnection,
            "socket_timeout": _CONNECT_LIMIT,
            "socket_connect_timeout": _CONNECT_LIMIT,
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": True,
            "driver_info": None,
            **location.sentinel,
        }
        sentinel: Any = Sentinel  # redis-py does not type it
        self._sentinel = sentinel(location.nodes, sentinel_kwargs=asking)

    async def where(self) -> Node:
        try:
            return Node(*await self._sentinel.discover_master(self._name))
        except MasterNotFoundError as problem:
            raise exceptions.ConnectionError(await self._why_none()) from problem
        finally:
            await _fully(self._hang_up())

    async def _why_none(self) -> str:
        """Return why there is no primary; raises AuthenticationError, which redis-py hides."""
        try:
            watched = await self._sentinel.sentinels[0].sentinel_masters()
        except exceptions.AuthenticationError:
            raise
        except (exceptions.ConnectionError, exceptions.TimeoutError) as problem:
            return f"no Sentinel names the primary: {absence(problem)}"
        return _NOWHERE if self._name in watched else f"no Sentinel watches {self._name!r}"

    async def _hang_up(self) -> None:
        """Close idle connections only: another task may be asking at the same time."""
        for each in self._sentinel.sentinels:
            await each.connection_pool.disconnect(inuse_connections=False)


class _Moved(exceptions.ConnectionError):
    """Nothing was executed: another node owns the slot, and the guide knows which."""


class _TcpConnection(Connection):
    """A connection to the server its guide names; reconnects after a redirection.

    This relies on undocumented behaviour of redis-py: `connect_check_health` opens every
    connection, including one lost since the pool lent it, to the current `host` and `port`;
    `read_response` returns or raises every answer. Overriding `connect` is not enough: a command
    that finds its connection closed does not call it. `test_connections` fails if that changes.
    """

    def __init__(self, *, guide: _Guide, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(**settings)
        self._guide = guide
        self._to_replica = False

    async def connect_check_health(
        self,
        check_health: bool = True,  # noqa: FBT001, FBT002  redis-py's signature
        retry_socket_connect: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        """Connect, unless connected to a server that takes writes as far as is known."""
        if self.is_connected and not self._to_replica:
            return
        await self.disconnect()
        self._to_replica = False
        node = await self._guide.where()
        self.host, self.port = node
        try:
            await super().connect_check_health(check_health, retry_socket_connect)
        except (exceptions.ConnectionError, exceptions.TimeoutError) as problem:
            self._guide.failed(node)
            if self._guide.several and UNHEARD.search(str(problem)):
                # the node changes with every attempt: report one trouble, not one per node
                raise exceptions.ConnectionError(_NOWHERE) from problem
            raise

    async def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Read one answer; a redirection ends this connection."""
        try:
            return await super().read_response(*args, **options)
        except exceptions.MovedError as moved:
            self._guide.moved_to(Node(moved.host or self.host, moved.port))
            await self.disconnect()
            raise _Moved("the Cluster moves the slot") from moved
        except exceptions.ReadOnlyError:
            # it was the primary once: the next connect asks for the new one. Do not close it here:
            # the remaining answers of a transaction are still to be read
            self._to_replica = True
            raise


class _TlsConnection(_TcpConnection, SSLConnection):
    """The same over TLS."""
