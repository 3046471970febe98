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
from poller.delivery.endpoint import Endpoint
from poller.delivery.redisoutbox import RedisOutbox
from poller.delivery.relay import Relay
from poller.delivery.senders import check_channels, sender_of
from poller.errors import StoreDown, StoreError, StoreMisfit
from poller.facts.board import Board
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
from poller.supervisor import supervise
from poller.web.overview import Overview
from poller.web.server import NoPlace
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
        asked = config.opend if gateways else ()
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
            [OpenD(_address(table), sdk, _connection_fact(observe)) for table in asked],
            {
                account: Budget(
                    store,
                    account,
                    owner,
                    requests=config.budget.requests,
                    period=config.budget.period,
                    waiting=partial(observe, Turned(dispatcher(account))),
                )
                for account in dict.fromkeys(table.account for table in asked)
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
            observe(Happened(f"{subject}: {change.reason}", (("reconnects", change.rebuilds),)))
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


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a process, supervised on its own: its defect is nobody else's.

    Attributes:
        name: What the log and the page call it.
        work: Works until cancelled; called again after each failure.
        label: Its name in the metric, bounded by the configuration; `name` if empty.
        fatal: Errors for which the process ends, because no restart of a part can mend them.
    """

    name: str
    work: Callable[[], Coroutine[Any, Any, None]]
    label: str = ""
    fatal: tuple[type[Exception], ...] = ()


async def run_together(components: Sequence[Component], observe: Observe) -> None:
    """Run components side by side until cancelled, each under its supervisor."""
    async with asyncio.TaskGroup() as group:
        for each in components:
            supervised = supervise(
                each.name, each.work, observe, label=each.label, fatal=each.fatal
            )
            group.create_task(supervised, name=each.name)


async def serve(
    config: Config,
    journal: Observe,
    *,
    notify: Notify,
    reload: Reload | None,
    role: Role = "run",
    simulated: bool = False,
) -> None:
    """Do the work of a role until cancelled: poll, deliver, show the page, or all of it.

    Components are opened in this order and closed in reverse: what is in flight ends while the
    gateways are still connected, then these, then the store, then the embedded server.
    """
    process = Process(_process(), role)
    polls, delivers, shows = (role in {"run", each} for each in ("poll", "deliver", "web"))
    schedule = Schedule(config.schedule.intervals, config.watchlist.weights)
    reporter = Reporter(
        process,
        [_address(table) for table in config.opend] if polls else [],
        now=wall_clock,
        markets=lambda: {market: release_state(q) for market, q in schedule.markets.items()},
        outlook=schedule.outlook,
        budget=(config.budget.requests, config.budget.period) if polls else None,
    )
    summary = _Summary(config, schedule, role)
    observe = to_all(journal, Vitals(notify, summary), reporter)
    async with opened(config, observe, gateways=polls, simulated=simulated if polls else None) as (
        ports
    ):
        appliers: list[Callable[[Config], None]] = [_apply_log, summary.configure]
        links = [
            Component(f"OpenD {gateway.name}", gateway.supervise, "gateway")
            for gateway in ports.gateways
        ]
        if ports.embedded is not None:
            links.append(
                Component("embedded server", partial(_keep_alive, ports.embedded, observe))
            )
        notifier = Notifier(ports.store, observe)
        work = [
            Component("notifier", notifier.run),
            Component(
                "reports",
                lambda: reporter.run(ports.board, observe, behind=lambda: ports.store.behind),
            ),
        ]
        if polls:
            polling, apply = await _polling(config, ports, schedule, reporter, notifier, observe)
            work += polling
            appliers.append(apply)
            await _tell_newest(ports.store, observe)
        if delivers:
            relay = relay_of(config, ports, notifier, observe)
            work.append(Component("webhooks", relay.run))
            appliers.append(lambda fresh: relay.configure(_endpoints(fresh)))
        if shows:
            alone = role == "web"
            metrics = Metrics(wall_clock())
            show = partial(page, config, ports, notifier, metrics, observe, alone=alone)
            work.append(Component("page", show, fatal=(NoPlace,) if alone else ()))
        if reload is not None:

            def apply_all(fresh: Config) -> None:
                for apply in appliers:
                    apply(fresh)

            work.append(Component("reload", partial(follow, reload, config, apply_all, observe)))
        async with asyncio.TaskGroup() as group:
            group.create_task(run_together(links, observe), name="links")
            if role != "web":  # a page of its own is ready once it listens
                observe(Ready(summary.ready()))
            await run_together(work, observe)


async def _polling(
    config: Config,
    ports: Ports,
    schedule: Schedule,
    reporter: Reporter,
    notifier: Notifier,
    observe: Observe,
) -> tuple[list[Component], Callable[[Config], None]]:
    """Return the components of who polls, and what gives them another configuration."""
    watchlist = Watchlist(*_sources(config), ports.store, observe, notifier.news)
    watchlist.remember(await _last_watched(ports.board))
    tenure = Tenure(observe)
    poller = Poller(
        ports.store,
        ports.gateways,
        ports.budgets,
        schedule,
        history=config.watchlist.history,
        observe=tenure,
    )
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
        watchlist.configure(*_sources(fresh))
        poller.configure(fresh.schedule.intervals, history=fresh.watchlist.history)

    return [
        Component("watchlist", lambda: watchlist.follow(watch)),
        Component("Futu groups", lambda: watchlist.follow_groups(ports.gateways, group_budget)),
        Component("polling", lambda: keep_polling(ports.store, _process(), poller, tenure, chores)),
    ], apply


class _Summary:
    """What the status line begins with, and what `ready` says."""

    def __init__(self, config: Config, schedule: Schedule, role: Role) -> None:
        self._config = config
        self._schedule = schedule
        self._role = role

    def configure(self, fresh: Config) -> None:
        self._config = fresh

    def __call__(self) -> str:
        config = self._config
        match self._role:
            case "deliver":
                return f"delivering to {len(config.webhooks)} endpoints"
            case "web":
                return f"showing the page on http://{config.web.host}:{config.web.port}/"
            case _:
                due = self._schedule.wanted
                return f"watching {len(self._schedule.codes)} symbols, {due} due"

    def ready(self) -> tuple[tuple[str, object], ...]:
        if self._role == "deliver":
            return (("webhooks", len(self._config.webhooks)),)
        return (("gateways", len(self._config.opend)),)


def _apply_log(fresh: Config) -> None:
    configure(level=fresh.log_level, secrets=fresh.secrets())


def _sources(config: Config) -> tuple[Sequence[Code], Sequence[Path], Sequence[str]]:
    table = config.watchlist
    return table.codes, table.files, table.futu_groups


def _endpoints(config: Config) -> list[Endpoint]:
    return [webhook.endpoint() for webhook in config.webhooks]


async def _last_watched(board: Board) -> Sequence[Code]:
    try:
        return await board.symbols() or ()
    except StoreError:  # what is configured counts alone
        return ()


async def _tell_newest(store: RedisStore, observe: Observe) -> None:
    try:
        watermarks = await store.watermarks()
    except StoreError:  # only a status line is the poorer; polling finds out what is wrong
        return
    for market, day in newest_days(watermarks).items():
        observe(Newest(market, day))


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
    return partial(serve, role=role)


def relay_of(config: Config, ports: Ports, notifier: Notifier, observe: Observe) -> Relay:
    """Return the relay of the configured endpoints, not yet running."""
    chance = random.SystemRandom()
    endpoints = _endpoints(config)
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
