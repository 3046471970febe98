"""The systemd units: what is shipped, what `service install` writes, what systemd thinks of it."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from poller.service.unit import REFERENCE, Place, UnitRole, unit_text
from poller.settings.config import load
from tests.machine import needs
from tests.service import Service, poller

SHIPPED = Path("config/systemd")


def has_what_it_needs(unit: Path) -> None:
    """Fail unless the unit says what the README promises."""
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


@pytest.mark.parametrize("role", UnitRole)
def test_the_shipped_units_are_what_install_writes(role: UnitRole) -> None:
    """Mended in one place only: the text in `poller.service.unit`."""
    shipped = (SHIPPED / f"{role.unit}.service").read_text(encoding="utf-8")
    assert shipped == unit_text(role, REFERENCE)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A configuration with a secret file of its own."""
    (tmp_path / "desk").write_text("redis://:hunter2@127.0.0.1:6379/0")
    (tmp_path / "poller.toml").write_text(f'redis.url_file = "{tmp_path / "desk"}"\n')
    (tmp_path / "poller.toml").chmod(0o644)
    return tmp_path


async def install(home: Path, *arguments: str) -> tuple[int, str, str]:
    """Run `poller service install --dry-run` for the configuration in `home`."""
    service = Service(home, 1, "HK.00700", {"POLLER_CONFIG": str(home / "poller.toml")})
    return await poller(service, "service", "install", "--dry-run", *arguments)


@pytest.mark.parametrize("judge", JUDGES)
async def test_the_unit_of_this_environment(home: Path, judge: Callable[[Path], None]) -> None:
    """What is printed here is understood, hardened, and hands the secret over unread."""
    code, text, err = await install(home)
    assert code == 0
    assert f"LoadCredential=desk:{home}/desk" in text
    assert f"-m poller run --config {home}/poller.toml" in text
    assert "hunter2" not in text + err
    assert "POLLER_STATE_DIR is set here and not in the unit" in err
    unit = home / "poller.service"
    unit.write_text(text, encoding="utf-8")
    judge(unit)


async def test_what_could_not_run_is_refused(home: Path) -> None:
    """A configuration the service's user cannot read, and credentials of one name: a line each."""
    (home / "other").mkdir()
    (home / "other/desk").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    with (home / "poller.toml").open("a") as file:
        file.write(
            '[[webhooks]]\nname = "desk"\nurl = "https://example.org"\n'
            f'secret_file = "{home / "other/desk"}"\n'
        )
    (home / "poller.toml").chmod(0o600)
    code, text, err = await install(home)
    assert (code, text) == (2, "")
    assert "desk: two secret files bear this name" in err
    assert f"chmod a+r {home}/poller.toml" in err


def test_a_credential_is_read_in_its_files_place(home: Path) -> None:
    """Under systemd the copy counts, by the file's name; without one, the file itself does."""
    credentials = home / "credentials"
    credentials.mkdir()
    file, environment = home / "poller.toml", {"CREDENTIALS_DIRECTORY": str(credentials)}
    assert "hunter2" in str(load(file, environment).secrets())
    (credentials / "desk").write_text("redis://:copied@127.0.0.1")
    (home / "desk").unlink()
    assert load(file, environment).secrets() == ("redis://:copied@127.0.0.1", "copied")


async def test_a_role_of_its_own(home: Path) -> None:
    """Each role has its unit."""
    _, text, _ = await install(home, "--role", "deliver")
    assert "-m poller deliver --config" in text


def test_homes_are_hidden_but_for_what_is_needed() -> None:
    """A program installed below a home is seen, nothing else of the home is."""
    place = Place(Path("/home/a/x/bin/python"), Path("/srv"), None, (Path("/home/a/x"),))
    text = unit_text(UnitRole.RUN, place)
    assert "ProtectHome=tmpfs\nBindReadOnlyPaths=/home/a/x/bin\nBindReadOnlyPaths=/home/a/x\n" in (
        text
    )
    assert "ProtectHome=yes" in unit_text(UnitRole.RUN, REFERENCE)


def test_odd_paths_arrive_whole() -> None:
    """Blanks, percent and dollar signs mean nothing to systemd."""
    text = unit_text(UnitRole.RUN, replace(REFERENCE, python=Path("/opt/a b/100%/$x/python")))
    assert 'ExecStart="/opt/a b/100%%/$$x/python" -m poller run' in text


def test_an_older_systemd_is_spoken_to_in_its_words() -> None:
    """Before 253 there is no notify-reload: the reload is a signal of our own."""
    text = unit_text(UnitRole.RUN, replace(REFERENCE, systemd=252))
    assert "Type=notify\nExecReload=kill -HUP $MAINPID\n" in text
    assert "Type=notify-reload\n" in unit_text(UnitRole.RUN, REFERENCE)
