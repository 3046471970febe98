"""The board on a Redis-compatible server."""

import json
from collections.abc import Mapping, Sequence

from poller.errors import BadCode
from poller.facts.board import BoardKeys
from poller.facts.status import Polls, Report, living
from poller.model import Code, parse_code, to_json
from poller.storage.connections import Connections, translated
from poller.storage.store import OPEND, SIGNALS_KEPT, SYMBOLS, Keys


class RedisBoard:
    """A `poller.facts.board.Board` on one server."""

    def __init__(self, url: str, namespace: str) -> None:
        self.keys = BoardKeys(namespace)
        self._store = Keys(namespace)
        self._redis = Connections(url).brief()

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def reports(self) -> dict[str, Report]:
        """See `Board.reports`."""
        with translated():
            texts = await self._redis.hgetall(self.keys.status)
        read = {name: Report.from_json(text) for name, text in texts.items()}
        return {name: report for name, report in read.items() if report is not None}

    async def report(self, process: str, report: Report) -> None:
        """See `Board.report`."""
        with translated():
            await self._redis.hset(self.keys.status, process, report.to_json())
            names = await self._redis.hkeys(self.keys.status)
        if len(names) > 1:
            alive = living(await self.reports(), report.at)
            if dead := [name for name in names if name not in alive]:
                with translated():
                    await self._redis.hdel(self.keys.status, *dead)

    async def retire(self, process: str) -> None:
        """See `Board.retire`."""
        with translated():
            await self._redis.hdel(self.keys.status, process)

    async def symbols(self) -> tuple[Code, ...] | None:
        """See `Board.symbols`."""
        with translated():
            text = await self._redis.get(self.keys.symbols)
        try:
            return None if text is None else tuple(parse_code(each) for each in json.loads(text))
        except (ValueError, TypeError, BadCode):
            return None

    async def tell_symbols(self, codes: Sequence[Code]) -> None:
        """See `Board.tell_symbols`."""
        with translated():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(self.keys.symbols, to_json(list(codes)))
                pipe.xadd(self._store.signals, {"subject": SYMBOLS}, maxlen=SIGNALS_KEPT)
                await pipe.execute()

    async def polls(self, codes: Sequence[Code]) -> dict[Code, Polls]:
        """See `Board.polls`."""
        if not codes:
            return {}
        with translated():
            texts = await self._redis.hmget(self.keys.polls, codes)
        read = {code: Polls.from_json(t) for code, t in zip(codes, texts, strict=True) if t}
        return {code: polls for code, polls in read.items() if polls is not None}

    async def tell_polls(self, polls: Mapping[Code, Polls]) -> None:
        """See `Board.tell_polls`."""
        with translated():
            told = {code: each.to_json() for code, each in polls.items()}
            await self._redis.hset(self.keys.polls, mapping=told)

    async def histories(self, codes: Sequence[Code]) -> list[Mapping[str, str]]:
        """See `Board.histories`."""
        with translated():
            async with self._redis.pipeline(transaction=False) as pipe:
                for code in codes:
                    pipe.hgetall(self._store.history(code))
                found: list[Mapping[str, str]] = await pipe.execute()
        return found

    async def lease(self) -> str:
        """See `Board.lease`."""
        with translated():
            return str(await self._redis.get(self._store.lease) or "")

    async def simulated(self) -> bool:
        """See `Board.simulated`."""
        with translated():
            return (await self._redis.get(self._store.simulated) or OPEND) != OPEND

    async def stream_length(self) -> int:
        """See `Board.stream_length`."""
        with translated():
            return int(await self._redis.xlen(self._store.stream))
