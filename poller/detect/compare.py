"""Compares a symbol's pages with what is known: page(s) × known → events, next watermark. Pure.

Detection is by trading day, then by the short figures (shares and ratio). Prices, volumes and days
to cover never make a revision: 40 % of the Hong Kong figures repeat from week to week, and the
other columns move without a new report. Many days changed by one cause are one restatement (see
`restate`). A figure that cannot be true is held (see `screening`); an answer that shows another
history is held as a whole (see `replaced`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from poller.detect.change import events_of
from poller.detect.deduplicate import deduplicated
from poller.detect.held import Decision, QuarantinedFigure, Reason
from poller.detect.impossible import impossible, storable
from poller.detect.plausible import NO_MOVES, MarketMoves, is_extreme
from poller.detect.replaced import Judgement, history_held, is_broken, judgement, newest_difference
from poller.detect.restate import Rescaled, is_revision, restatement
from poller.detect.screening import (
    Screening,
    future_days,
    is_discarded,
    is_newly_held,
    is_open,
    is_released,
    is_taken_back,
)
from poller.errors import StoreMisfit
from poller.markets import Record
from poller.model import Code, Event, EventType, Instrument, Vintage, market_of


@dataclass(frozen=True, slots=True)
class Known:
    """What the store has of a symbol: its last reported day, and each day's newest vintage.

    `held`: by day, the quarantined figures, which are in neither history nor stream.
    """

    watermark: date | None = None
    vintages: Mapping[date, Vintage] = field(default_factory=dict)
    held: Mapping[date, QuarantinedFigure] = field(default_factory=dict)

    @property
    def newest(self) -> date | None:
        """The watermark; if somebody deleted it, the newest day still in history."""
        return self.watermark or max(self.vintages, default=None)

    @property
    def floor(self) -> date | None:
        """The oldest day of interest: rows before it were never asked for."""
        return min(self.vintages, default=self.watermark)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What to commit.

    Attributes:
        events: In stream order.
        unpublished: Vintages kept in history without an entry.
        oddities: Contradictions in the answer, for the log.
        held: Figures to hold, or the operator's decision on held ones.
        settled: Days of which nothing is held any more.
        moves: The moves of the market's symbols, including this answer.
        extreme: The new day if its move is extreme; its commit waits for the market's other moves.
    """

    watermark: date | None
    events: tuple[Event, ...] = ()
    unpublished: tuple[Vintage, ...] = ()
    oddities: tuple[str, ...] = ()
    held: tuple[QuarantinedFigure, ...] = ()
    settled: tuple[date, ...] = ()
    moves: MarketMoves = NO_MOVES
    extreme: date | None = None

    def described(self, known: Instrument) -> "Comparison":
        """Return the same with what is known of the symbol besides in its events."""
        described = (
            replace(
                event,
                name=known.name,
                outstanding_percent=known.outstanding_percent(event.vintage.record),
            )
            for event in self.events
        )
        return replace(self, events=tuple(described)) if self.events else self

    def waiting(self, known: Known) -> tuple[QuarantinedFigure, ...]:
        """Return the figures that await a decision after this commit, oldest day first."""
        after = {**known.held, **{each.day: each for each in self.held}}
        return tuple(
            after[day]
            for day in sorted(after.keys() - set(self.settled))
            if after[day].decision is Decision.HELD
        )


def brings_nothing(comparison: Comparison, known: Known) -> bool:
    """Return whether the same answer will bring nothing while the known state stays the same.

    Not while a figure is held: the operator's decision or a later day may release it.
    """
    return not known.held and replace(comparison, moves=NO_MOVES) == Comparison(known.watermark)


def compare(
    code: Code,
    records: Iterable[Record],
    known: Known,
    *,
    observed_at: datetime,
    history: int,
    since: date | None = None,
    moves: MarketMoves = NO_MOVES,
) -> Comparison:
    """Return what `records` (any order, duplicates allowed) show that `known` does not.

    `observed_at`: aware, when the records were read; days after it are held. `history`: rows of a
    new symbol to publish as backfilled. `since`: publish the symbol from that day on, however old
    (a backfill). `moves`: the earlier moves of its market's symbols. The watermark of the result
    is never older than the known one, and an empty, shorter or older answer changes nothing.
    Raises StoreMisfit when the known watermark is in the future.
    """
    today = observed_at.astimezone(market_of(code).zone).date()
    if known.newest is not None and known.newest > today:
        raise StoreMisfit(
            f"the watermark of {code} is {known.newest}, a day in the future, so nothing newer can "
            f"be found; put it back to the last day that was reported, or remove it"
        )
    everything, oddities = deduplicated(code, records, known.vintages)
    early = {day: storable(record) for day, record in everything.items() if day > today}
    past = {day: record for day, record in everything.items() if day <= today}
    listed = {day: storable(record) for day, record in past.items()}
    broken = is_broken(market_of(code), known.vintages, listed)  # then they are held as one
    unfit = {} if broken else _impossible_figures(code, past, known, observed_at)
    listed = {day: record for day, record in listed.items() if day not in unfit}
    extreme = None
    if known.newest is None:
        found = _first_sight(code, listed, known, observed_at, history, since)
    elif since is not None:
        found = _backfill(code, listed, known, observed_at, since)
    elif not listed or max(listed) < known.newest:
        found = Comparison(known.newest)
    else:
        moves, extreme = _moved(code, listed, known, known.newest, moves)
        released = [
            each.record
            for each in known.held.values()
            if each.decision is Decision.RELEASED
            and not broken
            and each.reason != Reason.WHOLE_HISTORY
        ]
        shown = {record.day: record for record in released if record.day <= today} | listed
        found = _compare_newer(code, shown, known, observed_at, known.newest, moves)
    floor = _floor(listed, known, history, since)
    asked = (each for day, each in sorted(unfit.items()) if day >= floor)
    last = known.vintages.get(known.newest or date.min)
    future = future_days(early, last.record if last else None, observed_at)
    held = tuple(each for each in (*found.held, *asked, *future) if is_newly_held(known.held, each))
    return replace(found, oddities=oddities, held=held, moves=moves, extreme=extreme)


def _impossible_figures(
    code: Code, listed: Mapping[date, Record], known: Known, observed_at: datetime
) -> dict[date, QuarantinedFigure]:
    """Return figures no report can show, to be held, except known and released ones."""
    unfit = {}
    for day, shown in listed.items():
        before = known.vintages.get(day)
        if before is not None and not is_revision(before.record, shown):
            continue
        found, record = impossible(market_of(code), shown), storable(shown)
        if found is not None and not is_released(known.held, record):
            last = before.record if before is not None else None
            unfit[day] = QuarantinedFigure(record, last, found[0], observed_at)
    return unfit


def _floor(listed: Mapping[date, Record], known: Known, history: int, since: date | None) -> date:
    """Return the oldest day of interest: impossible figures before it are ignored."""
    if since is not None:
        return since
    if known.floor is not None:
        return known.floor
    newest = sorted(listed, reverse=True)[: max(history, 1)]
    return newest[-1] if len(newest) == max(history, 1) else date.min


def _moved(
    code: Code, listed: Mapping[date, Record], known: Known, watermark: date, moves: MarketMoves
) -> tuple[MarketMoves, date | None]:
    """Return the moves with this answer's newest day added, and that day if its move is extreme."""
    day = max(listed)
    if day <= watermark:
        return moves, None
    timeline = {each: vintage.record for each, vintage in known.vintages.items()} | dict(listed)
    earlier = [each for each in timeline if each < day]
    extreme = is_extreme(timeline[max(earlier)], listed[day]) if earlier else None
    if extreme is None:
        return moves, None
    return moves.after(code, day, extreme=extreme), day if extreme else None


def _compare_newer(
    code: Code,
    listed: Mapping[date, Record],
    known: Known,
    observed_at: datetime,
    newest: date,
    moves: MarketMoves,
) -> Comparison:
    """Publish or hold new days, revised known ones, and missing ones between them."""
    whole = judgement(market_of(code), known.vintages, known.held, listed)
    if whole is Judgement.WAITING:
        return Comparison(newest)
    if whole is Judgement.DOUBTED:
        return _hold_whole(listed, known, observed_at, newest)
    accepted = whole is Judgement.ACCEPTED
    rescaled = _rescaled(listed, known, observed_at)
    found = _found(listed, known, observed_at, newest, rescaled, accepted=accepted)
    held = Screening(code, known.vintages, known.held, moves, rescaled).screen(found)
    found = {day: each for day, each in found.items() if day not in held}
    if rescaled is not None and rescaled.newest not in found:
        rescaled = None
    unpublished = list(rescaled.others) if rescaled is not None else []
    if newest in listed and newest not in known.vintages:  # published, but missing from history
        unpublished.append(Vintage(listed[newest], 0, observed_at))
    settled = {
        day
        for day, each in known.held.items()
        if day in (listed if accepted else found)
        or is_taken_back(each, known.vintages.get(day), listed)
        or (each.reason == Reason.WHOLE_HISTORY and (accepted or is_open(each)))
    }
    return Comparison(
        max((newest, *found)),
        events_of(code, known.vintages, found, rescaled),
        tuple(unpublished),
        held=tuple(held.values()),
        settled=tuple(day for day in known.held if day in settled and day not in held),
    )


def _hold_whole(
    listed: Mapping[date, Record], known: Known, observed_at: datetime, newest: date
) -> Comparison:
    """Publish nothing of an answer that shows another history: hold one figure for all of it."""
    before = history_held(known.held)
    last = known.vintages.get(newest)
    other = listed[newest_difference(known.vintages, listed)]
    now = QuarantinedFigure(other, last.record if last else None, Reason.WHOLE_HISTORY, observed_at)
    replaced = () if before is None or before.day == now.day else (before.day,)
    return Comparison(newest, held=(now,), settled=replaced)


def _rescaled(
    listed: Mapping[date, Record], known: Known, observed_at: datetime
) -> Rescaled | None:
    fact = restatement(known.vintages, listed)
    if fact is None:
        return None
    vintages = (_next_vintage(known, listed[day], observed_at) for day in fact.days)
    return Rescaled(fact, {vintage.day: vintage for vintage in vintages})


def _next_vintage(known: Known, record: Record, observed_at: datetime) -> Vintage:
    before = known.vintages.get(record.day)
    return Vintage(record, 0 if before is None else before.revision + 1, observed_at)


def _found(
    listed: Mapping[date, Record],
    known: Known,
    observed_at: datetime,
    newest: date,
    rescaled: Rescaled | None,
    *,
    accepted: bool,
) -> dict[date, tuple[EventType, Vintage]]:
    """Return the vintages that differ from what is known, with the event type of each.

    `accepted`: the answer was accepted as a whole, so days discarded one by one count again.
    """
    found = {}
    for day, record in listed.items():
        before = known.vintages.get(day)
        if not accepted and is_discarded(known.held, record):
            continue
        if rescaled is not None and day in rescaled.vintages:
            if day != rescaled.newest:
                continue
            kind = EventType.RESTATED
        elif before is not None:
            if not is_revision(before.record, record):
                continue
            kind = EventType.REVISED
        elif day > newest:
            kind = EventType.REPORTED
        elif known.floor is not None and known.floor < day < newest:
            kind = EventType.BACKFILLED
        else:
            continue
        found[day] = kind, _next_vintage(known, record, observed_at)
    return found


def _backfill(
    code: Code, listed: Mapping[date, Record], known: Known, observed_at: datetime, since: date
) -> Comparison:
    """Add days missing below the watermark; new, revised and held ones are left to the poller."""
    newest = known.newest
    whole = judgement(market_of(code), known.vintages, known.held, listed)
    if whole is not Judgement.NONE:
        return Comparison(newest)  # do not mix two histories
    known_or_held = known.vintages.keys() | known.held.keys()
    found = {
        day: (EventType.BACKFILLED, Vintage(record, 0, observed_at))
        for day, record in listed.items()
        if newest is not None and since <= day < newest and day not in known_or_held
    }
    return Comparison(newest, events_of(code, known.vintages, found))


def _first_sight(
    code: Code,
    listed: Mapping[date, Record],
    known: Known,
    observed_at: datetime,
    history: int,
    since: date | None,
) -> Comparison:
    if not listed:
        return Comparison(None)
    newest = sorted(listed, reverse=True)
    chosen = newest[:history] if since is None else [day for day in newest if day >= since]
    vintages = {day: Vintage(listed[day], 0, observed_at) for day in chosen}
    events = events_of(code, {}, {day: (EventType.BACKFILLED, v) for day, v in vintages.items()})
    # with nothing to publish, still keep the newest row: the next one's change is relative to it
    unpublished = () if chosen else (Vintage(listed[newest[0]], 0, observed_at),)
    settled = tuple(day for day in known.held if day in listed)
    return Comparison(newest[0], events, unpublished, settled=settled)
