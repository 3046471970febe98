"""`poller demo`, as `make demo` runs it."""

import subprocess
import sys


def test_it_shows_the_product_and_ends() -> None:
    """A history, a release from its first row to its completion, a revision, and their posts."""
    command = [sys.executable, "-m", "poller", "demo"]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    shown = ("each an event", "detected", "reported", "completed", "revised", "To look further")
    assert [part for part in shown if part not in done.stdout] == []
    assert "every signature verified" in done.stdout
    assert "exit code 0" in done.stdout
