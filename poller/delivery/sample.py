"""What `webhook test` shows in a chat: the digest of a report that was made up. Pure."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from poller.delivery.chat_message import ChatMessage
from poller.delivery.digest import digest
from poller.events import StreamEvent
from poller.markets import Figures, Record
from poller.model import Change, Code, EventType, market_of

_NOTE: Final = "This is a test: the symbols and their figures are made up."

_SYMBOLS: Final = (
    ("HK.99901", "EXAMPLE SHIPPING", 3_120_000, 7_404_500, 1.92),
    ("HK.99902", "示例科技", 51_480_638, 38_212_400, 0.41),
    ("HK.99903", "SAMPLE BANK", 12_650_000, 14_220_500, 0.09),
    ("HK.99904", "MADE-UP ENERGY", 880_000, 880_000, 0.02),
)
"""Code and name, which no company has, shares before and now, and the ratio in percent."""


def sample_digest(today: date, *, limit: int, size: Callable[[ChatMessage], int]) -> ChatMessage:
    """Return a digest that says it is a test; `limit`, `size`: see `digest`.

    Where a digest with the note does not fit, as in a text message to a phone, the note is all.
    """
    events = [_event(today, *each) for each in _SYMBOLS]
    for shown in range(len(events), 1, -1):
        message = digest(events[:shown], limit=limit, size=size)
        marked = replace(message, title=f"TEST: {message.title}", parts=(_NOTE, *message.parts))
        if size(marked) <= limit:
            return marked
    return ChatMessage("", (_NOTE,))


def _event(day: date, code: str, name: str, before: int, now: int, ratio: float) -> StreamEvent:
    symbol = Code(code)
    return StreamEvent(
        position="0-0",
        id=f"{code}:{day}:0",
        type=EventType.REPORTED,
        code=symbol,
        market=market_of(symbol),
        trading_day=day,
        revision=0,
        observed_at=datetime.combine(day, time(), UTC),
        record=_record(symbol, day, now, ratio),
        previous=_record(symbol, day - timedelta(days=7), before, ratio),
        change=Change(shares=now - before, percent=100 * (now - before) / before),
        name=name,
    )


def _record(code: Code, day: date, shares: int, ratio: float) -> Record:
    market = market_of(code)
    midnight = int(market.midnight(day).timestamp())
    figures = Figures(shares, ratio, None, None, None, None)
    return market.simulation.record(midnight, str(day), figures)
