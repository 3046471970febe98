"""What a poller is told to watch, and when, in virtual time: files, groups and the live list."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.errors import Refused, StoreDown, StoreMisfit
from poller.markets.hk import HONG_KONG
from poller.model import Code, Page
from poller.polling.budget import Budget
from poller.polling.settling import CONFIRMED, SETTLED
from poller.polling.watchlist import GROUPS_EVERY, LIVE_EVERY, Watchlist
from poller.schedule.notice import Completed
from poller.schedule.release import Intervals
from poller.schedule.schedule import Answered, Probe, Schedule
from poller.simulator.virtual import run_virtually
from poller.store.store import LiveList
from poller.telemetry.observe import Fact, Happened, Recovered, Trouble
from tests.memorystore import MemoryLedger, MemoryStore, MemoryStreams, MemoryWatchlist
from tests.test_vitals import NoPace

BEGAN = datetime(2026, 11, 16, tzinfo=UTC)
MINE, THEIRS = Code("HK.00005"), Code("HK.00941")
BOTH, ALONE = (MINE, THEIRS), (MINE,)


class Slow:
    """A gateway that is there after some seconds, and tells of its group after some more."""

    name, account = "slow", "main"

    def __init__(self, there: float, takes: float, *, knows: bool) -> None:
        self.ready = False
        self._there, self._takes, self._knows = there, takes, knows

    async def wait_ready(self) -> None:
        """Return when it is there."""
        await asyncio.sleep(max(self._there - asyncio.get_running_loop().time(), 0))
        self.ready = True

    async def page(self, code: Code, key: str | None) -> Page:
        """Know nothing of short interest."""
        raise Refused(f"{code} {key}")

    async def group(self, name: str) -> list[str]:
        """Return the group, or refuse its name."""
        await asyncio.sleep(self._takes)
        if not self._knows:
            raise Refused(f"{name}: no such group")
        return [THEIRS]


@pytest.mark.parametrize(
    ("groups", "gateway", "told"),
    [
        ((), (0.0, 5.5, True), [(0.0, ALONE)]),
        (("theirs",), (0.0, 5.5, True), [(6.0, BOTH)]),
        (("theirs",), (300.0, 5.5, True), [(306.0, BOTH)]),  # nothing is polled before either
        (("theirs",), (0.0, 5.5, False), [(6.0, ALONE)]),
        (("theirs",), (10.5, 99.0, True), [(71.0, ALONE), (110.0, BOTH)]),
    ],
    ids=["no group", "read", "OpenD is away", "no such group", "no answer for long"],
)
def test_the_first_codes_are_those_of_all_sources(
    groups: Sequence[str],
    gateway: tuple[float, float, bool],
    told: list[tuple[float, tuple[Code, ...]]],
) -> None:
    """They wait until every group was asked for, a minute from the first connection at the most."""
    there, takes, knows = gateway

    async def work() -> list[tuple[float, tuple[Code, ...]]]:
        loop = asyncio.get_running_loop()
        found: list[tuple[float, tuple[Code, ...]]] = []
        store = MemoryStore(loop.time)
        watchlist = Watchlist([MINE], (), groups, store.watchlist, lambda _: None)
        budget = Budget(store.ledger, "main:groups", "me", requests=10, period=30, pace=NoPace())
        gateways = [Slow(there, takes, knows=knows)]
        tasks = [
            asyncio.create_task(watchlist.follow_groups(gateways, "main", budget)),
            asyncio.create_task(
                watchlist.follow(lambda codes: found.append((round(loop.time(), 3), tuple(codes))))
            ),
        ]
        await asyncio.sleep(500)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return found

    assert run_virtually(BEGAN, work())[: len(told)] == told


class Away(MemoryWatchlist):
    """A live list that answers from its tenth second on."""

    async def version(self) -> int:
        """Count the changes of the live list."""
        if asyncio.get_running_loop().time() < 10:
            raise StoreDown("away")
        return await super().version()


def test_the_first_codes_wait_for_the_live_list() -> None:
    """While Redis is away nothing is polled; a list without its live part would look complete."""

    async def work() -> list[tuple[float, tuple[Code, ...]]]:
        loop = asyncio.get_running_loop()
        found: list[tuple[float, tuple[Code, ...]]] = []
        live = Away(MemoryStreams(loop.time))
        await live.watch([THEIRS], wanted=True)
        watchlist = Watchlist([MINE], (), (), live, lambda _: None)
        task = asyncio.create_task(
            watchlist.follow(lambda codes: found.append((round(loop.time(), 3), tuple(codes))))
        )
        await asyncio.sleep(100)
        task.cancel()
        await asyncio.wait([task])
        return found

    assert run_virtually(BEGAN, work()) == [(10.0, BOTH)]


ALL = [Code(f"HK.{number:05}") for number in range(1, 101)]
LOOKS = 2.0  # seconds within which whatever the file holds has been seen


async def at_once(function: Callable[..., object], *given: object, **named: object) -> object:
    """Call it here: no thread can be waited for in virtual time."""
    return function(*given, **named)


@dataclass
class Desk:
    """A watchlist that is followed in virtual time, and what became of it."""

    file: Path
    store: MemoryStore = field(
        default_factory=lambda: MemoryStore(lambda: asyncio.get_running_loop().time())
    )
    codes: Sequence[Code] = ()
    groups: Sequence[str] = ()
    earlier: Sequence[Code] = ()
    gateway: Any = None
    others: Sequence[Any] = ()
    watched: list[tuple[float, tuple[Code, ...]]] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    signalled: asyncio.Event = field(default_factory=asyncio.Event)

    def news(self, *topics: str) -> asyncio.Event:
        """Return an event that `signal` sets."""
        del topics
        self.signalled = asyncio.Event()
        return self.signalled

    def signal(self) -> None:
        """Tell that the live list was changed."""
        self.signalled.set()

    def save(self, text: str, *, age: float = 0) -> None:
        """Write the file in place; the time it was written at is virtual, too."""
        self.file.write_text(text, encoding="utf-8")
        at = datetime.now(UTC).timestamp() - age + asyncio.get_running_loop().time() / 1e3
        os.utime(self.file, (at, at))

    def lines(self, count: int, *, age: float = 0) -> None:
        """Write the first so many codes."""
        self.save("".join(f"{code}\n" for code in ALL[:count]), age=age)

    def current(self) -> tuple[Code, ...]:
        """What is watched."""
        return self.watched[-1][1] if self.watched else ()

    @property
    def troubles(self) -> list[str]:
        """The reasons that were told, each once in a row."""
        told: list[str] = []
        last: dict[str, str] = {}
        for fact in self.facts:
            if isinstance(fact, Trouble) and last.get(fact.subject) != fact.reason:
                last[fact.subject] = fact.reason
                told.append(fact.reason)
            elif isinstance(fact, Recovered):
                last.pop(fact.subject, None)
        return told

    def follow(self, work: Coroutine[Any, Any, None], *, file: bool = True) -> None:
        """Follow the watchlist while `work` runs."""

        async def whole() -> None:
            loop = asyncio.get_running_loop()
            files = [self.file] if file else []
            watchlist = Watchlist(
                self.codes,
                files,
                self.groups,
                self.store.watchlist,
                self.facts.append,
                self.news,
                aside=at_once,
            )
            watchlist.remember(self.earlier)
            tasks = [
                asyncio.create_task(
                    watchlist.follow(lambda codes: self.watched.append((loop.time(), (*codes,))))
                )
            ]
            if self.groups:
                gateways = [*self.others, self.gateway]
                budget = Budget(
                    self.store.ledger, "main:g", "me", requests=10, period=30, pace=NoPace()
                )
                groups = watchlist.follow_groups(gateways, "main", budget)
                tasks.append(asyncio.create_task(groups))
            await work
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)

        run_virtually(BEGAN, whole())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A desk whose file is not written yet."""
    return Desk(tmp_path / "l.txt")


@pytest.mark.parametrize("way", ["in place", "curl", "rename", "truncated", "deleted"])
def test_a_file_that_is_saved_slowly_loses_nothing(desk: Desk, way: str) -> None:
    """However it is written again: what is in it before and after is watched all the time."""

    async def work() -> None:
        desk.lines(100, age=60)
        await asyncio.sleep(LOOKS)
        match way:
            case "in place":  # ( sleep 30; cat full.txt ) > l.txt
                desk.lines(0)
                await asyncio.sleep(30)
            case "curl":
                for count in range(0, 100, 4):
                    desk.lines(count)
                    await asyncio.sleep(CONFIRMED - 2)
            case "rename":
                new = Desk(desk.file.with_suffix(".new"))
                new.lines(100)
                new.file.replace(desk.file)
            case "truncated":
                desk.save("HK.00001\nHK.000")
                await asyncio.sleep(30)
            case "deleted":
                desk.file.unlink()
                await asyncio.sleep(5000)
        desk.lines(100)
        await asyncio.sleep(500)

    desk.follow(work())
    assert [codes for _, codes in desk.watched] == [tuple(ALL)]
    # of a list that ends within a code, that is told as well
    assert len(desk.troubles) == {"rename": 0, "truncated": 2}.get(way, 1)


def test_a_file_that_really_shrank_is_believed_after_a_while(desk: Desk) -> None:
    """It is told once with both counts, and once when it is taken; nothing else in between."""
    began = 0.0

    async def work() -> None:
        nonlocal began
        desk.lines(100, age=60)
        await asyncio.sleep(LOOKS)
        began = asyncio.get_running_loop().time()
        desk.lines(40)
        await asyncio.sleep(500)

    desk.follow(work())
    (_, before), (at, after) = desk.watched
    assert (len(before), len(after)) == (100, 40)
    assert CONFIRMED - 1 <= at - began <= CONFIRMED + LOOKS
    (told,) = desk.troubles
    assert "shrank from 100 to 40 codes: the 60 that are missing stay watched" in told
    happened = [fact.what for fact in desk.facts if isinstance(fact, Happened)]
    assert happened == [f"watchlist file {desk.file}: it has settled, 60 codes are gone from it"]


def test_an_edit_by_hand_is_taken_soon_and_in_silence(desk: Desk) -> None:
    """One of five codes is more than a tenth, and no reason for a warning."""

    async def work() -> None:
        desk.lines(5, age=60)
        await asyncio.sleep(LOOKS)
        desk.save("")  # the editor empties the file, and then writes it
        await asyncio.sleep(1)
        desk.save("HK.00001\nHK.00002\nHK.00004\nHK.00005\nHK.00099\n")
        await asyncio.sleep(SETTLED + LOOKS)

    desk.follow(work())
    assert [len(codes) for _, codes in desk.watched] == [5, 6, 5]
    assert desk.troubles == []


def test_a_line_without_its_end_waits_until_nobody_writes(desk: Desk) -> None:
    """Half of a code may be another company's; a file that ends so counts whole, a little later."""

    async def work() -> None:
        desk.lines(1, age=60)
        await asyncio.sleep(LOOKS)
        desk.save("HK.00001\nUS.A")
        await asyncio.sleep(SETTLED - 1)
        desk.save("HK.00001\nUS.AAPL")
        await asyncio.sleep(SETTLED - 1)
        assert desk.current() == (ALL[0],)
        await asyncio.sleep(LOOKS)
        assert desk.current() == (ALL[0], Code("US.AAPL"))

    desk.follow(work())
    assert len(desk.watched) == 2


def test_half_a_character_is_no_other_encoding(desk: Desk) -> None:
    """A comment cut within a character, while it is written, is told as nothing."""

    async def work() -> None:
        desk.lines(1, age=60)
        await asyncio.sleep(LOOKS)
        desk.file.write_bytes("HK.00001 # 長和\nHK.00002 # 中電".encode()[:-2])
        await asyncio.sleep(LOOKS)
        assert desk.current() == tuple(ALL[:1])
        desk.save("HK.00001 # 長和\nHK.00002 # 中電\n")
        await asyncio.sleep(LOOKS)
        assert desk.current() == tuple(ALL[:2])

    desk.follow(work())
    assert desk.troubles == []


@pytest.mark.parametrize("age", [0.0, 3600.0])
def test_a_file_in_the_making_holds_up_the_start(desk: Desk, age: float) -> None:
    """What was written just now may be half of it; what has rested is taken at once."""

    async def work() -> None:
        desk.lines(40, age=age)
        await asyncio.sleep(SETTLED - 1)
        if not age:
            desk.lines(100)
        await asyncio.sleep(100)

    desk.follow(work())
    (only,) = desk.watched
    assert len(only[1]) == (40 if age else 100)
    assert only[0] <= (0 if age else 2 * SETTLED)


def test_a_file_that_never_rests_holds_up_the_start_no_longer_than_a_minute(desk: Desk) -> None:
    """After that what it holds is watched."""

    async def work() -> None:
        for count in range(1, 100):
            desk.lines(count)
            await asyncio.sleep(1)

    desk.follow(work())
    assert desk.watched[0][0] == 60
    assert len(desk.watched[0][1]) >= 59


def test_a_file_cut_short_while_nobody_ran_is_doubted(desk: Desk) -> None:
    """What the last run watched stays watched for the same while; what was removed does not."""
    desk.earlier = ALL

    async def work() -> None:
        await desk.store.watchlist.watch([ALL[99]], wanted=False)
        desk.lines(0, age=3600)
        await asyncio.sleep(CONFIRMED - LOOKS)
        assert {*desk.current()} == {*ALL[:99]}
        await asyncio.sleep(500)

    desk.follow(work())
    assert [len(codes) for _, codes in desk.watched] == [99, 0]
    assert any("of the last run" in fact.what for fact in desk.facts if isinstance(fact, Happened))
    assert sum("stay watched" in text for text in desk.troubles) == 1


def test_codes_of_the_configuration_alone_are_not_doubted(desk: Desk) -> None:
    """Without a file, what is written there is all that is meant."""
    desk.earlier, desk.codes = ALL, [MINE]

    async def work() -> None:
        await asyncio.sleep(1)

    desk.follow(work(), file=False)
    assert desk.current() == (MINE,)


def test_a_file_that_is_not_there_holds_up_nothing(desk: Desk) -> None:
    """The other sources are watched at once; it is told, and taken when it comes."""
    desk.codes = [MINE]

    async def work() -> None:
        await asyncio.sleep(LOOKS)
        assert desk.current() == (MINE,)
        assert any("No such file" in reason for reason in desk.troubles)
        desk.lines(2)
        await asyncio.sleep(LOOKS + SETTLED)
        assert desk.current() == (MINE, *ALL[:2])

    desk.follow(work())


def test_a_file_without_a_code_is_told(desk: Desk) -> None:
    """An empty file is a mistake more often than a wish, and keeps nothing else from working."""
    desk.codes = [MINE]

    async def work() -> None:
        desk.lines(0, age=60)
        await asyncio.sleep(100)

    desk.follow(work())
    assert desk.current() == (MINE,)
    assert desk.troubles == ["it holds no code"]


states = st.lists(
    st.tuples(
        st.sampled_from([0.3, 1.0, 2.0, SETTLED - 1]),
        st.one_of(st.none(), st.sets(st.integers(0, 19)), st.binary(max_size=30)),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(st.sets(st.integers(0, 19), min_size=1), states, st.sets(st.integers(0, 19), min_size=1))
def test_what_is_in_the_first_and_the_last_state_is_watched_throughout(
    first: set[int], between: list[tuple[float, set[int] | bytes | None]], last: set[int]
) -> None:
    """Whatever a file goes through that does not rest; what was really removed is gone in time."""

    async def work() -> None:
        def write(numbers: set[int], age: float = 0) -> None:
            own.save("".join(f"{ALL[number]}\n" for number in sorted(numbers)), age=age)

        write(first, age=60)
        await asyncio.sleep(LOOKS)
        for (_, before), (wait, state) in pairwise([(0.0, first), *between]):
            if state == before:  # written again as it was, it rests
                continue
            if state is None:
                own.file.unlink(missing_ok=True)
            elif isinstance(state, bytes):
                own.file.write_bytes(state)
            else:
                write(state)
            await asyncio.sleep(wait)
        write(last)
        await asyncio.sleep(LOOKS)
        assert {ALL[number] for number in last} <= {*own.current()}
        await asyncio.sleep(CONFIRMED + LOOKS)

    with tempfile.TemporaryDirectory() as folder:
        own = Desk(Path(folder) / "list")
        own.follow(work())
    both = {ALL[number] for number in first & last}
    assert all(both <= {*codes} for _, codes in own.watched)
    assert {*own.current()} == {ALL[number] for number in last}


class Counting(MemoryWatchlist):
    """A live list that counts how often it is asked for its version."""

    asked = 0

    async def version(self) -> int:
        """Count."""
        self.asked += 1
        return await super().version()


def test_the_live_list_is_asked_for_seldom(desk: Desk) -> None:
    """Whoever changes it says so; while nothing is in doubt it is looked at now and then alone."""
    desk.store.watchlist = live = Counting(desk.store.streams)

    async def work() -> None:
        await live.watch(ALL[:3], wanted=True)
        await asyncio.sleep(10 * LIVE_EVERY)

    desk.follow(work(), file=False)
    assert desk.current() == tuple(ALL[:3])
    assert 5 <= live.asked <= 12


class Foreign(MemoryWatchlist):
    """A live list that is as the test says, whatever it was told."""

    found: LiveList | StoreMisfit = LiveList()

    def put(self, found: LiveList | StoreMisfit) -> None:
        """Let the live list read like this from now on."""
        self.found = found
        self.changes += 1

    async def watched(self) -> LiveList:
        """Return what was put there, or raise it."""
        if isinstance(self.found, StoreMisfit):
            raise self.found
        return self.found


def test_the_live_list_is_doubted_when_it_vanished(desk: Desk) -> None:
    """Deleted by another client it keeps its codes for a while; `watch remove` counts at once."""
    desk.store.watchlist = live = Foreign(desk.store.streams)
    added: Mapping[Code, bool] = dict.fromkeys(ALL[:10], True)

    async def work() -> None:
        desk.signal()
        live.put(LiveList(added))
        await asyncio.sleep(LOOKS)
        desk.signal()
        live.put(LiveList({**added, ALL[0]: False}))
        await asyncio.sleep(LOOKS)
        assert desk.current() == tuple(ALL[1:10])
        desk.signal()
        live.put(LiveList())
        await asyncio.sleep(CONFIRMED - LOOKS)
        assert desk.current() == tuple(ALL[1:10])
        await asyncio.sleep(2 * LOOKS)
        assert desk.current() == ()

    desk.follow(work(), file=False)
    assert len(desk.troubles) == 1
    assert "from 10 to 0 codes" in desk.troubles[0]


def test_rubbish_in_the_live_list_is_told_and_nothing_more(desk: Desk) -> None:
    """Marks beside it count; a key of another type keeps what was known, also at the start."""
    desk.codes = [MINE]
    desk.store.watchlist = live = Foreign(desk.store.streams)

    async def work() -> None:
        desk.signal()
        live.put(StoreMisfit("the key {n}:watch holds a list"))
        await asyncio.sleep(LOOKS)
        assert desk.current() == (MINE,)
        desk.signal()
        live.put(
            LiveList({ALL[0]: True}, "fields of {n}:watch are not part of the list: 'garbage'")
        )
        await asyncio.sleep(LOOKS)
        assert desk.current() == (MINE, ALL[0])
        desk.signal()
        live.put(StoreMisfit("the key {n}:watch holds a list"))
        await asyncio.sleep(500)
        assert desk.current() == (MINE, ALL[0])

    desk.follow(work(), file=False)
    assert desk.troubles == [
        "the key {n}:watch holds a list; the 0 codes it last held count on",
        "fields of {n}:watch are not part of the list: 'garbage'",
        "the key {n}:watch holds a list; the 1 codes it last held count on",
    ]


class Group(Slow):
    """A gateway whose group is as the test says; `asked`: when it was read."""

    def __init__(self) -> None:
        super().__init__(0, 0, knows=True)
        self.texts: list[str] = [*ALL]
        self.asked: list[float] = []

    async def group(self, name: str) -> list[str]:
        """Return the codes of the moment."""
        assert name == "mine"
        self.asked.append(asyncio.get_running_loop().time())
        return [*self.texts]


def test_a_group_that_shrank_is_read_again_before_it_is_believed(desk: Desk) -> None:
    """The second reading comes sooner than usual; one that is whole again changes nothing."""
    desk.groups, desk.gateway = ["mine"], Group()

    async def work() -> None:
        gateway = desk.gateway
        await asyncio.sleep(LOOKS)
        gateway.texts = ALL[:40]
        await asyncio.sleep(GROUPS_EVERY)
        gateway.texts = [*ALL]
        await asyncio.sleep(CONFIRMED + LOOKS)
        assert len(gateway.asked) == 3
        gateway.texts = []
        await asyncio.sleep(GROUPS_EVERY + LOOKS)
        assert len(desk.current()) == 100
        await asyncio.sleep(CONFIRMED + LOOKS)
        assert desk.current() == ()

    desk.follow(work(), file=False)
    assert [len(codes) for _, codes in desk.watched] == [100, 0]
    assert [text.partition(" codes")[0] for text in desk.troubles] == [
        "it shrank from 100 to 40",
        "it shrank from 100 to 0",
    ]


def test_a_group_is_the_one_of_its_account(desk: Desk) -> None:
    """Another account's group of the same name is never asked for, though its OpenD is ready."""
    other = Group()
    other.account, other.texts = "other", [THEIRS]
    other.ready = True
    desk.groups, desk.gateway, desk.others = ["mine"], Group(), [other]

    async def work() -> None:
        await asyncio.sleep(GROUPS_EVERY)

    desk.follow(work(), file=False)
    assert desk.current() == (*ALL,)
    assert other.asked == []


def test_a_group_that_was_read_counts_from_its_answer(desk: Desk) -> None:
    """Nothing is on its way any more, which would count for half a period longer."""
    desk.groups, desk.gateway = ["mine"], Group()
    counted: list[float] = []

    async def work() -> None:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(GROUPS_EVERY)
        counted.extend(at - began for at in desk.store.ledger.budgets["main:g"].values())

    desk.follow(work(), file=False)
    assert len(counted) == 1
    assert counted[0] < 5


class Unreached(MemoryLedger):
    """A ledger that nobody reaches in its first minute."""

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
        """Grant the request, later."""
        if self.clock() < 60:
            raise StoreDown("away")
        return await super().grant(
            account, request, limit=limit, period=period, margin=margin, logins=logins
        )


def test_a_group_waits_for_the_ledger_and_says_so(desk: Desk) -> None:
    """What it holds is unknown meanwhile, and it is not asked for beyond the budget."""
    desk.groups, desk.gateway = ["mine"], Group()
    desk.store.ledger = Unreached(desk.store.ledger.clock)

    async def work() -> None:
        await asyncio.sleep(50)
        assert (desk.troubles, desk.gateway.asked) == (["away"], [])
        await asyncio.sleep(2 * GROUPS_EVERY)

    desk.follow(work(), file=False)
    assert desk.current() == (*ALL,)


class Noting(ThreadPoolExecutor):
    """Threads that note what they were asked to do."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked: list[str] = []

    def submit(self, work: Any, /, *given: Any, **named: Any) -> "Future[Any]":  # noqa: ANN401
        """See `Executor.submit`."""
        self.asked.append(repr(work))
        return super().submit(work, *given, **named)


async def test_files_are_looked_at_in_a_thread(tmp_path: Path) -> None:
    """A disk of the network whose server is away does not stop the loop, and with it the lease."""
    threads = Noting()
    asyncio.get_running_loop().set_default_executor(threads)
    (tmp_path / "l.txt").write_text(f"{MINE}\n")
    watchlist = Watchlist(
        (), [tmp_path / "l.txt"], (), MemoryWatchlist(MemoryStreams(time.time)), lambda _: None
    )
    await watchlist.refresh(once=True)
    assert watchlist.current() == (MINE,)
    assert len(threads.asked) == 1


def test_a_group_of_rubbish_is_bounded(desk: Desk) -> None:
    """Whatever OpenD gives for a group: so many codes are taken, and little is said of others."""
    desk.groups, desk.gateway = ["mine"], Group()
    desk.gateway.texts = [
        *("\x1b[2J", "SH.600519", "nan", "x" * 100_000),
        *(f"SZ.{number:06}" for number in range(1000)),
        *(f"US.A{number}" for number in range(100_000)),
    ]

    async def work() -> None:
        await asyncio.sleep(GROUPS_EVERY)

    desk.follow(work(), file=False)
    assert len(desk.current()) == 50_000
    (told,) = desk.troubles
    assert len(told) < 600
    assert told.isprintable()
    assert "SH.600519" in told
    assert "994 more" in told
    assert "50,000 codes are taken" in told


@pytest.mark.parametrize("pause", [3.0, 500.0])
def test_no_release_is_complete_because_a_list_shrank(desk: Desk, pause: float) -> None:
    """Cut in mid-sweep, the list of before is counted; one that stays short without the others.

    What has shown the day until then was found, all the same.
    """
    day, newer = date(2026, 11, 13), date(2026, 11, 16)
    intervals = Intervals(*(timedelta(seconds=each) for each in (20, 2400, 300)))
    schedule = Schedule(intervals)
    told: list[Completed] = []

    async def sweep() -> None:
        """Answer one probe a second; every symbol shows the newer day from the 10th second on."""
        loop: Any = asyncio.get_running_loop()
        while True:
            schedule.watch(desk.current())
            decision = schedule.next(loop.now())
            if isinstance(decision, Probe):
                shown = newer if loop.time() > 150 else day
                notices = schedule.record(decision.code, Answered(shown), loop.now())
                told.extend(one for one in notices if isinstance(one, Completed))
            await asyncio.sleep(1)

    async def work() -> None:
        desk.lines(100, age=60)
        await asyncio.sleep(LOOKS)
        polling = asyncio.create_task(sweep())
        await asyncio.sleep(150)  # every symbol has been looked at
        while schedule.markets[HONG_KONG].newest != newer:
            await asyncio.sleep(0.5)
        await asyncio.sleep(10)
        desk.lines(1)
        await asyncio.sleep(pause)
        if pause < CONFIRMED:
            desk.lines(100)
        await asyncio.sleep(500)
        polling.cancel()
        await asyncio.wait([polling])

    desk.follow(work())
    (completed,) = told
    assert completed.missing == ()
    if pause < CONFIRMED:
        assert completed.found == 100
    else:
        assert CONFIRMED < completed.found < 100
