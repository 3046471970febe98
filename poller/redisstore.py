"""The store on a Redis-compatible server: the only file that speaks Redis.

Three kinds of connection, because redis-py's defaults suit none of them: short commands (bounded
in seconds, one repeat, each of them idempotent or refused when repeated), and one client per
blocking read (a socket timeout longer than the wait, never repeated).
"""

import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date
from importlib.resources import files
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from poller.compare import Comparison
from poller.errors import LeaseLost, StoreMisfit, Superseded
from poller.model import Code, Vintage
from poller.redisclient import NEEDED, connect, translated
from poller.store import (
    Entry,
    Keys,
    Lease,
    Snapshot,
    Write,
    read_snapshot,
    read_vintages,
    writes_of,
)

OLDEST: Final = (6, 2)
"""The first Redis with XAUTOCLAIM and the stream commands used here."""

_MICRO: Final = 1_000_000


class RedisStore:
    """A `poller.store.Store` on one server. Make it with `connect`."""

    def __init__(self, url: str, namespace: str) -> None:
        self._url = url
        self.keys = Keys(namespace)
        self._redis = connect(url)
        lua = files("poller") / "lua"
        self._commit, self._grant, self._spend, self._lease, self._renew = (
            self._redis.register_script((lua / f"{name}.lua").read_text())
            for name in ("commit", "grant", "spend", "lease", "renew")
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def inspect(self) -> str:
        """Return the server's name and version, or raise StoreMisfit with the cure."""
        with translated():
            server = await self._redis.info("server")
            memory = await self._redis.info("memory")
        name = "Valkey" if "valkey_version" in server else "Redis"
        version = str(server.get("valkey_version", server["redis_version"]))
        numbers = tuple(int(part) for part in str(server["redis_version"]).split(".")[:2])
        if numbers < OLDEST:
            raise StoreMisfit(f"{name} {version} is too old: {NEEDED}")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            msg = (
                f"the server's maxmemory-policy is {policy}: it may delete the stream and the "
                "watermarks; set it: CONFIG SET maxmemory-policy noeviction"
            )
            raise StoreMisfit(msg)
        await self._check_types()
        await self._rehearse()
        return f"{name} {version}"

    async def _rehearse(self) -> None:
        """Run a whole commit on scratch keys.

        A script that fails half-way is not rolled back: a user who may append but not write a hash
        would append the same entries at every try. Better to learn it before the first.
        """
        scratch = f"{{{self.keys.namespace}}}:rehearsal:{secrets.token_hex(4)}"
        keys = [f"{scratch}:{part}" for part in ("stream", "mark", "history", "vintages", "lease")]
        with translated():
            try:
                await self._commit(
                    keys=keys, args=["-", "", "", "-", 1, "-", "", "-", 0, 1, 1, "-", "-"]
                )
            finally:
                await self._redis.delete(*keys)

    async def _check_types(self) -> None:
        wanted = {
            self.keys.stream: "stream",
            self.keys.watermark: "hash",
            self.keys.lease: "string",
            self.keys.fence: "string",
            self.keys.watch: "hash",
            self.keys.watch_version: "string",
        }
        with translated():
            for key, kind in wanted.items():
                found = await self._redis.type(key)
                if found not in {"none", kind}:
                    raise StoreMisfit(_wrong_type(key, found, kind))

    async def snapshot(self, code: Code) -> Snapshot:
        """See `Store.snapshot`."""
        with translated():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hget(self.keys.watermark, code)
                pipe.hgetall(self.keys.history(code))
                pipe.hgetall(self.keys.vintages(code))
                watermark, history, vintages = await pipe.execute()
        return read_snapshot(code, watermark or "", history, vintages, keys=self.keys)

    async def commit(
        self, code: Code, comparison: Comparison, snapshot: Snapshot, lease: Lease
    ) -> None:
        """See `Store.commit`."""
        writes = writes_of(comparison, snapshot)
        watermark = str(comparison.watermark or "")
        if not writes and watermark == snapshot.watermark:
            return
        keys = [
            self.keys.stream,
            self.keys.watermark,
            self.keys.history(code),
            self.keys.vintages(code),
            self.keys.lease,
        ]
        entries = [event.fields() for event in comparison.events]
        arguments = [code, lease.value, snapshot.watermark, watermark, *_flat(writes, entries)]
        with translated():
            verdict, *detail = await self._commit(keys=keys, args=arguments)
        match verdict:
            case "ok":
                return
            case "lease":
                raise LeaseLost(self.keys.lease)
            case "type":
                raise StoreMisfit(_wrong_type(*detail))
            case _:
                raise Superseded(f"{code}: {detail[0]} is not what was read")

    async def watermarks(self) -> dict[Code, date]:
        """See `Store.watermarks`."""
        with translated():
            texts = await self._redis.hgetall(self.keys.watermark)
        found = {}
        for code, text in texts.items():
            try:
                found[Code(code)] = date.fromisoformat(text)
            except ValueError:
                continue  # the poll of this symbol says what is wrong with it
        return found

    async def vintages(self, code: Code) -> list[Vintage]:
        """See `Store.vintages`."""
        with translated():
            texts = await self._redis.hgetall(self.keys.vintages(code))
        return read_vintages(code, texts, keys=self.keys)

    async def grant(
        self, account: str, request: str, *, limit: int, period: float, margin: float
    ) -> float:
        """See `Store.grant`."""
        times = (round(period * _MICRO), round(margin * _MICRO))
        with translated():
            wait = await self._grant(
                keys=[self.keys.budget(account)], args=[request, limit, *times]
            )
        return int(wait) / _MICRO

    async def settle(self, account: str, request: str, *, period: float, margin: float) -> None:
        """See `Store.settle`."""
        await self._spend_at(account, [request], period, margin)

    async def exhaust(self, account: str, *, limit: int, period: float) -> None:
        """See `Store.exhaust`."""
        await self._spend_at(account, [f"held-{n}" for n in range(limit)], period, 0)

    async def _spend_at(
        self, account: str, requests: list[str], period: float, margin: float
    ) -> None:
        times = (round(period * _MICRO), round(margin * _MICRO))
        with translated():
            await self._spend(keys=[self.keys.budget(account)], args=[*times, *requests])

    async def spent(self, account: str, *, period: float) -> int:
        """See `Store.spent`."""
        with translated():
            seconds, micros = await self._redis.time()
            since = seconds * _MICRO + micros - round(period * _MICRO)
            return int(await self._redis.zcount(self.keys.budget(account), f"({since}", "+inf"))

    async def acquire_lease(self, owner: str, ttl: float) -> Lease | None:
        """See `Store.acquire_lease`."""
        with translated():
            value = await self._lease(
                keys=[self.keys.lease, self.keys.fence], args=[owner, round(ttl * 1000)]
            )
        return Lease(value) if value else None

    async def renew_lease(self, lease: Lease, ttl: float) -> bool:
        """See `Store.renew_lease`."""
        with translated():
            return bool(
                await self._renew(keys=[self.keys.lease], args=[lease.value, round(ttl * 1000)])
            )

    async def release_lease(self, lease: Lease) -> None:
        """See `Store.release_lease`."""
        with translated():
            await self._renew(keys=[self.keys.lease], args=[lease.value, 0])

    async def watch(self, codes: Sequence[Code], *, wanted: bool) -> None:
        """See `Store.watch`."""
        with translated():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(self.keys.watch, mapping=dict.fromkeys(codes, "1" if wanted else "0"))
                pipe.incr(self.keys.watch_version)
                await pipe.execute()

    async def watched(self) -> dict[str, bool]:
        """See `Store.watched`."""
        with translated():
            texts = await self._redis.hgetall(self.keys.watch)
        return {code: text == "1" for code, text in texts.items()}

    async def watch_version(self) -> int:
        """See `Store.watch_version`."""
        with translated():
            return int(await self._redis.get(self.keys.watch_version) or 0)

    async def read(self, after: str, *, count: int, block: float | None) -> list[Entry]:
        """See `Store.read`."""
        if block is None:
            with translated():
                found = await self._redis.xread({self.keys.stream: after}, count=count)
        else:
            async with self._blocking(block) as redis:
                with translated():
                    found = await redis.xread(
                        {self.keys.stream: after}, count=count, block=round(block * 1000)
                    )
        return [Entry(*entry) for entry in _only_stream(found)]

    async def last_entries(self, count: int) -> list[Entry]:
        """See `Store.last_entries`."""
        with translated():
            found = await self._redis.xrevrange(self.keys.stream, count=count)
        return [Entry(*entry) for entry in reversed(found)]

    @asynccontextmanager
    async def _blocking(self, block: float) -> AsyncIterator[Any]:
        redis: Any = Redis.from_url(
            self._url,
            socket_timeout=block + 5,
            socket_connect_timeout=2,
            retry=Retry(ConstantBackoff(0), 0),
            decode_responses=True,
            encoding_errors="replace",
            client_name="poller",
        )
        try:
            yield redis
        finally:
            await redis.aclose()


def _only_stream(found: Any) -> list[tuple[str, Mapping[str, str]]]:  # noqa: ANN401  its shape depends on the protocol
    """Return the entries of the one stream read: a list of pairs, or a mapping under RESP3."""
    if not found:
        return []
    if isinstance(found, dict):
        (entries,) = found.values()
        return cast("list[tuple[str, Mapping[str, str]]]", entries[0] if entries else [])
    return cast("list[tuple[str, Mapping[str, str]]]", found[0][1])


def _flat(writes: Sequence[Write], entries: Sequence[Mapping[str, str]]) -> Iterator[str | int]:
    """Lay the arguments out as commit.lua reads them."""
    yield len(writes)
    for write in writes:
        yield from (write.day, write.expected, write.text)
        yield "" if write.revision is None else write.revision
    names = tuple(entries[0]) if entries else ()
    yield len(entries)
    yield len(names)
    yield from names
    for entry in entries:
        yield from (entry[name] for name in names)


def _wrong_type(key: str, found: str, wanted: str) -> str:
    return (
        f"the key {key} holds a {found}, where this service keeps a {wanted}: choose another "
        f"redis.namespace, or look at the key and delete it"
    )
