"""A consumer group of the stream, of which one reader at a time is active: keeps symbols in order.

A reader that dies is followed by another within `TTL` seconds, which begins with what the first was
given and did not acknowledge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from poller.storage.connections import Connections, translated
from poller.storage.store import Entry, Keys

TTL: Final = 10.0
"""Seconds until another reader may take over from one that does not renew."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries to work on, and the id of the last one that the group was ever given."""

    entries: Sequence[Entry]
    last: str


class RedisGroup:
    """One reader of one group. Every call may raise StoreDown or StoreMisfit."""

    def __init__(self, url: str, namespace: str, group: str, reader: str) -> None:
        """`reader`: a name no other has."""
        self._group, self._reader = group, reader
        keys = Keys(namespace)
        self._keys = [keys.stream, keys.reader(group)]
        self._redis = Connections(url).brief()
        # A reader's turn is a lease like the poller's, and is given back by the same script.
        self._receive, self._acknowledge, self._renew = (
            self._redis.register_script(
                (files(house) / "lua" / f"{name}.lua").read_text(encoding="utf-8")
            )
            for house, name in (
                ("poller.subscriber", "receive"),
                ("poller.subscriber", "acknowledge"),
                ("poller.storage", "renew"),
            )
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def receive(self, start: str, count: int) -> Batch | None:
        """Return what is next, or None while another reader is active.

        Whoever calls has worked on all it was given: the rest of that is given again, first. A
        group that does not exist begins after the id `start`.
        """
        arguments = [self._group, self._reader, round(TTL * 1000), start, count]
        with translated():
            answer = await self._receive(keys=self._keys, args=arguments)
        if answer is None:
            return None
        last, found = answer
        return Batch(tuple(Entry(id_, _pairs(texts)) for id_, texts in found), last)

    async def acknowledge(self, entry: str) -> bool:
        """Say that an entry is worked on; False when another reader may have taken over."""
        with translated():
            arguments = [self._group, self._reader, entry]
            return bool(await self._acknowledge(keys=self._keys, args=arguments))

    async def renew(self) -> None:
        """Remain the active reader, if it is this one."""
        await self._prolong(TTL)

    async def leave(self) -> None:
        """Let another reader take over at once."""
        await self._prolong(0)

    async def _prolong(self, seconds: float) -> None:
        with translated():
            await self._renew(keys=self._keys[1:], args=[self._reader, round(seconds * 1000)])


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    return dict(zip(texts[::2], texts[1::2], strict=True))
