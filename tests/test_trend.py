"""What a trend says of a move: as plainly defined, whatever the history, and blind to splits."""

import statistics
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.detect.change import events_of
from poller.detect.trend import LEAST_MOVES
from poller.markets.hk import HkRecord
from poller.markets.us import UsRecord
from poller.model import Change, Code, EventType, Vintage

FIRST = date(2024, 1, 5)
SEEN = datetime(2026, 11, 20, tzinfo=UTC)
HK, US = Code("HK.00700"), Code("US.AAPL")

levels = st.lists(st.none() | st.integers(0, 9).map(lambda n: n * 1_000), min_size=2, max_size=40)


def day(number: int) -> date:
    """Return a trading day, counted from the first one."""
    return FIRST + timedelta(weeks=number)


def hk(number: int, shares: int | None, *, price: float = 12.0, ratio: float = 0.5) -> HkRecord:
    """Return a row of Hong Kong."""
    return HkRecord(None, str(day(number)), shares, ratio, price, price)


def last_change(records: list[HkRecord] | list[UsRecord], code: Code = HK) -> Change | None:
    """Return the change of the last of these records, the others being known."""
    vintages = [Vintage(record, 0, SEEN) for record in records]
    known = {each.day: each for each in vintages[:-1]}
    (event,) = events_of(code, known, {vintages[-1].day: (EventType.REPORTED, vintages[-1])})
    return event.change


def moves(figures: list[int]) -> list[float | None]:
    """Return the move of each figure from the one before, None where one of them is 0."""
    pairs = pairwise(figures)
    return [after / before - 1 if before and after else None for before, after in pairs]


@given(levels)
def test_a_zscore_is_that_of_the_moves(figures: list[int | None]) -> None:
    """Against the sample's mean and standard deviation, computed from their definition."""
    figures = [*figures, 5_000]
    change = last_change([hk(n, shares) for n, shares in enumerate(figures)])
    assert change is not None
    *earlier, now = moves([shares for shares in figures if shares is not None]) or [None]
    usual = [move for move in earlier if move is not None]
    if now is None or len(usual) < LEAST_MOVES or len(set(usual)) == 1:
        return
    spread = statistics.stdev(usual)
    assert change.zscore == pytest.approx((now - statistics.mean(usual)) / spread, abs=0.006)


@given(levels)
def test_nothing_is_unusual_without_enough_of_the_usual(figures: list[int | None]) -> None:
    """Without eight moves, or with all of them the same, there is no score."""
    few = [*[shares for shares in figures if shares][: LEAST_MOVES - 1], 5_000]
    assert getattr(last_change([hk(n, shares) for n, shares in enumerate(few)]), "zscore", 0) in {
        None,
        0,
    }
    same = [hk(n, 1_000 * 2**n) for n in range(12)]
    change = last_change(same)
    assert change is not None
    assert change.zscore is None


@pytest.mark.parametrize(
    ("figures", "streak"),
    [
        ([5, 6], 1),
        ([5, 6, 7, 8], 3),
        ([8, 7, 6], -2),
        ([5, 6, 5], -1),
        ([5, 6, 6], 0),
        ([5, 6, 6, 7], 1),
        ([7, None, 6, 5], -2),
        ([5, 6, 0], -1),
        ([0, 0, 4], 1),
    ],
)
def test_a_streak_counts_reports_that_went_one_way(figures: list[int | None], streak: int) -> None:
    """Up is positive, down negative; a figure that stayed ends it; absent ones are passed over."""
    change = last_change([hk(n, shares) for n, shares in enumerate(figures)])
    assert change is not None
    assert change.streak == streak


@given(
    st.lists(st.integers(100, 900), min_size=12, max_size=30),
    st.integers(1, 10),
    st.sampled_from([2, 3, 4, 5, 10]),
)
def test_a_split_changes_no_trend(hundreds: list[int], place: int, factor: int) -> None:
    """Shares multiplied and prices divided from some report on: score and streak are the same."""
    figures = [each * 1_000 for each in hundreds]
    figures[place] = figures[place - 1]  # a split is seen where the position stayed, too
    whole = [hk(n, shares, price=60.0) for n, shares in enumerate(figures)]
    split = [
        *whole[:place],
        *(hk(n, s * factor, price=60.0 / factor) for n, s in enumerate(figures) if n >= place),
    ]
    before, after = last_change(whole), last_change(split)
    assert before is not None
    assert after is not None
    assert (after.streak, after.zscore) == (before.streak, before.zscore)


def test_days_to_cover_changes_where_it_was_computed() -> None:
    """The cap of 999.99 stands for any number, so no difference to it is told."""

    def us(number: int, cover: float | None) -> UsRecord:
        return UsRecord(None, str(day(number)), 1_000, 0.5, 500, cover, 10.0, 10.0)

    for before, after, told in ((2.0, 3.5, 1.5), (2.0, 999.99, None), (None, 2.0, None)):
        change = last_change([us(0, before), us(2, after)], US)
        assert change is not None
        assert change.days_to_cover == told
    change = last_change([hk(0, 5), hk(1, 6)])
    assert change is not None
    assert change.days_to_cover is None


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=30))
def test_no_figure_is_too_large(figures: list[int]) -> None:
    """Whatever was reported, a score is a finite number or absent."""
    change = last_change([hk(n, shares) for n, shares in enumerate(figures)])
    assert change is not None
    assert change.zscore is None or abs(change.zscore) < 1e12
