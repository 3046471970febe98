"""Who is polled next, and why. Pure: time is an argument (aware datetimes).

Each market is watched: one symbol at a time, in rotation. The first newer day makes all its others
wanted, and they are polled at the full rate (`market`, `sweep`, `release` hold the rules).
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Final

from poller.markets import Market, all_markets
from poller.model import Code, market_of
from poller.schedule.market import LONG_AGO, MarketQueue, once_a_day
from poller.schedule.notice import Notice
from poller.schedule.release import Intervals, MarketState
from poller.schedule.symbol import Symbol, SymbolState

_STEP: Final = timedelta(minutes=1)
_WATCH_SHARE: Final = 10
"""While symbols are wanted, at most one decision in so many watches another market."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Poll this code now."""

    code: Code
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is due before `until`; None: nothing is watched, or all of it is being polled."""

    until: datetime | None


@dataclass(frozen=True, slots=True)
class Answered:
    """The gateway answered; `watermark` is the last reported day, None without any row."""

    watermark: date | None


@dataclass(frozen=True, slots=True)
class Unanswered:
    """No usable answer, this time; `reason` says why."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Excluded:
    """The gateway refuses the code; `reason` in its words."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Postponed:
    """Nothing was asked or kept, through no fault of the symbol's: poll it first of all."""


Reply = Answered | Unanswered | Excluded | Postponed


class Schedule:
    """The plan of one process. It keeps no clock and does no I/O."""

    def __init__(self, intervals: Intervals, weights: Mapping[str, float] | None = None) -> None:
        """`weights`: by code or shell pattern; the first that fits counts, else 1."""
        self._intervals = intervals
        self._weights = weights or {}
        self._symbols: dict[Code, Symbol] = {}
        self._tickets = itertools.count(1)
        self._markets: dict[Market, MarketQueue] = {}
        self._again: deque[Symbol] = deque()
        self._retries: list[tuple[datetime, int, Symbol]] = []
        self._since_watch = _WATCH_SHARE
        self._known: dict[Code, date] = {}
        self._latest = LONG_AGO
        self.restore({}, {})

    @property
    def codes(self) -> frozenset[Code]:
        """What is watched."""
        return frozenset(self._symbols)

    def watches(self, code: Code) -> bool:
        """Tell whether a code is watched."""
        return code in self._symbols

    def restore(
        self, watermarks: Mapping[Code, date], states: Mapping[Market, MarketState]
    ) -> None:
        """Take up what the store holds; nothing may be under way."""
        self._known = dict(watermarks)
        self._again.clear()
        self._retries.clear()
        self._markets = {
            market: MarketQueue(market, self._intervals, self._tickets) for market in all_markets()
        }
        for market, state in states.items():
            self._markets[market].load(state)
        codes, self._symbols = tuple(self._symbols), {}
        self.watch(codes)

    def states(self) -> dict[Market, MarketState]:
        """Return what must outlive this process."""
        return {market: queue.state() for market, queue in self._markets.items()}

    @property
    def markets(self) -> Mapping[Market, MarketQueue]:
        """The plan of each market, to look at."""
        return self._markets

    @property
    def version(self) -> int:
        """A number that grows whenever `states` tells something else."""
        return sum(queue.version for queue in self._markets.values())

    def watch(self, codes: Iterable[Code]) -> tuple[set[Code], set[Code]]:
        """Watch exactly `codes`; new ones are due at once, in that order. Returns (new, gone)."""
        wanted = dict.fromkeys(codes)
        gone = self._symbols.keys() - wanted.keys()
        for code in gone:
            symbol = self._symbols.pop(code)
            self._queue(code).remove(symbol)
            symbol.retry_at = None
            if symbol in self._again:
                self._again.remove(symbol)
        fresh = [code for code in wanted if code not in self._symbols]
        for code in sorted(fresh, key=lambda code: self._queue(code).dormant_rank(code)):
            symbol = Symbol(code, self._weight(code), self._known.pop(code, None))
            self._symbols[code] = symbol
            self._queue(code).add(symbol)
        return set(fresh), set(gone)

    def configure(self, intervals: Intervals, now: datetime) -> None:
        """Plan by these intervals from now on; nothing waits longer than the new idle one."""
        self._intervals = intervals
        for queue in self._markets.values():
            queue.configure(intervals)
        self._hurry(now)

    @property
    def outstanding(self) -> int:
        """How many symbols do not show the newest day of their market yet."""
        return sum(queue.outstanding for queue in self._markets.values())

    def due_at(self) -> datetime | None:
        """Return when something is due; None while nothing waits."""
        if self._again:
            return LONG_AGO
        instants = [self._retry_at()]
        for queue in self._markets.values():
            instants += [queue.job_at(), queue.probe_at(), queue.quiet_look_at()]
        return min((at for at in instants if at is not None), default=None)

    def next(self, now: datetime) -> Probe | Wait:
        """Return what to poll now; the caller must `record` an outcome for every probe."""
        self.tick(now)
        symbol = self._next(now)
        return Wait(self.due_at()) if symbol is None else Probe(symbol.code, symbol.reason)

    def _next(self, now: datetime) -> Symbol | None:
        """First what was postponed or failed; then releases, with a look at other markets."""
        if self._again:
            symbol = self._again.popleft()
            symbol.polling = True
            return symbol
        if _is_due(self._retry_at(), now):
            _, _, symbol = heapq.heappop(self._retries)
            symbol.retry_at, symbol.polling = None, True
            return symbol
        queues = self._markets.values()
        jobs = [queue for queue in queues if _is_due(queue.job_at(), now)]
        self._since_watch += 1
        if not jobs or self._since_watch >= _WATCH_SHARE:
            others = [queue for queue in queues if queue not in jobs]
            if (watched := _first(others, MarketQueue.probe_at, now)) is not None:
                self._since_watch = 0
                return watched.take_probe(now)
        if jobs:
            return min(jobs, key=MarketQueue.rank).take_job()
        quiet = _first(queues, MarketQueue.quiet_look_at, now)
        return None if quiet is None else quiet.take_quiet(now)

    def is_urgent(self, now: datetime) -> bool:
        """Tell whether a release is swept or watched for: then nothing of the budget is spared."""
        return any(
            queue.sweep.running or _is_due(queue.probe_at(), now)
            for queue in self._markets.values()
        )

    def sighted(self, code: Code, day: date) -> None:
        """Take note of a day that a symbol shows while its poll goes on: a report may be out."""
        symbol = self._symbols.get(code)
        if symbol is not None and symbol.polling:
            self._queue(code).sighted(day)

    def record(self, code: Code, outcome: Reply, now: datetime) -> list[Notice]:
        """Plan what follows the probe of `code` that ended `now`; returns what it tells."""
        symbol = self._symbols.get(code)
        if symbol is None or not symbol.polling:  # taken off the watchlist meanwhile
            return []
        symbol.polling = False
        queue, idle = self._queue(code), self._intervals.idle
        match outcome:
            case Answered(watermark):
                symbol.failures = 0
                return queue.answered(symbol, watermark, now)
            case Unanswered():
                symbol.failures += 1
                pause = min(self._intervals.due * 2 ** min(symbol.failures - 1, 16), idle)
                reason = f"{symbol.failures} tries in a row failed"
                self._retry(symbol, now + max(pause, self._intervals.due), reason)
            case Excluded():
                symbol.failures += 1
                queue.set_state(symbol, SymbolState.REFUSED)
                pause = min(idle * 2 ** min(symbol.failures - 1, 16), once_a_day(self._intervals))
                self._retry(symbol, now + pause, f"OpenD refused it {symbol.failures} times")
                return queue.settle(now)
            case Postponed():
                self._again.append(symbol)
        return []

    def tick(self, now: datetime) -> None:
        """Take note of the time: after a step back, nothing waits longer than an idle interval.

        Nor is a pause that was stored before a restart longer than it was meant to be.
        """
        back = now < self._latest - _STEP
        if back:
            self._hurry(now)
        for queue in self._markets.values():
            queue.sweep.tick(now)
        self._latest = now if back else max(now, self._latest)

    def _hurry(self, now: datetime) -> None:
        """Let nothing wait longer than an idle interval from now."""
        latest = now + self._intervals.idle
        for queue in self._markets.values():
            queue.cap_waits(latest)
        waiting = [entry for entry in self._retries if entry[2].retry_at == entry[0]]
        self._retries.clear()
        for at, _, symbol in waiting:
            self._retry(symbol, min(at, latest), symbol.reason)

    def outlook(self, code: Code) -> tuple[datetime | None, str]:
        """Return when a code is looked at next (None: in its turn, now, or never), and why."""
        symbol = self._symbols.get(code)
        if symbol is None:
            return None, "it is not watched"
        if symbol.polling or symbol.retry_at is not None:
            return symbol.retry_at, symbol.reason
        return self._queue(code).outlook(symbol)

    def _queue(self, code: Code) -> MarketQueue:
        return self._markets[market_of(code)]

    def _weight(self, code: Code) -> float:
        fits = (weight for name, weight in self._weights.items() if fnmatchcase(code, name))
        return self._weights.get(code, next(fits, 1.0)) if self._weights else 1.0

    def _retry(self, symbol: Symbol, at: datetime, reason: str) -> None:
        symbol.retry_at, symbol.reason = at, reason
        heapq.heappush(self._retries, (at, next(self._tickets), symbol))

    def _retry_at(self) -> datetime | None:
        while self._retries:
            at, _, symbol = self._retries[0]
            if symbol.retry_at == at:
                return at
            heapq.heappop(self._retries)
        return None


def _is_due(at: datetime | None, now: datetime) -> bool:
    return at is not None and at <= now


def _first(
    queues: Iterable[MarketQueue],
    at: Callable[[MarketQueue], datetime | None],
    now: datetime,
) -> MarketQueue | None:
    """Return the market that is due, and was so first."""
    due = [(instant, queue) for queue in queues if (instant := at(queue)) and instant <= now]
    return min(due, key=lambda one: one[0])[1] if due else None
