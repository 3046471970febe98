"""From a stream into one endpoint's queue: what it is to get is copied there, in order.

An endpoint takes from the events and from the releases, whatever it has selected: so its groups
keep up, and what it selects tomorrow starts tomorrow.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from poller.delivery.endpoint import Endpoint, Kind
from poller.delivery.outbox import Chosen, Outbox, marked
from poller.errors import StoreDown, StoreMisfit, Superseded
from poller.events import StreamEvent, StreamNotice, decode
from poller.facts.observe import Happened, Observe, Trouble
from poller.plan.notice import TYPES
from poller.storage.store import Entry, Stream

BATCH: Final = 200
"""Stream entries looked at in one intake."""

STORE: Final = "redis for webhooks"
"""What is in trouble when Redis is: the poll loop tells of its own, and may recover later."""

_TICK: Final = 0.001
"""Seconds: shorter waits would only ask the same again."""


class Intake:
    """Takes from one stream for one endpoint until cancelled."""

    def __init__(
        self,
        endpoint: Endpoint,
        outbox: Outbox,
        observe: Observe,
        *,
        stream: Stream,
        look: timedelta,
        pause: timedelta,
        queued: Callable[[], None],
    ) -> None:
        """`look`, `pause`: see `courier.Timing`. `queued`: called when there is more to send."""
        self._endpoint = endpoint
        self._outbox = outbox
        self._observe = observe
        self._stream = stream
        self._look = look.total_seconds()
        self._pause = pause.total_seconds()
        self._queued = queued
        self._news = asyncio.Event()

    def ring(self) -> None:
        """Tell it that the stream has grown."""
        self._news.set()

    async def run(self) -> None:
        """Take, for ever."""
        position = ""
        while True:
            self._news.clear()
            try:
                position = position or await self._begin()
                taken = await self._take(position)
            except Superseded:
                position = ""
                continue
            except (StoreDown, StoreMisfit) as problem:
                self._observe(Trouble(STORE, str(problem)))
                await asyncio.sleep(self._pause)
                position = ""
                continue
            if taken == position:
                await woken(self._news, self._look)
            position = taken

    async def _begin(self) -> str:
        return await self._outbox.begin(self._endpoint.name, self._stream)

    async def _take(self, position: str) -> str:
        """Queue what follows `position`; returns where the group stands then."""
        entries = await self._outbox.follow(position, BATCH, self._stream)
        if not entries:
            return position
        chosen = [choose(self._endpoint, entry) for entry in entries if self._wants(entry)]
        await self._outbox.take(self._endpoint.name, position, entries, chosen, self._stream)
        if chosen:
            self._queued()
        return entries[-1].id

    def _wants(self, entry: Entry) -> bool:
        if is_ours(entry, self._stream):
            return self._endpoint.selection.matches(entry.fields)
        what = f"webhook {self._endpoint.name}: {entry.id} is no event of ours, passed over"
        self._observe(Happened(what))
        return False


def is_ours(entry: Entry, stream: Stream) -> bool:
    """Return whether this service has appended an entry to a stream; anybody may."""
    wanted = StreamEvent if stream is Stream.EVENTS else StreamNotice
    return isinstance(decode(entry.id, entry.fields), wanted)


def choose(endpoint: Endpoint, entry: Entry) -> Chosen:
    """Return the lane of an event: its symbol, or its market and day where they go together.

    The notices of a market have a lane of their own, and do not wait for one another in a chat.
    """
    fields = entry.fields
    if fields["type"] in TYPES:
        return Chosen(marked(entry), f"release:{fields['market']}")
    if endpoint.kind is Kind.POST:
        return Chosen(entry, fields["code"])
    return Chosen(entry, f"{fields['market']}:{fields['trading_day']}", endpoint.wait)


async def woken(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but no longer than this."""
    try:
        async with asyncio.timeout(max(seconds, _TICK)):
            await event.wait()
    except TimeoutError:
        return
