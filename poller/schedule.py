"""Who is polled next, and why. Pure: time is an argument (aware datetimes).

Everything due is polled, longest overdue first, at three intervals: `due` once the next report is
expected by the calendar, `idle` before, `late` when it is more than twelve hours overdue.
"""

import heapq
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from poller.calendar import expected_after
from poller.model import Code, market_of

LATE_AFTER: Final = timedelta(hours=12)
LONGEST_EXCLUSION: Final = 72
"""Idle intervals (a day, as shipped) between two tries of a code the gateway refuses."""

_STEP: Final = timedelta(minutes=1)
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Intervals:
    """Time between two probes of a symbol."""

    due: timedelta
    idle: timedelta
    late: timedelta


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
class Failed:
    """No usable answer, this time."""


@dataclass(frozen=True, slots=True)
class Excluded:
    """The gateway refuses the code."""


@dataclass(frozen=True, slots=True)
class Postponed:
    """Nothing was asked or kept, through no fault of the symbol's: poll it first of all."""


Outcome = Answered | Failed | Excluded | Postponed


@dataclass(slots=True)
class _Symbol:
    due_at: datetime
    reason: str
    polling: bool = False
    misses: int = 0  # failures or refusals in a row
    entry: int = 0  # the heap entry that counts; older ones are passed over


class Schedule:
    """The plan of one process. It keeps no clock and does no I/O."""

    def __init__(self, intervals: Intervals) -> None:
        self._intervals = intervals
        self._symbols: dict[Code, _Symbol] = {}
        self._heap: list[tuple[datetime, int, Code]] = []
        self._numbers = itertools.count(1)
        self._latest = _LONG_AGO + 2 * _STEP

    @property
    def codes(self) -> frozenset[Code]:
        """What is watched."""
        return frozenset(self._symbols)

    def watch(self, codes: Iterable[Code]) -> tuple[set[Code], set[Code]]:
        """Watch exactly `codes`; new ones are due at once, in that order. Returns (new, gone)."""
        wanted = dict.fromkeys(codes)
        gone = self._symbols.keys() - wanted.keys()
        fresh = wanted.keys() - self._symbols.keys()
        for code in gone:
            del self._symbols[code]
        for code in wanted:
            if code in fresh:
                self._symbols[code] = _Symbol(_LONG_AGO, "it was not looked at since the start")
                self._push(code)
        return set(fresh), set(gone)

    def configure(self, intervals: Intervals, now: datetime) -> None:
        """Plan by these intervals from now on; nothing waits longer than the new idle one."""
        self._intervals = intervals
        self._hurry(now)

    def due(self, now: datetime) -> int:
        """Return how many symbols wait for their turn."""
        return sum(not s.polling and s.due_at <= now for s in self._symbols.values())

    def due_at(self) -> datetime | None:
        """Return when the first symbol is due; None while nothing waits."""
        while self._heap:
            due_at, number, code = self._heap[0]
            symbol = self._symbols.get(code)
            if symbol is not None and symbol.entry == number:
                return due_at
            heapq.heappop(self._heap)
        return None

    def next(self, now: datetime) -> Probe | Wait:
        """Return what to poll now; the caller must `record` an outcome for every probe."""
        self.tick(now)
        due_at = self.due_at()
        if due_at is None or due_at > now:
            return Wait(due_at)
        _, _, code = heapq.heappop(self._heap)
        symbol = self._symbols[code]
        symbol.polling = True
        return Probe(code, symbol.reason)

    def record(self, code: Code, outcome: Outcome, now: datetime) -> None:
        """Plan the next probe of `code` after the one that ended `now`."""
        symbol = self._symbols.get(code)
        if symbol is None:  # taken off the watchlist meanwhile
            return
        symbol.polling = False
        steps = self._intervals
        match outcome:
            case Answered(watermark):
                symbol.misses = 0
                symbol.due_at, symbol.reason = next_probe(code, watermark, now, steps)
            case Failed():
                symbol.misses += 1
                pause = min(steps.due * 2 ** min(symbol.misses - 1, 16), steps.idle)
                symbol.due_at = now + max(pause, steps.due)
                symbol.reason = f"{symbol.misses} tries in a row failed"
            case Excluded():
                symbol.misses += 1
                pauses = min(2 ** min(symbol.misses - 1, 16), LONGEST_EXCLUSION)
                symbol.due_at = now + steps.idle * pauses
                symbol.reason = f"OpenD refused it {symbol.misses} times"
            case Postponed():
                symbol.due_at = _LONG_AGO
        self._push(code)

    def tick(self, now: datetime) -> None:
        """Take note of the time: after a step back, nothing waits longer than an idle interval."""
        back = now < self._latest - _STEP
        if back:
            self._hurry(now)
        self._latest = now if back else max(now, self._latest)

    def _hurry(self, now: datetime) -> None:
        """Let nothing wait longer than an idle interval from now."""
        for code, symbol in self._symbols.items():
            symbol.due_at = min(symbol.due_at, now + self._intervals.idle)
            if not symbol.polling:
                self._push(code)

    def plan(self) -> Mapping[Code, tuple[datetime, str]]:
        """Return when each symbol is polled next, and why."""
        return {code: (symbol.due_at, symbol.reason) for code, symbol in self._symbols.items()}

    def _push(self, code: Code) -> None:
        symbol = self._symbols[code]
        symbol.entry = next(self._numbers)
        heapq.heappush(self._heap, (symbol.due_at, symbol.entry, code))


def next_probe(
    code: Code, watermark: date | None, polled_at: datetime, intervals: Intervals
) -> tuple[datetime, str]:
    """Return when to look again at a symbol that answered at `polled_at`, and why."""
    if watermark is None:
        return polled_at + intervals.idle, "it has no rows"
    release = expected_after(market_of(code), watermark)
    opens = release.opens.astimezone(UTC)
    if polled_at < opens:
        at = min(polled_at + intervals.idle, max(opens, polled_at + intervals.due))
        return at, f"the report of {release.day} is expected from {opens:%Y-%m-%d %H:%M} UTC on"
    if polled_at < opens + LATE_AFTER:
        return polled_at + intervals.due, f"the report of {release.day} is due"
    return polled_at + intervals.late, f"the report of {release.day} is late"
