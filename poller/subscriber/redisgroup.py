"""A consumer group of the stream, with one active reader at a time, or shared by several.

Either way symbols stay in order. If a reader crashes, another takes over within `TTL` seconds,
beginning with the entries that the first received and did not acknowledge.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, Final

from poller.codec import number
from poller.errors import StoreMisfit
from poller.store.connections import Connections
from poller.store.position import START, ReaderState, Start, StreamState, start_of
from poller.store.store import Entry, Keys
from poller.store.translation import WrongType, translated

TTL: Final = 10.0
"""Seconds until another reader may take over from one that does not renew."""

_ALONE: Final = ("receive", "acknowledge", "renew")
_SHARING: Final = ("share", "share_acknowledge", "share_renew")

_KINDS: Final = ("stream", "string", "hash", "zset", "hash")


@dataclass(frozen=True, slots=True)
class GroupBatch:
    """Entries to process.

    Attributes:
        last: The id of the last entry ever delivered to the group.
        resumed: Where the group goes on, if it had been deleted and was created again; else None.
        waiting: How many entries of a shared group wait until others have acknowledged theirs.
    """

    entries: Sequence[Entry]
    last: str
    resumed: Start | None = None
    waiting: int = 0


class RedisGroup:
    """One reader of one group. Every call may raise StoreDown or StoreMisfit."""

    def __init__(
        self, url: str, namespace: str, group: str, reader: str, *, share: bool = False
    ) -> None:
        """`reader`: a unique name; `share`: be one of several active readers."""
        self._group, self._reader = group, reader
        keys = Keys(namespace)
        self._keys = [keys.stream, keys.reader(group), keys.subscriber(group)]
        if share:
            self._keys += [keys.sharers(group), keys.shared(group)]
        self._redis = Connections(url).brief()
        names = _SHARING if share else _ALONE
        self._receive, self._acknowledge, self._renew = (
            self._redis.register_script(f"{_lua('group')}\n{_lua(name)}") for name in names
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def receive(self, start: str, count: int) -> GroupBatch | None:
        """Return the next entries, or None while another reader has the group for itself.

        Call it only when all entries received so far are acknowledged: unacknowledged ones are
        delivered again first. A new group begins after the id `start`; one that was deleted goes on
        where it was.
        """
        resumed = None
        answer = await self._receive_after("", start, count)
        if answer is not None and answer[0] == "gone":
            resumed = read_start(json.loads(answer[1]), start)
            answer = await self._receive_after(resumed.position, start, count)
        if answer is None:
            return None
        last, found, *waiting = answer
        entries = tuple(Entry(id_, _pairs(texts)) for id_, texts in found)
        return GroupBatch(entries, last, resumed, *waiting)

    async def _receive_after(self, decided: str, start: str, count: int) -> Any:  # noqa: ANN401
        arguments = [self._group, self._reader, round(TTL * 1000), start, count, decided]
        return await self._run(self._receive, arguments)

    async def acknowledge(self, entry: str) -> bool:
        """Acknowledge an entry; return False if another reader may have taken over."""
        return bool(await self._run(self._acknowledge, [self._group, self._reader, entry]))

    async def _run(self, script: Any, arguments: Sequence[object]) -> Any:  # noqa: ANN401
        try:
            with translated():
                return await script(keys=self._keys, args=arguments)
        except WrongType:
            for key, kind in zip(self._keys, _KINDS, strict=False):
                with translated():
                    found = await self._redis.type(key)
                if found not in {kind, "none"}:
                    raise StoreMisfit(
                        f"the key {key} holds a {found}, where a {kind} is kept: look at it and "
                        f"delete it (DEL {key}), or choose another group"
                    ) from None
            raise

    async def renew(self) -> None:
        """Stay an active reader, if this is one."""
        await self._prolong(TTL)

    async def leave(self) -> None:
        """Let another reader take over at once."""
        await self._prolong(0)

    async def _prolong(self, seconds: float) -> None:
        with translated():
            arguments = [self._group, self._reader, round(seconds * 1000)]
            await self._renew(keys=self._keys, args=arguments)


def read_start(answer: Mapping[str, Any], start: str) -> Start:
    """Return where a deleted group goes on, by the answer of receive.lua.

    `start`: where it begins if the answer holds neither a valid position nor a time.
    """
    last = answer.get("last", START)
    stream = StreamState(answer["now"], last, answer.get("first"), answer.get("added"))
    found = start_of(ReaderState(str(answer.get("acknowledged", "")), number(answer, "at")), stream)
    if found.new:
        return replace(found, position=last if start == "$" else start)
    return found


def _lua(name: str) -> str:
    return (files("poller.subscriber") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    return dict(zip(texts[::2], texts[1::2], strict=True))
