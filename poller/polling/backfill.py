"""Reads older history of a symbol within the budget it shares with the poller."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import date
from typing import Final

from poller.clock import wall_clock
from poller.detect.compare import compare
from poller.detect.paging import Reading, progress
from poller.errors import Superseded, TooFrequent, Unavailable
from poller.gateway.opend import Gateway
from poller.model import Code, Page
from poller.polling.budget import Budget
from poller.polling.publish import check_watermark
from poller.polling.request import fetch
from poller.store.ports import Records
from poller.store.store import ONE_OFF

_RECONNECT_LIMIT: Final = 8.0
"""Seconds the next symbol waits for an OpenD that did not answer for this one."""

_TRIES: Final = 5


async def backfill_symbol(
    records: Records,
    gateway: Gateway,
    budget: Budget,
    code: Code,
    since: date,
    *,
    was_read: Callable[[Page], None] = lambda _: None,
) -> int:
    """Read and publish history down to `since`, and return how many days were added.

    Starts again, a few times, when the poller commits in between. `was_read`: called with each page
    that was read. Raises PollerError.
    """
    for _ in range(_TRIES):
        snapshot = await records.snapshot(code)
        check_watermark(records.keys.watermark, code, snapshot.known.newest, wall_clock())
        pages: list[Page] = []
        while not pages or progress(code, pages, snapshot.known, history=1, since=since) is (
            Reading.MORE
        ):
            key = pages[-1].next_key if pages else None
            try:
                pages.append(await fetch(gateway, budget, await budget.acquire(), code, key))
                was_read(pages[-1])
            except TooFrequent:
                await budget.exhaust()
            except Unavailable:
                with contextlib.suppress(TimeoutError):  # the missing answer is reported either way
                    async with asyncio.timeout(_RECONNECT_LIMIT):
                        await gateway.wait_ready()
                raise
        rows = [record for page in pages for record in page.records]
        now = wall_clock()
        found = compare(code, rows, snapshot.known, observed_at=now, history=0, since=since)
        try:
            await records.commit(code, found, snapshot, ONE_OFF)
        except Superseded:
            continue
        return len(found.events)
    raise Superseded(f"{code} changed during every attempt; try again")
