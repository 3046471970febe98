"""`python -m tests.fuzz`: see the package."""

import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.fuzz import TARGETS
from tests.fuzz.engine import Target, inputs_of, run


def _asked(environment: Mapping[str, str]) -> tuple[int, float, float]:
    inputs, seconds = environment.get("FUZZ_INPUTS"), environment.get("FUZZ_SECONDS")
    most = math.inf if inputs is None else float(inputs)
    longest = 60.0 if inputs is None else math.inf
    return (
        int(environment.get("FUZZ_SEED", "1")),
        most,
        longest if seconds is None else float(seconds),
    )


def _chosen(environment: Mapping[str, str]) -> list[Target]:
    """Return the targets whose name begins with one of FUZZ_ONLY, which commas part."""
    beginnings = tuple(environment.get("FUZZ_ONLY", "").split(","))
    return [target for target in TARGETS if target.name.startswith(beginnings)]


def _fuzzed(target: Target, folder: Path) -> int:
    """Fuzz a target, print a line for it, and each kind of failure once; returns how many."""
    seed, most, seconds = _asked(os.environ)
    kinds: Counter[str] = Counter()
    over = 0

    def told(data: bytes, text: str, is_over: bool) -> None:  # noqa: FBT001
        nonlocal over
        over += is_over
        kind = text.strip().splitlines()[-1][:80]
        if not kinds[kind]:
            sys.stdout.write(f"\n  {data[:400]!r}\n{text}\n")
        kinds[kind] += 1

    began = time.process_time()
    with target.open(folder) as read:
        count = run(read, inputs_of(target, seed, most=most, seconds=seconds), told)
    took = time.process_time() - began
    uncaught = kinds.total() - over
    sys.stdout.write(f"| {target.name} | {count:,} | {took:.0f} | {uncaught:,} | {over:,} |\n")
    sys.stdout.flush()
    return kinds.total()


def main() -> int:
    """Fuzz every target, in memory where the machine keeps files there."""
    memory = Path("/dev/shm")  # noqa: S108  a folder of our own is made in it
    sys.stdout.write(
        "| target | inputs | s | uncaught | over the bounds |\n|---|--:|--:|--:|--:|\n"
    )
    failures = 0
    for target in _chosen(os.environ):
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
            failures += _fuzzed(target, Path(folder))
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
