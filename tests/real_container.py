"""`make container`: the image, built by the Dockerfile, and compose.yaml, run for real.

Needs root and Debian's buildah, podman, crun and debootstrap; elsewhere it says so and ends. A
bootstrapped Debian takes the place of the published base image, and a Redis of Debian that of the
published one. podman-compose, installed beside, runs compose.yaml; the simulator is its OpenD. All
of it happens in namespaces of their own, whose mounts, networks and processes end with them.
CONTAINER_DIR names a directory to keep, with the base and the layers that are built.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import yaml

from tests.image import CODES, HERE, build, prepare, run

NEEDED: Final = ("buildah", "podman", "crun", "debootstrap")
LARGEST: Final = 300
"""Megabytes of the image."""

STARTS: Final = 5
UNSHARE: Final = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
TOKEN: Final = "whsec_c2l4dHktZm91ciBieXRlcyBhcmUgbW9yZSB0aGFuIGVub3VnaCE="  # noqa: S105  nobody's
PASSWORD: Final = "nobody-else-knows-this"  # noqa: S105
CONFIG: Final = f"""\
[[opend]]
host = "opend"

[watchlist]
codes = {json.dumps(CODES)}

[schedule]
due = 2.0
idle = 2.0
late = 2.0

[[webhooks]]
name = "desk"
url = "https://example.org/hook"
secret_file = "/run/secrets/web-token"
filter = "abs(change.percent) >= 10000"
"""


def main() -> int:
    """Build and try in two sets of namespaces; returns the exit code."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        sys.stdout.write(f"left out: it needs root and (apt:) {', '.join(NEEDED)}\n")
        return 0
    if kept := os.environ.get("CONTAINER_DIR"):
        Path(kept).mkdir(parents=True, exist_ok=True)
        return stages(Path(kept).resolve())
    with tempfile.TemporaryDirectory(prefix="poller-container-") as name:
        return stages(Path(name))


def stages(work: Path) -> int:
    """Run both stages, each as the first process of its namespaces."""
    prepare(work)
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("POLLER_")},
        "CONTAINERS_CONF": str(work / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(work / "storage.conf"),
    }
    for stage, more in (("build", ()), ("run", ("--net", "--ipc", "--uts"))):
        command = [*UNSHARE, *more, sys.executable, "-m", "tests.real_container", stage, str(work)]
        done = subprocess.run(
            command, cwd=HERE, env=environment, stdin=subprocess.DEVNULL, timeout=1200, check=False
        )
        if done.returncode != 0:
            return 1
    return 0


class Trial:
    """compose.yaml in a directory of its own, with what the documentation says to put there."""

    def __init__(self, work: Path) -> None:
        self.folder = work / "project"
        self.compose = work / "compose/bin/podman-compose"
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "etc").mkdir(parents=True)
        (self.folder / "secrets").mkdir(mode=0o700)
        text = json.dumps(adapted(yaml.safe_load((HERE / "compose.yaml").read_text())))
        (self.folder / "compose.yaml").write_text(text)
        (self.folder / "etc/poller.toml").write_text(CONFIG)
        secrets = {
            "redis-conf": f"requirepass {PASSWORD}\n",
            "redis-url": f"redis://:{PASSWORD}@redis:6379/0\n",
            "web-token": TOKEN,
        }
        for name, text in secrets.items():
            (self.folder / "secrets" / name).write_text(text)
            (self.folder / "secrets" / name).chmod(0o644)

    def composed(self, *arguments: str) -> str:
        """Run podman-compose, with OpenD's profile."""
        file = self.folder / "compose.yaml"
        command = (self.compose, "--in-pod", "false", "--profile", "opend", "-f", file, *arguments)
        return run(*command, limit=60.0)

    def steps(self) -> None:
        """Do what an operator does; prints a line for each thing seen."""
        for step in (
            self.size,
            self.up,
            self.inside,
            self.health,
            self.kill,
            self.start,
            self.down,
        ):
            began = time.monotonic()
            seen = step()
            sys.stdout.write(f"{step.__name__:7} {seen} ({time.monotonic() - began:.1f} s)\n")
            sys.stdout.flush()

    def size(self) -> str:
        """The image is small enough; its layers and its largest packages are named."""
        size = int(run("podman", "inspect", "--format", "{{.Size}}", "short-interest-poller"))
        assert size <= LARGEST * 10**6, size
        layers = run("podman", "history", "--format", "{{.Size}}", "short-interest-poller")
        parts = [line for line in layers.splitlines() if line.endswith(" MB")]
        packages = "/opt/poller/lib/python3*/site-packages"
        weighed = run("podman", "run", "--rm", "--network", "none", "--entrypoint", "sh",
                      "short-interest-poller", "-c", f"du -sm {packages}/*")  # fmt: skip
        largest = sorted((line.split() for line in weighed.splitlines()), key=lambda w: -int(w[0]))
        named = ", ".join(f"{Path(path).name} {mb}" for mb, path in largest[:8])
        return f"{size / 1e6:.0f} MB, layers {', '.join(parts)}; largest packages, MB: {named}"

    def up(self) -> str:
        """All of compose.yaml starts, and becomes ready; a year of history is published."""
        self.composed("up", "--detach", "--no-build")
        until(lambda: ready()[0] == 200)
        until(lambda: len(events()) >= len(CODES))
        return "ready"

    def inside(self) -> str:
        """No root, no writable root, no capability; `check` finds what it needs."""
        status = execute("cat", "/proc/self/status")
        assert "Uid:\t10001\t10001" in status
        assert "CapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert fails("touch", "/opt/poller/x") == 1
        checked = run("podman", "exec", name_of("poller"), "poller", "check", tolerant=True)
        assert re.search(r"redis +ok", checked), checked
        assert re.search(r"OpenD opend:11111 +ok", checked), checked
        policy = redis("CONFIG", "GET", "maxmemory-policy"), redis("CONFIG", "GET", "appendonly")
        assert "noeviction" in policy[0], policy
        assert "yes" in policy[1], policy
        logs = run("podman", "logs", name_of("poller"))
        assert "secret file" not in logs, logs
        return "uid 10001, nothing writable, check finds Redis and OpenD"

    def health(self) -> str:
        """HEALTHCHECK says what /readyz says: with Redis and without."""
        assert ready()[0] == 200
        assert checked() == 0
        run("podman", "stop", name_of("redis"))
        began = time.monotonic()
        until(lambda: ready()[0] == 503)
        away = time.monotonic() - began
        assert checked() == 1
        reasons = json.loads(ready()[1])["reasons"]
        run("podman", "start", name_of("redis"))
        began = time.monotonic()
        until(lambda: ready()[0] == 200)
        back = time.monotonic() - began
        assert checked() == 0
        return f"0; without Redis 1 after {away:.1f} s, {reasons}; 0 again after {back:.1f} s"

    def kill(self) -> str:
        """Kill -9 of service and Redis loses nothing, and publishes nothing twice."""
        before = events()
        for name in ("redis", "poller"):
            run("podman", "kill", "-s", "KILL", name_of(name))
        until(lambda: state("redis") == state("poller") == "exited")
        run("podman", "start", name_of("redis"), name_of("poller"))
        until(lambda: ready()[0] == 200)
        after = events()
        assert after[: len(before)] == before
        assert len(after) == len(set(after))
        return f"{len(before)} events before, {len(after)} after, none twice"

    def start(self) -> str:
        """The service is ready soon after its start, and ends in time with 0."""
        starts, stops = [], []
        for _ in range(STARTS):
            began = time.monotonic()
            run("podman", "stop", name_of("poller"))
            stops.append(time.monotonic() - began)
            code = run("podman", "inspect", "--format", "{{.State.ExitCode}}", name_of("poller"))
            assert code == "0", code
            began = time.monotonic()
            run("podman", "start", name_of("poller"))
            until(lambda: ready()[0] == 200, pause=0.02)
            starts.append(time.monotonic() - began)
        assert max(stops) < 10
        told = ", ".join(f"{each:.2f}" for each in starts)
        return (
            f"ready after {statistics.median(starts):.2f} s ({told}), stopped in {max(stops):.2f} s"
        )

    def down(self) -> str:
        """Everything stops and is removed; the volumes, and so the events, stay."""
        self.composed("down")
        assert not run("podman", "ps", "--all", "--quiet")
        listed = run("podman", "volume", "ls", "--format", "{{.Name}}").split()
        volumes = {name for name in listed if name.startswith("short-interest_")}
        assert {name.partition("_")[2] for name in volumes} == {"redis", "state", "opend"}
        return "volumes stay"


def adapted(compose: dict[str, Any]) -> dict[str, Any]:
    """Make up for what Debian's podman lacks, and change nothing else.

    It has no name server and does not know the network's gateway by name, so addresses are fixed,
    with the Ethernet address of each, as in Docker: others would wait 40 s for a new one. And it
    raises the limits of a process where none are given, which not every root may.
    """
    services = compose["services"]
    addresses = {name: f"10.89.0.{number}" for number, name in enumerate(services, start=10)}
    for name, service in services.items():
        ethernet = f"02:42:0a:59:00:{addresses[name][-2:]}"
        here = {"ipv4_address": addresses[name], "mac_address": ethernet}
        service["networks"] = {"default": here}
        service["ulimits"] = {"nofile": 16384, "nproc": 4096}
    named = [f"{name}:{address}" for name, address in addresses.items()]
    services["poller"]["extra_hosts"] = ["host.docker.internal:10.89.0.1", *named]
    compose["networks"] = {"default": {"ipam": {"config": [{"subnet": "10.89.0.0/24"}]}}}
    return compose


def name_of(service: str) -> str:
    """Return the container's name of a service."""
    return f"short-interest_{service}_1"


def state(service: str) -> str:
    """Return what podman says a container does."""
    return run("podman", "inspect", "--format", "{{.State.Status}}", name_of(service))


def execute(*command: str) -> str:
    """Run a command in the service's container."""
    return run("podman", "exec", name_of("poller"), *command)


def fails(*command: str) -> int:
    """Return the exit code of a command in the service's container."""
    done = ["podman", "exec", name_of("poller"), *command]
    return subprocess.run(done, capture_output=True, timeout=60, check=False).returncode


def checked() -> int:
    """Return the exit code of the image's own health check."""
    done = ["podman", "healthcheck", "run", name_of("poller")]
    return subprocess.run(done, capture_output=True, timeout=60, check=False).returncode


def redis(*command: str) -> str:
    """Return what the server answers to a command."""
    asked = ("redis-cli", "--no-auth-warning", "-a", PASSWORD, *command)
    return run("podman", "exec", name_of("redis"), *asked)


def events() -> list[str]:
    """Return the ids of all events on the stream, in order."""
    return re.findall(r"^id\n(\S+)$", redis("XRANGE", "short-interest", "-", "+"), re.MULTILINE)


def ready() -> tuple[int, str]:
    """Return the status and the body of /readyz at the published port; 0 without an answer."""
    request = Request("http://127.0.0.1:8080/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urlopen(request, timeout=20) as answer:  # noqa: S310  http it is
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode()
    except (URLError, OSError):
        return 0, ""


def troubles() -> str:
    """Return what is known of each container, for whoever looks into a failure."""
    told = [run("podman", "ps", "--all", tolerant=True)]
    for service in ("poller", "redis", "opend"):
        command = ["podman", "logs", "--tail", "20", name_of(service)]
        logs = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        told.append(f"{service}: {logs.stdout}{logs.stderr}")
    return "\n".join(told)


def until(condition: Callable[[], bool], *, pause: float = 0.2) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, ready()
        time.sleep(pause)


def stage(name: str, work: Path) -> int:
    """Run one stage inside its namespaces."""
    hybrid = Path("/sys/fs/cgroup/unified")
    if hybrid.is_mount():  # crun cannot use both versions at once; nobody else sees that it is gone
        run("umount", hybrid)
    if name == "build":
        build(work)
        return 0
    leases = Path("/var/lib/cni")
    leases.mkdir(exist_ok=True)
    for place in (leases, Path("/run")):
        run("mount", "-t", "tmpfs", "none", place)
    run("ip", "link", "set", "lo", "up")
    trial = Trial(work)
    try:
        trial.steps()
    except BaseException:
        sys.stdout.write(troubles())
        raise
    finally:
        trial.composed("down", "--volumes")
    sys.stdout.write("all held\n")
    return 0


if __name__ == "__main__":
    sys.exit(stage(sys.argv[1], Path(sys.argv[2])) if sys.argv[1:] else main())
