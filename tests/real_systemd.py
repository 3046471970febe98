"""`make systemd`: the installed unit under a real systemd, in a tree of its own.

The wheel is installed as pipx does it: an environment below /opt, and a link to its program. The
lines of the pages on backup, restoring and moving are run there as they stand.

Needs root and systemd-nspawn (Debian: systemd-container); elsewhere it says so and ends. The tree
is made by hand and shares nothing but read-only programs with this machine: a systemd that was
started on the machine's own root would empty everybody's temporary directory.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from poller import __version__
from tests.test_operations import steps

HERE = Path(__file__).parent.parent
FLAGS = (
    "--quiet", "--private-network", "--register=no", "--keep-unit", "--link-journal=no",
    "--timezone=off", "--resolv-conf=off", "--bind-ro=/usr",
)  # fmt: skip
NEWER = "99.0"
PORT = 11111
SECRET = "whsec_c2l4dHktZm91ciBieXRlcyBhcmUgbW9yZSB0aGFuIGVub3VnaCE="  # noqa: S105  nobody's
CONFIG = """\
state_dir = "/var/lib/poller"

[[opend]]
port = {port}

[watchlist]
codes = [{codes}]

[schedule]
due = 2.0
idle = 2.0
late = 2.0

[[webhooks]]
name = "desk"
url = "https://example.org/hook"
secret_file = "/etc/poller/desk-secret"
"""
ETC = Path("/etc/poller")
CHECKOUT = Path("/opt/checkout")
LENT = Path("/opt/lent")
"""The suite's packages: the dependencies, where no unit hides them."""
ENVIRONMENT = Path("/opt/pipx/venvs/short-interest-poller")
PROGRAM = Path("/opt/bin/poller")
UNITS = Path("/etc/systemd/system")
TRIAL = """\
[Unit]
Description=the trial
After=basic.target

[Service]
Type=oneshot
WorkingDirectory={here}
Environment=PYTHONPATH={here}:{lent}
ExecStart={python} -m tests.real_systemd inside
ExecStopPost=systemctl --no-block poweroff
StandardOutput=file:/report
StandardError=file:/problems

[Install]
WantedBy=multi-user.target
"""
OPEND = """\
[Service]
ExecStart={python} -m poller.simulator --port {port}
WorkingDirectory={here}
Environment=PYTHONPATH={here}:{lent}
"""


def main() -> int:
    """Build the tree, boot it, and print what was seen inside."""
    nspawn = shutil.which("systemd-nspawn")
    if nspawn is None or os.geteuid() != 0:
        sys.stdout.write("left out: it needs root and systemd-nspawn (apt: systemd-container)\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="poller-systemd-") as name:
        tree = Path(name) / "tree"
        plant(tree)
        programs = {f"{sys.base_prefix}", f"{sysconfig.get_path('purelib')}:{LENT}"} - {"/usr"}
        command = [nspawn, "-D", str(tree), *FLAGS, *(f"--bind-ro={each}" for each in programs)]
        began = time.monotonic()
        booted = subprocess.run(
            [*command, "-b", "systemd.mask=systemd-firstboot.service"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        report, problems = (
            path.read_text(encoding="utf-8") if path.exists() else ""
            for path in (tree / "report", tree / "problems")
        )
    sys.stdout.write(report)
    sys.stdout.write(f"in all {time.monotonic() - began:.0f} s\n")
    if report.endswith("all held\n"):
        return 0
    sys.stdout.write(problems or booted.stdout[-3000:] + booted.stderr[-3000:])
    return 1


def plant(tree: Path) -> None:
    """Make the smallest root that systemd boots from."""
    for name in ("dev", "etc", "proc", "run", "sys", "tmp", "usr", "var", "root", "home"):
        (tree / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (tree / name).symlink_to(f"usr/{name}")
    etc = tree / "etc"
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    (etc / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (etc / "machine-id").write_text("0" * 31 + "1\n")
    (etc / "os-release").write_text("ID=trial\n")
    shutil.copy("/etc/ld.so.cache", etc)
    units = etc / "systemd/system"
    (units / "multi-user.target.wants").mkdir(parents=True)
    (units / "default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")
    python = Path(sys.base_prefix) / "bin" / Path(sys.executable).resolve().name
    names = {"python": python, "here": CHECKOUT, "lent": LENT, "port": PORT}
    (units / "trial.service").write_text(TRIAL.format(**names))
    (units / "opend.service").write_text(OPEND.format(**names))
    (units / "multi-user.target.wants/trial.service").symlink_to("../trial.service")
    inside = tree / CHECKOUT.relative_to("/")
    inside.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(HERE / name, inside)
    for name in ("poller", "tests", "docs", "config"):
        shutil.copytree(HERE / name, inside / name)
    wheel = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    package = inside / "poller/__init__.py"
    text = package.read_text(encoding="utf-8")
    for version in (NEWER, __version__):
        package.write_text(text.replace(f'"{__version__}"', f'"{version}"'), encoding="utf-8")
        subprocess.run(wheel, cwd=inside, capture_output=True, check=True)


def inside() -> int:
    """Install the unit and try what an operator does; prints a line for each thing seen."""
    ETC.mkdir()
    (ETC / "desk-secret").write_text(SECRET)
    (ETC / "desk-secret").chmod(0o600)
    configure("HK.00700")
    systemctl("start", "opend")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(ENVIRONMENT)], check=True)
    (packages,) = ENVIRONMENT.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(f"{LENT}\n", encoding="utf-8")
    PROGRAM.parent.mkdir()
    PROGRAM.symlink_to(ENVIRONMENT / "bin/poller")
    install(__version__)
    for step in (start, reload, kill, watchdog, stop, upgraded, restored, moved, wrong):
        began = time.monotonic()
        seen = step()
        sys.stdout.write(f"{step.__name__:9} {seen} ({time.monotonic() - began:.1f} s)\n")
        sys.stdout.flush()
    sys.stdout.write("all held\n")
    return 0


def install(version: str) -> None:
    """Install a version's wheel as pipx does, and the unit from it."""
    (wheel,) = (CHECKOUT / "dist").glob(f"*-{version}-*")
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(ENVIRONMENT), "install"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    assert poller("--version").strip() == version
    poller("service", "install", "--config", str(ETC / "poller.toml"))
    systemctl("daemon-reload")


def poller(*arguments: str) -> str:
    """Run the installed program with the service's configuration; returns what it prints."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [PROGRAM, *arguments],
        cwd=ETC,
        env=environment | {"POLLER_CONFIG": str(ETC / "poller.toml")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def start() -> str:
    """READY, a user of its own, a credential only root can read, a last report."""
    systemctl("start", "poller")
    assert show("ActiveState") == "active"
    until(lambda: "last report HK 2026-04-30" in show("StatusText"))
    owner = Path(f"/proc/{show('MainPID')}").stat().st_uid
    assert 61184 <= owner <= 65519, owner
    assert show("Type").startswith("notify")
    return f"uid {owner}, {show('StatusText')!r}"


def reload() -> str:
    """A new watchlist is taken, a broken one is not; the process stays."""
    process = show("MainPID")
    configure("HK.00700", "HK.00005")
    systemctl("reload", "poller")
    until(lambda: show("StatusText").startswith("watching 2 symbols"))
    configure("HK.5")
    systemctl("reload", "poller")
    until(lambda: "the old one stays" in journal())
    assert "HK.00005" in journal()
    assert show("MainPID") == process
    assert show("ActiveState") == "active"
    configure("HK.00700")
    return "two symbols, then a broken file refused"


def kill() -> str:
    """Kill -9 is followed by a restart."""
    process = show("MainPID")
    os.kill(int(process), 9)
    until(lambda: show("MainPID") not in {process, "0"} and show("ActiveState") == "active")
    assert show("NRestarts") == "1", journal()
    until(lambda: "last report" in show("StatusText"))
    return f"restarted as {show('MainPID')}"


def watchdog() -> str:
    """A process that hangs is ended by the watchdog and started again."""
    hurried = UNITS / "poller.service.d/hurried.conf"
    hurried.parent.mkdir()
    # shorter than the pauses of a loop with nothing to do: only for a process that hangs from here
    hurried.write_text("[Service]\nWatchdogSec=12s\n")
    systemctl("daemon-reload")
    systemctl("restart", "poller")
    os.kill(int(show("MainPID")), 19)
    hurried.unlink()
    systemctl("daemon-reload")
    until(lambda: show("NRestarts") == "1" and show("ActiveState") == "active")
    assert "atchdog" in journal()
    return "ended by the watchdog, restarted"


def stop() -> str:
    """Stopping takes less than 10 s and leaves nothing behind."""
    began = time.monotonic()
    systemctl("stop", "poller")
    assert time.monotonic() - began < 10
    assert (show("ActiveState"), show("Result")) == ("inactive", "success")
    left = subprocess.run(["pgrep", "valkey"], capture_output=True, check=False).stdout
    assert not left
    assert (Path("/var/lib/private/poller/redis/password").stat().st_mode & 0o77) == 0
    return "success, nothing left running, the state is private"


def upgraded() -> str:
    """A newer version and the way back: what was published stays, and nothing is added."""
    systemctl("start", "poller")
    before = published()
    for version in (NEWER, __version__):
        install(version)
        systemctl("restart", "poller")
        goes_on(before)
    return f"to {NEWER} and back"


def restored() -> str:
    """The lines of the pages: a backup, and the service that goes on from it."""
    before = published()
    run("backup", "The embedded server")
    until(lambda: published() == before)
    shutil.rmtree("/var/lib/private/poller/redis")
    shutil.rmtree(ETC)
    run("restoring", "The embedded server")
    return f"{goes_on(before)} events"


def moved() -> str:
    """The lines of the page, with this machine as the old and, emptied, as the new one."""
    before = published()
    run("moving", "With the embedded server", 0)
    shutil.rmtree("/var/lib/private/poller")
    Path("/var/lib/poller").unlink()
    shutil.rmtree(ETC)
    run("moving", "With the embedded server", 1)
    seen = goes_on(before)
    systemctl("disable", "--now", "poller")
    return f"{seen} events"


def run(page: str, section: str, block: int | None = None) -> None:
    """Run the lines of a section of a page, or of one block of it, as they are."""
    for part in steps(page, section, block):
        done = subprocess.run(
            ["bash", "-eu", "-c", part], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (part, done.stdout, done.stderr, journal())


def published() -> str:
    """Return every entry of the stream, as root reads them from the running service."""
    until(lambda: "last report" in show("StatusText"))
    return poller("tail", "--from", "0", "--no-follow", "--json")


def goes_on(before: str) -> int:
    """Fail unless the service runs, owns its state, and published nothing anew; count events."""
    assert published() == before
    state = Path("/var/lib/private/poller")
    owner = Path(f"/proc/{show('MainPID')}").stat().st_uid
    assert {path.lstat().st_uid for path in (state, *state.rglob("*"))} == {owner}
    return before.count("\n")


def wrong() -> str:
    """A wrong configuration ends it for good, with its line."""
    configure("HK.5")
    subprocess.run(["systemctl", "start", "poller"], capture_output=True, check=False)
    until(lambda: show("ActiveState") == "failed")
    assert show("ExecMainStatus") == "2"
    return "exit 2, not tried again"


def configure(*codes: str) -> None:
    """Write the configuration."""
    text = CONFIG.format(port=PORT, codes=", ".join(f'"{code}"' for code in codes))
    (ETC / "poller.toml").write_text(text)
    (ETC / "poller.toml").chmod(0o644)


def systemctl(*arguments: str) -> None:
    """Run one command; what it says goes into the exception."""
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (arguments, done.stderr, journal())


def show(name: str) -> str:
    """Return a property of the unit."""
    command = ["systemctl", "show", "poller", "-P", name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def journal() -> str:
    """Return what systemd and the service wrote about it."""
    command = ["journalctl", "-q", "-u", "poller", "-o", "cat", "--no-pager"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, (condition, show("StatusText"), journal())
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(inside() if sys.argv[1:] == ["inside"] else main())
