"""The status store on a Redis-compatible server."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from poller.codec import Codec
from poller.errors import BadCode, StoreMisfit, Unreadable
from poller.model import Code, parse_code, to_json
from poller.store.connections import Connections
from poller.store.store import OPEND, SIGNALS_KEPT, SYMBOLS, Keys
from poller.store.translation import WrongType, translated
from poller.telemetry.status import DEAD_AFTER, Polls, ProcessReport, living
from poller.telemetry.status_store import StatusKeys

_MOST_SYMBOLS: Final = 4 * 1024 * 1024  # characters: a watchlist of 50,000 codes has a fifth
_SYMBOLS: Final = Codec[tuple[str, ...]](tuple[str, ...], most=_MOST_SYMBOLS)
_HELD: Final = re.compile(r"[0-9]{1,19}:.+", re.DOTALL)


class RedisStatusStore:
    """A `poller.telemetry.status_store.StatusStore` on one server."""

    def __init__(self, url: str, namespace: str) -> None:
        self.keys = StatusKeys(namespace)
        self._store = Keys(namespace)
        self._redis = Connections(url).brief()
        self._swept = datetime.min.replace(tzinfo=UTC)

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def reports(self) -> dict[str, ProcessReport]:
        """See `StatusStore.reports`."""
        with _naming(self.keys.status):
            texts = await self._redis.hgetall(self.keys.status)
        read = {name: ProcessReport.from_json(text) for name, text in texts.items()}
        return {name: report for name, report in read.items() if report is not None}

    async def report(self, process: str, report: ProcessReport) -> None:
        """See `StatusStore.report`."""
        with _naming(self.keys.status):
            await self._redis.hset(self.keys.status, process, report.to_json())
        if abs(report.at - self._swept) < DEAD_AFTER:
            return
        self._swept = report.at
        with translated():
            names = await self._redis.hkeys(self.keys.status)
        if len(names) > 1:
            alive = living(await self.reports(), report.at)
            if dead := [name for name in names if name not in alive]:
                with translated():
                    await self._redis.hdel(self.keys.status, *dead)

    async def retire(self, process: str) -> None:
        """See `StatusStore.retire`."""
        with translated():
            await self._redis.hdel(self.keys.status, process)

    async def symbols(self) -> tuple[Code, ...] | None:
        """See `StatusStore.symbols`."""
        try:
            with translated():
                text = await self._redis.get(self.keys.symbols)
        except WrongType:
            return None  # the active poller will overwrite it
        return None if text is None else read_symbols(text)

    async def save_symbols(self, codes: Sequence[Code]) -> None:
        """See `StatusStore.save_symbols`."""
        with translated():
            await self._redis.set(self.keys.symbols, to_json(list(codes)))
        with contextlib.suppress(StoreMisfit), translated():  # readers also look now and then
            signal = {"subject": SYMBOLS}
            await self._redis.xadd(self._store.signals, signal, maxlen=SIGNALS_KEPT)

    async def polls(self, codes: Sequence[Code]) -> dict[Code, Polls]:
        """See `StatusStore.polls`."""
        if not codes:
            return {}
        with _naming(self.keys.polls):
            texts = await self._redis.hmget(self.keys.polls, codes)
        read = {code: Polls.from_json(t) for code, t in zip(codes, texts, strict=True) if t}
        return {code: polls for code, polls in read.items() if polls is not None}

    async def save_polls(self, polls: Mapping[Code, Polls]) -> None:
        """See `StatusStore.save_polls`."""
        with _naming(self.keys.polls):
            texts = {code: each.to_json() for code, each in polls.items()}
            await self._redis.hset(self.keys.polls, mapping=texts)

    async def histories(self, codes: Sequence[Code]) -> list[Mapping[str, str]]:
        """See `StatusStore.histories`."""
        with translated():
            async with self._redis.pipeline(transaction=False) as pipe:
                for code in codes:
                    pipe.hgetall(self._store.history(code))
                found: list[Mapping[str, str]] = await pipe.execute()
        return found

    async def vintages(self, code: Code, names: Sequence[str]) -> list[str | None]:
        """See `StatusStore.vintages`."""
        if not names:
            return []
        with translated():
            found: list[str | None] = await self._redis.hmget(self._store.vintages(code), names)
        return found

    async def lease(self) -> str:
        """See `StatusStore.lease`."""
        text = ""
        with contextlib.suppress(WrongType), translated():
            text = str(await self._redis.get(self._store.lease) or "")
        return text if _HELD.fullmatch(text) else ""

    async def simulated(self) -> bool:
        """See `StatusStore.simulated`."""
        with translated():
            return (await self._redis.get(self._store.simulated) or OPEND) != OPEND

    async def stream_length(self) -> int:
        """See `StatusStore.stream_length`."""
        with translated():
            return int(await self._redis.xlen(self._store.stream))


def read_symbols(text: str) -> tuple[Code, ...] | None:
    """Return the watched codes; None when the text is not a list of codes."""
    try:
        return tuple(map(parse_code, _SYMBOLS.read(text)))
    except (Unreadable, BadCode):
        return None


@contextlib.contextmanager
def _naming(key: str) -> Iterator[None]:
    """Turn redis-py's errors into ours; a wrong type of `key` is reported with its name."""
    try:
        with translated():
            yield
    except WrongType:
        raise StoreMisfit(
            f"the key {key} holds another type than this service keeps there: look at it, and "
            f"remove it: DEL {key}"
        ) from None
