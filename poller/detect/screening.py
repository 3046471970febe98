"""Decides which figures are published, and which are held until something settles them. Pure.

A held figure is settled by the operator, by another figure from the vendor, or by a later day on
the same level, which confirms the move. Until then no other figure is compared with it.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from poller.detect.held import Decision, QuarantinedFigure, Reason
from poller.detect.plausible import SLIP, MarketMoves, implausible, is_extreme, same_level
from poller.detect.restate import Rescaled, in_order
from poller.markets import Record
from poller.model import Code, EventType, Vintage, market_of

_CONFIRMABLE: Final = {Reason.UNIT_SLIP, Reason.ZERO}

Candidates = Mapping[date, tuple[EventType, Vintage]]
"""The new vintages of an answer by day, each with the event type it would be published as."""


class _Trusted:
    """The records that candidates are compared with, by day."""

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
        """Return the last record with shares before a day, or None."""
        place = bisect_left(self._days, day)
        return self._records[self._days[place - 1]] if place else None


@dataclass(frozen=True, slots=True)
class Screening:
    """What candidates are screened against.

    Attributes:
        code: The symbol.
        vintages: The known vintage of each day.
        held: The figures held so far, by day.
        moves: How the market's symbols move.
        rescaled: The days that a RESTATED candidate stands for, if there is one.
    """

    code: Code
    vintages: Mapping[date, Vintage]
    held: Mapping[date, QuarantinedFigure]
    moves: MarketMoves
    rescaled: Rescaled | None

    def screen(self, found: Candidates) -> dict[date, QuarantinedFigure]:
        """Return the figures of `found` to hold.

        Repeats until nothing more passes, so that the same answer never yields a different result
        the second time.
        """
        trusted = _Trusted({day: vintage.record for day, vintage in self.vintages.items()})
        doubted: Candidates = found
        while True:
            held = self._screen_once(doubted, trusted)
            if len(held) == len(doubted):
                return held
            doubted = {day: found[day] for day in held}

    def _screen_once(self, found: Candidates, trusted: _Trusted) -> dict[date, QuarantinedFigure]:
        """Return what is implausible beside `trusted`; adds what passes to it."""
        held: dict[date, QuarantinedFigure] = {}
        order: list[date] = []  # of `held`, oldest first
        for day in in_order(found):
            kind, vintage = found[day]
            replaced = self.vintages.get(day)
            before = trusted.before(day) if replaced is None else replaced.record
            reason = self._reason(kind, vintage.record, before)
            if reason is None:
                self._accept(trusted, found[day])
                continue
            now = QuarantinedFigure(vintage.record, before, reason, vintage.observed_at)
            confirmed = [each for each in _since(now.previous, held, order) if _confirms(now, each)]
            if not confirmed:
                held[day] = now
                insort(order, day)
                continue
            for each in (*confirmed, now):
                self._accept(trusted, found[each.day])
                if held.pop(each.day, None) is not None:
                    order.remove(each.day)
        return held

    def _accept(self, trusted: _Trusted, accepted: tuple[EventType, Vintage]) -> None:
        kind, vintage = accepted
        trusted.add(vintage.record)
        if kind is EventType.RESTATED and self.rescaled is not None:
            for each in self.rescaled.vintages.values():
                trusted.add(each.record)

    def _reason(self, kind: EventType, record: Record, before: Record | None) -> Reason | None:
        stored = self.held.get(record.day)
        if stored is not None and not same_figures(stored.record, record):
            stored = None
        if stored is not None and stored.decision is Decision.RELEASED:
            return None
        if kind is EventType.RESTATED and self.rescaled is not None:
            fact = self.rescaled.fact
            slipped = fact.column == record.SHARES and not 1 / SLIP < (fact.factor or 1) < SLIP
            return Reason.UNIT_SLIP if slipped else None
        reason = None if before is None else implausible(market_of(self.code), before, record)
        if reason is not None:
            return reason
        if kind is EventType.REPORTED and self._is_wholesale(record, before):
            return Reason.WHOLESALE
        waits = stored is not None and stored.reason == Reason.WHOLESALE
        return Reason.WHOLESALE if waits and not self.moves.has_calmed_down else None

    def _is_wholesale(self, record: Record, before: Record | None) -> bool:
        if self.moves.is_anomalous(record.day):
            return True
        is_alone = before is None or not is_extreme(before, record)
        return not is_alone and self.moves.is_impossible(record.day)


def _since(
    trusted: Record | None, held: Mapping[date, QuarantinedFigure], order: list[date]
) -> Iterator[QuarantinedFigure]:
    """Yield the held figures from the last trusted one on: never many."""
    if trusted is not None:
        yield from (held[day] for day in order[bisect_left(order, trusted.day) :])


def _confirms(now: QuarantinedFigure, earlier: QuarantinedFigure) -> bool:
    """Return whether two implausible days, with no trusted one between, are on the same level."""
    return (
        {now.reason, earlier.reason} <= _CONFIRMABLE
        and now.previous is not None
        and now.previous.day <= earlier.day < now.day
        and same_level(now.record, earlier.record)
    )


def same_figures(one: Record, other: Record) -> bool:
    """Return whether two records show the same short figures."""
    return (one.shares, one.ratio) == (other.shares, other.ratio)


def is_discarded(held: Mapping[date, QuarantinedFigure], record: Record) -> bool:
    """Return whether the operator has discarded this very figure.

    A day that lay in the future is screened anew once it has come.
    """
    found = held.get(record.day)
    return (
        found is not None
        and found.decision is Decision.DISCARDED
        and found.reason != Reason.FUTURE_DAY
        and same_figures(found.record, record)
    )


def is_open(held: QuarantinedFigure) -> bool:
    """Return whether a figure may still be published: it was not discarded."""
    return held.decision is not Decision.DISCARDED


def is_released(held: Mapping[date, QuarantinedFigure], record: Record) -> bool:
    """Return whether the operator has released this very figure."""
    found = held.get(record.day)
    return (
        found is not None
        and found.decision is Decision.RELEASED
        and same_figures(found.record, record)
    )


def is_newly_held(held: Mapping[date, QuarantinedFigure], now: QuarantinedFigure) -> bool:
    """Return whether a figure is not held yet, or only for a reason that has passed."""
    found = held.get(now.day)
    return (
        found is None
        or not same_figures(found.record, now.record)
        or (found.reason == Reason.FUTURE_DAY and now.reason != Reason.FUTURE_DAY)
    )


def is_taken_back(
    held: QuarantinedFigure, known: Vintage | None, listed: Mapping[date, Record]
) -> bool:
    """Return whether the vendor shows the known figure of a held day again."""
    now = listed.get(held.day)
    return (
        held.decision is not Decision.DISCARDED
        and known is not None
        and now is not None
        and same_figures(known.record, now)
    )


def future_days(
    listed: Mapping[date, Record], newest: Record | None, observed_at: datetime
) -> Iterator[QuarantinedFigure]:
    """Yield the figures of days in the future, to be held."""
    for day in sorted(listed):
        yield QuarantinedFigure(listed[day], newest, Reason.FUTURE_DAY, observed_at)
