"""The Procfile's roles, each a process of its own, under honcho as a process manager."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from poller.model import Code
from poller.simulator import Simulator, World
from poller.storage.embedded import Embedded
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


@pytest.mark.parametrize("role", ROLES.values())
async def test_a_role_that_cannot_go_on_says_why(tmp_path: Path, role: str) -> None:
    """One line and a code of its own: 2 for what the configuration says, 1 for what it finds."""
    service = Service(tmp_path, 1, CODE, {"POLLER_BUDGET__REQUESTS": "0"})
    code, out, err = await poller(service, role)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    (tmp_path / "redis").write_text("not a directory")
    service.settings = {}
    code, out, err = await poller(service, role)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "the embedded server cannot live in" in err
