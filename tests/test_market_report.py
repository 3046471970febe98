"""One report of a market: who shows it, who is missing, who moved most. Pure."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.detect.change import events_of
from poller.markets import Record
from poller.markets.hk import HkRecord
from poller.markets.us import UsRecord
from poller.model import Code, EventType, Vintage
from poller.schedule.notice import MOST_BIGGEST, biggest_moves
from poller.schedule.report import (
    HISTORY_SORTS,
    SORTS,
    Standing,
    coverage,
    ranked,
    zscore_of,
)

A, B, C, D = (Code(f"HK.0000{n}") for n in range(1, 5))
DAYS = [date(2026, 4, 3) + timedelta(weeks=week) for week in range(6)]
SEEN = datetime(2026, 5, 8, tzinfo=UTC)


def hk(shares: int | None, ratio: float | None = 0.5) -> HkRecord:
    """Return a Hong Kong row."""
    return HkRecord(None, "2026-05-08", shares, ratio, 10.0, 9.0)


def us(days_to_cover: float | None) -> UsRecord:
    """Return a US row."""
    return UsRecord(None, "2026-05-08", 100, 0.5, 50, days_to_cover, 10.0, 9.0)


def standing(code: Code, record: Record, previous: Record | None = None) -> Standing:
    """Return figures that are not ranked yet."""
    return Standing(code, Vintage(record, 0, SEEN), previous)


@pytest.mark.parametrize(
    ("record", "previous", "change", "percent"),
    [
        (hk(150), hk(100), 50, 50.0),
        (hk(100), hk(100), 0, 0.0),
        (hk(150), None, None, None),
        (hk(0), hk(100), None, None),
        (hk(100), hk(0), None, None),
        (hk(None), hk(100), None, None),
        (UsRecord(None, "2026-05-08", 7), UsRecord(None, "2026-04-30", 0), 7, None),
    ],
)
def test_a_change_is_one_of_known_figures(
    record: Record, previous: Record | None, change: int | None, percent: float | None
) -> None:
    """Below the threshold nothing is known; nothing is a percentage of 0."""
    one = standing(A, record, previous)
    assert (one.change, one.percent) == (change, percent)


def test_the_largest_move_is_first_whichever_way() -> None:
    """Ties share a rank, by code; whose figure is not known comes last, without a rank."""
    found = [
        standing(D, hk(0), hk(5)),
        standing(C, hk(150), hk(100)),
        standing(B, hk(10), hk(60)),
        standing(A, hk(1_000), hk(900)),
    ]
    by_change = ranked(found, "change")
    assert [(one.rank, one.code) for one in by_change] == [(1, A), (2, B), (2, C), (None, D)]
    assert [one.code for one in ranked(found, "percent")] == [B, C, A, D]


def test_a_cap_is_no_figure() -> None:
    """999.99 days to cover say that none were computed: they do not rank. The floor of 1 does."""
    found = [standing(A, us(999.99)), standing(B, us(1.0)), standing(C, us(7.5))]
    assert [(one.rank, one.code) for one in ranked(found, "days_to_cover")] == [
        (1, C),
        (2, B),
        (None, A),
    ]


@pytest.mark.parametrize(
    ("moves", "ranks", "percentiles"),
    [
        ([7] * 10, [1] * 10, [100.0] * 10),
        ([9, 9, 5, -5, 3], [1, 1, 3, 3, 5], [100.0, 100.0, 60.0, 60.0, 20.0]),
        ([8, 4, -4, 4], [1, 2, 2, 2], [100.0, 75.0, 75.0, 75.0]),
        ([0, 0], [1, 1], [100.0, 100.0]),
    ],
)
def test_equal_moves_share_the_first_of_their_ranks(
    moves: list[int], ranks: list[int], percentiles: list[float]
) -> None:
    """Their order is that of their codes, so that it is the same each time."""
    found = [standing(Code(f"HK.{n:05}"), hk(100 + m), hk(100)) for n, m in enumerate(moves)]
    for given_order in (found, found[::-1]):
        by_change = ranked(given_order, "change")
        assert [one.code for one in by_change] == [one.code for one in found]
        assert [one.rank for one in by_change] == ranks
        assert [one.percentile for one in by_change] == percentiles


@pytest.mark.parametrize("sort", [*SORTS, *HISTORY_SORTS])
def test_nothing_is_lost_in_a_rank(sort: str) -> None:
    """Whatever figures are absent, every symbol is listed once."""
    found = [standing(A, hk(None, None)), standing(B, us(None)), standing(C, hk(1), hk(2))]
    assert {one.code for one in ranked(found, sort)} == {A, B, C}


def test_who_is_missing() -> None:
    """A watched symbol of the last three reports that lacks this one; others were not expected."""
    new = Code("HK.00009")
    known = {
        A: DAYS,
        B: DAYS[:-1],
        C: DAYS[:1],  # missed three reports and more
        D: DAYS[:2],  # no longer watched
        new: [DAYS[-1]],
    }
    found = coverage(DAYS[-1], known, [A, B, C, new, Code("HK.00010")])
    assert found.shown == {A: DAYS[-2], new: None}
    assert found.missing == {B: DAYS[-2]}
    assert found.expected == 3
    assert found.others == {C: DAYS[0], Code("HK.00010"): None}


def test_an_earlier_report_is_as_it_was() -> None:
    """Days that came later, and symbols that were first seen later, change nothing."""
    known = {A: DAYS, B: [DAYS[0], *DAYS[2:]], C: DAYS[4:]}
    found = coverage(DAYS[1], known, [A, B, C])
    assert found.shown == {A: DAYS[0]}
    assert found.missing == {B: DAYS[0]}
    assert len(found.others) == 1


def test_a_split_is_no_move() -> None:
    """Shares of Hong Kong × 4 at a quarter of the price: the position has not changed."""
    before = HkRecord(None, "2026-05-01", 1_000_000, 0.5, 40.0, 40.0)
    after = HkRecord(None, "2026-05-08", 4_000_100, 0.5, 10.0, 10.0)
    one = standing(A, after, before)
    assert (one.change, one.percent) == (100, 0.0025)


@given(st.lists(st.none() | st.integers(-9, 9), min_size=1, max_size=50))
def test_a_percentile_counts_those_that_did_not_move_more(moves: list[int | None]) -> None:
    """As in an event: the one that moved most has 100, whoever has no move has none."""
    found = [
        standing(Code(f"HK.{n:05}"), hk(None if move is None else 100 + move), hk(100))
        for n, move in enumerate(moves)
    ]
    sizes = [abs(move) for move in moves if move is not None]
    for one in ranked(found, "change"):
        if one.change is None:
            assert (one.rank, one.percentile) == (None, None)
        else:
            below = sum(size <= abs(one.change) for size in sizes)
            assert one.percentile == round(100 * below / len(sizes), 1)
    told = biggest_moves(found, lambda code: f"name of {code}")
    assert len(told) == min(MOST_BIGGEST, sum(size > 0 for size in sizes))
    assert [each.rank for each in told] == [
        1 + sum(size > abs(each.change) for size in sizes) for each in told
    ]
    assert all(each.name == f"name of {each.code}" for each in told)


@given(st.lists(st.none() | st.integers(0, 9).map(lambda n: n * 1_000), min_size=1, max_size=30))
def test_a_zscore_is_that_of_the_event(figures: list[int | None]) -> None:
    """Read from history later, it is what the event said; later days change nothing."""
    days = [date(2024, 1, 5) + timedelta(weeks=week) for week in range(len(figures) + 1)]
    records = {
        day: HkRecord(None, str(day), shares, 0.5, 12.0, 12.0)
        for day, shares in zip(days, [*figures, 7_000], strict=True)
    }
    last = days[-2]
    known = {day: Vintage(records[day], 0, SEEN) for day in days[:-2]}
    vintage = Vintage(records[last], 0, SEEN)
    (event,) = events_of(A, known, {last: (EventType.REPORTED, vintage)})
    assert zscore_of(records, last) == (None if event.change is None else event.change.zscore)
