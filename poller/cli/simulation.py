"""Simulates weeks of polling in seconds: the real poller, budget and schedule in virtual time.

Only gateway and clock are simulated. The events that the poller publishes are compared with the
reports of the season.
"""

import asyncio
import contextlib
import gc
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random
from typing import Final, Literal

from poller.errors import TooFrequent, Unavailable
from poller.gateway.vendor import error_of
from poller.markets import Market
from poller.model import RANK_PAGE, Code, Event, EventType, Page, RankPage, market_of
from poller.polling.budget import Budget
from poller.polling.poll import Poller
from poller.polling.ranks import RANK_PERIOD, RANK_REQUESTS, RankReader
from poller.schedule.belief import move_of
from poller.schedule.hints import Hints
from poller.schedule.release import Intervals
from poller.schedule.schedule import Schedule
from poller.simulator.bounds import Latencies
from poller.simulator.ranking import Listed, Ranking
from poller.simulator.season import Season
from poller.simulator.virtual import run_virtually
from poller.simulator.window import SlidingWindow
from poller.simulator.world import END, Refusal, ShortInterest
from poller.store.memory import MemoryStreams, PollerMemory
from poller.store.ports import Ledger
from poller.store.store import ONE_OFF
from poller.telemetry.observe import Fact, Published, to_all

WARM_UP: Final = timedelta(days=1)
"""Time before the season, in which every symbol is polled for the first time."""

RANK_LATENCY: Final = 0.05
"""Seconds from a request for the rank to its answer."""

_DAY: Final = 86_400.0
_WARM_UP: Final = WARM_UP.total_seconds()
_CHANGES: Final = (EventType.REVISED, EventType.RESTATED)


@dataclass(frozen=True)
class Setting:
    """What is polled, and how.

    Attributes:
        accounts: The account of each gateway.
        requests: How many each account may send in `period` seconds.
        window: Makes the limit that the simulated OpenD enforces per account.
        faults: Fraction of requests that get no answer.
        restarts: When one process ends and another takes over, in seconds of the season.
        refusals: Returns the text an account is refused a code with at some second of the season;
            None where it is answered.
        hints: Whether the rank of the market is read: "auto" or "off".
        listed: Market's name → how many symbols its rank has, if more than are polled.
        shown: Returns what the rank shows at some second of the season; by default the truth.
    """

    season: Season
    intervals: Intervals
    accounts: tuple[str, ...] = ("main",)
    requests: int = 30
    period: float = 30.0
    faults: float = 0.0
    window: Callable[[int, float], SlidingWindow] = SlidingWindow
    restarts: tuple[float, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    refusals: Callable[[str, Code, float], str | None] = lambda *_: None
    hints: Literal["auto", "off"] = "off"
    listed: Mapping[str, int] = field(default_factory=dict)
    shown: Callable[[Market, Listed, float], Listed] = lambda _market, listed, _at: listed


@dataclass
class Measured:
    """The results of a run.

    Attributes:
        releases: Market and number of the day → its symbols' latencies, in seconds.
        moves: The same → how far each symbol moved (`belief.move_of`), and the larger of its two
            positions, in the same order.
        sent: The instant of each request, in seconds of the season.
        polls: How many requests each symbol got.
        looks: How many requests for the rank were sent in the season.
        missed: Days of symbols that were never published.
        doubled: Days of symbols that were published more than once.
        most_in_window: Most requests of an account in a period.
        trace: Digest of every request and its instant.
        changed: Events that changed known days.
        facts: What the service would have logged.
    """

    season: Season
    releases: dict[tuple[Market, int], list[float]] = field(default_factory=dict)
    moves: dict[tuple[Market, int], list[tuple[float, float]]] = field(default_factory=dict)
    sent: list[float] = field(default_factory=list)
    polls: Counter[Code] = field(default_factory=Counter)
    looks: int = 0
    missed: int = 0
    doubled: int = 0
    most_in_window: int = 0
    trace: str = ""
    changed: Counter[EventType] = field(default_factory=Counter)
    facts: list[Fact] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many requests were sent in the season."""
        return sum(at >= 0 for at in self.sent)

    @property
    def latencies(self) -> Latencies:
        """The latencies over all symbols and releases."""
        return Latencies.of([s for each in self.releases.values() for s in each], self.requests)

    def biggest(self, market: Market, count: int) -> list[float]:
        """Return the latencies of the biggest moves of every release of a market, in seconds."""
        found = []
        for key, seconds in self.releases.items():
            if key[0] is market:
                ordered = sorted(zip(self.moves[key], seconds, strict=True), reverse=True)
                found += [late for (move, _), late in ordered[:count] if move]
        return found

    def weighted(self) -> float:
        """Return the mean latency in seconds, each symbol weighted by its move."""
        pairs = [
            (move, late)
            for key, seconds in self.releases.items()
            for (move, _), late in zip(self.moves[key], seconds, strict=True)
        ]
        whole = sum(move for move, _ in pairs)
        return sum(move * late for move, late in pairs) / whole if whole else 0.0


class _Gateway:
    """A gateway that answers from the season, at the loop's time."""

    ready = True

    def __init__(self, name: str, account: str, run: "_Run") -> None:
        self.name, self.account, self._run = name, account, run

    async def wait_ready(self) -> None:
        """Return at once."""

    async def group(self, name: str) -> list[str]:
        """Return nothing: there are no watch groups here."""
        del name
        return []

    async def page(self, code: Code, key: str | None) -> Page:
        """Return the page as of the request's arrival."""
        return await self._run.answer(self.account, code, key)

    async def rank(self, market: Market, offset: int) -> RankPage:
        """Return a stretch of the market's list as of the request's arrival."""
        return await self._run.rank(self.account, market, offset)


class _LoopPace:
    """asyncio-throttle's sliding log, on the loop's clock instead of the machine's."""

    def __init__(self, requests: int, period: float) -> None:
        self._period = period
        self._log: deque[float] = deque(maxlen=requests)

    async def acquire(self) -> None:
        """Wait until another request may start."""
        loop = asyncio.get_running_loop()
        if len(self._log) == self._log.maxlen:
            await asyncio.sleep(max(0.0, self._log[0] + self._period - loop.time()))
        self._log.append(loop.time())


class _Run:
    """One season under way."""

    def __init__(self, setting: Setting, progress: Callable[[float], None]) -> None:
        self.setting, self.season = setting, setting.season
        self._progress = progress
        self.measured = Measured(self.season)
        self._windows = {
            name: setting.window(setting.requests, setting.period) for name in setting.accounts
        }
        self._rank_windows = {
            name: setting.window(RANK_REQUESTS, RANK_PERIOD) for name in setting.accounts
        }
        listed = replace(self.season.world, made_up={**self.season.world.made_up, **setting.listed})
        self._ranking = Ranking(listed)
        self._chance = Random(self.season.world.seed)
        self._gateways = [_Gateway(f"{n}", name, self) for n, name in enumerate(setting.accounts)]
        self._trace = hashlib.sha256()
        self._at = 0.0, self.season.began
        self._published: set[tuple[Code, int]] = set()
        self._index = {
            market: {day: n for n, day in enumerate(days)}
            for market, days in self.season.days.items()
        }

    async def play(self, make: Callable[[], Schedule]) -> None:
        """Poll to the end of the season, with one process after another."""
        store = PollerMemory(asyncio.get_running_loop().time)
        length = self.season.length
        for until in (*self.setting.restarts, length):
            schedule = make()
            ranks = self._ranks(store, schedule)
            poller = self._poller(store, schedule, ranks)
            poller.turn = _DAY  # there is no watchdog here
            poller.watch(self.season.world.codes())
            polling = asyncio.create_task(_both(poller, ranks), name="polling")
            while self._seconds() < until and not polling.done():
                await asyncio.wait([polling], timeout=min(_DAY, until - self._seconds()))
                self._progress(max(self._seconds(), 0) / length)
            polling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await polling

    def _poller(self, store: PollerMemory, schedule: Schedule, ranks: RankReader) -> Poller:
        setting = self.setting
        return Poller(
            store,
            self._gateways,
            {
                name: self._budget(store.ledger, name, setting.requests, setting.period)
                for name in self._windows
            },
            schedule,
            history=1,
            observe=to_all(lambda fact: self._observe(fact, store.streams), ranks.notice),
            now=self._now,
        )

    def _ranks(self, store: PollerMemory, schedule: Schedule) -> RankReader:
        budgets = {
            name: self._budget(store.ledger, f"{name}:rank", RANK_REQUESTS, RANK_PERIOD)
            for name in self._windows
        }
        hints = Hints(lambda: schedule.markets)
        reader = RankReader(self._gateways, budgets, hints, self.measured.facts.append, self._now)
        reader.configure(self.setting.hints)
        return reader

    def _budget(self, ledger: Ledger, account: str, requests: int, period: float) -> Budget:
        pace = _LoopPace(requests, period)
        return Budget(ledger, account, "sim", requests=requests, period=period, pace=pace)

    def _seconds(self) -> float:
        return asyncio.get_running_loop().time() - _WARM_UP

    def _now(self) -> datetime:
        seconds = self._seconds()
        if seconds != self._at[0]:  # asked many times in each instant
            self._at = seconds, self.season.began + timedelta(seconds=seconds)
        return self._at[1]

    async def answer(self, account: str, code: Code, key: str | None) -> Page:
        """Answer one request."""
        at = self._seconds()
        self.measured.sent.append(at)
        self.measured.polls[code] += 1
        self._trace.update(f"{at:.3f} {account} {code} {key}\n".encode())
        admitted = self._windows[account].admit(at)
        request = ShortInterest(code, key or "")
        answer, delay = self.season.world.answer(request, self._now())
        if delay:
            await asyncio.sleep(delay.total_seconds())
        if not admitted:
            raise TooFrequent("频率太高")
        if self.setting.faults and self._chance.random() < self.setting.faults:
            raise Unavailable("no answer")
        refused = self.setting.refusals(account, code, at)
        if refused is None and isinstance(answer, Refusal):
            refused = answer.text
        if refused is not None or isinstance(answer, Refusal):
            raise error_of(refused)
        return Page(answer.records, None if answer.next_key == END else answer.next_key)

    async def rank(self, account: str, market: Market, offset: int) -> RankPage:
        """Answer one request for a stretch of the rank, `RANK_LATENCY` after it arrived."""
        at = self._seconds()
        self.measured.looks += at >= 0
        admitted = self._rank_windows[account].admit(at)
        listed = self.setting.shown(market, self._ranking.at(market, self._now()), at)
        await asyncio.sleep(RANK_LATENCY)
        if not admitted:
            raise TooFrequent("频率太高")
        return RankPage(len(listed), dict(listed[offset : offset + RANK_PAGE]))

    def _observe(self, fact: Fact, streams: MemoryStreams) -> None:
        if not isinstance(fact, Published):
            self.measured.facts.append(fact)
            return
        streams.entries.clear()  # nobody reads them, and a year of them takes memory
        for event in fact.events:
            if event.type in _CHANGES:
                self.measured.changed[event.type] += 1
                continue
            index = self._index[market_of(fact.code)][event.vintage.day]
            self.measured.doubled += (fact.code, index) in self._published
            self._published.add((fact.code, index))
            appeared = self.season.appears(fact.code, index)
            if event.type is EventType.REPORTED and appeared >= 0:
                release = self.measured.releases.setdefault((market_of(fact.code), index), [])
                release.append(self._seconds() - appeared)
                moves = self.measured.moves.setdefault((market_of(fact.code), index), [])
                moves.append(_moved(event))

    def result(self) -> Measured:
        """Return the results of the run."""
        found = self.measured
        found.trace = self._trace.hexdigest()
        found.most_in_window = max(one.most for one in self._windows.values())
        for code in self.season.covered:
            for index, begins in enumerate(self.season.releases[market_of(code)]):
                due = begins >= 0 and self.season.appears(code, index) <= self.season.length
                found.missed += due and (code, index) not in self._published
        return found


async def _both(poller: Poller, ranks: RankReader) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(poller.run(ONE_OFF), name="poll")
        group.create_task(ranks.run(poller), name="rank")


def _moved(event: Event) -> tuple[float, float]:
    before, after = event.previous, event.vintage.record.shares
    if before is None or before.shares is None or after is None:
        return 0.0, 0.0
    return move_of(before.shares, after), max(before.shares, after)


def simulate(
    setting: Setting,
    *,
    make: Callable[[], Schedule] | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> Measured:
    """Simulate a season; the same setting gives the same trace. Raises Deadlock if it would hang.

    `make`: makes another schedule to use. `progress`: called with the fraction that has passed.
    """
    run = _Run(setting, progress)
    make = make or (lambda: Schedule(setting.intervals, setting.weights))
    with _without_collector():
        run_virtually(setting.season.began - WARM_UP, run.play(make))
    return run.result()


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Switch the garbage collector off: it would scan a year of records again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
