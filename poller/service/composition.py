"""The composition root: opens what a role needs in order, runs it, closes in reverse.

Closing order: polls in flight end and the lease is released while gateways and store are still
open; then the connections are closed; then the embedded server, unless another program uses it.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from poller.clock import wall_clock
from poller.delivery.destinations import check_usable, destination_of
from poller.delivery.endpoint import Endpoint
from poller.delivery.relay import Relay
from poller.errors import StoreError
from poller.gateway.ownstate import RightsTold
from poller.markets import Market
from poller.model import Code, newest_days
from poller.polling.biggest import described_store
from poller.polling.budget import Budget
from poller.polling.instruments import CALLS, Call, Directory, Reader
from poller.polling.leadership import LeaderObserver, keep_polling
from poller.polling.poll import Poller
from poller.polling.ranks import RANK_PERIOD, RANK_REQUESTS, RankReader
from poller.polling.trim import keep_trimmed
from poller.polling.watchlist import GROUP_PERIOD, GROUP_REQUESTS, Watchlist
from poller.schedule.hints import Hints
from poller.schedule.schedule import Schedule
from poller.service.ports import Ports, address_of, keep_alive, opened, process_name
from poller.service.reload import Reload, follow
from poller.service.report import Process, Reporter, release_state
from poller.settings.config import Config
from poller.store.notifier import Notifier
from poller.store.ports import Trimming, Watermarks
from poller.supervisor import supervise
from poller.telemetry.log import configure
from poller.telemetry.notify import Notify
from poller.telemetry.observe import Newest, Observe, Ready, UpToDate, to_all
from poller.telemetry.roles import ROLES, Role
from poller.telemetry.status_store import StatusStore
from poller.telemetry.vitals import Vitals
from poller.web.feed import Feed
from poller.web.metrics import Metrics
from poller.web.overview import Overview
from poller.web.server import CannotListen
from poller.web.server import serve as serve_page
from poller.web.sources import Sources

_PAUSE: Final = 1.0


class Work(Protocol):
    """The work of a process: the whole service, or one role of it."""

    def __call__(
        self, config: Config, journal: Observe, *, notify: Notify, reload: Reload | None
    ) -> Coroutine[Any, Any, None]:
        """Work until cancelled; `reload`: how a new configuration arrives; None: never."""


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a process, supervised on its own: a defect in it does not reach the others.

    Attributes:
        name: Its name in the log and on the page.
        work: Works until cancelled; called again after each failure.
        label: Its metric label, one of a fixed set; `name` if empty.
        fatal: Errors that end the process, because restarting the component cannot fix them.
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
    """Do the work of a role until cancelled: poll, deliver, serve the page, or all of it.

    Opens embedded server, store and gateways, in this order, and closes them in reverse, once no
    poll is in flight.
    """
    process = Process(process_name(), role)
    parts = ROLES[role]
    is_only_role = not (parts.polls or parts.delivers)
    budget = config.budget.requests, config.budget.period
    schedule = Schedule(config.schedule.intervals, config.watchlist.weights, budget=budget)
    reporter = Reporter(
        process,
        [address_of(table) for table in config.opend] if parts.polls else [],
        now=wall_clock,
        markets=lambda: {market.name: release_state(q) for market, q in schedule.markets.items()},
        outlook=schedule.outlook,
        budget=budget if parts.polls else None,
    )
    summary = _Summary(config, schedule, role)
    observe = UpToDate(to_all(journal, Vitals(notify, summary), reporter), time.monotonic)
    kind = simulated if parts.polls else None
    async with opened(config, observe, gateways=parts.polls, simulated=kind) as ports:
        appliers: list[Callable[[Config], None]] = [_apply_log, summary.configure]
        links = [
            Component(f"OpenD {gateway.name}", gateway.supervise, "gateway")
            for gateway in ports.gateways
        ]
        if ports.embedded is not None:
            links.append(Component("embedded server", partial(keep_alive, ports.embedded, observe)))
        notifier = Notifier(ports.store.streams, observe)
        work = [
            Component("notifier", notifier.run),
            Component(
                "reports",
                lambda: reporter.run(
                    ports.status_store, observe, behind=lambda: ports.store.behind
                ),
            ),
        ]
        if parts.polls:
            polling, apply = await _polling(config, ports, schedule, reporter, notifier, observe)
            work += polling
            appliers.append(apply)
            await _report_newest(ports.store.records, observe)
        if parts.delivers:
            relay = relay_of(config, ports, notifier, observe)
            work.append(Component("webhooks", relay.run))
            appliers.append(lambda fresh: relay.configure(_endpoints(fresh)))
        if parts.shows:
            metrics = Metrics(wall_clock())
            show = partial(
                page, config, ports, notifier, metrics, reporter, observe, is_only_role=is_only_role
            )
            work.append(Component("page", show, fatal=(CannotListen,) if is_only_role else ()))
        if reload is not None:

            def apply_all(fresh: Config) -> None:
                for apply in appliers:
                    apply(fresh)

            work.append(Component("reload", partial(follow, reload, config, apply_all, observe)))
        async with asyncio.TaskGroup() as group:
            group.create_task(run_together(links, observe), name="links")
            if not is_only_role:  # a page alone is ready once it listens
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
    """Return the components that poll, and a function that applies a new configuration to them."""
    watchlist = Watchlist(*_sources(config), ports.store.watchlist, observe, notifier.news)
    watchlist.remember(await _last_watched(ports.status_store))
    leader = LeaderObserver(observe)
    ranks = _ranks(config, ports, schedule, leader)
    directory = Directory(ports.store.instruments, wall_clock)
    poller = Poller(
        described_store(ports.store, ports.store.archive, directory.known_of, leader),
        ports.gateways,
        ports.budgets,
        schedule,
        history=config.watchlist.history,
        observe=to_all(leader, ranks.notice),
    )
    readers = [_reader(call, ports, directory, poller, leader) for call in CALLS]
    for gateway in ports.gateways:
        gateway.follow_rights(_to_each(poller, readers))
    account = config.opend[0].account  # of several accounts, the first one's groups are read
    group_budget = _side_budget(ports, account, "groups", GROUP_REQUESTS, GROUP_PERIOD)
    leader_tasks = [
        *_leader_tasks(config, ports.store.streams, leader),
        ("rank", lambda: ranks.run(poller)),
        *((reader.call.what, reader.run) for reader in readers),
    ]

    def watch(codes: Sequence[Code]) -> None:
        directory.watch(codes)
        poller.watch(codes)
        reporter.watch(codes)

    def apply(fresh: Config) -> None:
        watchlist.configure(*_sources(fresh))
        poller.configure(fresh.schedule.intervals, history=fresh.watchlist.history)
        ranks.configure(fresh.schedule.hints)

    return [
        Component("watchlist", lambda: watchlist.follow(watch)),
        Component(
            "Futu groups",
            lambda: watchlist.follow_groups(ports.gateways, account, group_budget),
        ),
        Component(
            "polling",
            lambda: keep_polling(ports.store.leases, process_name(), poller, leader, leader_tasks),
        ),
    ], apply


def _side_budget(ports: Ports, account: str, call: str, requests: int, period: float) -> Budget:
    """Return the budget of an account for another call than short interest."""
    return Budget(
        ports.store.ledger,
        f"{account}:{call}",
        secrets.token_hex(8),
        requests=requests,
        period=period,
        logins=lambda: [f"{login}:{call}" for login in ports.budgets[account].logins()],
    )


def _ranks(config: Config, ports: Ports, schedule: Schedule, observe: Observe) -> RankReader:
    """Return what reads the ranks of the markets, each account within a budget of its own."""
    budgets = {
        account: _side_budget(ports, account, "rank", RANK_REQUESTS, RANK_PERIOD)
        for account in ports.budgets
    }
    reader = RankReader(ports.gateways, budgets, Hints(lambda: schedule.markets), observe)
    reader.configure(config.schedule.hints)
    return reader


def _to_each(poller: Poller, readers: Sequence[Reader]) -> RightsTold:
    """Return a function that tells all of these what is said of the rights of an account."""

    def rights_told(account: str, without: frozenset[Market] | None) -> None:
        poller.rights_told(account, without)
        for reader in readers if without is None else ():  # they have changed
            reader.rights_told(account)

    return rights_told


def _reader(
    call: Call, ports: Ports, directory: Directory, poller: Poller, observe: Observe
) -> Reader:
    """Return what keeps names, or numbers of shares, up to date; on budgets of their own."""
    budgets = {
        account: _side_budget(ports, account, call.ledger, call.requests, call.period)
        for account in ports.budgets
    }
    return Reader(call, directory, ports.gateways, budgets, poller.withholds, observe)


class _Summary:
    """The beginning of the status line, and the details of `ready`."""

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
                due = self._schedule.outstanding
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


async def _last_watched(status_store: StatusStore) -> Sequence[Code]:
    try:
        return await status_store.symbols() or ()
    except StoreError:  # start with the configured symbols alone
        return ()


async def _report_newest(records: Watermarks, observe: Observe) -> None:
    try:
        watermarks = await records.watermarks()
    except StoreError:  # only the status line lacks it; polling reports what is wrong
        return
    for market, day in newest_days(watermarks).items():
        observe(Newest(market, day))


async def page(
    config: Config,
    ports: Ports,
    notifier: Notifier,
    metrics: Metrics,
    reporter: Reporter,
    observe: Observe,
    *,
    is_only_role: bool = False,
) -> None:
    """Serve the page until cancelled; `is_only_role`: no other component runs in this process."""
    store = ports.store
    overview = Overview(
        store.streams,
        store.records,
        ports.status_store,
        store.instruments,
        config.watchlist.codes,
        notifier.news,
    )
    sources = Sources(
        config,
        store.streams,
        store.records,
        store.archive,
        store.ledger,
        ports.status_store,
        store.instruments,
        ports.outbox,
        overview,
        Feed(store.streams, notifier.news),
        metrics,
        observe,
        wall_clock,
        redis_trouble=lambda: reporter.redis_trouble,
    )
    await serve_page(sources, is_only_role=is_only_role)


def work_of(role: Role) -> Work:
    """Return the work of this role."""
    return partial(serve, role=role)


def relay_of(config: Config, ports: Ports, notifier: Notifier, observe: Observe) -> Relay:
    """Return the relay of the configured endpoints, not yet running."""
    chance, watermarks = random.SystemRandom(), ports.store.records.watermarks
    endpoints = _endpoints(config)
    check_usable(endpoints)
    relay = Relay(
        ports.outbox,
        observe,
        news=notifier.news,
        sender=lambda endpoint: destination_of(endpoint).sender(endpoint, watermarks),
        jitter=lambda: chance.uniform(-1, 1),
    )
    relay.configure(endpoints)
    return relay


def _leader_tasks(
    config: Config, streams: Trimming, observe: Observe
) -> list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]]:
    """Return the leader tasks besides polling, by name."""
    if not config.redis.keep_days:
        return []
    keep = timedelta(days=config.redis.keep_days)
    return [("trimming", lambda: keep_trimmed(streams, keep, observe, wall_clock))]
