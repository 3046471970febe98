"""What the commands beside the service do: read, follow, watch, backfill."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime
from typing import Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from poller import app, show
from poller.clock import wall_clock
from poller.commands.ending import complain
from poller.detect.compare import Reading, compare, progress
from poller.errors import (
    PollerError,
    StoreDown,
    StoreMisfit,
    Superseded,
    TooFrequent,
    Unavailable,
)
from poller.facts.observe import Fact, Trouble, told
from poller.gateway.opend import Gateway, OpenD
from poller.model import Code, Page, market_of, newest_days
from poller.plan.calendar import missing_days
from poller.polling.budget import Budget
from poller.polling.poll import fetch
from poller.polling.watchlist import Watchlist
from poller.settings.config import Config
from poller.storage.embedded import Embedded
from poller.storage.plain import entry_json
from poller.storage.redisboard import RedisBoard
from poller.storage.redisstore import RedisStore
from poller.storage.store import ONE_OFF, Stream, as_known_at

_BLOCK: Final = 5.0
CONNECT_LIMIT: Final = 8.0
"""Seconds a command waits for an OpenD to be ready."""


class Failure(PollerError):
    """The command did not do what was asked; the text says why."""


def _troubles_only(fact: Fact) -> None:
    """Say troubles only; a command's own result is its answer."""
    if isinstance(fact, Trouble):
        complain(told(fact.subject, fact.reason))


@contextlib.asynccontextmanager
async def store_of(config: Config, *, existing: bool = False) -> AsyncIterator[RedisStore]:
    """Open the store alone; a server that does not answer is a failure here, not waited for.

    `existing`: an embedded server that neither runs nor has left data is a failure, too: an empty
    one would only hide that it was looked for in the wrong place.
    """
    async with contextlib.AsyncExitStack() as stack:
        if config.redis.url is None:
            embedded = Embedded(config.state_dir)
            if existing and not embedded.is_there():
                raise Failure(
                    f"no embedded server runs in {config.state_dir.absolute()}, and it left no "
                    "data there: is another --config, POLLER_CONFIG or POLLER_STATE_DIR meant? "
                    "`poller run` begins a new one"
                )
            url = await stack.enter_async_context(embedded.running())
        else:
            url = config.redis.url.get_secret_value()
        store = RedisStore(url, config.redis.namespace, replicas=config.redis.replicas)
        stack.push_async_callback(store.close)
        try:
            await store.inspect()
        except StoreDown as problem:
            raise Failure(f"Redis does not answer: {problem}") from None
        yield store


async def tail(
    config: Config, after: str, count: int | None, *, releases: bool, as_json: bool
) -> None:
    """Print entries after an id as they come, `count` of them or for ever."""
    stream = Stream.RELEASES if releases else Stream.EVENTS
    line = show.release_line if releases else show.entry_line
    async with store_of(config, existing=True) as store:
        if after == "$":
            last = await store.last_entries(1, stream)
            after = last[0].id if last else "0-0"
        console = show.console()
        left = count
        while left is None or left > 0:
            try:
                batch = 200 if left is None else min(left, 200)
                entries = await store.read(after, count=batch, block=_BLOCK, stream=stream)
            except StoreDown as problem:
                complain(f"Redis does not answer: {problem}; trying again")
                await asyncio.sleep(1)
                continue
            for entry in entries:
                if as_json:
                    show.say_json(entry_json(entry))
                else:
                    console.print(line(entry))
                after = entry.id
            sys.stdout.flush()
            left = None if left is None else left - len(entries)


async def history(config: Config, code: Code, form: str, moment: datetime | None) -> None:
    """Print what is, or was, known of a symbol."""
    async with store_of(config, existing=True) as store:
        if moment is None:
            known = (await store.snapshot(code)).known.vintages
            vintages = [known[day] for day in sorted(known, reverse=True)]
        else:
            vintages = as_known_at(await store.vintages(code), moment)
    if not vintages:
        when = "" if moment is None else f" at {moment.isoformat()}"
        raise Failure(f"nothing is known of {code}{when}; is it watched? See: poller watch list")
    show.print_history(market_of(code), vintages, form)


async def watch(config: Config, codes: Sequence[Code], *, wanted: bool) -> None:
    """Put codes on the live watchlist or take them off, and say which were not on it."""
    async with store_of(config) as store:
        before = await _sources(config, store)
        await store.watch(codes, wanted=wanted)
    for code in codes:
        told = "watched" if wanted else "no longer watched"
        if not wanted and code not in before:
            told = f"was not watched, and is kept out from now on; undo: poller watch add {code}"
        show.say(f"{code} {told}")


async def watch_list(config: Config, *, as_json: bool) -> None:
    """Print what is watched, why, and up to which day it is known."""
    async with store_of(config, existing=True) as store:
        sources = await _sources(config, store)
        watermarks = await store.watermarks()
    rows = [(c, ", ".join(why), str(watermarks.get(c, "-"))) for c, why in sources.items()]
    if as_json:
        names = ("code", "sources", "watermark")
        show.say_json(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
    else:
        show.print_table(("code", "from", "watermark"), rows)
    _name_groups(config)


async def _sources(config: Config, store: RedisStore) -> dict[Code, list[str]]:
    told = await _simulated(config, store)
    if told is not None:  # whatever is configured, the simulation's own symbols are watched
        live = (await store.watched()).marks
        found = {code: ["watch add" if live.get(code) else "simulation"] for code in told}
        return {code: why for code, why in found.items() if live.get(code, True)}
    table = config.watchlist
    watchlist = Watchlist(table.codes, table.files, (), store, _troubles_only)
    await watchlist.refresh(once=True)
    return watchlist.sources()


async def _simulated(config: Config, store: RedisStore) -> tuple[Code, ...] | None:
    """Return what a simulation watches; None where OpenD's reports stand, or nobody has told."""
    board = RedisBoard(store.url, config.redis.namespace)
    try:
        return await board.symbols() if await board.simulated() else None
    finally:
        await board.close()


def _name_groups(config: Config) -> None:
    if config.watchlist.futu_groups:
        groups = ", ".join(config.watchlist.futu_groups)
        complain(f"the running service adds the Futu groups {groups}")


async def gaps(config: Config, codes: Sequence[Code], *, as_json: bool) -> None:
    """Print the reporting days that history lacks: of these codes, or of all that are watched."""
    async with store_of(config, existing=True) as store:
        wanted = codes or tuple(await _sources(config, store))
        simulated = await _simulated(config, store) is not None
        newest = newest_days(await store.watermarks())
        now = wall_clock()
        found, unfit = [], []
        for code in wanted:
            try:
                known = (await store.snapshot(code)).known
            except StoreMisfit as problem:  # the others are told all the same
                unfit.append(problem)
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
        _name_groups(config)
    if unfit:
        raise unfit[0]


async def backfill(config: Config, codes: Sequence[Code], since: date) -> None:
    """Read history down to `since` for each code, in one commit a symbol."""
    async with (
        app.opened(config, _troubles_only, simulated=False) as ports,
        asyncio.TaskGroup() as group,
    ):
        supervisors = [group.create_task(gateway.supervise()) for gateway in ports.gateways]
        gateway = await _first_ready(ports.gateways)
        budget = ports.budgets[gateway.account]
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("symbols, {task.fields[rows]} days added"),
            TimeElapsedColumn(),
            disable=not sys.stderr.isatty(),
            console=show.errors(),
        )
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
