"""Whatever another client leaves in a key: one thing is out of order, everything else goes on.

The keys are those of the table in docs/events.md, so that a new one cannot be forgotten. While a
key is spoiled, another symbol is published and delivered to another endpoint; keys that publishing
itself rests on are named in the log, and all goes on when they are mended.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from redis import Redis

from poller.model import Code
from poller.simulator import World
from poller.simulator.replies import Login
from tests.nodes import Node
from tests.opend import Simulator
from tests.receiver import SECRET, Receiver
from tests.service import PATIENCE, Service, later, now, simulator, with_rows

DOCUMENT: Final = Path("docs/events.md").read_text(encoding="utf-8")
GOOD, VICTIM = Code("HK.00700"), Code("HK.00005")
WORLD: Final = World(named=(VICTIM,), history=8)
USER: Final = Login().user
PARTS: Final = {
    "state": "hash",
    "due": "zset",
    "queue": "zset",
    "deliveries": "hash",
    "claims": "hash",
    "attempts": "hash",
    "dead": "hash",
}
"""The keys of an endpoint, which the table tells together."""

PLACES: Final = {
    "<code>": VICTIM,
    "<account>": "main",
    "<user>": str(USER),
    "<name>": "desk",
    "<group>": "readers",
}
TYPES: Final = {"sorted set": "zset", "hashes": "hash", "sorted sets": "zset"}
NEVER: Final = {"rehearsal", "replicated"}
"""Kept for an instant only, or with replicas alone."""

ESSENTIAL: Final = {
    "short-interest",
    "{short-interest}:watermark",
    "{short-interest}:quarantine",
    "{short-interest}:budget:main",
    f"{{short-interest}}:budget:login:{USER}",
}
"""A commit touches them, or a request: with another type there, nothing can be published."""

LEASE: Final = {"{short-interest}:lease", "{short-interest}:fence"}
"""Who may poll is decided here: polling may wait until they are mended, or have run out."""

VALUES: Final = (
    "[" * 50_000,
    "NaN",
    "9e300",
    '{"at":"0001-01-01T00:00:00+14:00","polls":[],"next_at":null,"reason":""}',
    "\x1b]0;title\x07\u202e",
    "",
)


def keys() -> dict[str, str]:
    """Return every key of the table with its type, placeholders filled in."""
    table = DOCUMENT.partition("| key | type | content |\n|---|---|---|\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for line in table.splitlines():
        names, kinds, _ = (cell.strip() for cell in line.strip("|").split(" | ", 2))
        types = [TYPES.get(kind, kind) for kind in kinds.split(", ")]
        listed = re.findall(r"`([^`]+)`", names)
        for name, kind in zip(listed, types * len(listed), strict=False):
            filled = name
            for place, text in PLACES.items():
                filled = filled.replace(place, text)
            if filled.endswith(":webhook:desk:…"):
                found |= {filled.replace("…", part): kind for part, kind in PARTS.items()}
            elif not any(word in filled for word in NEVER):
                found[filled] = kind
    return found


KEYS: Final = keys()


def test_the_table_is_read_whole() -> None:
    """Each row of the table gives at least one key, and no type is unknown."""
    assert len(KEYS) > 25
    assert set(KEYS.values()) <= {"stream", "hash", "zset", "string"}
    assert KEYS.keys() >= ESSENTIAL | LEASE


@dataclass
class Trial:
    """A service with two endpoints, on a server whose keys are spoiled one after the other."""

    opend: Simulator
    service: Service
    node: Node
    receivers: dict[str, Receiver]
    days: int = 0
    pid: int = 0
    silent: list[str] = field(default_factory=list)

    def redis(self) -> Any:  # noqa: ANN401
        """Return a client that takes and gives bytes."""
        return Redis("127.0.0.1", port=self.node.port)

    def report(self) -> str:
        """Let the good symbol report one more day; returns the event's id."""
        rows = self.opend.world.records(GOOD, now())
        new = later(rows[0], days=1, aggregated_short=(rows[0].shares or 0) + 1)
        self.opend.world = with_rows(self.opend.world, GOOD, (new, *rows))
        return f"{GOOD}:{new.timestamp_str}:0"

    async def delivered(self, event: str, endpoint: str = "other") -> None:
        """Wait until an endpoint has an event."""
        seen = self.receivers[endpoint].seen
        async with asyncio.timeout(PATIENCE):
            while all(one.event != event for one in seen):
                await asyncio.sleep(0.02)

    def lives(self) -> None:
        """See that it is the same process still, and that it met no defect."""
        assert self.service.process is not None
        assert self.service.process.returncode is None
        assert self.service.process.pid == self.pid
        defects = [line for line in self.service.log() if "please report it" in line["event"]]
        assert defects == []


@contextlib.asynccontextmanager
async def trial(folder: Path) -> AsyncIterator[Trial]:
    """Run a service that has published and delivered its first days."""
    node = Node(folder / "server")
    home = folder / "home"
    home.mkdir()
    async with (
        simulator(WORLD) as opend,
        Receiver().running() as desk,
        Receiver().running() as other,
    ):
        node.start()
        opend.login = Login()
        settings = {"POLLER_REDIS__URL": node.url, "POLLER_OPEND__ACCOUNT": "main"}
        for n, (name, receiver) in enumerate({"desk": desk, "other": other}.items()):
            each = {"NAME": name, "URL": receiver.url, "SECRET": SECRET}
            settings |= {f"POLLER_WEBHOOKS__{n}__{key}": text for key, text in each.items()}
        service = Service(home, opend.port, f"{GOOD},{VICTIM}", settings)
        found = Trial(opend, service, node, {"desk": desk, "other": other})
        try:
            await start(found)
            await found.delivered(found.report())
            yield found
            found.lives()
            assert await service.stop() == 0
        finally:
            if service.process is not None and service.process.returncode is None:
                await service.kill()
            node.kill()


async def start(found: Trial) -> None:
    """Start the service and wait until both symbols were seen."""
    await found.service.start()
    assert found.service.process is not None
    found.pid = found.service.process.pid
    await found.service.said("polling")
    async with asyncio.timeout(PATIENCE):
        while found.redis().hlen("{short-interest}:watermark") < 2:
            await asyncio.sleep(0.05)


def of_another_type(client: Any, key: str) -> None:  # noqa: ANN401
    """Put a list, which this service keeps nowhere, in place of a key.

    It is one transaction, as the service under trial writes meanwhile what is missing.
    """
    client.pipeline().delete(key).rpush(key, "somebody", "else's").execute()


def garbage(client: Any, key: str) -> None:  # noqa: ANN401
    """Fill a key of the right type with what cannot be read."""
    match KEYS[key]:
        case "string":
            client.set(key, "abc")
        case "hash":
            mine = [name for name in client.hkeys(key) if name != GOOD.encode()][:3]
            for value, name in zip(VALUES, (*mine, "garbage", "x", "y"), strict=False):
                client.hset(key, name, value)
            client.hset(key, "\x1b[31m|\n", VALUES[0])
        case "zset":
            for score, name in ((9e300, "garbage"), (float("-inf"), "a|b"), (0, "HK.00005|x")):
                client.zadd(key, {name: score})
        case "stream":
            for value in VALUES:
                client.xadd(key, {"data": value, "type": "short_interest.reported", "id": "x"})
            client.xadd(key, {"hello": "there"})


@contextlib.contextmanager
def spoiled(found: Trial, key: str, spoil: Callable[[Any, str], None]) -> Iterator[None]:
    """Spoil a key for the duration of a block; then it is as it was."""
    client = found.redis()
    before = client.dump(key)
    spoil(client, key)
    try:
        yield
    finally:
        client.delete(key)
        if before is not None and "lease" not in key:
            client.restore(key, 0, before, replace=True)


async def goes_on(found: Trial, key: str, *, essential: bool) -> None:
    """See that the good symbol is published and delivered, or that the log names the key."""
    if key in LEASE:
        pass
    elif essential:
        found.report()
        async with asyncio.timeout(PATIENCE):
            while not any(key in line["event"] for line in found.service.log()):
                await asyncio.sleep(0.02)
    else:
        await found.delivered(found.report())
    found.lives()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("spoil", [garbage, of_another_type])
async def test_a_spoiled_key_stops_only_what_it_holds(
    tmp_path: Path, spoil: Callable[[Any, str], None]
) -> None:
    """One key after the other, under the running service."""
    async with trial(tmp_path) as found:
        for key in KEYS:
            essential = spoil is of_another_type and key in ESSENTIAL
            try:
                with spoiled(found, key, spoil):
                    await goes_on(found, key, essential=essential)
                if essential or key in LEASE:
                    await found.delivered(found.report())
            except TimeoutError:
                pytest.fail(f"{key}, {spoil.__name__}: nothing goes on")


@pytest.mark.timeout(400)
async def test_a_start_on_spoiled_keys(tmp_path: Path) -> None:
    """Garbage in every key at once: the service starts, and the good symbol is delivered."""
    async with trial(tmp_path) as found:
        assert await found.service.stop() == 0
        client = found.redis()
        for key in KEYS.keys() - {"{short-interest}:simulated"} - LEASE:
            garbage(client, key)
        await found.service.start()
        assert found.service.process is not None
        found.pid = found.service.process.pid
        await found.delivered(found.report())
