"""The poll loop on fakes, in virtual time: what is spent, what is believed, and what ends it."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from poller.detect.compare import Comparison
from poller.errors import LeaseLost, Refused, StoreDown, StoreMisfit, Superseded, TooFrequent
from poller.markets.hk import HONG_KONG, HkRecord
from poller.model import Code, Page
from poller.polling.backfill import backfill_symbol
from poller.polling.budget import Budget
from poller.polling.plan_store import PlanStore
from poller.polling.poll import GRACE, Poller
from poller.schedule.notice import Detected, Notice
from poller.schedule.release import Intervals, MarketState
from poller.schedule.schedule import Answered, Probe, Schedule
from poller.simulator.virtual import VirtualLoop, run_virtually
from poller.store.memory import MemoryPlans
from poller.store.store import ONE_OFF, Lease, Snapshot, Unparsed
from poller.telemetry.observe import (
    LONGEST_TURN,
    Announced,
    Fact,
    Happened,
    HeartbeatBeat,
    Polled,
    Published,
    Recovered,
    Trouble,
    dispatcher,
)
from tests.memorystore import MemoryLedger, MemoryRecords, MemoryStore
from tests.test_vitals import NoPace

CODE = Code("HK.00700")
BEGAN = datetime(2026, 11, 16, tzinfo=UTC)
PERIOD = 30.0
INTERVALS = Intervals(timedelta(seconds=30), timedelta(minutes=20), timedelta(minutes=5))


def row(day: str, shares: int = 1000) -> HkRecord:
    """Return the row of a day."""
    return HkRecord(None, day, shares, 0.5, None, None)


class Answering:
    """A gateway that gives these pages, by the key they are asked with, and is `ready` or not."""

    name, account = "answering", "main"

    def __init__(self, pages: dict[str | None, Page]) -> None:
        self.pages = pages
        self.ready = True
        self.asked: list[tuple[Code, str | None]] = []

    async def wait_ready(self) -> None:
        """Return when ready; never, when away."""
        await asyncio.sleep(0 if self.ready else 1e9)

    async def page(self, code: Code, key: str | None) -> Page:
        """Return a page after a second."""
        self.asked.append((code, key))
        await asyncio.sleep(1)
        return self.pages[key]

    async def group(self, name: str) -> list[str]:
        """Return no code."""
        del name
        return []


NEWEST = Page((row("2026-11-06"),), None)


@dataclass
class Scene:
    """A poller of one symbol on a store and a gateway, on the loop's clock."""

    store: MemoryStore
    gateway: Answering = field(default_factory=lambda: Answering({None: NEWEST}))
    facts: list[Fact] = field(default_factory=list)

    def observe(self, fact: Fact) -> None:
        """Remember a fact."""
        self.facts.append(fact)

    def poller(self, observe: Callable[[Fact], None] | None = None, history: int = 5) -> Poller:
        """Return it."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        budget = Budget(
            self.store.ledger, "main", "test", requests=30, period=PERIOD, pace=NoPace()
        )
        poller = Poller(
            self.store,
            [self.gateway],
            {"main": budget},
            Schedule(INTERVALS),
            history=history,
            observe=observe or self.observe,
            now=loop.now,
        )
        poller.watch([CODE])
        return poller

    async def polls(self, seconds: float) -> None:
        """Poll for so long."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.poller().run(ONE_OFF)

    def outcomes(self) -> list[str]:
        """Return how the polls ended, in order."""
        return [fact.outcome for fact in self.facts if isinstance(fact, Polled)]

    def answers(self) -> list[str]:
        """Return what the polls brought, in words."""
        return [fact.answer for fact in self.facts if isinstance(fact, Polled)]


def virtually(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a test in virtual time."""
    run_virtually(BEGAN, work())


def store_of(
    records: type[MemoryRecords], ledger: type[MemoryLedger] = MemoryLedger
) -> MemoryStore:
    """Return a store on the loop's clock, of these parts."""
    clock = asyncio.get_running_loop().time
    store = MemoryStore(clock)
    store.ledger = ledger(clock)
    store.records = records(store.streams, store.leases.refuse)
    return store


class Counting(MemoryRecords):
    """Records that count how often what is known was parsed, to be compared."""

    parsed = 0

    async def unparsed(self, code: Code) -> Unparsed:
        """Return what is known, and count."""
        found = await super().unparsed(code)

        def parse() -> Snapshot:
            self.parsed += 1
            return found.parse()

        return Unparsed(found.digest, parse)


async def polled_again(scene: Scene, change: Callable[[], None]) -> tuple[int, int]:
    """Poll until an answer has brought nothing twice, change something, and poll on.

    Returns how often what is known was parsed before the change and after it.
    """
    records = scene.store.records
    assert isinstance(records, Counting)
    polling = asyncio.create_task(scene.poller().run(ONE_OFF))
    await asyncio.sleep(5 * 3600)
    before = records.parsed
    change()
    await asyncio.sleep(5 * 3600)
    polling.cancel()
    await asyncio.wait([polling])
    return before, records.parsed - before


def test_an_answer_that_brought_nothing_is_not_compared_again() -> None:
    """Once for what is new and once for nothing; from then on only asked for and recognised."""

    async def again() -> None:
        scene = Scene(store_of(Counting))
        before, later = await polled_again(scene, lambda: None)
        assert (before, later) == (2, 0)
        assert len(scene.gateway.asked) > 6
        assert {*scene.outcomes()} == {"answered"}

    virtually(again)


@pytest.mark.parametrize(
    "page",
    [
        Page((row("2026-11-06", 1001),), None),
        Page((row("2026-11-13"), row("2026-11-06")), None),
        Page((row("2026-11-06"),), None, ("a row was dropped",)),
    ],
    ids=["figure", "day", "oddity"],
)
def test_another_answer_is_compared(page: Page) -> None:
    """Whatever differs in it, and what it brings is published."""

    async def changed() -> None:
        scene = Scene(store_of(Counting))
        _, later = await polled_again(scene, lambda: scene.gateway.pages.update({None: page}))
        assert later >= 1
        published = [fact for fact in scene.facts if isinstance(fact, Published)]
        assert len(published) == (1 if page.oddities else 2)

    virtually(changed)


def test_the_same_answer_is_compared_when_somebody_changed_what_is_known() -> None:
    """A watermark that was removed by hand is found again."""

    async def removed() -> None:
        scene = Scene(store_of(Counting))
        records = scene.store.records

        def remove() -> None:
            records.watermark_texts.clear()
            records.touched(CODE)

        await polled_again(scene, remove)
        assert records.watermark_texts == {CODE: "2026-11-06"}

    virtually(removed)


class Deposed(MemoryRecords):
    """Records whose lease is another's by the time of the first commit."""

    async def commit(
        self, code: Code, comparison: Comparison, snapshot: Snapshot, lease: Lease
    ) -> None:
        """Refuse."""
        del code, comparison, snapshot
        raise LeaseLost(lease.value)


def test_a_lease_lost_at_a_commit_ends_polling_at_once() -> None:
    """Whoever runs the poller learns of it with that commit; nothing else is begun."""

    async def work() -> None:
        scene = Scene(store_of(Deposed))
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.timeout(GRACE + 2):
                await scene.poller().run(ONE_OFF)
        assert caught.group_contains(LeaseLost)
        assert len(scene.gateway.asked) <= 2

    virtually(work)


def test_a_defect_behind_a_poll_ends_polling() -> None:
    """One that no poll can be blamed for, as of whoever learns of its end, is not swallowed."""

    async def work() -> None:
        scene = Scene(MemoryStore(asyncio.get_running_loop().time))

        def broken(fact: Fact) -> None:
            if isinstance(fact, Polled):
                raise ZeroDivisionError

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.timeout(GRACE + 2):
                await scene.poller(broken).run(ONE_OFF)
        assert caught.group_contains(ZeroDivisionError)

    virtually(work)


class Contested(MemoryRecords):
    """Records where somebody else writes a symbol between each look and its commit."""

    contested = True

    async def commit(
        self, code: Code, comparison: Comparison, snapshot: Snapshot, lease: Lease
    ) -> None:
        """Refuse, for as long as it is contested."""
        if self.contested:
            raise Superseded(f"{code}: watermark is not what was read")
        await super().commit(code, comparison, snapshot, lease)


def test_a_symbol_that_somebody_else_writes_is_told() -> None:
    """What is never published is trouble of that symbol, with a reason, until it is."""

    async def work() -> None:
        store = MemoryStore(asyncio.get_running_loop().time)
        store.records = records = Contested(store.streams, store.leases.refuse)
        scene = Scene(store)
        await scene.polls(10)
        (trouble,) = [fact for fact in scene.facts if isinstance(fact, Trouble)]
        assert trouble.subject == CODE
        assert "somebody else writes this symbol" in trouble.reason
        records.contested = False
        await scene.polls(60)
        assert Recovered(CODE) in scene.facts
        assert len(store.streams.entries) == 1

    virtually(work)


def test_a_backfill_of_a_symbol_that_somebody_else_writes_ends() -> None:
    """It says so after a few tries, each of which costs a request."""

    async def work() -> None:
        scene = Scene(store_of(Contested))
        budget = Budget(
            scene.store.ledger, "main", "test", requests=30, period=PERIOD, pace=NoPace()
        )
        with pytest.raises(Superseded, match=f"{CODE} changed during every attempt"):
            async with asyncio.timeout(60):
                await backfill_symbol(scene.store.records, scene.gateway, budget, CODE, date.min)
        assert len(scene.gateway.asked) == 5

    virtually(work)


def test_a_backfill_under_a_watermark_in_the_future_names_its_cure() -> None:
    """It is refused with the command that mends it, before a request is spent."""

    async def work() -> None:
        scene = Scene(MemoryStore(asyncio.get_running_loop().time))
        scene.store.records.watermark_texts[CODE] = "2099-01-01"
        budget = Budget(
            scene.store.ledger, "main", "test", requests=30, period=PERIOD, pace=NoPace()
        )
        with pytest.raises(StoreMisfit, match=rf"HDEL \S+ {CODE}$"):
            await backfill_symbol(scene.store.records, scene.gateway, budget, CODE, date.min)
        assert not scene.gateway.asked

    virtually(work)


class Distant(MemoryLedger):
    """A ledger that takes its time over a grant."""

    async def grant(
        self,
        account: str,
        request: str,
        *,
        limit: int,
        period: float,
        margin: float,
        logins: Sequence[str] = (),
    ) -> float:
        """Grant it after a while."""
        await asyncio.sleep(0.01)
        return await super().grant(
            account, request, limit=limit, period=period, margin=margin, logins=logins
        )


class Lengthy(MemoryRecords):
    """Records that take much more of it over a commit."""

    async def commit(
        self, code: Code, comparison: Comparison, snapshot: Snapshot, lease: Lease
    ) -> None:
        """Commit after a while."""
        await asyncio.sleep(10)
        await super().commit(code, comparison, snapshot, lease)


class Prompt(Answering):
    """A gateway that answers at once."""

    async def page(self, code: Code, key: str | None) -> Page:
        """Return a page."""
        self.asked.append((code, key))
        await asyncio.sleep(0)
        return self.pages[key]


def test_nobody_else_is_asked_while_an_answer_is_committed() -> None:
    """So a burst is published one after the other, and not all of it at its end."""

    async def work() -> None:
        scene = Scene(store_of(Lengthy, Distant), Prompt({None: NEWEST}))
        poller = scene.poller()
        poller.watch([Code(f"HK.0000{n}") for n in range(1, 7)])
        polling = asyncio.create_task(poller.run(ONE_OFF))
        await asyncio.sleep(9)
        # the second one's request was being granted when the first commit began
        assert len(scene.gateway.asked) <= 2
        await asyncio.sleep(60)
        assert len(scene.store.streams.entries) == 6
        polling.cancel()
        await asyncio.wait([polling])

    virtually(work)


class Slow(MemoryLedger):
    """A ledger whose grants take so long that the gateway is lost meanwhile."""

    gateway: Answering

    async def grant(
        self,
        account: str,
        request: str,
        *,
        limit: int,
        period: float,
        margin: float,
        logins: Sequence[str] = (),
    ) -> float:
        """Grant the request, and lose the gateway."""
        self.gateway.ready = False
        return await super().grant(
            account, request, limit=limit, period=period, margin=margin, logins=logins
        )


def test_a_grant_that_is_not_used_counts_from_now_on_and_no_longer() -> None:
    """With nobody left to ask nothing is on its way, which would count for half a period more."""

    async def work() -> None:
        loop = asyncio.get_running_loop()
        ledger = Slow(loop.time)
        scene = Scene(MemoryStore(loop.time))
        scene.store.ledger = ledger
        ledger.gateway = scene.gateway
        await scene.polls(0.5)
        assert scene.gateway.asked == []
        (counted,) = ledger.budgets["main"].values()
        assert counted <= loop.time()

    virtually(work)


def rows(days: Sequence[str], key: str | None = None) -> Page:
    """Return a page of these days."""
    return Page(tuple(row(day) for day in days), key)


def test_a_history_cut_short_is_believed_the_third_time() -> None:
    """One that ends above the watermark may be a fault: asked again, then published and told."""

    async def work() -> None:
        scene = Scene(MemoryStore(asyncio.get_running_loop().time))
        await scene.polls(10)
        assert set(scene.outcomes()) == {"answered"}
        scene.gateway.pages = {None: rows(["2026-11-13"])}
        scene.facts.clear()
        await scene.polls(600)
        assert scene.outcomes()[:3] == ["failed", "failed", "answered"]
        told = [fact.what for fact in scene.facts if isinstance(fact, Happened)]
        (text,) = [text for text in told if CODE in text]
        assert "ends at 2026-11-13, above the watermark 2026-11-06" in text
        (published,) = [fact for fact in scene.facts if isinstance(fact, Published)]
        assert [event.vintage.day for event in published.events] == [date(2026, 11, 13)]

    virtually(work)


def test_a_whole_answer_between_begins_the_count_anew() -> None:
    """Three in a row it takes: a gateway that falters now and then is not believed."""

    async def work() -> None:
        scene = Scene(MemoryStore(asyncio.get_running_loop().time))
        await scene.polls(10)
        scene.facts.clear()
        cut, whole = rows(["2026-11-13"]), rows(["2026-11-06"])
        polling = asyncio.create_task(scene.poller().run(ONE_OFF))
        for page in (cut, cut, whole, cut, cut, whole):
            scene.gateway.pages, count = {None: page}, len(scene.outcomes())
            while len(scene.outcomes()) == count:
                await asyncio.sleep(1)
        polling.cancel()
        await asyncio.wait([polling])
        assert scene.outcomes() == ["failed", "failed", "answered"] * 2
        assert not any(isinstance(fact, Published) for fact in scene.facts)

    virtually(work)


def test_a_history_is_read_page_by_page() -> None:
    """A grant is spent for each page, and all that was read is one commit, seen when it began."""

    async def work() -> None:
        scene = Scene(MemoryStore(asyncio.get_running_loop().time))
        scene.gateway.pages = {
            None: rows(["2026-11-06"], "a"),
            "a": rows(["2026-10-30"], "b"),
            "b": rows(["2026-10-23"], "c"),
        }
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await scene.poller(history=3).run(ONE_OFF)
        assert [key for _, key in scene.gateway.asked[:3]] == [None, "a", "b"]
        assert len(scene.store.ledger.budgets["main"]) == len(scene.gateway.asked)
        (published,) = [fact for fact in scene.facts if isinstance(fact, Published)]
        (seen,) = {event.vintage.observed_at for event in published.events}
        assert seen == BEGAN + timedelta(seconds=began + 1)

    virtually(work)


def test_a_report_of_today_is_polled_on() -> None:
    """Only a watermark that lies after today, in the market's zone, is one nobody reported."""

    async def work() -> None:
        gateway = Answering({None: Page((row(f"{BEGAN:%Y-%m-%d}"),), None)})
        scene = Scene(MemoryStore(asyncio.get_running_loop().time), gateway)
        await scene.polls(4 * 3600)
        assert set(scene.outcomes()) == {"answered"}
        assert len(scene.outcomes()) > 1
        assert len(scene.store.streams.entries) == 1

    virtually(work)


class Mute(MemoryPlans):
    """A store that is away for whoever announces, in its first minute."""

    announced = 0

    async def announce(self, notice: Notice, lease: Lease) -> Notice | None:
        """Count the tries."""
        self.announced += 1
        if asyncio.get_running_loop().time() < 60:
            raise StoreDown("away")
        return await super().announce(notice, lease)


def test_a_notice_waits_for_the_store() -> None:
    """While it is away a notice is tried about once a second; it is told once it is back."""

    async def work() -> None:
        scene = Scene(MemoryStore(asyncio.get_running_loop().time))
        plans = Mute(scene.store.streams)
        kept = PlanStore(scene.store.records, plans, Schedule(INTERVALS), scene.observe)
        await kept.restore()
        kept.note([Detected(HONG_KONG, date(2026, 11, 6), BEGAN, CODE)])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(90):
                await kept.keep(ONE_OFF)
        assert 30 <= plans.announced <= 62
        assert [type(fact) for fact in scene.facts].count(Announced) == 1

    virtually(work)


class Unsaved(MemoryPlans):
    """A store that takes no plan in the first ten minutes, for this reason."""

    problem: StoreDown | StoreMisfit = StoreDown("away")
    tries = 0

    async def save_schedule(self, texts: Mapping[str, str], lease: Lease) -> None:
        """Count the tries."""
        self.tries += 1
        if asyncio.get_running_loop().time() < 600:
            raise self.problem
        await super().save_schedule(texts, lease)


@pytest.mark.parametrize(
    ("problem", "fewest", "most"), [(StoreDown("away"), 110, 121), (StoreMisfit("odd"), 10, 16)]
)
def test_a_plan_waits_for_the_store(
    problem: StoreDown | StoreMisfit, fewest: int, most: int
) -> None:
    """While it is away every five seconds; what an operator must mend, ever more rarely."""

    async def work() -> None:
        scene = Scene(MemoryStore(asyncio.get_running_loop().time))
        plans = Unsaved(scene.store.streams)
        plans.problem = problem
        schedule = Schedule(INTERVALS)
        kept = PlanStore(scene.store.records, plans, schedule, scene.observe)
        await kept.restore()
        schedule.watch([CODE])
        assert isinstance(schedule.next(BEGAN), Probe)
        kept.note(schedule.record(CODE, Answered(date(2026, 11, 6)), BEGAN))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(700):
                await kept.keep(ONE_OFF)
        assert fewest <= plans.tries <= most
        assert MarketState.from_json(plans.texts["HK"]).newest == date(2026, 11, 6)

    virtually(work)


def test_a_plan_that_cannot_be_read_is_replaced() -> None:
    """At once, and not when something is learned: every start would tell of it until then."""

    async def work() -> None:
        scene = Scene(MemoryStore(asyncio.get_running_loop().time))
        plans = scene.store.plans
        plans.texts["HK"] = "{"
        kept = PlanStore(scene.store.records, plans, Schedule(INTERVALS), scene.observe)
        await kept.restore()
        assert [fact.subject for fact in scene.facts if isinstance(fact, Trouble)] == ["plan of HK"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await kept.keep(ONE_OFF)
        assert MarketState.from_json(plans.texts["HK"]).newest is None
        assert Recovered("plan of HK") in scene.facts

    virtually(work)


class Refusing(Answering):
    """A gateway that will not serve any symbol."""

    async def page(self, code: Code, key: str | None) -> Page:
        """Refuse."""
        self.asked.append((code, key))
        raise Refused("unknown stock")


def test_a_refused_symbol_is_kept_out() -> None:
    """It is told with its cure, and asked again after an idle interval, then twice as long."""

    async def work() -> None:
        gateway = Refusing({})
        scene = Scene(MemoryStore(asyncio.get_running_loop().time), gateway)
        await scene.polls(3.5 * INTERVALS.idle.total_seconds())
        assert scene.outcomes() == ["refused"] * 3
        reasons = {f.reason for f in scene.facts if isinstance(f, Trouble) and f.subject == CODE}
        assert len(reasons) == 1
        assert f"poller watch remove {CODE}" in reasons.pop()
        assert scene.answers() == ["unknown stock"] * 3

    virtually(work)


class Spent(Answering):
    """A gateway whose account somebody else spends, in the first minute."""

    async def page(self, code: Code, key: str | None) -> Page:
        """Return a page, later."""
        self.asked.append((code, key))
        if asyncio.get_running_loop().time() < 60:
            raise TooFrequent
        return self.pages[key]


def test_a_spent_budget_is_no_fault_of_the_symbol() -> None:
    """It waits for a whole period, is told once, and the symbol is asked again as before."""

    async def work() -> None:
        gateway = Spent({None: NEWEST})
        scene = Scene(MemoryStore(asyncio.get_running_loop().time), gateway)
        await scene.polls(100)
        assert scene.outcomes()[0] == "postponed"
        assert scene.outcomes()[-1] == "answered"
        assert len(gateway.asked) <= 6
        told = {(f.subject, f.reason) for f in scene.facts if isinstance(f, Trouble)}
        ((subject, reason),) = told
        assert subject == "budget of account main"
        assert "another program spends requests" in reason
        assert len(scene.store.streams.entries) == 1

    virtually(work)


class Illegible(MemoryPlans):
    """A store whose plan is of another type."""

    async def schedule(self) -> dict[str, str]:
        """Refuse."""
        raise StoreMisfit("holds a list")


def test_a_plan_of_another_type_is_learned_again() -> None:
    """Polling begins without it, and says so."""

    async def work() -> None:
        scene = Scene(MemoryStore(asyncio.get_running_loop().time))
        scene.store.plans = Illegible(scene.store.streams)
        await scene.polls(5)
        assert set(scene.outcomes()) == {"answered"}
        assert Trouble("plan", "holds a list; it is learned again") in scene.facts

    virtually(work)


class Wordless(Answering):
    """A gateway that refuses every code without a word."""

    async def page(self, code: Code, key: str | None) -> Page:
        """Refuse."""
        self.asked.append((code, key))
        raise Refused


@pytest.mark.parametrize(
    ("gateway", "answer"),
    [
        (Answering({None: NEWEST}), "newest day 2026-11-06"),
        (Answering({None: Page((), None)}), "no rows"),
        (Wordless({}), "no usable answer"),
    ],
)
def test_what_a_poll_brought_is_told_in_words(gateway: Answering, answer: str) -> None:
    """Also where OpenD had none for it: `explain` and the page show them."""

    async def work() -> None:
        scene = Scene(MemoryStore(asyncio.get_running_loop().time), gateway)
        await scene.polls(10)
        assert set(scene.answers()) == {answer}

    virtually(work)


def test_what_is_left_is_announced_and_saved_at_the_end() -> None:
    """The next poller goes on from there, however soon after the news this one stopped."""

    async def work() -> None:
        scene, day = Scene(MemoryStore(asyncio.get_running_loop().time)), date(2026, 11, 6)
        plans, schedule = scene.store.plans, Schedule(INTERVALS)
        kept = PlanStore(scene.store.records, plans, schedule, scene.observe)
        await kept.restore()
        schedule.watch([CODE])
        assert isinstance(schedule.next(BEGAN), Probe)
        schedule.record(CODE, Answered(day), BEGAN)
        kept.note([Detected(HONG_KONG, day, BEGAN, CODE)])
        await kept.close(ONE_OFF)
        assert len(scene.store.streams.notices) == 1
        assert MarketState.from_json(plans.texts["HK"]).newest == day

    virtually(work)


@pytest.mark.parametrize("ready", [True, False])
def test_a_dispatcher_that_waits_comes_round(ready: bool) -> None:  # noqa: FBT001
    """With nothing due, or no gateway to ask, it shows within its longest turn that it lives."""

    async def work() -> None:
        turns = list[float]()

        def observe(fact: Fact) -> None:
            if fact == HeartbeatBeat(dispatcher("main")):
                turns.append(asyncio.get_running_loop().time())

        scene = Scene(MemoryStore(asyncio.get_running_loop().time))
        scene.gateway.ready = ready
        poller = scene.poller(observe)
        if ready:
            poller.watch([])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10 * LONGEST_TURN):
                await poller.run(ONE_OFF)
        times = [*turns, 10 * LONGEST_TURN]
        assert max(later - earlier for earlier, later in pairwise(times)) <= LONGEST_TURN + 1

    virtually(work)
