"""One cause, one event: splits, columns computed anew, codes of another company; by tables."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.detect.compare import Comparison, Known, compare
from poller.detect.held import Decision, Reason
from poller.detect.split import simplest, split_factor
from poller.events import StreamEvent, decode, encode
from poller.markets import Record, Shares
from poller.markets.hk import HkRecord
from poller.markets.us import UsRecord
from poller.model import Cause, Change, Code, Event, EventType, Vintage
from tests.test_quarantine import Symbol

HK = Code("HK.00700")
US = Code("US.AAPL")
SEEN = datetime(2026, 10, 1, tzinfo=UTC)
FIRST = date(2025, 10, 3)

REPORTED, REVISED, BACKFILLED, RESTATED = (
    EventType.REPORTED, EventType.REVISED, EventType.BACKFILLED, EventType.RESTATED,
)  # fmt: skip

TENCENT: Sequence[HkRecord] = [
    HkRecord(int(stamp), day, int(shares), float(ratio), float(close), float(last))
    for stamp, day, shares, ratio, close, last in (
        line.split()
        for line in """
        1777478400 2026-04-30 51480638 0.56 467.8 479.2
        1776960000 2026-04-24 51888755 0.56 493.4 495.2
        1776355200 2026-04-17 47974208 0.52 510.5 517.0
        1775750400 2026-04-10 48424833 0.53 504.5 508.5
        1775059200 2026-04-02 49982828 0.54 489.2 496.6
        1774540800 2026-03-27 52744147 0.57 493.4 495.6
        1773936000 2026-03-20 51710854 0.56 508.0 513.0
        1773331200 2026-03-13 48105325 0.52 547.5 546.5
        1772726400 2026-03-06 42404275 0.46 519.0 502.0
        1772121600 2026-02-27 36037870 0.39 518.0 512.0
        """.strip().splitlines()
    )
]
"""The rows of the vendor's page, newest first."""


def day(week: int) -> date:
    """Return the reporting day of a week."""
    return FIRST + timedelta(days=7 * week)


def row(week: int, shares: int | None, ratio: float | None = 0.5, close: float = 10) -> HkRecord:
    """Return the row of a week."""
    return HkRecord(None, str(day(week)), shares, ratio, close, close)


def split(record: HkRecord, factor: float | Fraction) -> HkRecord:
    """Return a row as it would be after a split."""
    close = None if record.close_price is None else round(record.close_price / float(factor), 3)
    return replace(
        record,
        aggregated_short=int((record.shares or 0) * factor),
        close_price=close,
        last_close_price=close,
    )


def news(symbol: Symbol, answer: Sequence[Record]) -> list[Event]:
    """Return what a poll publishes."""
    return list(symbol.polled(answer, at=SEEN).events)


def knowing(answer: Sequence[Record], code: Code = HK) -> Symbol:
    """Return a symbol of which these rows are known."""
    symbol = Symbol(code)
    symbol.polled(answer, at=SEEN)
    return symbol


def told(events: Sequence[Event]) -> list[EventType]:
    """Return the types of events."""
    return [event.type for event in events]


FACTORS = [
    2, 3, 4, 5, 8, 10, 20, 50, 100, Fraction(3, 2), Fraction(5, 2), Fraction(11, 10),
    Fraction(13, 10), Fraction(6, 5), Fraction(1, 2), Fraction(1, 5), Fraction(1, 10),
    Fraction(1, 20), Fraction(1, 100), Fraction(2, 3),
]  # fmt: skip


@pytest.mark.parametrize("factor", FACTORS)
def test_a_split_is_seen(factor: int | Fraction) -> None:
    """Of an untouched position nothing has changed, and the raw figures stay as they are."""
    before = TENCENT[0]
    after = replace(
        split(before, factor), timestamp=1778169600, timestamp_str="2026-05-08",
    )  # fmt: skip
    symbol = knowing(TENCENT)
    (event,) = news(symbol, [after, *TENCENT])
    change = event.change
    assert (event.type, event.vintage.record, event.previous) == (REPORTED, after, before)
    assert event.flags == ("split",)
    assert change is not None
    assert change.split_factor == pytest.approx(float(factor))
    assert (change.shares, change.percent) == (0, 0.0)
    assert abs(change.price_percent or 0) < 0.5
    assert (change.year_high, change.year_low, change.percentile) == (False, False, 72.7)
    read = decode("1-0", encode(event))
    assert isinstance(read, StreamEvent)
    assert (read.flags, read.change) == (("split",), change)


B = (50_000_000, 0.55, 470.0)


@pytest.mark.parametrize(
    ("before", "now", "factor"),
    [
        (B, (208_000_123, 0.57, 125.0), 4),
        (B, (180_000_123, 0.50, 110.0), 4),
        (B, (97_000_123, 0.53, 240.0), 2),
        (B, (4_700_123, 0.52, 4500.0), Fraction(1, 10)),
        (B, (500_000_123, 0.55, 47.0 * 1.49), 10),
        (B, (500_000_123, 0.55, 47.0 * 1.51), None),
        (B, (395_000_123, 1.09, 118.0), 4),
        ((9_000_000, 0.02, 10.0), (36_500_000, 0.02, 2.6), 4),
        ((3_000_000, 0.03, 0.02), (150_000, 0.03, 0.41), Fraction(1, 20)),
        ((3_000_009, 0.03, 0.02), (150_000, 0.03, 0.41), Fraction(1, 20)),
        (B, (200_000_000, 0.55, 470.0), None),
        (B, (50_000_000, 0.55, 117.5), None),
        (B, (100_000_000, 1.1, 235.0), None),
        (B, (100_000_000, 1.1, 470.0), None),
        (B, (12_500_000, 0.14, 470.0), None),
        (B, (50_000_000, 0.37, 390.0), None),
        (B, (55_000_000, 0.6, 430.0), None),
        (B, (50_000_000, 0.55, 470.0), None),
        (B, (0, 0.0, 117.5), None),
        ((0, 0.0, 470.0), (200_000_000, 0.55, 117.5), None),
        ((50, 0.0, 470.0), (200, 0.0, 117.5), None),
        ((1_000_000, 0.02, 10.0), (1_190_000, 0.02, 8.5), None),
        ((10_007, 0.03, 10.0), (46_021, 0.03, 10 / 4.5), 5),
        ((1_000_000, 0.0, 10.0), (2_000_000, 0.0, 6.0), 2),
        ((1_000_000, 0.0, 10.0), (2_000_000, 0.0, 6.01), None),
    ],
    ids=[
        "it grew as well", "it shrank as well", "2:1 and a move", "consolidation and a move",
        "beside a price that rose much", "the price rose too much to tell",
        "it doubled as well", "a small ratio",
        "consolidation", "consolidation, a part of a share", "the price stays", "a crash",
        "it doubled as the price fell", "it doubled", "it fell to a quarter", "new shares sold",
        "a usual move", "a board lot changes", "0 tells nothing", "nor does coming from 0",
        "nor do a few shares", "p90 of all moves", "of two usual ones the closer",
        "unproven, a price near enough", "unproven, a price too far",
    ],
)  # fmt: skip
def test_what_is_a_split(
    before: tuple[int, float, float], now: tuple[int, float, float], factor: int | Fraction | None
) -> None:
    """Shares, ratio and price must agree on one factor; a usual move beside it hides none."""
    assert split_factor(row(1, *before), row(2, *now)) == factor


@pytest.mark.parametrize(
    "factor",
    [2, 3, 4, 5, 6, 8, 10, 12, 15, 16, 20, 25, 30, 40, 50, 80, 100, 200, 250, 500, 1.5, 2.5],
)
@pytest.mark.parametrize("is_inverse", [False, True])
def test_a_usual_split_is_seen_beside_a_small_move(factor: float, *, is_inverse: bool) -> None:
    """Shares that moved by themselves show no exact factor: the usual ones are tried."""
    usual = 1 / Fraction(factor) if is_inverse else Fraction(factor)
    shares, ratio, price = B
    now = row(2, int(shares * usual * Fraction("1.013")) + 1, ratio * 1.013, price / float(usual))
    assert split_factor(row(1, *B), now) == usual


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (replace(row(1, *B), close_price=None), split(row(2, *B), 4)),
        (row(1, *B), replace(split(row(2, *B), 4), aggregated_short_ratio=None)),
        (row(1, *B), replace(split(row(2, *B), 4), aggregated_short=None)),
        (row(1, *B), split(row(20, *B), 4)),
        (
            UsRecord(None, "2026-04-15", 100, 0.5, 1, 2.0, 10.0, 10.0),
            UsRecord(None, "2026-04-30", 400, 0.5, 1, 2.0, 2.5, 2.5),
        ),
    ],
    ids=["no price", "no ratio", "no shares", "months apart", "US"],
)
def test_without_evidence_there_is_no_split(before: Record, now: Record) -> None:
    """What is absent speaks for nothing, and the US vendor rescales the history itself."""
    assert split_factor(before, now) is None


@given(st.fractions(Fraction(1, 50), 50), st.fractions(0, 1, max_denominator=60))
def test_the_simplest_fraction_between_two(low: Fraction, width: Fraction) -> None:
    """It lies between them, and no fraction with a smaller denominator does."""
    found = simplest(low, low + width)
    assert low <= found <= low + width
    for denominator in range(1, min(found.denominator, 500)):
        assert Fraction(ceil(low * denominator), denominator) > low + width


@pytest.mark.parametrize("read_at_once", [1, 3, 10])
def test_real_rows_are_published_as_they_are(read_at_once: int) -> None:
    """The vendor's own, replayed: every figure once, none held, whatever the poller missed."""
    oldest_first = TENCENT[::-1]
    symbol, published = knowing(oldest_first[:1]), []
    for n in range(1, len(oldest_first), read_at_once):
        published += news(symbol, TENCENT[-n - read_at_once :])
    assert [event.vintage.record for event in published] == [*oldest_first[1:]]
    assert told(published) == [REPORTED] * 9
    assert symbol.known.held == {}


def test_real_rows_show_no_split() -> None:
    """Nor do rows as they move at the median, the 90th and the 99th percentile, or repeat."""
    events = news(Symbol(HK), TENCENT)
    assert [event.flags for event in events] == [()] * 10
    for percent in (0, 3.5, 19, 50, 100, -19, -50, -100):
        for price in (0.7, 0.9, 1.0, 1.1, 1.5):
            for shares, ratio in ((51_480_638, 0.56), (2_000_000, 0.02), (40_000, 0.0)):
                moved = 1 + percent / 100
                now = row(2, round(shares * moved), round(ratio * moved, 2), 10 * price)
                assert split_factor(row(1, shares, ratio), now) is None


weeks_of = st.lists(
    st.sampled_from([0, 500_000, 1_000_000, 1_050_000, 1_100_000, 1_200_000]), max_size=12
)


@given(
    before=weeks_of,
    at=st.sampled_from([500_000, 1_000_000, 1_200_000]),
    move=st.sampled_from([0.75, 0.9, 1, 1, 1.05, 1.3]),
    after=weeks_of,
    prices=st.lists(st.floats(0.9, 1.1), min_size=26, max_size=26),
    factor=st.sampled_from([2, 3, 4, 5, 10, 20]),
    consolidated=st.booleans(),
)
def test_a_split_clean_series_is_invariant(
    *,
    before: list[int],
    at: int,
    move: float,
    after: list[int],
    prices: list[float],
    factor: int,
    consolidated: bool,
) -> None:
    """Whatever the history, a split changes no fact of any change but `shares` and itself.

    Prices and the ratio move as the shares do; seen at once or report by report.
    """
    split_at = len(before) + 1
    walk = list(zip([*before, at, round(at * move), *after], prices, strict=False))
    plain = [row(n, shares, shares / 1e6, round(10 * p, 3)) for n, (shares, p) in enumerate(walk)]
    grown = [split(each, factor) for each in plain]
    parted = (
        grown[:split_at] + plain[split_at:] if consolidated else plain[:split_at] + grown[split_at:]
    )
    one, other = news(Symbol(HK), plain), news(Symbol(HK), parted)
    assert [clean(event) for event in one] == [clean(event) for event in other]
    assert [n for n, event in enumerate(other) if "split" in event.flags] == [split_at]
    assert [n for n, event in enumerate(one) if "split" in event.flags] == []
    step = Symbol(HK)
    step.polled(parted[:1], at=SEEN)
    by_report = [e for n in range(1, len(parted)) for e in news(step, parted[: n + 1])]
    assert [clean(event) for event in by_report] == [clean(event) for event in one][1:]


def clean(event: Event) -> Change | None:
    """Return the facts of a change that a split must not touch, whatever is rounded of prices."""
    change = event.change
    if change is None:
        return None
    return replace(change, shares=None, price_percent=None, split_factor=None)


def test_the_year_after_a_split_is_compared_with_the_year_before() -> None:
    """A high is a high of the company's position, not of its paper."""
    weeks = [row(n, 1_000_000 + 10_000 * n, 1.0 + n / 100, 10.0) for n in range(20)]
    higher = split(row(20, 1_200_000, 1.2, 10.0), 4)
    lower = split(row(21, 1_010_000, 1.01, 10.0), 4)
    symbol = knowing(weeks)
    (high,) = news(symbol, [*weeks, higher])
    (low,) = news(symbol, [*weeks, higher, lower])
    assert high.change is not None
    assert (high.change.percent, high.change.year_high) == (0.8403, True)
    assert low.change is not None
    assert (low.change.split_factor, low.flags) == (None, ())
    assert (low.change.year_high, low.change.year_low, low.change.percentile) == (
        False, False, 13.6,
    )  # fmt: skip


def test_shares_stay_whole_across_a_split() -> None:
    """Their number before it is a whole one of the new shares, too."""
    weeks = [row(n, 1_000_001) for n in range(5)]
    (event,) = news(knowing(weeks), [*weeks, split(row(5, 1_100_001, 0.55), 3)])
    assert event.change is not None
    assert (event.change.shares, type(event.change.shares)) == (300_000, int)


def test_a_split_is_no_extreme_move() -> None:
    """The wholesale gate does not take it for one."""
    weeks = [row(n, 1_000_000) for n in range(5)]
    found = compare(HK, [*weeks, split(row(5, 1_000_000), 10)],
                    knowing(weeks).known, observed_at=SEEN, history=50)  # fmt: skip
    assert (found.extreme, told(found.events)) == (None, [REPORTED])


def test_a_history_adjusted_later_is_one_event() -> None:
    """Days before the split are rescaled, those after it stay; then no split is left."""
    weeks = [row(n, 1_000_000 + 1000 * n) for n in range(6)]
    later = [split(row(n, 1_000_000 + 1000 * n), 4) for n in (6, 7)]
    symbol = knowing([*weeks, *later])
    adjusted = [split(each, 4) for each in weeks]
    (event,) = news(symbol, [*adjusted, *later])
    assert event.restated is not None
    assert (event.type, event.restated.factor, event.vintage.day) == (RESTATED, 4.0, day(5))
    (event,) = news(symbol, [*adjusted, *later, split(row(8, 1_000_000), 4)])
    assert event.flags == ()


RATIOS = [0.39, 0.46, 0.52, 0.56, 0.57, 0.54, 0.53, 0.52, 0.56, 0.0]


def by_ratio(ratios: Sequence[float | None], first: int = 1_000_000) -> list[HkRecord]:
    """Return rows whose shares stay what they are, with these ratios."""
    return [row(n, first + 1000 * n, ratio) for n, ratio in enumerate(ratios)]


@pytest.mark.parametrize(
    ("now", "factor"),
    [
        ([round(each * 1.02, 2) for each in RATIOS], 1.02),
        ([each * 1.02 for each in RATIOS], 1.02),
        ([each / 100 for each in RATIOS], 0.01),
        ([each * 100 for each in RATIOS], 100),
        ([each * 2 for each in RATIOS], 2),
        ([round(each + 0.05 * (n % 3 + 1), 2) for n, each in enumerate(RATIOS)], None),
        ([round(each * 2 + 0.04 * (n == 4), 2) for n, each in enumerate(RATIOS)], None),
    ],
    ids=[
        "rounded",
        "not rounded",
        "a part of 1",
        "basis points",
        "twice",
        "no factor",
        "one day beyond any rounding",
    ],
)
def test_a_ratio_computed_anew_is_one_event(now: list[float], factor: float | None) -> None:
    """It names the vendor's column, and the factor where one fits; nothing is held."""
    symbol = knowing(by_ratio(RATIOS))
    (event,) = news(symbol, by_ratio(now))
    fact = event.restated
    assert fact is not None
    assert (event.type, fact.column, fact.cause) == (
        RESTATED, "aggregated_short_ratio", Cause.RECOMPUTED,
    )  # fmt: skip
    assert (fact.factor is None) == (factor is None)
    if factor is not None:
        assert abs((fact.factor or 0) - factor) <= 0.02 * factor
    history = {known.record.day: known.record.ratio for known in symbol.known.vintages.values()}
    assert history == {day(n): ratio for n, ratio in enumerate(now)}
    assert (symbol.known.held, news(symbol, by_ratio(now))) == ({}, [])


LAST = [1.30, 1.24, 1.27, 1.33, 1.36, 1.31, 1.22, 1.25, 1.29, 1.34]


@pytest.mark.parametrize(
    ("changed", "factor", "kinds"),
    [
        (range(7, 10), 1.05, [RESTATED]),
        (range(2, 6), 0.8, [RESTATED]),
        ((2, 4, 6), 1.05, [REVISED] * 3),
        ((8, 9), 1.05, [REVISED] * 2),
    ],
    ids=["the newest", "in the middle", "here and there", "too few"],
)
def test_a_stretch_of_ratios_computed_anew_is_one_event(
    changed: Sequence[int], factor: float, kinds: list[EventType]
) -> None:
    """As after an issue of shares; a copy of the history follows from the days and the factor."""
    symbol = knowing(by_ratio(LAST))
    now = [round(each * factor, 2) if n in changed else each for n, each in enumerate(LAST)]
    events = news(symbol, by_ratio(now))
    assert told(events) == kinds
    if (fact := events[0].restated) is not None:
        assert fact.days == tuple(map(day, changed))
        assert fact.factor == pytest.approx(factor, rel=0.01)


def test_a_column_that_is_emptied_has_no_factor() -> None:
    """None makes nothing of something."""
    (event,) = news(knowing(by_ratio(RATIOS)), by_ratio([0.0] * len(RATIOS)))
    assert event.restated is not None
    assert (event.restated.factor, event.restated.cause) == (None, Cause.RECOMPUTED)


def test_two_days_of_another_company_are_held_as_one() -> None:
    """It was listed a fortnight ago; corrections of one company's shares do not reach that far."""
    for reach, held in ((40, {day(9): Reason.WHOLE_HISTORY}), (4, {})):
        symbol = knowing([row(n, 1_000_000 + 7_000 * n) for n in range(10)])
        other = [row(8, 1_000_000 * reach, 0.2), row(9, 1_300_000 * reach, 0.3)]
        assert told(news(symbol, other)) == ([] if held else [REVISED] * 2)
        assert symbol.held() == held


def test_a_column_that_was_empty_is_one_event() -> None:
    """No factor makes something of nothing."""
    symbol = knowing(by_ratio([None] * 10))
    (event,) = news(symbol, by_ratio(RATIOS))
    assert event.restated is not None
    assert (event.restated.factor, event.restated.cause) == (None, Cause.RECOMPUTED)


@pytest.mark.parametrize("changed", [1, 2])
def test_a_single_revision_stays_one(changed: int) -> None:
    """One or two days with another ratio are what they are, beside a new report, too."""
    symbol = knowing(by_ratio(RATIOS))
    now = [round(each + 0.1, 2) if n < changed else each for n, each in enumerate(RATIOS)]
    events = news(symbol, by_ratio([*now, 0.5]))
    assert told(events) == [REVISED] * changed + [REPORTED]


def test_a_correction_beside_a_column_computed_anew_is_its_own() -> None:
    """Two causes, two events; the corrected day is not one of the restated ones."""
    symbol = knowing(by_ratio(RATIOS))
    now = by_ratio([round(each * 1.02, 4) for each in RATIOS])
    now[3] = replace(now[3], aggregated_short=777_777)
    events = news(symbol, now)
    assert told(events) == [RESTATED, REVISED]
    assert events[0].restated is not None
    assert day(3) not in events[0].restated.days


def company(level: int, weeks: int, *, us: bool = False) -> list[Record]:
    """Return the history of a company; each level is another one's."""
    pace = len(str(level))
    ours = [level + level // 50 * (n * n * pace % 7) for n in range(weeks)]
    if us:
        return [UsRecord(None, str(day(n)), s, 0.5, 9, 2.0, 9.0, 9.0) for n, s in enumerate(ours)]
    return [row(n, shares, 0.5) for n, shares in enumerate(ours)]


OLD, NEW = 44_000, 40_000_000


def held_whole(code: Code = HK) -> Symbol:
    """Return a symbol whose code shows another company, which is held."""
    symbol = knowing(company(OLD, 5, us=code == US), code)
    found = symbol.polled(company(NEW, 6, us=code == US), at=SEEN)
    assert (found.events, found.unpublished) == ((), ())
    assert [(each.day, each.reason) for each in found.held] == [(day(5), Reason.WHOLE_HISTORY)]
    return symbol


def shares(symbol: Symbol) -> list[Shares | None]:
    """Return the known shares, oldest day first."""
    return [symbol.known.vintages[each].record.shares for each in sorted(symbol.known.vintages)]


def of(rows: Sequence[Record]) -> list[Shares | None]:
    """Return the shares of rows."""
    return [each.shares for each in rows]


@pytest.mark.parametrize("code", [HK, US])
def test_another_company_is_held_as_one(code: Code) -> None:
    """One figure is held, however often it is shown; history stays the old one's, and whole."""
    symbol = held_whole(code)
    for _ in range(2):
        again = symbol.polled(company(NEW, 6, us=code == US), at=SEEN)
        assert again == Comparison(day(4), moves=again.moves, extreme=again.extreme)
    assert shares(symbol) == of(company(OLD, 5))
    assert list(symbol.known.held) == [day(5)]


@pytest.mark.parametrize("code", [HK, US])
def test_released_it_is_published_as_one(code: Code) -> None:
    """One event for the days that changed, and one for each new one."""
    symbol = held_whole(code)
    symbol.ruled(Decision.RELEASED)
    events = news(symbol, company(NEW, 6, us=code == US))
    assert told(events) == [RESTATED, REPORTED]
    fact, change = events[0].restated, events[0].change
    assert fact is not None
    assert fact.columns() == {
        "factor": None, "days": 5, "from": str(day(0)), "to": str(day(4)), "column": None,
        "cause": "replaced",
    }  # fmt: skip
    assert change is None
    assert shares(symbol) == of(company(NEW, 6))
    assert symbol.known.held == {}
    assert news(symbol, company(NEW, 6, us=code == US)) == []
    read = decode("1-0", encode(events[0]))
    assert isinstance(read, StreamEvent)
    assert read.restated is not None
    assert (read.restated.cause, read.restated.factor, read.restated.column) == (
        "replaced", None, None,
    )  # fmt: skip


def test_discarded_it_is_passed_over_as_one() -> None:
    """Nothing of it is published, however it goes on, until the known history is shown again."""
    symbol = held_whole()
    symbol.ruled(Decision.DISCARDED)
    for weeks in (6, 7, 8):
        found = symbol.polled(company(NEW, weeks), at=SEEN)
        assert (found.events, found.unpublished, found.held) == ((), (), ())
        assert found.waiting(symbol.known) == ()
    assert shares(symbol) == of(company(OLD, 5))
    assert told(news(symbol, company(OLD, 7))) == [REPORTED, REPORTED]
    assert shares(symbol) == of(company(OLD, 7))


def test_the_next_report_confirms_it() -> None:
    """A vendor that goes on with it means it: nothing waits for ever."""
    symbol = held_whole()
    events = news(symbol, company(NEW, 7))
    assert told(events) == [RESTATED, REPORTED, REPORTED]
    assert shares(symbol) == of(company(NEW, 7))
    assert symbol.known.held == {}


@pytest.mark.parametrize("decision", [Decision.HELD, Decision.RELEASED])
def test_the_known_history_shown_again_settles_it(decision: Decision) -> None:
    """A fault that has passed leaves nothing behind, also when it was released meanwhile."""
    symbol = held_whole()
    symbol.ruled(decision)
    assert told(news(symbol, company(OLD, 6))) == [REPORTED]
    assert (shares(symbol), symbol.known.held) == (of(company(OLD, 6)), {})


def test_yet_another_history_is_judged_anew() -> None:
    """What was ruled on one is no decision on the next; still one figure is held."""
    symbol = held_whole()
    symbol.ruled(Decision.RELEASED)
    assert news(symbol, company(7 * NEW, 7)) == []
    assert {when: each.decision for when, each in symbol.known.held.items()} == {
        day(6): Decision.HELD
    }  # fmt: skip


def test_a_part_of_it_is_not_smuggled_in() -> None:
    """Neither a short answer nor a backfill makes a history of two companies."""
    symbol = held_whole()
    assert news(symbol, company(NEW, 6)[4:]) == []
    answer = [replace(row(-3, 39_000_000)), *company(NEW, 6)]
    found = compare(HK, answer, symbol.known, observed_at=SEEN, history=50, since=day(-9))
    assert found.events == ()
    assert shares(symbol) == of(company(OLD, 5))


def test_figures_held_before_go_with_it() -> None:
    """What waited of the old history waits no longer once another one is accepted."""
    symbol = knowing(company(OLD, 5))
    symbol.polled([*company(OLD, 5), row(5, 10**9)], at=SEEN)
    assert symbol.held() == {day(5): Reason.UNIT_SLIP}
    symbol.polled(company(NEW, 6), at=SEEN)
    news(symbol, company(NEW, 7))
    assert (shares(symbol), symbol.held()) == (of(company(NEW, 7)), {})


def test_what_is_doubtful_in_the_accepted_history_waits_on() -> None:
    """The figure that stood for the whole answer is held for itself, until a better one comes."""
    symbol = knowing(company(OLD, 5))
    slipped = row(5, 1_000 * NEW)
    symbol.polled([*company(NEW, 5), slipped], at=SEEN)
    events = news(symbol, [*company(NEW, 5), slipped, *company(NEW, 7)[6:]])
    assert told(events) == [RESTATED, REPORTED]
    assert list(symbol.known.held) == [day(5)]
    news(symbol, company(NEW, 7))
    assert (shares(symbol), symbol.held()) == (of(company(NEW, 7)), {})


def test_a_reason_read_from_its_text_counts_as_much() -> None:
    """What is held comes back from Redis as text; the judgement is the same."""
    symbol = held_whole()
    symbol.known = replace(
        symbol.known,
        held={when: replace(each, reason=str(each.reason), decision=Decision.RELEASED)
              for when, each in symbol.known.held.items()},
    )  # fmt: skip
    assert told(news(symbol, company(NEW, 6))) == [RESTATED, REPORTED]


@pytest.mark.parametrize("factor", [-1, 1_000])
def test_a_column_gone_wrong_is_held_as_one(factor: int) -> None:
    """Days that no report can show, for one cause: one figure waits, and no report confirms it."""
    symbol = knowing(by_ratio(RATIOS))
    wrong = by_ratio([each * factor for each in [*RATIOS, 0.5]])
    for n in (11, 11, 12):
        found = symbol.polled([*wrong, *by_ratio([0.5 * factor] * 12)[11:n]], at=SEEN)
        assert (found.events, found.unpublished) == ((), ())
    assert symbol.held() == {day(10): Reason.WHOLE_HISTORY}
    right = news(symbol, by_ratio([*RATIOS, 0.5, 0.5]))
    assert (told(right), symbol.held()) == ([REPORTED, REPORTED], {})
    symbol.polled(by_ratio([each * factor for each in [*RATIOS, 0.5, 0.5]]), at=SEEN)
    symbol.ruled(Decision.RELEASED)
    released = news(symbol, by_ratio([each * factor for each in [*RATIOS, 0.5, 0.5]]))
    assert told(released) == [RESTATED]  # the operator has the last word


SHARES = [0, 44_000, 50_000, 44_000_000, 51_000_000, 102_000_000]
answers = st.dictionaries(
    st.integers(0, 11), st.tuples(st.sampled_from(SHARES), st.sampled_from([0.1, 0.5, 1.0])),
    min_size=1, max_size=12,
)  # fmt: skip


@given(st.lists(st.tuples(answers, st.sampled_from([None, *Decision])), min_size=1, max_size=5))
def test_no_answer_makes_more_events_than_causes(
    lived: list[tuple[Mapping[int, tuple[int, float]], Decision | None]],
) -> None:
    """Fewer than half of the known days are revised one by one, and never three at once do so.

    At most one restatement an answer, and it names each of its days once. Asked again, the same
    answer says nothing, whatever was ruled before.
    """
    symbol = Symbol(HK)
    for answer, decision in lived:
        known = symbol.known.vintages
        events = news(symbol, [row(n, *figures) for n, figures in answer.items()])
        kinds = told(events)
        assert kinds.count(RESTATED) <= 1
        revised = kinds.count(REVISED)
        telling = [
            n
            for n in answer
            if day(n) in known  # each has a ratio, so none is nothing
        ]
        assert revised < 3 or 2 * revised <= len(telling)
        days = [event.vintage.day for event in events]
        assert len(days) == len(set(days))
        again = symbol.polled([row(n, *figures) for n, figures in answer.items()], at=SEEN)
        assert (again.events, again.unpublished, again.held, again.settled) == ((), (), (), ())
        if decision is not None:
            symbol.ruled(decision)


def test_a_restatement_of_the_first_version_is_read() -> None:
    """It has neither column nor cause: the shares were rescaled."""
    event = news(knowing(by_ratio(RATIOS)), [split(each, 4) for each in by_ratio(RATIOS)])[0]
    fields = encode(event)
    old = fields["data"].replace(',"column":"aggregated_short","cause":"rescaled"', "")
    old = old.replace(',"split_factor":null', "")
    assert old != fields["data"]
    read = decode("1-0", fields | {"data": old})
    assert isinstance(read, StreamEvent)
    assert read.restated is not None
    assert read.change is not None
    assert (read.restated.factor, read.restated.column, read.restated.cause) == (4.0, None, None)
    assert read.change.split_factor is None


def test_a_watermark_alone_is_compared_as_before() -> None:
    """Without a known day there is nothing that could have changed as a whole."""
    known = Known(day(1), {}, {})
    found = compare(HK, company(NEW, 4), known, observed_at=SEEN, history=50)
    assert told(found.events) == [REPORTED, REPORTED]
    assert [vintage.day for vintage in found.unpublished] == [day(1)]
    assert isinstance(found.unpublished[0], Vintage)
