"""`make test`: what of this machine is in the way, all parts of the suite, how long each took."""

import subprocess
import sys
import time
from pathlib import Path

from tests.machine import preflight

BIN = Path(sys.executable).parent
PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("format", (str(BIN / "ruff"), "format", "--check", "-q", "poller", "tests")),
    ("lint", (str(BIN / "ruff"), "check", "-q", "poller", "tests")),
    ("types", (str(BIN / "mypy"),)),
    ("layers", (str(BIN / "lint-imports"),)),
    # also where Python is told to keep none: the tests start hundreds of processes, and each would
    # compile every module anew
    ("byte code", (sys.executable, "-m", "compileall", "-q", "poller", "tests")),
    # most tests wait for processes: six at once keep two cores busy
    ("tests", (str(BIN / "pytest"), "-q", "-n", "6", "--dist", "worksteal")),
)


def main() -> int:
    """Run all parts, also after a failure; 1 when any failed."""
    for line in preflight():
        sys.stdout.write(f"this machine: {line}\n")
    sys.stdout.flush()
    took, failed = [], []
    for name, command in PARTS:
        began = time.monotonic()
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
        took.append(f"{name} {time.monotonic() - began:.0f} s")
    sys.stdout.write(f"took: {', '.join(took)}\n")
    sys.stdout.write("not measured, as it takes nearly twice as long: make coverage\n")
    sys.stdout.write(f"failed: {', '.join(failed)}\n" if failed else "all parts passed\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
