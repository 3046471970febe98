"""What the rank of a market tells of a report before its symbols are asked. Pure.

The rank is OpenD's list of a market's symbols, largest short position first, a few a request on a
limit of its own. It carries no day, may rest on another basis than the reports, be old, or lie. So
it is compared with itself, and decides two things only: a position that moved makes a report
likely, which a request for short interest has to confirm; and a sweep asks first for what moved
most.

Whether it helps is counted. One that told of the last reports first lets probes be rarer; one that
raised false alarms raises no more of them; one that named wrong moves no longer orders a sweep. It
is read and counted on, so that it is believed again once it has mended.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from poller.markets import Market
from poller.model import RANK_PAGE, Code, RankPage
from poller.schedule.market import MarketQueue
from poller.schedule.order import NEW_POSITION
from poller.schedule.watch import LONG_AGO

HOLD: Final = timedelta(seconds=2)
"""Longest wait of a sweep for pages of the rank that are under way."""

PATIENCE: Final = 30
"""Due intervals (10 min) without a report, after which an alarm was a false one."""

SETTLED: Final = 30
"""Due intervals (10 min) after a sweep, until the list is read that the next one compares with."""

AGAIN: Final = 1.5
"""Due intervals (30 s) between two readings in one release, which may appear symbol by symbol."""

REFRESH: Final = timedelta(days=1)
"""Between two readings while nothing happens."""

PROVED: Final = 4
"""Reports in a row that the rank told of first, after which probes are rarer."""

USELESS: Final = 3
"""False alarms or reports not told of, in a row, after which its alarms are not followed."""


LONG_AHEAD: Final = datetime.max.replace(tzinfo=UTC)

MOST_KEPT: Final = 50_000
"""Symbols of a market whose last position is kept, watched or not: thrice what any has."""

_LARGEST: Final = 9.99  # more is not told apart
_ENOUGH: Final = 10  # moves compared with what was reported, before the rank is judged by them
_JUDGED: Final = 30  # moves it is judged by
_WRONG, _RIGHT = 0.5, 0.8  # fractions told right, to lose and to regain belief
_NEAR: Final = 2.0  # a move told within this factor is right
_LOOKS: Final = 10  # looks at the first page between two probes
_LEAST_PAUSE: Final = timedelta(seconds=2)  # between two looks: a quarter of the call's limit
_NEXT_PAGE: Final = timedelta(seconds=0.2)  # to ask for it, if the budget allows it


def move_of(before: float, after: float) -> float:
    """Return how far a position moved, as a fraction of the one before, without its sign."""
    if before == after:
        return 0.0
    return min(abs(after - before) / before, _LARGEST) if before else NEW_POSITION


@dataclass(frozen=True, slots=True)
class RankRequest:
    """A page to read now; `reading`: the number of the reading it is part of, 0 for a look."""

    market: Market
    offset: int = 0
    reading: int = 0


class About(StrEnum):
    """What a market's rank is used for."""

    ALARMS = "alarms"
    ORDER = "order"


@dataclass(frozen=True, slots=True)
class Told:
    """Something to say of a market's rank: a trouble with it begins, or ends, or None: news."""

    market: Market
    about: About
    text: str
    begins: bool | None = None


@dataclass(slots=True)
class _Alarm:
    """Positions moved while no release was swept: a report is asked for until it is found."""

    since: datetime
    codes: tuple[Code, ...]
    next_at: datetime
    pause: timedelta


@dataclass(slots=True)
class _Reading:
    """A reading of the list, page by page, until every watched symbol was seen or it ends."""

    number: int
    missing: set[Code]
    next_offset: int = 0
    under_way: set[int] = field(default_factory=set)


class MarketRank:
    """One market's rank: what it showed, what is read of it next, and how far it is believed."""

    def __init__(self, queue: MarketQueue) -> None:
        self.queue = queue
        self.changed = False  # whether there is something else to do than before
        self._newest = queue.newest
        self._sweeps = queue.sweep.running
        self._symbols = 0
        self._total: int | None = None  # symbols in the list
        self._latest: dict[Code, int] = {}
        self._before: dict[Code, int] = {}  # at the report before, of watched symbols
        self._is_based = False  # whether `_before` was read while no report was appearing
        self._rebases = True
        self._claims: dict[Code, float] = {}  # made in this release, not compared yet
        self._alarm: _Alarm | None = None
        self._undecided = False  # a report was found; whether the rank shows it is not known
        self._reading: _Reading | None = None
        self._readings = 0
        self._read_at = LONG_AGO
        self._next_reading: datetime | None = None  # soon after the start
        self._next_look = LONG_AGO
        self._looked_at = LONG_AGO
        self._is_looking = False
        self._first: deque[bool] = deque(maxlen=max(PROVED, USELESS))
        self._right: deque[bool] = deque(maxlen=_JUDGED)
        self._believed = True

    @property
    def market(self) -> Market:
        """Whose rank it is."""
        return self.queue.market

    @property
    def is_urgent(self) -> bool:
        """Whether a release is being swept, or likely."""
        return self._sweeps or self._alarm is not None

    @property
    def _due(self) -> timedelta:
        return self.queue.intervals.due

    @property
    def proved(self) -> bool:
        """Whether it told of the last reports first."""
        return sum(list(self._first)[-PROVED:]) == PROVED

    @property
    def useless(self) -> bool:
        """Whether its alarms are not followed."""
        return len(self._first) >= USELESS and not any(list(self._first)[-USELESS:])

    def tick(self, now: datetime) -> Iterator[Told]:
        """Take note of the time, and of what the schedule has found."""
        queue = self.queue
        if self._next_reading is None or self._symbols != queue.symbols:
            self._symbols = queue.symbols
            soon = now + AGAIN * self._due
            self._next_reading = min(self._next_reading or soon, soon)
        # pauses grow shorter, and clocks are set back
        self._next_reading = min(self._next_reading, now + REFRESH)
        self._next_look = min(self._next_look, now + self._pause())
        if self._alarm is not None and now < self._alarm.since:
            self._alarm = None
        if queue.newest != self._newest:
            if self._newest is not None:
                yield from self._released(now)
            self._newest = queue.newest
        if self._sweeps and not queue.sweep.running:
            self._rebases, self._next_reading = True, now + SETTLED * self._due
        self._sweeps = queue.sweep.running
        if (alarm := self._alarm) is not None:
            if now >= alarm.since + PATIENCE * self._due:
                self._alarm = None
                yield from self._counts(told_first=False)
            elif now >= alarm.next_at and not self.useless:
                alarm.next_at, alarm.pause = now + alarm.pause, 2 * alarm.pause
                self.changed = True
                queue.suspect(alarm.codes, "positions moved in the rank: is a report out?")
        is_read = now - self._looked_at < 3 * self._pause()
        queue.watch.hears_rank = is_read and not self.useless
        queue.watch.relies_on_rank = self.proved and is_read
        queue.waits_for_rank = HOLD if self._is_based and self._believed and is_read else None

    def _released(self, now: datetime) -> Iterator[Told]:
        """Take note of a newer day: its sweep needs an order."""
        alarm, self._alarm, self._next_look = self._alarm, None, now
        if alarm is None:
            self._undecided = True
            self._claims.clear()
        else:
            yield from self._counts(told_first=True)
        if alarm is None or now - self._read_at >= AGAIN * self._due:
            self._reading, self._next_reading = None, now
        self._let_go(now)

    def rest(self) -> None:
        """Do without the rank from now on."""
        self._reading = self._next_reading = None
        self._is_looking = False
        self.queue.watch.relies_on_rank = self.queue.watch.hears_rank = False
        self.queue.waits_for_rank = None
        self._hold(LONG_AGO)

    def due_at(self) -> datetime:
        """Return when there is something to read or to ask, if nothing else happens."""
        if self._has_page():
            return LONG_AGO
        moments = [] if self._is_looking else [self._next_look]
        if self._may_begin(LONG_AHEAD) and self._next_reading is not None:
            moments.append(self._next_reading)
        if self._alarm is not None:
            ends = self._alarm.since + PATIENCE * self._due
            moments.append(ends if self.useless else self._alarm.next_at)
        return min(moments, default=LONG_AHEAD)

    def next(self, now: datetime) -> RankRequest | None:
        """Return the page to read now; `read` or `failed` must follow."""
        if self._may_begin(now):
            self._readings += 1
            self._reading = _Reading(self._readings, set(self.queue.codes))
            self._read_at, self._next_reading = now, now + REFRESH
        if (reading := self._reading) is not None and self._has_page():
            offset, reading.next_offset = reading.next_offset, reading.next_offset + RANK_PAGE
            if self._sweeps and self._believed and not reading.under_way:
                self._hold(now + HOLD)
            reading.under_way.add(offset)
            request = RankRequest(self.market, offset, reading.number)
        elif now >= self._next_look and not self._is_looking:
            self._is_looking = True
            request = RankRequest(self.market)
        else:
            return None
        if request.offset == 0:
            self._next_look = now + self._pause()
        return request

    def _may_begin(self, now: datetime) -> bool:
        """Return whether a reading is due; the first one waits for a time between releases."""
        may = self._is_based or (self.queue.is_probed and not self._sweeps)
        at = self._next_reading
        return may and self._reading is None and at is not None and now >= at

    def _has_page(self) -> bool:
        reading = self._reading
        if reading is None or not reading.missing:
            return False
        return reading.next_offset < (1 if self._total is None else self._total)

    def _pause(self) -> timedelta:
        """Return the time between two looks at the first page."""
        return max(self.queue.watch.pause / _LOOKS, _LEAST_PAUSE)

    def read(self, request: RankRequest, page: RankPage, now: datetime) -> Iterator[Told]:
        """Take a page that was read."""
        self._ended(request)
        moved = [
            code
            for code, shares in page.positions.items()
            if self._latest.get(code, shares) != shares
        ]
        self._latest.update(page.positions)
        self._total = page.total
        if request.offset == 0:
            self._looked_at = now
            if self._undecided:
                self._undecided = False
                yield from self._counts(told_first=bool(moved))
        if moved:
            yield from self._moved(moved, now)
        if self._sweeps or self._alarm is not None:
            self._claim(page.positions)
        reading = self._reading
        if reading is not None and request.reading == reading.number:
            reading.missing.difference_update(page.positions)
            reading.under_way.discard(request.offset)
            self.changed = True
            if not reading.under_way and not self._has_page():
                self._end(reading)
        self._let_go(now)

    def failed(self, request: RankRequest, now: datetime) -> None:
        """Take note that a page could not be read."""
        self._ended(request)
        if self._reading is not None and request.reading == self._reading.number:
            self._reading, self._next_reading = None, now + AGAIN * self._due
        self._let_go(now)

    def _ended(self, request: RankRequest) -> None:
        if not request.reading:
            self._is_looking = False
            self.changed = True  # the next look can be waited for

    def _hold(self, until: datetime) -> None:
        if self.queue.held_until != until:
            self.queue.hold(until)
            self.changed = True

    def _let_go(self, now: datetime) -> None:
        """Let the sweep go on when nothing of its order is under way, or about to be."""
        is_new = self.queue.newest != self._newest  # its order is about to be read
        if is_new or (self._reading is not None and self._reading.under_way):
            return
        if self._has_page():
            self._hold(min(self.queue.held_until, now + _NEXT_PAGE))
        elif not self._may_begin(now):
            self._hold(LONG_AGO)

    def _moved(self, codes: list[Code], now: datetime) -> Iterator[Told]:
        if self._sweeps:
            if self._reading is None:
                self._next_reading = max(now, self._read_at + AGAIN * self._due)
            return
        settles = self._reading is not None and self._rebases
        if self._alarm is not None or settles or not self.queue.active:
            return
        self._alarm = _Alarm(now, tuple(codes), now, _LEAST_PAUSE)
        self._claims.clear()
        if not self.useless:
            if self._is_based:
                self._next_reading = now
            text = f"{len(codes)} positions moved in the rank: a report may be out"
            yield Told(self.market, About.ALARMS, text)

    def _claim(self, positions: Mapping[Code, int]) -> None:
        """Tell the sweep how far symbols have moved since the report before."""
        moves = {
            code: move_of(self._before[code], shares)
            for code, shares in positions.items()
            if code in self._before
        }
        if self._is_based:
            self._claims |= moves
            if self._believed:
                self.queue.claim(moves)
                self.changed = True

    def _end(self, reading: _Reading) -> None:
        """Take note of what the list lacks.

        Between releases, what it shows is what the next report will be compared with.
        """
        self._reading = None
        watched = self.queue.codes
        gone = reading.missing & watched
        largest = sorted(gone, key=lambda code: (-self._latest.get(code, 0), code))
        absent = dict.fromkeys(largest, 0)
        self._latest |= absent
        if self._sweeps or self._alarm is not None:
            self._claim(absent)
            return
        for code in watched & self._latest.keys():
            if code not in self._before or (self._rebases and self.queue.shows_newest(code)):
                self._before[code] = self._latest[code]
        self._before = {code: shares for code, shares in self._before.items() if code in watched}
        if len(self._latest) > MOST_KEPT:
            self._latest = {code: self._latest[code] for code in watched & self._latest.keys()}
        self._is_based, self._rebases = True, False

    def reported(self, code: Code, before: float, after: float) -> Iterator[Told]:
        """Compare what was told of a symbol with its new report; both figures are shares."""
        claim, told = self._claims.pop(code, None), self._latest.get(code)
        if told is not None:
            # the rank's own figure, unless it shows the same figures as the reports, maybe later
            agrees = after == told or before == self._before.get(code)
            self._before[code] = int(after) if agrees else told
        truth = move_of(before, after)
        if claim is None or not (claim or truth):
            return
        self._right.append(1 / _NEAR <= (claim / truth if truth else 0) <= _NEAR)
        right, of = sum(self._right), len(self._right)
        if of < _ENOUGH:
            return
        if self._believed and right < _WRONG * of:
            self._believed = False
            self.queue.claim(dict.fromkeys(self.queue.codes))
            self._hold(LONG_AGO)
            text = f"{right} of the last {of} symbols moved as it said; sweeps do without it"
            yield Told(self.market, About.ORDER, text, begins=True)
        elif not self._believed and right >= _RIGHT * of:
            self._believed = True
            text = f"{right} of the last {of} symbols moved as it said"
            yield Told(self.market, About.ORDER, text, begins=False)

    def _counts(self, *, told_first: bool) -> Iterator[Told]:
        was = self.useless
        self._first.append(told_first)
        if self.useless and not was:
            text = f"{USELESS} false alarms or missed reports in a row; its alarms are not followed"
            yield Told(self.market, About.ALARMS, text, begins=True)
        elif was and not self.useless:
            yield Told(self.market, About.ALARMS, "it told of the last report first", begins=False)
