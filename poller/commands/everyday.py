"""What the commands beside the service do: watch, look for gaps, backfill."""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from datetime import date
from typing import Final

from poller import show
from poller.clock import wall_clock
from poller.commands.stores import Failure, store_of
from poller.commands.watched import name_groups, simulated_codes, sources_of, troubles_only
from poller.detect.compare import Reading, compare, progress
from poller.errors import PollerError, StoreMisfit, Superseded, TooFrequent, Unavailable
from poller.gateway.opend import Gateway, OpenD
from poller.model import Code, Page, market_of, newest_days
from poller.plan.calendar import missing_days
from poller.polling.budget import Budget
from poller.polling.poll import fetch
from poller.service.ports import opened
from poller.settings.config import Config
from poller.storage.store import ONE_OFF, Store

__all__ = [
    "CONNECT_LIMIT",
    "Failure",
    "backfill",
    "backfill_symbol",
    "gaps",
    "store_of",
    "watch",
    "watch_list",
]

CONNECT_LIMIT: Final = 8.0
"""Seconds a command waits for an OpenD to be ready."""

_TRIES: Final = 5


async def watch(config: Config, codes: Sequence[Code], *, wanted: bool) -> None:
    """Put codes on the live watchlist or take them off, and say which were not on it."""
    async with store_of(config) as store:
        before = await sources_of(config, store)
        await store.watch(codes, wanted=wanted)
    for code in codes:
        told = "watched" if wanted else "no longer watched"
        if not wanted and code not in before:
            told = f"was not watched, and is kept out from now on; undo: poller watch add {code}"
        show.say(f"{code} {told}")


async def watch_list(config: Config, codes: Sequence[Code], *, as_json: bool) -> None:
    """Print what is watched, or which of these codes are, why, and up to which day it is known."""
    async with store_of(config, existing=True) as store:
        sources = await sources_of(config, store)
        watermarks = await store.watermarks()
    found = {code: why for code, why in sources.items() if not codes or code in codes}
    rows = [(c, ", ".join(why), str(watermarks.get(c, "-"))) for c, why in found.items()]
    if as_json:
        names = ("code", "sources", "watermark")
        show.say_json(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
    else:
        show.print_table(("code", "from", "watermark"), rows)
    name_groups(config)


async def gaps(config: Config, codes: Sequence[Code], *, as_json: bool) -> None:
    """Print the reporting days that history lacks: of these codes, or of all that are watched."""
    async with store_of(config, existing=True) as store:
        wanted = codes or tuple(await sources_of(config, store))
        simulated = await simulated_codes(config, store) is not None
        newest = newest_days(await store.watermarks())
        now = wall_clock()
        found, failures = [], []
        for code in wanted:
            try:
                known = (await store.snapshot(code)).known
            except StoreMisfit as problem:  # of this symbol: the others are told all the same
                failures.append(f"{code}: {problem}")
                continue
            missing = missing_days(market_of(code), known.vintages.keys(), now)
            if simulated:  # its time is not the calendar's: later days are still to come
                last = newest.get(market_of(code), date.min)
                missing = tuple(day for day in missing if day < last)
            held = {day: each.reason for day, each in known.held.items() if day in missing}
            since = min(known.vintages, default=None)
            found.append(show.Gaps(code, since, missing, held))
    show.print_gaps(found, as_json=as_json)
    if not codes:
        name_groups(config)
    if failures:
        raise Failure("\n".join(failures))


async def backfill(config: Config, codes: Sequence[Code], since: date) -> None:
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
                    days = await backfill_symbol(ports.store, gateway, budget, code, since)
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


async def backfill_symbol(
    store: Store, gateway: Gateway, budget: Budget, code: Code, since: date
) -> int:
    """Return how many days were added; asks again when the poller wrote in between, a few times."""
    for _ in range(_TRIES):
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
    raise Failure(f"{code} changes at every try; try again")


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
