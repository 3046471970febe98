"""What OpenD may send: packets as they travel, read by the unmodified SDK, and its answers.

Of a packet that the SDK's network thread cannot read, whoever asked learns nothing until its time
runs out; here it has run out at once. The simulator, too, reads packets: those of its clients.
"""

import asyncio
import contextlib
import io
import logging
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Any, Final

import pandas as pd

from poller.detect.compare import Known, compare
from poller.errors import GatewayError, StoreMisfit
from poller.events import StreamEvent, decode, encode
from poller.gateway.sdk import Sdk, read_group, read_page
from poller.gateway.vendor import error_of, page_of
from poller.markets import Record
from poller.model import Code, Page, Vintage, market_of
from poller.simulator import replies
from poller.simulator.wire import (
    HEADER_SIZE,
    Garbled,
    Header,
    Message,
    Proto,
    Session,
    parse,
    request,
)
from poller.simulator.world import WorldAnswer
from poller.store.snapshots import read_snapshot
from tests.fuzz.engine import NOW, Read, Target, bounded, plain, text_of
from tests.fuzz.stored import KEYS
from tests.golden import VERSIONS, written
from tests.simulator_client import plain_packet

_CODES: Final = (Code("HK.00700"), Code("US.JXDH"))
_GROUP: Final = "favourites"
_MOST_WORDS: Final = 1000
"""Characters of what is told of a refusal, or of an oddity: it repeats little of an answer."""


@cache
def _known(code: Code) -> Known:
    """Return what is known of a symbol, as a released version wrote it."""
    keys = written(VERSIONS[-1])
    names = (KEYS.history(code), KEYS.vintages(code), KEYS.held(code))
    texts = [keys.get(name, {"value": {}})["value"] for name in names]
    return read_snapshot(code, keys[KEYS.watermark]["value"][code], *texts, keys=KEYS).known


def _judged(code: Code, page: Page) -> None:
    """Publish what a page holds of a symbol, known or not, as its poll would."""
    for oddity in page.oddities:
        bounded(oddity, _MOST_WORDS)
    for known in (Known(), _known(code)):
        try:
            found = compare(code, page.records, known, observed_at=NOW, history=50)
        except StoreMisfit as problem:
            bounded(str(problem), _MOST_WORDS)
            continue
        for event in found.events:
            assert isinstance(decode("1-0", encode(event)), StreamEvent)
        for held in found.held:
            held.to_json()


def _asked(code: Code, ask: Callable[[], Page]) -> None:
    try:
        page = ask()
    except GatewayError as problem:
        bounded(str(problem), _MOST_WORDS)
    else:
        _judged(code, page)


def _cells(data: bytes) -> None:
    """Read a table of the SDK made of cells that the input chooses."""
    chance = random.Random(data)
    text = text_of(data[:40])
    cells: tuple[Any, ...] = (
        None,
        math.nan,
        math.inf,
        -1,
        0,
        2**63,
        1e308,
        "",
        text,
        True,
        [],
        NOW,
    )
    code = _CODES[chance.random() < 0.5]
    names = [name for name in market_of(code).columns if chance.random() < 0.97]
    good = {"timestamp": 1777478400, "timestamp_str": "2026-04-30"}
    rows = [
        {n: good.get(n, 7) if chance.random() < 0.8 else chance.choice(cells) for n in names}
        for _ in range(chance.randrange(3))
    ]
    frame = pd.DataFrame(rows, columns=names)
    frame.attrs["next_key"] = chance.choice(cells)
    _asked(code, lambda: page_of(code, frame, frame))


def _refusal(data: bytes) -> None:
    bounded(str(error_of(text_of(data))), _MOST_WORDS)


def _refusals() -> list[bytes]:
    texts = ("获取空头持仓频率太高,每30秒最多30次。", "NN_ProtoRet_TimeOut", "PacketErr.Timeout")
    others = ("未知股票 HK.00700", "unknown stock", "Disconnect", "invalid connid", "无权限", "")
    return [text.encode() for text in (*texts, *others)]


def _rows(code: Code) -> tuple[Record, ...]:
    texts = written(VERSIONS[-1])[KEYS.history(code)]["value"]
    return tuple(
        Vintage.from_json(market_of(code), texts[day]).record
        for day in sorted(texts, reverse=True)[:4]
    )


def _packets() -> list[bytes]:
    """Return replies of OpenD, after a byte that says what was asked."""
    messages: list[tuple[Proto, Message]] = []
    for code in _CODES:
        rows = _rows(code)
        blank = replace(rows[0], timestamp=None)
        for records, key in ((rows, "-1"), (rows[:1], "2"), ((), ""), ((blank, *rows), "x" * 40)):
            answer = WorldAnswer(market_of(code), records, key)
            messages.append((Proto.SHORT_INTEREST, replies.short_interest(answer)))
    messages.append((Proto.SHORT_INTEREST, replies.refusal(Proto.SHORT_INTEREST, "频率太高")))
    messages.append((Proto.GROUP, replies.group({_GROUP: _CODES}, _GROUP)))
    return [
        bytes([number % 3]) + plain_packet(proto, 1, message)
        for proto, message in messages
        for number in range(3)
    ]


def _mended(data: bytes) -> bytes:
    """Return a packet whose header fits its body, mostly: others are not looked into."""
    if len(data) <= HEADER_SIZE or random.Random(data).random() < 0.2:
        return data
    body = data[HEADER_SIZE:]
    proto = int.from_bytes(data[2:6], "little")
    known = Proto(proto) if proto in set(Proto) else Proto.SHORT_INTEREST
    return Header(known, 1, len(body), sha1(body, usedforsecurity=False).digest()).pack() + body


@contextmanager
def _sdk(folder: Path) -> Iterator[Read]:
    """Load the SDK as the service does, and return what lets it read a packet."""
    raises = logging.raiseExceptions
    sdk = Sdk(folder)
    asyncio.run(sdk.load())
    sdk.close()
    logging.raiseExceptions = raises
    context = _context()

    def read(data: bytes) -> None:
        which = data[0] % 3 if data else 0
        context.arrived = _mended(data[1:])
        with contextlib.redirect_stdout(io.StringIO()):  # the SDK prints what it cannot parse
            if which < len(_CODES):
                _asked(_CODES[which], lambda: read_page(context, _CODES[which], None))
            else:
                with contextlib.suppress(GatewayError):
                    assert all(isinstance(code, str) for code in read_group(context, _GROUP))

    yield read


def _composed(data: bytes) -> bytes:
    """Return a reply whose fields the input chooses: most as usual, some as nobody expects."""
    chance = random.Random(data)
    which = chance.randrange(len(_CODES))
    rows = _rows(_CODES[which])
    shown = rows[: chance.randrange(len(rows) + 1)]
    key = chance.choice(("-1", "2", text_of(data[:20])))
    message = replies.short_interest(WorldAnswer(market_of(_CODES[which]), shown, key))
    texts = ("", "2026-05-08", "2026-13-01", "0001-01-01", "9999-12-31", text_of(data[:60]))
    for item in (*message.s2c.hkItemList, *message.s2c.usItemList):
        for field in item.DESCRIPTOR.fields:
            if chance.random() < 0.8:
                continue
            item.ClearField(field.name)
            values = _ODD.get(field.cpp_type, texts)
            if (value := chance.choice((None, *values))) is not None:
                setattr(item, field.name, value)
    return bytes([which]) + plain_packet(Proto.SHORT_INTEREST, 1, message)


_REAL: Final = (math.nan, math.inf, -math.inf, -1.0, 0.0, 5e-324, 1e308, 1e-9, 100.0, 1e18)
_SIGNED: Final = (-(2**63), -1, 0, 1, 1777478400, 2**53 + 1, 2**63 - 1)
_UNSIGNED: Final = (0, 1, 2**31, 2**53 + 1, 2**63, 2**64 - 1)
_ODD: Final[dict[int, tuple[float, ...]]] = {2: _SIGNED, 4: _UNSIGNED, 5: _REAL, 6: _REAL}
"""By protobuf's number of a C++ type: int64, uint64, double, float."""


@contextmanager
def _fields(folder: Path) -> Iterator[Read]:
    with _sdk(folder) as read:
        yield lambda data: read(_composed(data))


def _context() -> Any:  # noqa: ANN401  the SDK has no types
    """Return the SDK's context with a network that answers at once with what has arrived."""
    from futu import OpenQuoteContext  # noqa: PLC0415  once it is loaded
    from futu.common.utils import ParseRspErr, parse_rsp  # noqa: PLC0415

    class Context(OpenQuoteContext):  # type: ignore[misc]
        arrived = b""

        def __init__(self) -> None:
            self._OpenQuoteContext__security_firm = 0

        def get_sync_conn_id(self) -> int:
            return 1

        def _get_sync_query_processor(self, pack: Any, unpack: Any) -> Any:  # noqa: ANN401
            def ask(**asked: object) -> tuple[Any, ...]:
                failed, words, *_ = pack(**asked)
                if failed:
                    return failed, words, None
                try:
                    packet = parse_rsp(bytearray(self.arrived), 1, False)  # noqa: FBT003
                except Exception:  # noqa: BLE001  which its network thread logs
                    return -1, "PacketErr.Timeout", None
                if packet.err is ParseRspErr.NOT_ENOUGH_DATA:
                    return -1, "PacketErr.Timeout", None
                if packet.err is not ParseRspErr.OK:
                    return -1, packet.msg or "PacketErr.Invalid", None
                try:
                    return tuple(unpack(packet.rsp_pb))
                except Exception as problem:  # noqa: BLE001  as its own processor does
                    return -1, str(problem), None

            return ask

    return Context()


def _asking(data: bytes) -> None:
    """Read a packet of a client of the simulator."""
    with contextlib.suppress(Garbled):
        if len(data := _mended(data)) < HEADER_SIZE:
            return
        header = Header.parse(data[:HEADER_SIZE])
        body = Session(None).open(header, data[HEADER_SIZE:][: header.length])
        if header.proto in set(Proto):
            message = parse(Proto(header.proto), body)
            if header.proto == Proto.SHORT_INTEREST:
                bounded(replies.code_of(message.c2s.security), 64 * 1024)


def _questions() -> list[bytes]:
    found = []
    for proto in Proto:
        message = request(proto)
        if proto is Proto.SHORT_INTEREST:
            message.c2s.security.market, message.c2s.security.code = 1, "00700"
            message.c2s.nextKey, message.c2s.num = "10", 50
        found.append(plain_packet(proto, 1, message) if message.IsInitialized() else b"FT")
    return found


TARGETS: Final = (
    Target("packet of OpenD", _packets, _sdk),
    Target("reply of OpenD", _refusals, _fields),
    Target("table of the SDK", _refusals, plain(_cells)),
    Target("refusal of OpenD", _refusals, plain(_refusal)),
    Target("packet to the simulator", _questions, plain(_asking)),
)
