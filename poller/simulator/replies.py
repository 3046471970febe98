"""Turns the world's answers into the SDK's messages. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from poller.markets import Market, Record, all_markets, market_named
from poller.model import Code
from poller.simulator.wire import Message, Proto, market_numbers, response
from poller.simulator.world import WorldAnswer

_REFUSED: Final = -1
_SERVER_VERSION: Final = 1011
_SERVER_BUILD: Final = 7108
_CLOSED: Final = 6
_STOCK: Final = 3
_LEVEL_1: Final = 2
_TABLES: Final = tuple(market.table for market in all_markets())
_CUSTOM_GROUP, _ALL_GROUPS = 1, 3

NO_RIGHT: Final = 5
"""The SDK's number of a quote right that is missing."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who an OpenD is logged in as, and what it says of that user.

    Attributes:
        user: The user's number; 0: it does not tell.
        rights: A market's table → the SDK's number of the quote right to it: 2 is LV1, 3 LV2. They
            are only said: what the world answers does not depend on them.
        disclaimer: Whether a disclaimer waits to be accepted.
        update: 1 advises a newer version, 2 demands it.
    """

    user: int = 10_000_001
    rights: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(_TABLES, _LEVEL_1))
    disclaimer: bool = False
    update: int = 0


def refusal(proto: int, text: str) -> Message:
    """Return an error reply; the SDK passes on its text and nothing else."""
    reply = response(proto)
    reply.retType, reply.retMsg = _REFUSED, text
    return reply


def success(proto: Proto) -> Message:
    """Return a reply without an error, whose fields are still to be set."""
    reply = response(proto)
    reply.retType = 0
    reply.s2c.SetInParent()  # present even if it stays empty
    return reply


def login(user: int, connection: int, key: str, iv: str | None, *, keep_alive: int) -> Message:
    """Return the reply to InitConnect. `keep_alive`: seconds. `iv` None: not encrypted."""
    reply = success(Proto.INIT_CONNECT)
    reply.s2c.serverVer = _SERVER_VERSION
    reply.s2c.loginUserID = user
    reply.s2c.connID = connection
    reply.s2c.connAESKey = key
    reply.s2c.keepAliveInterval = keep_alive
    if iv is not None:
        reply.s2c.aesCBCiv = iv
    return reply


def user_info(login: Login) -> Message:
    """Return the reply to GetUserInfo."""
    reply = success(Proto.USER_INFO)
    for table, right in login.rights.items():
        setattr(reply.s2c, f"{table}QotRight", right)
    reply.s2c.isNeedAgreeDisclaimer, reply.s2c.updateType = login.disclaimer, login.update
    if login.user:
        reply.s2c.userID = login.user
    return reply


def heartbeat(now: datetime) -> Message:
    """Return the reply to KeepAlive."""
    reply = success(Proto.KEEP_ALIVE)
    reply.s2c.time = int(now.timestamp())
    return reply


def global_state(
    now: datetime, *, logged_in: bool, status: tuple[int, str] | None = None
) -> Message:
    """Return the reply to GetGlobalState: all markets closed, no trading account.

    `status`: number and words of the program's own state; it leaves that out if None.
    """
    reply = success(Proto.GLOBAL_STATE)
    for each in reply.s2c.DESCRIPTOR.fields:
        if each.name.startswith("market"):
            setattr(reply.s2c, each.name, _CLOSED)
    reply.s2c.qotLogined, reply.s2c.trdLogined = logged_in, False
    reply.s2c.serverVer, reply.s2c.serverBuildNo = _SERVER_VERSION, _SERVER_BUILD
    reply.s2c.time = int(now.timestamp())
    if status is not None:
        reply.s2c.programStatus.type, reply.s2c.programStatus.strExtDesc = status
    return reply


def groups(known: Mapping[str, tuple[str, ...]], kind: int) -> Message:
    """Return the names of the user's own watch groups; `kind`: the SDK's number of the kind."""
    reply = success(Proto.GROUPS)
    for name in known if kind in {_CUSTOM_GROUP, _ALL_GROUPS} else ():
        reply.s2c.groupList.add(groupName=name, groupType=_CUSTOM_GROUP)
    return reply


def group(known: Mapping[str, tuple[str, ...]], name: str) -> Message:
    """Return the members of one watch group."""
    if name not in known:
        return refusal(Proto.GROUP, f"未知分组 {name}")
    reply = success(Proto.GROUP)
    for number, code in enumerate(known[name], start=1):
        market, _, symbol = code.partition(".")
        basic = reply.s2c.staticInfoList.add().basic
        basic.security.market = market_numbers()[market]
        basic.security.code = symbol
        basic.id, basic.lotSize, basic.secType = number, 100, _STOCK
        basic.name, basic.listTime = symbol, ""
    return reply


def code_of(security: Message) -> str:
    """Return a Security's code as the SDK writes it; a market without a name keeps its number."""
    name = _market_name(security.market) or security.market
    return f"{name}.{security.code}"


def short_interest(answer: WorldAnswer) -> Message:
    """Return one page. Fields that are None are left out, as OpenD may do."""
    reply = success(Proto.SHORT_INTEREST)
    items = getattr(reply.s2c, f"{answer.market.table}ItemList")
    for record in answer.records:
        items.add(**_present(answer.market, record))
    reply.s2c.nextKey = answer.next_key
    return reply


def rank(market: Market, total: int, listed: Sequence[tuple[Code, int]]) -> Message:
    """Return a stretch of the list of short positions."""
    reply = success(Proto.RANK)
    reply.s2c.allCount = total
    number = market_numbers()[market.name]
    for code, shares in listed:
        _, _, symbol = code.partition(".")
        security = {"market": number, "code": symbol}
        reply.s2c.dataList.add(security=security, name=symbol, shortPositionVolume=shares)
    return reply


def market_of_number(number: int) -> Market | None:
    """Return the market of the SDK's number; None: there is none here."""
    return market_named(_market_name(number))


def _market_name(number: int) -> str:
    return next((name for name, each in market_numbers().items() if each == number), "")


def _present(market: Market, record: Record) -> dict[str, object]:
    """Return a record's figures under the message's names: `short_percent` is `shortPercent`."""
    names = market.vendor_names
    return {
        _camel(names.get(name, name)): value
        for name, value in record.columns().items()
        if value is not None
    }


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)
