"""One suite for every store: in memory, embedded, Debian's Redis, Redis 8, Cluster, Sentinel."""

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from poller.detect.compare import Comparison, Known, compare
from poller.detect.held import Decision, QuarantinedFigure, Reason
from poller.errors import LeaseLost, StoreMisfit, Superseded
from poller.markets.hk import HONG_KONG, HkRecord
from poller.model import Code, Instrument, Vintage
from poller.schedule.notice import Completed, Detected, Mover, fields_of
from poller.store.embedded import Embedded
from poller.store.position import LAST
from poller.store.redis_status import RedisStatusStore
from poller.store.redisstore import RedisStore
from poller.store.retention import Group
from poller.store.snapshots import as_known_at
from poller.store.store import (
    NAMES,
    ONE_OFF,
    SIGNALS_KEPT,
    WATCHLIST,
    Lease,
    Snapshot,
    Stream,
)
from tests import nodes
from tests.feed import Store
from tests.machine import at_most, scaled
from tests.memorystore import MemoryStore
from tests.servers import KINDS, running

CODE = Code("HK.00700")
SEEN = datetime(2026, 5, 8, 9, tzinfo=UTC)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Cluster of three nodes, by the URL of all of them."""
    with nodes.cluster(tmp_path_factory.mktemp("cluster")) as members:
        yield "redis://" + ",".join(f"127.0.0.1:{member.port}" for member in members)


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A primary and its replica, by the URL of the Sentinel that watches them."""
    with nodes.watched(tmp_path_factory.mktemp("sentinel")) as (_, _, watchers):
        yield nodes.sentinel_url(watchers)


@pytest.fixture(params=["memory", *KINDS, "cluster", "sentinel"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store of each kind."""
    if request.param in {"cluster", "sentinel"}:
        shared = RedisStore(request.getfixturevalue(request.param), f"of-{tmp_path.name}")
        yield shared
        await shared.close()
        return
    if request.param == "memory":
        yield MemoryStore(time.time)
        return
    async with running(request.param, tmp_path) as url:
        real = RedisStore(url, "short-interest")
        yield real
        await real.close()


def row(day: int, shares: int = 100) -> HkRecord:
    """Return a row of April 2026."""
    return HkRecord(None, str(date(2026, 4, day)), shares, 0.5, 10.0, 9.0)


def look(snapshot: Snapshot, *records: HkRecord, at: datetime = SEEN) -> Comparison:
    """Compare rows with what was read."""
    return compare(CODE, records, snapshot.known, observed_at=at, history=50)


async def publish(store: Store, *records: HkRecord, at: datetime = SEEN) -> Comparison:
    """Read, compare and commit without a lease."""
    snapshot = await store.records.snapshot(CODE)
    comparison = look(snapshot, *records, at=at)
    await store.records.commit(CODE, comparison, snapshot, ONE_OFF)
    return comparison


async def ids(store: Store) -> list[str]:
    """Return the ids of all entries."""
    return [entry.fields["id"] for entry in await store.streams.read("0", count=100, block=None)]


async def test_a_commit_is_whole(store: Store) -> None:
    """Entries, history, vintages and watermark are there after one commit."""
    await publish(store, row(2), row(10))
    entries = await store.streams.read("0", count=10, block=None)
    assert set(entries[0].fields) == {
        "id", "type", "code", "market", "trading_day", "revision", "observed_at", "data",
    }  # fmt: skip
    assert await ids(store) == ["HK.00700:2026-04-02:0", "HK.00700:2026-04-10:0"]
    assert await store.records.watermarks() == {CODE: date(2026, 4, 10)}
    known = (await store.records.snapshot(CODE)).known
    assert sorted(known.vintages) == [date(2026, 4, 2), date(2026, 4, 10)]
    assert len(await store.records.vintages(CODE)) == 2


async def test_a_repeated_commit_is_refused(store: Store) -> None:
    """Sending the same commit again, its answer lost, changes nothing."""
    snapshot = await store.records.snapshot(CODE)
    comparison = look(snapshot, row(2))
    await store.records.commit(CODE, comparison, snapshot, ONE_OFF)
    with pytest.raises(Superseded):
        await store.records.commit(CODE, comparison, snapshot, ONE_OFF)
    assert len(await ids(store)) == 1


async def test_of_two_pollers_one_wins(store: Store) -> None:
    """The same news found twice at once is published once."""
    await publish(store, row(2))
    snapshot = await store.records.snapshot(CODE)
    commits = [
        store.records.commit(CODE, look(snapshot, row(2), row(n)), snapshot, ONE_OFF)
        for n in (9, 10)
    ]
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert sum(isinstance(outcome, Superseded) for outcome in outcomes) == 1
    assert len(await ids(store)) == 2


async def test_a_stale_revision_is_refused(store: Store) -> None:
    """A comparison with an older vintage of a day does not replace a newer one."""
    await publish(store, row(2, 100))
    old = await store.records.snapshot(CODE)
    await publish(store, row(2, 120))
    with pytest.raises(Superseded):
        await store.records.commit(CODE, look(old, row(2, 110)), old, ONE_OFF)
    assert (await ids(store))[-1] == "HK.00700:2026-04-02:1"


async def test_a_commit_needs_the_lease(store: Store) -> None:
    """Who lost the lease publishes nothing; tokens grow with every holder."""
    lease = await store.leases.acquire("a", 60)
    assert lease is not None
    assert await store.leases.acquire("b", 60) is None
    assert await store.leases.renew(lease, 60)
    await store.leases.release(lease)
    other = await store.leases.acquire("b", 60)
    assert other is not None
    assert other.token > lease.token
    snapshot = await store.records.snapshot(CODE)
    with pytest.raises(LeaseLost):
        await store.records.commit(CODE, look(snapshot, row(2)), snapshot, lease)
    assert await ids(store) == []
    await store.records.commit(CODE, look(snapshot, row(2)), snapshot, other)
    assert not await store.leases.renew(lease, 60)


async def test_a_lease_of_an_earlier_clock_ends(store: Store) -> None:
    """After the server's clock stepped back an hour, a killed poller's lease is soon free.

    Its time to live is then an hour longer than it was given; who prolongs it keeps it.
    """
    left = await store.leases.acquire("killed", 3600)
    assert left is not None
    assert await store.leases.acquire("other", 60) is None
    assert await store.leases.renew(left, 3600)
    async with at_most(10):
        while (taken := await store.leases.acquire("other", 0.05)) is None:
            await asyncio.sleep(0.01)
    assert taken.token > left.token
    assert not await store.leases.renew(left, 60)


async def test_vintages_tell_what_was_known_then(store: Store) -> None:
    """A revision keeps the vintage it replaced."""
    later = SEEN + timedelta(days=1)
    await publish(store, row(2, 100))
    await publish(store, row(2, 120), at=later)
    vintages = await store.records.vintages(CODE)
    assert [v.record.shares for v in as_known_at(vintages, SEEN)] == [100]
    assert [v.record.shares for v in as_known_at(vintages, later)] == [120]
    assert as_known_at(vintages, SEEN - timedelta(days=1)) == []


@given(st.lists(st.integers(-60, 60), min_size=1, max_size=6), st.integers(-99, 99), st.integers(0))
def test_what_was_known_never_turns_back(steps: list[int], first: int, later: int) -> None:
    """However the clock stepped while revisions came in, a later moment shows no older one."""
    vintages = [
        Vintage(row(2, n), n, SEEN + timedelta(minutes=step)) for n, step in enumerate(steps)
    ]
    moments = [SEEN + timedelta(minutes=first), SEEN + timedelta(minutes=first + later % 1000)]
    before, after = (as_known_at(vintages, moment) for moment in moments)
    assert len(before) <= len(after)
    assert all(b.revision <= a.revision for b, a in zip(before, after, strict=False))


async def test_the_budget_is_exact(store: Store) -> None:
    """No more than the limit; asking again under one name spends once; settling moves."""
    for n in range(3):
        assert await store.ledger.grant("a", f"r{n}", limit=3, period=60, margin=30) == 0
    assert await store.ledger.grant("a", "r2", limit=3, period=60, margin=30) == 0
    assert 50 < await store.ledger.grant("a", "r3", limit=3, period=60, margin=30) <= 60
    for n in range(3):
        await store.ledger.settle("a", f"r{n}", period=60, margin=0)
    assert 50 < await store.ledger.grant("a", "r3", limit=3, period=60, margin=30) <= 60
    assert await store.ledger.grant("b", "r3", limit=3, period=60, margin=30) == 0
    await store.ledger.exhaust("b", limit=3, period=60)
    assert await store.ledger.grant("b", "r4", limit=3, period=60, margin=30) > 0
    assert await store.ledger.spent("a", period=60) == 3


async def test_accounts_of_one_user_share_a_budget(store: Store) -> None:
    """Each request is counted by account and by user, and either may be full; so is settling."""
    a, b, c, d, e, f = (secrets.token_hex(4) for _ in range(6))
    one, two, three, four = (secrets.token_hex(4) for _ in range(4))
    spend = partial(store.ledger.grant, limit=2, period=60, margin=30)
    assert await spend(a, "r1", logins=[one]) == 0
    assert await spend(b, "r2", logins=[one]) == 0
    assert await spend(b, "r2", logins=[one]) == 0
    for account in (a, b, c):
        assert 50 < await spend(account, "r3", logins=[one]) <= 60
    assert await store.ledger.spent(a, period=60) == await store.ledger.spent(b, period=60) == 1
    assert await spend(a, "r3", logins=[two]) == 0
    assert await spend(a, "r4", logins=[two]) > 0  # for the account's own two
    assert await spend(c, "r4", logins=[one, three]) > 0
    assert await spend(c, "r4", logins=[three]) == 0
    await store.ledger.settle(c, "r5", period=60, margin=0, logins=[three])
    assert await spend(d, "r6", logins=[three]) > 0
    await store.ledger.exhaust(e, limit=2, period=60, logins=[four])
    assert await spend(f, "r7", logins=[four]) > 0


async def test_asking_moves_no_request(store: Store) -> None:
    """What was answered counts from its answer on, however often more is asked meanwhile."""
    account = secrets.token_hex(8)  # a Cluster's ledger is shared with other tests
    assert await store.ledger.grant(account, "r0", limit=1, period=60, margin=30) == 0
    await store.ledger.settle(account, "r0", period=60, margin=0)
    settled = time.monotonic()
    for _ in range(3):
        asked = time.monotonic()
        wait = await store.ledger.grant(account, "r1", limit=1, period=60, margin=30)
        assert 0 < wait <= 60 - (asked - settled) + 0.001


async def test_an_unanswered_request_counts_a_margin_longer(raw: tuple[RedisStore, Any]) -> None:
    """Until its answer is in, and also when the clock was far ahead as it was granted."""
    store, client = raw
    key = store.keys.budget("main")
    assert await store.ledger.grant("main", "early", limit=3, period=60, margin=30) == 0
    ahead = await client.zscore(key, "early") + 86_400e6
    await client.zadd(key, {"early": ahead})
    before = await clock(client)
    assert await store.ledger.grant("main", "late", limit=3, period=60, margin=30) == 0
    after = await clock(client)
    for request in ("early", "late"):
        assert before + 30e6 <= await client.zscore(key, request) <= after + 30e6
    assert 90 <= await client.ttl(key) <= 180


async def test_a_request_is_forgotten_after_its_period(raw: tuple[RedisStore, Any]) -> None:
    """The oldest make room, one for one, and the ledger holds no more than a period's."""
    store, client = raw
    key = store.keys.budget("main")
    now = await clock(client)
    await client.zadd(key, {"gone": now - 60e6, "old": now - 50e6, "new": now - 20e6})
    wait = await store.ledger.grant("main", "r", limit=2, period=60, margin=30)
    passed = (await clock(client) - now) / 1e6
    assert 10 - passed <= wait <= 10
    assert await store.ledger.grant("main", "r", limit=3, period=60, margin=30) == 0
    assert await client.zrange(key, 0, -1) == [b"old", b"new", b"r"]


async def test_what_is_settled_counts_from_now(raw: tuple[RedisStore, Any]) -> None:
    """Or from a margin later, unknown ones too; an exhausted budget is spent by a whole limit."""
    store, client = raw
    key = store.keys.budget("main")
    for margin in (0, 30):
        before = await clock(client)
        await store.ledger.settle("main", "r", period=60, margin=margin)
        after = await clock(client)
        assert before + margin * 1e6 <= await client.zscore(key, "r") <= after + margin * 1e6
        assert 60 + margin <= await client.ttl(key) <= 2 * (60 + margin)
    before = await clock(client)
    await store.ledger.exhaust("main", limit=5, period=60)
    after = await clock(client)
    scores = dict(await client.zrange(key, 0, -1, withscores=True))
    scores.pop(b"r")
    assert len(scores) == 5
    assert all(before <= score <= after for score in scores.values())


async def test_a_lease_ends_with_its_owner(raw: tuple[RedisStore, Any]) -> None:
    """It lives as long as was asked for, prolonged by its owner alone; each has a higher token."""
    store, client = raw
    first = await store.leases.acquire("one", 60)
    assert first is not None
    assert 30_000 < await client.pttl(store.keys.lease) <= 60_000
    assert await store.leases.acquire("two", 600) is None
    assert await client.pttl(store.keys.lease) <= 60_000
    assert not await store.leases.renew(Lease("9:another"), 600)
    assert await client.pttl(store.keys.lease) <= 60_000
    assert await store.leases.renew(first, 600)
    assert 60_000 < await client.pttl(store.keys.lease) <= 600_000
    await client.persist(store.keys.lease)
    assert await store.leases.acquire("two", 60) is None
    assert 30_000 < await client.pttl(store.keys.lease) <= 60_000
    await store.leases.release(Lease("9:another"))
    assert await client.exists(store.keys.lease)
    await store.leases.release(first)
    second = await store.leases.acquire("two", 60)
    assert (first, second) == (Lease("1:one"), Lease("2:two"))


async def clock(client: Any) -> int:  # noqa: ANN401
    """Return the server's time in microseconds."""
    seconds, micros = await client.time()
    return int(seconds) * 1_000_000 + int(micros)


async def test_namespaces_share_the_budget_of_an_account(store: Store) -> None:
    """What one spends the others have spent, on a Cluster too; a simulation spends its own."""
    if not isinstance(store, RedisStore):
        pytest.skip("a store in memory has one namespace")
    first, second, played = (
        RedisStore(store.url, f"{store.keys.namespace}-{n}") for n in ("a", "b", "c")
    )
    await played.mark.forbid_mixing(simulated=True)
    account = f"of-{store.keys.namespace}"
    await store.inspect()
    assert await first.ledger.grant(account, "r1", limit=2, period=60, margin=0) == 0
    assert await store.ledger.grant(account, "r2", limit=2, period=60, margin=0) == 0
    assert await second.ledger.grant(account, "r3", limit=2, period=60, margin=0) > 0
    assert await played.ledger.grant(account, "r3", limit=2, period=60, margin=0) == 0
    assert [await each.ledger.spent(account, period=60) for each in (store, second, played)] == [
        2,
        2,
        1,
    ]
    await publish(first, row(2))
    assert await first.ledger.grant(account, "r4", limit=3, period=60, margin=0) == 0
    for each in (first, second, played):
        await each.close()


async def test_what_an_earlier_version_spent_is_counted_in(raw: tuple[RedisStore, Any]) -> None:
    """It kept a budget in each namespace, and may have spent it a moment before an upgrade."""
    store, client = raw
    await client.zadd("{desk}:budget:main", {f"old-{n}": time.time() * 1e6 for n in range(3)})
    other = RedisStore(store.url, "desk")
    assert await other.ledger.grant("main", "r", limit=3, period=60, margin=0) > 0
    assert await store.ledger.spent("main", period=60) == 3
    await other.close()


async def test_a_budget_of_another_type_names_its_key(raw: tuple[RedisStore, Any]) -> None:
    """The error names the key, in any namespace."""
    store, client = raw
    await client.rpush("{short-interest}:budget:main", "mine")
    other = RedisStore(store.url, "desk")
    for each in (store, other):
        for call in (
            each.ledger.grant("main", "r", limit=3, period=60, margin=0),
            each.ledger.settle("main", "r", period=60, margin=0),
            each.ledger.spent("main", period=60),
        ):
            with pytest.raises(StoreMisfit, match=r"{short-interest}:budget:main holds a list"):
                await call
    await other.close()


async def test_what_cannot_be_named_is_still_an_error_of_ours(raw: tuple[RedisStore, Any]) -> None:
    """A budget of another type, and a user who may not ask for its type: refused all the same."""
    store, client = raw
    await client.rpush(store.keys.budget("main"), "x")
    await client.execute_command("ACL", "SETUSER", "blind", "on", ">blind", "~*", "+@all", "-type")
    url = store.url.replace("//:", "//").split("@")[1]
    other = RedisStore(f"unix://blind:blind@{url}", store.keys.namespace)
    with pytest.raises(StoreMisfit, match="refuses this user"):
        await other.ledger.grant("main", "r", limit=3, period=60, margin=0)
    await other.close()


async def test_a_user_without_the_shared_budgets_is_refused(raw: tuple[RedisStore, Any]) -> None:
    """At the start, with what the user must be let have."""
    store, client = raw
    rights = ["~desk", "~{desk}:*", "+@all"]
    await client.execute_command("ACL", "SETUSER", "desk", "on", ">desk", *rights)
    url = store.url.replace("//:", "//").split("@")[1]
    other = RedisStore(f"unix://desk:desk@{url}", "desk")
    with pytest.raises(StoreMisfit, match=r"share the budgets {short-interest}:budget:\*"):
        await other.inspect()
    await client.execute_command("ACL", "SETUSER", "desk", "~{short-interest}:budget:*")
    await other.inspect()
    await other.close()


async def test_the_live_watchlist(store: Store) -> None:
    """Adding and removing is remembered, and every change has a version of its own."""
    before = await store.watchlist.version()
    await store.watchlist.watch([CODE], wanted=True)
    await store.watchlist.watch([Code("US.AAPL")], wanted=False)
    assert (await store.watchlist.watched()).marks == {CODE: True, "US.AAPL": False}
    assert await store.watchlist.version() == before + 2


async def test_the_plan_is_kept(store: Store) -> None:
    """What the schedule remembers is read back; a name not given stays as it was."""
    assert await store.plans.schedule() == {}
    await store.plans.save_schedule({"HK": "{}", "US": "{}"}, ONE_OFF)
    await store.plans.save_schedule({"HK": '{"newest": "2026-04-10"}'}, ONE_OFF)
    assert await store.plans.schedule() == {"HK": '{"newest": "2026-04-10"}', "US": "{}"}


OUT = Detected(HONG_KONG, date(2026, 4, 2), SEEN, CODE)
BIGGEST = (Mover(Code("HK.00700"), "TENCENT", 51_480_638, -408_117, -0.7865, 1, 100.0),)
COMPLETE = Completed(HONG_KONG, date(2026, 4, 2), SEEN, 2, (Code("HK.00005"),), BIGGEST)


async def notices(store: Store) -> list[str]:
    """Return the ids of all entries of the stream of releases."""
    entries = await store.streams.read("0", count=100, block=None, stream=Stream.RELEASES)
    return [entry.fields["id"] for entry in entries]


async def test_a_notice_is_told_once(store: Store) -> None:
    """On a stream of its own, in order; announcing the same id again changes nothing."""
    assert await store.plans.announce(OUT, ONE_OFF)
    later = replace(OUT, at=SEEN + timedelta(hours=1), code=Code("HK.00005"))
    told = await asyncio.gather(*[store.plans.announce(each, ONE_OFF) for each in (OUT, later)])
    assert told == [None, None]
    assert await store.plans.announce(COMPLETE, ONE_OFF)
    assert await notices(store) == ["HK:2026-04-02:detected", "HK:2026-04-02:completed"]
    assert await ids(store) == []
    (last,) = await store.streams.last_entries(1, Stream.RELEASES)
    assert dict(last.fields) == fields_of(COMPLETE)
    assert await store.streams.read(last.id, count=5, block=0.01, stream=Stream.RELEASES) == []


async def test_the_plan_needs_the_lease(store: Store) -> None:
    """A former leader's plan does not replace the new leader's."""
    first = await store.leases.acquire("one", 60)
    assert first is not None
    await store.plans.save_schedule({"HK": "old"}, first)
    await store.leases.release(first)
    second = await store.leases.acquire("two", 60)
    assert second is not None
    await store.plans.save_schedule({"HK": "new"}, second)
    with pytest.raises(LeaseLost):
        await store.plans.save_schedule({"HK": "older"}, first)
    assert await store.plans.schedule() == {"HK": "new"}


async def test_a_notice_needs_the_lease(store: Store) -> None:
    """A process that lost the lease announces nothing."""
    lease = await store.leases.acquire("a", 60)
    assert lease is not None
    await store.leases.release(lease)
    with pytest.raises(LeaseLost):
        await store.plans.announce(OUT, lease)
    assert await notices(store) == []
    other = await store.leases.acquire("b", 60)
    assert other is not None
    assert await store.plans.announce(OUT, other)


async def test_a_blocked_reader_is_woken(store: Store) -> None:
    """A reader that waits gets the entry when it is appended."""
    await publish(store, row(2))
    (last,) = await store.streams.last_entries(1)
    reader = asyncio.create_task(store.streams.read(last.id, count=5, block=10))
    await publish(store, row(2), row(9))
    assert [entry.fields["id"] for entry in await reader] == ["HK.00700:2026-04-09:0"]


async def woken_by(store: Store, change: Coroutine[Any, Any, object]) -> AbstractSet[str] | None:
    """Return the topics of the news that a change brings to one who waits for it."""
    start = await store.streams.news(None, block=0)
    assert start.topics is None
    waiting = asyncio.create_task(store.streams.news(start.position, block=10))
    await asyncio.sleep(0)
    await change
    news = await waiting
    return news.topics


async def test_news_names_what_has_grown(store: Store) -> None:
    """Each stream and each signal wakes who waits, by its own name."""
    assert await woken_by(store, publish(store, row(2))) == {Stream.EVENTS}
    assert await woken_by(store, store.plans.announce(OUT, ONE_OFF)) == {Stream.RELEASES}
    assert await woken_by(store, store.watchlist.watch([CODE], wanted=True)) == {WATCHLIST}
    assert await woken_by(store, store.streams.signal("webhook:desk")) == {"webhook:desk"}


async def test_news_is_missed_by_nobody(store: Store) -> None:
    """Growth before the wait began is returned at once, and only once."""
    start = await store.streams.news(None, block=0)
    await publish(store, row(2))
    await store.streams.signal("webhook:desk")
    await store.streams.signal("webhook:chat")
    news = await store.streams.news(start.position, block=10)
    assert news.topics == {Stream.EVENTS, "webhook:desk", "webhook:chat"}
    quiet = await store.streams.news(news.position, block=0.01)
    assert quiet == replace(news, topics=frozenset())


async def test_more_signals_than_are_kept_may_be_any(store: Store) -> None:
    """Who was away for more signals than Redis keeps takes it that each was given."""
    start = await store.streams.news(None, block=0)
    for n in range(5 * SIGNALS_KEPT):
        await store.streams.signal(f"webhook:{n}")
    assert (await store.streams.news(start.position, block=0)).topics is None


SLIP = 10**9


async def test_a_held_figure_is_kept_beside_history(store: Store) -> None:
    """A hold is committed with the entries of its answer; history and watermark know nothing."""
    await publish(store, row(2, 10_000))
    await publish(store, row(2, 10_000), row(9, SLIP), row(10, 10_001))
    known = (await store.records.snapshot(CODE)).known
    assert (known.watermark, sorted(known.vintages)) == (
        date(2026, 4, 10), [date(2026, 4, 2), date(2026, 4, 10)],
    )  # fmt: skip
    assert known.held[date(2026, 4, 9)] == QuarantinedFigure(
        row(9, SLIP), row(2, 10_000), Reason.UNIT_SLIP, SEEN
    )
    assert await store.records.held_codes() == [CODE]
    assert await ids(store) == ["HK.00700:2026-04-02:0", "HK.00700:2026-04-10:0"]


async def test_a_repeated_hold_is_refused(store: Store) -> None:
    """Sending the same hold again, its answer lost, holds nothing twice; nor a stale decision."""
    await publish(store, row(2, 10_000))
    snapshot = await store.records.snapshot(CODE)
    comparison = look(snapshot, row(2, 10_000), row(9, SLIP))
    await store.records.commit(CODE, comparison, snapshot, ONE_OFF)
    with pytest.raises(Superseded):
        await store.records.commit(CODE, comparison, snapshot, ONE_OFF)
    stale = await store.records.snapshot(CODE)
    await publish(store, row(2, 10_000), row(9, 2 * SLIP))
    with pytest.raises(Superseded):
        await store.records.commit(CODE, decision(stale, Decision.RELEASED), stale, ONE_OFF)
    (held,) = (await store.records.snapshot(CODE)).known.held.values()
    assert (held.record.shares, held.decision) == (2 * SLIP, Decision.HELD)


async def test_several_figures_are_held_and_settled_together(store: Store) -> None:
    """Each with its own day and figure, in one commit; so are they moved into history."""
    await publish(store, row(2, 10_000))
    doubtful = {date(2026, 4, 2 + n): SLIP * 50**n for n in (1, 2, 3)}
    answer = [row(2, 10_000), *(row(day.day, shares) for day, shares in doubtful.items())]
    await publish(store, *answer)
    snapshot = await store.records.snapshot(CODE)
    held = snapshot.known.held
    assert {day: each.record.shares for day, each in held.items()} == doubtful
    await store.records.commit(CODE, decision(snapshot, Decision.RELEASED), snapshot, ONE_OFF)
    await publish(store, *answer)
    known = (await store.records.snapshot(CODE)).known
    assert known.held == {}
    assert doubtful.items() <= {d: v.record.shares for d, v in known.vintages.items()}.items()


def decision(snapshot: Snapshot, what: Decision) -> Comparison:
    """Return the operator's decision on everything held."""
    held = tuple(replace(each, decision=what) for each in snapshot.known.held.values())
    return Comparison(snapshot.known.watermark, held=held)


async def test_a_released_figure_is_published_and_held_no_more(store: Store) -> None:
    """The decision waits in the store for the next poll, which moves the figure into history."""
    await publish(store, row(2, 10_000))
    await publish(store, row(2, 10_000), row(9, SLIP))
    snapshot = await store.records.snapshot(CODE)
    await store.records.commit(CODE, decision(snapshot, Decision.RELEASED), snapshot, ONE_OFF)
    assert len(await ids(store)) == 1
    await publish(store, row(2, 10_000), row(9, SLIP))
    assert (await ids(store))[1:] == ["HK.00700:2026-04-09:0"]
    assert await store.records.held_codes() == []
    assert (await store.records.snapshot(CODE)).known.held == {}


async def test_a_long_history_is_restated_at_once(store: Store) -> None:
    """More days than a server takes in one call get their next vintage in one commit."""
    first, count = date(2012, 7, 1), 5_000
    days = [str(first + timedelta(days=n)) for n in range(count)]
    rows = [replace(row(2, 5_000 + n), timestamp_str=text) for n, text in enumerate(days)]
    doubled = [replace(one, aggregated_short=2 * (one.aggregated_short or 0)) for one in rows]
    empty = await store.records.snapshot(CODE)
    told_before = tuple(Vintage(one, 0, SEEN) for one in rows)
    await store.records.commit(
        CODE, Comparison(rows[-1].day, unpublished=told_before), empty, ONE_OFF
    )
    await publish(store, *doubled)
    (last,) = await store.streams.last_entries(1)
    assert (last.fields["id"], last.fields["type"]) == (
        f"HK.00700:{days[-1]}:1", "short_interest.restated",
    )  # fmt: skip
    assert json.loads(last.fields["data"])["restated"]["days"] == count
    known = (await store.records.snapshot(CODE)).known
    assert {(v.revision, v.record.shares == 2 * (5_000 + n)) for n, v in numbered(known)} == {
        (1, True)
    }


def numbered(known: Known) -> list[tuple[int, Vintage]]:
    """Return the known days, oldest first, counted."""
    return list(enumerate(known.vintages[day] for day in sorted(known.vintages)))


@pytest.fixture
async def raw(tmp_path: Path) -> AsyncIterator[tuple[RedisStore, Any]]:
    """An embedded server's store, and a plain client to it."""
    async with Embedded(tmp_path).running() as url:
        real, client = RedisStore(url, "short-interest"), Redis.from_url(url)
        yield real, client
        await real.close()
        await client.aclose()


async def test_who_is_cancelled_in_a_command_stops(raw: tuple[RedisStore, Any]) -> None:
    """Whenever it comes, a cancellation ends a task that does nothing but use the store."""
    store, _ = raw

    async def work() -> None:
        while True:
            await store.watchlist.version()

    for turns in range(200):
        task = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=scaled(2))
        assert done, f"cancelled after {turns} turns of the loop, it goes on"


@pytest.mark.parametrize("edit", ["rubbish", '{"revision":0}', b"\xff\xfe", b"\xf0(\x8c(", None])
async def test_an_edited_entry_is_put_back(
    raw: tuple[RedisStore, Any], edit: str | bytes | None
) -> None:
    """History edited or removed by hand is restored, named, and no id is used twice."""
    store, client = raw
    await publish(store, row(2), row(10))
    key = store.keys.history(CODE)
    before = await client.hget(key, "2026-04-02")
    if edit is None:
        await client.hdel(key, "2026-04-02")
    else:
        await client.hset(key, "2026-04-02", edit)
    assert "2026-04-02" in (await store.records.snapshot(CODE)).notes[0]
    assert (await publish(store, row(2), row(10))).events == ()
    assert await client.hget(key, "2026-04-02") == before
    assert len(await ids(store)) == 2


async def test_a_lost_history_is_one_note(raw: tuple[RedisStore, Any]) -> None:
    """However many days are put back, the operator reads how many, from which to which."""
    store, client = raw
    await publish(store, row(2), row(9), row(10))
    key = store.keys.history(CODE)
    await client.delete(key)
    (note,) = (await store.records.snapshot(CODE)).notes
    assert note.startswith(f"{key}: 3 entries from 2026-04-02 to 2026-04-10 were missing")
    assert (await publish(store, row(2), row(9), row(10))).events == ()
    assert await client.hlen(key) == 3


async def test_what_is_held_is_told_on_a_stream_of_its_own(raw: tuple[RedisStore, Any]) -> None:
    """One entry a hold, with what speaks against it; a decision is no entry."""
    store, client = raw
    await publish(store, row(2, 10_000))
    await publish(store, row(2, 10_000), row(9, SLIP))
    snapshot = await store.records.snapshot(CODE)
    await store.records.commit(CODE, decision(snapshot, Decision.DISCARDED), snapshot, ONE_OFF)
    await publish(store, row(2, 10_000), row(9, SLIP))
    ((_, fields),) = await client.xrange(store.keys.quarantine)
    entry = {name.decode(): text.decode() for name, text in fields.items()}
    told = json.loads(entry.pop("data"))
    assert entry == {
        "id": "HK.00700:2026-04-09",
        "code": "HK.00700",
        "market": "HK",
        "trading_day": "2026-04-09",
        "reason": "unit_slip",
        "observed_at": "2026-05-08T09:00:00.000Z",
    }
    shares = [told[name]["aggregated_short"] for name in ("record", "previous")]
    assert shares == [SLIP, 10_000]


async def test_a_held_record_that_is_no_text_names_its_cure(raw: tuple[RedisStore, Any]) -> None:
    """A byte that is not UTF-8 in a reason: no commit is tried; the error names the command."""
    store, client = raw
    await publish(store, row(2, 10_000))
    await publish(store, row(2, 10_000), row(9, SLIP))
    key = store.keys.held(CODE)
    text = await client.hget(key, "2026-04-09")
    await client.hset(key, "2026-04-09", text.replace(b"unit_slip", b"unit_slip\xff"))
    with pytest.raises(StoreMisfit, match=f"HDEL {re.escape(key)} 2026-04-09"):
        await store.records.snapshot(CODE)


async def test_an_entry_that_is_no_text_can_be_passed_on(raw: tuple[RedisStore, Any]) -> None:
    """Whoever reads the stream can encode every text of it, whatever bytes somebody wrote."""
    store, client = raw
    await client.xadd(store.keys.stream, {b"na\xffme": b"\xd6\xd0", "name": "\u4e2d"})
    readings = [
        await store.streams.read("0", count=1, block=None),
        await store.streams.read("0", count=1, block=1),
        await store.streams.last_entries(1),
    ]
    for (entry,) in readings:
        assert entry.fields == {"na\ufffdme": "\ufffd\ufffd", "name": "\u4e2d"}


@pytest.mark.parametrize(
    ("name", "typed"), [("2026-04-09", "2026-04-09"), ("soon", "soon"), (b"\xff", '"\\xff"')]
)
async def test_an_unusable_held_entry_names_its_cure(
    raw: tuple[RedisStore, Any], name: str | bytes, typed: str
) -> None:
    """A foreign entry among the held days is refused with the command that removes it."""
    store, client = raw
    await client.hset(store.keys.held(CODE), name, "{}")
    with pytest.raises(StoreMisfit, match=re.escape(f"HDEL {store.keys.held(CODE)} {typed}")):
        await store.records.snapshot(CODE)


@pytest.mark.parametrize("watermark", ["soon", "2026-04-29", b"2026-04-10\xff"])
async def test_an_unusable_watermark_names_its_cure(
    raw: tuple[RedisStore, Any], watermark: str | bytes
) -> None:
    """A watermark that cannot be true is refused with the command that corrects it."""
    store, client = raw
    await publish(store, row(2), row(10))
    await client.hset(store.keys.watermark, CODE, watermark)
    with pytest.raises(StoreMisfit, match=r"HDEL|HSET"):
        await store.records.snapshot(CODE)


async def test_a_stream_that_somebody_has_filled_is_named(raw: tuple[RedisStore, Any]) -> None:
    """Behind the last id there can be nothing is appended; what reads goes on all the same."""
    store, client = raw
    for key in (store.keys.signals, store.keys.stream):
        await client.xadd(key, {"subject": "anything"}, id=LAST)
    await client.xgroup_create(store.keys.stream, "desk", LAST)
    assert await store.streams.groups(Stream.EVENTS) == [Group("desk", None)]
    news = await store.streams.news(None, block=0.01)
    await store.streams.news(news.position, block=0.01)
    await client.delete(store.keys.stream)
    with pytest.raises(StoreMisfit, match=r"RENAME '\{short-interest\}:signals'"):
        await store.streams.signal("anything")
    status_store = RedisStatusStore(store.url, "short-interest")
    await status_store.save_symbols([CODE])
    assert await status_store.symbols() == (CODE,)
    await status_store.close()


async def test_an_unfit_server_is_refused(raw: tuple[RedisStore, Any]) -> None:
    """An eviction policy or a key of another type is refused with the fix, before any poll."""
    store, client = raw
    assert "Valkey" in await store.inspect()
    await client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreMisfit, match="noeviction"):
        await store.inspect()
    await client.config_set("maxmemory-policy", "noeviction")
    await client.set(store.keys.stream, "mine")
    with pytest.raises(StoreMisfit, match=r"redis\.namespace"):
        await store.inspect()
    snapshot = await store.records.snapshot(CODE)
    with pytest.raises(StoreMisfit):
        await store.records.commit(CODE, look(snapshot, row(2)), snapshot, ONE_OFF)
    assert await store.records.watermarks() == {}


async def test_a_user_who_may_write_only_half_is_refused(
    raw: tuple[RedisStore, Any], tmp_path: Path
) -> None:
    """Rights that would let a commit stop half-way are found before anything is published."""
    store, client = raw
    await client.execute_command(
        "ACL", "SETUSER", "half", "on", ">half", "~*", "+@all", "-hset", "-config"
    )
    other = RedisStore(f"unix://half:half@{Embedded(tmp_path).socket}", "short-interest")
    with pytest.raises(StoreMisfit, match="hset"):
        await other.inspect()
    await other.close()
    assert await ids(store) == []
    assert not [key async for key in client.scan_iter("*rehearsal*")]


async def test_a_key_of_no_symbol_is_passed_over(raw: tuple[RedisStore, Any]) -> None:
    """Foreign keys that contain no code are neither held nor history codes."""
    store, client = raw
    await publish(store, row(2, 10_000))
    await publish(store, row(2, 10_000), row(9, SLIP))
    for code in ("FOO", "HK.", "", "HK.700"):
        await client.hset(store.keys.held(Code(code)), "2026-04-09", "x")
        await client.hset(store.keys.vintages(Code(code)), "2026-04-09:0", "x")
    assert await store.records.held_codes() == [CODE]
    assert await store.records.history_codes() == [CODE]


@pytest.mark.parametrize("field", ["foo", "", "HK", "HK.", "JP.7203", "hk.00700", "HK.700", "é"])
async def test_what_is_no_symbol_has_no_watermark(raw: tuple[RedisStore, Any], field: str) -> None:
    """A foreign field among the watermarks is skipped; the others are returned."""
    store, client = raw
    await publish(store, row(2))
    await client.hset(store.keys.watermark, field, "2026-04-09")
    assert await store.records.watermarks() == {CODE: date(2026, 4, 2)}


async def test_the_first_that_may_publish_decides_whose_stream_it_is(
    raw: tuple[RedisStore, Any],
) -> None:
    """Before there is any entry, too, and as often as it is asked."""
    store, client = raw
    for first in (False, True):
        for _ in range(2):
            await store.mark.forbid_mixing(simulated=first)
            with pytest.raises(StoreMisfit, match=r"redis\.namespace"):
                await store.mark.forbid_mixing(simulated=not first)
        await client.flushall()


@pytest.mark.parametrize("left", ["both", "entries", "watermarks"])
async def test_what_stands_there_without_a_mark_is_opends(
    raw: tuple[RedisStore, Any], left: str
) -> None:
    """As an earlier version left it; what retention trimmed to nothing still has watermarks."""
    store, client = raw
    await publish(store, row(2))
    if left == "entries":
        await client.delete(store.keys.watermark)
    if left == "watermarks":
        await client.xtrim(store.keys.stream, maxlen=0)
    with pytest.raises(StoreMisfit, match="for what OpenD reports"):
        await store.mark.forbid_mixing(simulated=True)
    await store.mark.forbid_mixing(simulated=False)


async def test_an_earlier_simulation_stays_one(raw: tuple[RedisStore, Any]) -> None:
    """Its mark is understood; an endpoint's group on an empty stream is nobody's event."""
    store, client = raw
    await client.xgroup_create(store.keys.stream, "webhook:desk", mkstream=True)
    await store.mark.forbid_mixing(simulated=True)
    assert await client.get(store.keys.simulated) == b"1"
    await publish(store, row(2))
    await store.mark.forbid_mixing(simulated=True)


async def test_of_two_that_start_together_one_is_refused(raw: tuple[RedisStore, Any]) -> None:
    """A service and a simulation on an empty namespace: never both, never neither."""
    store, client = raw
    for _ in range(20):
        told = await asyncio.gather(
            store.mark.forbid_mixing(simulated=True),
            store.mark.forbid_mixing(simulated=False),
            return_exceptions=True,
        )
        assert [type(each) for each in told if each] == [StoreMisfit]
        await client.flushall()


async def test_a_rehearsal_is_whole(raw: tuple[RedisStore, Any]) -> None:
    """Its scratch keys are written and removed in one transaction: no kill leaves them behind."""
    store, client = raw
    async with client.monitor() as monitor:
        await store.inspect()
        told = []
        async with at_most(10):
            while "exec" not in told:
                command = await monitor.next_command()
                if command["client_type"] != "lua":
                    told.append(command["command"].partition(" ")[0].casefold())
    assert told[told.index("multi") :] == ["multi", "evalsha", "del", "exec"]
    assert not [key async for key in client.scan_iter("*rehearsal*")]


async def test_a_seeded_watermark_counts(store: Store) -> None:
    """With a watermark and no history, only newer days are reported."""
    empty = replace(await store.records.snapshot(CODE), known=Known(date(2026, 4, 2)))
    found = look(empty, row(2), row(9))
    assert [event.id for event in found.events] == ["HK.00700:2026-04-09:0"]


async def test_names_are_kept_by_symbol(store: Store) -> None:
    """What is saved is read back, symbol by symbol; what was never saved is left out."""
    first = Instrument("腾讯控股", 2**53 + 1, None, SEEN, None)
    second = Instrument(counted_at=SEEN)
    us = Code("US.AAPL")
    await store.instruments.save_instruments({CODE: first, us: second})
    assert await store.instruments.instruments([CODE, us, Code("HK.00005")]) == {
        CODE: first,
        us: second,
    }
    await store.instruments.save_instruments({us: first})
    assert await store.instruments.instruments([us]) == {us: first}
    assert await store.instruments.instruments([]) == {}


async def test_new_names_are_signalled(store: Store) -> None:
    """Who shows them need not look again and again."""
    position = (await store.streams.news(None, block=0)).position
    await store.instruments.save_instruments({CODE: Instrument("TENCENT")})
    assert NAMES in ((await store.streams.news(position, block=5)).topics or {NAMES})
