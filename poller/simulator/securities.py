"""What the simulated OpenD says of symbols besides their short interest: names, and shares. No I/O.

The names are made up, apart from Tencent's. Some need care where they are shown: with Chinese
characters, quotation marks, an ampersand or angle brackets. The issued shares are those that the
made-up ratios are computed with.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from poller.model import Code
from poller.simulator.replies import code_of, refusal, success
from poller.simulator.series import TENCENT, draw, walk
from poller.simulator.wire import Message, Proto
from poller.simulator.world import World, why_unknown

MOST_SNAPSHOTS: Final = 400
"""Codes in one request."""

_STOCK, _FUND = 3, 4
_LOT: Final = 100
_FUNDS: Final = 0.1
"""Fraction of the made-up symbols that are funds, which have no issued shares."""

_TENCENT_NAME: Final = "TENCENT"
_TENCENT_ISSUED: Final = 9_192_971_000  # of which its position on Futu's page is 0.56 %

_FIRST: Final = (
    *("Amber", "Birch", "Cedar", "Delta", "Ember", "Fable", "Garnet", "Harbour", "Indigo"),
    *("Juniper", "Kestrel", "Lotus", "Maple", "Nimbus", "Opal", "Prairie", "Quartz", "Rowan"),
)
_SECOND: Final = (
    *("Foods", "Motors", "Robotics", "Textiles", "Logistics", "Energy", "Biotech", "Software"),
    *("& Sons", '"Gold" Mining', "<Holdings>", "O'Hara & Co", "控股", "科技集團"),
)


def name_of(seed: int, code: Code) -> str:
    """Return the name of a symbol."""
    if code == TENCENT:
        return _TENCENT_NAME
    first = _FIRST[int(len(_FIRST) * draw(seed, "first", code))]
    return f"{first} {_SECOND[int(len(_SECOND) * draw(seed, 'second', code))]}"


def shares_of(world: World, code: Code, now: datetime) -> tuple[int, int] | None:
    """Return the issued and the outstanding shares; None for a fund."""
    if code == TENCENT:
        return _TENCENT_ISSUED, _TENCENT_ISSUED
    if draw(world.seed, "fund", code) < _FUNDS:
        return None
    issued = round(walk(world.seed, code).issued * world.scale(code, now))
    return issued, round(issued * (0.4 + 0.6 * draw(world.seed, "outstanding", code)))


def static_info(world: World, asked: Message, _: datetime) -> Message:
    """Return the reply to a request for static information; an unknown code refuses all."""
    codes = [code_of(security) for security in asked.securityList]
    if (text := _refusal_of(world, codes)) is not None:
        return refusal(Proto.STATIC_INFO, text)
    reply = success(Proto.STATIC_INFO)
    for number, (code, security) in enumerate(zip(codes, asked.securityList, strict=True), start=1):
        basic = reply.s2c.staticInfoList.add().basic
        basic.security.CopyFrom(security)
        basic.id, basic.lotSize, basic.secType = number, _LOT, _STOCK
        basic.name, basic.listTime = name_of(world.seed, Code(code)), ""
    return reply


def snapshot(world: World, asked: Message, now: datetime) -> Message:
    """Return the reply to a request for snapshots, whose prices are all 0."""
    codes = [code_of(security) for security in asked.securityList]
    if len(codes) > MOST_SNAPSHOTS:
        return refusal(Proto.SNAPSHOT, f"请求的股票数量超过上限{MOST_SNAPSHOTS}")
    if (text := _refusal_of(world, codes)) is not None:
        return refusal(Proto.SNAPSHOT, text)
    reply = success(Proto.SNAPSHOT)
    for code, security in zip(codes, asked.securityList, strict=True):
        one = reply.s2c.snapshotList.add()
        shares = shares_of(world, Code(code), now)
        one.basic.security.CopyFrom(security)
        one.basic.name = name_of(world.seed, Code(code))
        one.basic.type = _FUND if shares is None else _STOCK
        _fill(one.basic)
        if shares is not None:
            one.equityExData.issuedShares, one.equityExData.outstandingShares = shares
            _fill(one.equityExData)
    return reply


def _refusal_of(world: World, codes: Sequence[str]) -> str | None:
    if not codes:
        return "股票列表为空"
    return next((why_unknown(code) for code in codes if not world.knows(code)), None)


def _fill(message: Message) -> None:
    """Give every required field that is not set yet its default: "", 0 or false."""
    for name in message.FindInitializationErrors():
        setattr(message, name, message.DESCRIPTOR.fields_by_name[name].default_value)
