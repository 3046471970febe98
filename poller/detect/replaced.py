"""One judgement on an answer that shows another history, as of another company. Pure.

When a code is given to another company, most of its known days change by no single factor; a ratio
in another unit may change them to impossible figures. Such an answer is published as a whole or not
at all: its newest figure is held for all of it. Three things settle it: the operator's decision on
that figure; a later report that continues this history, if it can be true; or an answer with the
known history again. Until then no part of the answer is published.
"""

from collections.abc import Mapping
from datetime import date
from enum import StrEnum

from poller.detect.held import Decision, QuarantinedFigure, Reason
from poller.detect.impossible import impossible
from poller.detect.restate import RESTATED_LEAST, is_mostly_changed, is_revision, restatement
from poller.detect.screening import same_figures
from poller.markets import Market, Record
from poller.model import Cause, Vintage


class Judgement(StrEnum):
    """What to do with an answer as a whole."""

    NONE = "none"  # it shows the known history: publish each day by itself
    DOUBTED = "doubted"  # hold it
    WAITING = "waiting"  # it is already held, or was discarded
    ACCEPTED = "accepted"  # publish it


def history_held(held: Mapping[date, QuarantinedFigure]) -> QuarantinedFigure | None:
    """Return the figure that is held for a whole answer, or None; the latest of several."""
    found = [each for each in held.values() if each.reason == Reason.WHOLE_HISTORY]
    return max(found, key=lambda each: each.day, default=None)


def newest_difference(known: Mapping[date, Vintage], listed: Mapping[date, Record]) -> date:
    """Return the newest day that is new or shows other figures; there must be one."""
    return max(
        day
        for day, now in listed.items()
        if day not in known or is_revision(known[day].record, now)
    )


def is_broken(market: Market, known: Mapping[date, Vintage], listed: Mapping[date, Record]) -> bool:
    """Return whether one cause turned several known days into impossible figures."""
    broken = [
        day
        for day in known.keys() & listed.keys()
        if is_revision(known[day].record, listed[day]) and impossible(market, listed[day])
    ]
    return len(broken) >= RESTATED_LEAST and restatement(known, listed) is not None


def judgement(
    market: Market,
    known: Mapping[date, Vintage],
    held: Mapping[date, QuarantinedFigure],
    listed: Mapping[date, Record],
) -> Judgement:
    """Judge an answer as a whole; NONE if it shows nothing new.

    While one is held, a shorter answer belongs to it if most of its known days differ.
    """
    before = history_held(held)
    fact = restatement(known, listed)
    broken = is_broken(market, known, listed)
    is_whole = broken or (fact is not None and fact.cause is Cause.REPLACED)
    if before is None:
        return Judgement.DOUBTED if is_whole else Judgement.NONE
    if fact is None and (known.keys().isdisjoint(listed) or is_mostly_changed(known, listed)):
        return Judgement.WAITING
    if not is_whole:
        return Judgement.NONE
    shown = listed.get(before.day)
    if shown is None or not same_figures(before.record, shown):
        return Judgement.DOUBTED
    if before.decision is Decision.DISCARDED:
        return Judgement.WAITING
    # a further report that continues this history shows that the vendor means it
    is_confirmed = not broken and newest_difference(known, listed) > before.day
    is_accepted = is_confirmed or before.decision is Decision.RELEASED
    return Judgement.ACCEPTED if is_accepted else Judgement.WAITING
