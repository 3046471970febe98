"""`poller backfill`: reads older history, within the shared budget."""

import asyncio
from collections.abc import Sequence
from datetime import date
from typing import Final, Self

from poller import show
from poller.cli.options import ConfigFile, codes_of, load_config
from poller.cli.runner import finish
from poller.cli.stores import Failure
from poller.cli.watched import troubles_only
from poller.errors import NoRight, Overdue, PollerError
from poller.gateway.opend import OpenD, any_ready
from poller.model import Code, Instrument, Page
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
        failures = []
        with _Bar(len(codes), since) as bar:
            for code in codes:
                bar.begin(code)
                try:
                    days = await _read(ports, gateway, code, since, bar)
                except PollerError as problem:
                    failures.append(f"{code}: {problem}")
                    days = 0
                else:
                    show.say(f"{code} {days} days added")
                bar.end(days)
        for supervisor in supervisors:
            supervisor.cancel()
    if failures:
        raise Failure("\n".join(failures))


class _Bar:
    """Shows how many symbols are done, and how far back the current one has been read."""

    def __init__(self, symbols: int, since: date) -> None:
        self._since = since
        self._bar = show.progress_bar("symbols, {task.fields[rows]:,} days added")
        self._task = self._bar.add_task("backfill", total=symbols, rows=0)
        self._done = self._added = 0
        self._code = ""
        self._newest: date | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.update(self._task, description="backfill")
        self._bar.stop()

    def begin(self, code: Code) -> None:
        """Show that a symbol is read."""
        self._code, self._newest = code, None
        self._bar.update(self._task, description=code)

    def was_read(self, page: Page) -> None:
        """Show the oldest day of a page; its part of the span, if it is known where that ends."""
        days = [record.day for record in page.records]
        if not days:
            return
        self._newest = self._newest or max(days)
        part = 0.0
        if self._since > date.min and self._newest > self._since:
            part = min((self._newest - min(days)) / (self._newest - self._since), 1.0)
        self._bar.update(
            self._task, description=f"{self._code} {min(days)}", completed=self._done + part
        )

    def end(self, days: int) -> None:
        """Show that a symbol is done, which added so many days."""
        self._done, self._added = self._done + 1, self._added + days
        self._bar.update(self._task, completed=self._done, rows=self._added)


async def _read(ports: Ports, first: OpenD, code: Code, since: date, bar: _Bar) -> int:
    """Read a symbol through this gateway, or through another account where this may not see it."""
    known = (await ports.store.instruments.instruments([code])).get(code, Instrument())
    records, budgets = NamedRecords(ports.store.records, lambda _: known), ports.budgets

    async def through(gateway: OpenD) -> int:
        budget = budgets[gateway.account]
        return await backfill_symbol(records, gateway, budget, code, since, was_read=bar.was_read)

    try:
        return await through(first)
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
    return await through(other)
