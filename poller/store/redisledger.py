"""The ledger of each account's requests, on a Redis-compatible server.

All namespaces share it, because OpenD counts by account; a simulation has one of its own.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from poller.errors import StoreMisfit
from poller.store.namespace import Namespace, wrong_type
from poller.store.ports import Ledger, Spent
from poller.store.simulated import SimulationMark
from poller.store.store import LEDGER
from poller.store.translation import WrongType, translated

_MICRO: Final = 1_000_000

_CARRIED: Final = 1000
"""Most requests of an earlier version to carry over: many times those of a period."""


class RedisLedger(Ledger, Spent):
    """The requests each account has spent."""

    def __init__(self, namespace: Namespace, mark: SimulationMark) -> None:
        self._namespace = namespace
        self._mark = mark
        self._carried = set[str]()
        self._grant, self._spend = namespace.script("grant"), namespace.script("spend")

    async def grant(
        self,
        account: str,
        request: str,
        *,
        limit: int,
        period: float,
        margin: float,
        logins: Sequence[str] = (),
    ) -> float:
        times = (round(period * _MICRO), round(margin * _MICRO))
        await self._namespace.catch_up()  # do not ask OpenD for what could not be published
        async with self._ledgers(account, logins) as (client, keys):
            wait = await self._grant(keys=keys, args=[request, limit, *times], client=client)
        return int(wait) / _MICRO

    async def settle(
        self,
        account: str,
        request: str,
        *,
        period: float,
        margin: float,
        logins: Sequence[str] = (),
    ) -> None:
        await self._spend_at(account, logins, [request], period, margin)

    async def exhaust(
        self, account: str, *, limit: int, period: float, logins: Sequence[str] = ()
    ) -> None:
        requests = [f"held-{n}" for n in range(limit)]
        await self._spend_at(account, logins, requests, period, 0)

    async def _spend_at(
        self,
        account: str,
        logins: Sequence[str],
        requests: Sequence[str],
        period: float,
        margin: float,
    ) -> None:
        times = (round(period * _MICRO), round(margin * _MICRO))
        async with self._ledgers(account, logins) as (client, keys):
            await self._spend(keys=keys, args=[*times, *requests], client=client)

    async def spent(self, account: str, *, period: float) -> int:
        async with self._ledgers(account) as (client, [key]):
            seconds, micros = await client.time()
            since = seconds * _MICRO + micros - round(period * _MICRO)
            return int(await client.zcount(key, f"({since}", "+inf"))

    async def check(self) -> None:
        """Raise StoreMisfit if the ledger cannot be read."""
        async with self._ledgers("") as (client, [key]):
            await client.zcard(key)

    @contextlib.asynccontextmanager
    async def _ledgers(
        self, account: str, logins: Sequence[str] = ()
    ) -> AsyncIterator[tuple[Any, list[str]]]:
        """Yield a client and the keys of an account's budget and its logins'; errors name a key."""
        keys, redis = self._namespace.keys, self._namespace.redis
        own, shared = keys.own_budget(account), keys.budget(account)
        if await self._mark.holds_simulation() or own == shared:
            client, of_login, key = redis, keys.own_login, own
        else:
            client, of_login, key = self._namespace.budgets, keys.login, shared
        every = [key, *map(of_login, logins)]
        try:
            with translated():
                if key != own and account not in self._carried:
                    await self._carry_over(own, shared)
                    self._carried.add(account)
                yield client, every
        except WrongType:
            with translated():
                for key in every:
                    if (found := await client.type(key)) not in {"none", "zset"}:
                        raise StoreMisfit(wrong_type(key, found, "sorted set")) from None
            raise StoreMisfit(f"{' or '.join(every)} held another type a moment ago") from None
        except StoreMisfit as problem:
            if client is redis:
                raise
            raise StoreMisfit(
                f"{problem}; all namespaces share the budgets {{{LEDGER}}}:budget:*, so this user "
                "needs access to them, too"
            ) from None

    async def _carry_over(self, own: str, shared: str) -> None:
        """Carry over, once, what an earlier version spent in this namespace's own budget."""
        redis = self._namespace.redis
        if await redis.type(own) != "zset":
            return
        spent = await redis.zrevrange(own, 0, _CARRIED - 1, withscores=True)
        if spent:
            await self._namespace.budgets.zadd(shared, dict(spent), nx=True)
