"""What concerns every test: how long it may take, and what the summary says was left out."""

from collections import Counter

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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, why, and how to get it."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
    )
    for reason, count in sorted(reasons.items()):
        number = f"{count} tests" if count > 1 else "1 test"
        terminalreporter.write_line(f"left out: {number}: {reason}")
