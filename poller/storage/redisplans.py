"""What the plans remember and the notices they give, on a Redis-compatible server."""

from collections.abc import Mapping

from poller.errors import LeaseLost, StoreMisfit
from poller.events import encode
from poller.plan.notice import Notice
from poller.storage.arguments import notice_arguments
from poller.storage.namespace import Namespace, wrong_type
from poller.storage.ports import Plans
from poller.storage.store import Lease


class RedisPlans(Plans):
    """What the plans remember, and the notices they give on the server."""

    def __init__(self, namespace: Namespace) -> None:
        self.keys = namespace.keys
        self._namespace = namespace
        self._announce = namespace.script("announce")
        self._save = namespace.script("plan")

    async def announce(self, notice: Notice, lease: Lease) -> bool:
        keys = [self.keys.releases, self.keys.releases_told, self.keys.lease]
        arguments = [lease.value, *notice_arguments(encode(notice))]
        verdict, *detail = await self._namespace.replicated(self._announce, keys, arguments)
        match verdict:
            case "lease":
                raise LeaseLost(self.keys.lease)
            case "type":
                raise StoreMisfit(wrong_type(*detail))
            case _:
                return bool(verdict == "ok")

    async def schedule(self) -> dict[str, str]:
        async with self._namespace.translated():
            return dict(await self._namespace.redis.hgetall(self.keys.schedule))

    async def save_schedule(self, texts: Mapping[str, str], lease: Lease) -> None:
        keys = [self.keys.schedule, self.keys.lease]
        pairs = [part for pair in texts.items() for part in pair]
        async with self._namespace.translated():
            kept = await self._save(keys=keys, args=[lease.value, *pairs])
        if not kept:
            raise LeaseLost(self.keys.lease)
