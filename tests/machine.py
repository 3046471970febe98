"""The machine the tests run on: what it lacks, what slows it down, and how long to wait for it."""

import asyncio
import contextlib
import math
import os
import resource
import shutil
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

PACKAGES: Final = {
    "bash": "bash",
    "chromium": "chromium",
    "initdb": "postgresql",
    "fish": "fish",
    "man": "man-db",
    "node": "nodejs",
    "promtool": "prometheus",
    "redis-cli": "redis-tools",
    "redis-server": "redis-server",
    "systemd-analyze": "systemd",
    "zsh": "zsh",
}
"""Programs that some tests need beside the installed packages → Debian's package of each."""

MOST_PATIENCE: Final = 8.0
"""Above it a hang would take longer to tell from slowness than a run takes on a quiet machine."""

_BESIDE_PATH: Final = Path("/usr/lib/postgresql")
"""Where a package keeps programs in `bin` of each of its versions."""

_VARIABLE: Final = "TESTS_PATIENCE"
_QUIET_SECONDS: Final = 0.2
"""Processor seconds of `_work` on the machine that the tests' waits were written on."""

_WORTH_A_WORD: Final = 1.5
_OWN_LOAD: Final = 2
"""How many processors the run itself keeps busy."""

_MEMORY: Final = 3 << 30
_DISK: Final = 2 << 30
_DESCRIPTORS: Final = 1024


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where a program is missing; the reason says how to install it."""
    reason = f"{program} is missing; as root, type: apt-get install -y {PACKAGES[program]}"
    return pytest.mark.skipif(located(program) is None, reason=reason)


def located(program: str) -> str | None:
    """Return the path of a program, in its newest version; None if it is missing."""
    versions = sorted(_BESIDE_PATH.glob("[0-9]*"), key=lambda each: float(each.name), reverse=True)
    beside = os.pathsep.join(str(each / "bin") for each in versions)
    return shutil.which(program) or shutil.which(program, path=beside)


def send(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal to a process that may be ending.

    `Process.send_signal` looks first whether it has ended, which can take its exit code away from
    whoever waits for it: 255 then.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)


def patience() -> float:
    """Return by how much longer than on a quiet machine to wait for something, from 1 to 8.

    Measured once in a run: its subprocesses find the value in the environment. Who knows better
    (say, that the load comes later) sets TESTS_PATIENCE; SystemExit when that is no number.
    """
    if _VARIABLE not in os.environ:
        os.environ[_VARIABLE] = f"{_measured():.1f}"
    given = os.environ[_VARIABLE]
    try:
        found = float(given)
    except ValueError:
        found = 0.0
    if not 0 < found < math.inf:
        raise SystemExit(f"{_VARIABLE}={given}: give a number above 0, such as 4")
    return found


def _measured() -> float:
    """Compare the processor and the number of those who want it with a quiet machine."""
    began, used = time.perf_counter(), time.process_time()
    _work()
    waited, used = time.perf_counter() - began, time.process_time() - used
    crowd = max(waited / used, (_load() + _OWN_LOAD) / _processors())
    return min(MOST_PATIENCE, max(1.0, used / _QUIET_SECONDS) * max(1.0, crowd))


def _work() -> None:
    for _ in range(70):
        sorted(str(number) for number in range(30_000))


def _load() -> float:
    return os.getloadavg()[0]


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def scaled(seconds: float) -> float:
    """Return how long to wait for what takes at most `seconds` on a quiet machine."""
    return seconds * patience()


@contextlib.asynccontextmanager
async def at_most(
    seconds: float = 30, what: str = "what this test waits for"
) -> AsyncIterator[None]:
    """Bound a wait for the world; `seconds` are those of a quiet machine.

    For what is itself measured there is `asyncio.timeout`. Raises TimeoutError with a text.
    """
    limit = scaled(seconds)
    try:
        async with asyncio.timeout(limit) as bound:
            yield
    except TimeoutError as late:
        if not bound.expired():
            raise
        raise TimeoutError(overdue(what, limit)) from late


def overdue(what: str, limit: float) -> str:
    """Return the text of a wait that was in vain."""
    return (
        f"{what}: not within {limit:.0f} s; the load is {_load():.1f} on {_processors()} "
        f"processors, and waits are {patience():.1f} times as long as on a quiet machine "
        f"({_VARIABLE} overrides that)"
    )


def preflight() -> list[str]:
    """Return what may make tests fail or slow on this machine, a line each."""
    found = []
    try:
        socket.getaddrinfo("localhost", None)
    except OSError:
        found.append("localhost does not resolve: the tests say 127.0.0.1, other programs may not")
    if not _has_ipv6():
        found.append("no IPv6 on loopback: only IPv4 is tried")
    if patience() >= _WORTH_A_WORD:
        found.append(
            f"slow or busy: load {_load():.1f} on {_processors()} processors; every wait is "
            f"{patience():.1f} times as long as on a quiet machine ({_VARIABLE} overrides that)"
        )
    if (free := _available_memory()) is not None and free < _MEMORY:
        found.append(f"little memory: {free >> 20:,} MiB available, the tests take up to 3,072")
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= descriptors < _DESCRIPTORS:
        found.append(f"few descriptors: {descriptors} a process (ulimit -n {_DESCRIPTORS})")
    folder = Path(os.environ.get("TMPDIR", "/tmp"))  # noqa: S108  where pytest puts its files
    found += [
        f"little disk: {room >> 20:,} MiB free in {place}, the tests take up to 2,048"
        for place in {Path.cwd(), folder}
        if (room := shutil.disk_usage(place).free) < _DISK
    ]
    return found + [
        f"{program} is missing, the tests that need it are left out: apt-get install -y {package}"
        for program, package in PACKAGES.items()
        if located(program) is None
    ]


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _available_memory() -> int | None:
    """Return the bytes that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kibibytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kibibytes[0] << 10 if kibibytes else None
