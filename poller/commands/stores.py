"""Opens the store for a command that ends by itself, and says why where that cannot be."""

import contextlib
from collections.abc import AsyncIterator

from poller.delivery.redisoutbox import RedisOutbox
from poller.errors import PollerError, StoreDown
from poller.service.stores import opened_store
from poller.settings.config import Config
from poller.storage.embedded import Embedded
from poller.storage.redisstore import RedisStore


class Failure(PollerError):
    """The command did not do what was asked; the text says why."""


@contextlib.asynccontextmanager
async def store_of(config: Config, *, existing: bool = False) -> AsyncIterator[RedisStore]:
    """Open the store alone; a server that does not answer is a failure here, not waited for.

    `existing`: an embedded server that neither runs nor has left data is a failure, too: an empty
    one would only hide that it was looked for in the wrong place.
    """
    if existing and config.redis.url is None and not Embedded(config.state_dir).is_there():
        raise Failure(
            f"no embedded server runs in {config.state_dir.absolute()}, and it left no data there: "
            "is another --config, POLLER_CONFIG or POLLER_STATE_DIR meant? `poller run` begins a "
            "new one"
        )
    async with opened_store(config) as (store, _):
        try:
            await store.inspect()
        except StoreDown as problem:
            raise Failure(f"Redis does not answer: {problem}") from None
        yield store


@contextlib.asynccontextmanager
async def store_and_outbox(
    config: Config, *, existing: bool = True
) -> AsyncIterator[tuple[RedisStore, RedisOutbox]]:
    """Open the store and the outbox on it, as `store_of` does."""
    async with store_of(config, existing=existing) as store:
        outbox = RedisOutbox(store.url, config.redis.namespace)
        try:
            yield store, outbox
        finally:
            await outbox.close()
