"""The outbox on a Redis-compatible server. A script a call: whole, or not at all.

What a script takes and gives is one text of JSON: redis-py is slow with many small parts.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any, Final

from redis import exceptions

from poller.delivery.outbox import (
    ABSENT,
    GROUP_PREFIX,
    MOST_WAITS,
    NOTED,
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
from poller.storage.store import Entry, Keys, Stream

_LAG_LIMIT: Final = 10_000


class RedisOutbox:
    """A `poller.delivery.outbox.Outbox` on one server."""

    def __init__(self, url: str, namespace: str) -> None:
        self._namespace = namespace
        self._streams = Keys(namespace)
        self._redis = Connections(url).brief()
        lua = files("poller.delivery") / "lua"
        self._follow, self._enqueue, self._exchange, self._enable = (
            self._redis.register_script((lua / f"{name}.lua").read_text(encoding="utf-8"))
            for name in ("follow", "enqueue", "exchange", "enable")
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    def _keys(self, name: str) -> OutboxKeys:
        return OutboxKeys(self._namespace, name)

    async def begin(self, name: str, stream: Stream = Stream.EVENTS) -> str:
        """See `Outbox.begin`."""
        group, key = self._keys(name).group, self._streams.stream_of(stream)
        with translated():
            try:
                await self._redis.xgroup_create(key, group, "$", mkstream=True)
            except exceptions.ResponseError as problem:
                if not str(problem).startswith("BUSYGROUP"):
                    raise
            return str((await self._groups(stream))[group]["last-delivered-id"])

    async def _groups(self, stream: Stream) -> dict[str, Mapping[str, Any]]:
        try:
            found = await self._redis.xinfo_groups(self._streams.stream_of(stream))
        except exceptions.ResponseError as problem:
            if "no such key" in str(problem):
                return {}
            raise
        return {group["name"]: group for group in found}

    async def follow(self, after: str, count: int, stream: Stream = Stream.EVENTS) -> list[Entry]:
        """See `Outbox.follow`."""
        key = self._streams.stream_of(stream)
        with translated():
            found = json.loads(await self._follow(keys=[key], args=[after, count]))
        return [Entry(id_, dict(zip(flat[::2], flat[1::2], strict=True))) for id_, flat in found]

    async def take(
        self,
        name: str,
        after: str,
        entries: Sequence[Entry],
        chosen: Sequence[Chosen],
        stream: Stream = Stream.EVENTS,
    ) -> None:
        """See `Outbox.take`."""
        group, ids = self._keys(name).group, [entry.id for entry in entries]
        if await self._queue(name, [group, after, to_json(ids)], chosen, stream) < 0:
            raise Superseded(f"webhook {name}: another process took what follows {after}")

    async def add(self, name: str, chosen: Sequence[Chosen]) -> int:
        """See `Outbox.add`."""
        return await self._queue(name, ["", "", ""], chosen)

    async def _queue(
        self,
        name: str,
        how: Sequence[str],
        chosen: Sequence[Chosen],
        stream: Stream = Stream.EVENTS,
    ) -> int:
        keys = self._keys(name)
        deliveries = [
            (padded(one.entry.id), one.lane, _millis(one.wait), to_json(dict(one.entry.fields)))
            for one in chosen
        ]
        with translated():
            return int(
                await self._enqueue(
                    keys=[
                        self._streams.stream_of(stream),
                        keys.due,
                        keys.queue,
                        keys.deliveries,
                        keys.dead,
                        keys.claims,
                        keys.attempts,
                    ],
                    args=[*how, to_json(deliveries), MOST_WAITS],
                )
            )

    async def exchange(
        self,
        name: str,
        settlements: Sequence[Settlement],
        token: str,
        *,
        limit: int,
        depth: int,
        ttl: timedelta,
    ) -> Claimed:
        """See `Outbox.exchange`."""
        written = to_json([_settlement(each) for each in settlements])
        times = [_millis(each) for each in (ttl, NOTED, ABSENT)]
        with translated():
            answer = await self._exchange(
                keys=self._keys(name).all(), args=[written, token, limit, depth, *times]
            )
        told = json.loads(answer)
        return Claimed(
            at=_moment(told["now"]),
            claims=tuple(
                read_claim(each["lane"], token, each.get("attempts", ""), each["deliveries"])
                for each in told["claims"]
            ),
            retrying=told["retrying"],
            wait=timedelta(milliseconds=told["wait"]) if "wait" in told else None,
            disabled=told.get("disabled", ""),
            failing_since=_moment(told["since"]) if "since" in told else None,
        )

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
            lag = sum([await self._lag(keys.group, stream) for stream in Stream])
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

    async def _lag(self, group: str, stream: Stream) -> int:
        told = (await self._groups(stream)).get(group)
        if told is None:
            return 0
        if (lag := told.get("lag")) is not None:
            return int(lag)
        # Redis 6.2 does not count it, and later ones do not know it after an XDEL
        after = f"({told['last-delivered-id']}"
        key = self._streams.stream_of(stream)
        return len(await self._redis.xrange(key, after, count=_LAG_LIMIT))

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
            groups = {group for stream in Stream for group in await self._groups(stream)}
        return sorted(g.removeprefix(GROUP_PREFIX) for g in groups if g.startswith(GROUP_PREFIX))

    async def forget(self, name: str) -> None:
        """See `Outbox.forget`."""
        keys = self._keys(name)
        with translated():
            # the groups last: by them a name is known, and what a kill left behind forgotten again
            await self._redis.delete(*keys.all())
            for stream in Stream:
                if keys.group in await self._groups(stream):
                    await self._redis.xgroup_destroy(self._streams.stream_of(stream), keys.group)


def _settlement(settlement: Settlement) -> dict[str, Any]:
    """Lay a settlement out as exchange.lua reads it."""
    claim = settlement.claim
    told: dict[str, Any] = {"lane": claim.lane, "token": claim.token, "how": settlement.how}
    told["ids"] = [padded(entry.id) for entry in claim.deliveries]
    told["delay"] = _millis(settlement.delay)
    if settlement.how in {"later", "dead"}:
        told["hold"] = _millis(settlement.hold)
        told["disable"] = settlement.disable
        told["error"] = settlement.attempts[-1].reason
        told["attempts"] = attempts_json(settlement.attempts)
    if settlement.how == "dead":
        told["letters"] = [dead_json(entry, settlement.attempts) for entry in claim.deliveries]
    return told


def _millis(span: timedelta) -> int:
    return round(span.total_seconds() * 1000)


def _moment(millis: str | float) -> datetime:
    return datetime.fromtimestamp(float(millis) / 1000, UTC)
