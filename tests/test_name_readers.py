"""When names and numbers of shares are asked for, of whom, and what a trouble costs."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from poller.errors import (
    Disconnected,
    GatewayError,
    Malformed,
    NoRight,
    Overdue,
    Refused,
    Silent,
    StoreDown,
    StoreMisfit,
    TooFrequent,
)
from poller.gateway.securities import ShareCounts
from poller.model import Code, Instrument, Page
from poller.polling.budget import Budget
from poller.polling.instruments import (
    EVERY,
    LOOK,
    MOST_REFUSED,
    NAME_CALL,
    SHARE_CALL,
    Call,
    Directory,
    Reader,
)
from poller.simulator.virtual import VirtualLoop, run_virtually
from poller.telemetry.observe import Fact, Recovered, Trouble
from tests.memorystore import MemoryStore
from tests.test_vitals import NoPace

BEGAN = datetime(2026, 11, 16, tzinfo=UTC)
HK = tuple(Code(f"HK.{number:05}") for number in range(1, 401))
US = (Code("US.AAPL"), Code("US.MSFT"))
HOUR = 3600.0
DAY = EVERY.total_seconds()

Answer = Callable[[Sequence[Code]], None]


def willing(_: Sequence[Code]) -> None:
    """Refuse nothing."""


@dataclass
class OpenD:
    """A gateway that answers at once. `check` raises what it refuses; `asked`: when, and what."""

    account: str = "main"
    check: Answer = willing
    ready: bool = True
    asked: list[tuple[float, tuple[Code, ...]]] = field(default_factory=list)
    name: str = "here"

    async def wait_ready(self) -> None:
        """Return once it is ready."""
        while not self.ready:
            await asyncio.sleep(0.1)

    async def page(self, code: Code, key: str | None) -> Page:
        """Know nothing of short interest."""
        raise Refused(f"{code} {key}")

    async def group(self, name: str) -> list[str]:
        """Know no group."""
        raise Refused(name)

    async def names(self, codes: Sequence[Code]) -> Mapping[Code, str]:
        """Return a name for every symbol."""
        self._take(codes)
        return {code: f"name of {code}" for code in codes}

    async def share_counts(self, codes: Sequence[Code]) -> Mapping[Code, ShareCounts]:
        """Return the same numbers for every symbol."""
        self._take(codes)
        return dict.fromkeys(codes, ShareCounts(100, 50))

    def _take(self, codes: Sequence[Code]) -> None:
        self.asked.append((asyncio.get_running_loop().time(), tuple(codes)))
        self.check(codes)


@dataclass
class Desk:
    """A reader of one call, at work. `facts`: what it observed."""

    store: MemoryStore
    directory: Directory
    reader: Reader
    facts: list[Fact]

    @property
    def troubles(self) -> list[str]:
        """The subjects of the troubles told, in order."""
        return [fact.subject for fact in self.facts if isinstance(fact, Trouble)]

    @property
    def recovered(self) -> list[str]:
        """The subjects of troubles that were told and have ended."""
        told = set(self.troubles)
        return [f.subject for f in self.facts if isinstance(f, Recovered) and f.subject in told]


def play(
    gateways: Sequence[OpenD],
    codes: Sequence[Code],
    seconds: float,
    *,
    call: Call = NAME_CALL,
    store: MemoryStore | None = None,
    withheld: Callable[[str, Code], bool] = lambda _, __: False,
    meanwhile: Callable[[Desk], Any] = lambda _: asyncio.sleep(0),
) -> Desk:
    """Watch these symbols for so long, and return what came of it."""

    async def work() -> Desk:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        kept = store or MemoryStore(loop.time)
        kept.ledger.clock = loop.time
        directory, facts = Directory(kept.instruments, loop.now), list[Fact]()
        budgets = {
            gateway.account: Budget(
                kept.ledger,
                f"{gateway.account}:{call.ledger}",
                "me",
                requests=call.requests,
                period=call.period,
                pace=NoPace(),
            )
            for gateway in gateways
        }
        reader = Reader(call, directory, gateways, budgets, withheld, facts.append)
        desk = Desk(kept, directory, reader, facts)
        directory.watch(codes)
        task = asyncio.create_task(reader.run())
        other = asyncio.create_task(meanwhile(desk))
        await asyncio.sleep(seconds)
        for each in (task, other):
            each.cancel()
        for end in await asyncio.gather(task, other, return_exceptions=True):
            if isinstance(end, Exception):
                raise end
        return desk

    return run_virtually(BEGAN, work())


def known(desk: Desk, codes: Sequence[Code]) -> dict[Code, Instrument]:
    """Return what the cache has of these symbols."""
    return asyncio.run(desk.store.instruments.instruments(codes))


def refusing(*bad: Code) -> Answer:
    """Refuse every request that holds one of these codes, as OpenD does."""

    def check(codes: Sequence[Code]) -> None:
        if set(bad) & set(codes):
            raise Refused("unknown code")

    return check


def raising(problem: Callable[[], GatewayError], until: float = float("inf")) -> Answer:
    """Raise this for every request before an instant."""

    def check(_: Sequence[Code]) -> None:
        if asyncio.get_running_loop().time() < until:
            raise problem()

    return check


@pytest.mark.parametrize("call", [NAME_CALL, SHARE_CALL], ids=["names", "shares"])
def test_once_a_day_in_few_requests(call: Call) -> None:
    """Every symbol of both markets once a day, as many in a request as OpenD takes."""
    opend = OpenD()
    desk = play([opend], [*HK, *US], 3 * DAY - HOUR, call=call)
    requests = -(-len(HK) // call.together) + 1
    assert len(opend.asked) == 3 * requests
    assert all(len({code[:2] for code in codes}) == 1 for _, codes in opend.asked)
    found = known(desk, [*HK, *US])
    if call is NAME_CALL:
        assert all(each.name == f"name of {code}" for code, each in found.items())
        assert desk.directory.known_of(US[0]).name == "name of US.AAPL"
    else:
        assert {(each.issued_shares, each.outstanding_shares) for each in found.values()} == {
            (100, 50)
        }
    assert desk.troubles == []


def test_a_new_symbol_is_asked_for_at_once() -> None:
    """It has its name within a second, not a day later, and before what is old."""
    opend = OpenD()

    async def add(desk: Desk) -> None:
        await asyncio.sleep(HOUR)
        desk.directory.watch([HK[0], *US])
        await asyncio.sleep(1)
        assert desk.directory.known_of(US[1]).name == "name of US.MSFT"

    play([opend], [HK[0]], 2 * HOUR, meanwhile=add)
    assert [codes for _, codes in opend.asked] == [(HK[0],), (US[1], US[0])]


def test_a_restart_asks_nothing_again() -> None:
    """What was read is cached: only what has become old, or is new, is asked for."""
    first, second = OpenD(), OpenD()
    desk = play([first], HK[:9], 60)
    again = play([second], HK[:10], 60, store=desk.store)
    assert [codes for _, codes in second.asked] == [(HK[9],)]
    assert again.directory.known_of(HK[0]).name == "name of HK.00001"


@pytest.mark.parametrize("bad", [HK[:1], HK[-1:], HK[200:203], HK[::80]], ids=str)
def test_a_code_that_is_refused_costs_the_others_nothing(bad: Sequence[Code]) -> None:
    """Its batch is split until it is found; it has no name, and is asked again the next day."""
    opend = OpenD(check=refusing(*bad))
    desk = play([opend], HK, HOUR)
    found = known(desk, HK)
    assert [code for code in HK if found[code].name is None] == list(bad)
    assert all(each.named_at is not None for each in found.values())
    assert len(opend.asked) <= 6 + len(bad) * 12
    assert desk.troubles == []


def test_an_opend_that_refuses_everything_is_rested() -> None:
    """It may be too old for the call: that is told once, and asked ever more rarely."""
    opend = OpenD(check=refusing(*HK))
    desk = play([opend], HK, DAY)
    assert desk.troubles == ["names of HK, account main"]
    assert len(opend.asked) <= 12 * MOST_REFUSED


@pytest.mark.parametrize(
    "problem",
    [
        lambda: NoRight("no right"),
        lambda: Overdue("NN_ProtoRet_TimeOut"),
        lambda: Silent("no answer"),
        lambda: Malformed("no table"),
        lambda: TooFrequent("too frequent"),
    ],
    ids=["no right", "overdue", "silent", "malformed", "too frequent"],
)
def test_a_trouble_is_told_once_and_rests_ever_longer(
    problem: Callable[[], GatewayError],
) -> None:
    """A dozen requests in two days; the first answer after it ends it, and is told once."""
    until = 2 * DAY
    opend = OpenD(check=raising(problem, until))
    desk = play([opend], HK[:5], 4 * DAY)
    failed = [at for at, _ in opend.asked if at < until]
    assert len(failed) <= 13
    pauses = [later - earlier for earlier, later in pairwise(failed)]
    assert pauses == sorted(pauses)
    assert max(pauses) <= DAY + LOOK
    assert desk.troubles == ["names of HK, account main"]
    assert desk.recovered.count("names of HK, account main") >= 1
    assert known(desk, HK[:5])[HK[0]].name == "name of HK.00001"


def test_another_account_and_another_market_go_on() -> None:
    """What one account is refused another one answers; the trouble of one market is its own."""

    def no_us(codes: Sequence[Code]) -> None:
        if codes[0].startswith("US"):
            raise NoRight("no right")

    main, other = OpenD("main", check=no_us), OpenD("other")
    desk = play([main, other], [*HK[:3], *US], 60, call=SHARE_CALL)
    assert [codes for _, codes in other.asked] == [tuple(reversed(US))]
    assert desk.troubles == ["share counts of US, account main"]
    assert {each.issued_shares for each in known(desk, [*HK[:3], *US]).values()} == {100}


@pytest.mark.parametrize(("call", "asks"), [(NAME_CALL, True), (SHARE_CALL, False)])
def test_only_shares_need_a_right(call: Call, *, asks: bool) -> None:
    """Where an account is known to have no right, only names are asked for, without a trouble."""
    opend = OpenD()
    desk = play([opend], US, 60, call=call, withheld=lambda _, __: True)
    assert bool(opend.asked) is asks
    assert desk.troubles == []


def test_a_hint_that_rights_have_changed_ends_a_rest() -> None:
    """It is tried again at the next look, however long it has rested."""
    opend = OpenD(check=raising(lambda: NoRight("no right"), 10 * HOUR))

    async def hint(desk: Desk) -> None:
        await asyncio.sleep(10 * HOUR)
        desk.reader.rights_told("main")
        await asyncio.sleep(LOOK + 1)
        assert desk.recovered == ["share counts of US, account main"]

    play([opend], US, 11 * HOUR, call=SHARE_CALL, meanwhile=hint)


def test_a_gateway_that_is_away_is_waited_for() -> None:
    """No trouble is told of it: who keeps the connection tells it."""
    opend = OpenD(ready=False)

    async def come(_: Desk) -> None:
        await asyncio.sleep(HOUR)
        opend.ready = True

    opend.check = raising(lambda: Disconnected("away"), HOUR + 60)
    desk = play([opend], US, 2 * HOUR, meanwhile=come)
    assert opend.asked[0][0] == pytest.approx(HOUR, abs=1)
    assert desk.troubles == []
    assert desk.directory.known_of(US[0]).name is not None


@pytest.mark.parametrize("call", [NAME_CALL, SHARE_CALL], ids=["names", "shares"])
def test_the_limit_of_the_call_is_kept_apart(call: Call) -> None:
    """No period holds more than OpenD allows, and short interest's own ledger holds nothing."""
    many = [
        Code(f"US.A{chr(65 + n % 26)}{chr(65 + n // 26 % 26)}{chr(65 + n // 676)}")
        for n in range(16_000)
    ]
    opend = OpenD(check=refusing(*many[:40:10]))
    desk = play([opend], many, HOUR, call=call)
    times = [at for at, _ in opend.asked]
    for start in times:
        assert sum(start <= at <= start + call.period for at in times) <= call.requests
    assert list(desk.store.ledger.budgets) == [f"main:{call.ledger}"]


@pytest.mark.parametrize("problem", [StoreDown("away"), StoreMisfit("holds a list")])
def test_a_cache_that_cannot_be_used_stops_no_name(problem: Exception) -> None:
    """Names are read and used all the same, and saved once the cache is usable again."""
    opend = OpenD()
    store = MemoryStore(lambda: 0.0)
    save, until = store.instruments.save_instruments, 10 * 60.0

    async def saving(found: Mapping[Code, Instrument]) -> None:
        if asyncio.get_running_loop().time() < until:
            raise problem
        await save(found)

    setattr(store.instruments, "save_instruments", saving)  # noqa: B010  an own instance

    async def look(desk: Desk) -> None:
        await asyncio.sleep(5)
        assert desk.directory.known_of(US[0]).name == "name of US.AAPL"

    desk = play([opend], US, 1000, store=store, meanwhile=look)
    assert len(opend.asked) == 1
    assert set(known(desk, US)) == set(US)
    misfit = isinstance(problem, StoreMisfit)
    assert set(desk.troubles) == ({"cache of names"} if misfit else set())


def test_a_cache_that_cannot_be_read_stops_no_name() -> None:
    """A foreign key under its name is told once; names are read all the same, of all markets."""
    opend, store = OpenD(), MemoryStore(lambda: 0.0)

    async def refuse(_: object) -> dict[Code, Instrument]:
        raise StoreMisfit("holds a list")

    for method in ("instruments", "save_instruments"):
        setattr(store.instruments, method, refuse)
    desk = play([opend], [*HK, *US], 2 * HOUR, store=store)
    assert all(desk.directory.known_of(code).name for code in [*HK, *US])
    assert set(desk.troubles) == {"cache of names"}
    assert len(opend.asked) == 3


def test_a_clock_that_was_set_back_does_not_stop_it() -> None:
    """What seems to have been read in the future is read again."""
    ahead = Instrument("old", named_at=BEGAN + timedelta(days=400))
    store = MemoryStore(lambda: 0.0)
    asyncio.run(store.instruments.save_instruments({US[0]: ahead}))
    desk = play([OpenD()], US[:1], 60, store=store)
    assert desk.directory.known_of(US[0]).name == "name of US.AAPL"


def test_what_is_no_longer_watched_is_asked_no_more() -> None:
    """Its name stays in the cache, for its history."""
    opend = OpenD()

    async def remove(desk: Desk) -> None:
        await asyncio.sleep(HOUR)
        desk.directory.watch(US[:1])

    desk = play([opend], US, 2 * DAY, meanwhile=remove)
    assert opend.asked[-1][1] == US[:1]
    assert set(known(desk, US)) == set(US)
