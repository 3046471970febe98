"""Events on a stream without a gateway: the real comparison and commit, on made-up rows."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta

from poller.detect.compare import compare
from poller.events import Foreign, Message, StreamEvent, StreamNotice, decode, encode
from poller.markets import Record
from poller.markets.hk import HONG_KONG, HkRecord
from poller.markets.us import UsRecord
from poller.model import Code, market_of
from poller.schedule.notice import Notice
from poller.store.redisstore import RedisStore
from poller.store.store import ONE_OFF
from tests.memorystore import MemoryStore

Store = RedisStore | MemoryStore
"""What passes the same suite."""

SEEN = datetime(2026, 5, 8, 9, tzinfo=UTC)


def row(day: int) -> HkRecord:
    """Return the Hong Kong row of a day, counted from the end of 2019."""
    text = str(date(2019, 12, 31) + timedelta(days=day))
    return HkRecord(None, text, 100_000 + day, 0.5, 10.0, 9.0)


def row_of(code: Code, day: int) -> Record:
    """Return the same row as the code's market has it."""
    if market_of(code) is HONG_KONG:
        return row(day)
    hk = row(day)
    return UsRecord(None, hk.timestamp_str, hk.shares, 0.5, 50_000, 2.0, 10.0, 9.0)


async def publish(store: Store, code: str, days: Iterable[int]) -> list[str]:
    """Append an event a day of one symbol; returns their ids."""
    symbol = Code(code)
    rows = [row_of(symbol, day) for day in days]
    snapshot = await store.records.snapshot(symbol)
    found = compare(symbol, rows, snapshot.known, observed_at=SEEN, history=len(rows))
    await store.records.commit(symbol, found, snapshot, ONE_OFF)
    return [event.id for event in found.events]


def message_of(fields: Mapping[str, str], position: str = "1-0") -> Message:
    """Return what an entry of either stream says, which is to be one of ours."""
    found = decode(position, fields)
    assert not isinstance(found, Foreign), found.reason
    return found


def event_of(fields: Mapping[str, str]) -> StreamEvent:
    """Return what an entry of the events says."""
    found = message_of(fields)
    assert isinstance(found, StreamEvent)
    return found


def notice_of(notice: Notice) -> StreamNotice:
    """Return a notice as its entry says it."""
    found = message_of(encode(notice))
    assert isinstance(found, StreamNotice)
    return found
