"""Copies a stream's entries, in order, into the queue of each endpoint that selects them.

One reader per stream serves all endpoints of a process, so an entry is read and decoded once.
Endpoints at the same position advance together, as a cohort. The cohort at the head comes first;
those behind get a batch in turn, until they have caught up and merge with it.

An endpoint's stored position moves together with what is queued for it. Over entries that it does
not select, the position is written later, for all endpoints at once: after a crash these entries
are read again and skipped again.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from poller.delivery.endpoint import Endpoint
from poller.delivery.log_lines import gone_text, intake_of, missed_text, new_text, subject_of
from poller.delivery.outbox import Batch, Outbox, QueueItem, Take, Taken, WrongKeyType
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
"""Stream entries read at once."""

STORE: Final = "redis for webhooks"
"""Subject of delivery's troubles with Redis; the poll loop has its own, which may last longer."""

SETTLE: Final = 2.0
"""Seconds between two writes of positions that moved over entries that were not selected."""

FOREIGN_EVERY: Final = 3600.0
"""Seconds between two log lines about foreign entries."""

_TICK: Final = 0.001
"""Seconds; anything shorter would be a busy loop."""


@dataclass(slots=True)
class _Cohort:
    """Endpoints at the same position of the stream.

    Attributes:
        since: The position where they last reached the stream's end.
        read: How many entries had ever been appended up to there; None: unknown.
        seen: How many entries they have read since.
    """

    position: str
    read: int | None
    since: str
    seen: int = 0
    names: set[str] = field(default_factory=set)


class Enqueuer:
    """Reads one stream for all endpoints until cancelled."""

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
        """`look`, `pause`: see `worker.Timing`. `queued`: called when an endpoint has more to send.

        `news`: returns an event that is set when the stream grows.
        """
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
        self._suspended_until: dict[str, float] = {}
        self._foreign = 0
        self._settled = 0.0
        self._foreign_logged_at = -FOREIGN_EVERY
        self._failing: set[str] = set()
        self._round = 0
        self._changed = asyncio.Event()

    def configure(self, endpoints: Iterable[Endpoint]) -> None:
        """Read for exactly these endpoints from now on."""
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._changed.set()

    async def run(self) -> None:
        """Read and queue until cancelled."""
        self._start_over()
        with heartbeat(self._observe, intake_of(self._stream)) as beat:
            while True:
                beat()
                news = self._news(self._stream)
                self._changed.clear()
                try:
                    more = await self._read_batches()
                except (StoreDown, StoreMisfit) as problem:
                    self._observe(Trouble(STORE, str(problem)))
                    self._start_over()
                    await asyncio.sleep(self._pause)
                    continue
                self._observe(Recovered(STORE))
                if not more:
                    await self._wait(news)

    def _start_over(self) -> None:
        """Forget the endpoints' positions: another process may have moved them."""
        self._cohorts.clear()
        self._records.clear()

    async def _wait(self, news: asyncio.Event) -> None:
        """Wait for new entries or another configuration, for `look` or until `_settle` is due."""
        until = self._look
        if self._unsettled():
            until = min(until, max(self._settled + SETTLE - _now(), 0))
        await wait_any((news, self._changed), until)

    async def _read_batches(self) -> bool:
        """Read a batch at the head and one for a cohort behind; return whether more may follow."""
        await self._begin()
        if _now() >= self._settled + SETTLE and self._unsettled():
            await self._settle()
        cohorts = sorted(self._cohorts.values(), key=lambda each: order(each.position))
        more = bool(cohorts) and await self._advance(cohorts[-1], None)
        if len(cohorts) > 1:
            # in turns: a cohort far behind must not keep another from catching up
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
            if name not in self._records and self._suspended_until.get(name, now) <= now
        ]

    async def _begin(self) -> None:
        """Look up where new endpoints go on, and drop those that were removed."""
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
            if isinstance(start, WrongKeyType):
                self._suspend(name, str(start))
            else:
                self._enter(name, start)
        self._log_starts({n: s for n, s in starts.items() if isinstance(s, Start)})

    def _suspend(self, name: str, problem: str) -> None:
        self._observe(Trouble(subject_of(name), problem))
        self._suspended_until[name] = _now() + self._look
        self._records.pop(name, None)
        for cohort in self._cohorts.values():
            cohort.names.discard(name)

    def _enter(self, name: str, start: Start) -> None:
        if self._suspended_until.pop(name, None) is not None:
            self._observe(Recovered(subject_of(name)))
        self._records[name] = self._remembered[name] = start.position
        cohort = self._cohorts.get(start.position)
        if cohort is None:
            cohort = _Cohort(start.position, start.read, start.position)
            self._cohorts[start.position] = cohort
        cohort.names.add(name)

    async def _advance(self, cohort: _Cohort, upto: str | None) -> bool:
        """Process a batch for a cohort, not beyond `upto`; return whether there may be more."""
        batch = await self._outbox.follow(cohort.position, BATCH, self._stream)
        if batch.first is not None and order(batch.last) < order(cohort.position):
            self._leave(cohort)  # the stream was replaced: `begin` decides where to go on
            return True
        entries = batch.entries
        if upto is not None:
            entries = [entry for entry in entries if order(entry.id) <= order(upto)]
        if entries:
            cohort.seen += len(entries)
            batch = replace(batch, entries=entries)
            if batch.whole:
                self._log_lost(cohort, batch.added, batch.last, batch.first)
            await self._take(cohort, batch)
            self._move(cohort, entries[-1].id)
            return not batch.whole
        if upto is not None:
            self._move(cohort, upto)
        elif order(batch.last) > order(cohort.position):  # appended and trimmed before it was read
            self._log_lost(cohort, batch.added, batch.last, batch.first)
            self._move(cohort, batch.last)
        elif cohort.read is None:
            cohort.read, cohort.since, cohort.seen = batch.added, cohort.position, 0
        return False

    def _leave(self, cohort: _Cohort) -> None:
        for name in cohort.names:
            self._records.pop(name, None)
        del self._cohorts[cohort.position]

    def _move(self, cohort: _Cohort, position: str) -> None:
        """Move a cohort to a position, and merge it with the cohort there."""
        self._cohorts.pop(cohort.position, None)
        other = self._cohorts.get(position)
        if other is not None:
            if other.since == position:
                self._log_lost(cohort, other.read, position, None)
            other.names |= cohort.names
        elif cohort.names:
            cohort.position = position
            self._cohorts[position] = cohort

    async def _take(self, cohort: _Cohort, batch: Batch) -> None:
        """Queue what each endpoint selects, together with its new position."""
        selections: dict[Selection, list[str]] = {}
        for name in cohort.names & self._endpoints.keys():  # they may have changed meanwhile
            selections.setdefault(self._endpoints[name].selection, []).append(name)
        items: dict[str, list[QueueItem]] = {}
        for entry, message in self._messages(batch.entries):
            delivery = None
            for selection, names in selections.items():
                problem = self._evaluate(selection, message, names)
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

    def _evaluate(self, selection: Selection, message: Message, names: Sequence[str]) -> str | None:
        """Return "" if the endpoints get the message, None if they do not.

        If the filter fails, return why: the message becomes a dead letter, neither lost nor sent.
        """
        try:
            chosen = selection.matches(message)
        except Exception as error:  # noqa: BLE001  an expression's failure concerns its endpoint
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
                self._suspend(take.name, answer.problem)
                continue
            if answer.superseded:  # another process moved it: `begin` reads its position again
                self._records.pop(take.name, None)
                for cohort in self._cohorts.values():
                    cohort.names.discard(take.name)
            else:
                self._records[take.name] = self._remembered[take.name] = take.upto
                if answer.gone:
                    gone.append((take.name, take.after))
            if take.items or answer.superseded:
                self._queued(take.name)
        self._log_gone(gone)

    def _unsettled(self) -> bool:
        return any(
            self._records.get(name) != cohort.position
            for cohort in self._cohorts.values()
            for name in cohort.names
        )

    async def _settle(self) -> None:
        """Store the positions that moved over entries the endpoints do not select."""
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
        """Yield the decoded entries; count the foreign ones, and log them once an hour."""
        foreign, before = "", self._foreign
        wanted = StreamEvent if self._stream is Stream.EVENTS else StreamNotice
        for entry in entries:
            message = decode(entry.id, entry.fields)
            if isinstance(message, wanted):
                yield entry, message
            else:
                self._foreign += 1
                reason = message.reason if isinstance(message, Foreign) else "of the other stream"
                foreign = foreign or f"webhooks: {entry.id} is not an event of ours ({reason})"
        if foreign:
            self._observe(PassedOver(self._stream, self._foreign - before))
        if foreign and _now() >= self._foreign_logged_at + FOREIGN_EVERY:
            line = f"{foreign}: passed over; logged at most once an hour, with the number of others"
            self._observe(Happened(line, (("passed_over", self._foreign),)))
            self._foreign, self._foreign_logged_at = 0, _now()

    def _log_starts(self, starts: Mapping[str, Start]) -> None:
        self._log_gone([(n, s.position) for n, s in starts.items() if s.gone])
        new = sorted(n for n, s in starts.items() if s.new and s.position != START)
        if new:
            self._observe(Happened(new_text(new, self._stream, starts[new[0]].position)))
        missed: dict[tuple[str, str], list[str]] = {}
        for name, start in starts.items():
            if start.missed is not None:
                missed.setdefault((start.position, start.missed), []).append(name)
        for (after, first), names in missed.items():
            self._log_missed(names, None, after, first)

    def _log_gone(self, gone: Sequence[tuple[str, str]]) -> None:
        by_place: dict[str, list[str]] = {}
        for name, position in gone:
            by_place.setdefault(position, []).append(name)
        for position, names in by_place.items():
            self._observe(Happened(gone_text(names, self._stream, position)))

    def _log_lost(self, cohort: _Cohort, added: int | None, last: str, first: str | None) -> None:
        """Log how many entries were removed before they were read, if that is known."""
        number = lost(cohort.read, added, cohort.seen)
        if number:
            behind = first is None or order(first) <= order(cohort.since)
            upto = last if behind or first is None else first
            self._log_missed(sorted(cohort.names), number, cohort.since, upto)
        cohort.read, cohort.since, cohort.seen = added, last, 0

    def _log_missed(self, names: Sequence[str], number: int | None, after: str, first: str) -> None:
        self._observe(Happened(missed_text(names, self._stream, number, after, first)))


async def wait_any(events: Sequence[asyncio.Event], seconds: float) -> None:
    """Wait until one of the events is set, for at most `seconds`."""
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
