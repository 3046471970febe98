"""What is held, what settles it, and what a restated history says: for any answers of a gateway."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poller.detect.compare import Comparison, Known, compare
from poller.detect.held import Decision, QuarantinedFigure, Reason
from poller.detect.impossible import explained, impossible
from poller.detect.paging import Reading, progress
from poller.detect.plausible import NO_MOVES, MarketMoves, implausible
from poller.detect.restate import restatement
from poller.detect.screening import same_figures
from poller.errors import Unreadable
from poller.events import StreamEvent, decode, encode
from poller.markets import Market, Record, Shares, all_markets
from poller.markets.hk import HONG_KONG, HkRecord
from poller.markets.us import UNITED_STATES, UsRecord
from poller.model import Code, Event, EventType, Page, Vintage, market_of
from poller.schedule.calendar import expected_after, missing_days, release_of, reporting_days

CODE = Code("US.AAPL")
FIRST = date(2026, 1, 2)
SEEN = datetime(2026, 6, 1, 18, tzinfo=UTC)
TODAY = 21
"""The last week that does not lie in the future when seen."""

REPORTED, REVISED, BACKFILLED, RESTATED = (
    EventType.REPORTED, EventType.REVISED, EventType.BACKFILLED, EventType.RESTATED,
)  # fmt: skip


def day(week: int) -> date:
    """Return the day of a week, counted from the first one."""
    return FIRST + timedelta(days=7 * week)


def row(week: int, shares: int | None, ratio: float | None = 0.5) -> UsRecord:
    """Return the row of a week."""
    return UsRecord(None, str(day(week)), shares, ratio, 10, 2.0, 10.0, 9.0)


def rows(figures: Mapping[int, int | None]) -> list[UsRecord]:
    """Return a row for each week and its shares."""
    return [row(week, shares) for week, shares in figures.items()]


@dataclass
class Symbol:
    """One symbol's store and stream, kept as the poller keeps them."""

    code: Code = CODE
    known: Known = field(default_factory=Known)
    entries: list[Event] = field(default_factory=list)
    moves: MarketMoves = NO_MOVES

    def polled(self, answer: Iterable[Record], *, at: datetime = SEEN) -> Comparison:
        """Compare an answer and commit what comes of it."""
        known = self.known
        found = compare(self.code, answer, known, observed_at=at, history=50, moves=self.moves)
        fresh = [event.vintage for event in found.events] + list(found.unpublished)
        stored = (
            QuarantinedFigure.from_json(market_of(self.code), each.to_json()) for each in found.held
        )
        held = {**known.held, **{each.day: each for each in stored}}
        self.known = Known(
            found.watermark,
            {**known.vintages, **{vintage.day: vintage for vintage in fresh}},
            {day: each for day, each in held.items() if day not in found.settled},
        )
        self.entries += found.events
        return found

    def shows(self, figures: Mapping[int, int | None]) -> list[tuple[EventType, date]]:
        """Poll an answer of weeks and shares; returns what is published."""
        return [(event.type, event.vintage.day) for event in self.polled(rows(figures)).events]

    def ruled(self, decision: Decision) -> None:
        """Let the operator rule on everything that is held."""
        held = {day: replace(each, decision=decision) for day, each in self.known.held.items()}
        self.known = replace(self.known, held=held)

    def held(self) -> dict[date, str]:
        """Return what is held, and why."""
        return {day: each.reason for day, each in self.known.held.items()}


def after(figures: Mapping[int, int | None]) -> Symbol:
    """Return a symbol of which these weeks and shares are known."""
    symbol = Symbol()
    symbol.shows(figures)
    return symbol


LEVELS = [None, 0, 3, 1_000, 250_000, 1_000_000, 1_200_000, 2_000_000, 10**9, 3 * 10**9]
answers = st.dictionaries(st.integers(0, TODAY + 2), st.sampled_from(LEVELS), max_size=9)
decisions = st.sampled_from([None, Decision.HELD, Decision.RELEASED, Decision.DISCARDED])
lives = st.lists(st.tuples(answers, decisions), max_size=7)


def lived(life: Sequence[tuple[Mapping[int, int | None], Decision | None]]) -> Symbol:
    """Return a symbol after these answers, and what the operator ruled after each."""
    symbol = Symbol()
    for answer, decision in life:
        symbol.shows(answer)
        if decision is not None:
            symbol.ruled(decision)
    return symbol


@given(lives, answers)
def test_an_answer_that_comes_twice_says_nothing_new(
    life: list[tuple[dict[int, int | None], Decision | None]], answer: dict[int, int | None]
) -> None:
    """Replaying an answer publishes nothing, holds nothing and settles nothing."""
    symbol = lived(life)
    symbol.shows(answer)
    known = symbol.known
    again = symbol.polled(rows(answer))
    assert (again.events, again.unpublished, again.held, again.settled) == ((), (), (), ())
    assert symbol.known == known


@given(lives)
def test_nothing_held_is_ever_in_history(
    life: list[tuple[dict[int, int | None], Decision | None]],
) -> None:
    """A figure is held or known, never both; and the watermark, which never goes back, is known."""
    symbol = Symbol()
    for answer, decision in life:
        before = symbol.known.newest
        symbol.shows(answer)
        known = symbol.known
        for when, held in known.held.items():
            vintage = known.vintages.get(when)
            assert vintage is None or not same_figures(vintage.record, held.record)
        assert known.newest == max(known.vintages, default=None)
        assert before is None or (known.newest is not None and known.newest >= before)
        if decision is not None:
            symbol.ruled(decision)


def replayed(symbol: Symbol) -> dict[date, Shares | None]:
    """Return what a reader of the stream knows: each day's shares.

    A restatement without a factor has it read those days of the history anew.
    """
    shares: dict[date, Shares | None] = {}
    anew: set[date] = set()
    for event in symbol.entries:
        if (fact := event.restated) is not None:
            for when, known in shares.items():
                if not fact.days[0] <= when <= fact.days[-1]:
                    continue
                if fact.factor is None:
                    anew.add(when)
                elif known is not None:
                    shares[when] = round(known * fact.factor)
        shares[event.vintage.day] = event.vintage.record.shares
        anew.discard(event.vintage.day)
    return shares | {when: symbol.known.vintages[when].record.shares for when in anew}


@given(lives)
def test_the_entries_reproduce_history(
    life: list[tuple[dict[int, int | None], Decision | None]],
) -> None:
    """Who applies every entry, and a restatement's factor, has the history; no id comes twice."""
    symbol = lived(life)
    told = replayed(symbol)
    history = {when: vintage.record.shares for when, vintage in symbol.known.vintages.items()}
    assert told.keys() == history.keys()
    for when, shares in history.items():
        assert (told[when], shares) == (None, None) or abs((told[when] or 0) - (shares or 0)) <= 1
    ids = [event.id for event in symbol.entries]
    assert len(ids) == len(set(ids))


@given(
    st.lists(st.integers(0, 10**7), max_size=12),
    st.sampled_from([2, 4, 20, 1 / 2, 1 / 10, 3 / 2]),
    st.integers(5, 9),
    st.integers(0, 2),
)
def test_a_split_is_one_event_however_it_is_paged(
    shares: list[int], factor: float, size: int, fresh: int
) -> None:
    """Where every day is rescaled, the pages are read to the oldest known day; one event says it.

    New days of the same answer follow it, and everything is as if it had come on one page.
    """
    shares = [*shares, 10**6, 10**6 + 7, 10**6 + 1]  # enough to see it on the first page
    symbol = after(dict(enumerate(shares)))
    now = [round(figure * factor) for figure in shares] + [10**6] * fresh
    truth = [row(week, figure) for week, figure in enumerate(now)][::-1]
    pages: list[Page] = []
    while not pages or progress(CODE, pages, symbol.known, history=50) is Reading.MORE:
        start = len(pages) * size
        key = str(start + size) if start + size < len(truth) else None
        pages.append(Page(tuple(truth[start : start + size]), key))
    listed = [record for page in pages for record in page.records]
    whole = compare(CODE, truth, symbol.known, observed_at=SEEN, history=50)
    found = symbol.polled(listed)
    assert found == whole
    assert [event.type for event in whole.events] == [RESTATED] + [REPORTED] * fresh
    fact = whole.events[0].restated
    assert fact is not None
    assert fact.factor == pytest.approx(factor, rel=1e-5)


@pytest.mark.parametrize(
    ("known", "now", "factor"),
    [
        ([100, 200, 300], [400, 800, 1200], 4),
        ([1001, 2003, 3005], [100, 200, 301], 0.1),
        ([1001, 2003, 3009], [100, 200, 300], 0.1),
        ([1000, 2000, 3000, 0], [1500, 3000, 4500, 0], 1.5),
        ([1000, 2000, 3000, 3], [100, 200, 300, 0], 0.1),
        ([1000, 2000, 3000, None], [2000, 4000, 6000, 7], 2),
        ([1000, 2000], [2000, 4000], None),
        ([1000, 2000, 3000], [2000, 4000, 6010], None),
        ([1000, 2000, 3000, 4000], [2000, 4000, 6000, 4000], 2),
        ([1000, 2000, 3000, 4000], [1000, 4000, 6000, 8000], None),
        ([1000, 2000, 3000, 0], [2000, 4000, 6000, 5], None),
        ([1000, 2000, 3000], [1001, 2000, 3000], None),
        ([1000, 2000, 3000, 4000], [2000, None, 6000, 8000], None),
        ([1, 2, 3], [0, 0, 0], None),
        ([1000, 3, 2], [100, 0, 0], None),
    ],
    ids=[
        "split", "consolidation, rounded", "consolidation, cut off", "0 stays 0", "becomes 0",
        "a figure more", "two days", "one does not fit", "the newest stays",
        "the oldest stays", "0 does not", "one moves",
        "one is missing between", "all vanish", "most vanish",
    ],
)  # fmt: skip
def test_what_is_a_restatement(
    known: list[int | None], now: list[int | None], factor: float | None
) -> None:
    """Three days at least, all known ones between them, one factor, whole shares."""
    vintages = {day(n): Vintage(row(n, shares), 0, SEEN) for n, shares in enumerate(known)}
    found = restatement(vintages, {day(n): row(n, shares) for n, shares in enumerate(now)})
    assert (found and found.factor) == factor


def test_a_ratio_that_moves_is_no_split() -> None:
    """Shares and ratios rescaled together are another history: a split leaves the ratio alone."""
    symbol = after({n: 1_000 * n for n in range(1, 5)})
    found = symbol.polled([row(n, 2_000 * n, 1.0) for n in range(1, 5)])
    assert found.events == ()
    assert symbol.held() == {day(4): Reason.WHOLE_HISTORY}


def test_a_restatement_says_what_moved() -> None:
    """Its id is the newest restated day's next revision; it has factor, days and change."""
    symbol = after({1: 100, 2: 200, 3: 300, 4: 0})
    (event, new) = symbol.polled(rows({1: 400, 2: 800, 3: 1200, 4: 0, 5: 1600})).events
    assert (event.id, new.id) == (f"US.AAPL:{day(3)}:1", f"US.AAPL:{day(5)}:0")
    assert event.previous is not None
    assert event.change is not None
    assert (event.previous.shares, event.change.shares, event.change.percent) == (300, 900, 300.0)
    assert event.restated is not None
    assert event.restated.columns() == {
        "factor": 4.0, "days": 3, "from": str(day(1)), "to": str(day(3)),
        "column": "shares_short", "cause": "rescaled",
    }  # fmt: skip
    assert (new.type, new.restated) == (REPORTED, None)
    assert new.change is not None
    assert (new.change.year_high, new.change.history_days) == (True, 5)
    assert symbol.known.vintages[day(1)].revision == 1


def test_a_missing_day_is_told_after_the_restatement() -> None:
    """An older day that was missing comes after it, and against the rescaled day before it."""
    symbol = after({1: 1000, 3: 3000, 4: 4000})
    found = symbol.polled(rows({1: 4000, 2: 8000, 3: 12_000, 4: 16_000}))
    assert [event.type for event in found.events] == [RESTATED, BACKFILLED]
    change = found.events[1].change
    assert change is not None
    assert (change.shares, change.history_days) == (4000, 2)


M = 1_000_000


def test_days_are_judged_against_the_restated_history() -> None:
    """A figure that the old one spoke against is no slip beside the rescaled one."""
    symbol = after({1: 2 * M, 3: 3 * M, 4: 5 * M})
    split = {1: 20 * M, 3: 30 * M, 4: 50 * M}
    assert symbol.shows(split | {2: 1800 * M}) == [(RESTATED, day(4)), (BACKFILLED, day(2))]
    assert symbol.shows(split | {5: 4600 * M}) == [(REPORTED, day(5))]


def test_a_missing_day_is_no_better_than_the_restated_ones() -> None:
    """A figure that went with the old history is a slip beside the rescaled one."""
    symbol = after({1: 2 * M, 3: 3 * M, 4: 5 * M})
    assert symbol.shows({1: 20 * M, 2: 20_000, 3: 30 * M, 4: 50 * M}) == [(RESTATED, day(4))]
    assert symbol.held() == {day(2): Reason.UNIT_SLIP}


def test_what_passes_speaks_for_what_was_held() -> None:
    """Once a level is confirmed, whatever fits it passes in the same answer, not in the next."""
    symbol = after({1: M})
    figures = {1: M, 2: 900 * M, 3: 9_500 * M, 4: 920 * M}
    assert [when for _, when in symbol.shows(figures)] == [day(2), day(3), day(4)]
    assert symbol.shows(figures) == []


@pytest.mark.parametrize(
    ("market", "before", "now", "reason"),
    [
        (UNITED_STATES, M, 0, Reason.ZERO),
        (UNITED_STATES, M - 1, 0, None),
        (HONG_KONG, 50 * M, 0, None),
        (UNITED_STATES, 0, M, None),
        (HONG_KONG, 1_000, 900_000, Reason.UNIT_SLIP),
        (HONG_KONG, 1_000, 899_999, None),
        (HONG_KONG, 999, 900 * M, None),
        (UNITED_STATES, 900 * M, M, Reason.UNIT_SLIP),
        (UNITED_STATES, None, M, None),
        (UNITED_STATES, M, None, None),
    ],
)
def test_what_cannot_be_true(
    market: Market, before: int | None, now: int | None, reason: Reason | None
) -> None:
    """Only nothing after millions in the US, and a thousandfold move of what is not tiny."""
    assert implausible(market, row(1, before), row(2, now)) is reason


def test_flags() -> None:
    """A bound is flagged, whatever its meaning; an ordinary figure carries no flag at all."""
    cover = [replace(row(1, 7), days_to_cover=days).flags for days in (999.99, 1.0, 2.0, None)]
    assert cover == [("days_to_cover_cap",), ("days_to_cover_floor",), (), ()]
    shares = [HkRecord(None, "2026-01-02", n, 0.1, 1.0, 1.0).flags for n in (0, 1, None)]
    assert shares == [("below_threshold",), (), ()]


SLIP = 10**9


def test_a_held_day_waits_and_the_next_one_passes_it() -> None:
    """A slip moves nothing; a later plausible day does; released, the slip comes as backfilled."""
    symbol = after({1: M, 2: M})
    assert symbol.shows({1: M, 2: M, 3: SLIP}) == []
    assert symbol.held() == {day(3): Reason.UNIT_SLIP}
    assert symbol.known.watermark == day(2)
    assert symbol.shows({2: M, 3: SLIP, 4: M + 5}) == [(REPORTED, day(4))]
    assert symbol.held() == {day(3): Reason.UNIT_SLIP}
    symbol.ruled(Decision.RELEASED)
    assert symbol.shows({4: M + 5}) == [(BACKFILLED, day(3))]  # the answer lists it no more
    assert symbol.held() == {}


@pytest.mark.parametrize(("before", "held", "later"), [(M, SLIP, 5 * SLIP), (5 * M, 0, 0)])
def test_a_later_day_on_the_same_level_confirms(before: int, held: int, later: int) -> None:
    """Two days that speak for each other are both published, oldest first."""
    symbol = after({1: before})
    assert symbol.shows({1: before, 2: held}) == []
    assert symbol.shows({1: before, 2: held, 3: later}) == [(REPORTED, day(2)), (REPORTED, day(3))]
    assert symbol.held() == {}


def test_a_good_day_between_confirms_nothing() -> None:
    """A second slip after a sane day is one more slip."""
    symbol = after({1: M})
    symbol.shows({1: M, 2: SLIP, 3: M, 4: SLIP})
    assert symbol.held() == {day(2): Reason.UNIT_SLIP, day(4): Reason.UNIT_SLIP}


def test_the_vendor_corrects() -> None:
    """A plausible figure for a held day is published as usual; a known one again settles it."""
    symbol = after({1: M})
    symbol.shows({1: M, 2: SLIP})
    assert symbol.shows({1: M, 2: M}) == [(REPORTED, day(2))]
    symbol.shows({1: M, 2: SLIP})
    assert symbol.held() == {day(2): Reason.UNIT_SLIP}  # held as a revision now
    assert symbol.shows({1: M, 2: M}) == []
    assert symbol.held() == {}


def test_another_doubtful_figure_is_held_anew() -> None:
    """What is held of a day is what the vendor shows now, even after a decision on another."""
    symbol = after({1: M})
    symbol.shows({1: M, 2: SLIP})
    symbol.ruled(Decision.RELEASED)
    found = symbol.polled(rows({1: M, 2: 2 * SLIP}))
    assert [each.decision for each in found.held] == [Decision.HELD]
    assert (found.events, len(found.waiting(symbol.known))) == ((), 1)


def test_discarded_is_forgotten_until_it_changes() -> None:
    """The same figures say nothing any more; others are judged as usual."""
    symbol = after({1: M})
    symbol.shows({1: M, 2: SLIP})
    symbol.ruled(Decision.DISCARDED)
    found = symbol.polled(rows({1: M, 2: SLIP, 3: M}))
    assert ([event.vintage.day for event in found.events], found.held) == ([day(3)], ())
    assert found.waiting(symbol.known) == ()
    assert symbol.shows({2: M + 1, 3: M}) == [(BACKFILLED, day(2))]


def test_a_held_revision_keeps_the_known_figure() -> None:
    """History stays as it was until the revision is released; its number is the next one."""
    symbol = after({1: M, 2: M})
    assert symbol.shows({1: M, 2: SLIP}) == []
    symbol.ruled(Decision.RELEASED)
    (event,) = symbol.polled(rows({1: M, 2: SLIP})).events
    assert (event.type, event.vintage.revision) == (REVISED, 1)


def test_a_future_day_is_judged_when_it_has_come() -> None:
    """It is held at first sight, too, whatever the operator says of it; then it is a day."""
    symbol = Symbol()
    symbol.shows({1: M, TODAY + 1: M, TODAY + 2: SLIP})
    expected = {day(TODAY + 1): Reason.FUTURE_DAY, day(TODAY + 2): Reason.FUTURE_DAY}
    assert (symbol.held(), symbol.known.watermark) == (expected, day(1))
    symbol.ruled(Decision.RELEASED)
    assert symbol.shows({1: M, TODAY + 1: M, TODAY + 2: SLIP}) == []
    symbol.ruled(Decision.DISCARDED)
    found = symbol.polled(rows({1: M, TODAY + 1: M, TODAY + 2: SLIP}), at=SEEN + timedelta(days=15))
    assert [event.vintage.day for event in found.events] == [day(TODAY + 1)]
    assert symbol.held() == {day(TODAY + 2): Reason.UNIT_SLIP}


def test_a_symbol_that_began_in_the_future_begins() -> None:
    """With nothing but a held day of the future, the day that has come is the first sight."""
    symbol = Symbol()
    assert symbol.shows({TODAY + 1: M}) == []
    found = symbol.polled(rows({TODAY + 1: M}), at=SEEN + timedelta(days=8))
    assert [event.type for event in found.events] == [BACKFILLED]
    assert symbol.held() == {}


def test_a_whole_history_in_other_units_is_one_hold() -> None:
    """A factor no split has is held as one figure; released, it is one restatement."""
    figures = {n: 10_000 + n for n in range(1, 6)}
    symbol = after(figures)
    slipped = {n: 1000 * shares for n, shares in figures.items()}
    assert symbol.shows(slipped) == []
    assert symbol.held() == {day(5): Reason.UNIT_SLIP}
    symbol.ruled(Decision.RELEASED)
    assert symbol.shows(slipped) == [(RESTATED, day(5))]
    assert symbol.known.vintages[day(1)].record.shares == slipped[1]


@pytest.mark.parametrize(
    ("factor", "is_held"), [(899, False), (900, True), (1 / 899, False), (1 / 900, True)]
)
def test_how_far_a_history_may_be_rescaled(factor: float, *, is_held: bool) -> None:
    """Splits and consolidations are published up to the factor of a slip of the unit."""
    figures = {n: 899 * 900 * (100 + n) for n in range(1, 6)}
    symbol = after(figures)
    published = symbol.shows({n: round(shares * factor) for n, shares in figures.items()})
    assert published == ([] if is_held else [(RESTATED, day(5))])
    assert symbol.held() == ({day(5): Reason.UNIT_SLIP} if is_held else {})


def test_a_backfill_leaves_held_days_alone() -> None:
    """Older days are added; a held one is not smuggled into history."""
    symbol = after({2: M})
    symbol.shows({2: M, 3: SLIP, 4: M})
    known = symbol.known
    answer = rows({1: M, 2: M, 3: SLIP, 4: M})
    found = compare(CODE, answer, known, observed_at=SEEN, history=0, since=day(0))
    assert [event.vintage.day for event in found.events] == [day(1)]


def test_a_held_figure_survives_its_text() -> None:
    """What is written of a held figure is read back the same; anything else is refused."""
    held = QuarantinedFigure(row(2, SLIP), row(1, M), Reason.UNIT_SLIP, SEEN, Decision.DISCARDED)
    assert QuarantinedFigure.from_json(UNITED_STATES, held.to_json()) == held
    for text in ("rubbish", "[]", "{}", held.to_json().replace("discarded", "mood")):
        with pytest.raises(ValueError, match=r"."):
            QuarantinedFigure.from_json(UNITED_STATES, text)


HK = Code("HK.00700")
FITTING = HkRecord(1777478400, "2026-04-30", 51_480_638, 0.56, 467.8, 479.2)
BEFORE = HkRecord(1776960000, "2026-04-24", 50_000_000, 0.55, 470.0, 470.0)
AFTER = HkRecord(1778169600, "2026-05-08", 52_000_000, 0.57, 468.0, 467.8)
FITTING_US = UsRecord(1777521600, "2026-04-30", 7_000, 0.5, 3_000, 2.3, 10.0, 9.0)
INF = float("inf")

UNFIT: list[tuple[Record, Reason]] = [
    (replace(FITTING, aggregated_short=-1), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING, aggregated_short=2**63), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING, aggregated_short=10**400), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING, aggregated_short_ratio=-0.5), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING, aggregated_short_ratio=100.01), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING, aggregated_short_ratio=1e308), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING, aggregated_short_ratio=float("nan")), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING, close_price=0.0), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING, close_price=1e-300), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING, close_price=-5.0), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING, last_close_price=-INF), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING, timestamp=1777478400 - 86_400), Reason.OTHER_TIMESTAMP),
    (replace(FITTING, timestamp=0), Reason.OTHER_TIMESTAMP),
    (replace(FITTING, timestamp=2**63), Reason.OTHER_TIMESTAMP),
    (HkRecord(-28_800, "1970-01-01", 0, 0.0, None, None), Reason.IMPOSSIBLE_DAY),
    (HkRecord(None, "0001-01-01", 0, 0.0, None, None), Reason.IMPOSSIBLE_DAY),
    (HkRecord(None, "2012-06-17", 7, 0.1, None, None), Reason.IMPOSSIBLE_DAY),
    (UsRecord(None, "1970-01-01", 0, 0.0, 0, 0.0, None, None), Reason.IMPOSSIBLE_DAY),
    (replace(FITTING_US, shares_short=-7), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING_US, short_percent=10_000.1), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING_US, avg_daily_share_volume=-1), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING_US, days_to_cover=-0.1), Reason.IMPOSSIBLE_FIGURE),
    (replace(FITTING_US, days_to_cover=INF), Reason.IMPOSSIBLE_FIGURE),
]


@pytest.mark.parametrize(("record", "reason"), UNFIT)
def test_what_no_report_can_show(record: Record, reason: Reason) -> None:
    """It is held at first sight, among days that are published, in a form JSON can hold."""
    code = HK if isinstance(record, HkRecord) else CODE
    good: Record = (
        BEFORE if code == HK else replace(FITTING_US, timestamp=None, timestamp_str="2026-04-15")
    )
    found = compare(code, [record, good], Known(), observed_at=SEEN, history=50)
    assert [event.vintage.record for event in found.events] == [good]
    assert [(each.day, each.reason) for each in found.held] == [(record.day, reason)]
    assert QuarantinedFigure.from_json(market_of(code), found.held[0].to_json()) == found.held[0]
    assert str(reason) in explained(market_of(code), found.held[0])


@pytest.mark.parametrize(
    "record",
    [
        FITTING,
        FITTING_US,
        HkRecord(None, "2012-06-22", None, None, None, None),
        replace(FITTING, aggregated_short=0, aggregated_short_ratio=0.0),
        replace(FITTING, aggregated_short_ratio=100.0),
        replace(FITTING, timestamp=1777478400 + 3_600),  # an hour of summer time is no other day
        replace(FITTING, timestamp=1777478400 - 3_600),
        replace(FITTING_US, short_percent=140.0, days_to_cover=999.99),
        UsRecord(None, "1973-01-15", 0, 0.0, 0, 0.0, 0.01, 0.01),
    ],
)
def test_what_is_rare_is_no_fault(record: Record) -> None:
    """Absent figures, bounds themselves and what happened once in a market are not held."""
    assert impossible(market_of(HK if isinstance(record, HkRecord) else CODE), record) is None


def test_an_impossible_figure_holds_back_nothing_else() -> None:
    """Of a known symbol, too, the days around it are published; corrected, it follows."""
    symbol = Symbol(HK)
    symbol.polled([BEFORE])
    bad = replace(FITTING, close_price=-5.0)
    found = symbol.polled([AFTER, bad, BEFORE])
    assert [event.id for event in found.events] == [f"{HK}:2026-05-08:0"]
    assert symbol.held() == {FITTING.day: Reason.IMPOSSIBLE_FIGURE}
    assert symbol.polled([AFTER, bad, BEFORE]).held == ()  # once
    found = symbol.polled([AFTER, FITTING, BEFORE])
    assert [(event.type, event.vintage.record) for event in found.events] == [(BACKFILLED, FITTING)]
    assert symbol.held() == {}


def test_without_a_watermark_the_newest_known_day_is_one() -> None:
    """Somebody deleted it: nothing that is known is published as if it were new."""
    figures = {n: 10_000 + n for n in range(1, 4)}
    symbol = after(figures)
    symbol.known = replace(symbol.known, watermark=None)
    assert symbol.shows(figures) == []
    symbol.known = replace(symbol.known, watermark=None)
    assert symbol.shows({**figures, 4: 10_004}) == [(REPORTED, day(4))]


def test_an_impossible_revision_is_taken_back() -> None:
    """The known figure stays, and settles the doubt when it is shown again."""
    symbol = Symbol(HK)
    symbol.polled([FITTING, BEFORE])
    assert symbol.polled([replace(FITTING, aggregated_short_ratio=-0.56), BEFORE]).events == ()
    assert symbol.held() == {FITTING.day: Reason.IMPOSSIBLE_FIGURE}
    symbol.polled([FITTING, BEFORE])
    assert symbol.held() == {}


def test_the_operator_has_the_last_word() -> None:
    """A bound may be wrong one day: released, such a figure is published; discarded, never."""
    for decision, told in ((Decision.RELEASED, [REPORTED]), (Decision.DISCARDED, [])):
        symbol = Symbol(HK)
        symbol.polled([BEFORE])
        odd = replace(FITTING, aggregated_short_ratio=101.0)
        symbol.polled([odd, BEFORE])
        symbol.ruled(decision)
        assert [event.type for event in symbol.polled([odd, BEFORE]).events] == told


@pytest.mark.parametrize("price", [1e300, -1e19, 10**30, math.inf, math.nan])
def test_whatever_is_released_can_be_read_again(price: float) -> None:
    """A figure beyond the codec's bounds is left out of what is published, and its row goes on."""
    symbol = Symbol(HK)
    symbol.polled([BEFORE])
    odd = replace(FITTING, close_price=price, aggregated_short_ratio=101.0)
    symbol.polled([odd, BEFORE])
    symbol.ruled(Decision.RELEASED)
    (event,) = symbol.polled([odd, BEFORE]).events
    assert isinstance(decode("1-0", encode(event)), StreamEvent)
    vintage = Vintage.from_json(HONG_KONG, event.vintage.to_json())
    assert (vintage.record.close_price, vintage.record.ratio) == (None, 101.0)


@pytest.mark.parametrize("ratio", ["NaN", "Infinity", "1e999"])
def test_a_held_figure_that_could_not_be_written_again_is_not_read(ratio: str) -> None:
    """What another client left is named as unreadable, where every command would fall over it."""
    record = f'{{"timestamp_str":"2026-01-02","aggregated_short_ratio":{ratio}}}'
    text = f'{{"record":{record},"reason":"x","observed_at":"2026-01-03T00:00:00Z"}}'
    with pytest.raises(Unreadable, match="aggregated_short_ratio"):
        QuarantinedFigure.from_json(HONG_KONG, text)


def test_of_two_rows_of_a_day_the_first_counts() -> None:
    """Both may be true, or neither can: then the first is told, or held."""
    for shares in (1_000, -1):
        first, second = (replace(FITTING, aggregated_short=shares + n * shares) for n in (0, 1))
        found = compare(HK, [first, second], Known(), observed_at=SEEN, history=50)
        told = [event.vintage.record for event in found.events]
        assert [*told, *(held.record for held in found.held)] == [first]


def test_of_two_rows_of_a_day_the_possible_one_counts() -> None:
    """A row that no report can show does not hide the true one, whichever comes first."""
    bad = replace(FITTING, aggregated_short=-1)
    for answer in ([bad, FITTING], [FITTING, bad]):
        found = compare(HK, answer, Known(), observed_at=SEEN, history=50)
        assert ([event.vintage.record for event in found.events], found.held) == ([FITTING], ())


def test_an_impossible_day_does_not_end_the_paging() -> None:
    """A page with a row of 1970 is followed by the next, as it would be without."""
    old = HkRecord(None, "1970-01-01", 0, 0.0, None, None)
    symbol = Symbol(HK)
    symbol.polled([BEFORE])
    first = Page((AFTER, old), "1")
    assert progress(HK, [first], symbol.known, history=50) is Reading.MORE
    assert progress(HK, [first], symbol.known, history=50, since=date(2013, 1, 1)) is Reading.MORE
    second = Page((FITTING, BEFORE), "2")
    assert progress(HK, [first, second], symbol.known, history=50) is Reading.ENOUGH
    assert progress(HK, [Page((old,), "1")], Known(), history=1) is Reading.MORE


def test_below_what_is_followed_nothing_is_held() -> None:
    """An impossible row that nobody would have published is no work for the operator."""
    symbol = Symbol(HK)
    symbol.polled([FITTING])
    assert symbol.polled([FITTING, replace(BEFORE, close_price=0.0)]).held == ()
    few = compare(HK, [AFTER, FITTING, replace(BEFORE, close_price=0.0)], Known(),
                  observed_at=SEEN, history=2)  # fmt: skip
    assert few.held == ()


numbers = st.one_of(
    st.none(), st.integers(-5, 5), st.sampled_from([-(2**63), 10**13, 10**13 + 1, 2**64, 10**40])
)
reals = st.one_of(st.none(), st.floats(), st.floats(0, 200))
hk_rows = st.builds(
    HkRecord,
    st.one_of(st.none(), st.integers(-(2**63), 2**64), st.just(1777478400)),
    st.dates(max_value=date(2026, 7, 1)).map(str) | st.sampled_from(["2026-04-30", "2026-05-08"]),
    numbers, reals, reals, reals,
)  # fmt: skip
us_rows = st.builds(
    UsRecord, st.none(), st.sampled_from(["1969-12-31", "2026-04-30", "2026-05-15", "2026-05-29"]),
    numbers, reals, numbers, reals, reals, reals,
)  # fmt: skip


@given(
    st.one_of(
        st.tuples(st.just(HK), st.lists(st.lists(hk_rows, max_size=6), max_size=3)),
        st.tuples(st.just(CODE), st.lists(st.lists(us_rows, max_size=6), max_size=3)),
    )
)
def test_nothing_impossible_is_ever_published(lived: tuple[Code, list[list[Record]]]) -> None:
    """Whatever is answered: an event's figures are possible, and what is held can be stored.

    What the possible rows of an answer say alone is said beside the others, too.
    """
    code, answers = lived
    market, symbol = market_of(code), Symbol(code)
    for answer in answers:
        possible = [row for row in answer if impossible(market, row) is None]
        alone = compare(code, possible, symbol.known, observed_at=SEEN, history=50)
        found = symbol.polled(answer)
        for event in found.events:
            assert impossible(market, event.vintage.record) is None
            assert encode(event)
        for each in found.held:
            assert QuarantinedFigure.from_json(market, each.to_json()) == each
        assert set(alone.events) <= set(found.events)
        assert symbol.polled(answer).held == ()


def test_an_absurd_day_makes_no_gaps() -> None:
    """One that an older version took into history is not where the expected days begin."""
    now = datetime(2026, 6, 1, tzinfo=UTC)
    for absurd in (date.min, date(1970, 1, 1)):
        assert missing_days(HONG_KONG, [absurd], now) == ()
        assert missing_days(HONG_KONG, [absurd, date(2026, 5, 8)], now) == missing_days(
            HONG_KONG, [date(2026, 5, 8)], now
        )


@given(st.dates(), st.sampled_from(list(all_markets())))
@example(date.min, HONG_KONG)
@example(date.max, HONG_KONG)
@example(date.min, UNITED_STATES)
@example(date.max, UNITED_STATES)
def test_the_calendar_answers_for_any_day(when: date, market: Market) -> None:
    """Even for the first and the last day there is; its instants exist in every zone."""
    for release in (release_of(market, when), expected_after(market, when)):
        assert release.opens.astimezone(UTC)
    assert next(reporting_days(market, when))
