"""The live watchlist on a Redis-compatible server: our marks, and fields that are not ours."""

import re
import shlex
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from poller.errors import BadCode
from poller.model import Code, parse_code
from poller.store.namespace import Namespace
from poller.store.ports import LiveWatchlist
from poller.store.store import SIGNALS_KEPT, WATCHLIST, LiveList

MOST_FIELDS: Final = 250_000
"""Most fields to read: ten times the codes of both markets."""

_BATCH: Final = 500  # fields per answer, so that even large ones block the server only briefly
_NAMED: Final = 3
_LONGEST: Final = 40  # characters shown of a foreign field
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)


class RedisWatchlist(LiveWatchlist):
    """The live watchlist on the server."""

    def __init__(self, namespace: Namespace) -> None:
        self._keys = namespace.keys
        self._redis = namespace.redis
        self._translated = namespace.translated

    async def watch(self, codes: Sequence[Code], *, wanted: bool) -> None:
        """Watch these codes, or do not, whatever the configuration says; signals WATCHLIST."""
        async with self._translated():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(self._keys.watch, mapping=dict.fromkeys(codes, "1" if wanted else "0"))
                pipe.incr(self._keys.watch_version)
                pipe.xadd(self._keys.signals, {"subject": WATCHLIST}, maxlen=SIGNALS_KEPT)
                marked, counted, _ = await pipe.execute(raise_on_error=False)
            if isinstance(marked, Exception):
                raise marked
            if isinstance(counted, Exception):  # another client has overwritten it
                await self._redis.set(self._keys.watch_version, time.time_ns())

    async def watched(self) -> LiveList:
        async with self._translated():
            return await _scan(self._redis, self._keys.watch)

    async def version(self) -> int:
        async with self._translated():
            return version_of(await self._redis.get(self._keys.watch_version))


async def _scan(redis: Any, key: str) -> LiveList:  # noqa: ANN401  redis-py types nothing
    """Read the hash in batches, at most `MOST_FIELDS` fields; raises what `redis` raises."""
    texts: dict[str, str] = {}
    cursor = 0
    while True:
        cursor, batch = await redis.hscan(key, cursor, count=_BATCH)
        texts |= {name: text[:2] for name, text in batch.items()}
        if cursor == 0 or len(texts) >= MOST_FIELDS:
            return read_live(key, texts, cut=cursor != 0)


def read_live(key: str, texts: Mapping[str, str], *, cut: bool = False) -> LiveList:
    """Return the marks among these fields; `cut`: there are more. Never raises."""
    marks: dict[Code, bool] = {}
    foreign: list[str] = []
    for name, text in texts.items():
        try:
            code = parse_code(name)
        except BadCode:
            foreign.append(name)
            continue
        if text in {"0", "1"}:
            marks[code] = text == "1"
        else:
            foreign.append(name)
    problems = []
    if foreign:
        problems.append(_named(key, foreign))
    if cut:
        problems.append(f"{key} has more than {MOST_FIELDS:,} fields, and no more are read")
    return LiveList(marks, "; ".join(problems))


def version_of(text: str | None) -> int:
    """Return a number that changes with the version key, even if that holds no number."""
    if text is None:
        return 0
    return int(text) if _INTEGER.fullmatch(text) else zlib.crc32(text.encode(errors="replace"))


def _named(key: str, foreign: Iterable[str]) -> str:
    names = sorted(foreign)
    shown = ", ".join(_short(name) for name in names[:_NAMED])
    typed = [name for name in names if name.isprintable() and len(name) <= _LONGEST]
    command = shlex.join(["redis-cli", "HDEL", key, *typed[:_NAMED]])
    if not typed:
        command = f"{shlex.join(['redis-cli', 'HKEYS', key])} shows them"
    others = "" if len(names) <= _NAMED else f" and {len(names) - _NAMED:,} more"
    return (
        f"fields of {key} are not part of the list and are passed over: {shown}{others}; {command}"
    )


def _short(name: str) -> str:
    return repr(name if len(name) <= _LONGEST else name[:_LONGEST] + "…")
