"""`make pythons`: the wheel, installed with each Python of this machine, plays the demo.

With pip in an environment of its own, and with uvx (if it is on PATH) from an empty and from a warm
cache. The directory it runs in is empty, and so is what it knows of a checkout. Its dependencies
come from the package index. PYTHONS names the interpreters, separated by blanks.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VERSIONS: Final = ("3.11", "3.12", "3.13", "3.14")
"""Those that pyproject.toml names."""

_VERSION: Final = "import platform; print(platform.python_version())"
_ROW: Final = re.compile(r"\d s  .* (reported|revised) ")
_LIMIT: Final = 600


@dataclass(frozen=True)
class Played:
    """What one demo showed: seconds from the command to its first new row, and to its end."""

    first_row: float
    end: float
    code: int

    @property
    def is_whole(self) -> bool:
        """Whether it showed a row and ended as it should."""
        return self.code == 0 and self.first_row < self.end


def main() -> int:
    """Print a line for each way; 1 if any failed or no Python was found."""
    found = interpreters()
    missing = [version for version in VERSIONS if version not in found]
    if missing:
        sys.stdout.write(f"not here, and so not tried: Python {', '.join(missing)}\n")
    with tempfile.TemporaryDirectory(prefix="poller-pythons-") as name:
        wheels, room = Path(name) / "wheels", Path(name) / "room"
        room.mkdir()
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
        subprocess.run(build, capture_output=True, check=True)
        results = [by_pip(python, wheels, room) for python in found.values()]
        uvx = shutil.which("uvx")
        if uvx is not None and found:
            results += by_uvx(uvx, next(iter(found.values())), wheels, room)
    return int(not results or not all(results))


def interpreters() -> dict[str, Path]:
    """Return an interpreter of each version: those named, else those of PATH and of pyenv."""
    named = os.environ.get("PYTHONS")
    places = [Path(each) for each in named.split()] if named else list(_usual())
    found: dict[str, Path] = {}
    for path in places:
        version = told([str(path), "-c", _VERSION])
        if (minor := ".".join(version.split(".")[:2])) in VERSIONS:
            found.setdefault(minor, path)
    return dict(sorted(found.items()))


def _usual() -> Iterator[Path]:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob("versions/3.*/bin/python"))
    for version in VERSIONS:
        if (path := shutil.which(f"python{version}")) is not None:
            yield Path(path)


def told(command: list[str]) -> str:
    """Return what a command prints, "" if it cannot run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def by_pip(python: Path, wheels: Path, room: Path) -> bool:
    """Install the wheel with pip, play the demo, and print what it took."""
    place = room.parent / "environment"
    began = time.monotonic()
    subprocess.run([python, "-m", "venv", str(place)], check=True)
    pip = [str(place / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    install = [*pip, "install", f"--find-links={wheels}", "short-interest-poller"]
    done = subprocess.run(install, env=clean(), check=False)
    took = time.monotonic() - began
    title = f"pip, Python {told([str(python), '-c', _VERSION])}"
    if done.returncode != 0:
        sys.stdout.write(f"{title}: not installed\n")
        return False
    size = told(["du", "-smx", str(place)]).split()[0]
    played = play([str(place / "bin/poller"), "demo"], room, clean())
    report(f"{title}: installed in {took:.0f} s, {size} MB", played, took)
    shutil.rmtree(place)
    return played.is_whole


def by_uvx(uvx: str, python: Path, wheels: Path, room: Path) -> list[bool]:
    """Play the demo by one command, from an empty and from a warm cache."""
    environment = {**clean(), "UV_CACHE_DIR": str(room.parent / "cache")}
    command = [uvx, "--quiet", "--python", str(python), "--find-links", str(wheels)]
    whole = []
    for cache in ("empty", "warm"):
        played = play([*command, "short-interest-poller", "demo"], room, environment)
        report(f"uvx, {cache} cache", played, 0)
        whole.append(played.is_whole)
    return whole


def clean() -> dict[str, str]:
    """Return the environment of somebody who has no checkout and no configuration."""
    names = ("PYTHONPATH", "PYENV_VERSION", "VIRTUAL_ENV")
    return {k: v for k, v in os.environ.items() if k not in names and not k.startswith("POLLER_")}


def play(command: list[str], room: Path, environment: Mapping[str, str]) -> Played:
    """Run a demo to its end."""
    began, first = time.monotonic(), float("inf")
    with subprocess.Popen(
        ["timeout", str(_LIMIT), *command],
        cwd=room, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            if first == float("inf") and _ROW.search(line):
                first = time.monotonic() - began
            last = line
        code = process.wait()
    if code != 0:
        sys.stdout.write(f"{' '.join(command)}: exit code {code}, {last}")
    return Played(first, time.monotonic() - began, code)


def report(title: str, played: Played, before: float) -> None:
    """Print one line, with the times from the first command on."""
    sys.stdout.write(
        f"{title}; first row {before + played.first_row:.0f} s after the first command, "
        f"end {before + played.end:.0f} s{'' if played.is_whole else ' – FAILED'}\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
