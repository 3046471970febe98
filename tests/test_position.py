"""Where a reader of a stream goes on: a table of what may have become of stream and group."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.store.position import (
    LAST,
    SKEW,
    START,
    ReaderState,
    Start,
    StreamState,
    is_id,
    lost,
    resumed,
    start_of,
)
from poller.store.store import order

HOUR = 3_600_000
NOW = 1_795_000_000_000
WHOLE = StreamState(NOW, f"{NOW - HOUR}-7", f"{NOW - 9 * HOUR}-0", 900)
"""A stream that grew for eight hours and then for one did not."""

TAKEN = f"{NOW - 2 * HOUR}-3"
FUTURE = "999999999999999-0"
ANEW = StreamState(NOW, f"{NOW - 5}-0", f"{NOW - 9}-0", 3)
"""A stream that was deleted, and has three entries again."""


@pytest.mark.parametrize(
    ("place", "stream", "start"),
    [
        (ReaderState(), WHOLE, Start(WHOLE.last, 900, new=True)),
        (ReaderState(), StreamState(NOW), Start(START, new=True)),
        (ReaderState(TAKEN, NOW, 800, TAKEN), WHOLE, Start(TAKEN, 800)),
        (ReaderState(group=TAKEN), WHOLE, Start(TAKEN)),
        (ReaderState("rubbish", NOW, group=TAKEN), WHOLE, Start(TAKEN)),
        (ReaderState(TAKEN, NOW, 800), WHOLE, Start(TAKEN, gone=True)),
        (ReaderState(TAKEN, NOW, 800), ANEW, Start(TAKEN, gone=True, missed=ANEW.first)),
        (ReaderState(TAKEN, NOW, 800), StreamState(NOW), Start(TAKEN, gone=True)),
        (
            ReaderState(at=NOW - HOUR),
            ANEW,
            Start(f"{NOW - HOUR - 60_000}-0", gone=True, missed=ANEW.first),
        ),
        (ReaderState(TAKEN, NOW, 800, WHOLE.last, group_moved=True), WHOLE, Start(WHOLE.last)),
        (ReaderState(TAKEN, NOW, 800, WHOLE.last), WHOLE, Start(TAKEN, 800)),
        (ReaderState(TAKEN, NOW, 800, START, group_moved=True), WHOLE, Start(TAKEN, 800)),
        (
            ReaderState(FUTURE, NOW - HOUR),
            ANEW,
            Start(f"{NOW - HOUR - 60_000}-0", gone=True, missed=ANEW.first),
        ),
        (ReaderState(FUTURE, NOW, group=FUTURE), StreamState(NOW), Start(FUTURE)),
        (ReaderState(f"{NOW}-0", NOW, group=WHOLE.last), WHOLE, Start(WHOLE.last)),
        (ReaderState(LAST, NOW, group=LAST), StreamState(NOW, LAST), Start(f"{NOW - 60_000}-0")),
        (
            ReaderState(LAST, NOW, group=f"{2**63}-0"),
            ANEW,
            Start(f"{NOW - 60_000}-0", missed=ANEW.first),
        ),
    ],
    ids=[
        "new", "new at no stream", "known", "a version without records", "a record that is none",
        "group destroyed", "deleted and begun anew", "deleted", "neither record nor group",
        "moved by an older version", "moved by hand", "group behind", "beyond, deleted and anew",
        "beyond an empty stream", "the tail is lost", "the last id there is", "a group beyond",
    ],
)  # fmt: skip
def test_where_a_reader_goes_on(place: ReaderState, stream: StreamState, start: Start) -> None:
    """Nothing that is new is skipped, and no stream is read again as a whole."""
    assert start_of(place, stream) == start


@given(st.integers(0, 2 * NOW), st.integers(1, 2 * NOW))
def test_resuming_skips_nothing_new_and_repeats_little(at: int, last: int) -> None:
    """What is younger than the record comes, what is older by more than the skew does not."""
    position = resumed(at, StreamState(NOW, f"{last}-0", "1-0"))
    assert order(position) <= order(f"{last}-0")
    assert order(position) < order(f"{max(min(at, NOW), 1)}-0")
    assert order(position)[0] >= min(at - SKEW, NOW - SKEW, last)


@pytest.mark.parametrize(
    ("read", "added", "seen", "number"),
    [(10, 30, 20, 0), (10, 30, 5, 15), (None, 30, 5, None), (10, None, 5, None), (10, 3, 3, None)],
)
def test_what_went_before_it_was_seen(
    read: int | None, added: int | None, seen: int, number: int | None
) -> None:
    """A count where the server counts and the stream is the same one."""
    assert lost(read, added, seen) == number


@given(st.text() | st.from_regex(r"\A[0-9]{1,25}-[0-9]{1,25}\Z"))
def test_what_is_an_id(text: str) -> None:
    """What counts as an id can be ordered, and a server takes it."""
    if is_id(text):
        assert max(order(text)) < 2**64
