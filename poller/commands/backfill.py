"""`poller backfill`: older history, within the shared budget."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import date
from typing import Final

from poller import show
from poller.clock import wall_clock
from poller.commands.ending import finish
from poller.commands.options import ConfigFile, begin, codes_of
from poller.commands.stores import Failure
from poller.commands.watched import troubles_only
from poller.detect.compare import Reading, compare, progress
from poller.errors import PollerError, Superseded, TooFrequent, Unavailable
from poller.gateway.opend import Gateway, OpenD
from poller.model import Code, Page
from poller.polling.budget import Budget
from poller.polling.poll import fetch
from poller.service.ports import opened
from poller.settings.config import Config
from poller.storage.redisstore import RedisStore
from poller.storage.store import ONE_OFF

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
    settings = begin(config)
    finish(_backfill(settings, wanted, since or date.min))


async def _backfill(config: Config, codes: Sequence[Code], since: date) -> None:
    """Read history down to `since` for each code, in one commit a symbol."""
    async with (
        opened(config, troubles_only, simulated=False) as ports,
        asyncio.TaskGroup() as group,
    ):
        supervisors = [group.create_task(gateway.supervise()) for gateway in ports.gateways]
        gateway = await _first_ready(ports.gateways)
        budget = ports.budgets[gateway.account]
        bar = show.progress_bar("symbols, {task.fields[rows]} days added")
        failures = []
        with bar:
            task = bar.add_task("backfill", total=len(codes), rows=0)
            added = 0
            for code in codes:
                try:
                    days = await _backfill_one(ports.store, gateway, budget, code, since)
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


async def _backfill_one(
    store: RedisStore, gateway: Gateway, budget: Budget, code: Code, since: date
) -> int:
    """Return how many days were added; asks again when the poller wrote in between."""
    while True:
        snapshot = await store.snapshot(code)
        pages: list[Page] = []
        while not pages or progress(code, pages, snapshot.known, history=1, since=since) is (
            Reading.MORE
        ):
            key = pages[-1].next_key if pages else None
            try:
                pages.append(await fetch(gateway, budget, await budget.acquire(), code, key))
            except TooFrequent:
                await budget.exhaust()
            except Unavailable:
                with contextlib.suppress(TimeoutError):  # the answer missing is told, either way
                    async with asyncio.timeout(CONNECT_LIMIT):
                        await gateway.wait_ready()
                raise
        rows = [record for page in pages for record in page.records]
        now = wall_clock()
        found = compare(code, rows, snapshot.known, observed_at=now, history=0, since=since)
        try:
            await store.commit(code, found, snapshot, ONE_OFF)
        except Superseded:
            continue
        return len(found.events)


async def _first_ready(gateways: Sequence[OpenD]) -> OpenD:
    waits = {asyncio.create_task(g.wait_ready()): g for g in gateways}
    done, late = await asyncio.wait(
        waits, timeout=CONNECT_LIMIT, return_when=asyncio.FIRST_COMPLETED
    )
    for wait in late:
        wait.cancel()
    if not done:
        raise Failure(f"no OpenD within {CONNECT_LIMIT:.0f} s; try: poller check")
    return waits[done.pop()]
