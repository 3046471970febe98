"""Reporting days and release days: as they were published, and by rule through 2028."""

from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise, takewhile

import pytest

from poller.markets import Market, all_markets
from poller.markets.hk import HONG_KONG
from poller.markets.us import UNITED_STATES
from poller.schedule.calendar import (
    expected_after,
    is_trading_day,
    knows,
    missing_days,
    release_of,
    released_by,
    reporting_days,
)

HK_PAGE = (
    "2026-02-27 2026-03-06 2026-03-13 2026-03-20 2026-03-27 "
    "2026-04-02 2026-04-10 2026-04-17 2026-04-24 2026-04-30"
)
"""The ten days of HK.00700 on the vendor's page."""

US_RELEASES = """
2023-01-13>01-25 2023-01-31>02-09 2023-02-15>02-27 2023-02-28>03-09 2023-03-15>03-24
2023-03-31>04-12 2023-04-14>04-25 2023-04-28>05-09 2023-05-15>05-24 2023-05-31>06-09
2023-06-15>06-27 2023-06-30>07-12 2023-07-14>07-25 2023-07-31>08-09 2023-08-15>08-24
2023-08-31>09-12 2023-09-15>09-26 2023-09-29>10-10 2023-10-13>10-24 2023-10-31>11-09
2023-11-15>11-27 2023-11-30>12-11 2023-12-15>12-27 2023-12-29>2024-01-10 2024-01-12>01-24
2024-01-31>02-09 2024-02-15>02-27 2024-02-29>03-11 2024-03-15>03-26 2024-03-28>04-09
2024-04-15>04-24 2024-04-30>05-09 2024-05-15>05-24 2024-05-31>06-11 2024-06-14>06-26
2024-06-28>07-10 2024-07-15>07-24 2024-07-31>08-09 2024-08-15>08-26 2024-08-30>09-11
2024-09-13>09-24 2024-09-30>10-09 2024-10-15>10-24 2024-10-31>11-11 2024-11-15>11-26
2024-11-29>12-10 2024-12-13>12-24 2024-12-31>2025-01-10 2025-01-15>01-27 2025-01-31>02-11
2025-02-14>02-26 2025-02-28>03-11 2025-03-14>03-25 2025-03-31>04-09 2025-04-15>04-25
2025-04-30>05-09 2025-05-15>05-27 2025-05-30>06-10 2025-06-13>06-25 2025-06-30>07-10
2025-07-15>07-24 2025-07-31>08-11 2025-08-15>08-26 2025-08-29>09-10 2025-09-15>09-24
2025-09-30>10-09 2025-10-15>10-24 2025-10-31>11-11 2025-11-14>11-25 2025-11-28>12-09
2025-12-15>12-24 2025-12-31>2026-01-12 2026-01-15>01-27 2026-01-30>02-10 2026-02-13>02-25
2026-02-27>03-10 2026-03-13>03-24 2026-03-31>04-10 2026-04-15>04-24 2026-04-30>05-11
2026-05-15>05-27 2026-05-29>06-09 2026-06-15>06-25 2026-06-30>07-10 2026-07-15>07-24
2026-07-31>08-11 2026-08-14>08-25 2026-08-31>09-10 2026-09-15>09-24 2026-09-30>10-09
2026-10-15>10-26 2026-10-30>11-10 2026-11-13>11-24 2026-11-30>12-09 2026-12-15>12-24
2026-12-31>2027-01-12 2027-01-15>01-27 2027-01-29>02-09 2027-02-12>02-24 2027-02-26>03-09
2027-03-15>03-24 2027-03-31>04-09 2027-04-15>04-26 2027-04-30>05-11 2027-05-14>05-25
2027-05-28>06-09 2027-06-15>06-25 2027-06-30>07-12 2027-07-15>07-26 2027-07-30>08-10
2027-08-13>08-24 2027-08-31>09-10 2027-09-15>09-24 2027-09-30>10-11 2027-10-15>10-26
2027-10-29>11-09 2027-11-15>11-24 2027-11-30>12-09 2027-12-15>12-27
"""
"""Settlement > publication (the year where it changes): 48 pairs as published, then the rule."""


def days(market: Market, first: str, last: str) -> list[str]:
    """Return the reporting days from one to another."""
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return [str(day) for day in takewhile(lambda day: day <= end, reporting_days(market, start))]


def test_the_vendors_ten_days() -> None:
    """The days of the vendor's page, with its two Thursdays before a holiday."""
    found = islice(reporting_days(HONG_KONG, date(2026, 2, 23)), 10)
    assert [str(day) for day in found] == HK_PAGE.split()


@pytest.mark.parametrize("pair", US_RELEASES.split())
def test_us_releases(pair: str) -> None:
    """Every settlement day from 2023 through 2027 is known, and the day it is published."""
    settled, _, published = pair.partition(">")
    release = release_of(UNITED_STATES, date.fromisoformat(settled))
    assert str(release.opens.date()).endswith(published)
    assert next(reporting_days(UNITED_STATES, release.day)) == release.day


def test_us_settlement_days_are_those_and_no_others() -> None:
    """Between the first and the last pair the rule names nothing else."""
    settled = [pair.partition(">")[0] for pair in US_RELEASES.split()]
    assert days(UNITED_STATES, settled[0], settled[-1]) == settled


@pytest.mark.parametrize(
    ("week", "day"),
    [
        ("2024-03-25", "2024-03-28"),  # Good Friday
        ("2026-03-30", "2026-04-02"),
        ("2027-03-22", "2027-03-25"),
        ("2028-04-10", "2028-04-13"),
        ("2026-04-27", "2026-04-30"),  # Labour Day
        ("2027-09-27", "2027-09-30"),  # National Day
        ("2028-01-24", "2028-01-25"),  # Chinese New Year from Wednesday on
    ],
)
def test_a_week_that_ends_early(week: str, day: str) -> None:
    """Before a holiday the last trading day of the week reports, be it Thursday or earlier."""
    assert str(next(reporting_days(HONG_KONG, date.fromisoformat(week)))) == day


@pytest.mark.parametrize("day", ["2023-09-01", "2023-09-08", "2024-09-06"])
def test_a_typhoon_moves_nothing(day: str) -> None:
    """A day the exchange closed unforeseen is a reporting day all the same."""
    friday = date.fromisoformat(day)
    assert next(reporting_days(HONG_KONG, friday - timedelta(days=4))) == friday


@pytest.mark.parametrize("day", ["2026-02-16", "2026-12-24", "2027-12-31", "2028-12-22"])
def test_half_days_count(day: str) -> None:
    """The exchange trades in the morning of New Year's Eve, old and new, and of Christmas Eve."""
    assert is_trading_day(HONG_KONG, date.fromisoformat(day))


@pytest.mark.parametrize("year", range(2023, 2028))
def test_year_ends(year: int) -> None:
    """Around New Year every week has one day, each later than the last and released after it."""
    found = [
        date.fromisoformat(day) for day in days(HONG_KONG, f"{year}-12-15", f"{year + 1}-01-16")
    ]
    weeks = [day - timedelta(days=day.weekday()) for day in found]
    assert all(b - a == timedelta(days=7) for a, b in pairwise(weeks))
    assert all(release_of(HONG_KONG, day).opens.date() > day for day in found)


def test_a_holiday_on_release_day_opens_the_window_before() -> None:
    """The window opens on the last trading day on or before the usual Friday, 09:00 local time."""
    release = release_of(HONG_KONG, date(2028, 4, 7))
    assert release.opens.isoformat() == "2028-04-13T09:00:00+08:00"
    assert expected_after(HONG_KONG, date(2028, 4, 7)).day == date(2028, 4, 13)


def test_through_2028_each_week_and_half_month_reports_once() -> None:
    """No week of Hong Kong trading is left out, no half-month of the US, in six years."""
    hong_kong = days(HONG_KONG, "2023-01-01", "2028-12-31")
    assert len({date.fromisoformat(day).isocalendar()[:2] for day in hong_kong}) == len(hong_kong)
    assert 52 * 6 - 6 <= len(hong_kong) <= 313  # whole weeks of Chinese New Year may lack one
    assert len(days(UNITED_STATES, "2023-01-01", "2028-12-31")) == 6 * 24


def test_where_the_calendar_ends_weekdays_count() -> None:
    """Beyond the known holidays nothing fails: weekdays trade, and it can be told."""
    assert all(knows(market, year) for market in all_markets() for year in range(2023, 2029))
    assert not knows(HONG_KONG, 2150)
    assert is_trading_day(UNITED_STATES, date(2150, 12, 25)) == (date(2150, 12, 25).weekday() < 5)
    assert release_of(UNITED_STATES, date(2150, 6, 15)).opens.date() == date(2150, 6, 24)


@pytest.mark.parametrize(
    ("market", "known", "now", "missing"),
    [
        (HONG_KONG, ["2026-03-20", "2026-04-10"], "2026-04-23T02", ["2026-03-27", "2026-04-02"]),
        (HONG_KONG, ["2026-03-20"], "2026-04-02T00", []),
        (HONG_KONG, ["2026-03-20"], "2026-04-02T02", ["2026-03-27"]),
        (HONG_KONG, ["2026-12-18"], "2027-01-15T02", ["2026-12-24", "2026-12-31", "2027-01-08"]),
        (HONG_KONG, ["2026-02-06"], "2026-02-27T02", ["2026-02-13", "2026-02-20"]),
        (
            UNITED_STATES,
            ["2026-02-13", "2026-03-31"],
            "2026-04-14T00",
            ["2026-02-27", "2026-03-13"],
        ),
        (UNITED_STATES, ["2026-04-30"], "2026-06-09T21", ["2026-05-15", "2026-05-29"]),
        (UNITED_STATES, ["2026-04-30"], "2026-06-09T19", ["2026-05-15"]),
        (UNITED_STATES, [], "2026-06-09T19", []),
    ],
    ids=[
        "Good Friday", "not released", "just released", "year's end", "New Year's week",
        "weekends at month ends", "month's end released", "an hour before", "nothing known",
    ],
)  # fmt: skip
def test_missing_days(market: Market, known: list[str], now: str, missing: list[str]) -> None:
    """What the calendar expects and nobody knows, of what is released by now."""
    days = [date.fromisoformat(text) for text in known]
    found = missing_days(market, days, datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert [str(day) for day in found] == missing


@pytest.mark.parametrize("market", all_markets())
def test_the_last_that_is_out(market: Market) -> None:
    """From the second at which its window opens."""
    out = list(islice(reporting_days(market, date(2025, 11, 1)), 12))
    for place in (5, 8, 11):
        opens = release_of(market, out[place]).opens
        assert released_by(market, opens) == out[place]
        assert released_by(market, opens - timedelta(seconds=1)) == out[place - 1]
