"""Retry-After as receivers write it: a bounded time or nothing, whatever the bytes."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.delivery.retry import LONGEST_HOLD, retry_after

NOW = datetime(2026, 5, 8, tzinfo=UTC)

DATES = (
    "Fri, 08 May 2026 00:02:00 GMT",
    "Friday, 08-May-26 00:02:00 GMT",
    "Fri May  8 00:02:00 2026",
    "Fri, 08 May 2026 02:02:00 +0200",
)


@pytest.mark.parametrize("text", [*DATES, "120", " 120\t", "120.0", "1.2e2"])
def test_each_form_of_two_minutes(text: str) -> None:
    """Seconds, and the three dates of HTTP; one without a zone is UTC."""
    assert retry_after(text, NOW) == timedelta(minutes=2)


@pytest.mark.parametrize("text", ["9" * 60, "1e999", "86401", "Fri, 31 Dec 9999 23:59:59 -2359"])
def test_what_is_absurd_is_bounded(text: str) -> None:
    """Nobody keeps an endpoint waiting for more than a day."""
    assert retry_after(text, NOW) == LONGEST_HOLD


@pytest.mark.parametrize(
    "text",
    [
        "Mon, 01 Jan 2026 00:00:00 -9999999999991999",
        "Mon, 01 Jan 2026 00:00:00 +9999",
        "Mon, 01 Jan 99999 00:00:00 GMT",
        "Mon, 01 Jan 2026 99999:00:00 GMT",
        "Mon, 99 Jan 2026 00:00:00 GMT",
        "nan", "inf", "-1", "+1", "1_000", "0x10", "1,2", "١٢٠", "²", "1 2", "\udcff", "\x00", "",
        " ", ",", "GMT", "1 Jan", "Mon, , 2026", "9" * 5000, "1." + "0" * 5000, "Jan " * 5000,
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_nothing(text: str) -> None:
    """Also what the library of dates falls over."""
    assert retry_after(text, NOW) is None


def bounded(text: str) -> None:
    """Check that it is read as nothing or as a time within bounds, on any clock."""
    for now in (NOW, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        found = retry_after(text, now)
        assert found is None or timedelta(0) <= found <= LONGEST_HOLD


@given(st.text())
def test_any_text(text: str) -> None:
    """It never raises."""
    bounded(text)


@given(
    st.lists(
        st.sampled_from(
            [*" ,:-+.e/", "Mon", "Friday", "Jan", "may", "GMT", "EST", "PM", "T", "UTC"]
        )
        | st.integers(-1, 10**9).map(str)
        | st.text(st.characters(categories=["Nd", "Cs", "Cc"]), max_size=3),
        max_size=16,
    ).map("".join)
)
def test_what_looks_like_a_date(text: str) -> None:
    """It never raises, whatever its parts are."""
    bounded(text)


@given(
    st.sampled_from(DATES),
    st.integers(0, 40),
    st.text(max_size=4) | st.integers().map(str),
    st.integers(0, 6),
)
def test_a_date_that_is_spoiled(date: str, at: int, put: str, cut: int) -> None:
    """It never raises, whatever stands in the place of a few of its characters."""
    bounded(date[:at] + put + date[at + cut :])
