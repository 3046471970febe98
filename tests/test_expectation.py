"""How long to pause between two looks for a report, second by second around each boundary."""

from datetime import UTC, datetime, timedelta

import pytest

from poller.markets.hk import HONG_KONG
from poller.schedule.calendar import release_of
from poller.schedule.release import MarketState, Window, expected, next_probe
from poller.schedule.sweep import BLOCK, Sweep
from tests.test_schedule import DAY, INTERVALS, NOW, OLD, seen

HK = HONG_KONG
OPENS = release_of(HK, DAY).opens.astimezone(UTC)
CALENDAR = expected(HK, OLD, ())
"""The window of `DAY` before any hour was learned: from 09:00 in Hong Kong on."""

LEARNED = expected(HK, OLD, seen([8, 9, 9.5, 10]))
"""The same when reports came so many hours later: from 7.5 to 10.5 hours after it."""


def hours(number: float, seconds: float = 0) -> timedelta:
    """Return a time after the calendar's window opens."""
    return timedelta(hours=number, seconds=seconds)


@pytest.mark.parametrize(
    ("window", "at", "seconds", "why"),
    [
        (CALENDAR, hours(0, -1), 30, "is expected from"),
        (CALENDAR, hours(0), 30, "is due"),
        (CALENDAR, hours(12, -1), 30, "is due"),
        (CALENDAR, hours(12), 300, "is late"),
        (LEARNED, hours(0, -1), 30, "is expected from"),
        (LEARNED, hours(0), 300, "usually comes from 2026-11-20 16:30 HKT on"),
        (LEARNED, hours(7.5, -180), 180, "usually comes from"),
        (LEARNED, hours(7.5, -10), 30, "usually comes from"),
        (LEARNED, hours(7.5), 45, "is due"),
        (LEARNED, hours(7.5, 6000), 30, "is due"),
        (LEARNED, hours(10.5, -1), 15, "is due"),
        (LEARNED, hours(10.5), 30, "is due"),
        (LEARNED, hours(19.5, -1), 30, "is due"),
        (LEARNED, hours(19.5), 300, "is late"),
    ],
)
def test_around_a_window(window: Window, at: timedelta, seconds: float, why: str) -> None:
    """Eager while it is likely, most of all at its end; seldom once it is late."""
    now = OPENS + at
    probe, reason = next_probe(HK, window, now, INTERVALS)
    assert (probe - now).total_seconds() == pytest.approx(seconds, abs=0.001)
    assert why in reason


@pytest.mark.parametrize(
    ("local", "minutes"),
    [
        ("2026-11-18 06:59:59", 240),
        ("2026-11-18 07:00:00", 60),
        ("2026-11-18 08:59:59", 60),
        ("2026-11-18 09:00:00", 20),
        ("2026-11-18 15:00:00", 20),
        ("2026-11-18 15:00:01", 60),
        ("2026-11-18 22:59:59", 60),
        ("2026-11-18 23:00:00", 240),
        ("2026-11-16 09:00:00", 20),
        ("2026-11-14 09:00:00", 240),
        ("2026-11-13 09:00:00", 240),
        ("2026-11-19 22:00:00", 60),
        ("2026-11-20 08:50:00", 10),
    ],
)
def test_before_a_window(local: str, minutes: float) -> None:
    """By the hours at which reports came, on days on which anybody publishes; then as it opens."""
    now = datetime.fromisoformat(local).replace(tzinfo=HK.zone)
    probe, _ = next_probe(HK, CALENDAR, now, INTERVALS)
    assert (probe - now).total_seconds() == pytest.approx(60 * minutes)


def test_what_is_later_than_the_newest_watermark_is_not_believed() -> None:
    """Of the releases that a plan tells, those up to it stay; the last of them is the newest."""
    told = tuple(seen([8, 9, 10]))
    state = MarketState(OLD, told, open=OLD)
    assert state.until(OLD) == state
    assert state.until(told[1].day) == MarketState(told[1].day, told[:2])
    assert state.until(None) == MarketState()


def misses(sweep: Sweep, count: int, *, wanted: int, kept_up: bool = True) -> None:
    """Let so many answers bring nothing."""
    for _ in range(count):
        sweep.tally(news=False, kept_up=kept_up, outstanding=wanted, now=NOW)


def hits(sweep: Sweep, count: int) -> None:
    """Let so many answers bring news."""
    for _ in range(count):
        sweep.tally(news=True, kept_up=True, outstanding=100, now=NOW)


def stage(sweep: Sweep) -> tuple[bool, datetime | None]:
    """Return whether it runs, and when it goes on."""
    return sweep.running, sweep.resumes


def begun() -> Sweep:
    """Return a sweep that has just begun."""
    sweep = Sweep(INTERVALS)
    sweep.begin()
    return sweep


@pytest.mark.parametrize(
    ("hit", "kept_up", "wanted", "limit"),
    [
        (0, True, 100, BLOCK),
        (0, True, 7, 7),
        (2, True, 100, BLOCK),
        (3, True, 100, 100),
        (3, True, 40, 2 * BLOCK),
        (3, False, 100, BLOCK),
    ],
)
def test_misses_that_end_a_sweep(hit: int, wanted: int, limit: int, *, kept_up: bool) -> None:
    """A block of them, or all that are left; where hits came between, a whole pass."""
    sweep = begun()
    hits(sweep, hit)
    misses(sweep, limit - 1, wanted=wanted, kept_up=kept_up)
    assert stage(sweep) == (True, None)
    misses(sweep, 1, wanted=wanted, kept_up=kept_up)
    assert stage(sweep) == (False, NOW + timedelta(minutes=1))


def test_a_hit_ends_the_pauses() -> None:
    """Then misses count anew, and the next pause is the first again."""
    sweep = begun()
    misses(sweep, BLOCK, wanted=100)
    sweep.resume()
    misses(sweep, BLOCK, wanted=100)
    assert stage(sweep) == (False, NOW + timedelta(minutes=2))
    sweep.resume()
    misses(sweep, BLOCK - 1, wanted=100)
    hits(sweep, 1)
    assert stage(sweep) == (True, None)
    misses(sweep, BLOCK - 1, wanted=100)
    assert stage(sweep) == (True, None)
    misses(sweep, 1, wanted=100)
    assert stage(sweep) == (False, NOW + timedelta(minutes=1))


def test_a_block_after_a_pause_is_one_also_where_hits_came_between() -> None:
    """A whole pass without news has been made by then."""
    sweep = begun()
    hits(sweep, 3)
    misses(sweep, 100, wanted=100)
    sweep.resume()
    misses(sweep, BLOCK, wanted=100)
    assert not sweep.running


@pytest.mark.parametrize(("hit", "poor"), [(14, True), (15, False)])
def test_a_sweep_is_poor_below_half(hit: int, *, poor: bool) -> None:
    """Of the last block of answers, once there is one."""
    sweep = begun()
    hits(sweep, hit)
    misses(sweep, BLOCK - 1 - hit, wanted=1000)
    assert not sweep.low_yield
    misses(sweep, 1, wanted=1000)
    assert sweep.low_yield is poor


def test_pauses_that_complete_a_release() -> None:
    """The fifth block in a row that brings nothing; a new release begins as the first did."""
    sweep = begun()
    for block in range(1, 7):
        misses(sweep, BLOCK, wanted=100)
        assert sweep.is_exhausted is (block >= 5)
        sweep.resume()
    sweep.begin()
    assert not sweep.is_exhausted
    assert stage(sweep) == (True, None)
    assert not sweep.low_yield
    assert not sweep.staggered
