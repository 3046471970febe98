"""Events told again from the vintages on record, for what the stream no longer holds. Pure.

What was known before a vintage was observed decides what its event said, by the rules that made
it; so a rebuilt event has the id, the figures and the change of the first one.
"""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from itertools import groupby

from poller.detect.change import events_of
from poller.detect.restate import Rescaled, restatement
from poller.model import Code, Event, EventType, Vintage


def rebuilt(
    code: Code,
    vintages: Iterable[Vintage],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Event]:
    """Return the events of vintages observed from `since` on and before `until`, in stream order.

    A symbol's first answer is told as backfilled, a day after all that was known as reported.
    """
    known: dict[date, Vintage] = {}
    events: list[Event] = []
    ordered = sorted(vintages, key=lambda each: (each.observed_at, each.day, each.revision))
    for observed_at, group in groupby(ordered, key=lambda each: each.observed_at):
        found = {vintage.day: vintage for vintage in group}
        if (since is None or observed_at >= since) and (until is None or observed_at < until):
            events += _told(code, known, found)
        known |= found
    return events


def _told(
    code: Code, known: Mapping[date, Vintage], found: Mapping[date, Vintage]
) -> tuple[Event, ...]:
    revised = {day: each for day, each in found.items() if day in known}
    fact = restatement(known, {day: each.record for day, each in revised.items()})
    rescaled = None
    if fact is not None:
        rescaled = Rescaled(fact, {day: found[day] for day in fact.days})
    told = {}
    for day, vintage in found.items():
        if rescaled is not None and day in rescaled.vintages:
            if day == rescaled.newest:
                told[day] = EventType.RESTATED, vintage
        elif day in known:
            told[day] = EventType.REVISED, vintage
        elif known and day > max(known):
            told[day] = EventType.REPORTED, vintage
        else:
            told[day] = EventType.BACKFILLED, vintage
    return events_of(code, known, told, rescaled)
