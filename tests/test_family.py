"""What a run of tests has started ends with it, wherever it has gone."""

import os
import select
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests import family

RUNAWAY = (
    "import os, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    print(os.getpid(), flush=True)\n"
    "    time.sleep(600)\n"
)
"""Leaves a child behind that leads a session of its own, and whose parent is gone."""

GUARDED = (
    "import sys\n"
    "from tests import family\n"
    "with family.guarded(sys.argv[1]):\n"
    "    print(flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture
def name() -> str:
    """Return the name of a family that nobody else has."""
    return f"test-{uuid.uuid4()}"


def runaway(name: str) -> int:
    """Return the process id of a child whose parent has ended."""
    command = [sys.executable, "-c", RUNAWAY]
    with subprocess.Popen(
        command, env=os.environ | family.environment(name), stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        return int(parent.stdout.readline())


def test_who_left_the_group_is_ended_as_well(name: str) -> None:
    """A session of its own and a dead parent do not save a process, nor does a branch's name."""
    pids = [runaway(name), runaway(f"{name}.2")]
    assert sorted(family.members(name)) == sorted(pids)
    family.end(name)
    assert family.members(name) == []


def test_others_stay(name: str) -> None:
    """Neither another branch is ended nor a family whose name only begins alike."""
    branch, other = runaway(f"{name}.1"), runaway(f"{name}2")
    family.end(f"{name}.2")
    assert family.members(f"{name}.1") == [branch]
    family.end(name)
    assert family.members(f"{name}2") == [other]
    family.end(f"{name}2")


def test_a_family_ends_with_whoever_guards_it(name: str) -> None:
    """Killed at once, a run of mistakes leaves nobody behind."""
    with subprocess.Popen(
        [sys.executable, "-c", GUARDED, name],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as guard:
        assert guard.stdout is not None
        guard.stdout.readline()
        left = os.pidfd_open(runaway(name))
        guard.send_signal(signal.SIGKILL)
        # readable once the process has ended
        assert _ended(left)


def _ended(descriptor: int) -> bool:
    try:
        return bool(select.select([descriptor], [], [], 60)[0])
    finally:
        os.close(descriptor)
