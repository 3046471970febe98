"""The vintages are enough to rebuild events as they were first published."""

import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from poller.delivery.outbox import Settlement
from poller.delivery.replay import ReplayRequest, replay
from poller.delivery.selection import EVENTS, Selection
from poller.detect.compare import Known, compare
from poller.detect.rebuild import rebuilt
from poller.events import encode
from poller.markets.hk import HkRecord
from poller.model import Code, EventType
from poller.store.store import ONE_OFF
from tests.memoryoutbox import MemoryOutbox
from tests.memorystore import MemoryStore
from tests.relaying import endpoint

CODE = Code("HK.00700")
SEEN = datetime(2026, 5, 8, 9, tzinfo=UTC)
FIRST = date(2026, 1, 2)


def row(week: int, shares: int) -> HkRecord:
    """Return the row of a week."""
    day = FIRST + timedelta(weeks=week)
    return HkRecord(None, str(day), shares, round(shares / 10**8, 2), 10.0, 9.0)


ANSWERS = [
    [row(n, 1_000_000 + 1000 * n) for n in range(6) if n != 3],  # first sight, one week missing
    [row(6, 1_400_000)],  # a new week
    [row(3, 900_000), row(6, 1_400_000)],  # the week that was missing
    [row(6, 1_450_000)],  # revised
    [row(6, 1_460_000), row(7, 1_500_000), row(8, 1_300_000)],  # revised again, and two new weeks
    [
        replace(row(n, 4 * shares), aggregated_short_ratio=row(n, shares).ratio)
        for n, shares in (
            (5, 1_005_000),
            (6, 1_460_000),
            (7, 1_500_000),
            (8, 1_300_000),
            (9, 10**6),
        )
    ],  # a split, and a new week
]


async def published(store: MemoryStore) -> None:
    """Publish what the answers say, an hour apart, each a second after it was observed."""
    for hours, rows in enumerate(ANSWERS):
        at = SEEN + timedelta(hours=hours)
        store.streams.clock = (at + timedelta(seconds=1)).timestamp
        snapshot = await store.records.snapshot(CODE)
        found = compare(CODE, rows, snapshot.known, observed_at=at, history=50)
        await store.records.commit(CODE, found, snapshot, ONE_OFF)


async def test_every_event_is_rebuilt_as_it_was() -> None:
    """Id, kind, figures, previous and change: all but the id on the stream."""
    store = MemoryStore(time.time)
    await published(store)
    told = [dict(entry.fields) for entry in store.streams.entries]
    kinds = [each["type"].rpartition(".")[2] for each in told]
    assert {"reported", "revised", "backfilled"} <= {*kinds}
    vintages = await store.records.vintages(CODE)
    assert [encode(event) for event in rebuilt(CODE, vintages)] == told
    since, until = SEEN + timedelta(hours=1), SEEN + timedelta(hours=4)
    part = [encode(event) for event in rebuilt(CODE, vintages, since=since, until=until)]
    assert part == [e for e in told if "10:00" <= e["observed_at"][11:16] < "13:00"]


def test_a_few_corrections_are_rebuilt_one_by_one() -> None:
    """Only what changed is on record, but the answer showed the other days, too."""
    seen = SEEN + timedelta(weeks=20)
    weeks = [row(n, 1_000_000 + 1000 * n) for n in range(20)]
    first = compare(CODE, weeks, Known(), observed_at=seen, history=50)
    vintages = {event.vintage.day: event.vintage for event in first.events}
    corrected = [row(n, 1_000_007 + 1_100 * n) for n in range(12, 17)]
    later = seen + timedelta(hours=1)
    known = Known(weeks[-1].day, vintages)
    answer = [*weeks[:12], *corrected, *weeks[17:]]
    told = compare(CODE, answer, known, observed_at=later, history=50).events
    assert {event.type for event in told} == {EventType.REVISED}
    everything = [*vintages.values(), *(event.vintage for event in told)]
    assert rebuilt(CODE, everything, since=later) == list(told)


async def test_a_replay_finds_in_history_what_the_stream_lost() -> None:
    """Each event once, in its lane's order, whether the stream has it or not; twice is the same."""
    store = MemoryStore(time.time)
    outbox = MemoryOutbox(store, time.time)
    desk = endpoint("desk")
    await published(store)
    told = [entry.fields["id"] for entry in store.streams.entries]
    await outbox.begin(["desk"])
    del store.streams.entries[2:-2]
    wanted = ReplayRequest(since=SEEN, until=SEEN + timedelta(days=1))
    made = await replay(store.streams, store.records, outbox, desk, wanted)
    assert (made.queued, made.waiting, made.rebuilt) == (len(told), 0, len(told) - 4)
    made = await replay(store.streams, store.records, outbox, desk, wanted)
    assert (made.queued, made.waiting) == (0, len(told))
    arrived = []
    for _ in told:
        (claim,) = (
            await outbox.exchange("desk", [], "t", limit=9, depth=1, ttl=timedelta(minutes=1))
        ).claims
        arrived.append(claim.deliveries[0].message)
        sent = [Settlement(claim, "sent")]
        await outbox.exchange("desk", sent, "u", limit=0, depth=1, ttl=timedelta(0))
    observed = [(each.observed_at, each.trading_day) for each in arrived]
    assert observed == sorted(observed)
    assert sorted(each.id for each in arrived) == sorted(told)


async def test_a_replay_by_id_and_of_what_is_to_come() -> None:
    """An id that only history has is found; one that is nowhere is named, and nothing queued."""
    store = MemoryStore(time.time)
    outbox = MemoryOutbox(store, time.time)
    desk = endpoint("desk", selection=Selection(frozenset(EVENTS)))
    await outbox.begin(["desk"])
    await published(store)
    made = await replay(store.streams, store.records, outbox, desk, ReplayRequest(since=SEEN))
    assert (made.queued, made.rebuilt) == (0, 0)  # all of it is still to be taken
    lost = store.streams.entries.pop(0).fields["id"]
    assert (
        await replay(store.streams, store.records, outbox, desk, ReplayRequest([lost, "HK.1:x:0"]))
    ).missing == {"HK.1:x:0"}
    assert (await outbox.status("desk")).waiting == 0
    made = await replay(store.streams, store.records, outbox, desk, ReplayRequest([lost]))
    assert (made.queued, made.rebuilt) == (1, 1)
