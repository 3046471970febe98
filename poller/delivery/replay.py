"""Events for an endpoint once more: from the streams, its dead letters, and the history on record.

What follows the endpoint's position comes to it anyway and is left out.
"""

from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from poller.delivery.endpoint import Endpoint
from poller.delivery.gaps import start_texts
from poller.delivery.outbox import Outbox, OutOfOrder, queue
from poller.delivery.queued import Delivery, text_of
from poller.delivery.routes import key_of, route
from poller.detect.rebuild import rebuilt
from poller.errors import BadCode, StoreMisfit
from poller.events import Foreign, Message, StreamEvent, decode, encode
from poller.model import Code, Event, parse_code
from poller.store.ports import Streams, Vintages
from poller.store.store import Entry, Stream, order

_BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be delivered again: these ids, or all of a time that the endpoint selects.

    `since`, `until`: when it was observed; aware. None: without that bound.
    """

    ids: Collection[str] = ()
    since: datetime | None = None
    until: datetime | None = None

    def includes(self, endpoint: Endpoint, message: Message) -> bool:
        """Return whether a message is one of them."""
        if self.ids:
            return message.id in self.ids
        seen = message.observed_at
        if (self.since and seen < self.since) or (self.until and seen >= self.until):
            return False
        return endpoint.selection.matches(message)


@dataclass(slots=True)
class Replayed:
    """What came of it.

    Attributes:
        queued: How many were queued.
        waiting: How many more waited already.
        rebuilt: How many of both were rebuilt from history, as the stream has them no more.
        missing: The ids that are nowhere, or still to be taken.
        unusable: Symbols whose history cannot be read, with the reason.
        notes: What is to be known of where the endpoint goes on.
    """

    queued: int = 0
    waiting: int = 0
    rebuilt: int = 0
    missing: set[str] = field(default_factory=set)
    unusable: dict[Code, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


async def replay(
    streams: Streams, vintages: Vintages, outbox: Outbox, endpoint: Endpoint, wanted: Wanted
) -> Replayed:
    """Queue what is wanted; nothing at all when an id is nowhere."""
    made = Replayed()
    found, ahead = await _on_streams(streams, outbox, endpoint, wanted, made)
    for letter in await outbox.dead(endpoint.name):
        delivery = letter.delivery
        if delivery is not None and wanted.includes(endpoint, delivery.message):
            found[delivery.message.id] = delivery
    history = [
        each
        async for each in _history(vintages, wanted, made)
        if each.message.id not in ahead and wanted.includes(endpoint, each.message)
    ]
    lost = [each for each in history if each.message.id not in found]
    answers = {_answer(each.message) for each in lost}
    # all of one answer, or its order would be lost where only some of it is on the stream
    found |= {each.message.id: each for each in history if _answer(each.message) in answers}
    made.rebuilt = len(lost)
    made.missing = set(wanted.ids) - found.keys()
    if not made.missing:
        items = [route(endpoint, delivery) for delivery in found.values()]
        made.queued = await queue(outbox, endpoint.name, items)
        made.waiting = len(items) - made.queued
    return made


async def _on_streams(
    streams: Streams, outbox: Outbox, endpoint: Endpoint, wanted: Wanted, made: Replayed
) -> tuple[dict[str, Delivery], set[str]]:
    """Return what is wanted of both streams, and the ids of what is still to be taken."""
    found, ahead = dict[str, Delivery](), set[str]()
    for stream in Stream:
        start = (await outbox.begin([endpoint.name], stream))[endpoint.name]
        if isinstance(start, OutOfOrder):
            raise start
        made.notes += start_texts(endpoint.name, stream, start)
        async for entry, message in _read(streams, stream):
            if order(entry.id) > order(start.position):
                ahead.add(message.id)
            elif wanted.includes(endpoint, message):
                found[message.id] = Delivery(key_of(message), text_of(entry), message)
    return found, ahead


def _answer(message: Message) -> tuple[Code, datetime]:
    """Return which answer of OpenD a message is of."""
    return Code(message.code or ""), message.observed_at


async def _read(streams: Streams, stream: Stream) -> AsyncIterator[tuple[Entry, Message]]:
    """Yield this service's entries of a stream."""
    after = "0-0"
    while batch := await streams.read(after, count=_BATCH, block=None, stream=stream):
        for entry in batch:
            message = decode(entry.id, entry.fields)
            if not isinstance(message, Foreign):
                yield entry, message
        after = batch[-1].id


async def _history(past: Vintages, wanted: Wanted, made: Replayed) -> AsyncIterator[Delivery]:
    """Yield the events that the vintages on record make."""
    named = {each.partition(":")[0] for each in wanted.ids}
    for code in _codes(named or await past.history_codes()):
        try:
            vintages = await past.vintages(code)
        except StoreMisfit as problem:
            made.unusable[code] = str(problem)
            continue
        for event in rebuilt(code, vintages, since=wanted.since, until=wanted.until):
            fields = encode(event)
            message = decode(_id_of(event), fields)
            if isinstance(message, StreamEvent):
                text = text_of(Entry(message.position, fields))
                yield Delivery(key_of(message), text, message)


def _codes(texts: Iterable[str]) -> list[Code]:
    found = set[Code]()
    for each in texts:
        try:
            found.add(parse_code(each))
        except BadCode:
            continue  # a notice's market, or nonsense
    return sorted(found)


def _id_of(event: Event) -> str:
    """Return an id like a stream's for an event that has none: the same at every replay.

    In its lane it stands by the time it was observed, then by its day. The code behind it keeps
    two symbols of one moment apart, and all of them from the entries of a stream.
    """
    vintage = event.vintage
    number = vintage.day.toordinal() * 10 + min(vintage.revision, 9)
    return f"{round(vintage.observed_at.timestamp() * 1000)}-{number}:history:{event.code}"
