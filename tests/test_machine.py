"""What the suite says of the machine it runs on: what is missing, and how long it waits."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import machine
from tests.machine import at_most, scaled
from tests.service import Service

SET_UP = Path("tests/set-up.sh").resolve()


async def test_a_wait_in_vain_says_for_what_and_how_long() -> None:
    """It names the machine's load; a time-out of the work itself passes through unchanged."""
    with pytest.raises(
        TimeoutError, match=r"the moon: not within \d+ s; the load is [\d.]+ on \d+"
    ):
        async with at_most(0.01, "the moon"):
            await asyncio.sleep(3600)
    with pytest.raises(TimeoutError, match="its own"):
        async with at_most(60):
            raise TimeoutError("its own")


def test_a_log_that_is_being_written_is_read_by_whole_lines(tmp_path: Path) -> None:
    """Wherever a line ends for now, in the middle of a character as well, it is not there yet."""
    lines = ['{"event": "騰訊"}', "poller: 騰訊", '{"event": "ready"}']
    written = "\n".join([*lines, ""]).encode()
    for size in range(len(written) + 1):
        (tmp_path / "log").write_bytes(written[:size])
        told = [line["event"] for line in Service(tmp_path, 1, "").log()]
        assert told == ["騰訊", "ready"][: written[:size].count(b"}\n")]


@pytest.mark.parametrize("given", ["3.5", None])
def test_patience_is_measured_once_and_can_be_given(given: str | None) -> None:
    """From 1 to 8, the same in every process of a run; TESTS_PATIENCE has the last word."""
    environment = {k: v for k, v in os.environ.items() if k != "TESTS_PATIENCE"}
    if given is not None:
        environment["TESTS_PATIENCE"] = given
    child = "from tests.machine import patience; print(patience())"
    program = (
        f"import subprocess, sys\n{child}\nsys.stdout.flush()\n"
        f"subprocess.run([sys.executable, '-c', {child!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    first, second = map(float, done.stdout.split())
    assert first == second
    assert 1 <= first <= machine.MOST_PATIENCE
    assert given is None or first == float(given)
    assert scaled(10) == 10 * machine.patience()


@pytest.mark.parametrize("given", ["", "much", "0", "-1", "nan", "inf"])
def test_a_patience_that_is_no_number_is_one_line(given: str) -> None:
    """The variable and an example, no traceback."""
    done = subprocess.run(
        [sys.executable, "-c", "from tests.machine import patience; patience()"],
        env={**os.environ, "TESTS_PATIENCE": given},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = f"TESTS_PATIENCE={given}: give a number above 0, such as 4\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


def test_what_is_missing_is_left_out_in_words() -> None:
    """Without any program beside Python each test that needs one is named, with what to type."""
    # the number of tests a file collects does not depend on what is installed
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    kept = {**os.environ, "PATH": "/nonexistent"}
    chosen = ["tests/test_page.py", "tests/test_deliver.py", "-k", "test_page or in_node"]
    done = subprocess.run(
        [*command, *chosen], env=kept, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "empty parameter set" not in done.stdout
    found = re.findall(
        r"left out: (\d+) tests?: (\w+) is missing; as root, type: (.*)", done.stdout
    )
    assert [(name, cure) for _, name, cure in found] == [
        ("chromium", "apt-get install -y chromium"),
        ("node", "apt-get install -y nodejs"),
    ]
    assert sum(int(count) for count, _, _ in found) > 12


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ("apt-get", "as root, type: apt-get install -y python3-venv\n"),
        (None, "python3 lacks its venv module: install it and try again\n"),
    ],
)
def test_set_up_without_the_right_to_install(
    tmp_path: Path, present: str | None, expected: str
) -> None:
    """Python without its venv module, and no root: one line says what to do; nothing is changed."""
    programs, checkout = tmp_path / "bin", tmp_path / "checkout"
    programs.mkdir()
    checkout.mkdir()
    script(programs / "python3", 'case "$2" in *venv*) exit 1;; esac')
    script(programs / "id", "echo 1000")
    script(programs / "basename", "echo python3")
    if present is not None:
        script(programs / present, f"touch {checkout}/installed")
    done = subprocess.run(
        ["/bin/sh", str(SET_UP)],
        cwd=checkout,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
    assert list(checkout.iterdir()) == []


@pytest.mark.parametrize("pins", ["run", "dev"])
def test_the_demo_is_set_up_without_what_only_builds_and_tests(tmp_path: Path, pins: str) -> None:
    """Byte code is left to who imports; the tools that built it go, but stay for the suite."""
    programs, checkout = tmp_path / "bin", tmp_path / "checkout"
    programs.mkdir()
    (checkout / "config").mkdir(parents=True)
    (checkout / "config/pins").symlink_to(Path("config/pins").resolve())
    log = 'echo "$*" >>said'
    script(programs / "pip", log)
    script(programs / "python3", f"mkdir -p .venv/bin && cp {programs}/pip .venv/bin/python")
    subprocess.run(
        ["/bin/sh", str(SET_UP), "python3", pins],
        cwd=checkout,
        env={"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        check=True,
    )
    said = (checkout / "said").read_text(encoding="utf-8")
    installs = [line for line in said.splitlines() if " install " in line]
    assert len(installs) == 3
    assert all("--no-compile" in line for line in installs)
    *_, last = said.splitlines()
    if pins == "run":
        assert {"uninstall", "hatchling", "editables", "setuptools", "pip"} <= set(last.split())
    else:
        assert "compileall" in last
        assert "uninstall" not in said


def script(path: Path, text: str) -> None:
    """Write a program that stands in for the machine's own."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
    path.chmod(0o755)
