"""What concerns every test: how long it may take, what is left of it, what the summary says."""

import contextlib
import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from playwright.async_api import expect

from tests.machine import patience, scaled

# how long an example takes, or making one, says how busy the machine is
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

expect.set_options(timeout=scaled(5_000))


def pytest_configure(config: pytest.Config) -> None:
    """Measure the machine before pytest-xdist starts the processes that load it."""
    del config
    patience()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each test take longer on a machine that is slow or busy."""
    usual = float(config.getini("timeout"))
    for item in items:
        own = item.get_closest_marker("timeout")
        seconds = float(own.args[0]) if own is not None else usual
        item.add_marker(pytest.mark.timeout(scaled(seconds)), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    """Take leave of embedded servers that have ended.

    Whoever started one ends soon after it, but for the process of the tests, where a few hundred
    would wait for that.
    """
    yield
    for children in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # of a thread or a child that is gone by now
            for child in children.read_text(encoding="ascii").split():
                if "(valkey-server) Z" in Path(f"/proc/{child}/stat").read_text(encoding="utf-8"):
                    os.waitpid(int(child), os.WNOHANG)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, why, and how to get it."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
    )
    for reason, count in sorted(reasons.items()):
        number = f"{count} tests" if count > 1 else "1 test"
        terminalreporter.write_line(f"left out: {number}: {reason}")
