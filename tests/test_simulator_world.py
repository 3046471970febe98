"""The simulator's world: a pure function of (request, now)."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.markets import Record
from poller.markets.hk import HONG_KONG, HkRecord
from poller.markets.us import UNITED_STATES, UsRecord
from poller.model import Code, market_of, parse_code
from poller.schedule.calendar import release_of, reporting_days
from poller.simulator import (
    END,
    TENCENT,
    TENCENT_ROWS,
    Refusal,
    Revision,
    ShortInterest,
    SlidingWindow,
    Split,
    World,
    WorldAnswer,
)

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
WORLD = World(seed=7, made_up={"HK": 6, "US": 6}, without_rows=0.0)
CROWD = World(seed=3, made_up={"HK": 400, "US": 400}, tencent=False)
APPLE = Code("US.AAPL")

instants = st.datetimes(
    min_value=datetime(2026, 1, 2),  # noqa: DTZ001  the strategy wants it naive and adds the zone
    max_value=datetime(2027, 6, 30),  # noqa: DTZ001  the strategy wants it naive and adds the zone
    timezones=st.just(UTC),
)
known = st.sampled_from(WORLD.codes())
made_up = st.sampled_from(WORLD.codes()[1:])
thorough = settings(deadline=None, max_examples=60)


def pages(world: World, code: Code, now: datetime, num: int) -> Iterator[tuple[Record, ...]]:
    """Page through a code as a client does."""
    key = ""
    while key != END:
        answer, _ = world.answer(ShortInterest(code, key, num), now)
        assert isinstance(answer, WorldAnswer)
        yield answer.records
        key = answer.next_key


def first_release(world: World, code: Code, after: date) -> tuple[date, datetime]:
    """Return the first reporting day from `after` on, and when this code shows it."""
    day = next(reporting_days(market_of(code), after))
    return day, world.release(code, day)


def test_tencent_has_the_ten_rows_of_the_vendors_page() -> None:
    """HK.00700 has exactly the rows Futu shows, at any time, in any seed."""
    shown = [
        (1777478400, "2026-04-30", 51480638, 0.56, 467.8, 479.2),
        (1776960000, "2026-04-24", 51888755, 0.56, 493.4, 495.2),
        (1776355200, "2026-04-17", 47974208, 0.52, 510.5, 517.0),
        (1775750400, "2026-04-10", 48424833, 0.53, 504.5, 508.5),
        (1775059200, "2026-04-02", 49982828, 0.54, 489.2, 496.6),
        (1774540800, "2026-03-27", 52744147, 0.57, 493.4, 495.6),
        (1773936000, "2026-03-20", 51710854, 0.56, 508.0, 513.0),
        (1773331200, "2026-03-13", 48105325, 0.52, 547.5, 546.5),
        (1772726400, "2026-03-06", 42404275, 0.46, 519.0, 502.0),
        (1772121600, "2026-02-27", 36037870, 0.39, 518.0, 512.0),
    ]
    expected = tuple(HkRecord(*row) for row in shown)
    for seed, year in ((1, 2026), (2, 2031)):
        assert World(seed=seed).records(TENCENT, datetime(year, 5, 9, tzinfo=UTC)) == expected


def test_codes_are_plausible_stable_and_different() -> None:
    """Codes are well formed, unique, the seed's own, and fewer of them are a prefix."""
    codes = World(seed=5, made_up={"HK": 2000, "US": 3000}).codes()
    assert codes[0] == TENCENT
    assert len(set(codes)) == len(codes) == 5001
    assert all(parse_code(code) == code for code in codes)
    assert Counter(map(market_of, codes)) == {HONG_KONG: 2001, UNITED_STATES: 3000}
    assert all(code[3:].isalpha() and len(code) <= 8 for code in codes[2001:])
    assert World(seed=5, made_up={"HK": 10}, tencent=False).codes() == codes[1:11]
    assert World(seed=6, made_up={"HK": 10}).codes() != World(seed=5, made_up={"HK": 10}).codes()


def test_more_codes_than_plausible_are_refused() -> None:
    """A world cannot have more Hong Kong symbols than there are five-digit codes."""
    with pytest.raises(ValueError, match="hk is 20000"):
        World(made_up={"HK": 20_000}).codes()


def test_named_codes_have_rows() -> None:
    """A symbol asked for by name is made up like the others and never without rows."""
    world = World(named=(APPLE,), without_rows=1.0, made_up={"HK": 3})
    assert APPLE in world.codes()
    assert len(world.records(APPLE, NOW)) > 60
    assert not any(world.records(code, NOW) for code in world.codes()[2:])


def test_values_never_change_between_versions() -> None:
    """A seed means the same figures on every machine and Python: these were written down."""
    world = World(seed=1, named=(Code("HK.00005"), APPLE))
    hk, us = (world.records(code, NOW)[0] for code in world.named)
    assert hk == HkRecord(1787241600, "2026-08-21", 3593307, 0.25, 35.97, 35.84)
    assert us == UsRecord(1786680000, "2026-08-14", 925659, 2.08, 715346, 1.29, 2.18, 2.17)


@given(code=known, now=instants, later=st.timedeltas(timedelta(), timedelta(days=200)))
@thorough
def test_later_days_never_alter_earlier_ones(code: Code, now: datetime, later: timedelta) -> None:
    """What was shown once is shown for ever, below whatever has come since."""
    before, after = WORLD.records(code, now), WORLD.records(code, now + later)
    assert after[len(after) - len(before) :] == before


@given(code=known, now=instants, num=st.integers(1, 50))
@thorough
def test_paging_covers_exactly_the_records(code: Code, now: datetime, num: int) -> None:
    """Pages of any size, joined, are the truth; all but the last are full."""
    parts = list(pages(WORLD, code, now, num))
    assert sum(parts, ()) == WORLD.records(code, now)
    assert all(len(part) == num for part in parts[:-1])


@given(code=known, now=instants, later=st.timedeltas(timedelta(), timedelta(days=60)))
@thorough
def test_a_release_between_two_pages_loses_nothing(
    code: Code, now: datetime, later: timedelta
) -> None:
    """The second page goes on where the first ended, whatever was released meanwhile."""
    first, _ = WORLD.answer(ShortInterest(code, "", 7), now)
    assert isinstance(first, WorldAnswer)
    second, _ = WORLD.answer(ShortInterest(code, first.next_key, 50), now + later)
    assert isinstance(second, WorldAnswer)
    assert first.records + second.records == WORLD.records(code, now)[:57]


@given(code=made_up, after=st.dates(date(2026, 1, 1), date(2027, 3, 1)))
@thorough
def test_a_day_appears_at_its_release(code: Code, after: date) -> None:
    """A day is missing until the instant of its release and there from then on."""
    day, at = first_release(WORLD, code, after)
    early = WORLD.records(code, at - timedelta(microseconds=1))
    assert day not in {row.day for row in early}
    assert WORLD.records(code, at)[0].day == day


@given(code=made_up, after=st.dates(date(2025, 1, 1), date(2027, 3, 1)))
@thorough
def test_releases_follow_the_calendar(code: Code, after: date) -> None:
    """By rule a market's release comes 0.5 to 4 hours into its window, for all symbols at once."""
    day, at = first_release(WORLD, code, after)
    assert at.tzinfo is UTC
    delay = at - release_of(market_of(code), day).opens
    assert timedelta(hours=0.5) <= delay <= timedelta(hours=4)
    same_market = [other for other in WORLD.codes() if market_of(other) is market_of(code)]
    assert {WORLD.release(other, day) for other in same_market} == {at}


@given(now=instants)
@thorough
def test_rows_are_consistent(now: datetime) -> None:
    """Days descend, are reporting days at midnight of the market's zone, and figures fit."""
    for code in WORLD.codes()[1:]:
        rows, zone = WORLD.records(code, now), market_of(code).zone
        assert len(rows) >= 58  # the last two before `since` may be released after it
        days = [row.day for row in rows]
        assert days == sorted(set(days), reverse=True)
        start = min(days)
        expected = takewhile(lambda day: day <= days[0], reporting_days(market_of(code), start))  # noqa: B023  used at once
        assert set(days) == set(expected)
        for row in rows:
            assert row.timestamp == datetime.combine(row.day, time(), zone).timestamp()
            assert row.close_price is not None
            assert row.close_price > 0
            if isinstance(row, UsRecord):
                assert row.shares_short is not None
                cover = row.shares_short / (row.avg_daily_share_volume or 1e-9)
                assert row.days_to_cover == max(1.00, min(999.99, round(cover, 2)))


@pytest.mark.parametrize("code", [*CROWD.codes()[:20], *CROWD.codes()[-20:]])
def test_the_ratio_belongs_to_one_number_of_issued_shares(code: Code) -> None:
    """Percent of the issued shares is the ratio: one denominator explains a symbol's rows."""
    rows = [(row.shares, row.ratio) for row in CROWD.records(code, NOW)]
    least = max((shares / (ratio + 0.005) for shares, ratio in rows if shares and ratio), default=0)
    most = min((shares / (ratio - 0.005) for shares, ratio in rows if shares and ratio), default=0)
    assert least <= most
    assert all(not ratio for shares, ratio in rows if not shares)


def test_hong_kong_figures_are_as_counted() -> None:
    """38 % of rows are zero and 40 % repeat; other changes: median 3.5 %, p90 19 %."""
    histories = [CROWD.records(code, NOW) for code in CROWD.codes() if market_of(code) is HONG_KONG]
    shares = [[row.shares or 0 for row in history] for history in histories]
    total = sum(map(len, shares))
    pairs = [pair for history in shares for pair in pairwise(history)]
    changes = sorted(abs(new / old - 1) for new, old in pairs if new and old and new != old)
    assert 0.33 <= sum(history.count(0) for history in shares) / total <= 0.43
    assert 0.36 <= sum(new == old for new, old in pairs) / len(pairs) <= 0.44
    assert 0.030 <= changes[len(changes) // 2] <= 0.040
    assert 0.15 <= changes[len(changes) * 9 // 10] <= 0.23


def test_us_figures_have_sentinels_and_no_zero_rows() -> None:
    """Both ends of days to cover occur, and a symbol without volume shows the cap."""
    rows = [row for code in CROWD.codes() for row in CROWD.records(code, NOW)]
    us = [row for row in rows if isinstance(row, UsRecord)]
    covers = Counter(row.days_to_cover for row in us)
    assert covers[1.00] > 0
    assert covers[999.99] > 0
    assert covers[1.00] + covers[999.99] < len(us) / 4
    assert all(row.shares_short for row in us)
    assert all(row.days_to_cover == 999.99 for row in us if not row.avg_daily_share_volume)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_some_codes_have_no_rows(share: float) -> None:
    """The asked-for fraction of codes is known and answered, with nothing."""
    world = replace(CROWD, without_rows=share)
    empty = [code for code in world.codes() if not world.records(code, NOW)]
    assert share - 0.05 <= len(empty) / 800 <= share + 0.05
    for code in empty[:1]:
        assert world.answer(ShortInterest(code), NOW)[0] == WorldAnswer(market_of(code), (), END)


def test_history_and_depth_count_the_days_before_since() -> None:
    """Right after `since` a symbol has `history` days, or its own depth, whatever is released."""
    old, new = WORLD.codes()[1:3]
    world = replace(WORLD, since=date(2026, 3, 2), history=25, depth={new: 0})
    much_later = datetime(2026, 5, 29, tzinfo=UTC)
    days = [row.day for row in world.records(old, much_later)]
    assert sum(day < date(2026, 3, 2) for day in days) == 25
    recent = [row.day for row in world.records(new, much_later)]
    assert recent == days[: len(recent)] == [day for day in days if day >= date(2026, 3, 2)]


@pytest.mark.parametrize("shift", [timedelta(days=-1), timedelta(days=2)])
def test_shift_moves_every_release(shift: timedelta) -> None:
    """A shifted world releases the same figures, that much earlier or later."""
    code, shifted = WORLD.codes()[1], replace(WORLD, shift=shift)
    day, at = first_release(WORLD, code, date(2026, 6, 1))
    assert shifted.release(code, day) == at + shift
    assert shifted.records(code, at + shift) == WORLD.records(code, at)
    assert shifted.records(code, at + shift - timedelta(seconds=1))[0].day < day


def test_an_explicit_release_overrides_the_rule() -> None:
    """One day of one market moves to an instant of its own; its neighbours stay."""
    code = WORLD.codes()[1]
    day, at = first_release(WORLD, code, date(2026, 6, 1))
    following, then = first_release(WORLD, code, day + timedelta(days=1))
    world = replace(WORLD, releases={(HONG_KONG, day): then + timedelta(days=1)})
    assert day not in {row.day for row in world.records(code, then)}
    assert world.records(code, then)[0].day == following
    assert world.records(code, then + timedelta(days=1)) == WORLD.records(code, then)
    assert at < then


def test_a_staggered_release_spreads_over_the_symbols() -> None:
    """Each symbol gets its own delay, uniform in the stagger, anew each time."""
    spread = timedelta(hours=2)
    world = replace(CROWD, stagger=spread)
    day = next(reporting_days(HONG_KONG, date(2026, 6, 1)))
    codes = [code for code in CROWD.codes() if market_of(code) is HONG_KONG]
    delays = [(world.release(code, day) - CROWD.release(code, day)) / spread for code in codes]
    assert 0 <= min(delays) < 0.05
    assert 0.95 < max(delays) < 1
    assert 0.4 < sum(delays) / len(delays) < 0.6
    following = next(reporting_days(HONG_KONG, day + timedelta(days=1)))
    assert max(codes, key=lambda code: world.release(code, day)) != max(
        codes, key=lambda code: world.release(code, following)
    )


def test_a_revision_changes_one_day_from_its_instant_on() -> None:
    """The day's short figures are multiplied, everything else stays as it was."""
    at = NOW - timedelta(days=1)
    plain = World(named=(APPLE,))
    target = plain.records(APPLE, NOW)[3]
    world = replace(plain, revisions=(Revision(APPLE, target.day, at, 1.5),))
    assert world.records(APPLE, at - timedelta(seconds=1)) == plain.records(APPLE, at)
    revised = world.records(APPLE, at)
    changed = [
        new for new, old in zip(revised, plain.records(APPLE, at), strict=True) if new != old
    ]
    assert [row.day for row in changed] == [target.day]
    assert changed[0].shares == round((target.shares or 0) * 1.5)
    assert changed[0].ratio == round((target.ratio or 0) * 1.5, 2)
    assert changed[0].close_price == target.close_price


def test_tencent_can_be_revised_when_asked() -> None:
    """A revision applies to hand-given rows, too."""
    revision = Revision(TENCENT, date(2026, 4, 30), NOW, 2.0)
    world = World(revisions=(revision,))
    assert world.records(TENCENT, NOW)[0].shares == 2 * 51480638
    assert world.records(TENCENT, NOW)[1:] == TENCENT_ROWS[1:]


@pytest.mark.parametrize("code", [APPLE, TENCENT])
def test_a_split_rescales_the_whole_history(code: Code) -> None:
    """From its instant on all days show shares times the factor and prices divided by it."""
    plain = World(named=(APPLE,))
    world = replace(plain, splits=(Split(code, NOW, 4.0),))
    before = world.records(code, NOW - timedelta(seconds=1))
    after = world.records(code, NOW)
    assert before == plain.records(code, NOW)
    assert len(after) == len(before)
    for new, old in zip(after, before, strict=True):
        assert new.shares == 4 * (old.shares or 0)
        assert new.ratio == old.ratio
        assert new.close_price == pytest.approx((old.close_price or 0) / 4, abs=0.001)
        if isinstance(new, UsRecord) and isinstance(old, UsRecord):
            assert new.days_to_cover == old.days_to_cover


def test_extra_rows_are_shown_as_given() -> None:
    """Rows given by hand are the answer, from a tuple or from a function of (code, now)."""
    row = UsRecord(None, "2026-08-14", None, None, 1, None, None, None)

    def after_noon(_: Code, now: datetime) -> tuple[UsRecord, ...]:
        return (row,) if now >= NOW else ()

    split = (Split(Code("US.A"), NOW, 2.0),)
    world = World(extra={Code("US.A"): (row,), Code("US.B"): after_noon}, splits=split)
    assert world.codes() == (TENCENT, "US.A", "US.B")
    assert world.records(Code("US.A"), NOW) == (replace(row, avg_daily_share_volume=2),)
    assert world.records(Code("US.B"), NOW - timedelta(seconds=1)) == ()
    assert world.records(Code("US.B"), NOW) == (row,)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ShortInterest("HK.99999"), "未知股票 HK.99999"),
        (ShortInterest("SH.600519"), "不支持的市场 SH.600519"),
        (ShortInterest("HK.800000"), "不支持的证券类型 HK.800000"),
        (ShortInterest("US..DJI"), "不支持的证券类型 US..DJI"),
        (ShortInterest("US.BAD"), "停牌"),
        (ShortInterest(TENCENT, num=0), "num"),
        (ShortInterest(TENCENT, num=51), "num"),
        (ShortInterest(TENCENT, "nonsense"), "next_key"),
        (ShortInterest(TENCENT, END), "next_key"),
    ],
)
def test_refusals(request_: ShortInterest, words: str) -> None:
    """What OpenD does not serve is refused with a text that names it."""
    world = World(refused={Code("US.BAD"): "停牌"})
    outcome, _ = world.answer(request_, NOW)
    assert isinstance(outcome, Refusal)
    assert words in outcome.text


def test_latency_varies_around_its_median() -> None:
    """Answers take between half and one and a half of the latency, always the same for a key."""
    world = replace(WORLD, latency=timedelta(seconds=1))
    taken = [world.answer(ShortInterest(code), NOW)[1] for code in world.codes()]
    assert all(timedelta(seconds=0.5) <= one <= timedelta(seconds=1.5) for one in taken)
    assert len(set(taken)) == len(taken)
    assert taken == [world.answer(ShortInterest(code), NOW)[1] for code in world.codes()]
    assert WORLD.answer(ShortInterest(TENCENT), NOW)[1] == timedelta()


@given(
    steps=st.lists(st.sampled_from([0.0, 0.5, 1.0, 9.0, 10.0, 10.5]), min_size=1, max_size=40),
    requests=st.integers(1, 5),
)
def test_the_window_is_a_sliding_one(steps: list[float], requests: int) -> None:
    """A request passes when fewer than the limit came in the closed period before it."""
    window, arrivals, at = SlidingWindow(requests, 10.0), [0.0][:0], 0.0
    for step in steps:
        at += step
        assert window.admit(at) == (sum(at - old <= 10.0 for old in arrivals) < requests)
        arrivals.append(at)
    assert window.most == max(
        sum(0 <= old - start <= 10.0 for old in arrivals) for start in arrivals
    )


def test_the_window_wants_more_than_a_period() -> None:
    """A 31st request exactly 30 s after the first is refused, and counts; later it is not."""
    window = SlidingWindow()
    assert all(window.admit(0.0) for _ in range(30))
    assert not window.admit(30.0)
    assert window.admit(30.1)
    assert window.most == 31
