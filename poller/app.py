"""The whole service on one screen: assemble, open in order, work, close in reverse.

Closing order: polls in flight end and the lease is given back while gateways and store still live;
then the connections go; then the embedded server, if nobody else uses it.
"""

import asyncio
import contextlib
import os
import random
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

from poller.budget import Budget
from poller.config import Config, Opend
from poller.embedded import Embedded
from poller.errors import StoreDown, StoreMisfit
from poller.lease import keep_polling
from poller.observe import Happened, Observe, Recovered, Trouble
from poller.opend import Address, ConnectionChange, OpenD, Sdk
from poller.poll import Poller, wall_clock
from poller.redisoutbox import RedisOutbox
from poller.redisstore import RedisStore
from poller.relay import Relay
from poller.schedule import Schedule
from poller.senders import check_channels, sender_of
from poller.trim import keep_trimmed
from poller.watchlist import GROUP_PERIOD, GROUP_REQUESTS, Watchlist

_PAUSE: Final = 1.0


@dataclass(frozen=True)
class Ports:
    """What the service stands on: opened by `opened`, or put together by a test."""

    store: RedisStore
    outbox: RedisOutbox
    gateways: Sequence[OpenD]
    budgets: dict[str, Budget]
    embedded: Embedded | None


@contextlib.asynccontextmanager
async def opened(
    config: Config, observe: Observe, *, gateways: bool = True
) -> AsyncIterator[Ports]:
    """Open store and gateways (not yet connected); waits for a server that is away."""
    async with contextlib.AsyncExitStack() as stack:
        sdk = Sdk(config.state_dir, config.opend[0].rsa_private_key_file)
        stack.callback(sdk.close)
        loading = asyncio.ensure_future(sdk.load()) if gateways else None
        embedded = Embedded(config.state_dir) if config.redis.url is None else None
        if embedded is not None:
            url = await stack.enter_async_context(embedded.running())
        else:
            url = config.redis.url.get_secret_value() if config.redis.url else ""
        store = RedisStore(url, config.redis.namespace, replicas=config.redis.replicas)
        stack.push_async_callback(store.close)
        outbox = RedisOutbox(url, config.redis.namespace)
        stack.push_async_callback(outbox.close)
        await _until_there(store, observe)
        if loading is not None:
            await loading
        owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        yield Ports(
            store,
            outbox,
            [OpenD(_address(table), sdk, _connection_fact(observe)) for table in config.opend],
            {
                account: Budget(
                    store,
                    account,
                    owner,
                    requests=config.budget.requests,
                    period=config.budget.period,
                )
                for account in dict.fromkeys(table.account for table in config.opend)
            },
            embedded,
        )


def _address(table: Opend) -> Address:
    return Address(table.host, table.port, table.account)


def _connection_fact(observe: Observe) -> Any:  # noqa: ANN401  a function of ConnectionChange
    def tell(change: ConnectionChange) -> None:
        subject = f"OpenD {change.gateway}"
        if change.ready:
            observe(Recovered(subject))
            observe(Happened(f"{subject}: {change.reason}", (("rebuilds", change.rebuilds),)))
        else:
            observe(Trouble(subject, change.reason))

    return tell


async def _until_there(store: RedisStore, observe: Observe) -> None:
    while True:
        try:
            server = await store.inspect()
        except StoreDown as problem:
            observe(Trouble("redis", str(problem)))
            await asyncio.sleep(_PAUSE)
        else:
            observe(Recovered("redis"))
            observe(Happened("store", (("server", server), ("stream", store.keys.stream))))
            return


async def serve(config: Config, observe: Observe, *, relaying: bool = True) -> None:
    """Poll, and deliver unless another role does that, until cancelled."""
    async with opened(config, observe) as ports:
        watchlist = Watchlist(
            config.watchlist.codes,
            config.watchlist.files,
            config.watchlist.futu_groups,
            ports.store,
            observe,
        )
        poller = Poller(
            ports.store,
            ports.gateways,
            ports.budgets,
            Schedule(config.schedule.intervals, config.watchlist.weights),
            history=config.watchlist.history,
            observe=observe,
        )
        group_budget = Budget(
            ports.store,
            f"{config.opend[0].account}:groups",
            secrets.token_hex(8),
            requests=GROUP_REQUESTS,
            period=GROUP_PERIOD,
        )
        owner = f"{socket.gethostname()}-{os.getpid()}"
        observe(Happened("ready", (("gateways", len(ports.gateways)),)))
        # two groups, so that what is in flight can still end while the gateways are connected
        async with asyncio.TaskGroup() as connections:
            for gateway in ports.gateways:
                connections.create_task(gateway.supervise(), name=f"gateway {gateway.name}")
            if ports.embedded is not None:
                connections.create_task(_keep_alive(ports.embedded, observe), name="embedded")
            async with asyncio.TaskGroup() as work:
                work.create_task(watchlist.follow(poller.watch), name="watchlist")
                work.create_task(
                    watchlist.follow_groups(ports.gateways, group_budget), name="groups"
                )
                work.create_task(
                    keep_polling(
                        ports.store, owner, poller, observe, _chores(config, ports.store, observe)
                    ),
                    name="polling",
                )
                if config.webhooks and relaying:
                    work.create_task(relay_of(config, ports, observe).run(), name="relay")


async def deliver(config: Config, observe: Observe) -> None:
    """Deliver webhooks, and nothing else, until cancelled."""
    async with opened(config, observe, gateways=False) as ports, asyncio.TaskGroup() as work:
        if ports.embedded is not None:
            work.create_task(_keep_alive(ports.embedded, observe), name="embedded")
        work.create_task(relay_of(config, ports, observe).run(), name="relay")
        observe(Happened("ready", (("webhooks", len(config.webhooks)),)))


def relay_of(config: Config, ports: Ports, observe: Observe) -> Relay:
    """Return the relay of the configured endpoints, not yet running."""
    chance = random.SystemRandom()
    endpoints = [webhook.endpoint() for webhook in config.webhooks]
    check_channels(endpoints)
    relay = Relay(
        ports.store,
        ports.outbox,
        observe,
        sender=lambda endpoint: sender_of(endpoint, ports.store),
        jitter=lambda: chance.uniform(-1, 1),
    )
    relay.configure(endpoints)
    return relay


def _chores(
    config: Config, store: RedisStore, observe: Observe
) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    """Return what the active poller does beside polling."""
    if not config.redis.keep_days:
        return []
    keep = timedelta(days=config.redis.keep_days)
    return [lambda: keep_trimmed(store, keep, observe, wall_clock)]


async def _keep_alive(embedded: Embedded, observe: Observe) -> None:
    """Start the embedded server again when it is gone, whoever started it."""
    while True:
        await asyncio.sleep(_PAUSE)
        try:
            if await embedded.ensure():
                observe(Happened("the embedded server was gone: started again"))
        except (StoreDown, StoreMisfit) as problem:
            observe(Trouble("embedded server", str(problem)))
        else:
            observe(Recovered("embedded server"))


@contextlib.asynccontextmanager
async def simulated(config: Config) -> AsyncIterator[Config]:
    """Run an OpenD simulator on a loopback port; yields a configuration that points to it.

    Unless the operator has changed them, budget and intervals are shortened: a release that takes a
    week to come, and half a minute to be swept, is nothing to look at.
    """
    from poller.simulator import Simulator  # noqa: PLC0415  only those who simulate pay for it
    from poller.simulator.story import story  # noqa: PLC0415

    changes: dict[str, Any] = {}
    if config.budget == Config().budget:
        changes["budget"] = config.budget.model_copy(update={"period": 3.0})
    if config.schedule == Config().schedule:
        changes["schedule"] = config.schedule.model_copy(
            update={"due": 0.2, "idle": 0.02, "late": 0.2}  # at any hour of the day
        )
    world = story(datetime.now(UTC))
    changes["watchlist"] = config.watchlist.model_copy(
        update={"codes": world.codes(), "files": (), "futu_groups": ()}
    )
    budget = changes.get("budget", config.budget)
    simulator = Simulator(
        world, requests=budget.requests, period=budget.period, remember=10 * budget.requests
    )
    async with simulator:
        changes["opend"] = (Opend(port=simulator.port, account="simulated"),)
        yield config.model_copy(update=changes)


async def until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends or SIGTERM or SIGINT arrives; it is cancelled then, and awaited."""
    task = asyncio.create_task(work, name="service")
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, os._exit, 1)  # asked twice: at once
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise


def leave(code: int) -> NoReturn:
    """End the process with everything written, whatever the SDK's threads still wait for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
