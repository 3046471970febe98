"""What the rank of a market tells of a report before its symbols are asked. Pure.

The rank is OpenD's list of a market's symbols, largest short position first, a few a request on a
limit of its own. It carries no day, may rest on another basis than the reports, be old, or lie. So
it is compared with itself, and decides two things only: a position that moved makes a report
likely, which a request for short interest has to confirm; and a sweep asks first for what moved
most.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from poller.markets import Market
from poller.model import RANK_PAGE, Code, RankPage
from poller.schedule.belief import ENOUGH, About, Belief, Told, move_of
from poller.schedule.market import MarketQueue
from poller.schedule.order import EXTREME, NEW_POSITION
from poller.schedule.watch import HOLD, LONG_AGO

HOLDS: Final = 3
"""Times a sweep waits for its order, `HOLD` each at the longest: as often as a limit of 60 pages in
30 s lets a list of 5,300 symbols be read.
"""

FAULTY: Final = 1 / 8
"""Share of the positions above which extreme moves are a fault of the source: `detect` has to see
it, so the sweep asks in the order of no hint. Some 3 % of the figures move so far.
"""

PATIENCE: Final = 30
"""Due intervals (10 min) without a report, after which an alarm was a false one."""

SETTLED: Final = 30
"""Due intervals (10 min) after a sweep, until the list is read that the next one compares with."""

AGAIN: Final = 1.5
"""Due intervals (30 s) between two readings in one release, which may appear symbol by symbol."""

REFRESH: Final = timedelta(days=1)
"""Between two readings while nothing happens."""

LONG_AHEAD: Final = datetime.max.replace(tzinfo=UTC)

MOST_KEPT: Final = 50_000
"""Symbols of a market whose last position is kept, watched or not: thrice what any has."""

MOST_EMPTY: Final = 3
"""Pages in a row without any figure of the market, after which the list is not read on."""

_MANY: Final = 100  # moves that are enough to see a fault by; the list begins with what rose
_LOOKS: Final = 10  # looks at the first page between two probes
_FIRST_PAUSE: Final = timedelta(seconds=2)  # until an alarm is asked about again
_LEAST_PAUSE: Final = timedelta(seconds=2)  # between two looks: a quarter of the call's limit
_NEXT_PAGE: Final = timedelta(seconds=0.2)  # to ask for it, if the budget allows it


@dataclass(frozen=True, slots=True)
class RankRequest:
    """A page to read now.

    Attributes:
        reading: The number of the reading it is part of, 0 for a look.
        number: Grows with every request for the market's rank.
    """

    market: Market
    offset: int = 0
    reading: int = 0
    number: int = 0


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
    empty: int = 0  # pages in a row that showed nothing


class MarketRank:
    """One market's rank: what it showed, what is read of it next, and how far it is believed."""

    def __init__(self, queue: MarketQueue) -> None:
        self.queue = queue
        self.changed = False  # whether there is something else to do than before
        self._newest = queue.newest
        self._sweeps = queue.sweep.running
        self._changes = -1
        self._total: int | None = None  # symbols in the list
        self._latest: dict[Code, int] = {}
        self._before: dict[Code, int] = {}  # at the report before, of watched symbols
        self._is_based = False  # whether `_before` was read while no report was appearing
        self._rebases = True
        self._claims: dict[Code, float] = {}  # made in this release, not compared yet
        self._alarm: _Alarm | None = None
        self._undecided: int | None = None  # a report was found: do later requests show it?
        self._requests = 0
        self._applied: dict[int, int] = {}  # offset → the last request whose page was taken
        self._first_page: set[Code] = set()
        self._holds, self._held_at = 0, LONG_AGO
        self._is_faulty = False  # in this release
        self._reading: _Reading | None = None
        self._readings = 0
        self._read_at = LONG_AGO
        self._next_reading: datetime | None = None  # soon after the start
        self._next_look = LONG_AGO
        self._looked_at = LONG_AGO
        self._is_looking = False
        self._belief = Belief(queue.market)

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

    def tick(self, now: datetime) -> Iterator[Told]:
        """Take note of the time, and of what the schedule has found."""
        queue = self.queue
        if self._next_reading is None or self._changes != queue.changes:
            self._changes = queue.changes
            soon = now + AGAIN * self._due
            self._next_reading = min(self._next_reading or soon, soon)
        # pauses grow shorter, and clocks are set back
        self._next_reading = min(self._next_reading, now + REFRESH)
        self._next_look = min(self._next_look, now + self._pause())
        if self._alarm is not None and now < self._alarm.since:
            self._alarm = None
        if queue.newest != self._newest:
            before, self._newest = self._newest, queue.newest
            if before is not None:
                yield from self._released(now)
        if self._sweeps and not queue.sweep.running:
            self._rebases, self._next_reading = True, now + SETTLED * self._due
        self._sweeps = queue.sweep.running
        if (alarm := self._alarm) is not None:
            if now >= alarm.since + PATIENCE * self._due:
                self._alarm = None
                self._forget_claims()
                if not self._is_based:
                    self._next_reading = now
                yield from self._belief.alarmed(told_first=False)
            elif now >= alarm.next_at and not self._belief.is_useless:
                alarm.next_at, alarm.pause = now + alarm.pause, 2 * alarm.pause
                self.changed = True
                queue.suspect(alarm.codes, "positions moved in the rank: is a report out?")
                alarm.codes = (*alarm.codes[1:], alarm.codes[0])  # another one, if asked again
        is_read = timedelta() <= now - self._looked_at < 3 * self._pause()
        queue.watch.hears_rank = is_read and not self._belief.is_useless
        queue.watch.rely_on_rank(relied=self._belief.is_proved and is_read)
        queue.waits_for_order = self._is_based and self._belief.in_order and is_read

    def _released(self, now: datetime) -> Iterator[Told]:
        """Take note of a newer day: its sweep needs an order."""
        alarm, self._alarm, self._next_look = self._alarm, None, now
        self._holds, self._held_at = 1, now  # the sweep waits already
        if alarm is None:
            self._undecided, self._is_faulty = self._requests, False
            self._claims.clear()
        else:
            yield from self._belief.alarmed(told_first=True)
        if alarm is None or now - self._read_at >= AGAIN * self._due:
            self._reading, self._next_reading = None, now
        self._let_go(now)

    def rest(self) -> None:
        """Do without the rank from now on."""
        self._reading = self._next_reading = self._undecided = None
        self._is_looking, self._looked_at, self._alarm = False, LONG_AGO, None
        self._forget_claims()
        self.queue.watch.rely_on_rank(relied=False)
        self.queue.watch.hears_rank = self.queue.waits_for_order = False
        self._hold(LONG_AGO)

    def _forget_claims(self) -> None:
        self._claims.clear()
        self.queue.claim(dict.fromkeys(self.queue.codes))

    def due_at(self) -> datetime:
        """Return when there is something to read or to ask, if nothing else happens."""
        if self._has_page():
            return LONG_AGO
        moments = [] if self._is_looking else [self._next_look]
        if self._may_begin(LONG_AHEAD) and self._next_reading is not None:
            moments.append(self._next_reading)
        if self._alarm is not None:
            ends = self._alarm.since + PATIENCE * self._due
            moments.append(ends if self._belief.is_useless else self._alarm.next_at)
        return min(moments, default=LONG_AHEAD)

    def next(self, now: datetime) -> RankRequest | None:
        """Return the page to read now; `read` or `failed` must follow."""
        if self._may_begin(now):
            self._readings += 1
            self._reading = _Reading(self._readings, set(self.queue.codes))
            self._read_at, self._next_reading = now, now + REFRESH
        if (reading := self._reading) is not None and self._has_page():
            offset, reading.next_offset = reading.next_offset, reading.next_offset + RANK_PAGE
            if self._sweeps and self._belief.in_order and not reading.under_way:
                self._hold_for(now)
            reading.under_way.add(offset)
            request = RankRequest(self.market, offset, reading.number, self._number())
        elif now >= self._next_look and not self._is_looking:
            self._is_looking = True
            request = RankRequest(self.market, number=self._number())
        else:
            return None
        if request.offset == 0:
            self._next_look = now + self._pause()
        return request

    def _number(self) -> int:
        self._requests += 1
        return self._requests

    def _hold_for(self, now: datetime) -> None:
        """Let the sweep wait for pages, no longer than `HOLD` for those of one burst."""
        if now - self._held_at > AGAIN / 2 * self._due and self._holds < HOLDS:
            self._holds, self._held_at = self._holds + 1, now
        self._hold(max(self._held_at + HOLD, self.queue.held_until))

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
        if request.number >= self._applied.get(request.offset, 0):  # else a later one was quicker
            self._applied[request.offset] = request.number
            yield from self._take(request, page, now)
        reading = self._reading
        if reading is not None and request.reading == reading.number:
            reading.missing.difference_update(page.positions)
            reading.under_way.discard(request.offset)
            reading.empty = 0 if page.positions else reading.empty + 1
            self.changed = True
            if reading.empty >= MOST_EMPTY:
                self._reading, self._next_reading = None, now + REFRESH
            elif not reading.under_way and not self._has_page():
                yield from self._end(reading)
        self._let_go(now)

    def _take(self, request: RankRequest, page: RankPage, now: datetime) -> Iterator[Told]:
        """Take the positions of a page."""
        known, watched = self._latest, self.queue.codes
        moved = [
            code
            for code, shares in page.positions.items()
            if known.get(code, shares) != shares and (code in watched or code in self._first_page)
        ]
        self._latest.update(page.positions)
        self._total = page.total
        if request.offset == 0:
            self._looked_at, self._first_page = now, set(page.positions)
            if self._undecided is not None and request.number > self._undecided:
                self._undecided = None
                yield from self._belief.alarmed(told_first=bool(moved))
        if moved:
            yield from self._moved(moved, now)
        if self._sweeps or self._alarm is not None:
            yield from self._claim(page.positions)

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
        self._alarm = _Alarm(now, tuple(codes), now, _FIRST_PAUSE)
        self._claims.clear()
        self._is_faulty = False
        if not self._belief.is_useless:
            if self._is_based:
                self._next_reading = now
            text = f"positions moved in the rank ({len(codes)}): a report may be out"
            yield Told(self.market, About.ALARMS, text)

    def _claim(self, positions: Mapping[Code, int]) -> Iterator[Told]:
        """Tell the sweep how far symbols have moved since the report before."""
        moves = {
            code: move_of(self._before[code], shares)
            for code, shares in positions.items()
            if code in self._before
        }
        if not self._is_based or self._is_faulty:
            return
        self._claims |= moves
        self.changed = True
        if self._belief.in_order:
            self.queue.claim(moves)
        if len(self._claims) >= _MANY:
            yield from self._doubt_source()

    def _doubt_source(self) -> Iterator[Told]:
        """Let a sweep do without its order if more moved extremely than in any report."""
        claims = self._claims.values()
        extreme = sum(EXTREME <= move < NEW_POSITION for move in claims)
        if len(claims) < ENOUGH or extreme <= FAULTY * len(claims):
            return
        text = f"{extreme} of {len(claims)} positions moved extremely; its sweep is in no order"
        self._is_faulty = True
        self._forget_claims()
        yield Told(self.market, About.ORDER, text)

    def _end(self, reading: _Reading) -> Iterator[Told]:
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
            yield from self._claim(absent)
            yield from self._doubt_source()
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
        if claim is None:
            return
        was = self._belief.in_order
        yield from self._belief.compared(claim, move_of(before, after))
        if was and not self._belief.in_order:
            self.queue.claim(dict.fromkeys(self.queue.codes))
            self._hold(LONG_AGO)
