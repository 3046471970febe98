"""One market's symbols: which are outstanding, which are probed, which never have rows. Pure.

A release is one common event: the first newer day makes every symbol of the market outstanding.
"""

from collections import deque
from collections.abc import Iterable, Iterator, KeysView, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Final

from poller.markets import Market
from poller.model import Code
from poller.schedule.notice import Completed, Detected, Notice
from poller.schedule.order import SweepOrder, told
from poller.schedule.release import (
    ODD_HOURS,
    REMEMBERED,
    Intervals,
    MarketState,
    Sighting,
    Window,
    expected,
)
from poller.schedule.report import MISSED
from poller.schedule.sweep import Sweep
from poller.schedule.symbol import Queue, Symbol, SymbolState, head, taken, taken_out
from poller.schedule.watch import HOLD, LONG_AGO, Watch

QUIET_FOR: Final = timedelta(days=1)
"""Longest time between two looks at a symbol that takes no part in releases."""

_QUIET: Final = 36  # idle intervals between two looks at a symbol without rows, a day at most


class MarketQueue:
    """The plan of one market."""

    def __init__(self, market: Market, intervals: Intervals, tickets: Iterator[int]) -> None:
        """`tickets`: growing numbers, shared by the markets."""
        self.market = market
        self.newest: date | None = None
        self.sweep = Sweep(intervals)
        self.watch = Watch(market, intervals)
        self.version = 0  # grows with whatever `state` tells
        self._intervals = intervals
        self._tickets = tickets
        self.waits_for_order = False  # a sweep that begins, until the rank is read
        self.changes = 0  # of the symbols that are followed
        self.held_until = LONG_AGO
        self._suspects: deque[Symbol] = deque()
        self._dormant_at = LONG_AGO
        self._sightings: list[Sighting] = []
        self._looked_at: datetime | None = None
        self._fresh: Queue = deque()
        self._rotation: dict[float, Queue] = {}
        self._order = SweepOrder()  # of those that do not show the newest day
        self._quiet: Queue = deque()
        self._counts = dict.fromkeys(SymbolState, 0)
        self._current = 0  # active symbols that show the newest day
        self._members: dict[Code, Symbol] = {}
        self._open: date | None = None  # announced as detected, not yet as completed
        self._left: set[Code] = set()  # showed it, and are watched no longer
        self._overtaken = False  # the store knew of a newer day than the plan did
        self._stage: tuple[bool, datetime | None] = (False, None)  # of the sweep
        self._known_quiet: dict[str, int] = {}
        self._loaded = False

    def configure(self, intervals: Intervals) -> None:
        """Plan by these intervals from now on."""
        self._intervals = intervals
        self.watch.configure(intervals)
        self.sweep.configure(intervals)

    def load(self, state: MarketState) -> None:
        """Restore the stored state, before any symbol is added."""
        self.newest = state.newest
        self._sightings = list(state.sightings)
        self.sweep.restore(timedelta(seconds=state.pause), state.resumes)
        self._known_quiet = {code: n for n, code in enumerate(state.quiet, 1)}
        self._open = state.open
        self._loaded = state.newest is not None

    def state(self) -> MarketState:
        """Return the state that must survive this process."""
        return MarketState(
            newest=self.newest,
            sightings=tuple(self._sightings),
            pause=self.sweep.pause.total_seconds(),
            resumes=self.sweep.resumes,
            quiet=tuple(symbol.code for ticket, symbol in self._quiet if symbol.ticket == ticket),
            open=self._open,
        )

    @property
    def active(self) -> int:
        """How many symbols take part in releases."""
        return self._counts[SymbolState.ACTIVE]

    @property
    def intervals(self) -> Intervals:
        """The intervals it is probed at."""
        return self._intervals

    @property
    def codes(self) -> KeysView[Code]:
        """The symbols that are followed."""
        return self._members.keys()

    @property
    def is_probed(self) -> bool:
        """Whether a symbol was answered since the start."""
        return self._looked_at is not None

    def shows_newest(self, code: Code) -> bool:
        """Return whether a symbol that is followed shows the newest day."""
        return self._is_up_to_date(self._members[code])

    @property
    def symbols(self) -> int:
        """How many symbols are followed."""
        return len(self._members)

    @property
    def outstanding(self) -> int:
        """How many of them do not show the newest day."""
        return self.active - self._current

    def dormant_rank(self, code: Code) -> int:
        """Return the position among dormant symbols by last poll, oldest first; 0 for others."""
        return self._known_quiet.get(code, 0)

    def add(self, symbol: Symbol) -> None:
        """Follow a symbol; without a watermark it is polled at once."""
        if symbol.watermark is not None:
            if self.newest is None or symbol.watermark > self.newest:
                self._overtaken = self._loaded
                self.sweep.end()
                self._raise_to(symbol.watermark)
            symbol.state = self._state_of(symbol.watermark)
        elif symbol.code in self._known_quiet:
            symbol.state = SymbolState.DORMANT
        self._members[symbol.code] = symbol
        self.changes += 1
        self._count(symbol, 1)
        self.place(symbol)
        if self.outstanding and self.sweep.resumes is None:
            self.sweep.running = True

    def remove(self, symbol: Symbol) -> None:
        """Stop following a symbol."""
        del self._members[symbol.code]
        self.changes += 1
        self._count(symbol, -1)
        if self._open is not None and symbol.watermark == self._open:
            self._left.add(symbol.code)
        symbol.ticket = 0
        self.version += 1
        if not self.outstanding:
            self.sweep.end()

    def set_state(self, symbol: Symbol, state: SymbolState) -> None:
        """Move a symbol to another state."""
        if symbol.state is not state:
            self._count(symbol, -1)
            symbol.state = state
            self._count(symbol, 1)
            self.version += 1

    def place(self, symbol: Symbol) -> None:
        """Queue a symbol behind those that wait longer."""
        symbol.ticket = next(self._tickets)
        entry = (symbol.ticket, symbol)
        match symbol.state:
            case SymbolState.NEW:
                self._fresh.append(entry)
            case SymbolState.DORMANT:
                self._quiet.append(entry)
            case SymbolState.ACTIVE if self._is_up_to_date(symbol):
                self._rotation.setdefault(symbol.weight, deque()).append(entry)
            case SymbolState.ACTIVE:
                missed = max(self._missed(symbol.watermark) - 1, 0)
                self._order.add(symbol.ticket, symbol, missed)
            case SymbolState.REFUSED:
                pass  # the schedule retries it later

    def claim(self, moves: Mapping[Code, float | None]) -> None:
        """Poll symbols in a sweep by how much they are said to have moved; None: nobody says.

        A hint that decides on order alone; see `Symbol.move`.
        """
        for code, move in moves.items():
            symbol = self._members.get(code)
            if symbol is None or symbol.move == move:
                continue
            symbol.move = move
            waits = symbol.ticket != 0 and symbol.state is SymbolState.ACTIVE
            if waits and not self._is_up_to_date(symbol):
                self.place(symbol)

    def suspect(self, codes: Iterable[Code], reason: str) -> None:
        """Probe at once, one of these symbols if it can be: a report may be out."""
        members = (self._members[code] for code in codes if code in self._members)
        self._suspects = deque(one for one in members if one.state is SymbolState.ACTIVE)
        self.watch.hurry(reason)

    def hold(self, until: datetime) -> None:
        """Let a sweep wait until then, because the order is being read."""
        self.held_until = until

    def sighted(self, day: date, now: datetime) -> None:
        """Poll all others at the full rate if a day is newer than any seen."""
        if self.newest is not None and day > self.newest:
            self._raise_to(day)
            self._begin_sweep(now)

    def _begin_sweep(self, now: datetime) -> None:
        self.sweep.begin()
        if self.waits_for_order:
            self.hold(now + HOLD)

    def answered(self, symbol: Symbol, watermark: date | None, now: datetime) -> list[Notice]:
        """Record the watermark a symbol showed, queue it again, and return the notices due."""
        before, swept, lag = symbol.watermark, symbol.swept, self._missed(symbol.watermark)
        seen = symbol.state is not SymbolState.NEW and before is not None
        newer = watermark is not None and (self.newest is None or watermark > self.newest)
        if newer and watermark is not None:
            first = self.newest is None
            self._raise_to(watermark)
            if not first:
                self._begin_sweep(now)
        self._count(symbol, -1)
        symbol.watermark = watermark
        symbol.state = SymbolState.DORMANT if watermark is None else self._state_of(watermark)
        self._count(symbol, 1)
        if self._is_up_to_date(symbol):
            symbol.rounds, symbol.move = 0, None
        notices = self._superseded(now)
        # a later day at first sight is no release: the others had stopped reporting earlier
        notices += self._detected(symbol, moved=seen and watermark != before, now=now)
        self._looked_at = now
        self.place(symbol)
        if symbol.state is SymbolState.DORMANT:
            self.version += 1
        if swept and not newer:
            news = before is not None and watermark is not None and watermark > before
            self.sweep.tally(news=news, kept_up=lag <= 1, outstanding=self.outstanding, now=now)
        return notices + self.settle(now)

    def _superseded(self, now: datetime) -> list[Notice]:
        """Complete the open release when a newer one has come."""
        if self._open is None or self._open == self.newest:
            return []
        return [self._complete(self._open, now)]

    def _detected(self, symbol: Symbol, *, moved: bool, now: datetime) -> list[Notice]:
        """Return `Detected` for the newest day, once.

        It is due when a symbol `moved` to that day, or when the stored watermarks were newer than
        the stored plan, because the process that saw the day first was killed.
        """
        if not (moved and self._is_up_to_date(symbol)) and not self._overtaken:
            return []
        day = self.newest
        if day is None or (self._sightings and self._sightings[-1].day == day):
            return []
        showing = (one for one in self._members.values() if self._is_up_to_date(one))
        first = next((one for one in showing if one is not symbol), symbol)
        self._learn(day, now)
        return [Detected(self.market, day, now, first.code)]

    def _learn(self, day: date, now: datetime) -> None:
        """Remember a release; its hour counts only if the market was probed shortly before."""
        gap = None if self._looked_at is None else now - self._looked_at
        timely = gap is not None and gap <= ODD_HOURS * self._intervals.idle
        self._sightings.append(Sighting(day, now if timely else None))
        del self._sightings[:-REMEMBERED]
        self._open, self._overtaken = day, False
        self.version += 1

    def settle(self, now: datetime) -> list[Notice]:
        """End or pause a finished sweep, and return the notice of a complete release."""
        sweep = self.sweep
        if not self.outstanding:
            sweep.end()
        elif not sweep.running and sweep.resumes is None:
            sweep.rest(now)
        if (sweep.running, sweep.resumes) != self._stage:
            self._stage = sweep.running, sweep.resumes
            self.version += 1
            if sweep.staggered and self._sightings:
                self._sightings[-1] = replace(self._sightings[-1], scattered=True)
            self._plan_watch(now)
        if self._open is None or (self.outstanding and not sweep.is_exhausted):
            return []
        return [self._complete(self._open, now)]

    def _complete(self, day: date, now: datetime) -> Notice:
        """Close the release of `day` and return its notice, with the symbols that lack it."""
        self._open = None
        self.version += 1
        active = [one for one in self._members.values() if one.state is SymbolState.ACTIVE]
        missing = [one.code for one in active if one.watermark is None or one.watermark < day]
        found = {one.code for one in active}.difference(missing) | self._left
        self._left = set()
        return Completed(self.market, day, now, len(found), tuple(sorted(missing)))

    def _raise_to(self, day: date) -> None:
        """Make `day` the newest; every active symbol becomes outstanding."""
        self._order.begin(self._rotation.values())
        self._rotation, self._current = {}, 0
        self.newest = day
        self.version += 1

    def _count(self, symbol: Symbol, by: int) -> None:
        self._counts[symbol.state] += by
        if symbol.state is SymbolState.ACTIVE and self._is_up_to_date(symbol):
            self._current += by

    def _is_up_to_date(self, symbol: Symbol) -> bool:
        return symbol.watermark is not None and symbol.watermark == self.newest

    def _missed(self, watermark: date | None) -> int:
        return sum(one.day > (watermark or date.min) for one in self._sightings)

    def _state_of(self, watermark: date) -> SymbolState:
        return SymbolState.DORMANT if self._missed(watermark) >= MISSED else SymbolState.ACTIVE

    def job_at(self) -> datetime | None:
        """Return from when symbols are polled at the full rate; None if none is outstanding."""
        if head(self._fresh) is not None:
            return LONG_AGO
        if self._lags() is None:
            return None
        return self.held_until if self.sweep.running else self.sweep.resumes

    def rank(self) -> tuple[bool, int]:
        """Return the sort key among markets: those that bring news, then the fewest to go."""
        return self.sweep.low_yield, self.outstanding + self._counts[SymbolState.NEW]

    def take_job(self) -> Symbol:
        """Return the symbol to poll; call it only when `job_at` is due."""
        if head(self._fresh) is not None or self._lags() is None:
            return taken(self._fresh, "it was not looked at since the start")
        if not self.sweep.running:
            self.sweep.resume()
        return self._order.take(f"the report of {self.newest} is out: {self.outstanding} to go")

    def probe_at(self) -> datetime | None:
        """Return when one symbol is probed next; None during a sweep or without symbols."""
        if self.sweep.running or self._watched() is None:
            return None
        return self.watch.at

    def take_probe(self, now: datetime) -> Symbol | None:
        """Return the symbol to probe; call it only when `probe_at` is due."""
        reason, queue = self.watch.reason, self._watched()
        self._plan_watch(now)
        while self._suspects:
            symbol = self._suspects.popleft()
            if symbol.ticket != 0 and self._is_up_to_date(symbol):
                self._suspects.clear()
                return taken_out(symbol, reason + told(symbol))
        if queue is None:
            return None
        return taken(queue, reason, swept=not self._is_up_to_date(queue[0][1]))

    @property
    def _is_minority(self) -> bool:
        """Whether fewer than half of the active symbols show the newest day."""
        return 2 * self._current < self.active

    def _watched(self) -> Queue | None:
        """Return the queue of up-to-date symbols whose head has not been polled for longest.

        While few symbols show the newest day, the outstanding ones are probed as well.
        """
        queues = self._up_to_date()
        if self._is_minority and (lags := self._lags()) is not None:
            queues.append(lags)
        return _oldest(queues)

    def _up_to_date(self) -> list[Queue]:
        return [queue for queue in self._rotation.values() if head(queue) is not None]

    def _lags(self) -> Queue | None:
        return self._order.first()

    def _plan_watch(self, now: datetime) -> None:
        window = self.window()
        if window is not None:
            scattered = bool(self._sightings) and self._sightings[-1].scattered
            self.watch.plan(window, now, scattered=scattered)

    def window(self) -> Window | None:
        """Return when the next report is expected; None before any was seen."""
        if self.newest is None:
            return None
        reference = self.newest
        if self._is_minority and (lags := self._lags()) is not None:
            reference = lags[0][1].watermark or reference
        return expected(self.market, reference, self._sightings)

    def quiet_look_at(self) -> datetime | None:
        """Return when the next dormant symbol is polled; None if there is none."""
        return None if head(self._quiet) is None else self._dormant_at

    def take_quiet(self, now: datetime) -> Symbol:
        """Return the dormant symbol that has not been polled for longest."""
        self._dormant_at = now + once_a_day(self._intervals) / self._counts[SymbolState.DORMANT]
        return taken(self._quiet, f"{_why_quiet(self._quiet[0][1])}: once a day")

    def trial(self) -> Queue | None:
        """Return the queue whose head is best to try a right with: no release waits for it."""
        if (oldest := _oldest(self._up_to_date())) is not None:
            return oldest
        waiting = (self._quiet, self._lags(), self._fresh)
        return next((queue for queue in waiting if queue and head(queue) is not None), None)

    def put_back(self, symbol: Symbol) -> None:
        """Queue a symbol again after a poll that taught nothing: it waits as before."""
        symbol.rounds, symbol.swept = symbol.rounds - symbol.swept, False
        self.place(symbol)

    def cap_waits(self, latest: datetime) -> None:
        """Cap every wait at `latest`; called when the clock was set back."""
        self.watch.cap(latest)
        self.held_until = min(self.held_until, latest)
        self._dormant_at = min(self._dormant_at, latest)
        if self.sweep.resumes is not None:
            self.sweep.resumes = min(self.sweep.resumes, latest)

    def outlook(self, symbol: Symbol) -> tuple[datetime | None, str]:
        """Return when a queued symbol is polled (None: in its turn), and why."""
        match symbol.state:
            case SymbolState.NEW:
                return None, "it was not looked at since the start"
            case SymbolState.DORMANT:
                return None, f"{_why_quiet(symbol)}: looked at once a day"
            case _ if not self._is_up_to_date(symbol):
                reason = f"the report of {self.newest} is out, and it does not show it"
                reason += told(symbol)
                return (None if self.sweep.running else self.sweep.resumes), reason
            case _:
                turn = f"one of {self._current} symbols watched in rotation"
                at = self.watch.at if self._current == 1 else None
                why = f"{turn}; {self.watch.reason}"
                if self.watch.hears_rank:
                    why += f". A move in the rank of {self.market} brings its next probe forward"
                return at, why


def _oldest(queues: Iterable[Queue]) -> Queue | None:
    return min(queues, key=lambda queue: queue[0][0], default=None)


def _why_quiet(symbol: Symbol) -> str:
    return "it has no rows" if symbol.watermark is None else "it missed three releases"


def once_a_day(intervals: Intervals) -> timedelta:
    """Return the time between two polls of a symbol that is not expected to show anything."""
    return min(_QUIET * intervals.idle, QUIET_FOR)
