"""The bounds of what is read: the last value that is taken, and the first that is refused."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import pytest

from poller.codec import (
    Codec,
    Day,
    Figure,
    Moment,
    Whole,
    from_millis,
    is_within,
    number,
    read_day,
    read_json,
)
from poller.codec import read_moment as moment
from poller.errors import Unreadable


@dataclass(frozen=True, slots=True)
class Bounded:
    """One field of each bounded kind."""

    whole: Whole = 0
    figure: Figure = 0.0
    day: Day = date(2026, 1, 1)
    at: Moment = datetime(2026, 1, 1, tzinfo=UTC)


CODEC = Codec[Bounded](Bounded, most=100)


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        ("whole", str(2**64 - 1), str(2**64)),
        ("whole", str(1 - 2**64), str(-(2**64))),
        ("whole", "1", "1.5"),
        ("figure", "1e18", "1.1e18"),
        ("figure", "-1e18", "-1.1e18"),
        ("figure", "1", "NaN"),
        ("day", '"1900-01-01"', '"1899-12-31"'),
        ("day", '"2199-12-31"', '"2200-01-01"'),
        ("at", '"1900-01-01T00:00:00Z"', '"1899-12-31T23:59:59Z"'),
        ("at", '"2199-12-31T23:59:59Z"', '"2200-01-01T00:00:00Z"'),
        ("at", '"1900-01-01T00:00:00-01:00"', '"1900-01-01T00:00:00+01:00"'),
        ("at", '"2199-12-31T23:59:59+01:00"', '"2199-12-31T23:59:59-01:00"'),
        ("at", '"2026-01-01T00:00:00+08:00"', '"2026-01-01T00:00:00"'),
    ],
)
def test_figures_and_days_have_bounds(name: str, taken: str, refused: str) -> None:
    """The bound is taken; beyond it the field is named."""
    CODEC.read(f'{{"{name}": {taken}}}')
    with pytest.raises(Unreadable, match=name if refused != "NaN" else "."):
        CODEC.read(f'{{"{name}": {refused}}}')


def test_of_several_faults_the_first_is_named() -> None:
    """In the order of the fields, whatever the order of the text."""
    with pytest.raises(Unreadable, match=r"^whole: .{10,}"):
        CODEC.read('{"day": 1, "figure": "x", "whole": "x"}')


def test_a_text_has_a_length() -> None:
    """As many characters as are allowed are read, one more is not."""
    assert CODEC.read("{}".ljust(100)) == Bounded()
    assert read_json("{}".ljust(100), most=100) == {}
    for read in (CODEC.read, lambda text: read_json(text, most=100)):
        with pytest.raises(Unreadable, match="101 characters; the most is 100"):
            read("{}".ljust(101))


def test_days_and_instants_of_the_years_that_count() -> None:
    """A day of any year is read where it is asked for, and only there."""
    assert read_day("1900-01-01") == date(1900, 1, 1)
    assert read_day("2199-12-31") == date(2199, 12, 31)
    assert read_day("0001-01-01", any_year=True) == date(1, 1, 1)
    for text in ("1899-12-31", "2200-01-01", "0001-01-01", "2026-1-1", "2026-02-30", "20260101"):
        with pytest.raises(Unreadable):
            read_day(text)
    assert moment("2026-01-01T00:00:00Z") == datetime(2026, 1, 1, tzinfo=UTC)
    beyond = ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2200-01-01T00:00:00Z")
    for text in ("2026-01-01T00:00:00", *beyond):
        with pytest.raises(Unreadable):
            moment(text)


def test_a_redis_clock_beyond_the_years_that_count_is_moved_to_them() -> None:
    """Within them it is exact to the millisecond."""
    began = datetime(1970, 1, 1, tzinfo=UTC)
    assert from_millis(1_500) == began + timedelta(seconds=1.5)
    assert from_millis(1e18) == datetime(2199, 12, 31, tzinfo=UTC)
    assert from_millis(-1e18) == datetime(1900, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("9007199254740991", 2.0**53 - 1),
        ("-9007199254740991", 1 - 2.0**53),
        ("9007199254740992", None),
        ("-9007199254740992", None),
        ("nan", None),
        ("inf", None),
        ("x", None),
        (None, None),
    ],
)
def test_a_number_of_a_hash_has_bounds(text: str | None, read: float | None) -> None:
    """What is no number, or none that a float holds to the last digit, counts as absent."""
    assert number({} if text is None else {"name": text}, "name") == read


@pytest.mark.parametrize(
    ("value", "fits"),
    [(2**64 - 1, True), (1 - 2**64, True), (2**64, False), (1e18, True), (-1.1e18, False)],
)
def test_what_is_computed_has_the_bounds_of_what_is_read(value: float, *, fits: bool) -> None:
    """A count those of a count, whose own are wider than a figure's."""
    assert is_within(value) is fits
