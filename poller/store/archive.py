"""Reads the histories of many symbols, for commands and `poller.history`.

Any client may have written there. A day that cannot be read is left out and reported with its key
and the command that removes it; everything else is returned.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice
from typing import Any, Final

from poller.codec import read_day
from poller.errors import BadCode, StoreMisfit, Unreadable
from poller.events import StreamNotice, decode
from poller.model import Code, Instrument, Vintage, parse_code
from poller.store.connections import Connections
from poller.store.redisinstruments import INSTRUMENTS_BATCH, readable_instruments
from poller.store.snapshots import as_known_at, read_vintage
from poller.store.store import Keys
from poller.store.translation import translated

BATCH: Final = 100
"""Symbols per request: some megabytes with ten years each, and few enough for a progress bar."""

_MOST_WHOLE: Final = 2**63
"""The range of signed 64-bit integers, the type of whole numbers in Parquet and DataFrames."""

_NOTICES: Final = 1_000  # entries a request: some megabytes with many missing symbols

_NAMED: Final = 5  # unreadable entries listed for one symbol; the others are counted

_Answer = Mapping[str, str] | Exception


@dataclass(frozen=True, slots=True)
class Archived:
    """What is, or was, known of a symbol.

    Attributes:
        code: The symbol.
        vintages: One for each day, newest first.
        unreadable: A sentence for each entry left out, with its key and the fix.
    """

    code: Code
    vintages: tuple[Vintage, ...]
    unreadable: tuple[str, ...] = ()


class Archive:
    """Reads the histories of one namespace. Every call may raise StoreDown or StoreMisfit."""

    def __init__(self, url: str, namespace: str) -> None:
        self.keys = Keys(namespace)
        self._redis = Connections(url).brief()

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def codes(self) -> tuple[Code, ...]:
        """Return every symbol with a watermark, sorted."""
        with translated():
            names = await self._redis.hkeys(self.keys.watermark)
        found = []
        for name in names:
            try:
                found.append(parse_code(name))
            except BadCode:  # another client's field: nothing of it was ever published
                continue
        return tuple(sorted(found))

    async def histories(
        self, codes: Sequence[Code], moment: datetime | None = None
    ) -> AsyncIterator[Archived]:
        """Yield what is known of each code, or was at `moment` (aware), in the order given."""
        for some in _batches(codes, BATCH):
            with translated():
                async with self._redis.pipeline(transaction=False) as pipe:
                    for code in some:
                        pipe.hgetall(self.keys.history(code))
                        pipe.hgetall(self.keys.vintages(code))
                    answers = await pipe.execute(raise_on_error=False)
            for code, texts in zip(some, _pairs(answers), strict=True):
                yield self._read(code, *texts, moment)

    async def instruments(self, codes: Sequence[Code]) -> dict[Code, Instrument]:
        """Return what is known of these symbols besides their figures."""
        found: dict[Code, Instrument] = {}
        for some in _batches(codes, INSTRUMENTS_BATCH):
            with translated():
                texts = await self._redis.hmget(self.keys.instruments, some)
            found |= readable_instruments(some, texts)
        return found

    async def notices(self) -> AsyncIterator[StreamNotice]:
        """Yield the notices on the stream of releases, oldest first; other entries are skipped."""
        after = "-"
        while True:
            with translated():
                found = await self._redis.xrange(self.keys.releases, after, count=_NOTICES)
            for position, fields in found:
                after = f"({position}"
                notice = decode(position, fields)
                if isinstance(notice, StreamNotice):
                    yield notice
            if len(found) < _NOTICES:
                return

    async def days(self, codes: Sequence[Code]) -> tuple[dict[Code, list[date]], list[str]]:
        """Return the days known of each symbol, oldest first, and what cannot be read."""
        found: dict[Code, list[date]] = {}
        unreadable: list[str] = []
        for some in _batches(codes, BATCH):
            with translated():
                async with self._redis.pipeline(transaction=False) as pipe:
                    for code in some:
                        pipe.hkeys(self.keys.history(code))
                    answers = await pipe.execute(raise_on_error=False)
            for code, names in zip(some, answers, strict=True):
                _check(names)
                if isinstance(names, Exception):
                    unreadable.append(_another_type(self.keys.history(code)))
                else:
                    found[code] = sorted(_days(names))
        return found, unreadable

    async def some_days(self, wanted: Mapping[Code, Sequence[date]]) -> AsyncIterator[Archived]:
        """Yield the newest vintages of these days, as far as they are known."""
        for some in _batches(list(wanted), BATCH):
            with translated():
                async with self._redis.pipeline(transaction=False) as pipe:
                    for code in some:
                        pipe.hmget(self.keys.history(code), [str(day) for day in wanted[code]])
                    answers = await pipe.execute(raise_on_error=False)
            for code, texts in zip(some, answers, strict=True):
                _check(texts)
                yield self._read(code, _named(wanted[code], texts), {}, None)

    def _read(
        self, code: Code, history: _Answer, vintages: _Answer, moment: datetime | None
    ) -> Archived:
        """Parse both hashes: a day counts by its vintages, or by its history entry alone."""
        found: list[Vintage] = []
        wrong: list[str] = []
        recorded: set[str] = set()
        for key, texts in (
            (self.keys.vintages(code), vintages),
            (self.keys.history(code), history),
        ):
            if isinstance(texts, Exception):
                wrong.append(_another_type(key))
                continue
            for name, text in texts.items():
                if name in recorded:
                    continue
                try:
                    found.append(_fitting(read_vintage(code, text, name, key), key))
                except StoreMisfit as problem:
                    wrong.append(str(problem))
                else:
                    recorded.add(name.partition(":")[0])
        found.sort(key=lambda vintage: (vintage.day, vintage.revision))
        return Archived(code, tuple(as_known_at(found, moment)), tuple(_shortened(wrong, code)))


def _another_type(key: str) -> str:
    return f"{key} holds another type than this service keeps there: DEL {key}"


def _batches(codes: Sequence[Code], size: int) -> Iterator[list[Code]]:
    left = iter(codes)
    while some := list(islice(left, size)):
        yield some


def _pairs(answers: Sequence[Any]) -> Iterator[tuple[_Answer, _Answer]]:
    for answer in answers:
        _check(answer)
    yield from zip(answers[::2], answers[1::2], strict=True)


def _check(answer: object) -> None:
    """Raise an error, unless it only says that this key has the wrong type."""
    if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
        with translated():
            raise answer


def _named(days: Sequence[date], texts: Sequence[str | None] | Exception) -> _Answer:
    if isinstance(texts, Exception):
        return texts
    pairs = zip(map(str, days), texts, strict=True)
    return {name: text for name, text in pairs if text is not None}


def _days(names: Sequence[str]) -> Iterator[date]:
    for name in names:
        try:
            yield read_day(name)
        except Unreadable:  # the symbol's next poll reports it
            continue


def _fitting(vintage: Vintage, key: str) -> Vintage:
    for name, value in vintage.record.columns().items():
        if isinstance(value, int) and not -_MOST_WHOLE <= value < _MOST_WHOLE:
            raise StoreMisfit(f"{key}: {name} of {vintage.day} does not fit into 64 bits")
    return vintage


def _shortened(wrong: Sequence[str], code: Code) -> Iterator[str]:
    yield from wrong[:_NAMED]
    if len(wrong) > _NAMED:
        yield f"{code}: {len(wrong) - _NAMED:,} more entries cannot be read"
