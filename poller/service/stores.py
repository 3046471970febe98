"""Opens the store that is configured, and the embedded server where it stands on one."""

import contextlib
from collections.abc import AsyncIterator

from poller.settings.config import Config
from poller.storage.embedded import Embedded
from poller.storage.redisstore import RedisStore


@contextlib.asynccontextmanager
async def opened_store(config: Config) -> AsyncIterator[tuple[RedisStore, Embedded | None]]:
    """Yield the store, which connects when it is first used, and the embedded server, if any."""
    async with contextlib.AsyncExitStack() as stack:
        if config.redis.url is None:
            embedded = Embedded(config.state_dir)
            url = await stack.enter_async_context(embedded.running())
        else:
            embedded, url = None, config.redis.url.get_secret_value()
        store = RedisStore(url, config.redis.namespace, replicas=config.redis.replicas)
        stack.push_async_callback(store.close)
        yield store, embedded
