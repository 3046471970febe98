"""What `history`, `export` and the data frame say of a day beside those before it. In process."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from poller.detect.compare import Known, compare
from poller.markets import Record
from poller.markets.hk import HkRecord
from poller.markets.us import UsRecord
from poller.model import Code, EventType, Vintage
from poller.schedule.facts import FACTS, facts_of
from poller.store.plain import DESCRIBED

SEEN = datetime(2026, 6, 1, tzinfo=UTC)
FIRST = date(2025, 1, 3)

HISTORIES = st.lists(
    st.tuples(
        st.integers(0, 3) | st.integers(100_000, 400_000),
        st.sampled_from([0.5, 1.0, 2.5, 999.99]),
        st.sampled_from([1, 1, 1, 4]),
    ),
    min_size=2,
    max_size=14,
)


def days_of(drawn: list[tuple[int, float, int]], *, hong_kong: bool) -> list[Record]:
    """Return weekly rows; the third figure drawn is the factor of a split before that day."""
    rows: list[Record] = []
    scale = 1
    for week, (shares, cover, factor) in enumerate(drawn):
        day = str(FIRST + timedelta(weeks=week))
        if hong_kong:
            scale *= factor
            rows.append(HkRecord(None, day, shares * scale, shares / 1e5, 80.0 / scale))
        else:
            rows.append(UsRecord(None, day, shares, None, None, cover, 10.0))
    return rows


@settings(max_examples=60, deadline=None)
@given(drawn=HISTORIES, hong_kong=st.booleans())
def test_they_are_what_the_events_said(
    *, drawn: list[tuple[int, float, int]], hong_kong: bool
) -> None:
    """A history that nobody revised tells of each day what its event told, on either market."""
    rows = days_of(drawn, hong_kong=hong_kong)
    code = Code("HK.00700" if hong_kong else "US.AAPL")
    known = Known(rows[0].day, {rows[0].day: Vintage(rows[0], 0, SEEN)})
    facts = facts_of(reversed(rows))[::-1]
    assert (facts[0].change, facts[0].streak) == (None, None)
    for row, fact in zip(rows[1:], facts[1:], strict=True):
        (event, *_) = compare(code, [row], known, observed_at=SEEN, history=1).events or (None,)
        if event is None:  # held as implausible: the history would lack it
            return
        assert event.type is EventType.REPORTED
        change = event.change
        assert change is not None
        assert (fact.zscore, fact.streak) == (change.zscore, change.streak)
        assert fact.days_to_cover_change == change.days_to_cover
        if fact.change is not None:  # neither is below the threshold
            assert (fact.change, fact.change_percent) == (change.shares, change.percent)
        known = Known(row.day, {**known.vintages, row.day: event.vintage})


def test_every_fact_is_a_column() -> None:
    """So that what a person sees, a program can read."""
    assert set(FACTS) < set(DESCRIBED)
