"""What every speaker of Redis shares: connections for short commands, and errors as ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from poller.errors import StoreDown, StoreMisfit

NEEDED: Final = "this service needs Redis 6.2 or Valkey 7.2 or newer"

_TRANSIENT: Final = (
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
)
_FORBIDDEN: Final = ("NOAUTH", "NOPERM", "WRONGPASS")


def connect(url: str) -> Any:  # noqa: ANN401  redis-py types every answer as text or bytes
    """Return a client for short commands: bounded in seconds, repeated once when cut off."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=16,
        timeout=5,
        socket_timeout=5,
        socket_connect_timeout=2,
        retry=Retry(ConstantBackoff(0.1), 1),
        health_check_interval=15,
        decode_responses=True,
        encoding_errors="replace",
        client_name="poller",
    )
    return Redis.from_pool(pool)


@contextmanager
def translated() -> Iterator[None]:
    """Turn redis-py's errors into ours, by what the caller does next."""
    try:
        yield
    except exceptions.ResponseError as problem:
        text = str(problem)
        if text.startswith(_FORBIDDEN) or isinstance(problem, exceptions.NoPermissionError):
            raise StoreMisfit(f"Redis refuses this user: {text}") from problem
        if text.startswith(_TRANSIENT) or isinstance(problem, _TRANSIENT_TYPES):
            raise StoreDown(text) from problem
        if text.startswith("WRONGTYPE"):
            raise StoreMisfit(f"a key of this namespace holds another type: {text}") from problem
        if text.startswith("unknown command"):  # HELLO, the first command of all, came with 6.0
            raise StoreMisfit(f"the server is too old ({text}): {NEEDED}") from problem
        raise StoreMisfit(f"Redis refuses a command: {text}") from problem
    except exceptions.AuthenticationError as problem:
        raise StoreMisfit(f"Redis refuses the user or password: {problem}") from problem
    except (exceptions.RedisError, OSError) as problem:
        if isinstance(problem.__cause__, _REFUSED_TYPES):  # in the handshake
            raise StoreMisfit(f"Redis refuses the user or password: {problem}") from problem
        raise StoreDown(str(problem) or type(problem).__name__) from problem


_REFUSED_TYPES: Final = (exceptions.AuthenticationError, exceptions.NoPermissionError)
_TRANSIENT_TYPES: Final = (
    exceptions.BusyLoadingError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
)
