"""The pages on backup, restoring and moving: their lines are run, on what a real service wrote."""

import asyncio
import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from poller.detect.compare import compare
from poller.model import Code
from poller.simulator import World
from poller.store.embedded import Embedded
from poller.store.store import ONE_OFF, Entry
from tests.golden import VERSIONS, written
from tests.machine import at_most, needs, scaled
from tests.opend import Simulator
from tests.relaying import Place, place_at
from tests.service import Service, entries, later, now, simulator, store_of, with_rows
from tests.test_vanish import restore

TENCENT = Code("HK.00700")
REDIS_CONF = """\
dir {folder}
port 0
unixsocket {socket}
appendonly yes
maxmemory-policy noeviction
repl-diskless-sync-delay 0
"""
"""Of a server of one's own; a snapshot that redis-cli fetches waits for no other that may ask."""


def steps(page: str, section: str, block: int | None) -> list[str]:
    """Return the shell lines of a section, or of one block of it.

    They are cut where a service is stopped or started, which is a step of its own.
    """
    text = Path("docs", f"{page}.md").read_text(encoding="utf-8")
    _, found, rest = text.partition(f"\n## {section}\n")
    assert found, f"{page}: no section {section}"
    blocks = re.findall(r"```sh\n(.*?)```", rest.partition("\n## ")[0], re.DOTALL)
    assert blocks, f"{page}, {section}: no lines"
    lines = "".join(blocks if block is None else [blocks[block]])
    return [part for part in re.split(r"(?m)^(systemctl .*)\n", lines) if part]


@dataclass
class Machine:
    """A machine with our service and maybe a Redis server, in a directory of its own.

    Attributes:
        root: Stands in for its root directory.
        redis: The process of its own server.
        starts: What the lines start, by name of the unit.
    """

    root: Path
    redis: subprocess.Popen[bytes] | None = None
    starts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("root", "etc/poller", "var/lib/redis", "etc/redis", "var/lib/private/poller"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        text = REDIS_CONF.format(folder=self.root / "var/lib/redis", socket=self.socket)
        (self.root / "etc/redis/redis.conf").write_text(text, encoding="utf-8")

    @property
    def state(self) -> Path:
        """The state directory of the service."""
        return self.root / "var/lib/private/poller"

    @property
    def socket(self) -> Path:
        """Where its own Redis server listens."""
        return self.root / "redis.sock"

    @property
    def url(self) -> str:
        """The URL of its own Redis server."""
        return f"unix://{self.socket}"

    async def run(
        self, page: str, section: str, stop: Callable[[], Awaitable[None]], block: int | None = None
    ) -> str:
        """Run a section's lines here; returns what they print. `stop` ends the poller."""
        out = ""
        for part in steps(page, section, block):
            match part.split():
                case ["systemctl", "stop" | "disable", *rest]:
                    if "poller" in rest:
                        await stop()
                    if "redis-server" in rest:
                        await self.end_redis()
                case ["systemctl", "start" | "enable", *rest]:
                    self.starts += [unit for unit in rest if not unit.startswith("-")]
                    if "redis-server" in rest:
                        await self.start_redis()
                case _:
                    out += await asyncio.to_thread(self._shell, part)
        return out

    def _shell(self, lines: str) -> str:
        """Run lines as bash does, in this machine's directories and with its server."""
        lines = lines.replace("/var/lib/poller", str(self.state))
        for name in ("/root/", "/etc/", "/var/lib/redis", "/var/lib/private"):
            lines = re.sub(rf"(?<![\w/]){name}", f"{self.root}{name}", lines)
        lines = re.sub(r"redis-cli (?!-s)", f"redis-cli -s {self.socket} ", lines)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", lines],
            capture_output=True,
            text=True,
            check=False,
            timeout=scaled(30),
        )
        assert done.returncode == 0, (lines, done.stdout, done.stderr)
        return done.stdout

    async def start_redis(self) -> None:
        """Start its own server, as its configuration says; returns when it answers."""
        self.redis = subprocess.Popen(  # noqa: ASYNC220  it only forks
            ["redis-server", str(self.root / "etc/redis/redis.conf")], stdout=subprocess.DEVNULL
        )
        async with at_most(what="Redis"):
            while not self._pings():
                await asyncio.sleep(0.02)

    def _pings(self) -> bool:
        command = ["redis-cli", "-s", str(self.socket), "PING"]
        return subprocess.run(command, capture_output=True, check=False).stdout == b"PONG\n"

    async def end_redis(self) -> None:
        """End its own server, which writes what it holds."""
        if self.redis is not None:
            self.redis.terminate()
            await asyncio.to_thread(self.redis.wait)


@pytest.fixture
async def machines() -> AsyncIterator[Callable[[str], Machine]]:
    """Makes machines, in a directory whose name leaves room for that of a socket."""
    made: list[Machine] = []
    with tempfile.TemporaryDirectory() as name:

        def make(called: str) -> Machine:
            made.append(Machine(Path(name) / called))
            return made[-1]

        yield make
        for machine in made:
            await machine.end_redis()


@pytest.fixture
async def opend() -> AsyncIterator[Simulator]:
    """An OpenD that shows ten rows of HK.00700."""
    async with simulator(World()) as running:
        yield running


@contextlib.asynccontextmanager
async def serving(
    opend: Simulator, state: Path, settings: Mapping[str, str]
) -> AsyncIterator[Service]:
    """Run the service on a state until it is stopped, at the latest at the end of the block."""
    service = Service(state, opend.port, TENCENT, settings)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


@contextlib.asynccontextmanager
async def polled(opend: Simulator, state: Path) -> AsyncIterator[Place]:
    """Open an embedded server and what a service wrote there: all that OpenD shows now.

    It stands in for the service, which holds the server up as this does.
    """
    async with Embedded(state).running() as url, place_at(url) as place:
        rows = opend.world.records(TENCENT, now())
        snapshot = await place.store.records.snapshot(TENCENT)
        found = compare(TENCENT, rows, snapshot.known, observed_at=now(), history=len(rows))
        await place.store.records.commit(TENCENT, found, snapshot, ONE_OFF)
        yield place


def shows_a_day_more(opend: Simulator, days: int) -> None:
    """Let OpenD show a later day."""
    rows = opend.world.records(TENCENT, now())
    opend.world = with_rows(opend.world, TENCENT, (later(rows[0], days=days), *rows))


def goes_on(before: list[Entry], after: list[Entry], day: str) -> None:
    """Fail unless the stream is what it was, entry for entry, and one event of the new day."""
    assert after[: len(before)] == before
    (new,) = after[len(before) :]
    assert (new.fields["type"], new.fields["trading_day"]) == ("short_interest.reported", day)


async def nothing() -> None:
    """Stop a poller that does not run."""


async def test_a_backup_restored_into_nothing_goes_on(
    machines: Callable[[str], Machine], opend: Simulator
) -> None:
    """Embedded server: what was published is there once, and the next day follows."""
    machine = machines("mine")
    (machine.root / "etc/poller/poller.toml").write_text("# mine\n", encoding="utf-8")
    async with contextlib.AsyncExitStack() as running:
        place = await running.enter_async_context(polled(opend, machine.state))
        before = await entries(place.store, 10)
        await machine.run("backup", "The embedded server", running.aclose)
    shutil.rmtree(machine.state)
    shutil.rmtree(machine.root / "etc/poller")
    machine.state.mkdir()
    await machine.run("restoring", "The embedded server", nothing)
    assert machine.starts == ["poller"] * 2
    assert (machine.root / "etc/poller/poller.toml").read_text(encoding="utf-8") == "# mine\n"
    shows_a_day_more(opend, 8)
    async with serving(opend, machine.state, {}) as service, store_of(service) as store:
        goes_on(before, await entries(store, 11), "2026-05-08")


@needs("redis-cli")
@needs("redis-server")
async def test_a_state_moves_and_comes_back(
    machines: Callable[[str], Machine], opend: Simulator
) -> None:
    """To another machine, from there to a server of one's own, and out of a snapshot of that.

    Stream, watermark and a reader's position are as they were, and the next day follows once.
    """
    old, new = machines("old"), machines("new")
    async with contextlib.AsyncExitStack() as running:
        place = await running.enter_async_context(polled(opend, old.state))
        before = await entries(place.store, 10)
        await place.raw.xgroup_create("short-interest", "desk", before[4].id)
        await old.run("moving", "With the embedded server", running.aclose, 0)
    new.state.rmdir()  # nothing has run there
    shutil.copytree(old.root / "root", new.root / "root", dirs_exist_ok=True)
    await new.run("moving", "With the embedded server", nothing, 1)
    assert new.starts == ["poller"]
    await new.start_redis()
    async with contextlib.AsyncExitStack() as running:
        await running.enter_async_context(Embedded(new.state).running())
        section = "From the embedded server to one of your own"
        printed = await new.run("moving", section, running.aclose)
    assert "errors: 0" in printed
    await new.run("backup", "A server of your own", nothing)
    await new.end_redis()
    shutil.rmtree(new.root / "var/lib/redis")
    (new.root / "var/lib/redis").mkdir()
    await new.run("restoring", "A server of your own", nothing)
    await new.end_redis()
    await new.start_redis()  # and once more, from the append-only file that it has made
    shows_a_day_more(opend, 8)
    own = {"POLLER_REDIS__URL": new.url}
    async with serving(opend, new.state, own), place_at(new.url) as place:
        goes_on(before, await entries(place.store, 11), "2026-05-08")
        (group,) = await place.raw.xinfo_groups("short-interest")
    assert (group["name"], group["last-delivered-id"]) == ("desk", before[4].id)


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_an_earlier_version_wrote_is_gone_on_with(
    tmp_path: Path, opend: Simulator, version: str
) -> None:
    """Upgrading needs no step: every entry stays as it is, and what is new follows."""
    async with Embedded(tmp_path).running() as url, place_at(url) as place:
        for key, told in written(version).items():
            await restore(place, key, told)
        await place.raw.delete("{short-interest}:lease")  # its holder has long been stopped
        before = await place.store.streams.read("0", count=1000, block=None)
    shows_a_day_more(opend, 8)
    async with serving(opend, tmp_path, {}) as service, store_of(service) as store:
        async with at_most(what="the new day"):
            while str((await store.records.watermarks())[TENCENT]) != "2026-05-08":
                await asyncio.sleep(0.05)
        after = await store.streams.read("0", count=1000, block=None)
    assert after[: len(before)] == before
    ids = [entry.fields["id"] for entry in after]
    assert len(ids) == len(set(ids))
    assert "HK.00700:2026-05-08:0" in ids
