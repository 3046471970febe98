"""Queues events for an endpoint again: from the streams, its dead letters and the stored history.

Entries after the endpoint's position are left out: they will be delivered anyway.
"""

from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from poller.delivery.endpoint import Endpoint
from poller.delivery.log_lines import start_texts
from poller.delivery.outbox import Outbox, WrongKeyType, queue
from poller.delivery.queued import Delivery, text_of
from poller.delivery.routes import key_of, route
from poller.detect.rebuild import rebuilt
from poller.errors import BadCode, StoreMisfit
from poller.events import Foreign, Message, StreamEvent, decode, encode
from poller.model import Code, Event, parse_code
from poller.store.ports import Streams, Vintages
from poller.store.position import START
from poller.store.store import Entry, Stream, order

_BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """What to deliver again: these ids, or all that the endpoint selects of a time.

    `since`, `until`: bounds of `observed_at`, aware, `until` excluded; None: unbounded.
    """

    ids: Collection[str] = ()
    since: datetime | None = None
    until: datetime | None = None

    def includes(self, endpoint: Endpoint, message: Message) -> bool:
        """Return whether a message is requested."""
        if self.ids:
            return message.id in self.ids
        at = message.observed_at
        if (self.since and at < self.since) or (self.until and at >= self.until):
            return False
        return endpoint.selection.matches(message)


@dataclass(slots=True)
class Replayed:
    """The result of a replay.

    Attributes:
        queued: How many deliveries were queued.
        waiting: How many more were waiting already.
        rebuilt: How many of both were rebuilt from history, as the stream has lost them.
        missing: Requested ids that were found nowhere, or that the endpoint has yet to take.
        unusable: Symbols whose history cannot be read, with the reason.
        notes: Log lines about where the endpoint goes on.
    """

    queued: int = 0
    waiting: int = 0
    rebuilt: int = 0
    missing: set[str] = field(default_factory=set)
    unusable: dict[Code, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


async def replay(
    streams: Streams, vintages: Vintages, outbox: Outbox, endpoint: Endpoint, wanted: ReplayRequest
) -> Replayed:
    """Queue what is requested, or nothing if one of the ids is missing."""
    result = Replayed()
    found, to_come = await _on_streams(streams, outbox, endpoint, wanted, result)
    for letter in await outbox.dead(endpoint.name):
        delivery = letter.delivery
        if delivery is not None and wanted.includes(endpoint, delivery.message):
            found[delivery.message.id] = delivery
    history = [
        each
        async for each in _history(vintages, wanted, result)
        if each.message.id not in to_come and wanted.includes(endpoint, each.message)
    ]
    lost = [each for each in history if each.message.id not in found]
    answers = {_answer(each.message) for each in lost}
    # all events of an answer: mixed with those on the stream they would lose their order
    found |= {each.message.id: each for each in history if _answer(each.message) in answers}
    result.rebuilt = len(lost)
    result.missing = set(wanted.ids) - found.keys()
    if not result.missing:
        items = [route(endpoint, delivery) for delivery in found.values()]
        result.queued = await queue(outbox, endpoint.name, items)
        result.waiting = len(items) - result.queued
    return result


async def _on_streams(
    streams: Streams, outbox: Outbox, endpoint: Endpoint, wanted: ReplayRequest, result: Replayed
) -> tuple[dict[str, Delivery], set[str]]:
    """Return what is requested from both streams, and the ids that the endpoint has yet to take."""
    found, to_come = dict[str, Delivery](), set[str]()
    for stream in Stream:
        start = (await outbox.begin([endpoint.name], stream))[endpoint.name]
        if isinstance(start, WrongKeyType):
            raise start
        result.notes += start_texts(endpoint.name, stream, start)
        async for entry, message in _read(streams, stream):
            if order(entry.id) > order(start.position):
                to_come.add(message.id)
            elif wanted.includes(endpoint, message):
                found[message.id] = Delivery(key_of(message), text_of(entry), message)
    return found, to_come


def _answer(message: Message) -> tuple[Code, datetime]:
    """Return a key for the answer of OpenD that a message comes from."""
    return Code(message.code or ""), message.observed_at


async def _read(streams: Streams, stream: Stream) -> AsyncIterator[tuple[Entry, Message]]:
    """Yield this service's entries of a stream."""
    after = START
    while batch := await streams.read(after, count=_BATCH, block=None, stream=stream):
        for entry in batch:
            message = decode(entry.id, entry.fields)
            if not isinstance(message, Foreign):
                yield entry, message
        after = batch[-1].id


async def _history(
    past: Vintages, wanted: ReplayRequest, result: Replayed
) -> AsyncIterator[Delivery]:
    """Yield the events rebuilt from the stored vintages."""
    named = {each.partition(":")[0] for each in wanted.ids}
    for code in _codes(named or await past.history_codes()):
        try:
            vintages = await past.vintages(code)
        except StoreMisfit as problem:
            result.unusable[code] = str(problem)
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
    """Return an id like a stream's for an event that has none, the same at every replay.

    It sorts by the time of observation, then by day. The code at its end distinguishes symbols
    observed in the same millisecond, and all of these ids from those of a stream.
    """
    vintage = event.vintage
    number = vintage.day.toordinal() * 10 + min(vintage.revision, 9)
    return f"{round(vintage.observed_at.timestamp() * 1000)}-{number}:history:{event.code}"
