"""`poller run --simulate`: the service against the bundled simulator, and the story it plays."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from poller.cli.stores import beside
from poller.clock import wall_clock
from poller.errors import StoreDown, StoreMisfit
from poller.service import composition
from poller.settings.config import Config, Opend
from poller.simulator import Simulator
from poller.simulator.story import INTERVALS, PERIOD, story
from poller.store.embedded import server_of
from poller.store.playtime import BEAT, Play, Playtime
from poller.store.redisstore import RedisStore
from poller.store.simulated import SimulationMark
from poller.supervisor import supervise
from poller.telemetry.notify import Notify
from poller.telemetry.observe import Happened, Observe, Recovered, Trouble

_PAUSE: Final = 1.0


async def play(config: Config, journal: Observe) -> None:
    """Serve the simulation until cancelled, and keep its place in the story."""
    async with contextlib.AsyncExitStack() as stack:
        held = server_of(config.redis.url, config.state_dir)
        url, _ = await stack.enter_async_context(held)
        store = RedisStore(url, config.redis.namespace)
        stack.push_async_callback(store.close)
        playtime = await stack.enter_async_context(beside(store, Playtime))
        taken = await _resume(store.mark, playtime, journal)
        simulated = await stack.enter_async_context(_simulated(config, taken))
        period = simulated.budget.period
        journal(Happened("simulating OpenD", (("budget_period", period),)))
        async with asyncio.TaskGroup() as work:
            kept = supervise("playtime", lambda: _keep(playtime, journal), journal)
            work.create_task(kept, name="playtime")
            served = composition.serve(
                simulated, journal, notify=Notify(None), reload=None, simulated=True
            )
            work.create_task(served, name="service")


async def _resume(mark: SimulationMark, playtime: Playtime, observe: Observe) -> Play:
    """Begin or resume the play, once the server is there and is one for simulations."""
    while True:
        try:
            await mark.forbid_mixing(simulated=True)
            return await playtime.resume(wall_clock())
        except StoreDown as problem:
            observe(Trouble("redis", str(problem)))
            await asyncio.sleep(_PAUSE)


async def _keep(playtime: Playtime, observe: Observe) -> None:
    """Say again and again that it is being played; a server that is away is the service's care."""
    while True:
        try:
            await playtime.beat(wall_clock())
        except StoreDown:
            pass
        except StoreMisfit as problem:
            observe(Trouble("playtime", str(problem)))
        else:
            observe(Recovered("playtime"))
        await asyncio.sleep(BEAT)


@contextlib.asynccontextmanager
async def _simulated(config: Config, taken: Play) -> AsyncIterator[Config]:
    """Run an OpenD simulator on a loopback port; yields a configuration that points to it.

    Unless the operator has changed them, budget and intervals are shortened: a release that takes a
    week to come, and half a minute to be swept, is nothing to look at.
    """
    world = story(taken.began)
    watched = {"codes": world.codes(), "files": (), "futu_groups": ()}
    changes: dict[str, Any] = {"watchlist": config.watchlist.model_copy(update=watched)}
    if config.budget == Config().budget:
        changes["budget"] = config.budget.model_copy(update={"period": PERIOD})
    if config.schedule == Config().schedule:
        changes["schedule"] = config.schedule.model_copy(update=INTERVALS)
    budget = changes.get("budget", config.budget)
    simulator = Simulator(
        world,
        requests=budget.requests,
        period=budget.period,
        now=lambda: wall_clock() - taken.paused,
    )
    async with simulator:
        changes["opend"] = (Opend(port=simulator.port, account="simulated"),)
        yield config.model_copy(update=changes)
