"""The comparison's promises, for any answers of a gateway."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.detect.compare import Comparison, Known, brings_nothing, compare
from poller.detect.paging import Reading, progress
from poller.detect.plausible import MarketMoves
from poller.errors import Malformed, StoreMisfit
from poller.markets import Record
from poller.markets.hk import HkRecord
from poller.model import Code, EventType, Page, Vintage

CODE = Code("HK.00700")
FIRST = date(2026, 1, 2)
SEEN = datetime(2026, 11, 20, tzinfo=UTC)


def row(week: int, shares: int | None = 100, ratio: float | None = 0.5) -> HkRecord:
    """Return the row of a week, counted from the first one."""
    day = FIRST + timedelta(days=7 * week)
    return HkRecord(None, str(day), shares, ratio, 10.0, 9.0)


rows = st.lists(
    st.builds(row, st.integers(0, 30), st.one_of(st.none(), st.integers(0, 3)), st.just(0.5)),
    max_size=12,
)


def look(records: Sequence[Record], known: Known, history: int = 50) -> Comparison:
    """Compare at a fixed time."""
    return compare(CODE, records, known, observed_at=SEEN, history=history)


def after(known: Known, comparison: Comparison) -> Known:
    """Return what is known once a comparison is committed."""
    fresh = [event.vintage for event in comparison.events] + list(comparison.unpublished)
    held = {**known.held, **{each.day: each for each in comparison.held}}
    for day in comparison.settled:
        held.pop(day, None)
    return Known(comparison.watermark, {**known.vintages, **{v.day: v for v in fresh}}, held)


@given(rows, rows, st.integers(0, 5))
def test_replaying_an_answer_publishes_nothing(
    earlier: list[HkRecord], answer: list[HkRecord], history: int
) -> None:
    """The same answer twice is no news the second time, whatever was known before."""
    known = after(Known(), look(earlier, Known(), history))
    known = after(known, look(answer, known, history))
    again = look(answer, known, history)
    assert again.events == ()
    assert again.watermark == known.watermark


odd_rows = st.lists(
    st.builds(
        row,
        st.integers(43, 49),  # also days to come: the answers come in week 46
        st.one_of(st.none(), st.integers(-1, 3), st.just(10**9)),
        st.sampled_from([None, 0.5, 0.0, 120.0, float("inf")]),
    ),
    max_size=4,
)
moves = st.lists(
    st.tuples(
        st.sampled_from(["HK.00001", "HK.00005", CODE]),
        st.sampled_from([FIRST + timedelta(days=7 * week) for week in range(43, 50)]),
        st.booleans(),
    )
)


@settings(max_examples=400)
@given(odd_rows, odd_rows, st.integers(0, 5), moves, st.integers(0, 10**7))
def test_what_brings_nothing_brings_nothing_later(
    earlier: list[HkRecord],
    answer: list[HkRecord],
    history: int,
    later_moves: list[tuple[Code, date, bool]],
    seconds: int,
) -> None:
    """Whenever it is compared again with the same, and however the market moved meanwhile."""
    known = after(Known(), look(earlier, Known(), history))
    known = after(known, look(answer, known, history))
    if not brings_nothing(look(answer, known, history), known):
        return
    again = compare(
        CODE,
        answer,
        known,
        observed_at=SEEN + timedelta(seconds=seconds),
        history=history,
        moves=MarketMoves(tuple(later_moves)),
    )
    assert brings_nothing(again, known)


@given(rows, rows)
def test_the_watermark_never_goes_back(earlier: list[HkRecord], answer: list[HkRecord]) -> None:
    """No answer moves the watermark to an older day, and new days come oldest first."""
    known = after(Known(), look(earlier, Known()))
    found = look(answer, known)
    if known.watermark is not None:
        assert found.watermark is not None
        assert found.watermark >= known.watermark
    days = [e.vintage.day for e in found.events if e.type is EventType.REPORTED]
    assert days == sorted(days)


@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(answer: list[HkRecord], chance: object) -> None:
    """However an answer without contradictions is split and ordered, the events are the same."""
    unique = list({record.day: record for record in answer}.values())
    shuffled = sorted(unique, key=lambda _: chance.random())  # type: ignore[attr-defined]
    known = after(Known(), look(unique[:4], Known()))
    assert look(unique, known) == look(shuffled, known)


@given(st.lists(rows, max_size=6))
def test_the_events_reproduce_history(answers: list[list[HkRecord]]) -> None:
    """Applying the entries of a symbol in order gives its history; no id is used twice."""
    known, replayed, ids = Known(), dict[date, Vintage](), []
    for answer in answers:
        found = look(answer, known)
        known = after(known, found)
        replayed |= {event.vintage.day: event.vintage for event in found.events}
        ids += [event.id for event in found.events]
    assert replayed == dict(known.vintages)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("history", "events"), [(0, 0), (3, 3), (50, 10)])
def test_first_sight(history: int, events: int) -> None:
    """At first sight the newest `history` rows are backfilled; the watermark is the newest day."""
    found = look([row(n) for n in range(10)], Known(), history)
    assert [event.type for event in found.events] == [EventType.BACKFILLED] * events
    assert found.watermark == row(9).day
    assert len(found.unpublished) == (not history)


@pytest.mark.parametrize(
    ("now", "types"),
    [
        ([row(4, 100), row(5, 7)], [EventType.REPORTED]),
        ([row(4, 101)], [EventType.REVISED]),
        ([row(4, 100, 0.6)], [EventType.REVISED]),
        ([HkRecord(None, row(4).timestamp_str, 100, 0.5, 11.0, 9.9)], []),
        ([row(4, None, 0.5)], []),
        ([row(4, 100), row(3, 9)], [EventType.BACKFILLED]),
        ([row(4, 100), row(1, 9)], []),
        ([row(3, 9), row(2, 9)], []),
        ([], []),
        ([row(4, 100), row(400, 9)], []),
        ([row(4, 99), row(4, 100)], []),
    ],
    ids=[
        "new day",
        "shares revised",
        "ratio revised",
        "prices only",
        "figure gone",
        "missing between",
        "below the floor",
        "older answer",
        "empty answer",
        "in the future",
        "listed twice, one as known",
    ],
)
def test_what_is_news(now: list[HkRecord], types: list[EventType]) -> None:
    """With weeks 2 and 4 known, each answer publishes just this."""
    known = after(Known(), look([row(2, 100), row(4, 100)], Known()))
    assert [event.type for event in look(now, known).events] == types


def test_change_facts() -> None:
    """Change is relative to the day before; there is no percentage of 0."""
    known = after(Known(), look([row(1, 0), row(2, 80)], Known()))
    assert known.vintages[row(2).day].revision == 0
    change = look([row(2, 80), row(3, 100)], known).events[0].change
    assert change is not None
    assert (change.shares, change.percent, change.days, change.year_high) == (20, 25.0, 7, True)
    first = look([row(1, 0), row(2, 80)], Known()).events[1].change
    assert first is not None
    assert (first.shares, first.percent) == (80, None)


def test_a_watermark_in_the_future_is_refused() -> None:
    """A watermark that no day can exceed would silence a symbol for ever: it is reported."""
    with pytest.raises(StoreMisfit, match="in the future"):
        look([row(1)], Known(date(2099, 1, 1)))


def page(*weeks: int, key: str | None = "k") -> Page:
    """Return a page of weeks as listed."""
    return Page(tuple(row(week) for week in weeks), key)


KNOWN = after(Known(), look([row(2), row(5)], Known()))


@pytest.mark.parametrize(
    ("pages", "verdict"),
    [
        ([page(9, 8, 7)], Reading.MORE),
        ([page(9, 8, 3, 7)], Reading.MORE),
        ([page(9, 8), page(7, 6, 5, key="l")], Reading.ENOUGH),
        ([page(4, 3)], Reading.ENOUGH),
        ([page(9, 8, key=None)], Reading.CUT),
        ([page(9, 8), page(key="l")], Reading.CUT),
        ([page(key=None)], Reading.ENOUGH),
    ],
)
def test_how_far_to_read(pages: list[Page], verdict: Reading) -> None:
    """Pages are read down to the watermark; one row out of order does not end it too early."""
    assert progress(CODE, pages, KNOWN, history=50) is verdict


def test_paging_in_circles_publishes_nothing() -> None:
    """A key that comes again before the watermark is an error, not an end."""
    with pytest.raises(Malformed, match="does not end"):
        progress(CODE, [page(9, 8), page(9, 8)], KNOWN, history=50)


@given(st.sets(st.integers(0, 12)), st.sets(st.integers(0, 12), min_size=1), st.integers(0, 12))
def test_a_backfill_adds_what_is_missing_and_asked_for(
    known: set[int], listed: set[int], since: int
) -> None:
    """Every unknown day from `since` on and below the watermark; no other, and it never moves."""
    before = after(Known(), look([row(week) for week in known], Known()))
    answer, first = [row(week) for week in listed], row(since).day
    found = compare(CODE, answer, before, observed_at=SEEN, history=3, since=first)
    newest = max(known, default=max(listed) + 1)
    expected = [row(week).day for week in sorted(listed - known) if since <= week < newest]
    assert [event.vintage.day for event in found.events] == expected
    assert {event.type for event in found.events} <= {EventType.BACKFILLED}
    assert found.watermark == (row(max(known)).day if known else row(max(listed)).day)
