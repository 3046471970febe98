"""The story of `run --simulate` is consistent, pauses and second processes included."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise, takewhile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from poller.detect.compare import Known, compare
from poller.errors import ConfigError, StoreMisfit
from poller.markets import all_markets
from poller.markets.hk import HONG_KONG
from poller.markets.us import UNITED_STATES
from poller.model import Event, EventType, market_of
from poller.schedule.calendar import release_of, reporting_days
from poller.simulator import TENCENT_ROWS
from poller.simulator.series import TENCENT
from poller.simulator.story import FIRST, RELEASE_EVERY, REVISED_AFTER, story, story_releases
from poller.simulator.world import ShortInterest, World, WorldAnswer
from poller.store.embedded import Embedded
from poller.store.playtime import Play, Playtime
from tests.service import Service, entries, now, store_of

BEGAN = datetime(2026, 11, 25, 14, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@settings(max_examples=25)
@given(
    st.integers(0, 9 * 365 * 86_400).map(lambda n: datetime(2026, 11, 1, tzinfo=UTC) + n * SECOND)
)
def test_each_turn_shows_the_next_day_of_a_market(began: datetime) -> None:
    """Whenever it begins: every day once, in the calendar's order, none before it can be out."""
    played = story_releases(began)
    assert played[0].market is HONG_KONG
    assert UNITED_STATES in {release.market for release in played[:3]}
    assert [release.at for release in played[:3]] == [
        began + FIRST + n * RELEASE_EVERY for n in range(3)
    ]
    hurried = takewhile(lambda pair: pair[1].at - pair[0].at == RELEASE_EVERY, pairwise(played))
    assert sum(1 for _ in hurried) * RELEASE_EVERY > timedelta(minutes=20)
    for market in all_markets():
        mine = [release for release in played if release.market is market]
        days = reporting_days(market, mine[0].day)
        assert [release.day for release in mine] == [next(days) for _ in mine]
        assert all(release_of(market, release.day).opens < release.at for release in mine)
        assert sorted(mine, key=lambda release: release.at) == mine


def test_a_clock_before_the_first_report_is_refused() -> None:
    """It is refused with the fix, instead of a story without any report."""
    with pytest.raises(ConfigError, match="set the clock"):
        story(datetime(2024, 1, 1, tzinfo=UTC))


def test_the_first_minute() -> None:
    """The rows of Futu's page, after 12 s a next day, after 22 s a revision: what a demo shows."""
    world, first = story(BEGAN), story_releases(BEGAN)[0]
    assert world.records(TENCENT, BEGAN) == TENCENT_ROWS
    assert (first.market, first.at - BEGAN) == (HONG_KONG, timedelta(seconds=12))
    revision = world.revisions[0]
    assert (revision.day, revision.at - BEGAN) == (first.day, timedelta(seconds=22))
    for code in world.codes():
        before, after = (world.records(code, first.at + n * SECOND) for n in (-1, 0))
        shows = bool(before) and market_of(code) is HONG_KONG
        assert [row.day for row in after[: len(after) - len(before)]] == [first.day] * shows


def follow(world: World, moments: list[tuple[datetime, datetime]], symbols: int) -> list[Event]:
    """Look at so many symbols of each market, at each (real, world's) moment; return the events."""
    often = [code for code, _ in Counter(each.code for each in world.revisions).most_common()]
    codes = [c for m in all_markets() for c in [o for o in often if market_of(o) is m][:symbols]]
    known, events = dict.fromkeys(codes, Known()), list[Event]()
    for real, moment in moments:
        for code in codes:
            answer, _ = world.answer(ShortInterest(code, num=50), moment)
            assert isinstance(answer, WorldAnswer)
            rows = answer.records
            found = compare(code, rows, known[code], observed_at=real, history=50)
            assert found.held == ()
            events += found.events
            fresh = {event.vintage.day: event.vintage for event in found.events}
            known[code] = Known(found.watermark, {**known[code].vintages, **fresh})
    return events


rests = st.floats(0, 3 * 86_400)
sessions = st.lists(
    st.tuples(st.lists(st.floats(0.5, 60), min_size=1, max_size=40), st.floats(0, 1), rests),
    min_size=2,
    max_size=6,
)


@settings(max_examples=15, deadline=None)
@given(sessions)
def test_the_stream_is_true_however_often_it_is_resumed(
    played: list[tuple[list[float], float, float]],
) -> None:
    """Each day and each revision is published once, in order; a pause repeats and skips nothing.

    A session is the seconds between its looks, how long before its end it last said that it plays,
    and how long nobody plays after it.
    """
    real, play, moments = BEGAN, Play(BEGAN, BEGAN), list[tuple[datetime, datetime]]()
    for looks, unheard, rest in played:
        play = play.resumed(real)
        for seconds in looks:
            real += seconds * SECOND
            moments.append((real, real - play.paused))
        play = Play(play.began, max(play.seen, real - unheard * SECOND), play.paused)
        real += rest * SECOND
    worlds_time = [moment for _, moment in moments]
    assert worlds_time == sorted(worlds_time)
    assert worlds_time[-1] - BEGAN <= (
        sum((sum(looks) for looks, _, _ in played), 0.0) * SECOND + 5 * len(played) * SECOND
    )
    world = story(BEGAN)
    events = follow(world, moments, symbols=2)
    told = Counter((event.code, event.vintage.day, event.vintage.revision) for event in events)
    assert max(told.values()) == 1
    seen = [(r.code, r.day) for r in world.revisions if r.at <= worlds_time[-1]]
    revised = [(e.code, e.vintage.day) for e in events if e.type is EventType.REVISED]
    assert set(revised) <= set(seen)
    assert len(revised) == len(set(revised))
    for code in {event.code for event in events}:
        days = [e.vintage.day for e in events if e.code == code and e.type is EventType.REPORTED]
        shown = [row.day for row in reversed(world.records(code, worlds_time[-1]))]
        first = world.records(code, worlds_time[0])[0].day
        assert days == [day for day in shown if day > first]


def test_the_whole_play() -> None:
    """Looked at twice in every turn until it has caught up: each day once, each revision once."""
    world, played = story(BEGAN), story_releases(BEGAN)
    end = max(release.at for release in played if release.at - BEGAN < timedelta(hours=6))
    seen = [release.at for release in played if release.at <= end]
    moments = sorted([BEGAN, *seen, *(at + REVISED_AFTER for at in seen)])
    events = follow(world, [(moment, moment) for moment in moments], symbols=1)
    ids = [(event.code, event.vintage.day, event.vintage.revision) for event in events]
    assert len(set(ids)) == len(ids)
    followed = {event.code for event in events}
    assert {market_of(code) for code in followed} == set(all_markets())
    due = [(r.code, r.day) for r in world.revisions if r.code in followed and r.at <= moments[-1]]
    assert [(e.code, e.vintage.day) for e in events if e.type is EventType.REVISED] == due
    for code in followed:
        days = [e.vintage.day for e in events if e.code == code and e.type is EventType.REPORTED]
        mine = [t.day for t in played if t.market is market_of(code) and t.at <= end]
        assert days == mine
    newest = max(event.vintage.day for event in events)
    assert date(2026, 11, 1) < newest < BEGAN.date()


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """A server of its own."""
    async with Embedded(tmp_path).running() as url:
        yield url


async def test_two_processes_play_one_world(url: str) -> None:
    """Whoever joins while it is played, or at once, plays the same; after a rest it goes on."""
    ones = [Playtime(url, "short-interest") for _ in range(4)]
    began = await asyncio.gather(*(one.resume(BEGAN + n * SECOND) for n, one in enumerate(ones)))
    assert len({(play.began, play.paused) for play in began}) == 1
    await ones[0].beat(BEGAN + 60 * SECOND)
    joined = await ones[1].resume(BEGAN + 62 * SECOND)
    assert (joined.began, joined.paused) == (began[0].began, timedelta())
    later = BEGAN + timedelta(days=1)
    resumed = await asyncio.gather(*(one.resume(later + n * SECOND) for n, one in enumerate(ones)))
    assert len({(play.began, play.paused) for play in resumed}) == 1
    place = later - resumed[0].paused - resumed[0].began
    assert timedelta(seconds=59) < place < timedelta(seconds=70)
    for one in ones:
        await one.close()


@pytest.mark.parametrize("text", ["soon", "0001-01-01T00:00:00+14:00", "[" * 50_000, ""])
async def test_a_play_that_cannot_be_read_is_named(url: str, text: str) -> None:
    """Spoiled by another client: the key is named with the command that removes it."""
    playtime = Playtime(url, "short-interest")
    await playtime.resume(BEGAN)
    async with Redis.from_url(url) as raw:
        await raw.hset("{short-interest}:simulated:play", "seen", text)
    with pytest.raises(StoreMisfit, match=r"DEL '\{short-interest\}:simulated:play'"):
        await playtime.resume(BEGAN)
    await playtime.close()


async def test_the_command_goes_on_where_it_was_left(tmp_path: Path) -> None:
    """Begun two hours ago and left an hour ago: it shows the days of its first hour, no more."""
    service, left = Service(tmp_path, 1, ""), now() - timedelta(hours=1)
    began = left - timedelta(hours=1)
    async with store_of(service) as store:
        await store.mark.forbid_mixing(simulated=True)
        playtime = Playtime(store.url, "short-interest")
        await playtime.resume(began)
        await playtime.beat(left)
        await playtime.close()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "poller", "run", "--simulate"),
            env=service.environment(),
            stderr=asyncio.subprocess.DEVNULL,
        )
        await entries(store, 1000)
        process.terminate()
        assert await process.wait() == 0
        newest = max((await store.records.watermarks()).values())
    played = [
        release for release in story_releases(began) if release.at < left + timedelta(seconds=60)
    ]
    assert newest in {release.day for release in played[-3:]}
