"""The plans of the markets and the notices they announce, on a Redis-compatible server."""

from collections.abc import Mapping
from itertools import chain

from poller.errors import LeaseLost
from poller.events import encode
from poller.schedule.notice import Notice
from poller.store.namespace import Namespace
from poller.store.ports import Plans
from poller.store.store import Lease


class RedisPlans(Plans):
    """The plans of the markets, and the notices they announce."""

    def __init__(self, namespace: Namespace) -> None:
        self.keys = namespace.keys
        self._namespace = namespace
        self._announce = namespace.script("announce")
        self._save = namespace.script("plan")

    async def announce(self, notice: Notice, lease: Lease) -> Notice | None:
        keys = [self.keys.releases, self.keys.releases_told, self.keys.lease]
        fields = encode(notice)
        head = (lease.value, fields["id"], fields["observed_at"])
        arguments = [*head, *chain.from_iterable(fields.items())]
        verdict, *_ = await self._namespace.run(self._announce, keys, arguments)
        return notice if verdict == "ok" else None

    async def schedule(self) -> dict[str, str]:
        async with self._namespace.translated():
            return dict(await self._namespace.redis.hgetall(self.keys.schedule))

    async def save_schedule(self, texts: Mapping[str, str], lease: Lease) -> None:
        keys = [self.keys.schedule, self.keys.lease]
        arguments = [lease.value, *chain.from_iterable(texts.items())]
        async with self._namespace.translated():
            kept = await self._save(keys=keys, args=arguments)
        if not kept:
            raise LeaseLost(self.keys.lease)
