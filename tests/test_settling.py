"""What a source of the watchlist is believed to hold: pure, seconds are numbers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.model import Code
from poller.polling.settling import BRIEF, CONFIRMED, SETTLED, Settling

ALL = [Code(f"HK.{number:05}") for number in range(1, 101)]


def reading(count: int) -> dict[Code, bool]:
    """Return the first so many codes, all watched."""
    return dict.fromkeys(ALL[:count], True)


def settled(count: int) -> Settling:
    """Return a source that is known to hold the first so many codes."""
    source = Settling()
    source.offer(reading(count), 0)
    return source


def test_the_first_reading_is_news() -> None:
    """Also that there is nothing: until then nobody knows. The same again is none."""
    for count in (0, 3):
        source = Settling()
        assert source.offer(reading(count), 0).changed
        assert not source.offer(reading(count), 1).changed


@pytest.mark.parametrize(
    ("before", "after", "pause"),
    [
        (100, 40, CONFIRMED),
        (100, 0, CONFIRMED),
        (100, 89, CONFIRMED),
        (1, 0, CONFIRMED),
        (2, 0, CONFIRMED),
        (100, 90, SETTLED),
        (5, 4, SETTLED),
        (2, 1, SETTLED),
        (20, 18, SETTLED),
        (20, 17, CONFIRMED),
    ],
)
def test_what_is_missing_is_gone_after_a_pause(before: int, after: int, pause: float) -> None:
    """Few codes soon, as an edit by hand; many, or all, only after long. Told: only the latter."""
    source = settled(before)
    much = pause == CONFIRMED
    for second in range(100, 100 + int(pause)):
        assert source.offer(reading(after), second).dropped == 0
        assert len(source.codes) == before
        assert bool(source.doubt) == (much and second >= 100 + BRIEF)
        assert source.recheck == pause
    outcome = source.offer(reading(after), 100 + pause)
    assert outcome.changed
    assert outcome.dropped == (before - after if much else 0)
    assert source.codes == tuple(ALL[:after])
    assert not source.doubt
    assert source.recheck is None


def test_the_words_of_a_doubt() -> None:
    """Both counts and what will happen, in words that stay the same while it lasts."""
    source = settled(100)
    told = set()
    for second in range(10):
        source.offer(reading(40 + second), second)
        told.add(source.doubt)
    text = (
        "it shrank from 100 to 42 codes: the 58 that are missing stay watched until it has been "
        "the same for 60 s"
    )
    assert told == {"", text}


def test_a_source_that_still_grows_loses_nothing() -> None:
    """However slowly it is written, and whatever it gains meanwhile."""
    source = settled(50)
    for step in range(101):
        grown = {Code("US.NEW"): True, **reading(step)}
        assert source.offer(grown, 1000 + step * (CONFIRMED - 1)).dropped == 0
        assert {*ALL[:50], *ALL[:step], "US.NEW"} == {*source.codes}
    assert source.codes == (Code("US.NEW"), *ALL)


def test_a_mark_of_an_operator_counts_at_once() -> None:
    """Not to be watched is as explicit as to be watched; only what vanished is doubted."""
    source = settled(3)
    source.offer({**reading(3), ALL[0]: False}, 1)
    assert source.marks[ALL[0]] is False
    source.offer({ALL[5]: True}, 2)
    assert dict(source.marks) == {**reading(3), ALL[0]: False, ALL[5]: True}


steps = st.lists(
    st.tuples(
        st.sampled_from([1.0, 2.0, SETTLED - 1, SETTLED, CONFIRMED - 1, CONFIRMED, 500.0]),
        st.sets(st.sampled_from(ALL[:12])),
    ),
    min_size=1,
    max_size=30,
)


@given(st.sets(st.sampled_from(ALL[:12])), steps)
def test_nothing_that_stays_is_ever_lost(
    start: set[Code], script: list[tuple[float, set[Code]]]
) -> None:
    """Whatever a source reads like in between: a code goes only when it was absent for a pause.

    And everything a source reads is believed at once, and once it has settled nothing else.
    """
    source = Settling()
    source.offer(dict.fromkeys(sorted(start), True), 0)
    seen = [(0.0, start, set(source.codes))]
    now = 0.0
    for wait, codes in script:
        now += wait
        outcome = source.offer(dict.fromkeys(sorted(codes), True), now)
        assert codes <= set(source.codes)
        assert outcome.changed == (set(source.codes) != seen[-1][2])
        seen.append((now, codes, set(source.codes)))
    for (_, _, before), (at, _, after) in pairwise(seen):
        for code in before - after:
            last = max((when for when, codes, _ in seen if when <= at and code in codes), default=0)
            assert at - last >= SETTLED
            same = [codes for when, codes, _ in seen if at - SETTLED <= when <= at]
            assert all(codes == same[0] for codes in same)
    source.offer(dict.fromkeys(sorted(seen[-1][1]), True), now + CONFIRMED)
    assert set(source.codes) == seen[-1][1]
