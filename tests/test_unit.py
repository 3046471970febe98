"""The systemd units: what is shipped, what `service install` writes, what systemd thinks of it."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from poller.cli.install import Installed, install, place_of, reminders
from poller.errors import ConfigError
from poller.service.unit import REFERENCE, TEMPORARY, Installation, obstacles, unit_of, unit_text
from poller.settings.config import load
from poller.telemetry.roles import Role
from tests.machine import needs
from tests.service import Service, poller

SHIPPED = Path("config/systemd")


def has_what_it_needs(unit: Path) -> None:
    """Fail unless the unit says what the docs promise."""
    lines = set(unit.read_text(encoding="utf-8").splitlines())
    assert lines >= {
        "DynamicUser=yes",
        "StateDirectory=poller",
        "Environment=POLLER_STATE_DIR=%S/poller HOME=%S/poller",
        "WatchdogSec=3min",
        "Restart=always",
        "RestartPreventExitStatus=2",
    }


def systemd_understands(unit: Path) -> None:
    """Fail when systemd has anything to say: an unknown key is no error to it, only a line."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    about = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, about) == (0, [])


def is_hardened(unit: Path) -> None:
    """Fail when systemd rates the exposure above 1.5 of 10."""
    subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(unit)],
        capture_output=True,
        check=True,
    )


JUDGES = [
    has_what_it_needs,
    *(
        pytest.param(judge, marks=needs("systemd-analyze"))
        for judge in (systemd_understands, is_hardened)
    ),
]


@pytest.mark.parametrize("role", get_args(Role))
def test_the_shipped_units_are_what_install_writes(role: Role) -> None:
    """Mended in one place only: the text in `poller.service.unit`."""
    shipped = (SHIPPED / f"{unit_of(role)}.service").read_text(encoding="utf-8")
    assert shipped == unit_text(role, REFERENCE)


@pytest.fixture
def home() -> Iterator[Path]:
    """A configuration with a secret file of its own, where every user may look."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "desk").write_text("redis://:hunter2@127.0.0.1:6379/0")
        (folder / "poller.toml").write_text('redis.url_file = "desk"\n')
        (folder / "poller.toml").chmod(0o644)
        (folder / "bin").mkdir(mode=0o755)
        (folder / "bin/python").symlink_to(sys.executable)
        yield folder


def place(home: Path, *, temporary: Sequence[Path] = ()) -> Installation:
    """Return what a unit is made from where all is in `home`; nothing of it counts as temporary."""
    program = Installed(home / "bin/python", home, (home,))
    return place_of(home / "poller.toml", {}, program, temporary)


def problems(home: Path, *, temporary: Sequence[Path] = ()) -> list[str]:
    """Return the lines `service install` is refused with, but for those of this Python's place."""
    with pytest.raises(ConfigError) as caught:
        place(home, temporary=temporary)
    return [line for line in caught.value.problems if str(home) in line or "/" not in line]


@pytest.fixture
def reachable(home: Path) -> Path:
    """The same with a Python that is reachable, wherever the one that runs is."""
    (home / "bin/python").unlink()
    (home / "bin/python").write_text("#!/bin/sh\n")
    (home / "bin/python").chmod(0o755)
    return home


@pytest.mark.parametrize("judge", JUDGES)
def test_the_unit_of_this_environment(
    reachable: Path, judge: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is printed here is understood, hardened, and hands the secret over unread."""
    variables = {"POLLER_STATE_DIR": "/srv", "POLLER_CONFIG": "x", "POLLER_SERVICE_HOST": "::1"}
    install("run", place(reachable), variables, dry_run=True)
    text, err = capsys.readouterr()
    assert f"LoadCredential=desk:{reachable}/desk" in text
    assert f"-m poller run --config {reachable}/poller.toml" in text
    assert "hunter2" not in text + err
    assert err.splitlines() == [
        "poller: POLLER_STATE_DIR is set here and not in the unit: put it into the configuration"
    ]
    unit = reachable / "poller.service"
    unit.write_text(text, encoding="utf-8")
    judge(unit)


def test_a_configuration_with_another_state_is_told(home: Path) -> None:
    """Every later command would read that state in silence; a Redis of one's own is one for all."""
    file = home / "poller.toml"
    assert list(reminders(file, {})) == []  # its redis.url_file
    for text in ("", f'state_dir = "{home}"', 'state_dir = "state"'):
        file.write_text(text)
        (line,) = reminders(file, {"POLLER_STATE_DIR": "/var/lib/poller"})
        assert line.startswith(f'{file}: write state_dir = "/var/lib/poller" into it')
    file.write_text('state_dir = "/var/lib/poller"')
    assert list(reminders(file, {"POLLER_STATE_DIR": "/srv"})) == []


def test_a_unit_without_a_configuration_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the wrong directory it would watch nothing, in silence."""
    monkeypatch.chdir(home)
    (line,) = reminders(None, {})
    assert line.startswith("no configuration: the unit has every key's default")


def test_the_documented_installation_has_one_state(home: Path) -> None:
    """Its lines lead every command with that configuration to the state of the unit."""
    (line,) = re.findall(
        r"^# (sed -i .*) poller\.toml$", Path("docs/installing.md").read_text(), re.MULTILINE
    )
    file = home / "poller.toml"
    shutil.copy("config/poller.toml", file)
    subprocess.run(["sh", "-euc", f"{line} {file}"], check=True)
    assert load(file, {}).state_dir == Path("/var/lib/poller")
    assert list(reminders(file, {})) == []


def test_what_could_not_run_is_refused(reachable: Path) -> None:
    """What the service's user cannot read, and credentials of one or of no name: a line each."""
    for name in ("other/desk", "other/of mine"):
        (reachable / name).parent.mkdir(exist_ok=True)
        (reachable / name).write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    with (reachable / "poller.toml").open("a") as file:
        file.write(
            '[[webhooks]]\nname = "desk"\nurl = "https://example.org"\n'
            'secret_file = "other/desk, other/of mine"\n'
        )
    (reachable / "poller.toml").chmod(0o600)
    (reachable / "bin").chmod(0o700)
    lines = problems(reachable)
    assert "desk: two secret files bear this name" in "\n".join(lines)
    assert any(line.endswith(f"chmod a+r {reachable}/poller.toml") for line in lines)
    assert any(
        line.startswith(f"{reachable}/other/of mine: a credential goes by") for line in lines
    )
    assert any(line.endswith(f"chmod a+rX {reachable}/bin") for line in lines)
    assert len(lines) == 4


def test_a_place_that_the_unit_does_not_see(reachable: Path, tmp_path: Path) -> None:
    """Below /tmp, or a link to there: each path is named, with the fix."""
    assert {line.partition(":")[0] for line in problems(reachable, temporary=TEMPORARY)} == {
        f"{reachable}{name}" for name in ("", "/bin", "/poller.toml")
    }
    assert "PrivateTmp" in problems(reachable, temporary=TEMPORARY)[0]
    link = Path(tempfile.mkdtemp(dir=reachable)) / "link"
    link.symlink_to(tmp_path)
    program = Installed(reachable / "bin/python", reachable, (link,))
    with pytest.raises(ConfigError, match=rf"{tmp_path}: the unit has a"):
        place_of(reachable / "poller.toml", {}, program, (tmp_path,))


async def test_a_configuration_below_tmp_is_refused(tmp_path: Path) -> None:
    """By the command, too: exit code 2, and not a line of a unit."""
    file = Path(tempfile.mkdtemp(dir="/tmp")) / "poller.toml"
    file.touch()
    service = Service(tmp_path, 1, "HK.00700", {"POLLER_CONFIG": str(file)})
    code, out, err = await poller(service, "service", "install", "--dry-run")
    shutil.rmtree(file.parent)
    assert (code, out) == (2, "")
    assert f"poller: {file}: the unit has a /tmp of its own" in err


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("li\nne", "control characters"),
        ("x\nExecStartPre=/bin/sh", "control characters"),
        ("re\rturn", "control characters"),
        ("es\x1b[31m", "control characters"),
        ("c1\x85", "control characters"),
        ("page\u2028", "control characters"),
        (os.fsdecode(b"gb\xb8\xdb"), "not UTF-8"),
        ('qu"ote', "no quotation mark"),
        ("qu'ote", "no quotation mark"),
        ("back\\slash", "no quotation mark or backslash"),
        ("blank ", "the blank at its end"),
    ],
)
@pytest.mark.parametrize("field", ["python", "directory", "config", "needs", "secrets"])
def test_a_path_that_no_unit_can_hold(name: str, cure: str, field: str) -> None:
    """Refused in one line, wherever it stands; what it would write into the unit is shown inert."""
    path = Path("/srv/" + name)
    changes: dict[str, Any] = {
        "python": path / "python",
        "directory": path,
        "config": path,
        "needs": (path,),
        "secrets": (path / "desk",),
    }
    if name.endswith(" ") and field == "secrets":
        return
    (line,) = obstacles(replace(REFERENCE, **{field: changes[field]}))
    assert cure in line
    assert line.isprintable()


ODD = (
    "a b",
    "100%",
    "$x",
    "${HOME}",
    "%h",
    "semi;colon",
    "hash#",
    "col:on",
    "-dash",
    "@at",
    "簡體",
)


@needs("systemd-analyze")
@pytest.mark.parametrize("name", ODD)
def test_systemd_reads_odd_paths_as_they_are(reachable: Path, name: str) -> None:
    """It looks for the program where it is, and has nothing to say of any line."""
    odd = reachable / name
    (odd / "bin").mkdir(parents=True)
    shutil.copy("/bin/true", odd / "bin/python")
    (odd / "poller.toml").touch()
    where = replace(
        place(reachable),  # what it says of this systemd
        python=odd / "bin/python",
        directory=odd,
        config=odd / "poller.toml",
        needs=(odd,),
        secrets=(odd / "secret",),
    )
    assert obstacles(where, ()) == []
    unit = reachable / "poller.service"
    unit.write_text(unit_text("run", where), encoding="utf-8")
    systemd_understands(unit)
    unit.write_text(unit_text("run", replace(where, directory=odd / "none")))
    systemd_understands(unit)  # it looks at the program alone
    (odd / "bin/python").unlink()
    with pytest.raises(AssertionError):  # that it is not there
        systemd_understands(unit)


def test_a_credential_is_read_in_its_files_place(home: Path) -> None:
    """Under systemd the copy counts, by the file's name; without one, the file itself does."""
    credentials = home / "credentials"
    credentials.mkdir()
    file, environment = home / "poller.toml", {"CREDENTIALS_DIRECTORY": str(credentials)}
    assert "hunter2" in str(load(file, environment).secrets())
    (credentials / "desk").write_text("redis://:copied@127.0.0.1")
    (home / "desk").unlink()
    assert load(file, environment).secrets() == ("redis://:copied@127.0.0.1", "copied")


def test_a_role_of_its_own(reachable: Path) -> None:
    """Each role has its unit."""
    assert "-m poller deliver --config" in unit_text("deliver", place(reachable))


def test_homes_are_hidden_but_for_what_is_needed() -> None:
    """A program installed below a home is seen, nothing else of the home is."""
    place = Installation(Path("/home/a/x/bin/python"), Path("/srv"), None, (Path("/home/a/x"),))
    text = unit_text("run", place)
    assert "ProtectHome=tmpfs\nBindReadOnlyPaths=/home/a/x/bin\nBindReadOnlyPaths=/home/a/x\n" in (
        text
    )
    assert "ProtectHome=yes" in unit_text("run", REFERENCE)


def test_odd_paths_arrive_whole() -> None:
    """Blanks, percent and dollar signs mean nothing to systemd; a program knows no variables."""
    odd = Path("/opt/a b/100%/$x")
    where = replace(REFERENCE, python=odd / "python", config=odd / "toml", directory=odd)
    text = unit_text("run", replace(where, secrets=(odd / "desk",)))
    assert (
        'ExecStart="/opt/a b/100%%/$x/python" -m poller run --config "/opt/a b/100%%/$$x/toml"\n'
        in text
    )
    assert "WorkingDirectory=/opt/a b/100%%/$x\n" in text
    assert "LoadCredential=desk:/opt/a b/100%%/$x/desk\n" in text


def test_an_older_systemd_is_spoken_to_in_its_words() -> None:
    """Before 253 there is no notify-reload: the reload is a signal of our own."""
    text = unit_text("run", replace(REFERENCE, systemd=252))
    assert "Type=notify\nExecReload=kill -HUP $MAINPID\n" in text
    assert "Type=notify-reload\n" in unit_text("run", REFERENCE)
