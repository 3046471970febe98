"""The outbox on a Redis-compatible server. Each call is one script, so it is atomic.

A script takes and returns one JSON text: redis-py is slow with many small arguments.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from importlib.resources import files
from typing import Any, Final

from redis import exceptions

from poller.codec import from_millis
from poller.delivery.layout import (
    chunks,
    encode_settlement,
    encode_take,
    millis,
    position_field,
    read_claim,
    read_place,
    read_state,
)
from poller.delivery.outbox import (
    ABSENT,
    FURTHEST,
    GROUP_PREFIX,
    MOST_WAITS,
    NOTED,
    Batch,
    Claimed,
    OutboxKeys,
    QueueItem,
    Settlement,
    Status,
    Take,
    Taken,
    WrongKeyType,
    types_of,
    wrong_type_text,
)
from poller.delivery.queued import (
    DeadLetter,
    read_dead,
)
from poller.delivery.script_pipeline import ScriptPipeline
from poller.delivery.status import ASKED, TEXT_SHOWN, ask, lag_of, status_of
from poller.errors import StoreMisfit
from poller.model import to_json
from poller.store.connections import Connections
from poller.store.position import ReaderState, Start, StreamState, start_of
from poller.store.store import Entry, Keys, Stream, beginning_with
from poller.store.translation import WrongType, translated

_LAG_LIMIT: Final = 10_000
_TOGETHER: Final = 100
"""Endpoints in one script, which blocks the server."""


class RedisOutbox:
    """A `poller.delivery.outbox.Outbox` on one server."""

    def __init__(self, url: str, namespace: str) -> None:
        self._namespace = namespace
        self._streams = Keys(namespace)
        self._redis = Connections(url).brief()
        self._calls = ScriptPipeline(self._redis)
        lua = files("poller.delivery") / "lua"
        self._follow, self._positions, self._enqueue, self._exchange, self._due, self._enable = (
            self._redis.register_script((lua / f"{name}.lua").read_text(encoding="utf-8"))
            for name in ("follow", "positions", "enqueue", "exchange", "due", "enable")
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    def _keys(self, name: str) -> OutboxKeys:
        return OutboxKeys(self._namespace, name)

    async def begin(
        self,
        names: Sequence[str],
        stream: Stream = Stream.EVENTS,
        *,
        remembered: Mapping[str, str] | None = None,
    ) -> dict[str, Start | WrongKeyType]:
        """See `Outbox.begin`."""
        found: dict[str, Start | WrongKeyType] = {}
        left = list(names)
        while left:
            places, state = await self._places(left, stream)
            takes = []
            for name, (written, place) in places.items():
                if isinstance(place, WrongKeyType):
                    found[name] = place
                    continue
                if remembered and not (place.position or place.group):
                    place = replace(place, position=remembered.get(name, ""))  # noqa: PLW2901
                found[name] = start = start_of(place, state)
                if start.position != written or start.gone:
                    takes.append((Take(name, written, start.position), start.read))
            left = []
            for take, read in takes:  # one by one, as `read` differs; it is rare
                taken = (await self.take([take], stream, read=read))[take.name]
                if taken.superseded:  # another process begins as well: read what it has stored
                    left.append(take.name)
                elif taken.problem:
                    found[take.name] = WrongKeyType(taken.problem)
        return found

    async def _places(
        self, names: Sequence[str], stream: Stream
    ) -> tuple[dict[str, tuple[str, ReaderState | WrongKeyType]], StreamState]:
        """Return each endpoint's stored position with its place, and the stream's state."""
        found: dict[str, tuple[str, ReaderState | WrongKeyType]] = {}
        state = StreamState(0)
        (other,) = set(Stream) - {stream}
        for some in chunks(names, _TOGETHER):
            keys = [self._keys(name) for name in some]
            answer = json.loads(
                await self._calls.run(
                    self._positions,
                    [self._streams.stream_of(stream), *(each.state for each in keys)],
                    [position_field(stream), position_field(other), *(each.group for each in keys)],
                )
            )
            state = read_state(answer["state"], answer["now"])
            for name, raw in zip(some, answer["places"], strict=True):
                if "error" in raw:
                    place: ReaderState | WrongKeyType = await self._wrong_key_type(name)
                else:
                    place = read_place(raw, answer["now"])
                found[name] = str(raw.get("position", "")), place
        return found, state

    async def follow(self, after: str, count: int, stream: Stream = Stream.EVENTS) -> Batch:
        """See `Outbox.follow`."""
        key = self._streams.stream_of(stream)
        answer = await self._read(self._follow, [key], [after, count])
        state = read_state(answer["state"], 0)
        return Batch(
            tuple(
                Entry(id_, dict(zip(flat[::2], flat[1::2], strict=True)))
                for id_, flat in answer["entries"]
            ),
            state.last,
            state.first,
            state.added,
        )

    async def _read(self, script: Any, keys: Sequence[str], args: Sequence[Any]) -> Any:  # noqa: ANN401
        """Run a script that reads a stream, its first key; return its answer."""
        try:
            return json.loads(await self._calls.run(script, keys, args))
        except WrongType:
            with translated():
                found = await self._redis.type(keys[0])
            if found in {"stream", "none"}:
                raise
            raise StoreMisfit(
                f"the key {keys[0]} holds a {found}, where this service keeps a stream: look at it "
                f"and delete it (DEL {keys[0]})"
            ) from None

    async def take(
        self, takes: Sequence[Take], stream: Stream = Stream.EVENTS, *, read: int | None = None
    ) -> dict[str, Taken]:
        """See `Outbox.take`."""
        found: dict[str, Taken] = {}
        for some in chunks(takes, _TOGETHER):
            answers = await self._queue(some, stream, read)
            for take, answer in zip(some, answers, strict=True):
                if "error" in answer:
                    problem = str(await self._problem(take.name, answer["error"]))
                    found[take.name] = Taken(problem=problem)
                else:
                    superseded, gone = answer.get("superseded", False), answer.get("gone", False)
                    found[take.name] = Taken(superseded, gone)
        return found

    async def add(self, name: str, items: Sequence[QueueItem]) -> int:
        """See `Outbox.add`."""
        (answer,) = await self._queue([Take(name, "", "", items)], Stream.EVENTS, None, replay=True)
        if "error" in answer:
            raise await self._problem(name, answer["error"])
        return int(answer["queued"])

    async def _queue(
        self, takes: Sequence[Take], stream: Stream, read: int | None, *, replay: bool = False
    ) -> list[dict[str, Any]]:
        argument: dict[str, Any] = {"field": position_field(stream), "most_waits": MOST_WAITS}
        argument["takes"] = [
            encode_take(take, self._keys(take.name).group, replay=replay) for take in takes
        ]
        if read is not None:
            argument["read"] = read
        texts = {item.key: item.text for take in takes for item in take.items}
        keys = [self._streams.stream_of(stream)]
        for take in takes:
            keys += self._keys(take.name).all()
        answers = await self._calls.run(self._enqueue, keys, [to_json(argument), to_json(texts)])
        return list(json.loads(answers))

    async def _problem(self, name: str, text: str) -> StoreMisfit:
        """Return what is wrong with an endpoint's keys, or raise what is wrong with the server."""
        if "WRONGTYPE" not in text:
            with translated():
                raise exceptions.ResponseError(text)
        return await self._wrong_key_type(name)

    async def _wrong_key_type(self, name: str) -> WrongKeyType:
        """Find the key that holds another type, and return the error that names it."""
        wanted = dict(types_of(self._keys(name)))
        wanted |= {self._streams.stream_of(each): "stream" for each in Stream}
        with translated():
            async with self._redis.pipeline(transaction=False) as pipe:
                for key in wanted:
                    pipe.type(key)
                kinds = await pipe.execute()
        for (key, kind), found in zip(wanted.items(), kinds, strict=True):
            if found not in {kind, "none"}:
                return WrongKeyType(wrong_type_text(key, found, kind))
        return WrongKeyType(f"a key of webhook {name} held another type just now")

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
        encoded = to_json([encode_settlement(each) for each in settlements])
        times = [millis(each) for each in (ttl, NOTED, ABSENT, FURTHEST)]
        try:
            text = await self._calls.run(
                self._exchange, self._keys(name).all(), [encoded, token, limit, depth, *times]
            )
        except WrongType:
            raise await self._wrong_key_type(name) from None
        answer = json.loads(text)
        return Claimed(
            at=from_millis(answer["now"]),
            claims=tuple(read_claim(each, token) for each in answer["claims"]),
            retrying=answer["retrying"],
            wait=timedelta(milliseconds=answer["wait"]) if "wait" in answer else None,
            disabled=answer.get("disabled", "")[:TEXT_SHOWN],
            failing_since=from_millis(answer["since"]) if "since" in answer else None,
            missing=answer["missing"],
            unplaced=answer.get("unplaced", 0),
        )

    async def unplaced(self, name: str) -> list[tuple[str, str]]:
        """See `Outbox.unplaced`."""
        with translated():
            return sorted((await self._redis.hgetall(self._keys(name).deliveries)).items())

    async def due(self, names: Sequence[str]) -> frozenset[str]:
        """See `Outbox.due`."""
        found: list[str] = []
        for some in chunks(names, _TOGETHER):
            keys = [key for name in some for key in (self._keys(name).due, self._keys(name).queue)]
            places = await self._calls.run(self._due, keys, [millis(FURTHEST)])
            found += [some[place - 1] for place in places]
        return frozenset(found)

    async def status(self, name: str) -> Status:
        """See `Outbox.status`."""
        return (await self.statuses([name]))[name]

    async def statuses(self, names: Sequence[str] | None = None) -> dict[str, Status]:
        """See `Outbox.statuses`."""
        with translated():
            groups = {stream: await self._groups(stream, lenient=True) for stream in Stream}
        wanted = _endpoints(groups.values()) if names is None else names
        streams = [self._streams.stream_of(each) for each in Stream]
        with translated():
            async with self._redis.pipeline(transaction=True) as pipe:
                for key in streams:
                    pipe.type(key)
                for name in wanted:
                    ask(pipe, self._keys(name))
                answers = await pipe.execute(raise_on_error=False)
        for key, kind in zip(streams, answers, strict=False):
            if kind not in {"stream", "none"}:  # then no endpoint has a state
                problem = wrong_type_text(key, kind, "stream")
                return {name: Status(disabled=problem) for name in wanted}
        found = dict(zip(wanted, chunks(answers[len(streams) :], ASKED), strict=True))
        problems = {name: await self._type_problem(name, each) for name, each in found.items()}
        states = {name: each[0] for name, each in found.items() if not problems[name]}
        lags = await self._lags(states, groups)
        return {
            name: Status(disabled=problem) if problem else status_of(found[name], lags[name])
            for name, problem in problems.items()
        }

    async def _type_problem(self, name: str, answers: Sequence[Any]) -> str:
        """Return which of an endpoint's keys holds another type; "" if none does."""
        for each in answers:
            if isinstance(each, Exception):
                try:
                    with translated():
                        raise each
                except WrongType:
                    return str(await self._wrong_key_type(name))
        return ""

    async def _lags(
        self,
        states: Mapping[str, Mapping[str, str]],
        groups: Mapping[Stream, Mapping[str, Mapping[str, Any]]],
    ) -> dict[str, int]:
        """Return how many entries of both streams each endpoint has not read.

        Where entries must be counted, they are counted once for all endpoints at one position.
        """
        found = {
            (name, stream): lag_of(groups[stream].get(self._keys(name).group), state, stream)
            for name, state in states.items()
            for stream in Stream
        }
        unknown = {(stream, lag) for (_, stream), lag in found.items() if isinstance(lag, str)}
        counted = dict[tuple[Stream, int | str], int]()
        if unknown:
            with translated():
                async with self._redis.pipeline(transaction=False) as pipe:
                    for stream, after in unknown:
                        key = self._streams.stream_of(stream)
                        pipe.xrange(key, f"({after}", count=_LAG_LIMIT)
                    counted.update(zip(unknown, map(len, await pipe.execute()), strict=True))
        lags = dict.fromkeys(states, 0)
        for (name, stream), lag in found.items():
            lags[name] += lag if isinstance(lag, int) else counted[stream, lag]
        return lags

    async def _groups(
        self, stream: Stream, *, lenient: bool = False
    ) -> dict[str, Mapping[str, Any]]:
        try:
            found = await self._redis.xinfo_groups(self._streams.stream_of(stream))
        except exceptions.ResponseError as problem:
            if "no such key" in str(problem) or (lenient and "WRONGTYPE" in str(problem)):
                return {}
            raise
        return {group["name"]: group for group in found}

    async def dead(self, name: str) -> list[DeadLetter]:
        """See `Outbox.dead`."""
        try:
            with translated():
                return read_dead(await self._redis.hgetall(self._keys(name).dead))
        except WrongType:
            raise await self._wrong_key_type(name) from None

    async def enable(self, name: str) -> None:
        """See `Outbox.enable`."""
        keys = self._keys(name)
        five = [keys.state, keys.due, keys.claims, keys.attempts, keys.queue]
        try:
            await self._calls.run(self._enable, five, [])
        except WrongType:
            raise await self._wrong_key_type(name) from None

    async def names(self, *, thorough: bool = False) -> list[str]:
        """See `Outbox.names`."""
        with translated():
            found = {*_endpoints([await self._groups(each, lenient=True) for each in Stream])}
            if thorough:
                start = self._keys("").state.removesuffix(":state")
                async for key in self._redis.scan_iter(beginning_with(start), count=1000):
                    found.add(key.removeprefix(start).rpartition(":")[0])
        return sorted(found)

    async def forget(self, name: str) -> None:
        """See `Outbox.forget`."""
        keys = self._keys(name)
        with translated():
            # the groups last: `names` finds an endpoint by them, so a crash can be made up for
            await self._redis.delete(*keys.all())
            for stream in Stream:
                if keys.group in await self._groups(stream):
                    await self._redis.xgroup_destroy(self._streams.stream_of(stream), keys.group)


def _endpoints(groups: Iterable[Iterable[str]]) -> list[str]:
    """Return the endpoints that have a group among those of some streams."""
    names = {name for some in groups for name in some if name.startswith(GROUP_PREFIX)}
    return sorted(name.removeprefix(GROUP_PREFIX) for name in names)
