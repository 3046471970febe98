"""A report that a fault has spoiled is stopped before its first row; a true one is not delayed."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import pytest

from poller.detect.compare import compare
from poller.detect.held import Reason
from poller.detect.plausible import NO_MOVES, MarketMoves, is_extreme
from poller.markets.hk import HkRecord
from poller.markets.us import UNITED_STATES, UsRecord
from poller.model import Code, EventType, Page
from poller.polling.budget import Budget
from poller.polling.gate import LONGEST_WAIT, Gate
from poller.polling.leadership import keep_polling
from poller.polling.poll import Poller
from poller.schedule.release import Intervals
from poller.schedule.schedule import Schedule
from poller.simulator.virtual import VirtualLoop, run_virtually
from poller.telemetry.observe import Fact, Published
from tests.memorystore import MemoryStore
from tests.test_quarantine import REPORTED, REVISED, M, after, day, row, rows
from tests.test_vitals import NoPace

BEGAN = datetime(2026, 11, 20, 8, tzinfo=UTC)
SEEN = datetime(2026, 6, 1, 18, tzinfo=UTC)
OUT = 600.0
"""Seconds after the start at which the report is out."""


def moved(extreme: int, ordinary: int, on: date) -> MarketMoves:
    """Return a market of which so many symbols moved extremely, and then so many did not."""
    moves = NO_MOVES
    for n in range(extreme + ordinary):
        moves = moves.after(Code(f"US.A{n}"), on, extreme=n < extreme)
    return moves


@pytest.mark.parametrize(
    ("extreme", "ordinary", "normal", "impossible"),
    [
        (0, 0, False, False),
        (1, 0, False, False),
        (2, 0, False, False),
        (3, 0, False, True),
        (3, 3, False, True),
        (3, 4, True, False),
        (1, 2, False, False),
        (1, 3, True, False),
        (20, 6, False, True),
        (20, 7, True, False),
        (0, 3, True, False),
    ],
)
def test_what_a_market_does(extreme: int, ordinary: int, *, normal: bool, impossible: bool) -> None:
    """Three extreme moves are no coincidence, unless more than as many of the last are ordinary."""
    moves = moved(extreme, ordinary, day(2))
    assert (moves.is_normal(day(2)), moves.is_impossible(day(2))) == (normal, impossible)
    assert (moves.is_normal(day(3)), moves.is_impossible(day(3))) == (False, False)


def test_another_report_says_nothing() -> None:
    """However ordinary the last report was, the first answers of the next one are judged alone."""
    moves = moved(0, 30, day(1))
    for n in range(3):
        moves = moves.after(Code(f"US.B{n}"), day(2), extreme=True)
    assert moves.is_impossible(day(2))
    assert moves.is_normal(day(1))


def test_a_sweep_counts_each_symbol_once() -> None:
    """One symbol asked again and again is no anomaly, and a corrected one is ordinary again."""
    moves = NO_MOVES
    for _ in range(40):
        moves = moves.after(Code("US.A"), day(2), extreme=True)
    assert (moves.is_impossible(day(2)), len(moves.verdicts)) == (False, 1)
    assert moves.after(Code("US.A"), day(2), extreme=False).has_calmed_down


def test_what_is_extreme() -> None:
    """By more than 90 %, or to nothing from 100,000 shares; what comes from nothing is no move."""
    pairs = [(100, 9), (100, 191), (100, 10), (100_000, 0), (99_999, 0), (100, 190), (0, 7),
             (None, 7), (7, None)]  # fmt: skip
    assert [is_extreme(row(1, before), row(2, now)) for before, now in pairs] == [
        True, True, False, True, False, False, None, None, None,
    ]  # fmt: skip


def test_an_extreme_move_of_an_impossible_market_is_held() -> None:
    """Ordinary ones are published still; it is as well once ordinary ones prevail."""
    symbol = after({1: M})
    symbol.moves = moved(2, 0, day(2))
    assert symbol.shows({1: M, 2: 2 * M}) == []
    assert symbol.held() == {day(2): Reason.WHOLESALE}
    other = after({1: M})
    other.moves = moved(3, 0, day(2))
    assert other.shows({1: M, 2: M + 9}) == [(REPORTED, day(2))]
    for moves in (moved(5, 0, day(2)), NO_MOVES):
        symbol.moves = moves  # a restart frees nothing
        assert symbol.shows({1: M, 2: 2 * M}) == []
    symbol.moves = moved(3, 8, day(2))
    assert symbol.shows({1: M, 2: 2 * M}) == [(REPORTED, day(2))]


def test_a_market_at_fault_holds_everything() -> None:
    """With twenty extreme moves among the last thirty, even an ordinary one is one by chance."""
    symbol = after({1: M})
    symbol.moves = moved(20, 5, day(2))
    assert symbol.shows({1: M, 2: M + 9}) == []
    assert symbol.held() == {day(2): Reason.WHOLESALE}
    symbol.moves = moved(0, 3, day(3))
    assert symbol.shows({1: M, 2: M + 9, 3: M}) == [(REPORTED, day(2)), (REPORTED, day(3))]


def test_only_new_days_are_moves_and_are_held_with_the_market() -> None:
    """A figure that is corrected says nothing of how the market moves, nor does it wait for it."""
    symbol = after({1: M, 2: M + 9})
    symbol.moves = at_fault = moved(20, 5, day(2))
    found = symbol.polled(rows({1: M, 2: 2 * M}))
    assert [(event.type, event.vintage.day) for event in found.events] == [(REVISED, day(2))]
    assert (found.moves, found.extreme, symbol.held()) == (at_fault, None, {})


def test_a_fault_that_begins_later_is_stopped() -> None:
    """After any number of ordinary answers, at most six extreme ones are believed in a row."""
    moves, published = moved(0, 50, day(2)), 0
    known = after({1: M}).known
    for n in range(20):
        found = compare(Code(f"US.C{n}"), rows({1: M, 2: 2 * M}), known,
                        observed_at=SEEN, history=50, moves=moves)  # fmt: skip
        moves, published = found.moves, published + len(found.events)
    assert published <= 6


@dataclass
class Market:
    """A gateway that shows one report more from `OUT` on; `factors`: how each symbol moves."""

    factors: Mapping[Code, float]
    name: str = "opend"
    account: str = "main"
    ready: bool = True
    sent: list[float] = field(default_factory=list)
    shown: dict[Code, float] = field(default_factory=dict)
    correct_at: float = float("inf")

    async def wait_ready(self) -> None:
        """Return at once."""

    async def group(self, name: str) -> list[str]:
        """Return no code."""
        del name
        return []

    async def page(self, code: Code, key: str | None) -> Page:
        """Return two rows, or three, after a tenth of a second."""
        del key
        await asyncio.sleep(0.1)
        at = asyncio.get_running_loop().time()
        self.sent.append(at)
        figures = [("2026-10-30", 1_000_000.0), ("2026-11-06", 1_000_000.0)]
        if at >= OUT:
            self.shown.setdefault(code, at - OUT)
            factor = self.factors[code] if at < self.correct_at else 1.01
            figures.append(("2026-11-13", 1_000_000 * factor))
        shown = [HkRecord(None, day, int(n), round(n / 1e6, 2), 10.0, 10.0) for day, n in figures]
        return Page(tuple(reversed(shown)), None)


@dataclass
class Played:
    """What came of a report. `published`: code → seconds after it was out; `held`: codes."""

    published: dict[Code, float]
    held: set[Code]
    store: MemoryStore


def played(market: Market, seconds: float = 120) -> Played:
    """Poll until so long after the report is out."""

    async def run() -> Played:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        published: dict[Code, float] = {}

        def observe(fact: Fact) -> None:
            match fact:
                case Published(code, events) if loop.time() >= OUT:
                    kinds = [event.type for event in events]
                    assert kinds == [EventType.REPORTED]
                    published[code] = loop.time() - OUT

        store = MemoryStore(loop.time)
        intervals = Intervals(timedelta(seconds=20), timedelta(minutes=40), timedelta(minutes=5))
        budget = Budget(store.ledger, "main", "test", requests=30, period=30.0, pace=NoPace())
        poller = Poller(
            store, [market], {"main": budget}, Schedule(intervals),
            history=50, observe=observe, now=loop.now,
        )  # fmt: skip
        poller.watch(list(market.factors))
        polling = asyncio.create_task(keep_polling(store.leases, "test", poller, observe))
        await asyncio.sleep(OUT + seconds)
        polling.cancel()
        await asyncio.wait([polling])
        held = set(await store.records.held_codes())
        return Played(published, held, store)

    return run_virtually(BEGAN, run())


def codes(count: int) -> list[Code]:
    """Return so many codes."""
    return [Code(f"HK.{n:05}") for n in range(1, count + 1)]


@pytest.mark.parametrize("count", [3, 20, 45])
def test_of_a_doubled_report_nothing_is_published(count: int) -> None:
    """Not its first row either; all of it is held, under the market's reason."""
    market = Market(dict.fromkeys(codes(count), 2.0))
    found = played(market, seconds=600)
    assert found.published == {}
    assert found.held == set(codes(count))


def test_a_corrected_report_is_published_by_itself() -> None:
    """Once the source shows what a market does, nobody needs to rule on anything."""
    market = Market(dict.fromkeys(codes(20), 2.0), correct_at=OUT + 300)
    found = played(market, seconds=3_600)
    assert found.published.keys() == set(codes(20))
    assert found.held == set()


def test_true_extremes_are_hardly_late() -> None:
    """The biggest moves of a release, although they are asked first, wait for a few answers."""
    watched = codes(60)
    extreme = set(watched[:4])
    market = Market({code: 2.5 if code in extreme else 1.03 for code in watched})
    found = played(market)
    assert found.published.keys() == set(watched)
    late = [found.published[code] - market.shown[code] for code in extreme]
    assert max(late) < 2 < LONGEST_WAIT
    assert found.held == set()


@pytest.mark.parametrize("count", [1, 2])
def test_few_symbols_wait_for_nobody(count: int) -> None:
    """When all others wait as well, each is published at once: few prove nothing."""
    market = Market(dict.fromkeys(codes(count), 2.5))
    found = played(market)
    assert found.published.keys() == set(codes(count))
    assert max(found.published.values()) - min(found.published.values()) < LONGEST_WAIT / 2


def test_the_first_symbol_of_a_release_holds_nobody_up() -> None:
    """While it waits, the others are asked already: the report is out."""
    watched = codes(20)
    for extreme in watched:
        market = Market({code: 2.5 if code == extreme else 1.03 for code in watched})
        found = played(market, seconds=60)
        assert found.published.keys() == set(watched)
        assert max(found.published.values()) - min(found.published.values()) < 3


def test_whoever_waits_goes_on_once_all_do() -> None:
    """Nothing can decide any more; alone, a symbol waits for the others as long as is allowed."""

    async def run(*arrivals: float) -> list[float]:
        loop, outstanding, ended = asyncio.get_running_loop(), {"HK.1", "HK.2"}, list[float]()
        gate, began = Gate(lambda _: len(outstanding)), loop.time()

        async def wait(pause: float) -> None:
            await asyncio.sleep(pause)
            await gate.settled(UNITED_STATES, day(1))
            ended.append(loop.time() - began)
            outstanding.pop()  # it shows the day now
            gate.changed()

        await asyncio.gather(*map(wait, arrivals))
        return ended

    assert run_virtually(BEGAN, run(0, 5)) == [5, 5]
    assert run_virtually(BEGAN, run(0)) == [LONGEST_WAIT]


def test_stopping_leaves_who_waits_to_the_next_poller() -> None:
    """What waits is not committed: its watermark stands, and the next poller asks again."""
    market = Market(dict.fromkeys(codes(2), 2.5))

    async def run() -> tuple[float, dict[Code, date]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        store = MemoryStore(loop.time)
        intervals = Intervals(timedelta(seconds=20), timedelta(minutes=40), timedelta(minutes=5))
        budget = Budget(store.ledger, "main", "test", requests=30, period=30.0, pace=NoPace())
        waiting = asyncio.Event()

        class Slow(Market):
            async def page(self, code: Code, key: str | None) -> Page:
                if loop.time() >= OUT and self.sent and self.sent[-1] >= OUT:
                    waiting.set()
                    await asyncio.sleep(3_600)
                return await super().page(code, key)

        poller = Poller(
            store, [Slow(market.factors)], {"main": budget}, Schedule(intervals),
            history=50, observe=lambda _: None, now=loop.now,
        )  # fmt: skip
        poller.watch(list(market.factors))
        polling = asyncio.create_task(keep_polling(store.leases, "test", poller, lambda _: None))
        await waiting.wait()
        began = loop.time()
        polling.cancel()
        await asyncio.wait([polling])
        return loop.time() - began, await store.records.watermarks()

    seconds, watermarks = run_virtually(BEGAN, run())
    assert set(watermarks.values()) == {date(2026, 11, 6)}
    assert seconds < LONGEST_WAIT


def test_a_us_symbol_is_judged_beside_us_symbols() -> None:
    """A record of either market has its verdict; nothing else is needed of it."""
    before = UsRecord(None, "2026-04-15", 1_000, 0.5, 1, 2.0, 10.0, 10.0)
    now = UsRecord(None, "2026-04-30", 4_000, 0.5, 1, 2.0, 2.5, 2.5)
    assert is_extreme(before, now) is True
