"""The store on a Redis-compatible server."""

import re
import secrets
import shlex
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import date
from importlib.resources import files
from typing import Any, Final, cast

from poller.codec import read_day
from poller.detect.compare import Comparison
from poller.errors import LeaseLost, StoreDown, StoreError, StoreMisfit, Superseded
from poller.events import encode
from poller.model import Code, Vintage, parse_code
from poller.plan.notice import Notice
from poller.storage.arguments import arguments_of, notice_arguments
from poller.storage.connections import NEEDED, Connections, WrongType, translated
from poller.storage.live import LiveList, scan, version_of
from poller.storage.position import LAST
from poller.storage.retention import Group
from poller.storage.snapshots import (
    held_writes_of,
    quarantine_entries,
    read_snapshot,
    read_vintages,
    writes_of,
)
from poller.storage.store import (
    LEDGER,
    OPEND,
    SIGNALS_KEPT,
    SIMULATED,
    WATCHLIST,
    Entry,
    HeldWrite,
    Keys,
    Lease,
    News,
    Snapshot,
    Stream,
    Write,
)

OLDEST: Final = (6, 2)
"""The first Redis with XAUTOCLAIM and the stream commands used here."""

_MICRO: Final = 1_000_000

_TYPES: Final = {
    "stream": "stream",
    "quarantine": "stream",
    "releases": "stream",
    "releases_told": "hash",
    "watermark": "hash",
    "simulated": "string",
    "lease": "string",
    "fence": "string",
    "watch": "hash",
    "watch_version": "string",
    "signals": "stream",
    "schedule": "hash",
    "play": "hash",
}
"""Names of `Keys` → the type each is kept as."""

_DECISIVE: Final = ("stream", "quarantine", "releases", "releases_told", "watermark", "simulated")

_CARRIED: Final = 1000
"""Requests of an earlier version that are counted in: many times those of a period."""

_WAIT_LIMIT: Final = 1
"""Seconds replicas may take to have a commit."""

_EXHAUSTED: Final = "exhausted the last possible ID"
_NO_NUMBER: Final = re.compile("not an integer or out of range|increment or decrement would overfl")
_VERSION: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)


class RedisStore:
    """A `poller.storage.store.Store` on a server, a Cluster, or what Sentinels watch."""

    def __init__(self, url: str, namespace: str, *, replicas: int = 0) -> None:
        """`replicas`: how many of them must have a commit before it counts as done."""
        self.url = url
        self.keys = Keys(namespace)
        self._connections = Connections(url)
        self._redis = self._connections.brief()
        self._blocking = self._connections.blocking()
        # on a Cluster another node may own the slot of the budgets
        shared = namespace == LEDGER
        self._budgets = self._redis if shared else Connections(url).brief()
        self._carried = set[str]()
        self._made_up: bool | None = None
        self._replicas = replicas
        self._behind = False
        lua = files("poller.storage") / "lua"
        self._commit, self._announce, self._grant, self._spend, self._lease, self._renew = (
            self._redis.register_script((lua / f"{name}.lua").read_text(encoding="utf-8"))
            for name in ("commit", "announce", "grant", "spend", "lease", "renew")
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()
        if self._budgets is not self._redis:
            await self._budgets.aclose()
        await self._blocking.aclose()

    async def inspect(self) -> str:
        """Return the server's name and version, or raise StoreMisfit with the cure."""
        async with self._translated():
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
        # what stands under these is published, or decides it; the rest is told when it is used
        await self._check_types(_DECISIVE)
        await self._rehearse()
        async with self._ledger("") as (budgets, key):
            await budgets.zcard(key)
        return f"{name} {version}"

    async def keep_apart(self, *, simulated: bool) -> None:
        """Raise StoreMisfit where a simulator's events and OpenD's would stand in one stream.

        The first that publishes decides for good, also before there is any entry.
        """
        stream, mark = self.keys.stream, self.keys.simulated
        async with self._translated():
            if await self._redis.get(mark) is None:
                # what is older than the mark of OpenD's reports is OpenD's; entries may be trimmed
                older = await self._redis.exists(self.keys.watermark)
                older = older or await self._redis.xlen(stream)
                await self._redis.set(mark, OPEND if older or not simulated else SIMULATED, nx=True)
            marked = self._made_up = await self._redis.get(mark) != OPEND
        if simulated != marked:
            raise StoreMisfit(self.apart(simulated=simulated))

    async def holds_simulation(self) -> bool:
        """Return whether the stream is for what a simulator makes up."""
        async with self._translated():
            return await self._redis.get(self.keys.simulated) not in {None, OPEND}

    def apart(self, *, simulated: bool) -> str:
        """Say why events of this kind cannot be published here, and what to do."""
        stream = self.keys.stream
        if simulated:
            return (
                f"the stream {stream} is for what OpenD reports: a simulation needs a "
                "redis.namespace or a state_dir of its own, like POLLER_STATE_DIR=simulation"
            )
        return (
            f"the stream {stream} is for what a simulation makes up (run --simulate): choose "
            "another redis.namespace or state_dir, or delete that stream and all keys that begin "
            f"with {{{self.keys.namespace}}}:"
        )

    async def _rehearse(self) -> None:
        """Run a whole commit on scratch keys.

        A script that fails half-way is not rolled back: a user who may append but not write a hash
        would append the same entries at every try. Better to learn it before the first.
        """
        scratch = f"{{{self.keys.namespace}}}:rehearsal:{secrets.token_hex(4)}"
        parts = ("stream", "mark", "history", "vintages", "lease", "held", "quarantine")
        keys = [f"{scratch}:{part}" for part in parts]
        entry = {"-": "-"}
        held = [HeldWrite("-", "", "-"), HeldWrite("--", "", "")]
        written = arguments_of([Write("-", "", "-", 0)], [entry], held, [entry])
        async with self._translated():
            # one transaction: whoever is killed here leaves nothing behind
            async with self._redis.pipeline(transaction=True) as pipe:
                await self._commit(keys=keys, args=["-", "", "", "-", *written], client=pipe)
                pipe.delete(*keys)
                answers = await pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        """Turn redis-py's errors into ours; one about a key of another type names the key."""
        try:
            with translated():
                yield
        except WrongType:
            await self._check_types()
            raise
        except StoreMisfit as problem:
            if _EXHAUSTED not in str(problem):
                raise
            raise StoreMisfit(await self._exhausted()) from None

    async def _exhausted(self) -> str:
        """Name the stream that somebody has appended to under the last id there can be."""
        keys = (self.keys.stream, self.keys.releases, self.keys.quarantine, self.keys.signals)
        for key in keys:
            with suppress(StoreError), translated():
                if (await self._redis.xinfo_stream(key))["last-generated-id"] == LAST:
                    aside = f"{{{self.keys.namespace}}}:full"
                    return (
                        f"nothing can be appended to {key}: somebody used the last id there can "
                        "be; put it aside, and its readers go on with a new one: "
                        + shlex.join(["redis-cli", "RENAME", key, aside])
                    )
        return "nothing can be appended to a stream that was full just now"

    async def _check_types(self, names: Sequence[str] = tuple(_TYPES)) -> None:
        with translated():
            for name in names:
                key, kind = getattr(self.keys, name), _TYPES[name]
                found = await self._redis.type(key)
                if found not in {"none", kind}:
                    raise StoreMisfit(_wrong_type(key, found, kind))

    async def snapshot(self, code: Code) -> Snapshot:
        """See `Store.snapshot`."""
        async with self._translated(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hget(self.keys.watermark, code)
            pipe.hgetall(self.keys.history(code))
            pipe.hgetall(self.keys.vintages(code))
            pipe.hgetall(self.keys.held(code))
            watermark, history, vintages, held = await pipe.execute()
        return read_snapshot(code, watermark or "", history, vintages, held, keys=self.keys)

    async def commit(
        self, code: Code, comparison: Comparison, snapshot: Snapshot, lease: Lease
    ) -> None:
        """See `Store.commit`."""
        writes = writes_of(comparison, snapshot)
        held = held_writes_of(comparison, snapshot)
        watermark = str(comparison.watermark or "")
        if not writes and not held and watermark == snapshot.watermark:
            return
        keys = [
            self.keys.stream,
            self.keys.watermark,
            self.keys.history(code),
            self.keys.vintages(code),
            self.keys.lease,
            self.keys.held(code),
            self.keys.quarantine,
        ]
        entries = [encode(event) for event in comparison.events]
        written = arguments_of(writes, entries, held, quarantine_entries(code, comparison))
        arguments = [code, lease.value, snapshot.watermark, watermark, *written]
        async with self._translated():
            verdict, *detail = await self._replicated(self._commit, keys, arguments)
        match verdict:
            case "ok":
                return
            case "lease":
                raise LeaseLost(self.keys.lease)
            case "type":
                raise StoreMisfit(_wrong_type(*detail))
            case _:
                raise Superseded(f"{code}: {detail[0]} is not what was read")

    async def announce(self, notice: Notice, lease: Lease) -> bool:
        """See `Store.announce`."""
        keys = [self.keys.releases, self.keys.releases_told, self.keys.lease]
        arguments = [lease.value, *notice_arguments(encode(notice))]
        async with self._translated():
            verdict, *detail = await self._replicated(self._announce, keys, arguments)
        match verdict:
            case "lease":
                raise LeaseLost(self.keys.lease)
            case "type":
                raise StoreMisfit(_wrong_type(*detail))
            case _:
                return bool(verdict == "ok")

    async def _replicated(
        self,
        script: Any,  # noqa: ANN401
        keys: Sequence[str],
        arguments: Sequence[str | int],
    ) -> Any:  # noqa: ANN401
        """Run a script and wait for the replicas, on one connection as WAIT demands.

        Too few of them: StoreDown, although the primary has it. There it stays, or it goes together
        with its watermark when another becomes primary: found known or published again, once.
        """
        if not self._replicas:
            return await script(keys=keys, args=arguments)
        async with self._redis.pipeline(transaction=False) as pipe:
            await script(keys=keys, args=arguments, client=pipe)
            return await self._followed(pipe)

    async def _catch_up(self) -> None:
        """Raise StoreDown unless the replicas follow again."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(self.keys.replicated, self._replicas)
            await self._followed(pipe)

    async def _followed(self, pipe: Any) -> Any:  # noqa: ANN401
        pipe.wait(self._replicas, _WAIT_LIMIT * 1000)
        answer, reached = await pipe.execute()
        self._behind = reached < self._replicas
        if self._behind:
            raise StoreDown(
                f"fewer than {self._replicas} replicas (redis.replicas) follow within "
                f"{_WAIT_LIMIT} s: start them; nothing is polled until they do"
            )
        return answer

    @property
    def behind(self) -> bool:
        """Whether too few replicas had the last write; found out again before the next grant."""
        return self._behind

    async def watermarks(self) -> dict[Code, date]:
        """See `Store.watermarks`."""
        async with self._translated():
            texts = await self._redis.hgetall(self.keys.watermark)
        found = {}
        for code, text in texts.items():
            try:
                found[parse_code(code)] = read_day(text)
            except ValueError:
                continue  # no symbol, or its poll says what is wrong
        return found

    async def vintages(self, code: Code) -> list[Vintage]:
        """See `Store.vintages`."""
        async with self._translated():
            texts = await self._redis.hgetall(self.keys.vintages(code))
        return read_vintages(code, texts, keys=self.keys)

    async def held_codes(self) -> list[Code]:
        """See `Store.held_codes`."""
        return await self._codes_under(self.keys.held(Code("")))

    async def history_codes(self) -> list[Code]:
        """See `poller.delivery.replay.Past.history_codes`."""
        return await self._codes_under(self.keys.vintages(Code("")))

    async def _codes_under(self, start: str) -> list[Code]:
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", start) + "*"
        async with self._translated():
            keys = {key async for key in self._redis.scan_iter(pattern, count=1000)}
        return sorted(Code(key.removeprefix(start)) for key in keys)

    async def grant(
        self, account: str, request: str, *, limit: int, period: float, margin: float
    ) -> float:
        """See `Store.grant`."""
        times = (round(period * _MICRO), round(margin * _MICRO))
        if self._behind:  # ask OpenD for nothing that could not be published
            async with self._translated():
                await self._catch_up()
        async with self._ledger(account) as (budgets, key):
            wait = await self._grant(keys=[key], args=[request, limit, *times], client=budgets)
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
        async with self._ledger(account) as (budgets, key):
            await self._spend(keys=[key], args=[*times, *requests], client=budgets)

    @asynccontextmanager
    async def _ledger(self, account: str) -> AsyncIterator[tuple[Any, str]]:
        """Yield the key of an account's budget and a client for it; what is wrong names the key."""
        async with self._translated():
            if self._made_up is None and (mark := await self._redis.get(self.keys.simulated)):
                self._made_up = mark != OPEND
        own, shared = self.keys.own_budget(account), self.keys.budget(account)
        if self._made_up or own == shared:
            client, key = self._redis, own
        else:
            client, key = self._budgets, shared
        try:
            with translated():
                if key != own and account not in self._carried:
                    await self._carry_over(own, shared)
                    self._carried.add(account)
                yield client, key
        except WrongType:
            found = await client.type(key)
            raise StoreMisfit(_wrong_type(key, found, "sorted set")) from None
        except StoreMisfit as problem:
            if client is self._redis:
                raise
            raise StoreMisfit(
                f"{problem}; all namespaces share the budgets {{{LEDGER}}}:budget:*, which the "
                "user must be let have, too"
            ) from None

    async def _carry_over(self, own: str, shared: str) -> None:
        """Count in what a version that kept a budget in each namespace has spent, once."""
        if await self._redis.type(own) != "zset":
            return
        spent = await self._redis.zrevrange(own, 0, _CARRIED - 1, withscores=True)
        if spent:
            await self._budgets.zadd(shared, dict(spent), nx=True)

    async def spent(self, account: str, *, period: float) -> int:
        """See `Store.spent`."""
        async with self._ledger(account) as (budgets, key):
            seconds, micros = await budgets.time()
            since = seconds * _MICRO + micros - round(period * _MICRO)
            return int(await budgets.zcount(key, f"({since}", "+inf"))

    async def acquire_lease(self, owner: str, ttl: float) -> Lease | None:
        """See `Store.acquire_lease`."""
        async with self._counted(self.keys.fence):
            value = await self._lease(
                keys=[self.keys.lease, self.keys.fence], args=[owner, round(ttl * 1000)]
            )
        return Lease(value) if value else None

    @asynccontextmanager
    async def _counted(self, key: str) -> AsyncIterator[None]:
        """Let a command that counts `key` up name it when it holds no number."""
        try:
            async with self._translated():
                yield
        except StoreMisfit as problem:
            if _NO_NUMBER.search(str(problem)) is None:
                raise
            raise StoreMisfit(f"the key {key} holds no number: remove it, DEL {key}") from None

    async def renew_lease(self, lease: Lease, ttl: float) -> bool:
        """See `Store.renew_lease`."""
        async with self._translated():
            return bool(
                await self._renew(keys=[self.keys.lease], args=[lease.value, round(ttl * 1000)])
            )

    async def release_lease(self, lease: Lease) -> None:
        """See `Store.release_lease`."""
        async with self._translated():
            await self._renew(keys=[self.keys.lease], args=[lease.value, 0])

    async def watch(self, codes: Sequence[Code], *, wanted: bool) -> None:
        """See `Store.watch`."""
        async with self._translated():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(self.keys.watch, mapping=dict.fromkeys(codes, "1" if wanted else "0"))
                pipe.incr(self.keys.watch_version)
                pipe.xadd(self.keys.signals, {"subject": WATCHLIST}, maxlen=SIGNALS_KEPT)
                marked, counted, _ = await pipe.execute(raise_on_error=False)
            if isinstance(marked, Exception):
                raise marked
            if isinstance(counted, Exception):  # somebody put something else there
                await self._redis.set(self.keys.watch_version, time.time_ns())

    async def watched(self) -> LiveList:
        """See `Store.watched`."""
        async with self._translated():
            return await scan(self._redis, self.keys.watch)

    async def watch_version(self) -> int:
        """See `Store.watch_version`."""
        async with self._translated():
            return version_of(await self._redis.get(self.keys.watch_version))

    async def schedule(self) -> dict[str, str]:
        """See `Store.schedule`."""
        async with self._translated():
            return dict(await self._redis.hgetall(self.keys.schedule))

    async def save_schedule(self, texts: Mapping[str, str]) -> None:
        """See `Store.save_schedule`."""
        async with self._translated():
            await self._redis.hset(self.keys.schedule, mapping=dict(texts))

    async def read(
        self, after: str, *, count: int, block: float | None, stream: Stream = Stream.EVENTS
    ) -> list[Entry]:
        """See `Store.read`."""
        position = {self.keys.stream_of(stream): after}
        if block is None:
            async with self._translated():
                found = await self._redis.xread(position, count=count)
        else:
            async with self._translated(), self._blocking.reading(block) as redis:
                found = await redis.xread(position, count=count, block=_milliseconds(block))
        return [Entry(*entry) for entry in _only_stream(found)]

    async def last_entries(self, count: int, stream: Stream = Stream.EVENTS) -> list[Entry]:
        """See `Store.last_entries`."""
        async with self._translated():
            found = await self._redis.xrevrange(self.keys.stream_of(stream), count=count)
        return [Entry(*entry) for entry in reversed(found)]

    async def signal(self, subject: str) -> None:
        """See `Store.signal`."""
        async with self._translated():
            await self._redis.xadd(self.keys.signals, {"subject": subject}, maxlen=SIGNALS_KEPT)

    async def news(self, position: Mapping[str, str] | None, *, block: float) -> News:
        """See `Store.news`.

        What woke the read does not say where the streams stand by now, so the newest ids are asked
        for and compared, also when nothing did: ids begin anew when a stream is deleted.
        """
        if position is not None:
            async with self._translated(), self._blocking.reading(block) as redis:
                await redis.xread(dict(position), count=1, block=_milliseconds(block))
        seen = position[self.keys.signals] if position is not None else "0-0"
        async with self._translated(), self._redis.pipeline(transaction=False) as pipe:
            pipe.xrevrange(self.keys.stream, count=1)
            pipe.xrevrange(self.keys.releases, count=1)
            least = LAST if seen == LAST else f"({seen}"
            pipe.xrevrange(self.keys.signals, min=least, count=SIGNALS_KEPT)
            events, releases, signals = await pipe.execute()
        newest = {
            self.keys.stream: _newest_id(events, "0-0"),
            self.keys.releases: _newest_id(releases, "0-0"),
            self.keys.signals: _newest_id(signals, seen),
        }
        if position is None or len(signals) >= SIGNALS_KEPT:
            return News(newest, None)
        grown = {s for s in Stream if newest[k := self.keys.stream_of(s)] != position[k]}
        told = {fields.get("subject", "") for _, fields in signals}
        return News(newest, frozenset(grown | told))

    async def groups(self, stream: Stream) -> list[Group]:
        """See `poller.polling.trim.Streams.groups`."""
        key = self.keys.stream_of(stream)
        async with self._translated():
            first = await self._redis.xrange(key, count=1)
            if not first:
                return []
            return [
                Group(each["name"], await self._unread(key, each, first[0][0]))
                for each in await self._redis.xinfo_groups(key)
            ]

    async def _unread(self, key: str, group: Mapping[str, Any], first: str) -> str | None:
        # what was trimmed before it was acknowledged stays in the group's list: look behind it
        pending = await self._redis.xpending_range(key, group["name"], first, "+", 1)
        if pending:
            return str(pending[0]["message_id"])
        if group["last-delivered-id"] == LAST:
            return None
        after = f"({group['last-delivered-id']}"
        entries = await self._redis.xrange(key, after, count=1)
        return entries[0][0] if entries else None

    async def trim(self, before: str, stream: Stream) -> int:
        """See `poller.polling.trim.Streams.trim`."""
        key = self.keys.stream_of(stream)
        async with self._translated():
            return int(await self._redis.xtrim(key, minid=before, approximate=False))


def _only_stream(found: Any) -> list[tuple[str, Mapping[str, str]]]:  # noqa: ANN401  its shape depends on the protocol
    """Return the entries of the one stream read: a list of pairs, or a mapping under RESP3."""
    if not found:
        return []
    if isinstance(found, dict):
        (entries,) = found.values()
        return cast("list[tuple[str, Mapping[str, str]]]", entries[0] if entries else [])
    return cast("list[tuple[str, Mapping[str, str]]]", found[0][1])


def _newest_id(entries: Sequence[tuple[str, Any]], otherwise: str) -> str:
    return entries[0][0] if entries else otherwise


def _wrong_type(key: str, found: str, wanted: str) -> str:
    return (
        f"the key {key} holds a {found}, where this service keeps a {wanted}: choose another "
        f"redis.namespace, or look at the key and delete it: redis-cli DEL {shlex.quote(key)}"
    )


def _milliseconds(block: float) -> int:
    return max(1, round(block * 1000))  # 0 would be for ever
