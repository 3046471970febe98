"""What a poller takes up from the store when somebody wrote days there that have not come."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from poller.markets.hk import HkRecord
from poller.model import Code, Page
from poller.polling.budget import Budget
from poller.polling.poll import Poller
from poller.schedule.notice import Completed, Detected
from poller.schedule.release import Intervals, MarketState, Sighting
from poller.schedule.schedule import Schedule
from poller.simulator.virtual import VirtualLoop, run_virtually
from poller.store.store import ONE_OFF
from poller.telemetry.observe import Announced, Fact, Recovered, Trouble
from tests.memorystore import MemoryStore
from tests.test_vitals import NoPace

CODES = [Code(f"HK.{n:05}") for n in range(1, 21)]
OLD, DAY = date(2026, 11, 6), date(2026, 11, 13)
BEGAN = datetime(2026, 11, 20, 1, tzinfo=UTC)
OUT = BEGAN + timedelta(hours=1)
FUTURE = date(2199, 1, 3)
INTERVALS = Intervals(timedelta(seconds=30), timedelta(minutes=20), timedelta(minutes=5))


class Showing:
    """A gateway whose every symbol shows `OLD`, and from `OUT` on `DAY` as well."""

    name, account, ready = "showing", "main", True

    def __init__(self) -> None:
        self.asked: list[Code] = []

    async def wait_ready(self) -> None:
        """Return at once."""

    async def group(self, name: str) -> list[str]:
        """Return no code."""
        del name
        return []

    async def page(self, code: Code, key: str | None) -> Page:
        """Return all rows."""
        assert key is None
        self.asked.append(code)
        await asyncio.sleep(0.1)
        days = [OLD, DAY] if now() >= OUT else [OLD]
        return Page(
            tuple(HkRecord(None, str(d), 1000 + d.day, 0.5, None, None) for d in days), None
        )


def now() -> datetime:
    """Return the loop's time."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.now()


def one_watermark(store: MemoryStore) -> None:
    """Put the watermark of one symbol into the future."""
    store.records.watermark_texts[CODES[0]] = str(FUTURE)


def a_lone_watermark(store: MemoryStore) -> None:
    """Let nothing else be known of that symbol."""
    one_watermark(store)
    del store.records.vintage_texts[CODES[0]], store.records.history_texts[CODES[0]]


def a_plan(store: MemoryStore) -> None:
    """Write a plan whose releases have not come."""
    days = (FUTURE - timedelta(days=n) for n in (2, 1, 0))
    state = MarketState(FUTURE, tuple(Sighting(day, None) for day in days), open=FUTURE)
    store.plans.texts["HK"] = state.to_json()


async def played(spoil: Callable[[MemoryStore], None]) -> tuple[MemoryStore, Showing, list[Fact]]:
    """Poll for a while, spoil the store, and poll for five hours more."""
    store, gateway, facts = MemoryStore(lambda: now().timestamp()), Showing(), list[Fact]()

    async def poll(hours: float) -> None:
        budget = Budget(store.ledger, "main", "test", requests=30, period=30, pace=NoPace())
        poller = Poller(
            store,
            [gateway],
            {"main": budget},
            Schedule(INTERVALS),
            history=2,
            observe=facts.append,
            now=now,
        )
        poller.watch(CODES)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(hours * 3600):
                await poller.run(ONE_OFF)

    await poll(0.25)
    facts.clear()
    gateway.asked.clear()
    spoil(store)
    store.records = replace(store.records, _snapshots={})  # without what it remembers of them
    await poll(5)
    return store, gateway, facts


def told(facts: Sequence[Fact], text: str) -> list[str]:
    """Return the subjects of trouble that tells this."""
    return [fact.subject for fact in facts if isinstance(fact, Trouble) and text in fact.reason]


@pytest.mark.parametrize("spoil", [one_watermark, a_lone_watermark])
def test_a_watermark_in_the_future_stops_its_symbol_alone(
    spoil: Callable[[MemoryStore], None],
) -> None:
    """The others' report is found and told as ever; that symbol is named, key and cure."""
    store, gateway, facts = run_virtually(BEGAN, played(spoil))
    assert {store.records.watermark_texts[code] for code in CODES[1:]} == {str(DAY)}
    notices = [type(fact.notice) for fact in facts if isinstance(fact, Announced)]
    assert notices == [Detected, Completed]
    assert set(told(facts, "{short-interest}:watermark")) == {CODES[0]}
    assert set(told(facts, "H")) == {CODES[0]}
    assert len(gateway.asked) < 200
    assert CODES[0] not in gateway.asked


def test_a_plan_of_the_future_is_passed_over() -> None:
    """Every symbol takes part in the next report; the plan is named, and replaced at once."""
    store, gateway, facts = run_virtually(BEGAN, played(a_plan))
    assert set(store.records.watermark_texts.values()) == {str(DAY)}
    notices = [type(fact.notice) for fact in facts if isinstance(fact, Announced)]
    assert notices == [Detected, Completed]
    assert told(facts, "field HK of {short-interest}:schedule") == ["plan of HK"]
    assert Recovered("plan of HK") in facts
    assert MarketState.from_json(store.plans.texts["HK"]).sightings[-1].day == DAY
    assert len(gateway.asked) < 200
