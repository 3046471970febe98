"""`poller tail`: the last entries of a stream, and what comes."""

import asyncio
import sys
from collections.abc import Iterable
from typing import Final

from poller import show
from poller.commands.ending import complain
from poller.commands.stores import store_of
from poller.errors import StoreDown
from poller.settings.config import Config
from poller.storage.plain import entry_json
from poller.storage.redisstore import RedisStore
from poller.storage.store import Entry, Stream, order

_BLOCK: Final = 5.0
_BATCH: Final = 200
_PAUSE: Final = 1.0


async def tail(
    config: Config,
    *,
    last: int,
    after: str | None,
    count: int | None,
    follow: bool,
    releases: bool,
    as_json: bool,
) -> None:
    """Print the `last` entries, or those after an id, then what comes if asked to `follow`.

    `count`: how many at the most.
    """
    stream = Stream.RELEASES if releases else Stream.EVENTS
    async with store_of(config, existing=True) as store:
        printer = _Printer(count, releases=releases, as_json=as_json)
        newest = await store.last_entries(1, stream)
        end = newest[0].id if newest else "0-0"
        if after is None:
            wanted = last if count is None else min(last, count)
            entries = await store.last_entries(wanted, stream) if wanted else newest
            if wanted:
                printer.print(entries)
            after = entries[-1].id if entries else "0-0"
        elif after == "$":
            after = end
        if not follow:
            await _until(end, after, store, stream, printer)
            return
        while not printer.is_done:
            try:
                entries = await store.read(after, count=_BATCH, block=_BLOCK, stream=stream)
            except StoreDown as problem:
                complain(f"Redis does not answer: {problem}; trying again")
                await asyncio.sleep(_PAUSE)
                continue
            printer.print(entries)
            after = entries[-1].id if entries else after


async def _until(
    end: str, after: str, store: RedisStore, stream: Stream, printer: "_Printer"
) -> None:
    """Print what stood there at the start: a busy stream would have no end."""
    while not printer.is_done and order(after) < order(end):
        entries = await store.read(after, count=_BATCH, block=None, stream=stream)
        if not entries:
            return
        printer.print(entry for entry in entries if order(entry.id) <= order(end))
        after = entries[-1].id


class _Printer:
    """Prints entries, `most` of them."""

    def __init__(self, most: int | None, *, releases: bool, as_json: bool) -> None:
        self._left = most
        self._line = show.release_line if releases else show.entry_line
        self._as_json = as_json
        self._console = show.console()

    @property
    def is_done(self) -> bool:
        """Whether no more are wanted."""
        return self._left is not None and self._left <= 0

    def print(self, entries: Iterable[Entry]) -> None:
        """Print these, as many as are still wanted."""
        for entry in entries:
            if self.is_done:
                break
            if self._as_json:
                show.say_json(entry_json(entry))
            else:
                self._console.print(self._line(entry))
            self._left = None if self._left is None else self._left - 1
        sys.stdout.flush()
