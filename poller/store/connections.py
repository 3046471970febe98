"""The connections to Redis: made here for whoever speaks it.

redis-py's defaults suit nobody here. Short commands are bounded in seconds and repeated once when
cut off: each of them is idempotent, or refused when repeated. A read that blocks has a connection
of its own, which is kept for the next one; its socket waits longer than the read, and the read is
repeated only when it was sent elsewhere.

All keys of a namespace share a hash slot, so one server takes the writes wherever Redis lives: a
single one, a Cluster's owner of the slot, the primary the Sentinels name. A connection goes to that
one, and to its successor when it is told so; transactions and scripts need nothing else.
"""

import asyncio
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

_CONNECT_LIMIT: Final = 2.0
_ANSWER_LIMIT: Final = 5.0
_NOWHERE: Final = "no server takes the writes now"


class Connections:
    """Makes clients for the Redis at a URL. Any: redis-py types every answer as text or bytes."""

    def __init__(self, url: str) -> None:
        """Connect to nothing yet; raises ValueError when `url` is none.

        Its option `socket_timeout` is how long an answer may take, on top of what a read blocks.
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
        """Return a client for short commands; it waits while all its connections are in use.

        Bytes that are not UTF-8 are read as U+FFFD. `exact`: as lone surrogates, which are written
        as the same bytes; so whoever compares what was read with what is stored can do so.
        """
        return self._client(16, self._answer_limit, Retry(ConstantBackoff(0.1), 1), exact=exact)

    def blocking(self) -> "Blocking":
        """Return what lends connections for reads that block."""
        sent_away = Retry(ConstantBackoff(0), 1, supported_errors=(_Moved,))
        return Blocking(lambda: self._client(1, None, sent_away), self._answer_limit)

    def _client(
        self, connections: int, limit: float | None, retry: Retry, *, exact: bool = False
    ) -> Any:  # noqa: ANN401
        settings: dict[str, Any] = {
            "max_connections": connections,
            "timeout": 5,
            "socket_timeout": limit,
            "socket_connect_timeout": _CONNECT_LIMIT,
            "retry": retry,
            # no PING before a command: one on a dead connection is repeated all the same
            "health_check_interval": 0,
            "decode_responses": True,
            "encoding_errors": "surrogateescape" if exact else "replace",
            "client_name": "poller",
            "driver_info": None,  # else each connection reads the package's version from its files
        }
        return Redis.from_pool(BlockingConnectionPool(**(settings | self._settings)))


class Blocking:
    """Lends a connection to each read that blocks, and keeps it for the next read."""

    def __init__(self, make: Callable[[], Any], answer_limit: float) -> None:
        """`make`: returns a client of one connection that sets no limit of its own."""
        self._make = make
        self._answer_limit = answer_limit
        self._idle: list[Any] = []
        self._closed = False

    @asynccontextmanager
    async def reading(self, wait: float) -> AsyncIterator[Any]:
        """Yield a client for one read that blocks up to `wait` seconds; its errors are ours.

        The limit is set around the read. In redis-py's own a cancellation may be lost, which would
        be seen only when the read ends. A read that does not end well may leave its answer in the
        connection, which is therefore closed.
        """
        client = self._idle.pop() if self._idle else self._make()
        whole = False
        try:
            with translated():
                async with asyncio.timeout(wait + self._answer_limit):
                    yield client
            whole = True
        finally:
            if whole and not self._closed:
                self._idle.append(client)
            else:
                await _whole(client.aclose())

    async def aclose(self) -> None:
        """Close what is lent to nobody; what is lent is closed when its read ends."""
        self._closed = True
        while self._idle:
            await _whole(self._idle.pop().aclose())


async def _whole(closing: Coroutine[Any, Any, None]) -> None:
    """Close to the end, cancelled or not: a connection half closed would stay open."""
    task = asyncio.create_task(closing)
    try:
        await asyncio.shield(task)
    finally:
        await task


class _Guide(ABC):
    """Knows where the writes go."""

    @property
    def several(self) -> bool:
        """Whether there is more than one server to try."""
        return True

    @abstractmethod
    async def where(self) -> Node:
        """Return the server to connect to; raises redis-py's ConnectionError."""

    def failed(self, node: Node) -> None:  # noqa: B027  Sentinels will know
        """Learn that nobody listens there."""

    def told(self, node: Node) -> None:  # noqa: B027  Sentinels watch no Cluster
        """Learn from a Cluster that this one owns the slot."""


class _Nodes(_Guide):
    """One server, or some nodes of a Cluster: whoever is asked answers, or names the owner."""

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

    def told(self, node: Node) -> None:
        if node in self._nodes:
            self._nodes.remove(node)
        self._nodes.appendleft(node)


class _Sentinels(_Guide):
    """Sentinels, asked anew for every connection: the primary may be another by then."""

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
            await _whole(self._hang_up())

    async def _why_none(self) -> str:
        """Say why there is no primary; raises AuthenticationError, which was kept from us."""
        try:
            watched = await self._sentinel.sentinels[0].sentinel_masters()
        except exceptions.AuthenticationError:
            raise
        except (exceptions.ConnectionError, exceptions.TimeoutError) as problem:
            return f"no Sentinel names the primary: {absence(problem)}"
        return _NOWHERE if self._name in watched else f"no Sentinel watches {self._name!r}"

    async def _hang_up(self) -> None:
        """Close what is asking nothing now: another connection may be made at the same time."""
        for each in self._sentinel.sentinels:
            await each.connection_pool.disconnect(inuse_connections=False)


class _Moved(exceptions.ConnectionError):
    """Nothing was done here: another node owns the slot, and the guide knows which."""


class _TcpConnection(Connection):
    """A connection that goes where its guide says, and again after it was sent away.

    redis-py documents none of what this rests on, here alone: every connection is opened by
    `connect_check_health`, also one that was cut since the pool lent it, to `host` and `port` as
    they stand then; `read_response` returns or raises every answer. `connect` is not enough, as a
    command that finds its connection closed opens it without. `test_connections` says when a
    version of redis-py does otherwise.
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
        """Connect, unless connected to what takes writes, as far as is known."""
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
                # every attempt names another node: to an operator it is one trouble
                raise exceptions.ConnectionError(_NOWHERE) from problem
            raise

    async def read_response(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Read one answer; one that says "not here" ends this connection."""
        try:
            return await super().read_response(*args, **options)
        except exceptions.MovedError as moved:
            self._guide.told(Node(moved.host or self.host, moved.port))
            await self.disconnect()
            raise _Moved("the Cluster moves the slot") from moved
        except exceptions.ReadOnlyError:
            # it was the primary once: whoever connects next asks who is. Not closed here, as what a
            # transaction has yet to answer would be missed, and its error with it
            self._to_replica = True
            raise


class _TlsConnection(_TcpConnection, SSLConnection):
    """The same over TLS."""
