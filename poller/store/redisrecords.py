"""What is known of each symbol, on a Redis-compatible server: watermarks, history, what is held."""

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import date

from poller.codec import read_day
from poller.detect.compare import Comparison
from poller.errors import BadCode, Superseded
from poller.events import encode
from poller.model import Code, Vintage, parse_code
from poller.store.namespace import Namespace
from poller.store.ports import PollerRecords, Vintages
from poller.store.snapshots import (
    digest_of,
    held_writes_of,
    quarantine_entries,
    read_snapshot,
    read_vintages,
    writes_of,
)
from poller.store.store import Lease, Snapshot, Unparsed, Write, beginning_with


class RedisRecords(PollerRecords, Vintages):
    """What is known of each symbol on the server."""

    def __init__(self, namespace: Namespace) -> None:
        self.keys = namespace.keys
        self._namespace = namespace
        self._redis = namespace.redis
        self._translated = namespace.translated
        self._commit = namespace.script("commit")

    async def snapshot(self, code: Code) -> Snapshot:
        return (await self.unparsed(code)).parse()

    async def unparsed(self, code: Code) -> Unparsed:
        async with self._translated(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hget(self.keys.watermark, code)
            pipe.hgetall(self.keys.history(code))
            pipe.hgetall(self.keys.vintages(code))
            pipe.hgetall(self.keys.held(code))
            watermark, history, vintages, held = await pipe.execute()
        texts = (watermark or "", history, vintages, held)
        return Unparsed(digest_of(texts), lambda: read_snapshot(code, *texts, keys=self.keys))

    async def commit(
        self, code: Code, comparison: Comparison, snapshot: Snapshot, lease: Lease
    ) -> None:
        writes = writes_of(comparison, snapshot)
        held = held_writes_of(comparison, snapshot)
        watermark = str(comparison.watermark or "")
        if not writes and not held and watermark == snapshot.watermark:
            return
        keys = [
            self.keys.stream,
            self.keys.watermark,
            self.keys.history(code),
            self.keys.vintages(code),
            self.keys.lease,
            self.keys.held(code),
            self.keys.quarantine,
        ]
        entries = [encode(event) for event in comparison.events]
        written = _arguments(writes, entries, held, quarantine_entries(code, comparison))
        arguments = [code, lease.value, snapshot.watermark, watermark, *written]
        verdict, *detail = await self._namespace.run(self._commit, keys, arguments)
        if verdict != "ok":
            raise Superseded(f"{code}: {detail[0]} is not what was read")

    async def rehearse(self) -> None:
        """Run a whole commit on scratch keys.

        Fails before the first commit if this user lacks a permission the script needs: a script is
        not rolled back, so a user who may only append would append the same entries at every try.
        """
        scratch = f"{{{self.keys.namespace}}}:rehearsal:{secrets.token_hex(4)}"
        parts = ("stream", "mark", "history", "vintages", "lease", "held", "quarantine")
        keys = [f"{scratch}:{part}" for part in parts]
        entry = {"-": "-"}
        held = [Write("-", "", "-"), Write("--", "", "")]
        written = _arguments([Write("-", "", "-", 0)], [entry], held, [entry])
        async with self._translated():
            # one transaction, so that a kill leaves nothing behind
            async with self._redis.pipeline(transaction=True) as pipe:
                await self._commit(keys=keys, args=["-", "", "", "-", *written], client=pipe)
                pipe.delete(*keys)
                answers = await pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer

    async def watermarks(self) -> dict[Code, date]:
        async with self._translated():
            texts = await self._redis.hgetall(self.keys.watermark)
        found = {}
        for code, text in texts.items():
            try:
                found[parse_code(code)] = read_day(text)
            except ValueError:
                continue  # no symbol, or its poll says what is wrong
        return found

    async def vintages(self, code: Code) -> list[Vintage]:
        async with self._translated():
            texts = await self._redis.hgetall(self.keys.vintages(code))
        return read_vintages(code, texts, keys=self.keys)

    async def history_codes(self) -> list[Code]:
        return await self._codes_under(self.keys.vintages(Code("")))

    async def held_codes(self) -> list[Code]:
        """Return the symbols of which anything is held, in order."""
        return await self._codes_under(self.keys.held(Code("")))

    async def _codes_under(self, start: str) -> list[Code]:
        async with self._translated():
            keys = {key async for key in self._redis.scan_iter(beginning_with(start), count=1000)}
        found = []
        for key in keys:
            with contextlib.suppress(BadCode):  # another client's key
                found.append(parse_code(key.removeprefix(start)))
        return sorted(found)


def _arguments(
    writes: Sequence[Write],
    entries: Sequence[Mapping[str, str]],
    held: Sequence[Write],
    quarantined: Sequence[Mapping[str, str]],
) -> Iterator[str | int]:
    """Lay a commit's days and entries out as commit.lua reads them."""
    yield len(writes)
    for write in writes:
        yield from (write.day, write.expected, write.text)
        yield "" if write.revision is None else write.revision
    yield len(held)
    for each in held:
        yield from (each.day, each.expected, each.text)
    yield from _table(entries)
    yield from _table(quarantined)


def _table(entries: Sequence[Mapping[str, str]]) -> Iterator[str | int]:
    """Yield a head with the names, then the values of each entry."""
    names = tuple(entries[0]) if entries else ()
    yield len(entries)
    yield len(names)
    yield from names
    for entry in entries:
        yield from (entry[name] for name in names)
