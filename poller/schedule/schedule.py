"""Who is polled next, and why. Pure: time is an argument (aware datetimes).

Each market is watched: one symbol at a time, in rotation. The first newer day makes all its others
wanted, and they are polled at the full rate (`market`, `sweep`, `release` hold the rules).
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Final

from poller.markets import Market, all_markets
from poller.model import Code, market_of
from poller.schedule.market import MarketQueue, once_a_day
from poller.schedule.notice import Notice
from poller.schedule.release import Intervals, MarketState
from poller.schedule.retries import FAILING_SHARE, Retries
from poller.schedule.rights import EVERYTHING, Access
from poller.schedule.symbol import Symbol, SymbolState, taken
from poller.schedule.watch import HOLD, LONG_AGO

_STEP: Final = timedelta(minutes=1)
_LOST: Final = {
    False: "the connection broke again while it was asked; alone, once another one is answered",
    True: "the connection broke again and again while it was asked; alone, and ever more rarely",
}
"""Why a symbol waits during whose requests connections broke, by whether that is its own fault."""
_WATCH_SHARE: Final = 10
"""While symbols are wanted, at most one decision in so many watches another market."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Poll this code now; `alone`: while nothing else is under way over the same connection."""

    code: Code
    reason: str
    alone: bool = False


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
class Barred:
    """The account that was asked may not see the market: its trouble, and not the symbol's."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Postponed:
    """Nothing was asked or kept, through no fault of the symbol's: poll it first of all."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A connection broke during its request, as it did during the one before; `reason` says so.

    It is polled alone from now on, so that others do not suffer, and are not suspected. `own`: it
    is likely to be the symbol's own trouble, as others were answered in between.
    """

    reason: str = ""
    own: bool = False


Reply = Answered | Unanswered | Excluded | Barred | Postponed | Lost


class Schedule:
    """The plan of one process. It keeps no clock and does no I/O."""

    def __init__(
        self,
        intervals: Intervals,
        weights: Mapping[str, float] | None = None,
        *,
        budget: tuple[int, float] = (30, 30.0),
    ) -> None:
        """`weights`: by code or shell pattern; the first that fits counts, else 1.

        `budget`: requests of an account, and in how many seconds.
        """
        self._intervals = intervals
        self._weights = weights or {}
        self._symbols: dict[Code, Symbol] = {}
        self._tickets = itertools.count(1)
        self._markets: dict[Market, MarketQueue] = {}
        self._again: dict[Market, deque[Symbol]] = {}
        self._retries: dict[Market, Retries] = {}
        requests, seconds = budget
        self._failing_pause = timedelta(seconds=seconds / requests / FAILING_SHARE)
        self._failing_from: dict[str, datetime] = {}  # account → when it may ask for one again
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
        self._again = {market: deque() for market in all_markets()}
        self._retries = {market: Retries() for market in all_markets()}
        self._failing_from.clear()
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
            again = self._again[market_of(code)]
            if symbol in again:
                again.remove(symbol)
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

    def due_at(self, access: Access = EVERYTHING) -> datetime | None:
        """Return when something is due that `access` allows; None while nothing waits."""
        instants: list[datetime | None] = [
            LONG_AGO if market in access.controls else access.resting[market]
            for market in (*access.controls, *access.resting)
            if self._has_one(market)
        ]
        for queue in self._open(access):
            if self._again[queue.market]:
                return LONG_AGO
            retries = self._retries[queue.market]
            instants += [queue.job_at(), queue.probe_at(), queue.quiet_look_at()]
            instants += [retries.once_at(), self._failing_at(retries, access)]
        return min((at for at in instants if at is not None), default=None)

    def next(self, now: datetime, access: Access = EVERYTHING) -> Probe | Wait:
        """Return what to poll now; the caller must `record` an outcome for every probe.

        `access`: which markets whoever asks is asked for.
        """
        self.tick(now)
        symbol = self._next(now, access)
        if symbol is None:
            return Wait(self.due_at(access))
        return Probe(symbol.code, symbol.reason, symbol.alone)

    def _next(self, now: datetime, access: Access) -> Symbol | None:
        """First what was postponed; then releases, with a look at other markets; then failures."""
        queues = self._open(access)
        if (first := self._postponed(queues) or self._control(access)) is not None:
            return first
        jobs = [queue for queue in queues if _is_due(queue.job_at(), now)]
        self._since_watch += 1
        if not jobs or self._since_watch >= _WATCH_SHARE:
            others = [queue for queue in queues if queue not in jobs]
            if (watched := _first(others, MarketQueue.probe_at, now)) is not None:
                self._since_watch = 0
                return watched.take_probe(now)
            if (tried := self._trial(now, access)) is not None:
                self._since_watch = 0
                return tried
        if jobs:
            queue = min(jobs, key=lambda each: (each.market in access.doubtful, each.rank()))
            return self._retry([queue], now, access) or queue.take_job()
        if (retried := self._retry(queues, now, access)) is not None:
            return retried
        quiet = _first(queues, MarketQueue.quiet_look_at, now)
        return None if quiet is None else quiet.take_quiet(now)

    def _open(self, access: Access) -> list[MarketQueue]:
        closed = access.resting.keys() | access.full
        return [queue for market, queue in self._markets.items() if market not in closed]

    def _postponed(self, queues: Iterable[MarketQueue]) -> Symbol | None:
        again = next((self._again[q.market] for q in queues if self._again[q.market]), None)
        if again is None:
            return None
        symbol = again.popleft()
        symbol.polling = True
        return symbol

    def _control(self, access: Access) -> Symbol | None:
        """Return a symbol whose answer tells that another market's trouble is its own."""
        market = next(filter(self._has_one, access.controls), None)
        reason = f"is account {access.account} still answered for this market?"
        return None if market is None else self._any_one(market, reason)

    def _trial(self, now: datetime, access: Access) -> Symbol | None:
        """Return a symbol of a market that rests, to see whether it still has to."""
        due = (market for market, at in access.resting.items() if at <= now)
        market = next(filter(self._has_one, due), None)
        reason = f"does account {access.account} still have no right to {market}?"
        return None if market is None else self._any_one(market, reason)

    def _has_one(self, market: Market) -> bool:
        """Tell whether any symbol of a market could be asked for now."""
        waits = bool(self._again[market]) or self._markets[market].trial() is not None
        return waits or next(self._retries[market].waiting(), None) is not None

    def _any_one(self, market: Market, reason: str) -> Symbol:
        """Take the symbol that tells most of its market and is missed least; there is one."""
        if (queue := self._markets[market].trial()) is not None:
            return taken(queue, reason)
        symbol = self._postponed([self._markets[market]])
        if symbol is None:
            retries = self._retries[market]
            symbol = retries.take(failing=retries.once_at() is None)
        symbol.reason, symbol.swept = reason, False
        return symbol

    def _retry(self, queues: Iterable[MarketQueue], now: datetime, access: Access) -> Symbol | None:
        """Return a symbol of these markets that failed before and is due; failing ones by share."""
        every = [self._retries[queue.market] for queue in queues]
        for retries in every:
            if _is_due(retries.once_at(), now):
                return retries.take(failing=False)
        for retries in every:
            if _is_due(self._failing_at(retries, access), now):
                self._failing_from[access.account] = now + self._failing_pause
                return retries.take(failing=True)
        return None

    def _failing_at(self, retries: Retries, access: Access) -> datetime | None:
        at = retries.failing_at()
        return None if at is None else max(at, self._failing_from.get(access.account, LONG_AGO))

    def is_urgent(self, now: datetime, access: Access = EVERYTHING) -> bool:
        """Tell whether a release is swept or watched for: then nothing of the budget is spared."""
        return any(
            queue.sweep.running or _is_due(queue.probe_at(), now) for queue in self._open(access)
        )

    def relieve(self, market: Market) -> None:
        """Take back what failed: it was the market's trouble. Those symbols are due as before."""
        self._relieve(self._retries[market].waiting())

    def _relieve(self, symbols: Iterable[Symbol]) -> None:
        for symbol in list(symbols):
            if not symbol.failures:  # it waited with no failure of its own
                symbol.retry_at = None
                self._again[market_of(symbol.code)].append(symbol)
            elif symbol.state is not SymbolState.REFUSED:
                symbol.failures, symbol.retry_at = 0, None
                self._queue(symbol.code).put_back(symbol)

    def sighted(self, code: Code, day: date, now: datetime) -> None:
        """Take note of a day that a symbol shows while its poll goes on: a report may be out."""
        symbol = self._symbols.get(code)
        if symbol is not None and symbol.polling:
            self._queue(code).sighted(day, now)

    def record(self, code: Code, outcome: Reply, now: datetime) -> list[Notice]:
        """Plan what follows the probe of `code` that ended `now`; returns what it tells."""
        symbol = self._symbols.get(code)
        if symbol is None or not symbol.polling:  # taken off the watchlist meanwhile
            return []
        symbol.polling = False
        queue, idle = self._queue(code), self._intervals.idle
        match outcome:
            case Answered(watermark):
                symbol.failures, symbol.alone = 0, False
                self._relieve(self._retries[queue.market].answered())
                return queue.answered(symbol, watermark, now)
            case Unanswered():
                symbol.failures += 1
                reason = f"{symbol.failures} tries in a row failed"
                self._wait(symbol, now + self._pause(symbol, idle), reason)
            case Excluded():
                symbol.failures += 1
                queue.set_state(symbol, SymbolState.REFUSED)
                pause = min(idle * 2 ** min(symbol.failures - 1, 16), once_a_day(self._intervals))
                self._wait(symbol, now + pause, f"OpenD refused it {symbol.failures} times")
                return queue.settle(now)
            case Barred(reason) if symbol.state is SymbolState.REFUSED:
                self._wait(symbol, now + idle, reason)
            case Barred():
                queue.put_back(symbol)
            case Lost(own=own):
                symbol.alone = True
                symbol.failures += own
                longest = once_a_day(self._intervals) if own else idle
                self._wait(symbol, now + self._pause(symbol, longest), _LOST[own])
                self._seek_an_answer()
            case Postponed():
                self._again[queue.market].append(symbol)
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
            queue.held_until = min(queue.held_until, now + HOLD)  # a clock may be set back
        self._latest = now if back else max(now, self._latest)

    def _seek_an_answer(self) -> None:
        """Probe every market soon: whether others are answered tells whose fault a loss is."""
        for queue in self._markets.values():
            queue.watch.hurry("does OpenD answer for others?")

    def _hurry(self, now: datetime) -> None:
        """Let nothing wait longer than an idle interval from now."""
        latest = now + self._intervals.idle
        for queue in self._markets.values():
            queue.cap_waits(latest)
        for retries in self._retries.values():
            for symbol in list(retries.waiting()):
                if symbol.retry_at is not None and symbol.retry_at > latest:
                    self._wait(symbol, latest, symbol.reason)
        for account, at in self._failing_from.items():
            self._failing_from[account] = min(at, now + self._failing_pause)

    def outlook(self, code: Code) -> tuple[datetime | None, str]:
        """Return when a code is looked at next (None: in its turn, now, or never), and why."""
        symbol = self._symbols.get(code)
        if symbol is None:
            return None, "it is not watched"
        if symbol.polling or symbol.retry_at is not None:
            return symbol.retry_at, symbol.reason
        return self._queue(code).outlook(symbol)

    def _pause(self, symbol: Symbol, longest: timedelta) -> timedelta:
        """Return the pause after so many failures: the interval of due symbols, ever doubled."""
        due = self._intervals.due
        grown: timedelta = due * 2 ** min(max(symbol.failures - 1, 0), 16)
        return max(min(grown, longest), due)

    def _queue(self, code: Code) -> MarketQueue:
        return self._markets[market_of(code)]

    def _weight(self, code: Code) -> float:
        fits = (weight for name, weight in self._weights.items() if fnmatchcase(code, name))
        return self._weights.get(code, next(fits, 1.0)) if self._weights else 1.0

    def _wait(self, symbol: Symbol, at: datetime, reason: str) -> None:
        symbol.reason = reason
        self._retries[market_of(symbol.code)].add(symbol, at, next(self._tickets))


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
