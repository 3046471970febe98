"""Reports the state of this process to the status store, at most a few seconds late."""

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
from poller.schedule.watch import LONG_AGO
from poller.telemetry.counts import Tally
from poller.telemetry.observe import (
    REDIS,
    Active,
    Announced,
    Attempted,
    Defect,
    Fact,
    GatewayConnection,
    MarketRight,
    Observe,
    Polled,
    Published,
    Quarantined,
    Recovered,
    Standby,
    Trouble,
    decision_needed,
    quarantine_of,
    redis_trouble,
)
from poller.telemetry.roles import Role
from poller.telemetry.status import (
    EVERY,
    POLLS_KEPT,
    SOON,
    TROUBLES_KEPT,
    GatewayState,
    Phase,
    Poll,
    Polls,
    ProcessReport,
    ReleaseState,
    RestingMarket,
)
from poller.telemetry.status_store import StatusStore

_NEW: Final = "connecting"
_STATUS: Final = "status report"
_POLLS: Final = "report of the last polls"
OTHER_WATCHLIST: Final = "watchlist on standby"
_SETTLED: Final = timedelta(seconds=10)  # by then the leader has saved a list that changed
_SHORTEST: Final = 0.2  # seconds between two reports, however much changes


@dataclass(frozen=True, slots=True)
class Process:
    """The reporting process. `name`: the owner of its lease."""

    name: str
    role: Role


class Reporter:
    """Collects the facts of a process, and reports its current state while `run` runs."""

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
        """`now`: the wall clock. `gateways`: the OpenDs to report.

        `markets`: returns the state of each release. `outlook`: returns when a code is polled next,
        and why. `budget`: an account's requests, and its period in seconds; None: does not poll.
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
        self._resting: dict[tuple[str, str], RestingMarket] = {}
        self._started = now()
        self._tally = Tally()
        self._codes: tuple[Code, ...] = ()
        self._saved: tuple[Code, ...] | None = None
        self._lease: int | None = None
        self._standing_by = False
        self._differs: datetime | None = None  # since when the leader watches other symbols
        self._changed = asyncio.Event()
        self._grown = asyncio.Event()

    @property
    def redis_trouble(self) -> str:
        """Why Redis does not serve this process, so that no report there says it; "": it does."""
        return self._troubles.get(REDIS, "")

    def __call__(self, fact: Fact) -> None:
        """Count a fact, and remember one that changes the state."""
        self._tally(fact)
        match fact:
            case Polled(code, _, answer):
                fresh = self._polled.setdefault(code, deque(maxlen=POLLS_KEPT))
                fresh.append(Poll(self._now(), answer))
                self._grown.set()  # soon, not at once: a sweep must not write more often
            case Published() | Announced() | Attempted():
                self._grown.set()
            case _ if self._changes(fact):
                self._note_change()

    def _changes(self, fact: Fact) -> bool:
        """Take note of a fact; returns whether it changes the state."""
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
                subject = quarantine_of(code)
                wanted = Trouble(subject, decision_needed(code, held)) if held else None
                return self._changes(wanted or Recovered(subject))
            case Active(token):
                self._lease, self._saved = token, None  # another leader may have saved its own
                self._standing_by = False
            case Standby():
                self._lease = None
                self._standing_by = True
                self._resting.clear()  # the new leader learns it as well
            case GatewayConnection(name, ready, reason, _):
                before = self._gateways[name]
                since = self._now() if ready != before.ready else before.since
                self._gateways[name] = GatewayState(name, before.account, ready, reason, since)
            case MarketRight(account, market):
                key = account, market.name
                resting = None if fact.granted else _resting(fact)
                self._resting.pop(key, None)
                self._resting |= {key: resting} if resting else {}
            case _:
                return False
        return True

    def watch(self, codes: Sequence[Code]) -> None:
        """Take note of the symbols watched from now on."""
        self._codes = tuple(codes)
        self._note_change()

    def _note_change(self) -> None:
        self._changed.set()
        self._grown.set()

    async def run(
        self,
        status_store: StatusStore,
        observe: Observe,
        *,
        behind: Callable[[], bool] = lambda: False,
    ) -> None:
        """Report for ever; the report is removed at the end.

        This also detects Redis's recovery while idle: a report is refused whenever a commit would
        be, except while the replicas are `behind`.
        """
        try:
            while True:
                self._changed.clear()
                self._grown.clear()
                try:
                    written = await self._write(status_store, observe)
                except StoreDown as problem:
                    observe(redis_trouble(problem))
                    self._grown.set()  # try again soon
                else:
                    if written and not behind():
                        observe(Recovered(REDIS))
                await asyncio.sleep(_SHORTEST)
                await self._due()
        finally:
            with contextlib.suppress(StoreError):  # its report expires within a minute anyway
                await status_store.retire(self._process.name)

    async def _write(self, status_store: StatusStore, observe: Observe) -> bool:
        """Write the report and the last polls, each on its own; returns whether both succeeded."""
        written = True
        for subject, report in ((_STATUS, self._report), (_POLLS, self._report_polls)):
            try:
                await report(status_store)
            except StoreMisfit as problem:
                observe(Trouble(subject, str(problem)))
                written = False
            else:
                observe(Recovered(subject))
        await self._compare(status_store, observe)
        return written

    async def _compare(self, status_store: StatusStore, observe: Observe) -> None:
        """On standby, report when the leader watches other symbols: ours are not polled."""
        theirs = await status_store.symbols() if self._standing_by and self._codes else None
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
        """Wait until the next report is due: at once after a change, soon after other facts."""
        await wait_set(self._grown, (EVERY - SOON).total_seconds())
        await wait_set(self._changed, SOON.total_seconds())

    async def _report(self, status_store: StatusStore) -> None:
        if self._lease is not None and self._codes != self._saved:
            await status_store.save_symbols(self._codes)
            self._saved = self._codes
        kept = list(self._troubles.items())[-TROUBLES_KEPT:]
        report = ProcessReport(
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
            resting=tuple(self._resting.values()),
        )
        await status_store.report(self._process.name, report)

    def _waiting(self) -> dict[str, int]:
        found = dict.fromkeys(map(str, all_markets()), 0)
        for code, count in self._held.items():
            found[market_of(code).name] += count
        return found

    async def _report_polls(self, status_store: StatusStore) -> None:
        """Put the polls since the last report in front of the stored ones."""
        polled, self._polled = self._polled, {}
        if not polled:
            return
        try:
            before = await status_store.polls(tuple(polled))
            merged = {}
            for code, fresh in polled.items():
                polls = (*reversed(fresh), *before.get(code, Polls()).polls)[:POLLS_KEPT]
                merged[code] = Polls(polls, *self._outlook(code))
            await status_store.save_polls(merged)
        except StoreError:
            for code, fresh in polled.items():  # keep them for the next report
                later = self._polled.get(code, ())
                self._polled[code] = deque((*fresh, *later), maxlen=POLLS_KEPT)
            raise


def _resting(fact: MarketRight) -> RestingMarket | None:
    if fact.since is None or fact.next_at is None:
        return None
    return RestingMarket(fact.account, fact.market.name, fact.reason, fact.since, fact.next_at)


def release_state(queue: MarketQueue) -> ReleaseState:
    """Return the state of a market's release by its schedule."""
    sweep = queue.sweep
    phase: Phase = "sweeping" if sweep.running else "paused" if sweep.resumes else "watching"
    probed = sweep.resumes or queue.watch.at
    next_at = None if sweep.running or probed <= LONG_AGO else probed
    covered = queue.active - queue.outstanding
    return ReleaseState(phase, queue.newest, queue.active, covered, next_at)
