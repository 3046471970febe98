"""The streams and the signals on a Redis-compatible server."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from poller.store.namespace import Namespace
from poller.store.ports import Signals, Streams, Trimming
from poller.store.position import LAST, START
from poller.store.retention import Group
from poller.store.store import SIGNALS_KEPT, Entry, News, Stream, order


class RedisStreams(Streams, Signals, Trimming):
    """The streams and the signals."""

    def __init__(self, namespace: Namespace) -> None:
        self._keys = namespace.keys
        self._redis = namespace.redis
        self._blocking = namespace.blocking
        self._translated = namespace.translated

    async def read(
        self, after: str, *, count: int, block: float | None, stream: Stream = Stream.EVENTS
    ) -> list[Entry]:
        position = {self._keys.stream_of(stream): after}
        if block is None:
            async with self._translated():
                found = await self._redis.xread(position, count=count)
        else:
            async with self._translated(), self._blocking.reading(block) as redis:
                found = await redis.xread(position, count=count, block=_milliseconds(block))
        return [_entry(*entry) for entry in _only_stream(found)]

    async def last_entries(self, count: int, stream: Stream = Stream.EVENTS) -> list[Entry]:
        async with self._translated():
            found = await self._redis.xrevrange(self._keys.stream_of(stream), count=count)
        return [_entry(*entry) for entry in reversed(found)]

    async def signal(self, subject: str) -> None:
        """Wake all tasks that wait for news of this subject, in every process."""
        async with self._translated():
            await self._redis.xadd(self._keys.signals, {"subject": subject}, maxlen=SIGNALS_KEPT)

    async def news(self, position: Mapping[str, str] | None, *, block: float) -> News:
        """See `Signals.news`.

        The read does not return the newest ids, so they are fetched and compared; even after a read
        without an answer, because ids start again when a stream is deleted.
        """
        if position is not None:
            async with self._translated(), self._blocking.reading(block) as redis:
                await redis.xread(dict(position), count=1, block=_milliseconds(block))
        seen = position[self._keys.signals] if position is not None else START
        async with self._translated(), self._redis.pipeline(transaction=False) as pipe:
            pipe.xrevrange(self._keys.stream, count=1)
            pipe.xrevrange(self._keys.releases, count=1)
            least = LAST if seen == LAST else f"({seen}"
            pipe.xrevrange(self._keys.signals, min=least, count=SIGNALS_KEPT)
            pipe.xrevrange(self._keys.signals, count=1)
            events, releases, signals, last = await pipe.execute()
        newest = {
            self._keys.stream: _newest_id(events),
            self._keys.releases: _newest_id(releases),
            self._keys.signals: _newest_id(signals or last),
        }
        began_again = order(newest[self._keys.signals]) < order(seen)
        if position is None or began_again or len(signals) >= SIGNALS_KEPT:
            return News(newest, None)
        grown = {s for s in Stream if newest[k := self._keys.stream_of(s)] != position[k]}
        subjects = {fields.get("subject", "") for _, fields in signals}
        return News(newest, frozenset(grown | subjects))

    async def groups(self, stream: Stream) -> list[Group]:
        key = self._keys.stream_of(stream)
        async with self._translated():
            first = await self._redis.xrange(key, count=1)
            if not first:
                return []
            return [
                Group(each["name"], await self._unread(key, each, first[0][0]))
                for each in await self._redis.xinfo_groups(key)
            ]

    async def _unread(self, key: str, group: Mapping[str, Any], first: str) -> str | None:
        # entries trimmed before they were acknowledged stay in the group's list: skip them
        pending = await self._redis.xpending_range(key, group["name"], first, "+", 1)
        if pending:
            return str(pending[0]["message_id"])
        if group["last-delivered-id"] == LAST:
            return None
        after = f"({group['last-delivered-id']}"
        entries = await self._redis.xrange(key, after, count=1)
        return entries[0][0] if entries else None

    async def trim(self, before: str, stream: Stream) -> int:
        key = self._keys.stream_of(stream)
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


def _entry(position: str, fields: Mapping[str, str]) -> Entry:
    """Return an entry that readers can encode: lone surrogates become U+FFFD."""
    return Entry(position, {_readable(name): _readable(text) for name, text in fields.items()})


def _readable(text: str) -> str:
    if text.isascii():
        return text
    return text.encode(errors="surrogateescape").decode(errors="replace")


def _newest_id(entries: Sequence[tuple[str, Any]]) -> str:
    return entries[0][0] if entries else START


def _milliseconds(block: float) -> int:
    return max(1, round(block * 1000))  # 0 would block for ever
