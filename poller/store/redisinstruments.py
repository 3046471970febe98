"""The names and numbers of shares on a Redis-compatible server: one hash, one codec."""

from collections.abc import Mapping, Sequence
from typing import Final

from poller.errors import Unreadable
from poller.model import Code, Instrument
from poller.store.namespace import Namespace
from poller.store.ports import Instruments
from poller.store.store import NAMES, SIGNALS_KEPT

_BATCH: Final = 1_000  # fields per command, so that even a long list blocks the server only briefly


class RedisInstruments(Instruments):
    """The names and numbers of shares on the server."""

    def __init__(self, namespace: Namespace) -> None:
        self._keys = namespace.keys
        self._redis = namespace.redis
        self._translated = namespace.translated

    async def instruments(self, codes: Sequence[Code]) -> dict[Code, Instrument]:
        found: dict[Code, Instrument] = {}
        for start in range(0, len(codes), _BATCH):
            some = codes[start : start + _BATCH]
            async with self._translated():
                texts = await self._redis.hmget(self._keys.instruments, some)
            for code, text in zip(some, texts, strict=True):
                if text is not None and (read := _readable(text)) is not None:
                    found[code] = read
        return found

    async def save_instruments(self, found: Mapping[Code, Instrument]) -> None:
        texts = {code: each.to_json() for code, each in found.items()}
        async with self._translated(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(self._keys.instruments, mapping=texts)
            pipe.xadd(self._keys.signals, {"subject": NAMES}, maxlen=SIGNALS_KEPT)
            saved, _ = await pipe.execute(raise_on_error=False)
            if isinstance(saved, Exception):  # a lost signal only makes the page late
                raise saved


def _readable(text: str) -> Instrument | None:
    try:
        return Instrument.from_json(text)
    except Unreadable:
        return None  # it is read of OpenD again, and overwritten
