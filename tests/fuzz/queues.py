"""Entries of the streams, and what stands in the queues of endpoints and of subscribers."""

import itertools
from typing import Any, Final

from poller.codec import from_millis, number
from poller.delivery import chat_message
from poller.delivery.destinations.webhook import body_of
from poller.delivery.digest import announcement, digest, missing
from poller.delivery.layout import moment, read_place
from poller.delivery.log_lines import shown_key, start_texts
from poller.delivery.outbox import Status
from poller.delivery.queued import (
    RAW_KEPT,
    Parked,
    attempts_json,
    delivery_of,
    from_sort_key,
    read_attempts,
    read_dead,
    read_delivery,
    sort_key,
)
from poller.delivery.selection import EVENTS, Selection
from poller.delivery.webhookid import event_id, webhook_id
from poller.errors import Unreadable
from poller.events import Foreign, Message, StreamEvent, decode
from poller.model import Code
from poller.show import entry_line, release_line
from poller.store.position import START, StreamState, lost, start_of
from poller.store.store import Entry, Stream
from poller.subscriber.redisgroup import read_start
from poller.web.formatting import lines
from poller.web.safe_json import entry_text
from poller.web.service_status import ServiceStatus, as_json
from tests.fuzz.engine import NOW, Target, bounded, plain, text_of
from tests.fuzz.stored import hash_text, hashes_under, pairs_of, values_under
from tests.golden import VERSIONS, written

_ID: Final = "1795857163468-0"
_MILLIS: Final = 1_795_857_163_492.0
_EVERYTHING: Final = Selection(frozenset(EVENTS), ("HK.*", "US.A*"))
_WATERMARKS: Final = {Code("HK.00700"): NOW.date(), Code("US.AAPL"): NOW.date()}
_STREAMS: Final = (
    StreamState(_MILLIS),
    StreamState(_MILLIS, _ID, "1795857163000-0", 12),
    StreamState(_MILLIS, "5-0", "3-0"),
)


def _entries() -> list[bytes]:
    return [
        hash_text(fields)
        for version in VERSIONS
        for key in ("short-interest", "{short-interest}:releases")
        for _, fields in written(version)[key]["value"]
    ]


def _entry(data: bytes) -> None:
    """Read an entry, and queue it."""
    entry = Entry(_ID, pairs_of(data))
    message = decode(entry.id, entry.fields)
    if isinstance(message, Foreign):
        bounded(message.reason, 300)
    else:
        assert delivery_of(sort_key(entry.id), entry, message).message is message


def _shown(data: bytes) -> None:
    """Do with an entry what every reader of a stream does: show it, and send it."""
    entry = Entry(_ID, pairs_of(data))
    message = decode(entry.id, entry.fields)
    bounded(entry_line(entry).plain, 3000)
    bounded(release_line(entry).plain, 3000)
    lines([entry])
    entry_text(entry).encode()
    if not isinstance(message, Foreign):
        _sent(message)


def _sent(message: Message) -> None:
    """Do with a message all that an endpoint may do with it."""
    _EVERYTHING.matches(message)
    body_of(message).encode()
    assert event_id(webhook_id("HK.00700:2026-04-30:0")) == "HK.00700:2026-04-30:0"
    if isinstance(message, StreamEvent):
        bounded(digest([message], limit=500).text, 500)
        together = digest([message, message], limit=500, size=_aligned)
        bounded(chat_message.text_of(together, monospaced=True), 500)
        day = message.trading_day
        missing(_WATERMARKS, message.market, day, selects=_EVERYTHING.selects)
    else:
        bounded(announcement([message], limit=500).text, 500)


def _aligned(message: chat_message.ChatMessage) -> int:
    return len(chat_message.text_of(message, monospaced=True))


def _delivery(data: bytes) -> None:
    """Read what stands in a queue, and send it. The input: its sort key, NUL, its text."""
    key, _, text = text_of(data).partition("\x00")
    found = read_delivery(key, text)
    if isinstance(found, Parked):
        bounded(found.text, RAW_KEPT)
        bounded(found.reason, 300)
        bounded(shown_key(key), 3000)
        return
    assert found.appended_at.tzinfo is not None
    _sent(found.message)


def _deliveries() -> list[bytes]:
    return [
        f"{key}\x00{text}".encode()
        for version in VERSIONS
        for key, text in written(version)["{short-interest}:webhook:desk:deliveries"][
            "value"
        ].items()
    ]


def _attempts(data: bytes) -> None:
    attempts = read_attempts(text_of(data))
    assert len(read_attempts(attempts_json(attempts))) == len(attempts)


def _dead(data: bytes) -> None:
    for letter in read_dead(pairs_of(data)):
        if letter.delivery is None:
            bounded(letter.text, RAW_KEPT)
            bounded(letter.problem, RAW_KEPT * 300)
        else:
            _sent(letter.delivery.message)


def _place(data: bytes) -> None:
    """Read a member of the queue, or of the lanes that are due, and its score."""
    member, _, score = text_of(data).partition("\x00")
    try:
        key = from_sort_key(member.rpartition("|")[2])
    except Unreadable as problem:
        bounded(str(problem), 300)
    else:
        sort_key(key)
    if (at := number({"score": score}, "score")) is not None:
        from_millis(at)


def _places() -> list[bytes]:
    keys = [f"{{short-interest}}:webhook:desk:{part}" for part in ("due", "queue")]
    members = itertools.chain(*(written(v)[k]["value"] for v in VERSIONS for k in keys))
    return [f"{member}\x00{score}".encode() for member, score in members]


def _state(data: bytes) -> None:
    """Find out from an endpoint's record where it goes on, and show how it does."""
    fields = pairs_of(data)
    raw: dict[str, Any] = {
        ours: fields[name]
        for ours, name in (
            ("position", "position:events"),
            ("at", "position:events:at"),
            ("read", "position:events:read"),
            ("other", "position:releases"),
            ("success", "last_success"),
            ("failure", "last_error_at"),
        )
        if name in fields
    }
    for stream in _STREAMS:
        for found in ({}, {"group": "4-0"}, {"group": _ID, "idle": 5}):
            start = start_of(read_place(raw | found, _MILLIS), stream)
            lost(start.read, stream.added, 1)
            for text in start_texts("desk", Stream.EVENTS, start):
                bounded(text, 2000)
    status = Status(
        failing_since=moment(fields, "failing_since"),
        last_success=moment(fields, "last_success"),
        last_error_at=moment(fields, "last_error_at"),
        next_attempt=from_millis(number(fields, "hold_until") or 0),
    )
    as_json(ServiceStatus(NOW, endpoints={"desk": status}))


def _states() -> list[bytes]:
    now = str(int(_MILLIS))
    recent = {
        "position:events": _ID,
        "position:events:at": now,
        "position:events:read": "12",
        "position:releases": "0-0",
        "last_success": now,
        "last_error_at": now,
        "failing_since": now,
        "hold_until": now,
    }
    return [*hashes_under("webhook:desk:state"), hash_text(recent)]


def _subscriber(data: bytes) -> None:
    """Find out where a group goes on that is gone, by the record that outlived it."""
    fields = pairs_of(data)
    record = {name: fields[name] for name in ("acknowledged", "at") if name in fields}
    for stream in ({}, {"last": "5-0", "first": "3-0", "added": 2}, {"last": START, "added": 0}):
        for start in ("$", "0"):
            read_start({"now": int(_MILLIS)} | record | stream, start)


def _subscribers() -> list[bytes]:
    return [hash_text({"acknowledged": _ID, "at": str(int(_MILLIS))}), hash_text({"at": "1"})]


TARGETS: Final = (
    Target("stream entry", _entries, plain(_entry), ("", "releases")),
    Target("use of an entry", _entries, plain(_shown)),
    Target("delivery", _deliveries, plain(_delivery), ("webhook:<name>:deliveries",)),
    Target(
        "attempts",
        lambda: values_under("webhook:desk:attempts"),
        plain(_attempts),
        ("webhook:<name>:attempts",),
    ),
    Target(
        "dead letters",
        lambda: hashes_under("webhook:desk:dead"),
        plain(_dead),
        ("webhook:<name>:dead",),
    ),
    Target(
        "place in a queue",
        _places,
        plain(_place),
        ("webhook:<name>:queue", "webhook:<name>:due"),
    ),
    Target("endpoint's state", _states, plain(_state), ("webhook:<name>:state",)),
    Target("subscriber's record", _subscribers, plain(_subscriber), ("subscriber:<group>",)),
)
