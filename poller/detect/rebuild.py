"""Rebuilds events from stored vintages, for entries that the stream no longer holds. Pure.

Each vintage is compared with what was known before it was observed, by the rules that made the
original event; so a rebuilt event has the same id, figures and change.
"""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from itertools import groupby

from poller.detect.change import events_of
from poller.detect.restate import Rescaled, restatement
from poller.model import Code, Event, EventType, Restatement, Vintage


def rebuilt(
    code: Code,
    vintages: Iterable[Vintage],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Event]:
    """Return the events of vintages observed from `since` on and before `until`, in stream order.

    A symbol's first answer is backfilled; a day newer than all known ones is reported.
    """
    known: dict[date, Vintage] = {}
    events: list[Event] = []
    ordered = sorted(vintages, key=lambda each: (each.observed_at, each.day, each.revision))
    for observed_at, group in groupby(ordered, key=lambda each: each.observed_at):
        found = {vintage.day: vintage for vintage in group}
        if (since is None or observed_at >= since) and (until is None or observed_at < until):
            events += _events_at(code, known, found)
        known |= found
    return events


def _cause(known: Mapping[date, Vintage], found: Mapping[date, Vintage]) -> Restatement | None:
    """Return the one cause behind the changes of an answer of which only these are on record.

    It reached at least to the oldest of them. Where no factor proves the cause, it must have
    changed most days of a whole page: a few corrections are none.
    """
    first = min((day for day in found if day in known), default=None)
    if first is None:
        return None
    whole = {day: each.record for day, each in {**known, **found}.items()}
    fact = restatement(known, {day: record for day, record in whole.items() if day >= first})
    return restatement(known, whole) if fact is not None and fact.factor is None else fact


def _events_at(
    code: Code, known: Mapping[date, Vintage], found: Mapping[date, Vintage]
) -> tuple[Event, ...]:
    fact = _cause(known, found)
    rescaled = None
    if fact is not None:
        rescaled = Rescaled(fact, {day: found[day] for day in fact.days})
    events = {}
    for day, vintage in found.items():
        if rescaled is not None and day in rescaled.vintages:
            if day == rescaled.newest:
                events[day] = EventType.RESTATED, vintage
        elif day in known:
            events[day] = EventType.REVISED, vintage
        elif known and day > max(known):
            events[day] = EventType.REPORTED, vintage
        else:
            events[day] = EventType.BACKFILLED, vintage
    return events_of(code, known, events, rescaled)
