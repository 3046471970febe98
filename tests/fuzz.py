"""`python -m tests.fuzz`: what outsiders send, mutated, against every place that reads it.

FUZZ_SECONDS for each target (60), or FUZZ_INPUTS of each; FUZZ_SEED. An input fails when anything
comes out of it but the errors its reader names, or when it takes longer than LONGEST seconds of
processor time. The inputs that failed are printed, with the target and the error; the exit code is
1 then. The suite runs a few thousand of each (`tests/test_fuzz.py`).
"""

import itertools
import json
import math
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pandas as pd

from poller.codec import read_day, read_moment
from poller.delivery.retry import retry_after
from poller.detect.held import Held
from poller.errors import ConfigError, GatewayError, Unreadable
from poller.events import Foreign, Message, decode
from poller.facts.status import Polls, Report
from poller.gateway.vendor import error_of, page_of
from poller.markets import Market, all_markets
from poller.markets.hk import HONG_KONG
from poller.model import Code, Vintage
from poller.plan.release import MarketState
from poller.settings.config import load
from tests.golden import VERSIONS, written

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
    )
)
NOW: Final = datetime(2026, 5, 8, 9, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Target:
    """A place that reads what an outsider sends.

    Attributes:
        name: What a failure is told under.
        seeds: Inputs it takes, to begin with.
        read: Reads one input; whatever it raises is a failure.
    """

    name: str
    seeds: Sequence[bytes]
    read: Callable[[bytes], object]


def mutated(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of the seeds, changed in one to four places."""
    text = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(text))
        to = min(len(text), at + chance.choice((1, 2, 8, 64)))
        match chance.randrange(7):
            case 0:
                text[at:to] = b""
            case 1:
                text[at:at] = chance.choice(_WORDS)
            case 2:
                text[at:to] = chance.choice(_WORDS)
            case 3:
                text[at:to] = chance.randbytes(to - at)
            case 4:
                text[at:at] = text[at:to] * chance.choice((1, 2, 50))
            case 5:
                other = chance.choice(seeds)
                text[at:] = other[chance.randint(0, len(other)) :]
            case _:
                del text[at:]
    return bytes(text[:_MOST])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")  # as redis-py is told to


def _refused(read: Callable[[str], object]) -> Callable[[bytes], object]:
    """Return a reader that may raise Unreadable."""

    def run(data: bytes) -> object:
        try:
            return read(_text(data))
        except Unreadable as problem:
            return str(problem)

    return run


def _header(data: bytes) -> object:
    return retry_after(data.decode("utf-8", "surrogateescape"), NOW)


def _entry(data: bytes) -> Message | Foreign:
    """Read an entry whose fields are joined by NUL."""
    parts = _text(data).split("\x00")
    message = decode("1-0", dict(zip(parts[::2], parts[1::2], strict=False)))
    if not isinstance(message, Foreign):
        json.dumps(message.data, allow_nan=False)
    return message


def _frame(data: bytes) -> object:
    """Read an answer of OpenD made of cells that the input names."""
    chance = random.Random(data)
    cells: tuple[Any, ...] = (
        None,
        math.nan,
        math.inf,
        -1,
        0,
        2**63,
        1e308,
        "",
        _text(data[:40]),
        True,
        [],
        NOW,
    )
    for market in all_markets():
        names = [n for n in market.columns if chance.random() < 0.97]
        good = {"timestamp": 1777478400, "timestamp_str": "2026-04-30"}
        rows = [
            {n: good.get(n, 7) if chance.random() < 0.8 else chance.choice(cells) for n in names}
            for _ in range(chance.randrange(3))
        ]
        frame = pd.DataFrame(rows, columns=names)
        frame.attrs["next_key"] = chance.choice(cells)
        code = Code("HK.00700" if market is HONG_KONG else "US.AAPL")
        try:
            page_of(code, frame, frame)
        except GatewayError:
            continue
    return error_of(_text(data))


class _Configuration:
    """Reads a configuration file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "poller.toml"

    def __call__(self, data: bytes) -> object:
        self._file.write_bytes(data)
        try:
            return load(self._file, {})
        except ConfigError as refused:
            return str(refused)


def _environment(data: bytes) -> object:
    name, _, value = data.decode("utf-8", "surrogateescape").partition("=")
    try:
        return load(
            None, {f"POLLER_{name.replace(chr(0), '')}": value, "POLLER_CONFIG": os.devnull}
        )
    except ConfigError as refused:
        return str(refused)


def _values(version: str, *keys: str) -> list[bytes]:
    found = []
    for key, stored in written(version).items():
        if any(f"}}:{part}" in key for part in keys) and stored["type"] == "hash":
            found += [text.encode() for text in stored["value"].values()]
    return found


def _seeds(*keys: str) -> list[bytes]:
    return [value for version in VERSIONS for value in _values(version, *keys)]


def _entries() -> list[bytes]:
    found = []
    for version in VERSIONS:
        for key in ("short-interest", "{short-interest}:releases"):
            for _, fields in written(version)[key]["value"]:
                found.append("\x00".join(itertools.chain(*fields.items())).encode())
    return found


def targets(folder: Path) -> list[Target]:
    """Return every place that reads what outsiders send and can be asked without a socket."""
    template = Path("config/poller.toml").read_bytes()

    def both(read: Callable[[Market, str], object]) -> Callable[[bytes], object]:
        return _refused(lambda text: [read(market, text) for market in all_markets()])

    return [
        Target(
            "Retry-After",
            [
                *(b"120", b"Fri, 08 May 2026 09:15:00 GMT", b"08 May 2026 09:15:00 +0800"),
                b"Mon, 01 Jan 2026 00:00:00 -9999999999991999",
            ],
            _header,
        ),
        Target("stream entry", _entries(), _entry),
        Target("vintage", _seeds("vintages", "history"), both(Vintage.from_json)),
        Target("held figure", _seeds("held"), both(Held.from_json)),
        Target("plan", _seeds("schedule"), _refused(MarketState.from_json)),
        Target("report", _seeds("status"), _refused(Report.from_json)),
        Target("polls", _seeds("polls"), _refused(Polls.from_json)),
        Target("day", [b"2026-04-30"], _refused(read_day)),
        Target("instant", [b"2026-05-08T09:15:02.123Z"], _refused(read_moment)),
        Target(
            "answer of OpenD", ["获取空头持仓频率太高".encode(), b"NN_ProtoRet_TimeOut"], _frame
        ),
        Target("configuration", [template], _Configuration(folder)),
        Target("environment", [b"BUDGET__REQUESTS=20", b"OPEND__1__PORT=11111"], _environment),
    ]


def run(target: Target, inputs: Iterator[bytes], told: Callable[[bytes, str], None]) -> int:
    """Read inputs until there are no more; returns how many there were."""
    count = 0
    for data in inputs:
        count += 1
        began = time.process_time()
        try:
            target.read(data)
        except Exception:  # noqa: BLE001  that is what is looked for
            told(data, traceback.format_exc())
        if time.process_time() - began > LONGEST:
            told(data, f"took more than {LONGEST} s of processor time")
    return count


def inputs_of(target: Target, seed: int, *, most: float, seconds: float) -> Iterator[bytes]:
    """Yield mutated inputs, the seeds first."""
    chance = random.Random(f"{seed} {target.name}")
    end = time.monotonic() + seconds
    yield from target.seeds
    count = len(target.seeds)
    while count < most and time.monotonic() < end:
        yield mutated(chance, target.seeds)
        count += 1


def _asked(environment: Mapping[str, str]) -> tuple[int, float, float]:
    inputs = environment.get("FUZZ_INPUTS")
    most = math.inf if inputs is None else float(inputs)
    seconds = float(environment.get("FUZZ_SECONDS", "60")) if inputs is None else math.inf
    return int(environment.get("FUZZ_SEED", "1")), most, seconds


def main() -> int:
    """Fuzz every target; print a line for each, and each kind of failure once."""
    seed, most, seconds = _asked(os.environ)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for target in targets(Path(folder)):
            kinds: Counter[str] = Counter()

            def told(data: bytes, text: str, kinds: Counter[str] = kinds) -> None:
                kind = text.strip().splitlines()[-1][:80]
                if not kinds[kind]:
                    sys.stdout.write(f"  {data[:200]!r}\n{text}\n")
                kinds[kind] += 1

            count = run(target, inputs_of(target, seed, most=most, seconds=seconds), told)
            sys.stdout.write(f"{target.name}: {count:,} inputs, {kinds.total():,} failures\n")
            sys.stdout.flush()
            failed |= bool(kinds)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
