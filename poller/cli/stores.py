"""Opens the store for a command that ends by itself; a failure is an error, not waited for."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, TypeVar

from poller.errors import PollerError, StoreDown, StoreMisfit
from poller.model import Code, Instrument
from poller.settings.config import Config
from poller.store.embedded import Embedded, server_of
from poller.store.redisstore import RedisStore


class _Closes(Protocol):
    async def close(self) -> None:
        """Close every connection."""


_Closed = TypeVar("_Closed", bound=_Closes)


class Failure(PollerError):
    """The command did not do what was asked; the message says why."""


@contextlib.asynccontextmanager
async def store_of(config: Config, *, existing: bool = False) -> AsyncIterator[RedisStore]:
    """Open the store; raises Failure if the server does not answer.

    `existing`: also if an embedded server neither runs nor has left data. A new, empty one would
    hide that this is the wrong directory.
    """
    nothing = (
        f"no embedded server runs in {config.state_dir.absolute()}, and it left no data "
        "there: is another --config, POLLER_CONFIG or POLLER_STATE_DIR meant? "
        "`poller run` begins a new one"
    )
    if existing and config.redis.url is None and not Embedded(config.state_dir).exists():
        raise Failure(nothing)
    async with contextlib.AsyncExitStack() as stack:
        server = server_of(config.redis.url, config.state_dir, hasty=True)
        try:
            url, embedded = await stack.enter_async_context(server)
        except StoreDown as problem:
            raise Failure(f"Redis does not answer: {problem}") from None
        store = RedisStore(url, config.redis.namespace, replicas=config.redis.replicas)
        try:
            try:
                await store.inspect()
            except StoreDown as problem:
                raise Failure(f"Redis does not answer: {problem}") from None
            if existing and embedded is not None and await embedded.is_blank():
                raise Failure(nothing)
            yield store
        finally:
            await store.close()


@contextlib.asynccontextmanager
async def beside(store: RedisStore, kind: Callable[[str, str], _Closed]) -> AsyncIterator[_Closed]:
    """Open another adapter on a store's server and namespace; `kind`: its class."""
    opened = kind(store.url, store.keys.namespace)
    try:
        yield opened
    finally:
        await opened.close()


async def instruments_of(
    store: RedisStore, codes: Sequence[Code], problems: list[str]
) -> dict[Code, Instrument]:
    """Return what is known of these symbols besides their figures; a problem costs only that."""
    try:
        return await store.instruments.instruments(codes)
    except StoreMisfit as problem:
        problems.append(str(problem))
        return {}
