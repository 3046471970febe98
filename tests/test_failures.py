"""A Redis in trouble under the running service: said once, healed alone, nothing lost or doubled.

Each trouble is a real one of a real server; a day is reported while it lasts.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from poller.errors import StoreDown
from poller.model import Code
from poller.simulator import World
from poller.store.redisstore import RedisStore
from poller.store.store import Entry
from tests import nodes
from tests.machine import at_most, scaled
from tests.opend import Simulator
from tests.service import Service, entries, later, now, simulator, until, with_rows
from tests.test_faults import is_documented

TENCENT = Code("HK.00700")


@dataclass
class Trial:
    """A service on some Redis, and what its log and stream must show."""

    opend: Simulator
    service: Service
    store: RedisStore
    days: int = 10
    troubles: list[str] = field(default_factory=list)

    async def suffers(
        self,
        text: str,
        *,
        lasting: Callable[[], bool],
        mend: Callable[[], object],
        subject: str = "redis",
    ) -> None:
        """Report a day in a trouble that the log calls `text`, mend it, and look at both."""
        rows = self.opend.world.records(TENCENT, now())
        new = later(rows[0], days=1, aggregated_short=(rows[0].shares or 0) + 1)
        self.opend.world = with_rows(self.opend.world, TENCENT, (new, *rows))
        self.days += 1
        self.troubles.append(subject)
        await self.service.said(f"{subject}: {text}")
        await until(lasting)
        mend()
        found = await self.published()
        ids = [entry.fields["id"] for entry in found]
        assert len(ids) == len(set(ids)) == self.days, text
        count = self.troubles.count(subject)
        await until(lambda: self.service.told(f"{subject}: recovered") == count)
        # once more where another reason came in between, though it was refused four times or more
        assert self.service.told(f"{subject}: {text}") <= 2, text
        (line, *_) = [e["event"] for e in self.service.log() if f"{subject}: {text}" in e["event"]]
        assert is_documented(line), line

    async def published(self) -> list[Entry]:
        """Wait for all days on the stream; the server may still be on its way back."""
        while True:
            try:
                return await entries(self.store, self.days)
            except StoreDown:
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def trial(folder: Path, url: str) -> AsyncIterator[Trial]:
    """Run a service that has published the ten rows of the vendor's page."""
    home = folder / "home"
    home.mkdir()
    async with simulator(World()) as opend:
        service = Service(home, opend.port, TENCENT, {"POLLER_REDIS__URL": url})
        store = RedisStore(url, "short-interest")
        await service.start()
        try:
            await entries(store, 10)
            yield Trial(opend, service, store)
            assert await service.stop() == 0
        finally:
            await store.close()
            if service.process is not None and service.process.returncode is None:
                await service.kill()


async def test_a_server_that_takes_no_writes(tmp_path: Path) -> None:
    """It cannot save, its memory is full, it became a replica, it does not answer.

    Each is said once with its cure, whatever was refused how often, and ends by itself.
    """
    with nodes.node(tmp_path / "server", "appendonly no") as server:

        def refused(code: str) -> Callable[[], bool]:
            return lambda: refusals(server, code) >= 4

        async with trial(tmp_path, f"{server.url}?socket_timeout={scaled(0.5)}") as running:
            obstacle = tmp_path / "server" / "dump.rdb"
            obstacle.mkdir()
            server.ask("CONFIG", "SET", "save", "3600 1")
            server.ask("BGSAVE")

            def make_room() -> None:
                obstacle.rmdir()
                server.ask("BGSAVE")

            await running.suffers("MISCONF", lasting=refused("MISCONF"), mend=make_room)
            server.ask("CONFIG", "SET", "maxmemory", "1")
            await running.suffers(
                "OOM",
                lasting=refused("OOM"),
                mend=lambda: server.ask("CONFIG", "SET", "maxmemory", "0"),
            )
            server.ask("REPLICAOF", "127.0.0.1", nodes.free_port())
            await running.suffers(
                "READONLY",
                lasting=refused("READONLY"),
                mend=lambda: server.ask("REPLICAOF", "NO", "ONE"),
            )
            server.freeze()
            await running.suffers("no answer in time", lasting=lambda: True, mend=server.thaw)


def refusals(server: nodes.Node, code: str) -> int:
    """Return how many commands a server has refused with this code."""
    counts = server.ask("INFO", "errorstats")
    return int(counts.get(f"errorstat_{code}", {"count": 0})["count"])


async def test_absent_and_what_only_the_operator_can_mend(tmp_path: Path) -> None:
    """Killed: waited for. A right taken, another's key in the stream's place.

    Each is one line for all symbols, and heals.
    Another password: the process ends with a line that says so, for its supervisor to start again.
    """
    with nodes.node(tmp_path / "server") as server:
        async with trial(tmp_path, server.url) as running:
            service, aside = running.service, "{short-interest}:aside"
            server.kill()
            await running.suffers("nobody listens", lasting=lambda: True, mend=server.start)
            server.ask("ACL", "SETUSER", "default", "-xadd")
            await running.suffers(
                "Redis refuses",
                subject="publishing",
                lasting=lambda: True,
                mend=lambda: server.ask("ACL", "SETUSER", "default", "+@all"),
            )
            server.ask("RENAME", "short-interest", aside)
            server.ask("SET", "short-interest", "mine")

            def put_back() -> None:
                server.ask("RENAME", aside, "short-interest")

            await running.suffers(
                "the key short-interest holds a string",
                subject="publishing",
                lasting=lambda: True,
                mend=put_back,
            )
        ready = service.told("ready")
        await service.start()
        await until(lambda: service.told("ready") > ready)
        server.ask("ACL", "SETUSER", "default", "resetpass", ">another")
        with Redis("127.0.0.1", server.port, password="another") as admin:  # noqa: S106  of this test
            admin.execute_command("CLIENT", "KILL", "TYPE", "normal")
        assert service.process is not None
        async with at_most():
            assert await service.process.wait() == 1
        *_, line = (service.state_dir / "log").read_text(encoding="utf-8").splitlines()
        assert line.startswith("poller: Redis refuses the user or password")
        assert is_documented(line)


async def test_a_cluster_that_lost_a_node(tmp_path: Path) -> None:
    """A node of other slots gone: the Cluster serves none; the node back: polling goes on."""
    with nodes.cluster(tmp_path) as members:
        owner = nodes.owner(members, "short-interest")
        first, other = (node for node in members if node is not owner)
        async with trial(tmp_path, first.url) as running:
            other.kill()
            await running.suffers(
                "CLUSTERDOWN",
                lasting=lambda: refusals(owner, "CLUSTERDOWN") >= 4,
                mend=other.start,
            )


async def test_a_failover_under_the_service(tmp_path: Path) -> None:
    """Kill -9 of the primary: its replica takes over, and a day reported meanwhile comes out."""
    with nodes.watched(tmp_path) as (primary, replica, watchers):
        async with trial(tmp_path, nodes.sentinel_url(watchers)) as running:
            nodes.until(lambda: replica.ask("XLEN", "short-interest") == 10)
            primary.kill()
            await running.suffers(
                "no server takes the writes", lasting=lambda: True, mend=lambda: None
            )
