"""Which of the figures found are published, and which are held until something settles them. Pure.

What settles a held figure: the operator, the vendor (by another one), or a later day on the same
level, which makes an unlikely move a fact. Until then it speaks neither for nor against anything.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from poller.detect.held import Decision, QuarantinedFigure, Reason
from poller.detect.plausible import SLIP, MarketMoves, doubt, is_extreme, same_level
from poller.detect.restate import Rescaled
from poller.markets import Record
from poller.model import Code, EventType, Vintage, market_of

_CONFIRMABLE: Final = {Reason.UNIT_SLIP, Reason.ZERO}

Found = Mapping[date, tuple[EventType, Vintage]]
"""What an answer brings: by day, how it would be told."""


class _Trusted:
    """The figures that speak for or against others, by day."""

    def __init__(self, records: Mapping[date, Record]) -> None:
        self._records = dict(records)
        self._days = sorted(day for day, record in records.items() if record.shares is not None)

    def add(self, record: Record) -> None:
        day = record.day
        place = bisect_left(self._days, day)
        known = self._days[place : place + 1] == [day]
        self._records[day] = record
        self._days[place : place + known] = [] if record.shares is None else [day]

    def before(self, day: date) -> Record | None:
        """Return the last one before a day."""
        place = bisect_left(self._days, day)
        return self._records[self._days[place - 1]] if place else None


@dataclass(frozen=True, slots=True)
class Screening:
    """What is known when figures are judged. `rescaled`: what the RESTATED one stands for."""

    code: Code
    vintages: Mapping[date, Vintage]
    held: Mapping[date, QuarantinedFigure]
    moves: MarketMoves
    rescaled: Rescaled | None

    def judge(self, found: Found) -> dict[date, QuarantinedFigure]:
        """Return the figures of `found` that are in doubt, as they are to be held.

        Judged again with what was accepted, none of them would pass: an answer that comes twice
        says nothing new the second time.
        """
        good = _Trusted({day: vintage.record for day, vintage in self.vintages.items()})
        doubted: Found = found
        while True:
            held = self._sift(doubted, good)
            if len(held) == len(doubted):
                return held
            doubted = {day: found[day] for day in held}

    def _sift(self, found: Found, good: _Trusted) -> dict[date, QuarantinedFigure]:
        """Hold what `good` speaks against; what passes becomes good for the days after it."""
        held: dict[date, QuarantinedFigure] = {}
        order: list[date] = []  # of `held`, oldest first
        for day in _in_order(found):
            kind, vintage = found[day]
            replaced = self.vintages.get(day)
            before = good.before(day) if replaced is None else replaced.record
            reason = self._reason(kind, vintage.record, before)
            if reason is None:
                self._accept(good, found[day])
                continue
            now = QuarantinedFigure(vintage.record, before, reason, vintage.observed_at)
            confirmed = [each for each in _since(now.previous, held, order) if _confirms(now, each)]
            if not confirmed:
                held[day] = now
                insort(order, day)
                continue
            for each in (*confirmed, now):
                self._accept(good, found[each.day])
                if held.pop(each.day, None) is not None:
                    order.remove(each.day)
        return held

    def _accept(self, good: _Trusted, accepted: tuple[EventType, Vintage]) -> None:
        kind, vintage = accepted
        good.add(vintage.record)
        if kind is EventType.RESTATED and self.rescaled is not None:
            for each in self.rescaled.vintages.values():
                good.add(each.record)

    def _reason(self, kind: EventType, record: Record, before: Record | None) -> Reason | None:
        standing = self.held.get(record.day)
        if standing is not None and not same_figures(standing.record, record):
            standing = None
        if standing is not None and standing.ruling is Decision.RELEASED:
            return None
        if kind is EventType.RESTATED and self.rescaled is not None:
            fact = self.rescaled.fact
            slipped = fact.column == record.SHARES and not 1 / SLIP < (fact.factor or 1) < SLIP
            return Reason.UNIT_SLIP if slipped else None
        reason = None if before is None else doubt(market_of(self.code), before, record)
        if reason is not None:
            return reason
        waits = standing is not None and standing.reason == Reason.WHOLESALE
        is_wholesale = kind is EventType.REPORTED and self._is_wholesale(record, before)
        return Reason.WHOLESALE if is_wholesale or (waits and not self.moves.is_over) else None

    def _is_wholesale(self, record: Record, before: Record | None) -> bool:
        if self.moves.is_anomalous(record.day):
            return True
        is_alone = before is None or not is_extreme(before, record)
        return not is_alone and self.moves.is_impossible(record.day)


def _in_order(found: Found) -> Iterator[date]:
    """Yield a restatement first, as the days after it are judged against it; then oldest first."""
    yield from sorted(found, key=lambda day: (found[day][0] is not EventType.RESTATED, day))


def _since(
    good: Record | None, held: Mapping[date, QuarantinedFigure], order: list[date]
) -> Iterator[QuarantinedFigure]:
    """Yield what is held of the days from the last good figure on: with that, never many."""
    if good is not None:
        yield from (held[day] for day in order[bisect_left(order, good.day) :])


def _confirms(now: QuarantinedFigure, earlier: QuarantinedFigure) -> bool:
    """Tell whether two days in doubt, with no good one between them, are on the same level."""
    return (
        {now.reason, earlier.reason} <= _CONFIRMABLE
        and now.previous is not None
        and now.previous.day <= earlier.day < now.day
        and same_level(now.record, earlier.record)
    )


def same_figures(one: Record, other: Record) -> bool:
    """Tell whether two records show the same short figures."""
    return (one.shares, one.ratio) == (other.shares, other.ratio)


def is_discarded(held: Mapping[date, QuarantinedFigure], record: Record) -> bool:
    """Tell whether the operator has discarded this very figure.

    A day that lay in the future is judged anew once it has come, whatever was said of it before.
    """
    found = held.get(record.day)
    return (
        found is not None
        and found.ruling is Decision.DISCARDED
        and found.reason != Reason.FUTURE_DAY
        and same_figures(found.record, record)
    )


def is_open(held: QuarantinedFigure) -> bool:
    """Tell whether a figure still waits to be published, by a ruling or by what comes."""
    return held.ruling is not Decision.DISCARDED


def is_released(held: Mapping[date, QuarantinedFigure], record: Record) -> bool:
    """Tell whether the operator has released this very figure."""
    found = held.get(record.day)
    return (
        found is not None
        and found.ruling is Decision.RELEASED
        and same_figures(found.record, record)
    )


def is_news(held: Mapping[date, QuarantinedFigure], now: QuarantinedFigure) -> bool:
    """Tell whether a figure in doubt is not held yet, or for a reason that has passed."""
    found = held.get(now.day)
    return (
        found is None
        or not same_figures(found.record, now.record)
        or (found.reason == Reason.FUTURE_DAY and now.reason != Reason.FUTURE_DAY)
    )


def is_taken_back(
    held: QuarantinedFigure, known: Vintage | None, listed: Mapping[date, Record]
) -> bool:
    """Tell whether the vendor shows the known figure of a day again, not the doubtful one."""
    now = listed.get(held.day)
    return (
        held.ruling is not Decision.DISCARDED
        and known is not None
        and now is not None
        and same_figures(known.record, now)
    )


def ahead(
    listed: Mapping[date, Record], newest: Record | None, observed_at: datetime
) -> Iterator[QuarantinedFigure]:
    """Yield days that lie in the future, as they are to be held."""
    for day in sorted(listed):
        yield QuarantinedFigure(listed[day], newest, Reason.FUTURE_DAY, observed_at)
