"""`make mutants`: does the suite notice mistakes? Many small ones are made, one at a time.

MUTANTS mistakes (150) are drawn by MUTANTS_SEED (1), as many from each area below. For each, the
tests that reach its module run in a copy of the checkout, at low priority, until one fails;
MUTANTS_WORKERS (2) copies work side by side. MUTANTS_ONLY=text draws from the files alone whose
path contains it. Fails when less than 92 % are noticed.
"""

import contextlib
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.family import ENDED
from tests.mutations import Mutation, Signatures, in_lua, in_python, signatures
from tests.unnoticeable import UNNOTICEABLE

ROOT: Final = Path(__file__).parent.parent
TARGET: Final = 0.92
_LONGEST_TEST: Final = 30  # seconds on a quiet machine; a test that takes longer hangs
_MOST_TIME: Final = 5
"""So many times as long as without a mistake, and a run counts as one that hangs."""

_LEAST_TIME: Final = 120.0  # seconds
_PATIENCE: Final = "2"  # of the tests: the copies keep each other waiting
_IGNORED: Final = (".git", ".venv", "__pycache__", ".hypothesis", "state", ".*_cache")

_SUITES: Final = {"outbox", "store"}
"""These run on every server; in memory and on the embedded one they say the same as on all."""

_ONE_SERVER: Final = "not cluster and not sentinel and not redis"

Tests = tuple[str, ...]
Area = Mapping[str, Tests]
"""Sources by pattern, of which the first match counts, and their tests, the quickest first."""

AREAS: Final[Mapping[str, Area]] = {
    "detect": {
        "poller/detect/rebuild.py": ("rebuild",),
        "poller/detect/change.py": ("change", "causes", "quarantine", "promises"),
        "poller/detect/compare.py": ("poll", "causes", "quarantine", "promises", "bounds"),
        "poller/detect/held.py": ("quarantine", "causes", "gate", "bounds", "store"),
        "poller/detect/*.py": ("bounds", "promises", "quarantine", "gate", "causes"),
    },
    "schedule": {
        "poller/schedule/report.py": ("market_report", "market"),
        "poller/schedule/rights.py": ("rights", "rights_played"),
        "poller/schedule/calendar.py": ("calendar", "expectation"),
        "poller/schedule/*.py": ("market", "expectation", "calendar", "schedule", "market_report"),
        "poller/markets/*.py": ("calendar", "expectation", "quarantine", "simulator_world"),
    },
    "polling": {
        "poller/polling/budget.py": ("budget",),
        "poller/polling/trim.py": ("retention",),
        "poller/polling/watchlist.py": ("watchlist",),
        "poller/polling/leadership.py": ("leadership", "bulkheads"),
        "poller/polling/gate.py": ("gate",),
        "poller/polling/entitlements.py": ("turns", "rights_played"),
        "poller/polling/failures.py": ("failure_tracker",),
        "poller/polling/settling.py": ("settling",),
        "poller/polling/*.py": (
            *("poll", "bulkheads", "leadership", "restored", "gate", "turns", "schedule"),
        ),
    },
    "delivery": {
        "poller/delivery/retry.py": ("retry", "relay"),
        "poller/delivery/pace.py": ("pace", "relay"),
        "poller/delivery/addresses.py": ("addresses", "client"),
        "poller/delivery/resolver.py": ("client",),
        "poller/delivery/masking.py": ("masking",),
        "poller/delivery/target.py": ("target",),
        "poller/delivery/selection.py": ("selection",),
        "poller/delivery/log_lines.py": ("log_lines", "relay"),
        "poller/delivery/digest.py": ("digest", "chat"),
        "poller/delivery/chat_message.py": ("digest", "chat", "chat_services"),
        "poller/delivery/sample.py": ("chat_services",),
        "poller/delivery/client.py": ("client",),
        "poller/delivery/destinations/*.py": (
            *("target", "chat_services", "chat", "destinations", "webhook"),
        ),
        "poller/delivery/webhookid.py": ("webhook",),
        "poller/delivery/script_pipeline.py": ("relay", "outbox"),
        "poller/delivery/redisoutbox.py": ("outbox", "relay"),
        "poller/delivery/replay.py": ("rebuild", "deliver"),
        "poller/delivery/*.py": ("relay", "outbox", "poison", "vanish"),
    },
    "records": {
        "poller/codec.py": ("codec", "events", "change"),
        "poller/events.py": ("events", "schemas", "selection"),
        "poller/supervisor.py": ("supervisor", "bulkheads"),
    },
    "scripts of the store": {"poller/store/lua/*.lua": ("store",)},
    "scripts of the outbox": {"poller/delivery/lua/*.lua": ("outbox", "vanish", "poison")},
    "readers": {
        "poller/subscriber/lua/share*.lua": ("share",),
        "poller/subscriber/*.py": ("share", "subscribe"),
        "poller/subscriber/lua/*.lua": ("share", "subscribe"),
        "poller/web/feed.py": ("feed",),
        "poller/web/sse.py": ("feed", "web"),
    },
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake in one file, and the tests that ought to notice it."""

    area: str
    path: Path
    tests: Tests
    mutation: Mutation

    def __str__(self) -> str:
        """Tell where it is and what was changed, on one line."""
        before, after = (
            " ".join(text.split()) for text in (self.mutation.before, self.mutation.after)
        )
        return f"{self.path}:{self.mutation.line}: {before} → {after or '(nothing)'}"


def mutants_of(area: str, root: Path, only: str) -> list[Mutant]:
    """Return all that could be drawn from an area."""
    reached: dict[Path, Tests] = {}
    for pattern, tests in AREAS[area].items():
        for path in root.glob(pattern):
            reached.setdefault(path, tests)
    known = _known(root)
    found = []
    for path, tests in sorted(reached.items()):
        source, relative = path.read_text("utf-8"), path.relative_to(root)
        lines = [line.strip() for line in source.splitlines()]
        mutations = in_lua(source) if path.suffix == ".lua" else in_python(source, known)
        found += [
            Mutant(area, relative, tests, one)
            for one in mutations
            if only in str(relative)
            and (str(relative), lines[one.line - 1], one.after) not in UNNOTICEABLE
        ]
    return found


@cache
def _known(root: Path) -> Signatures:
    return signatures([path.read_text("utf-8") for path in sorted(root.glob("poller/**/*.py"))])


def drawn(root: Path, count: int, seed: int, only: str) -> list[Mutant]:
    """Draw mutants, as many from each area as from the others."""
    chance = random.Random(seed)
    pools = [pool for area in AREAS if (pool := mutants_of(area, root, only))]
    chosen: list[Mutant] = []
    for place, pool in enumerate(pools):
        share = (count - len(chosen)) // (len(pools) - place)
        chosen += chance.sample(pool, min(share, len(pool)))
    return chosen


class Copies:
    """Copies of the checkout, in which mistakes are made, one at a time in each."""

    def __init__(self, folder: Path, count: int) -> None:
        self._free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._limits: dict[Tests, float] = {}
        for number in range(count):
            root = folder / str(number)
            shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*_IGNORED), symlinks=True)
            self._free.put(root)

    def prepare(self, tests: Tests) -> str:
        """Run tests once without a mistake; SystemExit when they fail. Returns how long it took."""
        began = time.monotonic()
        with self._one() as root:
            code = _run(root, tests, None)
        took = time.monotonic() - began
        if code != 0:
            raise SystemExit(f"{', '.join(tests)}: these tests fail without a mistake")
        self._limits[tests] = max(_LEAST_TIME, _MOST_TIME * took)
        return f"{took:.0f} s without a mistake: {', '.join(tests)}"

    def outcome(self, mutant: Mutant) -> str:
        """Return `survived`, `noticed`, or `hung` after a while."""
        with self._one() as root:
            path = root / mutant.path
            source = path.read_text("utf-8")
            # a compiled file is told from a stale one by size and second only
            for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
                compiled.unlink()
            path.write_text(mutant.mutation.applied(source), "utf-8")
            code = _run(root, mutant.tests, self._limits[mutant.tests])
            path.write_text(source, "utf-8")
        return "survived" if code == 0 else "hung" if code is None or code >= ENDED else "noticed"

    @contextlib.contextmanager
    def _one(self) -> Iterator[Path]:
        root = self._free.get()
        try:
            yield root
        finally:
            self._free.put(root)


_running: Final = set[subprocess.Popen[bytes]]()
"""Each ends with all that it has started once its input ends; so it does when this process dies."""


def _run(root: Path, tests: Tests, limit: float | None) -> int | None:
    """Run tests in a copy; returns their exit code, or None: not within `limit`."""
    command = [sys.executable, "-m", "tests.family", sys.executable, "-m", "pytest", "-qx"]
    # the same examples each time, and none kept from one mistake to the next
    command += [
        "-p",
        "no:cacheprovider",
        "--hypothesis-profile=ci",
        "-o",
        f"timeout={_LONGEST_TEST}",
    ]
    command += ["-k", _ONE_SERVER] if _SUITES.intersection(tests) else []
    command += [f"tests/test_{name}.py" for name in tests]
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "" if limit is None else "1",
        "TESTS_PATIENCE": os.environ.get("TESTS_PATIENCE", _PATIENCE),
    }
    with subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as running:
        _running.add(running)
        try:
            return running.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _running.discard(running)
            _end(running)


def _end(running: subprocess.Popen[bytes]) -> None:
    if running.stdin is not None:
        running.stdin.close()


def _stopped(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)  # not at once: the copies go


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def outcomes_of(chosen: Sequence[Mutant], folder: Path, workers: int) -> Counter[tuple[str, str]]:
    """Make each mistake; returns how many had which outcome, by area. Tells those not noticed."""
    copies, found = Copies(folder, workers), Counter[tuple[str, str]]()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for line in pool.map(copies.prepare, sorted({mutant.tests for mutant in chosen})):
                _say(line)
            for mutant, outcome in zip(chosen, pool.map(copies.outcome, chosen), strict=True):
                found[mutant.area, outcome] += 1
                if outcome != "noticed":
                    _say(f"{outcome} {mutant}")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for running in list(_running):
                _end(running)
    return found


def main() -> int:
    """Draw, run and report; 1 when too many survived."""
    count, seed, workers = (int(os.environ.get(name, default)) for name, default in _DEFAULTS)
    os.nice(10)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stopped)
    chosen = drawn(ROOT, count, seed, os.environ.get("MUTANTS_ONLY", ""))
    _say(f"{len(chosen)} mistakes, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        found = outcomes_of(chosen, Path(folder), workers)
    for area in AREAS:
        if total := sum(found[area, outcome] for outcome in _OUTCOMES):
            _say(f"{area}: noticed {total - found[area, 'survived']} of {total}")
    survived, hung = (sum(found[area, each] for area in AREAS) for each in ("survived", "hung"))
    noticed = len(chosen) - survived
    _say(
        f"noticed {noticed} of {len(chosen)} ({noticed / max(len(chosen), 1):.1%}), "
        f"{hung} of them because the tests hung; seed {seed}"
    )
    return int(noticed < TARGET * len(chosen))


_OUTCOMES: Final = ("noticed", "hung", "survived")
_DEFAULTS: Final = (("MUTANTS", "150"), ("MUTANTS_SEED", "1"), ("MUTANTS_WORKERS", "2"))

if __name__ == "__main__":
    sys.exit(main())
