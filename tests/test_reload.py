"""SIGHUP: another configuration for a running service, whole or not at all."""

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from poller.model import Code
from poller.service.reload import Reload, follow, merge
from poller.settings.config import Config
from poller.simulator import Proto, World
from tests.machine import scaled, send
from tests.opend import Simulator
from tests.receiver import SECRET, Receiver
from tests.service import Service, entries, simulator, store_of, until

FIRST = Code("HK.00700")


@dataclass
class FromFile(Service):
    """A service that is configured by a file, so that it can change."""

    @property
    def file(self) -> Path:
        """The configuration."""
        return self.state_dir / "poller.toml"

    def write(self, *codes: str, idle: float = 1000.0, further: str = "", tables: str = "") -> None:
        """Write a configuration of these codes; `further`: top-level lines, `tables`: others."""
        self.file.write_text(
            f"{further}\nstate_dir = '{self.state_dir}'\n[[opend]]\nport = {self.port}\n"
            f"[watchlist]\ncodes = {list(codes)}\n"
            f"[schedule]\ndue = {idle}\nidle = {idle}\nlate = {idle}\n{tables}"
        )

    def environment(self) -> dict[str, str]:
        """Return where the configuration is."""
        plain = {k: v for k, v in os.environ.items() if not k.startswith("POLLER_")}
        return {**plain, "POLLER_CONFIG": str(self.file)}

    def hang_up(self) -> None:
        """Send SIGHUP."""
        assert self.process is not None
        send(self.process, signal.SIGHUP)

    def has_told(self, count: int) -> bool:
        """Tell whether an empty file was refused so many times."""
        return len(self.lines("it is empty now")) == count

    def lines(self, text: str) -> list[dict[str, Any]]:
        """Return the log lines that hold a text."""
        return [line for line in self.log() if text in line["event"]]


@pytest.fixture
async def opend() -> AsyncIterator[Simulator]:
    """An OpenD with three made-up symbols beside HK.00700."""
    async with simulator(World(made_up={"HK": 3}, without_rows=0.0)) as running:
        yield running


@pytest.fixture
async def service(tmp_path: Path, opend: Simulator) -> AsyncIterator[FromFile]:
    """A service of one symbol, long intervals, not started."""
    made = FromFile(tmp_path, opend.port, FIRST)
    made.write(FIRST)
    yield made
    if made.process is not None and made.process.returncode is None:
        await made.stop()


def asked(opend: Simulator) -> int:
    """Return how many requests for short interest arrived."""
    return len(instants(opend))


def instants(opend: Simulator) -> list[float]:
    """Return when requests for short interest arrived."""
    return [one.at for one in opend.seen if one.proto == Proto.SHORT_INTEREST]


async def test_what_is_in_flight_and_the_lease_stay(service: FromFile, opend: Simulator) -> None:
    """A reload amid a request: it is answered, not repeated, and the lease is never let go."""
    opend.faults.delay = 2.0
    await service.start()
    await until(lambda: asked(opend) == 1)
    service.hang_up()
    await service.said("configuration read again")
    async with store_of(service) as store:
        assert len(await entries(store, 10)) == 10
    assert all(
        later - earlier >= opend.faults.delay for earlier, later in pairwise(instants(opend))
    )
    assert [line["changed"] for line in service.lines("read again")] == ["nothing"]
    assert len(service.lines("polling")) == 1
    assert service.lines("standing by") == []
    assert await service.stop() == 0


async def test_watchlist_and_intervals_change(service: FromFile, opend: Simulator) -> None:
    """A new code is polled at once, and new intervals count for what was planned by the old."""
    second = opend.world.codes()[1]
    await service.start()
    async with store_of(service) as store:
        await entries(store, 10)
        service.write(FIRST, second, idle=0.3)
        service.hang_up()
        await entries(store, 1, second)
        before = asked(opend)
        await until(lambda: asked(opend) > before + 6)
    (told,) = service.lines("read again")
    assert told["changed"] == "watchlist.codes, schedule.due, schedule.idle, schedule.late"
    assert await service.stop() == 0


def hook(receiver: Receiver) -> str:
    """Return an endpoint's table."""
    return (
        f'[[webhooks]]\nname = "desk"\nurl = "{receiver.url}"\nsecret = "{SECRET}"\n'
        'events = ["backfilled"]\n'
    )


async def test_pending_deliveries_survive(service: FromFile) -> None:
    """Another URL: what is on its way to the old one ends there, what waits goes to the new one.

    Ten events, each delivered once and in order, nine of them to the receiver that came later.
    """
    held = asyncio.Event()
    async with Receiver(lambda _: held).running() as old, Receiver().running() as new:
        service.write(FIRST, tables=hook(old))
        await service.start()
        await old.until(1)
        service.write(FIRST, tables=hook(new))
        service.hang_up()
        await service.said("configuration read again")
        held.set()
        await new.until(9)
        assert await service.stop() == 0
    (told,) = service.lines("read again")
    assert told["changed"] == "webhooks"
    events = [seen.event for seen in (*old.seen, *new.seen)]
    assert len(old.seen) == 1
    assert len(events) == 10
    assert events == sorted(set(events))


async def test_the_budget_is_kept(tmp_path: Path) -> None:
    """Reload after reload while the budget is spent: never a request too many, nor a pause."""
    world = World(made_up={"HK": 20}, tencent=False, without_rows=0.0)
    async with Simulator(world, requests=5, period=1.0) as opend:
        service = FromFile(tmp_path, opend.port, FIRST)
        limit = "budget.requests = 5\nbudget.period = 1.0"
        service.write(*world.codes(), idle=0.1, further=limit)
        await service.start()
        await until(lambda: asked(opend) >= 5)
        for turn in range(8):
            service.write(*world.codes(), idle=0.1 + turn / 100, further=limit)
            service.hang_up()  # two during one load would be one
            await until(lambda: len(service.lines("read again")) > turn)  # noqa: B023
            await opend.until_seen(asked(opend) + 4)
        assert await service.stop() == 0
    assert len(service.lines("read again")) == 8
    assert opend.most_in_window() <= 5
    moments = [one.at for one in opend.seen if one.proto == Proto.SHORT_INTEREST]
    assert max(later - earlier for earlier, later in pairwise(moments)) < scaled(3)


async def test_a_broken_file_changes_nothing(service: FromFile, opend: Simulator) -> None:
    """Each problem is a line, each time; the old configuration works on, a mended one counts."""
    await service.start()
    await service.said("ready")
    service.write("HK.5", idle=-1.0)
    service.hang_up()
    await until(lambda: len(service.lines("not taken")) == 4)
    service.hang_up()
    await until(lambda: len(service.lines("not taken")) == 8)
    assert "write 'HK.00005'" in service.lines("watchlist.codes")[0]["event"]
    service.write(FIRST, tables="[[webhooks]]\nname = 'room'\nurl = 'discord://too-short'\n")
    service.hang_up()
    await service.said("webhook room: url: ")
    async with store_of(service) as store:
        await entries(store, 10)
        second = opend.world.codes()[1]
        service.write(second)
        service.hang_up()
        await entries(store, 1, second)
    assert await service.stop() == 0


async def test_an_empty_file_changes_nothing(service: FromFile) -> None:
    """An editor empties a file before it writes it: that is no watchlist of the defaults."""
    await service.start()
    await service.said("ready")
    for told, text in enumerate(("", "# nothing but a comment\n"), start=1):
        service.file.write_text(text, encoding="utf-8")
        service.hang_up()
        await until(partial(service.has_told, told))
    assert not service.lines("configuration read again")
    assert await service.stop() == 0


async def test_log_level_and_what_needs_a_restart(service: FromFile) -> None:
    """The level counts at once; keys of the process itself are named and stay."""
    await service.start()
    await service.said("ready")
    further = 'log_level = "warning"\nredis.namespace = "other"\nbudget.requests = 3'
    service.write(FIRST, further=further)
    service.hang_up()
    await service.said("needs a restart: redis.namespace, budget.requests")
    assert service.lines("read again") == []
    service.write(FIRST, further="log_level = 'shrill'")
    service.hang_up()
    await service.said("log_level")
    assert await service.stop() == 0
    assert service.lines("stopped") == []


async def test_a_configuration_that_takes_long_to_read_stops_nobody() -> None:
    """It may name a pipe that nobody writes to: the loop turns, and with it the lease."""
    asked, read, applied = asyncio.Event(), threading.Event(), asyncio.Event()
    config = Config()

    def load() -> Config:
        assert read.wait(5), "the loop stood still"
        return config

    reload = Reload(asked, load)
    asked.set()
    asyncio.get_running_loop().call_later(0.1, read.set)
    task = asyncio.create_task(follow(reload, config, lambda _: applied.set(), lambda _: None))
    task.add_done_callback(lambda _: applied.set())
    await applied.wait()
    assert not task.done() or task.result() is None
    task.cancel()


def test_what_a_reload_keeps_is_named_again_next_time() -> None:
    """The running value stays what it was, so the difference does not get lost."""
    fresh = Config.model_validate(
        {"state_dir": "elsewhere", "watchlist": {"history": 3}, "opend": [{"port": 1}]}
    )
    running, told = merge(Config(), fresh)
    assert (told.taken, told.kept) == (("watchlist.history",), ("state_dir", "opend"))
    assert running.watchlist.history == 3
    assert (running.state_dir, running.opend) == (Config().state_dir, Config().opend)
    assert merge(running, fresh)[1].kept == ("state_dir", "opend")
