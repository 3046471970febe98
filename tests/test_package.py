"""What is published: the wheel and the sdist, built, installed and used as a stranger would."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from poller import __version__
from poller.cli.demo import _Seen, command_for
from poller.settings.shipped import copy, shipped_files, template
from tests.machine import scaled
from tests.tagged import complaint

NAME = f"short_interest_poller-{__version__}"
WHEEL, SDIST = f"{NAME}-py3-none-any.whl", f"{NAME}.tar.gz"
EPOCH = {"SOURCE_DATE_EPOCH": "1767225600"}


def build(source: Path, into: Path) -> Path:
    """Build both from a source tree; returns the directory they are in."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(into)]
    subprocess.run(
        command,
        cwd=source,
        env=clean() | EPOCH,
        capture_output=True,
        check=True,
        timeout=scaled(60),
    )
    assert sorted(path.name for path in into.iterdir()) == sorted([WHEEL, SDIST])
    return into


def clean() -> dict[str, str]:
    """Return the environment of somebody who has no checkout and no configuration."""
    ours = ("PYTHONPATH", "SOURCE_DATE_EPOCH")
    return {k: v for k, v in os.environ.items() if k not in ours and not k.startswith("POLLER_")}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel and the sdist of this checkout."""
    return build(Path.cwd(), tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment into which pip installed the wheel.

    Its dependencies are those of the suite, which lends its directory of packages but not the
    checkout: a path file that lies in a directory that another one names is not read.
    """
    place = tmp_path_factory.mktemp("installed") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(place)]
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", str(built / WHEEL)], env=clean(), check=True
    )
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return place / "bin"


def run(program: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run an installed program to its end."""
    return subprocess.run(
        [program, *arguments],
        cwd=cwd,
        env=clean(),
        capture_output=True,
        text=True,
        check=False,
        timeout=scaled(100),
    )


def test_both_are_the_same_whoever_builds_them(built: Path, tmp_path: Path) -> None:
    """Built again from the unpacked sdist, elsewhere and by a stricter user: the same bytes."""
    # Debian's Python 3.11 has no filter for its own module yet, and later ones demand one
    subprocess.run(["tar", "-xzf", built / SDIST, "-C", tmp_path], check=True)
    source = tmp_path / NAME
    for path in source.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
        os.utime(path, (1, 1))
    again = build(source, tmp_path / "again")
    for name in (WHEEL, SDIST):
        assert (again / name).read_bytes() == (built / name).read_bytes(), name


def test_the_sdist_is_what_it_takes_to_make_and_test_it(built: Path) -> None:
    """The README's two commands work in it; nothing that this checkout's user made is in it."""
    with tarfile.open(built / SDIST) as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    assert names >= {"Makefile", "LICENSE", "README.md", "config/pins/run.txt", "tests/set-up.sh"}
    assert names >= {path.as_posix() for path in Path("poller").rglob("*.py")}
    assert names >= {"Dockerfile", ".dockerignore", "compose.yaml"}
    made = (".venv", "__pycache__", "_cache", "build/", "state/", ".git/")
    assert [name for name in names if any(part in f"{name}/" for part in made)] == []


def test_the_wheel_has_every_file_that_the_program_reads(built: Path) -> None:
    """Code, scripts, pages and what comes for the operator; no test."""
    with ZipFile(built / WHEEL) as archive:
        names = set(archive.namelist())
    code = {path.as_posix() for path in Path("poller").rglob("*") if path.is_file()}
    assert names >= {name for name in code if "__pycache__" not in name}
    assert names >= {f"poller/config/{name}" for name in shipped_files()}
    assert {name.partition("/")[0] for name in names} == {"poller", f"{NAME}.dist-info"}


def test_every_file_of_the_operators_comes_with_it() -> None:
    """A new unit, dashboard, schema or example is listed without being named anywhere."""
    folders = ("examples", "grafana", "schemas", "systemd")
    there = {
        path.relative_to("config").as_posix()
        for folder in folders
        for path in Path("config", folder).rglob("*")
        if path.is_file()
    }
    assert set(shipped_files()) == there | {"poller.toml", "prometheus/alerts.yml"}


def test_copies_are_the_files_and_nothing_is_overwritten(tmp_path: Path) -> None:
    """All of them in their folders; one that is there already stops all others."""
    (tmp_path / "grafana").mkdir()
    (tmp_path / "grafana/poller.json").symlink_to("nowhere")
    with pytest.raises(FileExistsError, match=r"grafana/poller\.json"):
        list(copy(shipped_files(), tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["grafana"]
    (tmp_path / "grafana/poller.json").unlink()
    for path in copy(shipped_files(), tmp_path):
        original = Path("config") / path.relative_to(tmp_path)
        assert path.read_bytes() == original.read_bytes()


def test_it_is_used_in_an_empty_directory(installed: Path, tmp_path: Path) -> None:
    """By both its names (`uvx` takes the longer): a configuration, files, no unit in /tmp."""
    for name in ("poller", "short-interest-poller"):
        done = run(installed / name, "--version", cwd=tmp_path)
        assert (done.returncode, done.stdout.strip()) == (0, __version__)
    where = run(installed / "python", "-c", "import poller; print(poller.__file__)", cwd=tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(installed.parent)
    program = installed / "poller"
    done = run(program, "config", "init", "poller.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/poller.toml\n")
    assert (tmp_path / "poller.toml").read_text(encoding="utf-8") == template()
    done = run(program, "config", "files", "prometheus/*", "systemd/*", "--into", ".", cwd=tmp_path)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 5)
    assert "PollerRedisDown" in (tmp_path / "prometheus/alerts.yml").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(dir="/tmp") as hidden:
        done = run(program, "service", "install", "--dry-run", cwd=Path(hidden))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"poller: {hidden}: the unit has a /tmp of its own" in done.stderr
    done = run(program, "config", "files", "grafana/*", "none/*", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("poller: none/*: no such file comes with this version")


def test_a_demo_that_is_ended_early_praises_nothing() -> None:
    """What was not posted has no signature that could have been verified."""
    assert _Seen(rows=1760).summary == "1,760 events read, none posted yet."
    assert (
        _Seen(1, news=2, verified=2).summary == "3 events read, 2 posted: every signature verified."
    )
    assert _Seen(1, news=2, verified=1, refused=1).summary.endswith("1 posted: 1 refused.")


def test_its_demo_shows_the_product_and_ends(installed: Path, tmp_path: Path) -> None:
    """A history, a release from its first row to its completion, a revision, and their posts.

    Afterwards the directory is as empty as before.
    """
    done = run(installed / "poller", "demo", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    shown = ("each an event", "detected", "reported", "completed", "revised", "To look further")
    assert [part for part in shown if part not in done.stdout] == []
    assert "every signature verified" in done.stdout
    assert "exit code 0" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_demo_of_uvx_names_the_command_that_is_left(tmp_path: Path) -> None:
    """The environment is in a cache, and its program on nobody's PATH once the demo has ended."""
    prefix = tmp_path / "archive-v0/environment"
    assert command_for(prefix) != "uvx short-interest-poller"
    (tmp_path / "CACHEDIR.TAG").touch()
    assert command_for(prefix) == "uvx short-interest-poller"


@pytest.mark.parametrize(
    ("tag", "log", "told"),
    [
        (f"v{__version__}", f"## [Unreleased]\n## [{__version__}] 2026-01-01\n", None),
        (
            "v9.9",
            f"## [{__version__}]\n",
            f"v9.9: the package says {__version__}: tag v{__version__}",
        ),
        (__version__, f"## [{__version__}]\n", f"{__version__}: the package says"),
        (f"v{__version__}", "## [Unreleased]\n", "CHANGELOG.md has no"),
    ],
)
def test_a_tag_that_is_not_the_version_is_refused(tag: str, log: str, told: str | None) -> None:
    """A release is what `__version__` says, and the change log knows it."""
    found = complaint(tag, log)
    assert (found is None) == (told is None)
    assert (found or "").startswith(told or "")
