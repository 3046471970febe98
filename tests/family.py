"""Runs a command and ends all that it has started: `python -m tests.family COMMAND…`. Linux only.

A process that leaves its group, as the embedded server does, outlives whoever kills that group.
Here it does not: orphans of the command are adopted, so that all are descendants of this process.
They are killed when the command has ended, and also when standard input ends: whoever holds the
other end of it need not live to stop the command.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Final

ENDED: Final = 128
"""The exit code is above it when the command was ended by a signal or by the end of the input."""

_ADOPT: Final = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
_PAUSE: Final = 0.02


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started or adopted, and theirs."""
    children = defaultdict[int, list[int]](list)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            # after the name, which may hold anything: its state, then its parent
            parent = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1]
            children[int(parent)].append(int(folder.name))
    found = [pid]
    for each in found:
        found += children[each]
    return found[1:]


def end_all() -> None:
    """Kill the descendants of this process, until none is left.

    Asks again and again: a process may start another one while it is searched for.
    """
    while found := descendants(os.getpid()):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(_PAUSE)


def main(command: list[str]) -> int:
    """Run a command to its end, or to that of standard input; returns the exit code."""
    ctypes.CDLL(None).prctl(_ADOPT, 1, 0, 0, 0)
    running = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        select.select([os.pidfd_open(running.pid), sys.stdin], [], [])
        code = running.poll()
    finally:
        end_all()
    return ENDED if code is None else code if code >= 0 else ENDED - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
