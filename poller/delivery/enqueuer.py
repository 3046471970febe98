"""From a stream into the endpoints' queues: what each is to get is copied there, in order.

One reader of each stream serves all endpoints of a process: an entry is read and decoded once. The
endpoints that stand at the same place go on together, as a cohort. Those at the head come first;
who is behind has a batch in its turn, until it has caught up and belongs to the others.

An endpoint's record of its position moves together with what is queued for it. Where it takes
nothing the record follows later, for all endpoints at once: what lies between is looked at again
after a kill, and is not wanted then either.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from poller.delivery.endpoint import Endpoint
from poller.delivery.gaps import gone_text, missed_text, new_text, subject_of
from poller.delivery.outbox import Batch, Outbox, OutOfOrder, QueueItem, Take, Taken
from poller.delivery.queued import delivery_of
from poller.delivery.routes import key_of, route
from poller.delivery.selection import Selection
from poller.errors import StoreDown, StoreMisfit
from poller.events import Foreign, Message, StreamEvent, StreamNotice, decode
from poller.store.notifier import EventOf
from poller.store.position import START, Start, lost
from poller.store.store import Entry, Stream, order
from poller.telemetry.log import fingerprint
from poller.telemetry.observe import (
    LONGEST_TURN,
    Happened,
    Observe,
    PassedOver,
    Recovered,
    Trouble,
    heartbeat,
)

BATCH: Final = 200
"""Stream entries looked at in one go."""

STORE: Final = "redis for webhooks"
"""What is in trouble when Redis is: the poll loop tells of its own, and may recover later."""

SETTLE: Final = 2.0
"""Seconds between two writes of records that moved over nothing an endpoint takes."""

FOREIGN_EVERY: Final = 3600.0
"""Seconds between two lines about entries that are not this service's."""

_TICK: Final = 0.001
"""Seconds: shorter waits would only ask the same again."""


@dataclass(slots=True)
class _Cohort:
    """Endpoints at one place of the stream.

    Attributes:
        read: How many entries had been appended up to where they last saw the end.
        since: That place.
        seen: How many they have read since.
    """

    position: str
    read: int | None
    since: str
    seen: int = 0
    names: set[str] = field(default_factory=set)


class Enqueuer:
    """Takes from one stream for all endpoints until cancelled."""

    def __init__(
        self,
        outbox: Outbox,
        observe: Observe,
        *,
        stream: Stream,
        news: EventOf,
        look: timedelta,
        pause: timedelta,
        queued: Callable[[str], None],
    ) -> None:
        """`look`, `pause`: see `relay.Timing`. `queued`: called when an endpoint has more."""
        self._outbox = outbox
        self._observe = observe
        self._stream = stream
        self._news = news
        self._look = min(look.total_seconds(), LONGEST_TURN / 2)
        self._pause = pause.total_seconds()
        self._queued = queued
        self._endpoints: dict[str, Endpoint] = {}
        self._cohorts: dict[str, _Cohort] = {}
        self._records: dict[str, str] = {}
        self._remembered: dict[str, str] = {}
        self._broken: dict[str, float] = {}
        self._foreign = 0
        self._settled = 0.0
        self._foreign_told = -FOREIGN_EVERY
        self._failing: set[str] = set()
        self._round = 0
        self._changed = asyncio.Event()

    def configure(self, endpoints: Iterable[Endpoint]) -> None:
        """Take for exactly these from now on."""
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._changed.set()

    async def run(self) -> None:
        """Take, for ever."""
        self._start_over()
        with heartbeat(self._observe, f"webhook intake of the {self._stream}") as beat:
            while True:
                beat()
                news = self._news(self._stream)
                self._changed.clear()
                try:
                    more = await self._turn()
                except (StoreDown, StoreMisfit) as problem:
                    self._observe(Trouble(STORE, str(problem)))
                    self._start_over()
                    await asyncio.sleep(self._pause)
                    continue
                self._observe(Recovered(STORE))
                if not more:
                    await self._rest(news)

    def _start_over(self) -> None:
        """Forget where the endpoints are: another process may have moved them meanwhile."""
        self._cohorts.clear()
        self._records.clear()

    async def _rest(self, news: asyncio.Event) -> None:
        """Wait until the stream has grown or the configuration changed, but no longer than a look.

        Records that are behind are written first, though not at every entry.
        """
        until = self._look
        if self._unsettled():
            until = min(until, max(self._settled + SETTLE - _now(), 0))
        await waited((news, self._changed), until)

    async def _turn(self) -> bool:
        """Read a batch for those at the head and one for those behind; returns whether to go on."""
        await self._begin()
        if _now() >= self._settled + SETTLE and self._unsettled():
            await self._settle()
        cohorts = sorted(self._cohorts.values(), key=lambda each: order(each.position))
        more = bool(cohorts) and await self._advance(cohorts[-1], None)
        if len(cohorts) > 1:
            # in turns: the one furthest behind must not keep another from the head
            self._round += 1
            place = self._round % (len(cohorts) - 1)
            await self._advance(cohorts[place], cohorts[place + 1].position)
            more = True
        return more or bool(self._to_begin())

    def _to_begin(self) -> list[str]:
        now = _now()
        return [
            name
            for name in self._endpoints
            if name not in self._records and self._broken.get(name, now) <= now
        ]

    async def _begin(self) -> None:
        """Find out where endpoints go on that are new here; drop those that are gone."""
        for cohort in list(self._cohorts.values()):
            cohort.names &= self._endpoints.keys()
            if not cohort.names:
                del self._cohorts[cohort.position]
        for kept in (self._records, self._remembered):
            for name in kept.keys() - self._endpoints.keys():
                del kept[name]
        wanted = self._to_begin()
        if not wanted:
            return
        starts = await self._outbox.begin(wanted, self._stream, remembered=self._remembered)
        for name, start in starts.items():
            if isinstance(start, OutOfOrder):
                self._put_aside(name, str(start))
            else:
                self._enter(name, start)
        self._tell_starts({n: s for n, s in starts.items() if isinstance(s, Start)})

    def _put_aside(self, name: str, problem: str) -> None:
        self._observe(Trouble(subject_of(name), problem))
        self._broken[name] = _now() + self._look
        self._records.pop(name, None)
        for cohort in self._cohorts.values():
            cohort.names.discard(name)

    def _enter(self, name: str, start: Start) -> None:
        if self._broken.pop(name, None) is not None:
            self._observe(Recovered(subject_of(name)))
        self._records[name] = self._remembered[name] = start.position
        cohort = self._cohorts.get(start.position)
        if cohort is None:
            cohort = _Cohort(start.position, start.read, start.position)
            self._cohorts[start.position] = cohort
        cohort.names.add(name)

    async def _advance(self, cohort: _Cohort, upto: str | None) -> bool:
        """Take a batch for a cohort, not beyond `upto`; returns whether there may be more."""
        batch = await self._outbox.follow(cohort.position, BATCH, self._stream)
        if batch.first is not None and order(batch.last) < order(cohort.position):
            self._leave(cohort)  # the stream is another one: `begin` decides where to go on
            return True
        entries = batch.entries
        if upto is not None:
            entries = [entry for entry in entries if order(entry.id) <= order(upto)]
        if entries:
            cohort.seen += len(entries)
            batch = replace(batch, entries=entries)
            if batch.whole:
                self._tell_lost(cohort, batch.added, batch.last, batch.first)
            await self._take(cohort, batch)
            self._move(cohort, entries[-1].id)
            return not batch.whole
        if upto is not None:
            self._move(cohort, upto)
        elif order(batch.last) > order(cohort.position):  # appended and gone before it was seen
            self._tell_lost(cohort, batch.added, batch.last, batch.first)
            self._move(cohort, batch.last)
        elif cohort.read is None:
            cohort.read, cohort.since, cohort.seen = batch.added, cohort.position, 0
        return False

    def _leave(self, cohort: _Cohort) -> None:
        for name in cohort.names:
            self._records.pop(name, None)
        del self._cohorts[cohort.position]

    def _move(self, cohort: _Cohort, position: str) -> None:
        """Let a cohort stand at another place, together with whoever stands there."""
        self._cohorts.pop(cohort.position, None)
        there = self._cohorts.get(position)
        if there is not None:
            if there.since == position:
                self._tell_lost(cohort, there.read, position, None)
            there.names |= cohort.names
        elif cohort.names:
            cohort.position = position
            self._cohorts[position] = cohort

    async def _take(self, cohort: _Cohort, batch: Batch) -> None:
        """Queue what each endpoint wants, and move its record behind it."""
        selections: dict[Selection, list[str]] = {}
        for name in cohort.names & self._endpoints.keys():  # they may have changed meanwhile
            selections.setdefault(self._endpoints[name].selection, []).append(name)
        items: dict[str, list[QueueItem]] = {}
        for entry, message in self._messages(batch.entries):
            delivery = None
            for selection, names in selections.items():
                problem = self._judge(selection, message, names)
                if problem is None:
                    continue
                delivery = delivery or delivery_of(key_of(message), entry, message)
                for name in names:
                    item = route(self._endpoints[name], delivery)
                    if problem:
                        item = replace(item, problem=problem)
                    items.setdefault(name, []).append(item)
        if items:
            upto, read = batch.entries[-1].id, batch.added if batch.whole else None
            takes = [Take(n, self._records[n], upto, chosen) for n, chosen in items.items()]
            self._taken(takes, await self._outbox.take(takes, self._stream, read=read))

    def _judge(self, selection: Selection, message: Message, names: Sequence[str]) -> str | None:
        """Return "" for what the endpoints get, None for what they do not.

        Where the filter fails, return why: whether it is wanted is unknown then, so it is neither
        lost nor sent.
        """
        try:
            chosen = selection.matches(message)
        except Exception as error:  # noqa: BLE001  whatever an expression does is the endpoint's
            problem = f"its filter failed: {type(error).__name__} [{fingerprint(error)}]"
            for name in names:
                kept = f"what it could not judge is kept: poller webhook dead {name}"
                self._observe(Trouble(f"{subject_of(name)} filter", f"{problem}; {kept}"))
            self._failing |= {*names}
            return problem
        for name in self._failing.intersection(names) if self._failing else ():
            self._failing.discard(name)
            self._observe(Recovered(f"{subject_of(name)} filter"))
        return "" if chosen else None

    def _taken(self, takes: Sequence[Take], answers: Mapping[str, Taken]) -> None:
        gone = []
        for take in takes:
            answer = answers[take.name]
            if answer.problem:
                self._put_aside(take.name, answer.problem)
                continue
            if answer.superseded:  # another process took it: `begin` finds where it stands
                self._records.pop(take.name, None)
                for cohort in self._cohorts.values():
                    cohort.names.discard(take.name)
            else:
                self._records[take.name] = self._remembered[take.name] = take.upto
                if answer.gone:
                    gone.append((take.name, take.after))
            if take.items or answer.superseded:
                self._queued(take.name)
        self._tell_gone(gone)

    def _unsettled(self) -> bool:
        return any(
            self._records.get(name) != cohort.position
            for cohort in self._cohorts.values()
            for name in cohort.names
        )

    async def _settle(self) -> None:
        """Write down how far the endpoints have come over what they do not take."""
        self._settled = _now()
        for cohort in list(self._cohorts.values()):
            takes = [
                Take(name, self._records[name], cohort.position)
                for name in sorted(cohort.names)
                if self._records[name] != cohort.position
            ]
            at_end = cohort.since == cohort.position and not cohort.seen
            if takes:
                read = cohort.read if at_end else None
                self._taken(takes, await self._outbox.take(takes, self._stream, read=read))

    def _messages(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, Message]]:
        """Decode each entry; those that are not this service's are counted and told together."""
        foreign, before = "", self._foreign
        wanted = StreamEvent if self._stream is Stream.EVENTS else StreamNotice
        for entry in entries:
            message = decode(entry.id, entry.fields)
            if isinstance(message, wanted):
                yield entry, message
            else:
                self._foreign += 1
                reason = message.reason if isinstance(message, Foreign) else "of the other stream"
                foreign = foreign or f"webhooks: {entry.id} is no event of ours ({reason})"
        if foreign:
            self._observe(PassedOver(self._stream, self._foreign - before))
        if foreign and _now() >= self._foreign_told + FOREIGN_EVERY:
            told = (
                f"{foreign}: passed over, and told at most once an hour with the number of others"
            )
            self._observe(Happened(told, (("passed_over", self._foreign),)))
            self._foreign, self._foreign_told = 0, _now()

    def _tell_starts(self, starts: Mapping[str, Start]) -> None:
        self._tell_gone([(n, s.position) for n, s in starts.items() if s.gone])
        new = sorted(n for n, s in starts.items() if s.new and s.position != START)
        if new:
            self._observe(Happened(new_text(new, self._stream, starts[new[0]].position)))
        missed: dict[tuple[str, str], list[str]] = {}
        for name, start in starts.items():
            if start.missed is not None:
                missed.setdefault((start.position, start.missed), []).append(name)
        for (after, first), names in missed.items():
            self._tell_missed(names, None, after, first)

    def _tell_gone(self, gone: Sequence[tuple[str, str]]) -> None:
        by_place: dict[str, list[str]] = {}
        for name, position in gone:
            by_place.setdefault(position, []).append(name)
        for position, names in by_place.items():
            self._observe(Happened(gone_text(names, self._stream, position)))

    def _tell_lost(self, cohort: _Cohort, added: int | None, last: str, first: str | None) -> None:
        """Where the count of entries is known, say how many were removed before they were seen."""
        number = lost(cohort.read, added, cohort.seen)
        if number:
            behind = first is None or order(first) <= order(cohort.since)
            upto = last if behind or first is None else first
            self._tell_missed(sorted(cohort.names), number, cohort.since, upto)
        cohort.read, cohort.since, cohort.seen = added, last, 0

    def _tell_missed(
        self, names: Sequence[str], number: int | None, after: str, first: str
    ) -> None:
        self._observe(Happened(missed_text(names, self._stream, number, after, first)))


async def waited(events: Sequence[asyncio.Event], seconds: float) -> None:
    """Wait for one of the events, but no longer than this."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(
            waiting, timeout=max(seconds, _TICK), return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        for each in waiting:
            each.cancel()


def _now() -> float:
    return asyncio.get_running_loop().time()
