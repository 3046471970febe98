"""What a change says: as plainly defined, for any history, and quickly for a long one."""

import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from poller.detect.change import events_of
from poller.detect.compare import Known, compare
from poller.events import StreamEvent, decode, encode
from poller.markets import Record
from poller.markets.hk import HkRecord
from poller.model import Change, Code, EventType, Vintage

CODE = Code("HK.00700")
FIRST = date(2020, 1, 3)
SEEN = datetime(2026, 11, 20, tzinfo=UTC)


def row(day: int, shares: int | None) -> HkRecord:
    """Return the row of a day, counted from the first one."""
    return HkRecord(None, str(FIRST + timedelta(days=day)), shares, 0.5, 10.0, 9.0)


# a few levels and days, so that figures repeat and many lie within a year of each other
histories = st.dictionaries(
    st.integers(0, 120).map(lambda n: 7 * n), st.none() | st.integers(0, 6), max_size=30
)


def vintages(history: Mapping[int, int | None], revision: int) -> dict[date, Vintage]:
    """Return a history as it is known."""
    rows = [row(day, shares) for day, shares in history.items()]
    return {each.day: Vintage(each, revision, SEEN) for each in rows}


def plain(timeline: Mapping[date, Record], day: date) -> tuple[object, ...]:
    """Return percentile, highest, lowest and days, word for word as `Change` defines them."""
    now = timeline[day].shares
    levels = [r.shares for d, r in timeline.items() if d <= day and r.shares is not None]
    year = [
        record.shares
        for earlier, record in timeline.items()
        if earlier < day and day - earlier <= timedelta(days=365) and record.shares is not None
    ]
    return (
        None if now is None else round(100 * sum(n <= now for n in levels) / len(levels), 1),
        None if now is None or not year else now > max(year),
        None if now is None or not year else now < min(year),
        len(levels),
    )


def told(change: Change) -> tuple[object, ...]:
    """Return the same four figures of an event."""
    return change.percentile, change.year_high, change.year_low, change.history_days


@given(histories, histories)
def test_the_facts_are_the_plain_ones(
    before: dict[int, int | None], now: dict[int, int | None]
) -> None:
    """Whatever was known and is found, in any order: each event says what its definition says."""
    known = vintages(before, 0)
    found = vintages(now, 1)
    kinds = {day: (EventType.REVISED if day in known else EventType.REPORTED) for day in found}
    events = events_of(CODE, known, {day: (kinds[day], found[day]) for day in found})
    timeline = {day: v.record for day, v in (known | found).items()}
    assert [event.vintage.day for event in events] == sorted(found)
    for event in events:
        day = event.vintage.day
        earlier = max((each for each in timeline if each < day), default=None)
        previous = known[day].record if day in known else timeline.get(earlier or date.min)
        assert event.previous == previous
        assert (event.change is None) == (previous is None)
        if event.change is not None:
            assert told(event.change) == plain(timeline, day)


def seconds(days: int) -> float:
    """Return the processor time of a first sight, and of as many days found after an outage."""
    rows = [row(day, 1_000_000 + day % 977) for day in range(days)]
    known = Known(rows[0].day, {rows[0].day: Vintage(rows[0], 0, SEEN)})
    began = time.thread_time()
    first = compare(CODE, rows, Known(), observed_at=SEEN, history=days)
    missed = compare(CODE, rows, known, observed_at=SEEN, history=days)
    assert len(first.events) == len(missed.events) + 1 == days
    return time.thread_time() - began


def test_a_long_history_takes_no_longer_a_day() -> None:
    """Eight times the days cost some eight times as much, and not sixty-four times."""
    few = min(seconds(300) for _ in range(3))
    assert min(seconds(2400) for _ in range(3)) < 20 * few


odd = st.sampled_from([-1e18, -1.0, 0.0, 5e-324, 1e-320, 1e-9, 0.001, 493.4, 1e18]) | st.none()
"""Ratios and prices that fit a column, and that another client may have left in history."""

counts = st.sampled_from([1 - 2**64, -1, 0, 1, 100, 10**12, 2**64 - 1]) | st.none()


@given(counts, counts, odd, odd, odd)
def test_figures_nobody_reports_become_an_event_that_can_be_read(
    before: int | None,
    now: int | None,
    price: float | None,
    later: float | None,
    ratio: float | None,
) -> None:
    """Whatever a history contains, a symbol's poll ends, and readers accept its events."""
    known = Vintage(HkRecord(None, "2026-04-30", before, ratio, price, later), 0, SEEN)
    found = Vintage(HkRecord(None, "2026-05-08", now, 0.5, later, price), 0, SEEN)
    kinds = {found.day: (EventType.REPORTED, found)}
    (event,) = events_of(CODE, {known.day: known}, kinds)
    read = decode("1-0", encode(event))
    assert isinstance(read, StreamEvent)
    assert read.change == event.change
