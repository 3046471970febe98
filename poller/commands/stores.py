"""Opens the store for a command that ends by itself, and says why where that cannot be."""

import contextlib
from collections.abc import AsyncIterator

from poller.errors import PollerError, StoreDown
from poller.settings.config import Config
from poller.storage.archive import Archive
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
    async with contextlib.AsyncExitStack() as stack:
        if config.redis.url is None:
            embedded = Embedded(config.state_dir)
            if existing and not embedded.is_there():
                raise Failure(
                    f"no embedded server runs in {config.state_dir.absolute()}, and it left no "
                    "data there: is another --config, POLLER_CONFIG or POLLER_STATE_DIR meant? "
                    "`poller run` begins a new one"
                )
            url = await stack.enter_async_context(embedded.running())
        else:
            url = config.redis.url.get_secret_value()
        store = RedisStore(url, config.redis.namespace, replicas=config.redis.replicas)
        stack.push_async_callback(store.close)
        try:
            await store.inspect()
        except StoreDown as problem:
            raise Failure(f"Redis does not answer: {problem}") from None
        yield store


@contextlib.asynccontextmanager
async def archive_of(config: Config) -> AsyncIterator[tuple[RedisStore, Archive]]:
    """Open the store of an existing server, and the histories in it."""
    async with store_of(config, existing=True) as store:
        archive = Archive(store.url, config.redis.namespace)
        try:
            yield store, archive
        finally:
            await archive.close()
