"""The poll loop: dispatches what the schedule decides, and reports what becomes of each poll.

A thin driver: `schedule` decides what is polled and why, `budget` when a request may be sent, and
`publish` does what follows for the symbol.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from typing import Final

from poller.clock import News, wall_clock
from poller.errors import (
    Disconnected,
    GatewayError,
    HungUp,
    LeaseLost,
    Malformed,
    NoRight,
    Outdated,
    Overdue,
    Refused,
    Silent,
    StoreDown,
    StoreMisfit,
    Superseded,
    TooFrequent,
    Unavailable,
    Unwritable,
)
from poller.gateway.opend import Gateway, any_ready
from poller.markets import Market
from poller.model import Code, market_of
from poller.polling.budget import Budget
from poller.polling.entitlements import Entitlements
from poller.polling.failures import FailureTracker, Loss
from poller.polling.gate import Gate
from poller.polling.plan_store import PlanStore
from poller.polling.publish import PUBLISHING, Publisher
from poller.polling.request import PollJob
from poller.schedule.release import Intervals
from poller.schedule.schedule import (
    Answered,
    Barred,
    Excluded,
    Lost,
    Postponed,
    Probe,
    Reply,
    Schedule,
    Unanswered,
    Wait,
)
from poller.schedule.watch import HOLD
from poller.store.ports import PollerStore
from poller.store.store import Lease
from poller.supervisor import supervise
from poller.telemetry.log import fingerprint
from poller.telemetry.observe import (
    LONGEST_TURN,
    REDIS,
    Defect,
    Happened,
    Observe,
    Polled,
    PollOutcome,
    Recovered,
    Trouble,
    budget_of,
    dispatcher,
    forgotten,
    heartbeat,
    polling_of,
    redis_trouble,
)

GRACE: Final = 4.0
"""Seconds for what is in flight when the service is asked to stop."""

_IN_FLIGHT: Final = 32  # per gateway; as many as the SDK has threads
_COMMITS: Final = 1
"""Commits under way from which on no further symbol is asked for.

So a burst of answers is published one after the other, half of it by half-time. All of them side
by side would be told at the end; both take as long.
"""

_ALONE: Final = 5.0
"""Most seconds that a request that is sent alone waits for others, and others for it."""

_STORE_PAUSE: Final = 1.0
_MISFIT_PAUSE: Final = 10.0  # what only an operator can mend
_WORDS: Final[Mapping[type[Reply], PollOutcome]] = {
    Answered: "answered",
    Unanswered: "failed",
    Excluded: "refused",
    Barred: "refused",
    Postponed: "postponed",
    Lost: "failed",
}


class Poller:
    """Polls what the schedule plans, through all gateways, while it holds the lease."""

    turn = LONGEST_TURN
    """Seconds within which a dispatcher comes round with nothing due; a watchdog waits for it."""

    def __init__(
        self,
        store: PollerStore,
        gateways: Sequence[Gateway],
        budgets: Mapping[str, Budget],
        schedule: Schedule,
        *,
        history: int,
        observe: Observe,
        now: Callable[[], datetime] = wall_clock,
    ) -> None:
        """`budgets`: by account. `history`: rows published at first sight of a symbol."""
        self._gateways = gateways
        self._budgets = budgets
        self._schedule = schedule
        self._observe = observe
        self._failures = FailureTracker(observe)
        self._now = now
        self._without: dict[str, frozenset[Market]] = {}  # by account, as OpenD says
        self._entitlements = self._entitled()
        self._wake = News()
        self._in_flight: dict[asyncio.Task[None], Gateway | None] = {}  # None: it waits
        self._gate = Gate(lambda market: schedule.markets[market].outstanding)
        self._publisher = Publisher(
            store.records,
            self._gate,
            observe,
            now,
            history=history,
            changed=self._notify,
            waits=self._let_others_answer,
        )
        self._failed: asyncio.Future[None] | None = None
        self._plan_store = PlanStore(store.records, store.plans, schedule, observe, now)

    def configure(self, intervals: Intervals, *, history: int) -> None:
        """Poll at these intervals from now on; what is in flight goes on."""
        self._schedule.configure(intervals, self._now())
        self._publisher.configure(history)
        self._notify()

    def rights_told(self, account: str, without: frozenset[Market] | None) -> None:
        """Take the hint which markets an account has no right to; None: they have changed."""
        if without is None:
            self._entitlements.hurry(account)
        else:
            self._without[account] = without
            self._entitlements.hint(account, without)
        self._notify()

    def replan(self) -> None:
        """Look again at what is due: a hint has changed the plan."""
        self._notify()

    def rests(self, account: str, market: Market) -> bool:
        """Return whether an account is not asked for a market, for want of a right."""
        return self._entitlements.rests(account, market)

    def withholds(self, account: str, code: Code) -> bool:
        """Return whether an account has no right to a symbol's market, as far as is known."""
        return self._entitlements.rests(account, market_of(code))

    def watch(self, codes: Sequence[Code]) -> None:
        """Watch exactly these codes from now on."""
        new, gone = self._schedule.watch(codes)
        self._entitlements.forget(gone)
        for code in gone:
            self._forget(code)
        if new or gone:
            counts = (("added", len(new)), ("removed", len(gone)), ("symbols", len(codes)))
            self._observe(Happened("watchlist", counts))
        self._notify()

    async def run(self, lease: Lease) -> None:
        """Poll for ever; raises LeaseLost (in a group) when another poller took over."""
        await self._plan_store.restore()
        self._publisher.start_over()
        self._failures = FailureTracker(self._observe)  # those of the last leader have ended
        self._entitlements = self._entitled()  # rights may have come back meanwhile
        self._failed = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._plan_store.keep(lease), name="keep the plan")
                for account in self._budgets:
                    name = dispatcher(account)
                    drive = partial(self._drive, account, lease)
                    supervised = supervise(
                        name, drive, self._observe, label="dispatcher", fatal=(LeaseLost,)
                    )
                    group.create_task(supervised, name=name)
                group.create_task(_result(self._failed), name="failure of a poll")
        finally:
            await self._drain()
            await self._plan_store.close(lease)

    def _entitled(self) -> Entitlements:
        plans = self._schedule.markets
        fresh = Entitlements(self._observe, self._now, lambda market: plans[market].symbols > 0)
        for account, without in self._without.items():
            fresh.hint(account, without)
        return fresh

    def _forget(self, code: Code) -> None:
        self._publisher.forget(code)
        self._failures.unbroken(code)
        for fact in forgotten(code, "no longer watched"):
            self._observe(fact)

    def _record(self, code: Code, outcome: Reply) -> None:
        self._plan_store.note(self._schedule.record(code, outcome, self._now()))
        self._gate.changed()

    async def _drive(self, account: str, lease: Lease) -> None:
        with heartbeat(self._observe, dispatcher(account)) as beat:
            while True:
                beat()
                await self._dispatch(account, lease, beat)

    async def _dispatch(self, account: str, lease: Lease, beat: Callable[[], None]) -> None:
        """Wait until a symbol is due and may be asked for, and start its poll.

        Who is asked is decided with the grant in hand, because waiting for it may take seconds.
        """
        budget = self._budgets[account]
        gateways = [gateway for gateway in self._gateways if gateway.account == account]
        await self._until_due(account, beat)
        gateway = await self._free(gateways, beat)
        try:
            # one-off commands of this account find a share left, but not during a release
            presses = self._schedule.is_urgent(self._now(), self._entitlements.access(account))
            grant = await budget.acquire(leave_reserve=not presses)
        except StoreDown as problem:
            self._observe(redis_trouble(problem))
            await asyncio.sleep(_STORE_PAUSE)
            return
        except StoreMisfit as problem:
            self._observe(Trouble(f"ledger of account {account}", str(problem)))
            await asyncio.sleep(_MISFIT_PAUSE)
            return
        self._observe(Recovered(REDIS))
        self._observe(Recovered(f"ledger of account {account}"))
        decision = await self._decide(account)
        if isinstance(decision, Probe) and decision.alone:
            await self._until_quiet(gateway)
        if isinstance(decision, Probe) and gateway.ready:
            rights = self._entitlements
            rights.asked(account, decision.code)
            self._failures.asked(gateway.name, decision.code)
            self._start(PollJob(decision.code, gateway, budget, grant, lease, self._now(), rights))
            if decision.alone:
                await self._until_quiet(gateway)
            return
        if isinstance(decision, Probe):
            self._record(decision.code, Postponed())
        await budget.settle(grant, answered=True)

    async def _decide(self, account: str) -> Probe | Wait:
        """Decide who is asked; the grant outlives a short wait for a sweep's order."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + HOLD.total_seconds()
        while True:
            seen, now = self._wake.count, self._now()
            decision = self._schedule.next(now, self._entitlements.access(account))
            if isinstance(decision, Probe) or decision.until is None:
                return decision
            wait = (decision.until - now).total_seconds()
            if loop.time() + wait > ends:
                return decision
            await self._wake.wait(seen, wait)

    async def _until_due(self, account: str, beat: Callable[[], None]) -> None:
        while True:
            seen, now = self._wake.count, self._now()
            due_at = self._schedule.due_at(self._entitlements.access(account))
            if due_at is not None and due_at <= now:
                return
            wait = self.turn if due_at is None else (due_at - now).total_seconds()
            await self._wake.wait(seen, min(wait, self.turn))
            beat()
            self._schedule.tick(self._now())

    async def _free(self, gateways: Sequence[Gateway], beat: Callable[[], None]) -> Gateway:
        """Return the least busy gateway that can take a request, once there is one."""
        while True:
            seen = self._wake.count
            ready = [gateway for gateway in gateways if gateway.ready]
            busy = list(self._in_flight.values())
            if ready:
                gateway = min(ready, key=busy.count)
                if busy.count(gateway) < _IN_FLIGHT and self._publisher.committing < _COMMITS:
                    return gateway
                # no turn: a poll that never ends is stuck
                await self._wake.wait(seen, LONGEST_TURN)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_TURN):
                    await any_ready(gateways)
            beat()

    async def _until_quiet(self, gateway: Gateway) -> None:
        """Wait until a gateway has no poll under way, `_ALONE` seconds at most."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + _ALONE
        while gateway in self._in_flight.values() and (left := ends - loop.time()) > 0:
            await self._wake.wait(self._wake.count, left)

    def _notify(self) -> None:
        self._wake.tell()

    def _start(self, job: PollJob) -> None:
        task = asyncio.create_task(self._poll(job), name=f"poll {job.code}")
        self._in_flight[task] = job.gateway
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._in_flight[task]
        self._notify()
        if task.cancelled() or (problem := task.exception()) is None:
            return
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(problem)

    async def _drain(self) -> None:
        """Let what is in flight finish; what does not is given back: nothing was committed."""
        if self._failed is not None:
            self._failed.cancel()
        for task, gateway in self._in_flight.items():
            if gateway is None:
                task.cancel()
        if self._in_flight:
            _, late = await asyncio.wait(list(self._in_flight), timeout=GRACE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _poll(self, job: PollJob) -> None:
        outcome: Reply = Postponed()
        try:
            outcome = await self._look(job)
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001  this symbol's poll is a component of its own
            defect = Defect(polling_of(job.code), "poll", error, fingerprint(error))
            self._observe(defect)
            outcome = Unanswered(defect.reason)
        finally:
            job.entitlements.ended(job.budget.account, job.code)
            self._record(job.code, outcome)
            self._observe(Polled(job.code, _WORDS[type(outcome)], _answer(outcome)))
            if not self._schedule.watches(job.code):  # taken off the watchlist meanwhile
                self._forget(job.code)

    async def _look(self, job: PollJob) -> Reply:  # noqa: PLR0911  a return per reaction
        """Poll one symbol whole, and say what came of it, by what to do next."""
        account = budget_of(job.budget.account)
        try:
            watermark = await self._publisher.publish(job)
        except TooFrequent:
            who = (
                "requests that got no answer have arrived late"
                if job.budget.may_be_late()
                else "another program spends requests of this account"
            )
            text = f"too many requests, says OpenD: {who}; waiting a full period"
            self._observe(Trouble(account, text))
            await job.budget.exhaust()
            return Postponed()
        except Refused as problem:
            self._failures.unbroken(job.code)
            cure = f"when it is gone for good: poller watch remove {job.code}"
            self._observe(Trouble(job.code, f"{problem}; kept out, tried again later; {cure}"))
            return Excluded(str(problem))
        except Disconnected as problem:
            return self._disconnected(job, problem)
        except StoreDown as problem:
            self._observe(redis_trouble(problem))
            return Unanswered(f"redis: {problem}")
        except Superseded as problem:  # twice in a row
            reason = f"somebody else writes this symbol ({problem}); it is asked again later"
            self._observe(Trouble(job.code, reason))
            return Unanswered(reason)
        except (NoRight, Overdue, Outdated, Unavailable, Malformed) as problem:
            return self._unanswered(job, problem)
        except StoreMisfit as problem:
            subject = PUBLISHING if isinstance(problem, Unwritable) else job.code
            self._observe(Trouble(subject, str(problem)))
            return Unanswered(str(problem))
        else:
            self._answered(job)
            return Answered(watermark)

    def _let_others_answer(self, code: Code, day: date) -> None:
        """Free the gateway of a poll that waits; the day tells the schedule of a new report."""
        if (task := asyncio.current_task()) in self._in_flight:
            self._in_flight[task] = None
        self._schedule.sighted(code, day, self._now())
        self._notify()

    def _answered(self, job: PollJob) -> None:
        """Let end what a usable answer ends."""
        account, code = job.budget.account, job.code
        if job.budget.is_uncontended():  # who spends now and then is one trouble
            self._observe(Recovered(budget_of(account)))
        self._failures.answered(job.gateway.name, code)
        if self._entitlements.answered(account, code):
            self._schedule.relieve(market_of(code))
        self._observe(Recovered(polling_of(code)))

    def _disconnected(self, job: PollJob, problem: Disconnected) -> Reply:
        """Say whose trouble it is; the gateway's is told by its supervisor."""
        by_us = problem.replaced is not None  # for want of answers
        if by_us or not isinstance(problem, HungUp):
            return Postponed()
        account = job.budget.account
        beside = [gateway.name for gateway in self._gateways if gateway.account == account]
        loss = self._failures.lost(job.code, beside)
        # of a market that rests: its next trial is later, as after any other answer of no use
        is_trial = self._entitlements.rests(account, market_of(job.code))
        if loss is not Loss.OWN and not is_trial:
            again = Lost("the connection broke again", own=loss is Loss.LIKELY)
            return Postponed() if loss is Loss.NOTHING else again
        if (barred := self._barred(job, problem)) is not None:
            return barred
        cure = f"see OpenD's log; when it is gone for good: poller watch remove {job.code}"
        text = "OpenD hangs up when asked for it, and answers others; asked ever more rarely"
        self._observe(Trouble(job.code, f"{text}; {cure}"))
        return Lost(str(problem), own=True)

    def _unanswered(self, job: PollJob, problem: GatewayError) -> Reply:
        """Say whose trouble it is that OpenD had no usable answer."""
        # silence is the link's
        judged = not isinstance(problem, Malformed | Silent)
        if (barred := self._barred(job, problem, judged=judged)) is not None:
            return barred
        self._failures.failed(job.gateway.name, job.code, problem)
        return Unanswered(str(problem))

    def _barred(self, job: PollJob, problem: GatewayError, *, judged: bool = True) -> Barred | None:
        """Return what is done if it is a trouble of the whole market; `judged`: it may tell so."""
        account, code = job.budget.account, job.code
        if judged:
            withheld = self._entitlements.refused(account, code, problem, job.began)
            if withheld is not None:  # those that failed till now have failed for this
                self._failures.withdraw(withheld.codes)
                self._schedule.relieve(withheld.market)
        if self._entitlements.rests(account, market_of(code)):
            return Barred(f"account {account} has no right to {market_of(code)}: {problem}")
        return None


def _answer(outcome: Reply) -> str:
    match outcome:
        case Answered(None):
            return "no rows"
        case Answered(watermark):
            return f"newest day {watermark}"
        case Unanswered(reason) | Excluded(reason) | Barred(reason) | Lost(reason):
            return reason or "no usable answer"
        case Postponed():
            return "postponed"


async def _result(future: "asyncio.Future[None]") -> None:
    await future
