"""The whole service put together: open in order, work, close in reverse.

Closing order: polls in flight end and the lease is given back while gateways and store still live;
then the connections go; then the embedded server, if nobody else uses it.
"""

import asyncio
import contextlib
import os
import random
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from poller.clock import wall_clock
from poller.delivery.redisoutbox import RedisOutbox
from poller.delivery.relay import Relay
from poller.delivery.senders import check_channels, sender_of
from poller.errors import StoreDown, StoreError, StoreMisfit
from poller.facts.log import configure
from poller.facts.notify import Notify
from poller.facts.observe import (
    Connection,
    Happened,
    Newest,
    Observe,
    Ready,
    Recovered,
    Trouble,
    Turned,
    dispatcher,
    to_all,
    turning,
)
from poller.facts.status import Role
from poller.facts.vitals import Vitals
from poller.gateway.opend import Address, ConnectionChange, OpenD, Sdk
from poller.model import Code, newest_days
from poller.plan.schedule import Schedule
from poller.polling.budget import Budget
from poller.polling.lease import Tenure, keep_polling
from poller.polling.poll import Poller
from poller.polling.trim import keep_trimmed
from poller.polling.watchlist import GROUP_PERIOD, GROUP_REQUESTS, Watchlist
from poller.service.metrics import Metrics
from poller.service.reload import Reload, follow
from poller.service.report import Process, Reporter, release_state
from poller.settings.config import Config, Opend
from poller.storage.embedded import Embedded
from poller.storage.notifier import Notifier
from poller.storage.redisboard import RedisBoard
from poller.storage.redisstore import RedisStore
from poller.web.overview import Overview
from poller.web.server import serve as serve_page
from poller.web.sources import Sources

_PAUSE: Final = 1.0


@dataclass(frozen=True)
class Ports:
    """What the service stands on: opened by `opened`, or put together by a test."""

    store: RedisStore
    outbox: RedisOutbox
    board: RedisBoard
    gateways: Sequence[OpenD]
    budgets: dict[str, Budget]
    embedded: Embedded | None


@contextlib.asynccontextmanager
async def opened(
    config: Config, observe: Observe, *, gateways: bool = True, simulated: bool | None = None
) -> AsyncIterator[Ports]:
    """Open store and gateways (not yet connected); waits for a server that is away.

    `simulated`: what kind of events will be published, None for who publishes none.
    """
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
        board = RedisBoard(url, config.redis.namespace)
        stack.push_async_callback(board.close)
        await _until_there(store, observe, simulated)
        if loading is not None:
            await loading
        owner = f"{_process()}-{secrets.token_hex(4)}"
        yield Ports(
            store,
            outbox,
            board,
            [OpenD(_address(table), sdk, _connection_fact(observe)) for table in config.opend],
            {
                account: Budget(
                    store,
                    account,
                    owner,
                    requests=config.budget.requests,
                    period=config.budget.period,
                    waiting=partial(observe, Turned(dispatcher(account))),
                )
                for account in dict.fromkeys(table.account for table in config.opend)
            },
            embedded,
        )


def _address(table: Opend) -> Address:
    return Address(table.host, table.port, table.account)


def _connection_fact(observe: Observe) -> Any:  # noqa: ANN401  a function of ConnectionChange
    def tell(change: ConnectionChange) -> None:
        observe(Connection(change.gateway, change.ready, change.reason, change.rebuilds))
        subject = f"OpenD {change.gateway}"
        if change.ready:
            observe(Recovered(subject))
            observe(Happened(f"{subject}: {change.reason}", (("rebuilds", change.rebuilds),)))
        else:
            observe(Trouble(subject, change.reason))

    return tell


async def _until_there(store: RedisStore, observe: Observe, simulated: bool | None) -> None:  # noqa: FBT001
    with turning(observe, "start") as turned:
        while True:
            turned()
            try:
                server = await store.inspect()
                if simulated is not None:
                    await store.keep_apart(simulated=simulated)
            except StoreDown as problem:
                observe(Trouble("redis", str(problem)))
                await asyncio.sleep(_PAUSE)
            else:
                observe(Recovered("redis"))
                observe(Happened("store", (("server", server), ("stream", store.keys.stream))))
                return


class Work(Protocol):
    """What a process does: the whole service, or one role of it."""

    def __call__(
        self, config: Config, journal: Observe, *, notify: Notify, reload: Reload | None
    ) -> Coroutine[Any, Any, None]:
        """Work until cancelled; `reload`: how a new configuration arrives, if it may."""


async def serve(
    config: Config,
    journal: Observe,
    *,
    notify: Notify,
    reload: Reload | None,
    role: Role = "run",
    simulated: bool = False,
) -> None:
    """Poll, and unless other processes do that, deliver and show the page, until cancelled."""
    schedule = Schedule(config.schedule.intervals, config.watchlist.weights)
    reporter = Reporter(
        Process(_process(), role),
        [_address(table) for table in config.opend],
        now=wall_clock,
        markets=lambda: {market: release_state(q) for market, q in schedule.markets.items()},
        outlook=schedule.outlook,
        budget=(config.budget.requests, config.budget.period),
    )

    def summary() -> str:
        return f"watching {len(schedule.codes)} symbols, {schedule.wanted} due"

    metrics = Metrics(wall_clock())
    observe = to_all(journal, Vitals(notify, summary), reporter)
    async with opened(config, observe, simulated=simulated) as ports:
        notifier = Notifier(ports.store, observe)
        watchlist = Watchlist(*_sources(config), ports.store, observe, notifier.news)
        tenure = Tenure(observe)
        poller = Poller(
            ports.store,
            ports.gateways,
            ports.budgets,
            schedule,
            history=config.watchlist.history,
            observe=tenure,
        )
        relay = relay_of(config, ports, notifier, observe)
        group_budget = Budget(
            ports.store,
            f"{config.opend[0].account}:groups",
            secrets.token_hex(8),
            requests=GROUP_REQUESTS,
            period=GROUP_PERIOD,
        )
        chores = _chores(config, ports.store, tenure)

        def watch(codes: Sequence[Code]) -> None:
            poller.watch(codes)
            reporter.watch(codes)

        def apply(fresh: Config) -> None:
            configure(level=fresh.log_level, secrets=fresh.secrets())
            watchlist.configure(*_sources(fresh))
            poller.configure(fresh.schedule.intervals, history=fresh.watchlist.history)
            relay.configure([webhook.endpoint() for webhook in fresh.webhooks])

        await _tell_newest(ports.store, observe)
        # two groups, so that what is in flight can still end while the gateways are connected
        async with asyncio.TaskGroup() as connections:
            for gateway in ports.gateways:
                connections.create_task(gateway.supervise(), name=f"gateway {gateway.name}")
            if ports.embedded is not None:
                connections.create_task(_keep_alive(ports.embedded, observe), name="embedded")
            async with asyncio.TaskGroup() as work:
                work.create_task(notifier.run(), name="notifier")
                reports = reporter.run(ports.board, observe, behind=lambda: ports.store.behind)
                work.create_task(reports, name="report")
                work.create_task(watchlist.follow(watch), name="watchlist")
                work.create_task(
                    watchlist.follow_groups(ports.gateways, group_budget), name="groups"
                )
                work.create_task(
                    keep_polling(ports.store, _process(), poller, tenure, chores), name="polling"
                )
                if role == "run":
                    work.create_task(relay.run(), name="relay")
                    page_ = page(config, ports, notifier, metrics, observe)
                    work.create_task(page_, name="page")
                if reload is not None:
                    work.create_task(follow(reload, config, apply, observe), name="reload")
                observe(Ready((("gateways", len(ports.gateways)),)))


def _sources(config: Config) -> tuple[Sequence[Code], Sequence[Path], Sequence[str]]:
    table = config.watchlist
    return table.codes, table.files, table.futu_groups


async def _tell_newest(store: RedisStore, observe: Observe) -> None:
    try:
        watermarks = await store.watermarks()
    except StoreError:  # only a status line is the poorer; polling finds out what is wrong
        return
    for market, day in newest_days(watermarks).items():
        observe(Newest(market, day))


async def deliver(
    config: Config, journal: Observe, *, notify: Notify, reload: Reload | None
) -> None:
    """Deliver webhooks, and nothing else, until cancelled; without any, wait for a reload."""
    endpoints = len(config.webhooks)
    reporter = Reporter(Process(_process(), "deliver"), now=wall_clock)
    vitals = Vitals(notify, lambda: f"delivering to {endpoints} endpoints")
    observe = to_all(journal, vitals, reporter)
    async with opened(config, observe, gateways=False) as ports, asyncio.TaskGroup() as work:
        notifier = Notifier(ports.store, observe)
        work.create_task(notifier.run(), name="notifier")
        relay = relay_of(config, ports, notifier, observe)

        def apply(fresh: Config) -> None:
            nonlocal endpoints
            endpoints = len(fresh.webhooks)
            configure(level=fresh.log_level, secrets=fresh.secrets())
            relay.configure([webhook.endpoint() for webhook in fresh.webhooks])

        if ports.embedded is not None:
            work.create_task(_keep_alive(ports.embedded, observe), name="embedded")
        work.create_task(reporter.run(ports.board, observe), name="report")
        work.create_task(relay.run(), name="relay")
        if reload is not None:
            work.create_task(follow(reload, config, apply, observe), name="reload")
        observe(Ready((("webhooks", endpoints),)))


async def web(config: Config, journal: Observe, *, notify: Notify, reload: Reload | None) -> None:
    """Show the page, and nothing else, until cancelled."""
    reporter = Reporter(Process(_process(), "web"), now=wall_clock)
    metrics = Metrics(wall_clock())
    address = f"http://{config.web.host}:{config.web.port}/"
    vitals = Vitals(notify, lambda: f"showing the page on {address}")
    observe = to_all(journal, vitals, reporter)

    def apply(fresh: Config) -> None:
        configure(level=fresh.log_level, secrets=fresh.secrets())

    async with opened(config, observe, gateways=False) as ports, asyncio.TaskGroup() as work:
        if ports.embedded is not None:
            work.create_task(_keep_alive(ports.embedded, observe), name="embedded")
        work.create_task(reporter.run(ports.board, observe), name="report")
        notifier = Notifier(ports.store, observe)
        work.create_task(notifier.run(), name="notifier")
        page_ = page(config, ports, notifier, metrics, observe, alone=True)
        work.create_task(page_, name="page")
        if reload is not None:
            work.create_task(follow(reload, config, apply, observe), name="reload")


async def page(
    config: Config,
    ports: Ports,
    notifier: Notifier,
    metrics: Metrics,
    observe: Observe,
    *,
    alone: bool = False,
) -> None:
    """Serve what Redis tells, until cancelled; `alone`: it is all that this process does."""
    overview = Overview(ports.store, ports.board, config.watchlist.codes, notifier.news)
    sources = Sources(
        config,
        ports.store,
        ports.board,
        ports.outbox,
        overview,
        metrics,
        observe,
        wall_clock,
    )
    await serve_page(sources, alone=alone)


def work_of(role: Role) -> Work:
    """Return what a process of this role does."""
    match role:
        case "deliver":
            return deliver
        case "web":
            return web
        case _:
            return partial(serve, role=role)


def relay_of(config: Config, ports: Ports, notifier: Notifier, observe: Observe) -> Relay:
    """Return the relay of the configured endpoints, not yet running."""
    chance = random.SystemRandom()
    endpoints = [webhook.endpoint() for webhook in config.webhooks]
    check_channels(endpoints)
    relay = Relay(
        ports.outbox,
        observe,
        news=notifier.news,
        sender=lambda endpoint: sender_of(endpoint, ports.store),
        jitter=lambda: chance.uniform(-1, 1),
    )
    relay.configure(endpoints)
    return relay


def _process() -> str:
    """Return the name this process goes by in Redis."""
    return f"{socket.gethostname()}-{os.getpid()}"


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
