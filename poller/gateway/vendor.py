"""What the SDK's answers mean: DataFrames → page, texts → errors. Parsed here, once.

The SDK returns `(0, us_frame, hk_frame)` or `(-1, text, None)`. The other market's frame is empty.
An absent field in some rows turns an integer column into floats with NaN, in all rows into a column
of None; `timestamp_str` changes its type with the version of pandas. So every cell is read alone.
"""

import math
import numbers
import re
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import fields
from datetime import date, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

from poller.codec import Whole
from poller.errors import (
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
from poller.markets import Market, Record, market_names
from poller.model import Code, Page, market_of
from poller.printable import printable

if TYPE_CHECKING:
    import pandas as pd

_TOO_FREQUENT: Final = ("频率太高", "頻率太高", "too frequent", "每30秒最多")
_NO_RIGHT: Final = re.compile(
    "(?:无|無|没有|沒有|缺少)[^，。,.]{0,12}(?:权限|權限)"
    "|(?:权限|權限)(?:不足|不夠|不够)"
    r"|\bno (?:\w+ ){0,3}(?:rights?|permissions?)\b|\bwithout (?:\w+ ){0,2}permission"
    r"|\bnot have (?:\w+ ){0,3}(?:rights?|permissions?)\b|permission denied"
)
"""What OpenD says where the account lacks the right to a market, or to a level of its quotes.

From reports of its users: 无权限, 無權限, 没有权限, 行情权限不足, `No right to subscribe`, `no
permission` (py-futu-api, issues 25, 43 and 53); the spellings between them are inferred.
"""
_OVERDUE: Final = "nn_protoret_timeout"
"""A reply of OpenD's, whose own server left it without an answer: also what it says of US quotes
where the account has no card for them (py-futu-api, issues 25, 43 and 53)."""
_OUTDATED: Final = "nn_protoret_svrfailed"
"""What an OpenD says that is too old for a call."""
_OUTDATED_CURE: Final = (
    "its server failed, or this OpenD is too old for short interest: install OpenD 10.6 or later"
)
_ABOUT_THE_STATE: Final = {
    "未登录": "OpenD is not logged in",
    "未登錄": "OpenD is not logged in",
    "未登入": "OpenD is not logged in",
    "not logged in": "",
    "网络中断": "OpenD has lost its way to the vendor's servers",
    "網絡中斷": "OpenD has lost its way to the vendor's servers",
    "网络异常": "OpenD has lost its way to the vendor's servers",
    "網絡異常": "OpenD has lost its way to the vendor's servers",
    "系统繁忙": "the vendor's servers are busy",
    "系統繁忙": "the vendor's servers are busy",
    "服务器繁忙": "the vendor's servers are busy",
    "packeterr.timeout": "no answer within 12 s",
    "请求超时": "no answer in time",
    "請求超時": "no answer in time",
}
"""What passes by waiting → the same in English, where it is not."""
# Words that speak of the code itself. Whatever else is said (not logged in, a lost connection, a
# text never seen before) passes by waiting: taking it for the code's fault would park a watchlist.
_ABOUT_THE_CODE: Final = {
    "未知股票": "unknown code",
    "未知的股票": "unknown code",
    "股票代码": "wrong code",
    "股票代碼": "wrong code",
    "代码错误": "wrong code",
    "代碼錯誤": "wrong code",
    "不支持": "not supported",
    "不支援": "not supported",
    "退市": "delisted",
    "除牌": "delisted",
    "未知分组": "unknown group",
    "未知分組": "unknown group",
    "unknown stock": "",
    "unknown security": "",
    "unknown code": "",
    "no such": "",
    "not support": "",
    "unsupported": "",
    "invalid code": "",
    "invalid security": "",
    "format of code": "",
    "delisted": "",
}
"""What a refusal says → the same in English, where it is not."""
_UNDER_WAY: Final = "disconnect"
"""What the SDK says of a request that was sent and whose connection then ended."""
_ABOUT_THE_CONNECTION: Final = (
    "connection closed",
    "connect timeout",
    "invalid connid",
)
_TEXT_LIMIT: Final = 300
_ANY_CODE: Final = re.compile(rf"\b({market_names('|')})\.[A-Z0-9._-]+", re.ASCII)


def error_of(message: object) -> GatewayError:
    """Return the error a refusal's text stands for, by what to do next; whoever asked names it.

    The SDK drops the error code, so the text is all there is; it may be empty or an exception.
    What is known is told in English with the vendor's words behind it, all else is quoted.
    """
    text = str(message).strip()[:_TEXT_LIMIT]
    folded = text.casefold()
    found = _of_the_account(text, folded)
    if found is not None:
        return found
    if (meaning := _meaning(_ABOUT_THE_CODE, folded)) is not None:
        said = _ANY_CODE.sub("", text).strip()
        return Refused(f"OpenD refuses it: {f'{meaning} ({said})' if meaning else said}")
    if folded.startswith(_UNDER_WAY):
        return HungUp(f"OpenD hung up on it ({text})")
    if folded.startswith(_ABOUT_THE_CONNECTION):
        return Disconnected(text)
    meaning = _meaning(_ABOUT_THE_STATE, folded)
    told = f"{meaning} ({text})" if meaning else text
    if "timeout" in folded:
        return Silent(told)
    return Unavailable(told or "OpenD refused without a word")


def _of_the_account(text: str, folded: str) -> GatewayError | None:
    """Return what a text says of account or program: it may name the code all the same."""
    if any(sign in folded for sign in _TOO_FREQUENT):
        return TooFrequent(text)
    if _NO_RIGHT.search(folded):
        return NoRight(f"OpenD says that the account has no right to it ({text})")
    if _OVERDUE in folded:
        return Overdue(f"OpenD's own server left it without an answer ({text})")
    if _OUTDATED in folded:
        return Outdated(f"{_OUTDATED_CURE} ({text})")
    return None


def _meaning(table: Mapping[str, str], folded: str) -> str | None:
    """Return what the first sign means that a text holds; None: it holds none of them."""
    return next((table[sign] for sign in table if sign in folded), None)


def page_of(code: Code, us_frame: object, hk_frame: object) -> Page:
    """Return the typed page of `code`, or raise Malformed when the frames are not its own."""
    market = market_of(code)
    frames = {"us": us_frame, "hk": hk_frame}
    frame = table_of(frames.pop(market.table))
    if frame.empty and not all(getattr(other, "empty", True) for other in frames.values()):
        raise Malformed("OpenD answered with rows of the other market")
    names = [name for _, name, _ in _cells(market)]
    check_columns(frame, names)
    records: list[Record] = []
    oddities: list[str] = []
    # column by column: pandas' own rows take eight times as long
    for cells in zip(*(frame[name].tolist() for name in names), strict=True):
        try:
            records.append(_record(market, dict(zip(names, cells, strict=True))))
        except ValueError as problem:
            oddities.append(f"a row was dropped: {problem}")
    return Page(tuple(records), _next_key(frame.attrs), tuple(dict.fromkeys(oddities)))


def table_of(answer: object) -> "pd.DataFrame":
    """Return what the SDK returned, or raise Malformed if it is no table."""
    if not hasattr(answer, "columns"):
        raise Malformed(f"the SDK returned {type(answer).__name__} where a table belongs")
    return cast("pd.DataFrame", answer)


def check_columns(frame: "pd.DataFrame", names: Collection[str]) -> None:
    """Raise Malformed unless a table has each of these columns, and none twice."""
    if missing := set(names) - set(frame.columns):
        raise Malformed(f"the SDK's table lacks {', '.join(sorted(missing))}")
    if not frame.columns.is_unique:
        raise Malformed("the SDK's table has two columns of one name")


def _next_key(attributes: Mapping[Hashable, Any]) -> str | None:
    """Return where to go on. An empty key would make the SDK ask for the first page again."""
    key = attributes.get("next_key")
    return None if key is None or str(key) in {"", "-1"} else str(key)


def _record(market: Market, row: Mapping[str, Any]) -> Record:
    timestamp = whole(row["timestamp"])
    values: dict[str, Any] = {"timestamp": timestamp, "timestamp_str": _day(market, row, timestamp)}
    for column, name, read in _cells(market):
        if column not in values:
            values[column] = read(row[name])
    return market.record(**values)


@cache
def _cells(market: Market) -> tuple[tuple[str, str, Callable[[object], float | None]], ...]:
    """Return each column of a market's record, what the SDK's table calls it, and its reader."""
    return tuple(
        (
            column.name,
            market.vendor_names.get(column.name, column.name),
            whole if column.type == Whole | None else _real,
        )
        for column in fields(market.record)
    )


_BITS: Final = 64  # of the largest figure OpenD sends
_ABSENT_TEXTS: Final = ("", "N/A")
_ABSENT_TYPES: Final = ("NAType", "NaTType")  # of pandas; neither can be compared


def _day(market: Market, row: Mapping[str, Any], timestamp: int | None) -> str:
    """Return the trading day as text; from the timestamp only where the text is absent."""
    text = row["timestamp_str"]
    if isinstance(text, str) and text:
        try:
            return str(date.fromisoformat(text[:10]))
        except ValueError:
            raise ValueError(f"timestamp_str is {text!r}, not a day") from None
    if timestamp is None or timestamp <= 0:
        raise ValueError("it has neither timestamp_str nor timestamp")
    try:
        return str(datetime.fromtimestamp(timestamp, market.zone).date())
    except (OverflowError, OSError, ValueError):
        raise ValueError(f"timestamp is {timestamp}, not a day") from None


def whole(value: object) -> int | None:
    """Return an integer, or None for what stands for absent; raises ValueError for all else."""
    if type(value) is int and value.bit_length() <= _BITS:  # most cells are
        return value
    number = _real(value)
    if number is None:
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    if not number.is_integer():  # nor is what is infinite
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def _real(value: object) -> float | None:
    """Return a float, or None for what stands for absent: None, NaN, pandas' and the SDK's own.

    What is infinite is a number all the same: whether a market can show it is for `detect` to say.
    Raises ValueError for any other text or object: taken for absent, a figure would be published as
    null.
    """
    if type(value) is float:  # most cells are
        return None if math.isnan(value) else value
    if not isinstance(value, numbers.Real):
        if value is None or type(value).__name__ in _ABSENT_TYPES:
            return None
        if isinstance(value, str) and value in _ABSENT_TEXTS:
            return None
        raise ValueError(f"{printable(value, 40)!r} is not a number")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError("it holds a number too large for any column") from None
    return None if math.isnan(number) else number
