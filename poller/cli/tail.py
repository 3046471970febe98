"""`poller tail`: the last entries of a stream, and what comes."""

import asyncio
import re
import sys
from collections.abc import Iterable
from typing import Annotated, Final

from cyclopts import Parameter

from poller import show
from poller.cli.options import ConfigFile, Number, begin, whole
from poller.cli.runner import WRONG, CommandFailed, complain, finish
from poller.cli.stores import store_of
from poller.errors import StoreDown
from poller.settings.config import Config
from poller.store.plain import entry_json
from poller.store.ports import Streams
from poller.store.store import Entry, Stream, order

MOST_LAST: Final = 10_000
"""Entries that `tail -n` reads back in one go: some ten megabytes."""

_BLOCK: Final = 5.0
_BATCH: Final = 200
_PAUSE: Final = 1.0


def tail(
    *,
    last: Annotated[int | None, Parameter(name="-n", converter=whole)] = None,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    count: Number = None,
    no_follow: bool = False,
    releases: bool = False,
    json: bool = False,
    config: ConfigFile = None,
) -> None:
    """Print the last events, then follow the stream.

    Args:
        last: how many of the last events come first: 10 unless --from says where to begin; 0 none
        from_: print what follows this stream id; 0 from the beginning, $ what comes next
        count: stop after so many events
        no_follow: end after what is there
        releases: instead of events, which reports of a whole market are out, and which complete
        json: one JSON object a line
        config: TOML file
    """
    problems = []
    if from_ is not None and from_ != "$" and not _is_stream_id(from_):
        problems.append(f"--from {from_!r} is no stream id: use 0, $ or 1715152502123-0")
    if last is not None and from_ is not None:
        problems.append(f"-n {last} and --from {from_}: give one of them")
    if last is not None and not 0 <= last <= MOST_LAST:
        problems.append(f"-n {last}: give a number from 0 to {MOST_LAST}; for all: --from 0")
    if count is not None and count < 1:
        problems.append(f"--count {count}: give a number above 0")
    if problems:
        raise CommandFailed(WRONG, problems)
    work = _print_stream(
        begin(config, reading=True),
        last=10 if last is None else last,
        after=from_,
        count=count,
        follow=not no_follow,
        releases=releases,
        as_json=json,
    )
    finish(work)


async def _print_stream(
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
        newest = await store.streams.last_entries(1, stream)
        end = newest[0].id if newest else "0-0"
        if after is None:
            wanted = last if count is None else min(last, count)
            entries = await store.streams.last_entries(wanted, stream) if wanted else newest
            if wanted:
                printer.print(entries)
            after = entries[-1].id if entries else "0-0"
        elif after == "$":
            after = end
        if not follow:
            await _until(end, after, store.streams, stream, printer)
            return
        while not printer.is_done:
            try:
                entries = await store.streams.read(after, count=_BATCH, block=_BLOCK, stream=stream)
            except StoreDown as problem:
                complain(f"Redis does not answer: {problem}; trying again")
                await asyncio.sleep(_PAUSE)
                continue
            printer.print(entries)
            after = entries[-1].id if entries else after


async def _until(
    end: str, after: str, streams: Streams, stream: Stream, printer: "_Printer"
) -> None:
    """Print what stood there at the start: a busy stream would have no end."""
    while not printer.is_done and order(after) < order(end):
        entries = await streams.read(after, count=_BATCH, block=None, stream=stream)
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


def _is_stream_id(text: str) -> bool:
    """Return whether Redis takes it: one or two numbers of 64 bits."""
    parts = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", text, re.ASCII)
    return parts is not None and all(int(part or 0) < 1 << 64 for part in parts.groups())
