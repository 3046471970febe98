"""`poller run --simulate`: runs the service against the bundled simulator."""

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
from poller.telemetry.observe import Happened, Observe, Recovered, Trouble, redis_trouble

_PAUSE: Final = 1.0


async def play(config: Config, journal: Observe) -> None:
    """Run service and simulator until cancelled, and store how long the simulation has run."""
    async with contextlib.AsyncExitStack() as stack:
        server = server_of(config.redis.url, config.state_dir)
        url, _ = await stack.enter_async_context(server)
        store = RedisStore(url, config.redis.namespace)
        stack.push_async_callback(store.close)
        playtime = await stack.enter_async_context(beside(store, Playtime))
        resumed = await _resume(store.mark, playtime, journal)
        simulated = await stack.enter_async_context(_simulated(config, resumed))
        period = simulated.budget.period
        journal(Happened("simulating OpenD", (("budget_period", period),)))
        async with asyncio.TaskGroup() as work:
            beats = supervise("playtime", lambda: _keep_beating(playtime, journal), journal)
            work.create_task(beats, name="playtime")
            service = composition.serve(
                simulated, journal, notify=Notify(None), reload=None, simulated=True
            )
            work.create_task(service, name="service")


async def _resume(mark: SimulationMark, playtime: Playtime, observe: Observe) -> Play:
    """Begin or resume the simulation, once Redis answers; it must not hold OpenD's reports."""
    while True:
        try:
            await mark.forbid_mixing(simulated=True)
            return await playtime.resume(wall_clock())
        except StoreDown as problem:
            observe(redis_trouble(problem))
            await asyncio.sleep(_PAUSE)


async def _keep_beating(playtime: Playtime, observe: Observe) -> None:
    """Store regularly that the simulation runs; the service reports when Redis does not answer."""
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
async def _simulated(config: Config, resumed: Play) -> AsyncIterator[Config]:
    """Run an OpenD simulator on a loopback port; yield a configuration that points to it.

    Unless the operator has changed them, budget and intervals are shortened, so that releases come
    often and are swept in seconds.
    """
    world = story(resumed.began)
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
        now=lambda: wall_clock() - resumed.paused,
    )
    async with simulator:
        changes["opend"] = (Opend(port=simulator.port, account="simulated"),)
        yield config.model_copy(update=changes)
