"""Configuration and the vendor's answers: what comes in from outside, parsed once."""

from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from poller.calendar import release_of, reporting_days
from poller.codefile import read_codes
from poller.config import Config, load
from poller.errors import (
    BadCode,
    ConfigError,
    GatewayError,
    Malformed,
    Refused,
    TooFrequent,
    Unavailable,
)
from poller.model import Code, HkRecord, Market, UsRecord, columns, parse_code
from poller.schedule import (
    Answered,
    Excluded,
    Failed,
    Intervals,
    Probe,
    Schedule,
    Wait,
)
from poller.vendor import error_of, page_of

HK, US = Code("HK.00700"), Code("US.AAPL")
NOW = datetime(2026, 11, 20, tzinfo=UTC)


def frame(market: Market, *rows: dict[str, Any], key: str = "-1") -> pd.DataFrame:
    """Return a table as the SDK builds it: absent fields become NaN, or columns of None."""
    table = pd.DataFrame(list(rows)) if rows else pd.DataFrame()
    for name in columns(market):
        if name not in table.columns:
            table[name] = None
    table = table[list(columns(market))]
    table.attrs["next_key"] = key
    return table


def test_absent_fields_become_none() -> None:
    """NaN and columns of None are None; integers stay whole beside an absent one."""
    table = frame(
        Market.US,
        {"timestamp_str": "2026-10-30", "shares_short": 7, "days_to_cover": 1.0},
        {"timestamp_str": "2026-10-15"},
    )
    first, second = page_of(US, table, frame(Market.HK)).records
    assert first == UsRecord(None, "2026-10-30", 7, None, None, 1.0, None, None)
    assert second.shares is None


def test_the_largest_count_survives() -> None:
    """A u64 arrives whole."""
    table = frame(Market.HK, {"timestamp_str": "2026-10-30", "aggregated_short": 2**64 - 1})
    assert page_of(HK, frame(Market.US), table).records[0].shares == 2**64 - 1


def test_the_day_comes_from_the_timestamp_where_the_text_is_absent() -> None:
    """The day is the market's own; a row with neither is dropped and named."""
    table = frame(Market.HK, {"timestamp": 1777478400, "aggregated_short": 1}, {"close_price": 2.0})
    page = page_of(HK, frame(Market.US), table)
    assert page.records == (HkRecord(1777478400, "2026-04-30", 1, None, None, None),)
    assert "neither" in page.oddities[0]


@pytest.mark.parametrize(("key", "expected"), [("-1", None), ("", None), ("20", "20")])
def test_the_end_of_the_pages(key: str, expected: str | None) -> None:
    """Both ways of saying that there is no further page are understood."""
    assert page_of(HK, frame(Market.US), frame(Market.HK, key=key)).next_key == expected


def test_rows_of_the_other_market_are_not_believed() -> None:
    """A Hong Kong code answered with US rows is an answer nobody can trust."""
    with pytest.raises(Malformed):
        page_of(HK, frame(Market.US, {"timestamp_str": "2026-10-30"}), frame(Market.HK))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("获取空头持仓频率太高，请求失败，每30秒最多30次。", TooFrequent),
        ("頻率太高", TooFrequent),
        ("Request Too Frequent", TooFrequent),
        ("PacketErr.Timeout", Unavailable),
        ("Disconnect", Unavailable),
        ("invalid connid", Unavailable),
        ("", Unavailable),
        (ValueError("x"), Unavailable),
        ("a text nobody has seen", Unavailable),
        ("未知股票 HK.99999", Refused),
        ("不支持该股票", Refused),
    ],
)
def test_refusals_by_what_to_do_next(message: object, kind: type[GatewayError]) -> None:
    """Only words about the code keep the code out; everything else passes by waiting."""
    assert type(error_of(message, HK)) is kind


def test_the_shipped_file_equals_the_defaults() -> None:
    """Deleting every line of config/poller.toml changes nothing."""
    assert load(Path("config/poller.toml"), {}) == Config()


def test_every_problem_at_once(tmp_path: Path) -> None:
    """Each problem is one line with its key; no secret is shown."""
    watchlist = tmp_path / "list"
    watchlist.write_text("HK.00700\nSH.600519 # not ours\n")
    file = tmp_path / "poller.toml"
    file.write_text(
        f'watchlist.files = ["{watchlist}"]\nwatchlist.codes = ["HK.1"]\n'
        'budget.request = 3\nredis.url = "http://u:hunter2@h"\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(file, {"POLLER_SCHEDULE__DUE": "soon"})
    text = str(caught.value)
    for part in ("list:2", "HK.00001", "did you mean 'requests'", "redis.url", "SCHEDULE__DUE"):
        assert part in text
    assert len(caught.value.problems) == 5
    assert "hunter2" not in text


def test_environment_and_secret_files(tmp_path: Path) -> None:
    """Variables override, also in the second gateway; a URL from a file stays out of repr."""
    secret = tmp_path / "url"
    secret.write_text("redis://:hunter2@127.0.0.1/0\n")
    config = load(
        None,
        {
            "POLLER_OPEND__PORT": "5",
            "POLLER_OPEND__1__PORT": "6",
            "POLLER_WATCHLIST__CODES": "HK.00700, US.AAPL",
            "POLLER_REDIS__URL_FILE": str(secret),
        },
    )
    assert [gateway.port for gateway in config.opend] == [5, 6]
    assert config.watchlist.codes == (HK, US)
    assert config.redis.url is not None
    assert config.redis.url.get_secret_value().startswith("redis://:hunter2")
    assert "hunter2" not in repr(config)


def test_more_than_ten_gateways_by_environment() -> None:
    """Tables are taken in the order of their numbers, not of their digits."""
    ports = {f"POLLER_OPEND__{n}__PORT": str(1000 + n) for n in range(12)}
    assert [table.port for table in load(None, ports).opend] == list(range(1000, 1012))


def test_a_watchlist_file_names_its_bad_lines(tmp_path: Path) -> None:
    """Good lines count, bad ones are named with their place."""
    path = tmp_path / "list"
    path.write_text("# mine\nHK.00700\nhk.00005\n")
    codes, problems = read_codes(path)
    assert codes == (HK,)
    assert problems == [f"{path}:3: {_refusal('hk.00005')}"]


def _refusal(text: str) -> str:
    with pytest.raises(BadCode) as caught:
        parse_code(text)
    return str(caught.value)


@pytest.mark.parametrize("text", ["", "HK", "HK.", "SH.600519", "HK.00700 ", "us.AAPL", "HK.７"])
def test_what_is_no_code(text: str) -> None:
    """Anything but a market and a symbol is refused by name."""
    assert repr(text) in _refusal(text)


def test_hong_kong_reporting_days() -> None:
    """The ten days of the vendor's page, with its Thursdays; a typhoon does not move a day."""
    days = [str(day) for day in islice(reporting_days(Market.HK, date(2026, 2, 23)), 10)]
    assert days == [
        "2026-02-27", "2026-03-06", "2026-03-13", "2026-03-20", "2026-03-27",
        "2026-04-02", "2026-04-10", "2026-04-17", "2026-04-24", "2026-04-30",
    ]  # fmt: skip
    assert next(reporting_days(Market.HK, date(2023, 8, 28))) == date(2023, 9, 1)


@pytest.mark.parametrize(
    ("settled", "published"),
    [
        ("2023-01-13", "2023-01-25"),
        ("2023-03-31", "2023-04-12"),
        ("2023-09-29", "2023-10-10"),
        ("2027-06-15", "2027-06-25"),
        ("2027-12-15", "2027-12-27"),
    ],
)
def test_us_publication(settled: str, published: str) -> None:
    """FINRA publishes on the seventh exchange business day after settlement."""
    release = release_of(Market.US, date.fromisoformat(settled))
    assert str(release.opens.date()) == published


INTERVALS = Intervals(timedelta(seconds=30), timedelta(minutes=20), timedelta(minutes=5))


def test_oldest_first_and_never_twice_at_once() -> None:
    """New symbols come in order; one that is being polled is not chosen again."""
    plan = Schedule(INTERVALS)
    plan.watch([HK, US])
    assert [plan.next(NOW), plan.next(NOW)] == [
        Probe(HK, "it was not looked at since the start"),
        Probe(US, "it was not looked at since the start"),
    ]
    assert plan.next(NOW) == Wait(None)


@pytest.mark.parametrize(
    ("watermark", "now", "pause"),
    [
        (date(2026, 11, 6), datetime(2026, 11, 16, tzinfo=UTC), timedelta(minutes=20)),
        (date(2026, 11, 6), datetime(2026, 11, 20, 2, tzinfo=UTC), timedelta(seconds=30)),
        (date(2026, 11, 6), datetime(2026, 11, 21, 2, tzinfo=UTC), timedelta(minutes=5)),
        (date(2026, 11, 6), datetime(2026, 11, 20, 0, 55, tzinfo=UTC), timedelta(minutes=5)),
        (None, NOW, timedelta(minutes=20)),
    ],
    ids=["idle", "due", "late", "idle until the window opens", "without rows"],
)
def test_intervals(watermark: date | None, now: datetime, pause: timedelta) -> None:
    """The calendar chooses between the three intervals."""
    plan = Schedule(INTERVALS)
    plan.watch([HK])
    plan.next(now)
    plan.record(HK, Answered(watermark), now)
    assert plan.due_at() == now + pause


def test_failures_and_refusals_pause_longer_and_longer() -> None:
    """A failing symbol is asked again soon, a refused one seldom, neither never."""
    plan = Schedule(INTERVALS)
    plan.watch([HK])
    pauses = []
    outcomes: list[Failed | Excluded] = [*[Failed()] * 3, *[Excluded()] * 10]
    for outcome in outcomes:
        plan.record(HK, outcome, NOW)
        due = plan.due_at()
        assert due is not None
        pauses.append(due - NOW)
    assert pauses[:3] == [timedelta(seconds=s) for s in (30, 60, 120)]
    assert pauses[-1] == timedelta(days=1)


def test_a_clock_that_steps_back_delays_by_an_idle_interval_at_most() -> None:
    """After a step of a day nothing waits for the day to pass again."""
    plan = Schedule(INTERVALS)
    plan.watch([HK])
    plan.next(NOW)
    plan.record(HK, Answered(None), NOW)
    earlier = NOW - timedelta(days=1)
    plan.tick(earlier)
    assert plan.due_at() == earlier + INTERVALS.idle
