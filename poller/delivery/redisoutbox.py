"""The outbox on a Redis-compatible server. A script a call: whole, or not at all."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any, Final

from redis import exceptions

from poller.delivery.outbox import (
    GROUP_PREFIX,
    Chosen,
    Claimed,
    DeadLetter,
    OutboxKeys,
    Settlement,
    Status,
    attempts_json,
    dead_json,
    padded,
    read_claim,
    read_dead,
)
from poller.errors import Superseded
from poller.model import to_json
from poller.storage.connections import Connections, translated
from poller.storage.store import Entry, Keys

_LAG_LIMIT: Final = 10_000


class RedisOutbox:
    """A `poller.delivery.outbox.Outbox` on one server."""

    def __init__(self, url: str, namespace: str) -> None:
        self._namespace = namespace
        self._stream = Keys(namespace).stream
        self._redis = Connections(url).brief()
        lua = files("poller.delivery") / "lua"
        self._enqueue, self._claim, self._settle, self._enable = (
            self._redis.register_script((lua / f"{name}.lua").read_text())
            for name in ("enqueue", "claim", "settle", "enable")
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    def _keys(self, name: str) -> OutboxKeys:
        return OutboxKeys(self._namespace, name)

    async def begin(self, name: str) -> str:
        """See `Outbox.begin`."""
        group = self._keys(name).group
        with translated():
            try:
                await self._redis.xgroup_create(self._stream, group, "$", mkstream=True)
            except exceptions.ResponseError as problem:
                if not str(problem).startswith("BUSYGROUP"):
                    raise
            return str((await self._groups())[group]["last-delivered-id"])

    async def _groups(self) -> dict[str, Mapping[str, Any]]:
        try:
            found = await self._redis.xinfo_groups(self._stream)
        except exceptions.ResponseError as problem:
            if "no such key" in str(problem):
                return {}
            raise
        return {group["name"]: group for group in found}

    async def take(
        self, name: str, after: str, entries: Sequence[Entry], chosen: Sequence[Chosen]
    ) -> None:
        """See `Outbox.take`."""
        ids = [entry.id for entry in entries]
        if await self._queue(name, [self._keys(name).group, after, len(ids), *ids], chosen) < 0:
            raise Superseded(f"webhook {name}: another process took what follows {after}")

    async def add(self, name: str, chosen: Sequence[Chosen]) -> int:
        """See `Outbox.add`."""
        return await self._queue(name, ["", "", 0], chosen)

    async def _queue(self, name: str, how: Sequence[str | int], chosen: Sequence[Chosen]) -> int:
        keys = self._keys(name)
        arguments: list[str | int] = [*how]
        for each in chosen:
            fields = to_json(dict(each.entry.fields))
            arguments += [padded(each.entry.id), each.lane, _millis(each.wait), fields]
        with translated():
            return int(
                await self._enqueue(
                    keys=[self._stream, keys.due, keys.queue, keys.deliveries, keys.dead],
                    args=arguments,
                )
            )

    async def claim(
        self, name: str, token: str, *, limit: int, depth: int, ttl: timedelta
    ) -> Claimed:
        """See `Outbox.claim`."""
        keys = self._keys(name).all()[:-1]
        with translated():
            now, wait, disabled, since, *lanes = await self._claim(
                keys=keys, args=[token, limit, depth, _millis(ttl)]
            )
        return Claimed(
            at=_moment(now),
            claims=tuple(
                read_claim(lane, token, attempts, zip(told[::2], told[1::2], strict=True))
                for lane, attempts, *told in lanes
            ),
            wait=None if wait == "" else timedelta(milliseconds=float(wait)),
            disabled=disabled,
            failing_since=_moment(since) if since else None,
        )

    async def settle(self, name: str, settlements: Sequence[Settlement]) -> int:
        """See `Outbox.settle`."""
        arguments = [text for each in settlements for text in _settlement(each)]
        with translated():
            return int(await self._settle(keys=self._keys(name).all(), args=arguments))

    async def status(self, name: str) -> Status:
        """See `Outbox.status`."""
        keys = self._keys(name)
        with translated():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hgetall(keys.state)
                pipe.zcard(keys.queue)
                pipe.hlen(keys.attempts)
                pipe.hlen(keys.dead)
                pipe.zrange(keys.due, 0, 0, withscores=True)
                state, waiting, retrying, dead, due = await pipe.execute()
            lag = await self._lag(keys.group)
        times = {
            part: _moment(state[part]) if part in state else None
            for part in ("failing_since", "last_success", "last_error_at")
        }
        following = [due[0][1], float(state.get("hold_until", 0))] if due else []
        return Status(
            disabled=state.get("disabled", ""),
            lag=lag,
            waiting=waiting,
            retrying=retrying,
            dead=dead,
            last_error=state.get("last_error", ""),
            next_attempt=_moment(max(following)) if following else None,
            **times,
        )

    async def _lag(self, group: str) -> int:
        told = (await self._groups()).get(group)
        if told is None:
            return 0
        if (lag := told.get("lag")) is not None:
            return int(lag)
        # Redis 6.2 does not count it, and later ones do not know it after an XDEL
        after = f"({told['last-delivered-id']}"
        return len(await self._redis.xrange(self._stream, after, count=_LAG_LIMIT))

    async def dead(self, name: str) -> list[DeadLetter]:
        """See `Outbox.dead`."""
        with translated():
            return read_dead(await self._redis.hgetall(self._keys(name).dead))

    async def enable(self, name: str) -> None:
        """See `Outbox.enable`."""
        keys = self._keys(name)
        with translated():
            await self._enable(keys=[keys.state, keys.due, keys.claims, keys.attempts])

    async def names(self) -> list[str]:
        """See `Outbox.names`."""
        with translated():
            groups = await self._groups()
        return sorted(g.removeprefix(GROUP_PREFIX) for g in groups if g.startswith(GROUP_PREFIX))

    async def forget(self, name: str) -> None:
        """See `Outbox.forget`."""
        keys = self._keys(name)
        with translated():
            if keys.group in await self._groups():
                await self._redis.xgroup_destroy(self._stream, keys.group)
            await self._redis.delete(*keys.all())


def _settlement(settlement: Settlement) -> Iterator[str | int]:
    """Lay a settlement out as settle.lua reads it."""
    claim = settlement.claim
    yield from (claim.lane, claim.token, settlement.how)
    yield from (_millis(settlement.delay), _millis(settlement.hold), settlement.disable)
    yield settlement.attempts[-1].reason if settlement.attempts else ""
    yield attempts_json(settlement.attempts) if settlement.how == "later" else ""
    yield len(claim.deliveries)
    for entry in claim.deliveries:
        yield padded(entry.id)
        yield dead_json(entry, settlement.attempts) if settlement.how == "dead" else ""


def _millis(span: timedelta) -> int:
    return round(span.total_seconds() * 1000)


def _moment(millis: str | float) -> datetime:
    return datetime.fromtimestamp(float(millis) / 1000, UTC)
