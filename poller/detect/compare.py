"""What a symbol's pages say that was not known: page(s) × known → events, next watermark. Pure.

Detection is by trading day, then by the short figures (shares and ratio). Prices, volumes and days
to cover never make a revision: 40 % of the Hong Kong figures repeat from week to week, and the
other columns move without anybody having reported anything. Many days that one cause changed are
one restatement (see `restate`); a figure that cannot be true is held (see `screening`), and so is
an answer that shows another history (see `replaced`), as a whole.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Final

from poller.detect.change import events_of
from poller.detect.held import Decision, QuarantinedFigure, Reason
from poller.detect.impossible import impossible, storable
from poller.detect.plausible import NO_MOVES, MarketMoves, is_extreme
from poller.detect.replaced import Judgement, is_broken, judgement, newest_other, standing
from poller.detect.restate import Rescaled, is_revision, restatement
from poller.detect.screening import (
    Screening,
    ahead,
    is_discarded,
    is_news,
    is_open,
    is_released,
    is_taken_back,
)
from poller.detect.tidy import tidied
from poller.errors import Malformed, StoreMisfit
from poller.markets import Record
from poller.model import Code, Event, EventType, Page, Vintage, market_of

PAGE_LIMIT: Final = 400
"""Pages of 50 in one go; more than 300 years of Hong Kong weeks, so only a gateway that loops."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the store holds of a symbol. `watermark`: its last reported trading day.

    `held`: figures that are in neither history nor stream, by day.
    """

    watermark: date | None = None
    vintages: Mapping[date, Vintage] = field(default_factory=dict)
    held: Mapping[date, QuarantinedFigure] = field(default_factory=dict)

    @property
    def newest(self) -> date | None:
        """The watermark; where somebody deleted it, the newest day still in history."""
        return self.watermark or max(self.vintages, default=None)

    @property
    def floor(self) -> date | None:
        """The oldest day this symbol is followed from; older rows were never asked for."""
        return min(self.vintages, default=self.watermark)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What to commit. `events` in stream order; `unpublished` is kept in history without an entry.

    `held`: to be held from now on, or what the operator ruled of them; `settled`: held no longer.
    `moves`: how the market's symbols move, with this answer. `extreme`: the new day on which this
    one moves as few do, which had better wait until the market is known to move ordinarily.
    """

    watermark: date | None
    events: tuple[Event, ...] = ()
    unpublished: tuple[Vintage, ...] = ()
    oddities: tuple[str, ...] = ()
    held: tuple[QuarantinedFigure, ...] = ()
    settled: tuple[date, ...] = ()
    moves: MarketMoves = NO_MOVES
    extreme: date | None = None

    def waiting(self, known: Known) -> tuple[QuarantinedFigure, ...]:
        """Return what waits for the operator's ruling after this commit, oldest day first."""
        after = {**known.held, **{each.day: each for each in self.held}}
        return tuple(
            after[day]
            for day in sorted(after.keys() - set(self.settled))
            if after[day].ruling is Decision.HELD
        )


def brings_nothing(comparison: Comparison, known: Known) -> bool:
    """Return whether the same answer will bring nothing as long as this is what is known.

    Not while a figure is held: the operator's ruling or a later day may let it through.
    """
    return not known.held and replace(comparison, moves=NO_MOVES) == Comparison(known.watermark)


class Reading(StrEnum):
    """Whether the pages read so far are enough."""

    ENOUGH = "enough"
    MORE = "more"
    CUT = "cut"  # no further page is to be had, although the watermark was not reached


def progress(
    code: Code, pages: Sequence[Page], known: Known, *, history: int, since: date | None = None
) -> Reading:
    """Tell whether to read on after `pages`.

    Enough is: down to the watermark, or to the oldest known day where the history is restated; at
    first sight `history` days; with `since`, down to that day.
    CUT is for the caller to settle: moving the watermark now would leave a gap for ever, while
    asking again costs a request. Raises Malformed when the paging turns in circles.
    """
    last = pages[-1]
    days = _days(code, pages)
    reached = _reached(days, known, history, since)
    if reached and (since is not None or not _is_restated_below(code, pages, known)):
        return Reading.ENOUGH
    catching_up = not reached and since is None and known.newest is not None and bool(days)
    if last.next_key is None or not last.records:
        return Reading.CUT if catching_up else Reading.ENOUGH
    earlier, latest = _days(code, pages[:-1]), _days(code, [last])
    looping = bool(earlier) and bool(latest) and min(latest) >= min(earlier)
    repeated = any(page.next_key == last.next_key for page in pages[:-1])
    if not (looping or repeated or len(pages) >= PAGE_LIMIT):
        return Reading.MORE
    if catching_up:
        raise Malformed(
            f"{code}: OpenD's paging does not end ({len(pages)} pages, key {last.next_key!r}, "
            f"oldest day {min(days)}) before the watermark {known.newest}; nothing was published"
        )
    return Reading.ENOUGH


def _days(code: Code, pages: Iterable[Page]) -> set[date]:
    """Return the days on these pages; one no report can have says nothing of where paging is."""
    first = market_of(code).first_day
    return {record.day for page in pages for record in page.records if record.day >= first}


def _reached(days: set[date], known: Known, history: int, since: date | None) -> bool:
    if since is not None:
        return bool(days) and min(days) <= since
    if known.newest is None:
        return len(days) >= max(history, 1)
    # one older day alone may be a row out of order: the next page costs less than a gap
    below = sum(day < known.newest for day in days)
    return known.newest in days or below > 1 or (bool(days) and max(days) < known.newest)


def _is_restated_below(code: Code, pages: Sequence[Page], known: Known) -> bool:
    """Tell whether known days below these pages may be rescaled as those on them are."""
    listed = {record.day: record for page in pages for record in page.records}
    if known.floor is None or not listed or min(listed) <= known.floor:
        return False
    found = restatement(known.vintages, listed)
    if found is None:
        return False
    whole = judgement(market_of(code), known.vintages, known.held, listed)
    if whole is not Judgement.NONE:
        return whole is Judgement.ACCEPTED
    return not is_discarded(known.held, listed[found.days[-1]])


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
    """Return what `records` (any order, duplicates allowed) say that `known` does not.

    `observed_at`: aware, when the records were read; also the judge of days in the future.
    `history`: rows published as backfilled at first sight. `since`: follow the symbol from that
    day on, however old (a backfill). `moves`: how the symbols of its market moved before. The
    watermark of the result is never older than the known one, and an empty, shorter or older
    answer changes nothing.
    """
    today = observed_at.astimezone(market_of(code).zone).date()
    if known.newest is not None and known.newest > today:
        raise StoreMisfit(
            f"the watermark of {code} is {known.newest}, a day in the future, so nothing newer can "
            f"be found; put it back to the last day that was reported, or remove it"
        )
    everything, oddities = tidied(code, records, known.vintages)
    early = {day: storable(record) for day, record in everything.items() if day > today}
    come = {day: record for day, record in everything.items() if day <= today}
    listed = {day: storable(record) for day, record in come.items()}
    broken = is_broken(market_of(code), known.vintages, listed)  # then they are held as one
    unfit = {} if broken else _unfit(code, come, known, observed_at)
    listed = {day: record for day, record in listed.items() if day not in unfit}
    extreme = None
    if known.newest is None:
        found = _first_sight(code, listed, known, observed_at, history, since)
    elif since is not None:
        found = _older_days(code, listed, known, observed_at, since)
    elif not listed or max(listed) < known.newest:
        found = Comparison(known.newest)  # older than what is known
    else:
        moves, extreme = _moved(code, listed, known, known.newest, moves)
        released = [
            each.record
            for each in known.held.values()
            if each.ruling is Decision.RELEASED
            and not broken
            and each.reason != Reason.WHOLE_HISTORY
        ]
        shown = {record.day: record for record in released if record.day <= today} | listed
        found = _news(code, shown, known, observed_at, known.newest, moves)
    floor = _floor(listed, known, history, since)
    asked = (each for day, each in sorted(unfit.items()) if day >= floor)
    last = known.vintages.get(known.newest or date.min)
    future = ahead(early, last.record if last else None, observed_at)
    held = tuple(each for each in (*found.held, *asked, *future) if is_news(known.held, each))
    return replace(found, oddities=oddities, held=held, moves=moves, extreme=extreme)


def _unfit(
    code: Code, listed: Mapping[date, Record], known: Known, observed_at: datetime
) -> dict[date, QuarantinedFigure]:
    """Return what no report can show, as it is to be held, unless it is known or was released."""
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
    """Return the oldest day that is asked for: an impossible figure below it concerns nobody."""
    if since is not None:
        return since
    if known.floor is not None:
        return known.floor
    newest = sorted(listed, reverse=True)[: max(history, 1)]
    return newest[-1] if len(newest) == max(history, 1) else date.min


def _moved(
    code: Code, listed: Mapping[date, Record], known: Known, watermark: date, moves: MarketMoves
) -> tuple[MarketMoves, date | None]:
    """Return the moves with the newest day of this answer, and the day if it moved extremely."""
    day = max(listed)
    if day <= watermark:
        return moves, None
    timeline = {each: vintage.record for each, vintage in known.vintages.items()} | dict(listed)
    earlier = [each for each in timeline if each < day]
    extreme = is_extreme(timeline[max(earlier)], listed[day]) if earlier else None
    if extreme is None:
        return moves, None
    return moves.after(code, day, extreme=extreme), day if extreme else None


def _news(
    code: Code,
    listed: Mapping[date, Record],
    known: Known,
    observed_at: datetime,
    newest: date,
    moves: MarketMoves,
) -> Comparison:
    """Tell new days, other figures of known ones, and days missing between them; or hold them."""
    whole = judgement(market_of(code), known.vintages, known.held, listed)
    if whole is Judgement.WAITING:
        return Comparison(newest)
    if whole is Judgement.DOUBTED:
        return _withheld(listed, known, observed_at, newest)
    accepted = whole is Judgement.ACCEPTED
    rescaled = _rescaled(listed, known, observed_at)
    found = _found(listed, known, observed_at, newest, rescaled, accepted=accepted)
    held = Screening(code, known.vintages, known.held, moves, rescaled).judge(found)
    found = {day: each for day, each in found.items() if day not in held}
    if rescaled is not None and rescaled.newest not in found:
        rescaled = None
    unpublished = list(rescaled.others) if rescaled is not None else []
    if newest in listed and newest not in known.vintages:  # reported, but gone from history
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


def _withheld(
    listed: Mapping[date, Record],
    known: Known,
    observed_at: datetime,
    newest: date,
) -> Comparison:
    """Publish nothing of an answer that shows another history; one figure is held for it."""
    before = standing(known.held)
    last = known.vintages.get(newest)
    other = listed[newest_other(known.vintages, listed)]
    now = QuarantinedFigure(other, last.record if last else None, Reason.WHOLE_HISTORY, observed_at)
    replaced = () if before is None or before.day == now.day else (before.day,)
    return Comparison(newest, held=(now,), settled=replaced)


def _rescaled(
    listed: Mapping[date, Record], known: Known, observed_at: datetime
) -> Rescaled | None:
    fact = restatement(known.vintages, listed)
    if fact is None:
        return None
    vintages = (_next(known, listed[day], observed_at) for day in fact.days)
    return Rescaled(fact, {vintage.day: vintage for vintage in vintages})


def _next(known: Known, record: Record, observed_at: datetime) -> Vintage:
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
    """Return what is other than known, and how it would be told.

    `accepted`: as a whole, whatever was discarded of it day by day.
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
        found[day] = kind, _next(known, record, observed_at)
    return found


def _older_days(  # a backfill
    code: Code,
    listed: Mapping[date, Record],
    known: Known,
    observed_at: datetime,
    since: date,
) -> Comparison:
    """Add what is missing below the watermark; what is new, revised or held is the poller's."""
    newest = known.newest
    whole = judgement(market_of(code), known.vintages, known.held, listed)
    if whole is not Judgement.NONE:
        return Comparison(newest)  # never half of one history and half of another
    settled_elsewhere = known.vintages.keys() | known.held.keys()
    found = {
        day: (EventType.BACKFILLED, Vintage(record, 0, observed_at))
        for day, record in listed.items()
        if newest is not None and since <= day < newest and day not in settled_elsewhere
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
    # nothing to publish: the newest row is still kept, so that the next one has a change to tell
    unpublished = () if chosen else (Vintage(listed[newest[0]], 0, observed_at),)
    come = tuple(day for day in known.held if day in listed)
    return Comparison(newest[0], events, unpublished, settled=come)
