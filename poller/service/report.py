"""What this process tells of itself to pages elsewhere, a few seconds old at the most."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from poller import __version__
from poller.clock import wait_set
from poller.errors import StoreDown, StoreError, StoreMisfit
from poller.gateway.opend import Address
from poller.markets import all_markets
from poller.model import Code, market_of
from poller.schedule.market import MarketQueue
from poller.telemetry.counts import Tally
from poller.telemetry.observe import (
    Active,
    Announced,
    Attempted,
    Connection,
    Defect,
    Fact,
    Observe,
    Polled,
    Published,
    Quarantined,
    Recovered,
    Standby,
    Trouble,
    decision_needed,
)
from poller.telemetry.status import (
    EVERY,
    POLLS_KEPT,
    SOON,
    TROUBLES_KEPT,
    GatewayState,
    Phase,
    Poll,
    Polls,
    ReleaseState,
    Report,
    Role,
)
from poller.telemetry.status_store import StatusStore

_NEW: Final = "connecting"
_STATUS: Final = "status report"
_POLLS: Final = "report of the last polls"
OTHER_WATCHLIST: Final = "watchlist on standby"
_SETTLED: Final = timedelta(seconds=10)  # the other has told a list that changes by then
_SHORTEST: Final = 0.2  # seconds between two reports, however much changes


@dataclass(frozen=True, slots=True)
class Process:
    """Who reports. `name`: what its lease is held under."""

    name: str
    role: Role


class Reporter:
    """Reads the facts of a process and reports what is true now; `run` until cancelled."""

    def __init__(
        self,
        process: Process,
        gateways: Sequence[Address] = (),
        *,
        now: Callable[[], datetime],
        markets: Callable[[], Mapping[str, ReleaseState]] = dict,
        outlook: Callable[[Code], tuple[datetime | None, str]] = lambda _: (None, ""),
        budget: tuple[int, float] | None = None,
    ) -> None:
        """`markets`: where each release stands, `outlook`: when a code is next, by the schedule.

        `budget`: requests and seconds of an account, of who polls.
        """
        self._process = process
        self._now = now
        self._markets = markets
        self._outlook = outlook
        self._budget = budget
        self._polled: dict[Code, deque[Poll]] = {}  # the last ones not yet reported
        self._gateways = {
            str(each): GatewayState(str(each), each.account, ready=False, reason=_NEW, since=now())
            for each in gateways
        }
        self._troubles: dict[str, str] = {}
        self._defects: dict[str, str] = {}
        self._held: dict[Code, int] = {}
        self._started = now()
        self._tally = Tally()
        self._codes: tuple[Code, ...] = ()
        self._told: tuple[Code, ...] | None = None
        self._lease: int | None = None
        self._standing_by = False
        self._differs: datetime | None = None  # since when the active poller watches others
        self._changed = asyncio.Event()
        self._grown = asyncio.Event()

    def __call__(self, fact: Fact) -> None:
        """Count a fact, and remember one that changes what is true now."""
        self._tally(fact)
        match fact:
            case Polled(code, _, answer):
                fresh = self._polled.setdefault(code, deque(maxlen=POLLS_KEPT))
                fresh.append(Poll(self._now(), answer))
                self._grown.set()  # a sweep is no reason to write more often
            case Published() | Announced() | Attempted():
                self._grown.set()
            case _ if self._changes(fact):
                self._note_change()

    def _changes(self, fact: Fact) -> bool:
        """Take note of what is true now; returns whether it was not before."""
        match fact:
            case Trouble(subject, reason):
                if self._troubles.get(subject) == reason:
                    return False
                self._troubles[subject] = reason
            case Recovered(subject):
                self._defects.pop(subject, None)
                return self._troubles.pop(subject, None) is not None
            case Defect(component):
                self._troubles[component] = self._defects[component] = fact.reason
            case Quarantined(code, held):
                self._held[code] = len(held)
                subject = f"{code} quarantine"
                wanted = Trouble(subject, decision_needed(code, held)) if held else None
                return self._changes(wanted or Recovered(subject))
            case Active(token):
                self._lease, self._told = token, None  # another one has told its own meanwhile
                self._standing_by = False
            case Standby():
                self._lease = None
                self._standing_by = True
            case Connection(name, ready, reason, _):
                before = self._gateways[name]
                since = self._now() if ready != before.ready else before.since
                self._gateways[name] = GatewayState(name, before.account, ready, reason, since)
            case _:
                return False
        return True

    def watch(self, codes: Sequence[Code]) -> None:
        """Take note of what is watched from now on."""
        self._codes = tuple(codes)
        self._note_change()

    def _note_change(self) -> None:
        self._changed.set()
        self._grown.set()

    async def run(
        self, board: StatusStore, observe: Observe, *, behind: Callable[[], bool] = lambda: False
    ) -> None:
        """Report again and again; the report is removed at the end.

        Who is idle learns here that Redis is back: a report is a write, refused whenever a poll's
        would be, except while the replicas are `behind`.
        """
        try:
            while True:
                self._changed.clear()
                self._grown.clear()
                try:
                    written = await self._tell(board, observe)
                except StoreDown as problem:
                    observe(Trouble("redis", str(problem)))
                    self._grown.set()  # tried again soon
                else:
                    if written and not behind():
                        observe(Recovered("redis"))
                await asyncio.sleep(_SHORTEST)
                await self._due()
        finally:
            with contextlib.suppress(StoreError):  # it counts as dead within a minute
                await board.retire(self._process.name)

    async def _tell(self, board: StatusStore, observe: Observe) -> bool:
        """Report what is true now and the last polls, each on its own; False: one was refused."""
        written = True
        for subject, report in ((_STATUS, self._report), (_POLLS, self._report_polls)):
            try:
                await report(board)
            except StoreMisfit as problem:
                observe(Trouble(subject, str(problem)))
                written = False
            else:
                observe(Recovered(subject))
        await self._compare(board, observe)
        return written

    async def _compare(self, board: StatusStore, observe: Observe) -> None:
        """On standby, tell when the active poller watches other symbols: ours nobody polls."""
        theirs = await board.symbols() if self._standing_by and self._codes else None
        if theirs is None or set(theirs) == set(self._codes):
            self._differs = None
            observe(Recovered(OTHER_WATCHLIST))
            return
        self._differs = self._differs or self._now()
        if self._now() - self._differs >= _SETTLED:
            alone = len(set(self._codes) - set(theirs))
            reason = (
                f"the active poller watches {len(theirs)} symbols, this one on standby "
                f"{len(self._codes)}, of which nobody polls {alone}: give both one watchlist, or "
                "each a redis.namespace of its own"
            )
            observe(Trouble(OTHER_WATCHLIST, reason))

    async def _due(self) -> None:
        """Wait for the next report: at once after a change, soon after anything else."""
        await wait_set(self._grown, (EVERY - SOON).total_seconds())
        await wait_set(self._changed, SOON.total_seconds())

    async def _report(self, board: StatusStore) -> None:
        if self._lease is not None and self._codes != self._told:
            await board.tell_symbols(self._codes)
            self._told = self._codes
        kept = list(self._troubles.items())[-TROUBLES_KEPT:]
        report = Report(
            at=self._now(),
            role=self._process.role,
            version=__version__,
            lease=self._lease,
            gateways=tuple(self._gateways.values()),
            symbols=len(self._codes),
            markets=self._markets(),
            troubles=dict(kept),
            held=self._waiting(),
            started=self._started,
            counts=tuple(self._tally.counts.items()),
            budget=self._budget,
            defects=dict(list(self._defects.items())[-TROUBLES_KEPT:]),
        )
        await board.report(self._process.name, report)

    def _waiting(self) -> dict[str, int]:
        found = dict.fromkeys(map(str, all_markets()), 0)
        for code, count in self._held.items():
            found[market_of(code).name] += count
        return found

    async def _report_polls(self, board: StatusStore) -> None:
        """Put the polls since the last report before those told earlier."""
        polled, self._polled = self._polled, {}
        if not polled:
            return
        try:
            before = await board.polls(tuple(polled))
            told = {}
            for code, fresh in polled.items():
                earlier = before.get(code, Polls()).polls
                told[code] = Polls((*reversed(fresh), *earlier)[:POLLS_KEPT], *self._outlook(code))
            await board.tell_polls(told)
        except StoreError:
            for code, fresh in polled.items():  # they are told with the next report
                later = self._polled.get(code, ())
                self._polled[code] = deque((*fresh, *later), maxlen=POLLS_KEPT)
            raise


def release_state(queue: MarketQueue) -> ReleaseState:
    """Return where a market's release stands by the schedule."""
    sweep = queue.sweep
    phase: Phase = "sweeping" if sweep.running else "paused" if sweep.resumes else "watching"
    return ReleaseState(phase, queue.newest, queue.active, queue.active - queue.outstanding)
