"""`poller check`: tries everything the service needs, each thing independently of the others."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from poller import show
from poller.cli.asking import Finding, ask_for_markets, same_user, states_of
from poller.cli.backfill import CONNECT_LIMIT
from poller.cli.options import ConfigFile, load_config
from poller.cli.runner import finish, print_stderr
from poller.cli.stores import Failure, beside, store_of
from poller.delivery.client import reason_of
from poller.delivery.destinations import check_usable, destination_of
from poller.delivery.redisoutbox import RedisOutbox
from poller.errors import ConfigError, PollerError
from poller.gateway.opend import ConnectionChange, OpenD
from poller.gateway.sdk import Sdk
from poller.service.ports import address_of
from poller.settings.codefile import read_codes
from poller.settings.config import Config, Webhook, chosen_file
from poller.store.embedded import Embedded
from poller.store.redisstore import RedisStore

_REQUESTS: Final = 30
_PERIOD: Final = 30.0
_NO_LOGIN: Final = (
    f"no login within {CONNECT_LIMIT:g} s: does [[opend]] name the port of OpenD's API, is OpenD "
    "logged in, and is encryption switched on at both ends or at neither?"
)


def check(*, config: ConfigFile = None) -> None:
    """Validate the configuration whole, then try OpenD, Redis and each webhook."""
    warnings: list[str] = []
    settings = load_config(config, warnings)
    finish(run_checks(settings, chosen_file(config, os.environ), warnings))


async def run_checks(
    config: Config, file: Path | None = None, warnings: Sequence[str] = ()
) -> None:
    """Check everything the service needs, and print the results and `warnings` as a table.

    `file`: the file that `config` was read from. Raises Failure if a check failed.
    """
    (store, webhooks), gateways = await asyncio.gather(_storage(config), _gateways(config))
    exposed = [("secret file", "warning", warning) for warning in warnings]
    rows = [*_configuration(config, file), *exposed, *_budget(config)]
    rows += [*store, *gateways, *webhooks]
    show.print_table(("what", "state", "found"), rows)
    if any(state == "failed" for _, state, _ in rows):
        raise Failure("not everything works; see the table")


def _configuration(config: Config, file: Path | None) -> Iterator[Finding]:
    listed = config.watchlist
    found = f"{_codes(len(listed.codes))} in it"
    if not (listed.codes or listed.files or listed.futu_groups):
        found += "; it watches only what `poller watch add` has named"
    yield "configuration", "ok", f"{file.absolute()}: {found}" if file else f"no file: {found}"
    for path in listed.files:
        yield "watchlist file", "ok", f"{path.absolute()}: {_codes(len(read_codes(path)[0]))}"


def _codes(number: int) -> str:
    return "1 code" if number == 1 else f"{number:,} codes"


def _budget(config: Config) -> list[Finding]:
    """Return a warning if the budget is above OpenD's usual limit, which some OpenD may exceed."""
    table = config.budget
    if table.requests / table.period <= _REQUESTS / _PERIOD and table.requests <= _REQUESTS:
        return []
    found = (
        f"{table.requests} requests in {table.period:g} s: OpenD allows {_REQUESTS} in "
        f"{_PERIOD:g} s and refuses the rest"
    )
    return [("budget", "too high", found)]


async def _storage(config: Config) -> tuple[list[Finding], list[Finding]]:
    """Check the store first, then the webhooks, whose states are in it."""
    name, place = "redis", ""
    if config.redis.url is None:
        there = Embedded(config.state_dir).exists()
        name = "redis (embedded)"
        place = f" in {config.state_dir.absolute()}{'' if there else '; new: nothing was there'}"
    disabled: dict[str, str] = {}
    left: list[Finding] = []
    try:
        async with store_of(config) as store:
            rows = [(name, "ok", f"{await store.inspect()}{place}")]
            if await store.mark.holds_simulation():
                rows.append(("stream", "failed", store.mark.mixing_refusal(simulated=False)))
            disabled, left = await _webhook_states(config, store)
    except PollerError as problem:
        rows = [(name, "failed", str(problem))]
    tried = await asyncio.gather(*(_webhook(table, disabled) for table in config.webhooks))
    return rows, [*tried, *left]


async def _webhook_states(
    config: Config, store: RedisStore
) -> tuple[dict[str, str], list[Finding]]:
    """Return why endpoints are disabled, and a row for each that is no longer configured."""
    configured = [table.name for table in config.webhooks]
    disabled = {}
    async with beside(store, RedisOutbox) as outbox:
        for name in configured:
            if reason := (await outbox.status(name)).disabled:
                disabled[name] = reason
        names = sorted({*await outbox.names()} - {*configured})
    fix = "its queue is still kept; remove it: poller webhook forget {}"
    return disabled, [(f"webhook {n}", "not configured", fix.format(n)) for n in names]


async def _webhook(table: Webhook, disabled: Mapping[str, str]) -> Finding:
    name, endpoint = f"webhook {table.name}", table.endpoint()
    if (reason := disabled.get(table.name)) is not None:
        return name, "failed", f"disabled: {reason}; fixed? poller webhook enable {table.name}"
    try:
        check_usable([endpoint])
        return name, *await destination_of(endpoint).reach(endpoint)
    except ConfigError as problem:
        return name, "failed", "; ".join(problem.problems)
    except OSError as problem:
        return name, "failed", endpoint.mask()(reason_of(problem))


async def _gateways(config: Config) -> list[Finding]:
    """Log in to every OpenD at once, and ask what the service would ask."""
    sdk = Sdk(config.state_dir, config.opend[0].rsa_private_key_file)
    try:
        await sdk.load()
    except ConfigError as problem:
        return [("OpenD", "failed", line) for line in problem.problems]
    troubles: dict[str, str] = {}

    def remember(change: ConnectionChange) -> None:
        if not change.ready:
            troubles[change.gateway] = change.reason

    rows = []
    gateways = [OpenD(address_of(table), sdk, remember) for table in config.opend]
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        supervisors = [group.create_task(gateway.supervise()) for gateway in gateways]
        waits = [group.create_task(gateway.wait_ready()) for gateway in gateways]
        if sys.stderr.isatty():
            names = ", ".join(gateway.name for gateway in gateways)
            print_stderr(f"waiting for OpenD {names}, {CONNECT_LIMIT:g} s at most")
        await asyncio.wait(waits, timeout=CONNECT_LIMIT)
        spent = time.monotonic() - began
        ready = [g for g, wait in zip(gateways, waits, strict=True) if wait.done()]
        states = await states_of(ready)
        for gateway in gateways:
            if gateway in ready:
                trouble, said = states[gateway.name]
                found = f"logged in after {spent:.1f} s, account {gateway.account}"
                found += f", {said}" if said else ""
                row = ("failed", trouble) if trouble else ("ok", found)
                rows.append((f"OpenD {gateway.name}", *row))
            else:
                reason = troubles.get(gateway.name, _NO_LOGIN)
                rows.append((f"OpenD {gateway.name}", "failed", reason))
        rows += same_user(gateways)
        rows += await ask_for_markets(config, ready)
        for task in (*supervisors, *waits):
            task.cancel()
    sdk.close()
    return rows
