"""Mutated inputs, what reads them, and what counts as a failure."""

import asyncio
import logging
import random
import re
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from poller.errors import Unreadable

LONGEST: Final = 1.0
"""Seconds of processor time one input may take."""

_MOST: Final = 64 * 1024
_WORDS: Final = tuple(
    word.encode()
    for word in (
        *("NaN", "Infinity", "-1", "0", "1e400", "1e308", "9" * 400, "null", "true", "[]", "{}"),
        *("[" * 500, '{"a":' * 300, "\x00", "\x1b[31m", "\u202e", "\ufeff", "\x85", "\\ud800"),
        *("0001-01-01", "9999-12-31", "+14:00", "-9999999999991999", "T", "Z", "GMT", "Mon, "),
        *("HK.00700", "US.AAPL", "short_interest.reported", "%2F", "\r\n", "\n", " ", "|", ":"),
        *("nan", "-inf", "1_0", "٣", "0-0", "18446744073709551615-18446744073709551615"),
    )
)
_TOKEN: Final = re.compile(
    rb'(?<=[:\[, ])("(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null)(?=[,\]}])'
)
"""A value in JSON that holds no others."""

_VALUES: Final = tuple(
    value.encode()
    for value in (
        *("null", "true", "0", "-1", "1", "1.5", "1e-320", "1e18", "1e308", "1e400", "-0.0", "NaN"),
        *(
            "9007199254740993",
            "18446744073709551615",
            "18446744073709551616",
            "9" * 100,
            "[]",
            "{}",
        ),
        *(
            '""',
            '"x"',
            '"0"',
            '"HK.00700"',
            '"US.AAPL"',
            '"release.completed"',
            '"\\ud800"',
            "[[]]",
        ),
        *('"\\u0000"', '"\u202e"', '"2026-05-08"', '"1900-01-01"', '"2199-12-31"', '"2026-02-30"'),
        *('"2026-05-08T09:15:02.123Z"', '"1900-01-01T00:00:00Z"', '"2199-12-31T23:59:59.999999Z"'),
        *('"1900-01-01T00:00:00+14:00"', f'"{"x" * 300}"', '[["a"]]', '{"a":{"a":null}}', "[null]"),
    )
)
_ALIKE: Final = {
    is_text: tuple(value for value in _VALUES if value.startswith(b'"') is is_text)
    for is_text in (True, False)
}
NOW: Final = datetime(2026, 5, 8, 9, tzinfo=UTC)

Read = Callable[[bytes], object]


class OverBounds(AssertionError):
    """What came of an input is larger, or took longer, than it may."""


@dataclass(frozen=True, slots=True)
class Target:
    """A place that reads what an outsider sends.

    Attributes:
        name: What a failure is told under.
        seeds: Returns inputs it takes, to begin with.
        open: Returns what reads one input, with a folder of its own; whatever that raises is a
            failure.
        keys: The keys of the README's table that are read by the same code.
        words: What is put into inputs, beside what is put into those of every target.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    open: Callable[[Path], AbstractContextManager[Read]]
    keys: tuple[str, ...] = ()
    words: tuple[bytes, ...] = ()


def plain(read: Read) -> Callable[[Path], AbstractContextManager[Read]]:
    """Return how to open a reader that needs nothing."""
    return lambda _: nullcontext(read)


def text_of(data: bytes) -> str:
    """Return an input as redis-py is told to decode it."""
    return data.decode("utf-8", "replace")


def refused(read: Callable[[str], object]) -> Callable[[Path], AbstractContextManager[Read]]:
    """Return how to open a reader of texts that may raise Unreadable, in few words."""

    def run(data: bytes) -> object:
        try:
            return read(text_of(data))
        except Unreadable as problem:
            bounded(str(problem), 300)
            return None

    return plain(run)


def bounded(text: str | bytes, most: int) -> None:
    """Raise OverBounds when a text is longer than it may be."""
    if len(text) > most:
        raise OverBounds(f"{len(text):,} characters where {most:,} are the most")


class Noise(logging.Handler):
    """What a loop is told of exceptions nobody took, and what is logged as a warning or worse."""

    def __init__(self) -> None:
        """Hear nothing yet."""
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a line, with its traceback."""
        trace = "" if record.exc_info is None else f"\n{logging.Formatter().format(record)}"
        self.lines.append(f"{record.name}: {record.getMessage()}{trace}")

    def take(self) -> list[str]:
        """Return what was heard since the last time."""
        found, self.lines = self.lines, []
        return found

    @contextmanager
    def of(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Listen while the block runs."""
        loop.set_exception_handler(
            lambda _, told: self.lines.append(f"{told['message']}: {told.get('exception')!r}")
        )
        logging.getLogger().addHandler(self)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(self)


def mutated(chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """Return one of the seeds, changed in one to four places; half of them in values alone."""
    text = bytearray(chance.choice(seeds))
    gentle = chance.random() < 0.5
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(text))
        to = min(len(text), at + chance.choice((1, 2, 8, 64)))
        known = words if words and chance.random() < 0.5 else _WORDS
        match 7 if gentle else chance.randrange(8):
            case 0:
                text[at:to] = b""
            case 1:
                text[at:at] = chance.choice(known)
            case 2:
                text[at:to] = chance.choice(known)
            case 3:
                text[at:to] = chance.randbytes(to - at)
            case 4:
                text[at:at] = text[at:to] * chance.choice((1, 2, 50))
            case 5:
                other = chance.choice(seeds)
                text[at:] = other[chance.randint(0, len(other)) :]
            case 6:
                del text[at:]
            case _:
                found = _TOKEN.search(text, at)
                if found is None:
                    text[at:to] = chance.choice(known)
                    continue
                alike = chance.random() < 0.8
                values = _ALIKE[found[0].startswith(b'"')] if alike else _VALUES
                text[found.start() : found.end()] = chance.choice(values)
    return bytes(text[:_MOST])


def inputs_of(target: Target, seed: int, *, most: float, seconds: float) -> Iterator[bytes]:
    """Yield mutated inputs, the seeds first. `seconds`: of processor time."""
    chance = random.Random(f"{seed} {target.name}")
    end = time.process_time() + seconds
    seeds = target.seeds()
    count = 0
    for count, each in enumerate(seeds[: int(min(most, len(seeds)))], 1):  # noqa: B007
        yield each
    while count < most and time.process_time() < end:
        yield mutated(chance, seeds, target.words)
        count += 1


def run(read: Read, inputs: Iterator[bytes], told: Callable[[bytes, str, bool], None]) -> int:
    """Read inputs until there are no more; returns how many there were.

    `told`: is given what failed: the input, why, and whether a bound was passed.
    """
    count = 0
    for data in inputs:
        count += 1
        began = time.process_time()
        try:
            read(data)
        except OverBounds as over:
            told(data, str(over), True)  # noqa: FBT003
        except Exception:  # noqa: BLE001  that is what is looked for
            told(data, traceback.format_exc(), False)  # noqa: FBT003
        if time.process_time() - began > LONGEST:
            told(data, f"took more than {LONGEST} s of processor time", True)  # noqa: FBT003
    return count
