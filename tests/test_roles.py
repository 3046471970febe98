"""The Procfile's roles, each a process of its own, under honcho as a process manager."""

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis

from poller.model import Code
from poller.simulator import World
from poller.store.embedded import Embedded
from tests.machine import at_most
from tests.nodes import node
from tests.opend import Simulator
from tests.receiver import SECRET, Receiver
from tests.service import (
    Service,
    entries,
    later,
    now,
    poller,
    simulator,
    store_of,
    until,
    with_rows,
)

CODE = Code("HK.00700")
ROLES = dict(re.findall(r"(?m)^(\w+): poller (\w+)$", Path("Procfile").read_text("utf-8")))


class Managed(Service):
    """Every role of the Procfile under honcho."""

    async def start(self) -> None:
        """Start honcho."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with (self.state_dir / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "honcho", "start", "--no-colour", "--no-prefix"),
                env={**self.environment(), "PATH": path},
                stdout=log,
                stderr=log,
            )

    def times(self, event: str) -> int:
        """Return how often the roles said this."""
        return sum(line["event"] == event for line in self.log())


@pytest.fixture
async def opend() -> AsyncIterator[Simulator]:
    """An OpenD that knows HK.00700."""
    async with simulator(World()) as running:
        yield running


@pytest.fixture
async def managed(tmp_path: Path, opend: Simulator) -> AsyncIterator[Managed]:
    """The roles, not started; stopped at the end."""
    made = Managed(tmp_path, opend.port, CODE)
    yield made
    if made.process is not None and made.process.returncode is None:
        await made.stop()


async def test_no_role_takes_the_others_down(managed: Managed, opend: Simulator) -> None:
    """OpenD kicks the one role that asks it, the server dies under all: every role goes on."""
    await managed.start()
    await until(lambda: managed.times("ready") == len(ROLES))
    async with store_of(managed) as store:
        await entries(store, 10)
    opend.faults.drop_accepts = True
    opend.faults.kick()
    await managed.said("the connection was lost")
    server = Redis.from_url(Embedded(managed.state_dir).url)
    await server.shutdown(nosave=True)
    await server.aclose()
    await managed.said("the embedded server was gone: started again")
    opend.faults.drop_accepts = False
    rows = opend.world.records(CODE, now())
    new = later(rows[0], days=8, aggregated_short=60_000_000)
    opend.world = with_rows(opend.world, CODE, (new, *rows))
    async with store_of(managed) as store:
        await entries(store, 11)
    assert managed.times("ready") == len(ROLES)
    assert managed.process is not None
    assert managed.process.returncode is None
    await managed.stop()
    assert managed.times("stopped") == len(ROLES)
    # the last of them has ended the server, though all left at once
    await until(lambda: not Embedded(managed.state_dir).socket.exists())


@pytest.mark.parametrize("role", ROLES.values())
async def test_a_role_that_cannot_go_on_says_why(tmp_path: Path, role: str) -> None:
    """One line and a code of its own: 2 for what the configuration says, 1 for what it finds."""
    service = Service(tmp_path, 1, CODE, {"POLLER_BUDGET__REQUESTS": "0"})
    code, out, err = await poller(service, role)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    (tmp_path / "redis").write_text("not a directory")
    service.settings = {}
    code, out, err = await poller(service, role)
    first, last = err.splitlines()
    assert (code, out, json.loads(first)["event"]) == (1, "", "configuration")
    assert "the embedded server cannot live in" in last


@pytest.mark.parametrize("role", ["run", *ROLES.values()])
async def test_a_role_that_is_locked_out_ends(tmp_path: Path, role: str) -> None:
    """Whose password is revoked while it runs says so and ends: only an operator can mend that."""
    with node(tmp_path / "server") as server:
        server.ask("ACL", "SETUSER", "desk", "on", ">old", "~*", "&*", "+@all")
        settings = {"POLLER_REDIS__URL": server.url.replace("//", "//desk:old@")}
        service = Service(tmp_path, 1, CODE, settings, role=role)
        await service.start()
        await service.said("ready")
        server.ask("ACL", "SETUSER", "desk", "resetpass", ">new")
        server.ask("CLIENT", "KILL", "USER", "desk")
        assert service.process is not None
        async with at_most():
            assert await service.process.wait() == 1
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last.startswith("poller: Redis refuses the user or password")


async def test_a_page_alone_is_ready_once_it_listens(tmp_path: Path) -> None:
    """Where another program has the port it says so and ends, without having been ready."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        service = Service(tmp_path, 1, CODE, {"POLLER_WEB__PORT": port}, role="web")
        code, _, err = await poller(service, "web")
        assert code == 1
        assert err.splitlines()[-1].startswith(f"poller: page: 127.0.0.1 port {port}")
        events = [json.loads(line)["event"] for line in err.splitlines()[:-1]]
        assert "ready" not in events
    await service.start()
    await until(lambda: [line["event"] for line in service.log()][-2:] == ["page", "ready"])
    assert await service.stop() == 0


@pytest.mark.parametrize("form", ["--config {}", "--config={}"])
async def test_the_file_may_stand_before_the_command(tmp_path: Path, form: str) -> None:
    """As with most programs; it counts as if it stood behind."""
    file = tmp_path / "poller.toml"
    file.write_text("[budget]\nrequests = 0\n")
    service = Service(tmp_path, 1, CODE)
    code, out, err = await poller(service, *form.format(file).split(), "watch", "list")
    assert (code, out) == (2, "")
    assert err.startswith(f"poller: {file}: budget.requests: ")


@dataclass
class Split:
    """`web` beside other roles, each a process of its own on one state directory."""

    web: Service
    http: aiohttp.ClientSession
    before: dict[str, float] = field(default_factory=dict)

    def role(self, name: str) -> Service:
        """Return another role, with a log of its own, not started."""
        url = Embedded(self.web.state_dir).url
        home = self.web.state_dir / f"{name} {len(list(self.web.state_dir.iterdir()))}"
        home.mkdir()
        settings = {**self.web.settings, "POLLER_REDIS__URL": url}
        return Service(home, self.web.port, CODE, settings, role=name)

    async def shows(self, sample: str, value: float) -> None:
        """Scrape until a sample has this value; no counter ever falls on the way."""
        (url,) = [line["url"] for line in self.web.log() if line["event"] == "page"]
        async with at_most():
            while self.before.get(sample) != value:
                async with self.http.get(f"{url}metrics") as answer:
                    lines = (await answer.text()).splitlines()
                pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
                found = {name: float(number) for name, number in pairs}
                counters = {name for name in self.before if name.startswith(COUNTERS)}
                assert [n for n in counters if found.get(n, -1.0) < self.before[n]] == []
                self.before = found
                await asyncio.sleep(0.1)


COUNTERS = ("poller_polls_", "poller_events_", "poller_webhook_attempts_", "poller_gateway_rec")


async def test_web_tells_what_the_others_count(tmp_path: Path, opend: Simulator) -> None:
    """Polls, events, deliveries, lost connections and held figures of split roles, over a kill -9.

    What the killed process had counted stays counted, and its successor's is added to it.
    """
    receiver = Receiver()
    async with receiver.running(), aiohttp.ClientSession() as http:
        settings = {
            "POLLER_WEBHOOKS__0__NAME": "desk",
            "POLLER_WEBHOOKS__0__URL": receiver.url,
            "POLLER_WEBHOOKS__0__SECRET": SECRET,
            "POLLER_WEBHOOKS__0__EVENTS": "backfilled,reported",
        }
        split = Split(Service(tmp_path, opend.port, CODE, settings, role="web"), http)
        await split.web.start()
        await split.web.said("page")
        roles = [split.role("deliver"), split.role("poll")]
        for role in roles:
            await role.start()
        await split.shows('poller_webhook_attempts_total{endpoint="desk",outcome="delivered"}', 10)
        await split.shows('poller_webhook_lag_seconds_count{endpoint="desk"}', 10)
        opend.faults.kick()
        gateway = f"127.0.0.1:{opend.port}"
        await split.shows(f'poller_gateway_reconnects_total{{gateway="{gateway}"}}', 1)

        await roles[1].kill()
        async with Redis.from_url(roles[1].settings["POLLER_REDIS__URL"]) as client:
            await client.delete("{short-interest}:lease")  # that it runs out is tested elsewhere
        row = opend.world.records(CODE, now())[0]
        new = later(row, days=8, aggregated_short=60_000_000)
        slip = later(row, days=9, aggregated_short=60_000_000_000)
        opend.world = with_rows(opend.world, CODE, (slip, new, *opend.world.records(CODE, now())))
        roles[1] = split.role("poll")
        await roles[1].start()
        await split.shows('poller_held_figures{market="HK"}', 1)
        await split.shows('poller_events_total{market="HK",type="reported"}', 1)
        await split.shows('poller_events_total{market="HK",type="backfilled"}', 10)
        await split.shows(f'poller_gateway_reconnects_total{{gateway="{gateway}"}}', 1)
        for role in (*roles, split.web):
            assert await role.stop() == 0
