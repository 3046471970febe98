"""`make mutants`: does the suite notice mistakes? Many small ones are made, one at a time.

MUTANTS mistakes (150) are drawn by MUTANTS_SEED (1), as many from each area below. For each, the
area's tests run in a copy of the checkout, at low priority, until one fails. MUTANTS_ONLY=text
draws from the files alone whose path contains it. Fails when less than 92 % are noticed.
"""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.mutations import Mutation, Signatures, in_lua, in_python, signatures

ROOT: Final = Path(__file__).parent.parent
TARGET: Final = 0.92
_MOST_WORK: Final = 3
"""So many times the processor time without a mistake, and a run counts as one that hangs."""

_LEAST_WORK: Final = 30  # seconds of processor time
_LONGEST_WAIT: Final = 900.0  # seconds for one run; other work on the machine is no hanging
_IGNORED: Final = (".git", ".venv", "__pycache__", ".hypothesis", "state", ".*_cache")


@dataclass(frozen=True, slots=True)
class Area:
    """Sources, by patterns, and the tests that reach them, the quickest first."""

    name: str
    sources: tuple[str, ...]
    tests: tuple[str, ...]
    options: tuple[str, ...] = ()


AREAS: Final = (
    Area(
        "detect",
        ("poller/detect/*.py",),
        ("bounds", "promises", "quarantine", "change"),
    ),
    Area(
        "plan",
        ("poller/schedule/*.py", "poller/markets/*.py"),
        ("market", "expectation", "calendar", "schedule", "quarantine", "simulation"),
    ),
    Area(
        "polling",
        ("poller/polling/*.py",),
        (
            *(
                "poll",
                "bulkheads",
                "leadership",
                "failure_tracker",
                "settling",
                "budget",
                "watchlist",
            ),
            *("retention", "vitals", "schedule"),
        ),
    ),
    Area(
        "records",
        ("poller/events.py", "poller/codec.py", "poller/supervisor.py"),
        ("codec", "supervisor", "bulkheads", "events", "schemas", "selection"),
    ),
    Area(
        "scripts",
        ("poller/store/lua/*.lua",),
        ("store",),
        ("-k", "not cluster and not sentinel and not redis8"),
    ),
)

_ANY_START: Final = "only that it grows counts"
UNNOTICEABLE: Final[Mapping[tuple[str, str, str], str]] = {
    (
        "poller/markets/hk.py",
        "if day > friday - timedelta(days=5) and day >= start:",
        "(day >= start)",
    ): "no week from 1990 to 2060 is without a trading day in Hong Kong",
    (
        "poller/schedule/market.py",
        "self.version = 0  # grows with whatever `state` tells",
        "(-1)",
    ): (_ANY_START),
    ("poller/schedule/market.py", "self.version = 0  # grows with whatever `state` tells", "(1)"): (
        _ANY_START
    ),
}
"""Mistakes that are none: file, the line, what part of it would be → why nothing shows it."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake in one file of an area."""

    area: Area
    path: Path
    mutation: Mutation

    def __str__(self) -> str:
        """Tell where it is and what was changed, on one line."""
        before, after = (
            " ".join(text.split()) for text in (self.mutation.before, self.mutation.after)
        )
        return f"{self.path}:{self.mutation.line}: {before} → {after or '(nothing)'}"


def mutants_of(area: Area, root: Path, only: str) -> list[Mutant]:
    """Return all that could be drawn from an area."""
    paths = sorted(path for pattern in area.sources for path in root.glob(pattern))
    known = _known(root)
    found = []
    for path in paths:
        source, relative = path.read_text("utf-8"), path.relative_to(root)
        lines = [line.strip() for line in source.splitlines()]
        mutations = in_lua(source) if path.suffix == ".lua" else in_python(source, known)
        found += [
            Mutant(area, relative, one)
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


class Copy:
    """A copy of the checkout, in which mistakes are made."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._limits: dict[Area, int] = {}

    def prepare(self, areas: Sequence[Area]) -> None:
        """Run the tests of each area once without a mistake; SystemExit when they fail."""
        for area in areas:
            began, before = time.monotonic(), _work()
            code = self._run(area)
            worked, took = _work() - before, time.monotonic() - began
            if code != 0:
                raise SystemExit(f"{area.name}: its tests fail without a mistake")
            self._limits[area] = max(_LEAST_WORK, round(_MOST_WORK * worked))
            sys.stdout.write(f"{area.name}: {took:.0f} s for its tests without a mistake\n")
            sys.stdout.flush()

    def outcome(self, mutant: Mutant) -> str:
        """Return `survived`, `noticed`, or `hung` after a while."""
        path = self._root / mutant.path
        source = path.read_text("utf-8")
        # a compiled file is told from a stale one by size and second only
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()
        path.write_text(mutant.mutation.applied(source), "utf-8")
        code = self._run(mutant.area)
        path.write_text(source, "utf-8")
        return "survived" if code == 0 else "hung" if code is None or code < 0 else "noticed"

    def _run(self, area: Area) -> int | None:
        """Run an area's tests; returns their exit code, None or a signal's when they hang."""
        files = [f"tests/test_{name}.py" for name in area.tests]
        command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider"]
        # the same examples each time, and none kept from one mistake to the next
        command += ["--hypothesis-profile=ci", *area.options, *files]
        limit = self._limits.get(area)
        environment = os.environ | {
            "PYTHONPATH": str(self._root),
            "PYTHONDONTWRITEBYTECODE": "" if limit is None else "1",
        }
        with subprocess.Popen(
            ["sh", "-c", 'ulimit -t "$0"; exec "$@"', str(limit or "unlimited"), *command],
            cwd=self._root,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as running:
            try:
                return running.wait(_LONGEST_WAIT)
            except subprocess.TimeoutExpired:
                return None
            finally:
                # whatever it has started as well; also when this run is interrupted
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGKILL)


def _work() -> float:
    """Return the processor seconds of all runs so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _stopped(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)  # not at once: the copy goes


def main() -> int:
    """Draw, run and report; 1 when too many survived."""
    count, seed = (int(os.environ.get(name, default)) for name, default in _DEFAULTS)
    os.nice(10)
    signal.signal(signal.SIGTERM, _stopped)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Path(folder) / "copy"
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(*_IGNORED), symlinks=True)
        chosen = drawn(root, count, seed, os.environ.get("MUTANTS_ONLY", ""))
        copy = Copy(root)
        copy.prepare([area for area in AREAS if any(one.area == area for one in chosen)])
        outcomes = []
        for mutant in chosen:
            outcomes.append(copy.outcome(mutant))
            if outcomes[-1] != "noticed":
                sys.stdout.write(f"{outcomes[-1]} {mutant}\n")
                sys.stdout.flush()
    noticed = len(outcomes) - outcomes.count("survived")
    sys.stdout.write(
        f"noticed {noticed} of {len(outcomes)} ({noticed / max(len(outcomes), 1):.0%}), "
        f"{outcomes.count('hung')} of them because the tests hung; seed {seed}\n"
    )
    return int(noticed < TARGET * len(outcomes))


_DEFAULTS: Final = (("MUTANTS", "150"), ("MUTANTS_SEED", "1"))

if __name__ == "__main__":
    sys.exit(main())
