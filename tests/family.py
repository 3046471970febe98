"""Ends a process with all that it started, also those that lead a session of their own.

A process hands its environment on to whatever it starts. So a variable tells who belongs to a
family, even when its parents are gone: the embedded server leaves the group of its program, and a
program that is killed leaves its own children behind. Linux only.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_VARIABLE: Final = "TESTS_FAMILY"
_LIMIT: Final = 10.0  # seconds until the kernel has ended who was killed
_PAUSE: Final = 0.02


def environment(family: str) -> dict[str, str]:
    """Return what to add to the environment of a family's first process.

    `family` may be followed by a dot and the name of a branch, which can be ended by itself.
    """
    return {_VARIABLE: family}


def members(family: str) -> list[int]:
    """Return the process ids of a family and its branches."""
    marks = [f"{_VARIABLE}={family}{end}".encode() for end in ("\0", ".")]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            variables = b"\0" + (folder / "environ").read_bytes()
            if any(b"\0" + mark in variables for mark in marks):
                found.append(int(folder.name))
    return found


def end(family: str) -> None:
    """Kill a family and its branches, and wait until the processes are gone.

    Asks again until nobody is found: a process may start another one while it is searched for.
    """
    limit = time.monotonic() + _LIMIT
    while (found := members(family)) and time.monotonic() < limit:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE)


@contextlib.contextmanager
def guarded(family: str) -> Iterator[None]:
    """End a family after the block, and also when this process is killed in it.

    Another process waits for the end of a pipe, which the kernel closes however this one ends.
    """
    command = [sys.executable, "-m", __name__, family]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as guard:
        try:
            yield
        finally:
            assert guard.stdin is not None
            guard.stdin.close()
            guard.wait()


if __name__ == "__main__":
    sys.stdin.read()
    end(sys.argv[1])
