"""One judgement for an answer that shows another history, as of another company. Pure.

A code that is given to another company changes most of its known days by no single factor; a ratio
in another unit may change them to what no report can show. Such an answer is published as a whole
or not at all: one figure is held for it, its newest. What settles it: the operator's ruling on that
figure, the next report that goes on with this history, if it can be true, or the known history
shown again. Until then no part of the answer speaks for itself.
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
    """What becomes of an answer as a whole."""

    NONE = "none"  # it shows the known history, or what changed is told apart
    DOUBTED = "doubted"  # to be held
    WAITING = "waiting"  # it is held already, or was discarded
    ACCEPTED = "accepted"


def standing(held: Mapping[date, QuarantinedFigure]) -> QuarantinedFigure | None:
    """Return the figure that is held for a whole answer, the latest one."""
    found = [each for each in held.values() if each.reason == Reason.WHOLE_HISTORY]
    return max(found, key=lambda each: each.day, default=None)


def newest_other(known: Mapping[date, Vintage], listed: Mapping[date, Record]) -> date:
    """Return the newest day that is new or shows other figures; there is one."""
    return max(
        day
        for day, now in listed.items()
        if day not in known or is_revision(known[day].record, now)
    )


def is_broken(market: Market, known: Mapping[date, Vintage], listed: Mapping[date, Record]) -> bool:
    """Tell whether one cause made of known days what no report can show."""
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
    """Return what becomes of an answer as a whole; an answer without news is none.

    While one is held, a shorter answer is part of it when most of its known days, or all, differ.
    """
    before = standing(held)
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
    if before.ruling is Decision.DISCARDED:
        return Judgement.WAITING
    # when the next report goes on with this history, the vendor means it
    is_confirmed = not broken and newest_other(known, listed) > before.day
    is_accepted = is_confirmed or before.ruling is Decision.RELEASED
    return Judgement.ACCEPTED if is_accepted else Judgement.WAITING
