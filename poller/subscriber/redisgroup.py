"""A consumer group of the stream, of which one reader at a time is active: keeps symbols in order.

A reader that dies is followed by another within `TTL` seconds, which begins with what the first was
given and did not acknowledge.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, Final

from poller.codec import number
from poller.errors import StoreMisfit
from poller.store.connections import Connections
from poller.store.position import START, Place, Start, StreamState, start_of
from poller.store.store import Entry, Keys
from poller.store.translation import WrongType, translated

TTL: Final = 10.0
"""Seconds until another reader may take over from one that does not renew."""


@dataclass(frozen=True, slots=True)
class GroupBatch:
    """Entries to work on.

    Attributes:
        last: The id of the last one that the group was ever given.
        resumed: Where the group goes on, when it was found to be gone and made again; else None.
    """

    entries: Sequence[Entry]
    last: str
    resumed: Start | None = None


class RedisGroup:
    """One reader of one group. Every call may raise StoreDown or StoreMisfit."""

    def __init__(self, url: str, namespace: str, group: str, reader: str) -> None:
        """`reader`: a name no other has."""
        self._group, self._reader = group, reader
        keys = Keys(namespace)
        self._keys = [keys.stream, keys.reader(group), keys.subscriber(group)]
        self._redis = Connections(url).brief()
        # A reader's turn is a lease like the poller's, and is given back by the same script.
        self._receive, self._acknowledge, self._renew = (
            self._redis.register_script(
                (files(package) / "lua" / f"{name}.lua").read_text(encoding="utf-8")
            )
            for package, name in (
                ("poller.subscriber", "receive"),
                ("poller.subscriber", "acknowledge"),
                ("poller.store", "renew"),
            )
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def receive(self, start: str, count: int) -> GroupBatch | None:
        """Return what is next, or None while another reader is active.

        Whoever calls has worked on all it was given: the rest of that is given again, first. A
        group that was never known begins after the id `start`; one that is gone goes on where it
        was.
        """
        resumed = None
        answer = await self._receive_after("", start, count)
        if answer is not None and answer[0] == "gone":
            resumed = read_start(json.loads(answer[1]), start)
            answer = await self._receive_after(resumed.position, start, count)
        if answer is None:
            return None
        last, found = answer
        return GroupBatch(tuple(Entry(id_, _pairs(texts)) for id_, texts in found), last, resumed)

    async def _receive_after(self, decided: str, start: str, count: int) -> Any:  # noqa: ANN401
        arguments = [self._group, self._reader, round(TTL * 1000), start, count, decided]
        return await self._run(self._receive, arguments)

    async def acknowledge(self, entry: str) -> bool:
        """Say that an entry is worked on; False when another reader may have taken over."""
        return bool(await self._run(self._acknowledge, [self._group, self._reader, entry]))

    async def _run(self, script: Any, arguments: Sequence[object]) -> Any:  # noqa: ANN401
        try:
            with translated():
                return await script(keys=self._keys, args=arguments)
        except WrongType:
            for key, kind in zip(self._keys, ("stream", "string", "hash"), strict=True):
                with translated():
                    found = await self._redis.type(key)
                if found not in {kind, "none"}:
                    raise StoreMisfit(
                        f"the key {key} holds a {found}, where a {kind} is kept: look at it and "
                        f"delete it (DEL {key}), or choose another group"
                    ) from None
            raise

    async def renew(self) -> None:
        """Remain the active reader, if it is this one."""
        await self._prolong(TTL)

    async def leave(self) -> None:
        """Let another reader take over at once."""
        await self._prolong(0)

    async def _prolong(self, seconds: float) -> None:
        with translated():
            await self._renew(keys=self._keys[1:2], args=[self._reader, round(seconds * 1000)])


def read_start(told: Mapping[str, Any], start: str) -> Start:
    """Return where a group goes on that is gone. `told`: by receive.lua; `start`: if never known.

    Its record may have been written by anybody.
    """
    last = told.get("last", START)
    stream = StreamState(told["now"], last, told.get("first"), told.get("added"))
    found = start_of(Place(str(told.get("acknowledged", "")), number(told, "at")), stream)
    if found.new:  # the record holds neither a place nor a time
        return replace(found, position=last if start == "$" else start)
    return found


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    return dict(zip(texts[::2], texts[1::2], strict=True))
