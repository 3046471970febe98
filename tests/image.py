"""Builds the image by the Dockerfile, and what takes the place of the published images."""

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent.parent
COMPOSE: Final = "podman-compose==1.6.0"
CODES: Final = ("HK.00700", "HK.00005", "HK.00388", "US.AAPL", "US.MSFT")
STORAGE: Final = """\
[storage]
driver = "overlay"
graphroot = "{work}/images"
runroot = "{work}/run"
"""
CONTAINERS: Final = """\
[containers]
cgroups = "disabled"
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
tmp_dir = "{work}/tmp"
[network]
network_config_dir = "{work}/networks"
"""
REDIS: Final = """\
FROM debian:trixie-slim
RUN apt-get update -q && apt-get install -qy --no-install-recommends redis-server redis-tools
RUN install -d -o redis -g redis /data
WORKDIR /data
VOLUME /data
"""
OPEND: Final = """\
FROM short-interest-poller
USER root
COPY opend.py /
ENTRYPOINT ["python", "/opend.py"]
HEALTHCHECK NONE
"""
SIMULATOR: Final = f"""\
import asyncio
from poller.simulator import Simulator, World

async def serve():
    simulator = Simulator(World(seed=1, made_up={{}}, named={CODES!r}))
    await simulator.start("0.0.0.0", 11111)
    await asyncio.Event().wait()

asyncio.run(serve())
"""


def prepare(work: Path) -> None:
    """Write the configuration of buildah and podman: their storage is in `work`."""
    limits = {"files": 16384, "processes": 4096, "work": work}
    (work / "storage.conf").write_text(STORAGE.format(**limits))
    (work / "containers.conf").write_text(CONTAINERS.format(**limits))
    for name in ("tmp", "networks", "redis", "opend"):
        (work / name).mkdir(exist_ok=True)
    (work / "redis/Dockerfile").write_text(REDIS)
    (work / "opend/Dockerfile").write_text(OPEND)
    (work / "opend/opend.py").write_text(SIMULATOR)


def run(*command: object, tolerant: bool = False, limit: float = 900.0) -> str:
    """Return what a command prints; if it fails, what it said is in the exception."""
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False,
    )  # fmt: skip
    assert tolerant or done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-4000:])
    return done.stdout.strip()


def build(work: Path) -> None:
    """Bootstrap the base if need be, and build the image, its Redis and its OpenD."""
    began = time.monotonic()
    if "debian" not in run("podman", "images", "--format", "{{.Repository}}"):
        base = bootstrap(work / "base")
        run("tar", "-C", base, "-cf", work / "base.tar", ".")
        run("podman", "import", work / "base.tar", "debian:trixie-slim")
        (work / "base.tar").unlink()
        shutil.rmtree(base)
    based = time.monotonic()
    build_image(work, "short-interest-poller", HERE)
    sys.stdout.write(f"base {based - began:.0f} s, image {time.monotonic() - based:.0f} s\n")
    build_image(work, "redis:7", work / "redis")
    build_image(work, "opend", work / "opend")
    if not (work / "compose").exists():
        run(sys.executable, "-m", "venv", work / "compose")
        run(work / "compose/bin/pip", "install", "-q", COMPOSE)


def bootstrap(base: Path) -> Path:
    """Make what the published slim image is: a minimal Debian without manuals and languages."""
    listed = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    run("debootstrap", "--variant=minbase", "trixie", base, *listed.split()[:1])
    excluded = ("doc/*", "man/*", "locale/*", "info/*")
    slim = base / "etc/dpkg/dpkg.cfg.d/slim"
    slim.write_text("".join(f"path-exclude /usr/share/{each}\n" for each in excluded))
    for each in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info",
                 "var/cache/apt", "var/lib/apt/lists"):  # fmt: skip
        shutil.rmtree(base / each, ignore_errors=True)
        (base / each).mkdir(parents=True)
    (base / "etc/apt/apt.conf.d/outside").write_text(run("apt-config", "dump", "Acquire"))
    return base


def build_image(work: Path, tag: str, folder: Path) -> None:
    """Run a Dockerfile; pip in it reaches its index as it does on this machine."""
    run("buildah", "bud", "--isolation", "chroot", "--pull-never", "--layers", "--format", "docker",
        *("-t", tag), *pip_volumes(work), folder)  # fmt: skip


def pip_volumes(work: Path) -> Iterator[str]:
    """Yield options that mount pip's merged configuration, and the files that it names."""
    told = run(sys.executable, "-m", "pip", "config", "list").splitlines()
    values = dict(line.split("=", 1) for line in told if line.startswith("global."))
    named = (line.removeprefix(":env:.").split("=", 1) for line in told if line[:5] == ":env:")
    values |= {f"global.{name}": value for name, value in named}
    lines, places = ["[global]"], set()
    for name, quoted in values.items():
        value = " ".join(" ".join(shlex.split(quoted)).split())
        for place in re.findall(r"(?:^|\s|file://)(/\S+)", value):
            path = Path(place)
            if path.is_file():  # its copy elsewhere, because packages write it themselves
                value = value.replace(place, f"/outside/{path.name}")
                yield from ("-v", f"{path}:/outside/{path.name}:ro")
            elif path.exists():  # what a local index names may lie beside it
                places.add(path.parent if path.name == "simple" else path)
        lines.append(f"{name.removeprefix('global.')} = {value}")
    for path in places:
        yield from ("-v", f"{path}:{path}:ro")
    (work / "pip.conf").write_text("\n".join(lines) + "\n")
    yield from ("-v", f"{work}/pip.conf:/etc/pip.conf:ro")
