"""What a run of tests has started ends with it, wherever it has gone."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.family import ENDED
from tests.machine import scaled

RUNAWAY = (
    "import os, sys, time\n"
    "reader, writer = os.pipe()\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        os.write(writer, b'%d' % os.getpid())\n"
    "        time.sleep(600)\n"
    "    os._exit(0)\n"
    "os.wait()\n"
    "print(os.read(reader, 9).decode(), flush=True)\n"
    "time.sleep(float(sys.argv[1]))\n"
    "sys.exit(3)\n"
)
"""Leaves a process behind that leads a session of its own, and whose parent is gone.

Its argument: how many seconds it lives itself.
"""


def started(code: str, *args: str) -> "subprocess.Popen[bytes]":
    """Start a family whose first process runs this code."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.family", sys.executable, "-c", code, *args],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def left_by(family: "subprocess.Popen[bytes]") -> int:
    """Return a descriptor of the process that is left behind."""
    assert family.stdout is not None
    return os.pidfd_open(int(family.stdout.readline()))


def has_ended(process: int) -> bool:
    """Wait until a process has ended, in vain if it lives."""
    try:
        return bool(select.select([process], [], [], scaled(10))[0])
    finally:
        os.close(process)


def test_who_is_left_behind_ends_with_the_command() -> None:
    """A session of its own and a dead parent save nobody; the exit code is the command's."""
    with started(RUNAWAY, "3") as family:
        left = left_by(family)
        assert family.wait() == 3
    assert has_ended(left)


def test_a_family_ends_with_whoever_started_it() -> None:
    """The kernel closes its input, however that one ended; then nobody is waited for."""
    with started(RUNAWAY, "600") as family:
        left = left_by(family)
        assert family.stdin is not None
        family.stdin.close()
        assert family.wait() == ENDED
    assert has_ended(left)


@pytest.mark.parametrize(("code", "ending"), [("import sys; sys.exit(5)", 5), ("2 + 2", 0)])
def test_the_exit_code_is_the_commands(code: str, ending: int) -> None:
    """As if it had been started by itself."""
    with started(code) as family:
        assert family.wait() == ending


def test_a_signal_is_told_apart_from_an_exit_code() -> None:
    """As a shell does it."""
    with started("import os; os.kill(os.getpid(), 9)") as family:
        assert family.wait() == ENDED + 9
