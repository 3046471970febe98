"""Configuration and the vendor's answers: what comes in from outside, parsed once."""

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from poller.errors import (
    BadCode,
    ConfigError,
    Disconnected,
    GatewayError,
    HungUp,
    Malformed,
    NoRight,
    Outdated,
    Overdue,
    Refused,
    Silent,
    TooFrequent,
    Unavailable,
)
from poller.gateway.vendor import error_of, page_of
from poller.markets import Market
from poller.markets.hk import HONG_KONG, HkRecord
from poller.markets.us import UNITED_STATES, UsRecord
from poller.model import Code, parse_code
from poller.settings.codefile import read_codes
from poller.settings.config import Config, load

HK, US = Code("HK.00700"), Code("US.AAPL")


def frame(market: Market, *rows: dict[str, Any], key: str = "-1") -> pd.DataFrame:
    """Return a table as the SDK builds it: absent fields become NaN, or columns of None."""
    table = pd.DataFrame(list(rows)) if rows else pd.DataFrame()
    for name in market.columns:
        if name not in table.columns:
            table[name] = None
    table = table[list(market.columns)]
    table.attrs["next_key"] = key
    return table


def test_absent_fields_become_none() -> None:
    """NaN and columns of None are None; integers stay whole beside an absent one."""
    table = frame(
        UNITED_STATES,
        {"timestamp_str": "2026-10-30", "shares_short": 7, "days_to_cover": 1.0},
        {"timestamp_str": "2026-10-15"},
    )
    first, second = page_of(US, table, frame(HONG_KONG)).records
    assert first == UsRecord(None, "2026-10-30", 7, None, None, 1.0, None, None)
    assert second.shares is None


def test_two_columns_of_one_name_are_not_believed() -> None:
    """Which of them counts nobody can tell."""
    table = frame(HONG_KONG, {"timestamp_str": "2026-10-30", "aggregated_short": 7})
    table.insert(0, "aggregated_short", 8, allow_duplicates=True)
    with pytest.raises(Malformed, match="two columns"):
        page_of(HK, frame(UNITED_STATES), table)


@pytest.mark.parametrize("absent", [None, math.nan, pd.NA, pd.NaT, "", "N/A"])
def test_what_stands_for_absent_is_none(absent: object) -> None:
    """Whichever way the SDK or pandas says that there is no figure."""
    table = frame(HONG_KONG, {"timestamp_str": "2026-10-30", "aggregated_short": 1})
    table["close_price"] = pd.Series([absent], dtype=object)
    (record,) = page_of(HK, frame(UNITED_STATES), table).records
    assert record == HkRecord(None, "2026-10-30", 1, None, None, None)


@pytest.mark.parametrize("figure", ["51480638", "1.5", Decimal(5), [], "many"])
def test_a_figure_that_is_no_number_drops_its_row(figure: object) -> None:
    """Taken for absent, it would be published as null; it is named instead, and others stay."""
    rows = [{"timestamp_str": "2026-10-30"}, {"timestamp_str": "2026-10-23"}]
    table = frame(HONG_KONG, *rows)
    table["aggregated_short"] = pd.Series([figure, 7], dtype=object)
    page = page_of(HK, frame(UNITED_STATES), table)
    assert [(record.timestamp_str, record.shares) for record in page.records] == [("2026-10-23", 7)]
    assert "is not a number" in page.oddities[0]


def test_the_largest_count_survives() -> None:
    """A u64 arrives whole."""
    table = frame(HONG_KONG, {"timestamp_str": "2026-10-30", "aggregated_short": 2**64 - 1})
    assert page_of(HK, frame(UNITED_STATES), table).records[0].shares == 2**64 - 1


def test_the_day_comes_from_the_timestamp_where_the_text_is_absent() -> None:
    """The day is the market's own; a row with neither is dropped and named."""
    table = frame(HONG_KONG, {"timestamp": 1777478400, "aggregated_short": 1}, {"close_price": 2.0})
    page = page_of(HK, frame(UNITED_STATES), table)
    assert page.records == (HkRecord(1777478400, "2026-04-30", 1, None, None, None),)
    assert "neither" in page.oddities[0]


@pytest.mark.parametrize(("key", "expected"), [("-1", None), ("", None), ("20", "20")])
def test_the_end_of_the_pages(key: str, expected: str | None) -> None:
    """Both ways of saying that there is no further page are understood."""
    assert page_of(HK, frame(UNITED_STATES), frame(HONG_KONG, key=key)).next_key == expected


def test_rows_of_the_other_market_are_not_believed() -> None:
    """A Hong Kong code answered with US rows is an answer nobody can trust."""
    with pytest.raises(Malformed):
        page_of(HK, frame(UNITED_STATES, {"timestamp_str": "2026-10-30"}), frame(HONG_KONG))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("获取空头持仓频率太高，请求失败，每30秒最多30次。", TooFrequent),
        ("頻率太高", TooFrequent),
        ("Request Too Frequent", TooFrequent),
        ("PacketErr.Timeout", Silent),
        ("NN_ProtoRet_TimeOut", Overdue),  # a reply: OpenD lives
        ("NN_ProtoRet_SvrFailed", Outdated),
        ("无权限", NoRight),
        ("無權限獲取 US.AAPL 的行情", NoRight),
        ("行情权限不足", NoRight),
        ("没有权限", NoRight),
        ("没有该市场的行情权限，请先购买行情卡", NoRight),
        ("您暫時沒有美股行情權限", NoRight),
        ("No right to subscribe US.AAPL", NoRight),
        ("You have no permission", NoRight),
        ("the account does not have the right to US quotes", NoRight),
        ("Permission denied", NoRight),
        ("no rights, request too frequent", TooFrequent),
        ("该股票已退市，无权限", NoRight),  # which may come back, a listing may not
        ("right", Unavailable),
        ("notright copyright", Unavailable),
        ("Disconnect", HungUp),
        ("invalid connid", Disconnected),
        ("", Unavailable),
        (ValueError("x"), Unavailable),
        ("a text nobody has seen", Unavailable),
        ("未知股票 HK.99999", Refused),
        ("不支持该股票", Refused),
    ],
)
def test_refusals_by_what_to_do_next(message: object, kind: type[GatewayError]) -> None:
    """Only words about the code keep the code out; everything else passes by waiting."""
    error = error_of(message)
    assert type(error) is kind
    assert str(error).count("OpenD refuses it") == (kind is Refused)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("未知股票 HK.00700", "OpenD refuses it: unknown code (未知股票)"),
        ("该股票已退市", "OpenD refuses it: delisted (该股票已退市)"),
        ("unknown stock HK.00700", "OpenD refuses it: unknown stock"),
        ("PacketErr.Timeout", "no answer within 12 s (PacketErr.Timeout)"),
        ("未登录", "OpenD is not logged in (未登录)"),
        ("无权限", "OpenD says that the account has no right to it (无权限)"),
        ("一句新话", "一句新话"),
    ],
)
def test_a_refusal_is_told_once_and_in_english(message: str, told: str) -> None:
    """Whoever asked names the code; what OpenD says in Chinese follows its meaning."""
    assert str(error_of(message)) == told


def test_the_shipped_file_equals_the_defaults(tmp_path: Path) -> None:
    """Deleting every line of config/poller.toml changes nothing, nor where the state is."""
    shipped, empty = tmp_path / "poller.toml", tmp_path / "empty.toml"
    shipped.write_bytes(Path("config/poller.toml").read_bytes())
    empty.touch()
    assert load(shipped, {}) == load(empty, {})
    assert load(empty, {}) == Config().model_copy(update={"state_dir": tmp_path / "state"})


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


def test_weights(tmp_path: Path) -> None:
    """Weights go by code or pattern, in their order; a name that can fit no code is refused."""
    file = tmp_path / "poller.toml"
    file.write_text('[watchlist.weights]\n"HK.00700" = 10\n"US.*" = 0.5\n')
    assert list(load(file, {}).watchlist.weights.items()) == [("HK.00700", 10), ("US.*", 0.5)]
    file.write_text('[watchlist.weights]\nTSLA = 1\n"US.*" = 0\n')
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert len(caught.value.problems) == 2


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


@pytest.mark.parametrize("text", ["HK.700", "hk.700", " hk.0700", "700", "00700", "HK.000700"])
def test_a_code_of_too_few_or_too_many_digits_is_answered_with_the_right_one(text: str) -> None:
    """Whatever its case, with or without its market: the code proposed is one of five digits."""
    assert "write 'HK.00700'" in _refusal(text)


@pytest.mark.parametrize(
    ("text", "proposed"), [("aapl", True), ("AAPL ", True), ("TENCENT", False), ("US", False)]
)
def test_a_symbol_without_its_market(text: str, proposed: bool) -> None:  # noqa: FBT001
    """Letters are taken for one of the United States, unless it is too long or a market."""
    said = _refusal(text)
    assert said.endswith("; write 'US.AAPL'") is proposed
    assert ("write" in said) is proposed


@pytest.mark.parametrize(
    "text", ["", "HK", "HK.", "SH.600519", "HK.00700 ", "us.AAPL", "HK.７", "HK.99999999"]
)
def test_what_is_no_code(text: str) -> None:
    """Anything but a market and a symbol is refused by name."""
    assert repr(text) in _refusal(text)
