"""`poller backfill`: reads older history, within the shared budget."""

import asyncio
from collections.abc import Sequence
from datetime import date
from typing import Final

from poller import show
from poller.cli.options import ConfigFile, codes_of, load_config
from poller.cli.runner import finish
from poller.cli.stores import Failure
from poller.cli.watched import troubles_only
from poller.errors import NoRight, Overdue, PollerError
from poller.gateway.opend import OpenD, any_ready
from poller.model import Code, Instrument
from poller.polling.backfill import backfill_symbol
from poller.polling.naming import NamedRecords
from poller.service.ports import Ports, opened
from poller.settings.config import Config

CONNECT_LIMIT: Final = 8.0
"""Seconds a command waits for an OpenD to be ready."""


def backfill(
    codes: tuple[str, ...], /, *, since: date | None = None, config: ConfigFile = None
) -> None:
    """Page older history in, within the shared budget.

    Args:
        codes: HK.00700 US.AAPL …
        since: the oldest day wanted; everything OpenD has, if absent
        config: TOML file
    """
    wanted = codes_of(codes)
    settings = load_config(config)
    finish(_backfill(settings, wanted, since or date.min))


async def _backfill(config: Config, codes: Sequence[Code], since: date) -> None:
    """Read each code's history back to `since`, and commit it, one commit per symbol."""
    async with (
        opened(config, troubles_only, simulated=False) as ports,
        asyncio.TaskGroup() as group,
    ):
        supervisors = [group.create_task(gateway.supervise()) for gateway in ports.gateways]
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                gateway = await any_ready(ports.gateways)
        except TimeoutError:
            raise Failure(f"no OpenD within {CONNECT_LIMIT:.0f} s; try: poller check") from None
        bar = show.progress_bar("symbols, {task.fields[rows]} days added")
        failures = []
        with bar:
            task = bar.add_task("backfill", total=len(codes), rows=0)
            added = 0
            for code in codes:
                try:
                    days = await _read(ports, gateway, code, since)
                except PollerError as problem:
                    failures.append(f"{code}: {problem}")
                    days = 0
                else:
                    show.say(f"{code} {days} days added")
                added += days
                bar.update(task, advance=1, rows=added)
        for supervisor in supervisors:
            supervisor.cancel()
    if failures:
        raise Failure("\n".join(failures))


async def _read(ports: Ports, first: OpenD, code: Code, since: date) -> int:
    """Read a symbol through this gateway, or through another account where this may not see it."""
    known = (await ports.store.instruments.instruments([code])).get(code, Instrument())
    records, budgets = NamedRecords(ports.store.records, lambda _: known), ports.budgets
    try:
        return await backfill_symbol(records, first, budgets[first.account], code, since)
    except (NoRight, Overdue):
        others = [gateway for gateway in ports.gateways if gateway.account != first.account]
        if not others:
            raise
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                other = await any_ready(others)
        except TimeoutError:
            other = None
        if other is None:
            raise
    return await backfill_symbol(records, other, budgets[other.account], code, since)
