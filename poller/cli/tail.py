"""`poller tail`: prints the last entries of a stream, then follows it."""

import asyncio
import sys
from collections.abc import Iterable
from typing import Annotated, Final

from cyclopts import Parameter

from poller import show
from poller.cli.options import ConfigFile, Number, load_config, whole
from poller.cli.runner import WRONG, CommandFailed, finish, print_stderr
from poller.cli.stores import store_of
from poller.errors import StoreDown
from poller.settings.config import Config
from poller.store.plain import entry_json
from poller.store.ports import Streams
from poller.store.position import START, is_stream_id
from poller.store.store import Entry, Stream, order

MOST_LAST: Final = 10_000
"""Entries that `tail -n` reads at once: some ten megabytes."""

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
        last: how many of the last events to print first; 10 without --from
        from_: print what follows this stream id; 0 from the beginning, $ new events only
        count: stop after so many events
        no_follow: end instead of waiting for new events
        releases: instead of events, notices of whole releases: detected, completed
        json: one JSON object a line
        config: TOML file
    """
    problems = []
    if from_ is not None and from_ != "$" and not is_stream_id(from_):
        problems.append(f"--from {from_!r} is not a stream id: use 0, $ or 1715152502123-0")
    if last is not None and from_ is not None:
        problems.append(f"-n {last} and --from {from_}: give one of them")
    if last is not None and not 0 <= last <= MOST_LAST:
        problems.append(f"-n {last}: give a number from 0 to {MOST_LAST}; for all: --from 0")
    if count is not None and count < 1:
        problems.append(f"--count {count}: give a number above 0")
    if problems:
        raise CommandFailed(WRONG, problems)
    work = _print_stream(
        load_config(config, reading=True),
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
    """Print the `last` entries, or those after an id, then new ones if `follow` is set.

    `count`: how many at most.
    """
    stream = Stream.RELEASES if releases else Stream.EVENTS
    async with store_of(config, existing=True) as store:
        printer = _Printer(count, releases=releases, as_json=as_json)
        newest = await store.streams.last_entries(1, stream)
        end = newest[0].id if newest else START
        if after is None:
            wanted = last if count is None else min(last, count)
            entries = await store.streams.last_entries(wanted, stream) if wanted else newest
            if wanted:
                printer.print(entries)
            if not newest and not as_json:
                kind = "release" if releases else "event"
                waits = f"; waiting for the first {kind}" if follow else ""
                print_stderr(f"the stream of {kind}s has no entries{waits}")
            after = entries[-1].id if entries else START
        elif after == "$":
            after = end
        if not follow:
            await _until(end, after, store.streams, stream, printer)
            return
        while not printer.is_done:
            try:
                entries = await store.streams.read(after, count=_BATCH, block=_BLOCK, stream=stream)
            except StoreDown as problem:
                print_stderr(f"Redis does not answer: {problem}; trying again")
                await asyncio.sleep(_PAUSE)
                continue
            printer.print(entries)
            after = entries[-1].id if entries else after


async def _until(
    end: str, after: str, streams: Streams, stream: Stream, printer: "_Printer"
) -> None:
    """Print entries up to `end`, the stream's end at the start: a busy stream grows for ever."""
    while not printer.is_done and order(after) < order(end):
        entries = await streams.read(after, count=_BATCH, block=None, stream=stream)
        if not entries:
            return
        printer.print(entry for entry in entries if order(entry.id) <= order(end))
        after = entries[-1].id


class _Printer:
    """Prints up to `most` entries."""

    def __init__(self, most: int | None, *, releases: bool, as_json: bool) -> None:
        self._left = most
        self._line = show.release_line if releases else show.entry_line
        self._as_json = as_json
        self._console = show.console()

    @property
    def is_done(self) -> bool:
        """Whether `most` were printed."""
        return self._left is not None and self._left <= 0

    def print(self, entries: Iterable[Entry]) -> None:
        """Print entries until `most` were printed."""
        for entry in entries:
            if self.is_done:
                break
            if self._as_json:
                show.say_json(entry_json(entry))
            else:
                self._console.print(self._line(entry))
            self._left = None if self._left is None else self._left - 1
        sys.stdout.flush()
