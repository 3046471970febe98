"""The lease of the active poller, on a Redis-compatible server."""

import re
from typing import Final

from poller.errors import StoreMisfit
from poller.store.namespace import Namespace
from poller.store.ports import Leases
from poller.store.store import Lease

_NO_NUMBER: Final = re.compile("not an integer or out of range|increment or decrement would overfl")


class RedisLeases(Leases):
    """The lease of the active poller on the server."""

    def __init__(self, namespace: Namespace) -> None:
        self._keys = namespace.keys
        self._translated = namespace.translated
        self._lease, self._renew = namespace.script("lease"), namespace.script("renew")

    async def acquire(self, owner: str, ttl: float) -> Lease | None:
        lease, fence = self._keys.lease, self._keys.fence
        try:
            async with self._translated():
                value = await self._lease(keys=[lease, fence], args=[owner, round(ttl * 1000)])
        except StoreMisfit as problem:
            if _NO_NUMBER.search(str(problem)) is None:
                raise
            raise StoreMisfit(f"the key {fence} holds no number: remove it, DEL {fence}") from None
        return Lease(value) if value else None

    async def renew(self, lease: Lease, ttl: float) -> bool:
        async with self._translated():
            arguments = [lease.value, round(ttl * 1000)]
            return bool(await self._renew(keys=[self._keys.lease], args=arguments))

    async def release(self, lease: Lease) -> None:
        await self.renew(lease, 0)
