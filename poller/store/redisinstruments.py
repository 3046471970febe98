"""The names and numbers of shares on a Redis-compatible server: one hash, one codec."""

from collections.abc import Mapping, Sequence
from typing import Final

from poller.errors import Unreadable
from poller.model import Code, Instrument
from poller.store.namespace import Namespace
from poller.store.ports import Instruments
from poller.store.store import NAMES, SIGNALS_KEPT

INSTRUMENTS_BATCH: Final = 1_000
"""Fields per command, so that even a long list blocks the server only briefly."""


class RedisInstruments(Instruments):
    """The names and numbers of shares on the server."""

    def __init__(self, namespace: Namespace) -> None:
        self._keys = namespace.keys
        self._redis = namespace.redis
        self._translated = namespace.translated

    async def instruments(self, codes: Sequence[Code]) -> dict[Code, Instrument]:
        found: dict[Code, Instrument] = {}
        for start in range(0, len(codes), INSTRUMENTS_BATCH):
            some = codes[start : start + INSTRUMENTS_BATCH]
            async with self._translated():
                texts = await self._redis.hmget(self._keys.instruments, some)
            found |= readable_instruments(some, texts)
        return found

    async def save_instruments(self, found: Mapping[Code, Instrument]) -> None:
        texts = {code: each.to_json() for code, each in found.items()}
        async with self._translated(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(self._keys.instruments, mapping=texts)
            pipe.xadd(self._keys.signals, {"subject": NAMES}, maxlen=SIGNALS_KEPT)
            saved, _ = await pipe.execute(raise_on_error=False)
            if isinstance(saved, Exception):  # a lost signal only makes the page late
                raise saved


def readable_instruments(
    codes: Sequence[Code], texts: Sequence[str | None]
) -> dict[Code, Instrument]:
    """Return what these fields of the hash say, but for those that cannot be read."""
    found = ((code, _readable(text)) for code, text in zip(codes, texts, strict=True) if text)
    return {code: read for code, read in found if read is not None}


def _readable(text: str) -> Instrument | None:
    try:
        return Instrument.from_json(text)
    except Unreadable:
        return None  # it is read of OpenD again, and overwritten
