"""The live watchlist on a Redis-compatible server."""

import time
from collections.abc import Sequence

from poller.model import Code
from poller.storage.live import LiveList, scan, version_of
from poller.storage.namespace import Namespace
from poller.storage.ports import LiveWatchlist
from poller.storage.store import SIGNALS_KEPT, WATCHLIST


class RedisWatchlist(LiveWatchlist):
    """The live watchlist on the server."""

    def __init__(self, namespace: Namespace) -> None:
        self._keys = namespace.keys
        self._redis = namespace.redis
        self._translated = namespace.translated

    async def watch(self, codes: Sequence[Code], *, wanted: bool) -> None:
        """Put codes on the live watchlist, or take them off whatever the configuration says.

        Given together with a signal of the subject WATCHLIST.
        """
        async with self._translated():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(self._keys.watch, mapping=dict.fromkeys(codes, "1" if wanted else "0"))
                pipe.incr(self._keys.watch_version)
                pipe.xadd(self._keys.signals, {"subject": WATCHLIST}, maxlen=SIGNALS_KEPT)
                marked, counted, _ = await pipe.execute(raise_on_error=False)
            if isinstance(marked, Exception):
                raise marked
            if isinstance(counted, Exception):  # somebody put something else there
                await self._redis.set(self._keys.watch_version, time.time_ns())

    async def watched(self) -> LiveList:
        async with self._translated():
            return await scan(self._redis, self._keys.watch)

    async def version(self) -> int:
        async with self._translated():
            return version_of(await self._redis.get(self._keys.watch_version))
