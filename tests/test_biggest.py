"""The biggest moves in the notice of a complete report, and that they never keep it back."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller import show
from poller.delivery.digest import announcement
from poller.errors import StoreDown, StoreMisfit
from poller.events import StreamNotice, decode
from poller.markets import Market
from poller.markets.hk import HONG_KONG, HkRecord
from poller.model import Code, Instrument, Vintage, plain_name
from poller.polling.biggest import LIMIT, MovingPlans, Standings
from poller.schedule.notice import Completed, Detected, Mover, fields_of
from poller.schedule.report import Standing
from poller.simulator.virtual import run_virtually
from poller.store.store import ONE_OFF, Entry
from poller.telemetry.headline import headline
from poller.telemetry.observe import Fact, Happened
from tests.memorystore import MemoryStore

DAY = date(2026, 11, 13)
SEEN = datetime(2026, 11, 20, tzinfo=UTC)
TENCENT, HSBC = Code("HK.00700"), Code("HK.00005")
COMPLETE = Completed(HONG_KONG, DAY, SEEN, 2)


def standing(code: Code, shares: int, before: int) -> Standing:
    """Return a symbol's figures of two reports."""
    now, then = (HkRecord(None, str(DAY), each, 0.5, 10.0, 10.0) for each in (shares, before))
    return Standing(code, Vintage(now, 0, SEEN), then)


async def two(market: Market, day: date) -> Sequence[Standing]:
    """Read the figures of two symbols."""
    assert (market, day) == (HONG_KONG, DAY)
    return [standing(HSBC, 1_000, 900), standing(TENCENT, 500, 900)]


def known_of(code: Code) -> Instrument:
    """Know the name of one of them."""
    return Instrument("TENCENT" if code == TENCENT else None)


def announced(standings: Standings) -> tuple[StreamNotice, float, list[Fact]]:
    """Announce a detection and, twice, a completion; returns what the stream has of the latter.

    And the seconds until it was there, and what was observed.
    """

    async def work() -> tuple[StreamNotice, float, list[Fact]]:
        loop = asyncio.get_running_loop()
        store, facts = MemoryStore(loop.time), list[Fact]()
        plans = MovingPlans(store.plans, standings, known_of, facts.append)
        assert await plans.announce(Detected(HONG_KONG, DAY, SEEN, TENCENT), ONE_OFF)
        began = loop.time()
        assert await plans.announce(COMPLETE, ONE_OFF)
        took = loop.time() - began
        assert not await plans.announce(COMPLETE, ONE_OFF)
        _, entry = store.streams.notices
        notice = decode(entry.id, entry.fields)
        assert isinstance(notice, StreamNotice)
        return notice, took, facts

    return run_virtually(SEEN, work())


def test_a_completion_says_who_moved_most() -> None:
    """By the size of the change, with name, rank and percentile; a reader gets what was written."""
    notice, took, facts = announced(two)
    assert [(each.code, each.name, each.change) for each in notice.biggest or ()] == [
        (TENCENT, "TENCENT", -400),
        (HSBC, None, 100),
    ]
    assert notice.data["biggest"][0] == {
        "code": TENCENT,
        "name": "TENCENT",
        "shares": 500,
        "change": -400,
        "percent": -44.4444,
        "rank": 1,
        "percentile": 100.0,
    }
    assert (took, facts) == (0, [])


def test_every_symbol_of_a_notice_has_its_name() -> None:
    """The first, the missing and the biggest: on the stream, and in the log, terminal and chat."""

    async def work() -> list[StreamNotice]:
        store = MemoryStore(asyncio.get_running_loop().time)
        plans = MovingPlans(store.plans, two, known_of, list[Fact]().append)
        lacking = replace(COMPLETE, missing=(TENCENT, HSBC))
        for notice in (Detected(HONG_KONG, DAY, SEEN, TENCENT), lacking):
            told = await plans.announce(notice, ONE_OFF)
            assert told is not None
            assert "TENCENT" in str(headline(told)[1])
        found = [decode(each.id, each.fields) for each in store.streams.notices]
        return [each for each in found if isinstance(each, StreamNotice)]

    first, last = run_virtually(SEEN, work())
    assert (first.name, last.missing_names) == ("TENCENT", {TENCENT: "TENCENT"})
    assert announcement([first], limit=500).text.endswith("first seen at TENCENT (HK.00700).")
    assert "missing TENCENT (HK.00700), HK.00005" in announcement([last], limit=500).text
    for notice in (first, last):
        line = show.release_line(Entry("1-0", _fields(notice))).plain
        assert "TENCENT (HK.00700)" in line


def _fields(notice: StreamNotice) -> dict[str, str]:
    """Return the entry that a notice was read from."""
    told = Detected(HONG_KONG, DAY, SEEN, TENCENT) if notice.found is None else COMPLETE
    return fields_of(told) | {"data": notice.data_json}


async def _never(_: Market, __: date) -> Sequence[Standing]:
    await asyncio.sleep(3_600)
    raise AssertionError


def _raising(problem: Exception) -> Standings:
    async def read(_: Market, __: date) -> Sequence[Standing]:
        raise problem

    return read


@pytest.mark.parametrize(
    ("standings", "reason"),
    [
        (_never, "not read within 5 s"),
        (_raising(StoreDown("away")), "away"),
        (_raising(StoreMisfit("holds a list")), "holds a list"),
        (_raising(ZeroDivisionError("nobody thought of it")), "defect: ZeroDivisionError"),
    ],
    ids=["slow", "away", "another type", "defect"],
)
def test_figures_that_cannot_be_read_keep_no_notice_back(standings: Standings, reason: str) -> None:
    """It comes once, at most a few seconds later, without them; that is told once."""
    notice, took, facts = announced(standings)
    assert notice.biggest is None
    assert "biggest" not in notice.data
    assert took <= LIMIT
    (told,) = facts
    assert isinstance(told, Happened)
    assert reason in str(told.details)


def test_a_store_that_is_away_gets_the_whole_notice_later() -> None:
    """What could not be appended is read and tried again; until then nothing is told of it."""

    async def work() -> None:
        facts = list[Fact]()
        store = MemoryStore(asyncio.get_running_loop().time)
        plans = store.plans
        append = plans.announce

        async def away(*_: object) -> bool:
            raise StoreDown("away")

        setattr(plans, "announce", away)  # noqa: B010  an own instance
        lacking = MovingPlans(plans, _raising(StoreDown("away")), known_of, facts.append)
        with pytest.raises(StoreDown):
            await lacking.announce(COMPLETE, ONE_OFF)
        assert facts == []
        setattr(plans, "announce", append)  # noqa: B010
        assert await MovingPlans(plans, two, known_of, facts.append).announce(COMPLETE, ONE_OFF)
        (entry,) = store.streams.notices
        notice = decode(entry.id, entry.fields)
        assert isinstance(notice, StreamNotice)
        assert len(notice.biggest or ()) == 2

    run_virtually(SEEN, work())


ANY = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from([TENCENT, "US.AAPL", "\u202e"])
)
MOVERS = st.fixed_dictionaries(dict.fromkeys(Mover.__slots__, ANY))
PLAUSIBLE = st.fixed_dictionaries(
    {
        "code": st.just(TENCENT),
        "name": st.none() | st.text(),
        "shares": st.integers(-(2**63), 2**64) | st.floats(-1e18, 1e18),
        "change": st.integers(-(2**63), 2**64) | st.floats(-1e18, 1e18),
        "percent": st.none() | st.floats(-1e18, 1e18),
        "rank": st.integers(1, 9),
        "percentile": st.floats(0, 100),
    }
)


@given(ANY | st.lists(MOVERS | PLAUSIBLE, max_size=5) | st.lists(PLAUSIBLE, max_size=25))
def test_whatever_stands_there_is_read_or_foreign(biggest: object) -> None:
    """Anybody may append to the stream: nothing raises, and every reader keeps to its bounds."""
    fields = fields_of(COMPLETE)
    fields["data"] = json.dumps({"found": 1, "expected": 1, "biggest": biggest})
    notice = decode("1-0", fields)
    assert show.release_line(Entry("1-0", fields)).plain
    if isinstance(notice, StreamNotice):
        assert len(announcement([notice], limit=2_000).text) <= 2_000
        assert all(each.name == plain_name(each.name) for each in notice.biggest or () if each.name)
