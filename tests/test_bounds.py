"""Where detection draws its lines: the last value on one side, and the first on the other."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from poller.detect.compare import Known, compare
from poller.detect.impossible import impossible, storable
from poller.detect.paging import Reading, progress
from poller.detect.plausible import implausible, is_extreme, same_level
from poller.detect.restate import restatement
from poller.markets import Market, Record
from poller.markets.hk import HONG_KONG, HkRecord
from poller.markets.us import UNITED_STATES, UsRecord
from poller.model import Cause, Code, Page, Vintage

HK, US = HONG_KONG, UNITED_STATES
SEEN = datetime(2026, 11, 20, tzinfo=UTC)
FIRST = date(2026, 1, 2)


def hk(shares: int | None, ratio: float | None = 0.5, *, week: int = 0) -> HkRecord:
    """Return the row of a Hong Kong week."""
    return HkRecord(None, str(FIRST + timedelta(weeks=week)), shares, ratio, 10.0, 9.0)


ROW = UsRecord(None, "2026-04-30", 7_000, 0.5, 3_000, 2.3, 10.0, 9.0)


@pytest.mark.parametrize(
    ("market", "column", "fitting", "unfit"),
    [
        (HK, "aggregated_short", (0, 10**13), (-1, 10**13 + 1)),
        (HK, "aggregated_short_ratio", (0.0, 100.0), (-0.001, 100.001)),
        (HK, "close_price", (1e-6, 1e12), (0.9e-6, 1.001e12)),
        (HK, "last_close_price", (1e-6, 1e12), (0.9e-6, 1.001e12)),
        (US, "shares_short", (0, 10**13), (-1, 10**13 + 1)),
        (US, "short_percent", (0.0, 10_000.0), (-0.001, 10_000.001)),
        (US, "avg_daily_share_volume", (0, 10**13), (-1, 10**13 + 1)),
        (US, "days_to_cover", (0.0, 1_000.0), (-0.001, 1_000.001)),
    ],
)
def test_a_figure_on_the_bound_is_possible(
    market: Market, column: str, fitting: tuple[float, float], unfit: tuple[float, float]
) -> None:
    """The bounds belong to what can be; what is beyond them is named with its column."""
    row = hk(1_000) if market is HK else ROW

    def shown(value: float) -> Record:
        columns: dict[str, Any] = {column: value}
        return replace(row, **columns)

    for value in fitting:
        assert impossible(market, shown(value)) is None
    for value in unfit:
        found = impossible(market, shown(value))
        assert found is not None
        assert found[1].startswith(column)


@pytest.mark.parametrize(
    ("market", "day", "fits"),
    [
        (HK, "2012-06-17", False),
        (HK, "2012-06-18", True),
        (US, "1972-12-31", False),
        (US, "1973-01-01", True),
    ],
)
def test_the_first_day_of_a_market(market: Market, day: str, *, fits: bool) -> None:
    """A report of that day is possible, one of the day before is not."""
    row: Record = replace(hk(1) if market is HK else ROW, timestamp_str=day)
    assert (impossible(market, row) is None) is fits


@pytest.mark.parametrize(("shares", "kept"), [(2**64 - 1, True), (2**64, False), (-(2**64), False)])
def test_a_number_that_not_every_reader_holds_is_absent(shares: int, *, kept: bool) -> None:
    """Beyond 64 bits it is left out; the others of its row stay."""
    stored = storable(hk(shares))
    assert stored == (hk(shares) if kept else hk(None))


@pytest.mark.parametrize(
    ("before", "now", "extreme"),
    [
        (1_000, 1_900, False),
        (1_000, 1_901, True),
        (1_000, 100, False),
        (1_000, 99, True),
        (99_999, 0, False),
        (100_000, 0, True),
        (0, 10**9, False),
        (None, 10**9, False),
        (10**9, None, False),
        (1, 2, True),
    ],
)
def test_what_is_extreme(before: int | None, now: int | None, *, extreme: bool) -> None:
    """More than 90 % either way, or to nothing from 100,000 shares; never where one is absent."""
    assert bool(is_extreme(hk(before), hk(now))) is extreme


@pytest.mark.parametrize(
    ("market", "before", "now", "doubted"),
    [
        (US, 1_000, 899_999, False),
        (US, 1_000, 900_000, True),
        (US, 900_000, 1_000, True),
        (US, 999, 10**9, False),
        (US, 999_999, 0, False),
        (US, 1_000_000, 0, True),
        (HK, 1_000_000, 0, False),
        (HK, 10**12, 0, False),
        (HK, 1_000, 900_000, True),
        (HK, 0, 10**9, False),
        (HK, 10**9, None, False),
    ],
)
def test_what_is_doubted(
    market: Market, before: int | None, now: int | None, *, doubted: bool
) -> None:
    """A factor of 900 from 1,000 shares on; in the US also nothing after a million."""
    assert (implausible(market, hk(before), hk(now)) is not None) is doubted


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(10, 100, True), (100, 10, True), (10, 101, False), (0, 0, True), (0, 5, False), (1, 1, True)],
)
def test_what_is_one_level(one: int, other: int, *, same: bool) -> None:
    """Tenfold is the most; nothing is on a level with nothing alone."""
    assert same_level(hk(one), hk(other)) is same


@pytest.mark.parametrize(
    ("before", "now", "split"),
    [
        (0.5, 0.5, True),
        (0.5, 0.51, True),
        (0.5, 0.49, True),
        (0.5, 0.52, False),
        (0.5, 0.48, False),
        (None, None, True),
        (None, 0.5, False),
        (0.5, None, False),
    ],
)
def test_a_split_leaves_the_ratio(before: float | None, now: float | None, *, split: bool) -> None:
    """Within a rounding either way; one that comes or goes is another change."""
    known = {hk(0, week=n).day: Vintage(hk(n * 100, before, week=n), 0, SEEN) for n in range(1, 4)}
    listed = {hk(0, week=n).day: hk(n * 400, now, week=n) for n in range(1, 4)}
    fact = restatement(known, listed)
    assert (fact is not None and fact.cause is Cause.RESCALED) is split


def page(*weeks: int, key: str | None = "k") -> Page:
    """Return a page of weeks as listed."""
    return Page(tuple(hk(100, week=week) for week in weeks), key)


@pytest.mark.parametrize(
    ("since", "pages", "reading"),
    [
        (3, [page(9, 8)], Reading.MORE),
        (3, [page(9, 8), page(4, 3, key="l")], Reading.ENOUGH),
        (3, [page(9, 8), page(4, key="l")], Reading.MORE),
        (3, [page(9, 8, key=None)], Reading.ENOUGH),
        (3, [page(9, 8), page(key="l")], Reading.ENOUGH),
        (3, [page(9, 8), page(7, 6)], Reading.ENOUGH),
        (3, [page(9, 8), page(8, 7, key="l")], Reading.MORE),
        (3, [page(9, 8), page(9, 8, key="l")], Reading.ENOUGH),
    ],
)
def test_how_far_a_backfill_reads(since: int, pages: list[Page], reading: Reading) -> None:
    """Down to its day, past the watermark; a history that ends before is all there is."""
    known = Known(hk(100, week=5).day, {hk(100, week=5).day: Vintage(hk(100, week=5), 0, SEEN)})
    found = progress(
        Code("HK.00700"), pages, known, history=1, since=FIRST + timedelta(weeks=since)
    )
    assert found is reading


@pytest.mark.parametrize(("history", "weeks"), [(0, [5]), (1, [5]), (2, [5, 4]), (9, [5, 4, 3])])
def test_at_first_sight_what_is_asked_for_is_held(history: int, weeks: list[int]) -> None:
    """An impossible figure among the rows that are published is held; below them it is nobody's."""
    answer = [hk(100, week=5), hk(100, week=4), hk(100, week=3), hk(-1, week=2), hk(-1, week=6)]
    found = compare(Code("HK.00700"), answer, Known(), observed_at=SEEN, history=history)
    days = [each.day for each in found.held]
    assert hk(0, week=6).day in days
    assert (hk(0, week=2).day in days) is (history > len(weeks))
