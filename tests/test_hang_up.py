"""Requests that make OpenD hang up: whose fault that is, and who suffers from it."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from poller.errors import Disconnected, HungUp
from poller.markets import Record
from poller.markets.hk import HkRecord
from poller.markets.us import UsRecord
from poller.model import Code, Page
from poller.polling.budget import Budget
from poller.polling.poll import Poller
from poller.schedule.release import Intervals
from poller.schedule.schedule import Schedule
from poller.simulator import SlidingWindow, World
from poller.simulator.virtual import VirtualLoop, run_virtually
from poller.store.store import ONE_OFF
from poller.telemetry.observe import Fact, MarketRight, Polled, Recovered, Trouble
from tests.machine import at_most
from tests.memorystore import MemoryStore
from tests.opend import Faults, Simulator
from tests.service import Service, entries, later, now, poller, store_of, whole, with_rows
from tests.test_faults import is_documented
from tests.test_vitals import NoPace

BEGAN = datetime(2026, 11, 16, tzinfo=UTC)
INTERVALS = Intervals(timedelta(seconds=30), timedelta(minutes=20), timedelta(minutes=5))
PERIOD = 30.0
LATENCY = 0.2
"""Seconds of an answer."""
REBUILT = 1.0
"""Seconds until the next connection."""
ROWS: dict[str, Record] = {
    "HK": HkRecord(None, "2026-11-06", 1000, 0.5, None, None),
    "US": UsRecord(None, "2026-10-30", 1000, 0.5, None, None, None),
}


def codes(count: int, market: str = "HK") -> list[Code]:
    """Return made-up codes."""
    return [Code(f"{market}.{n:05}") for n in range(1, count + 1)]


class Link:
    """A gateway of `main` whose connection breaks while it `breaks` with a symbol it is asked for.

    Everything under way breaks with it. `asked`: when, whom, and how many were under way with it.
    """

    account = "main"

    def __init__(self, name: str, breaks: Callable[[Code], bool], rebuilt: float) -> None:
        self.name = name
        self.breaks = breaks
        self._rebuilt = rebuilt
        self.asked: list[tuple[float, Code, int]] = []
        self._usable = asyncio.Event()
        self._usable.set()
        self._under_way = set[asyncio.Future[None]]()

    @property
    def ready(self) -> bool:
        """Whether it is connected."""
        return self._usable.is_set()

    async def wait_ready(self) -> None:
        """Return when it is connected."""
        await self._usable.wait()

    async def page(self, code: Code, key: str | None) -> Page:
        """Return the only page, unless the connection breaks before."""
        del key
        if not self.ready:
            raise Disconnected("not connected")
        loop = asyncio.get_running_loop()
        self.asked.append((loop.time(), code, len(self._under_way)))
        answer = loop.create_future()
        self._under_way.add(answer)
        timer = loop.call_later(LATENCY, answer.set_result, None)
        if self.breaks(code):
            self.hang_up()
        try:
            await answer
        finally:
            timer.cancel()
            self._under_way.discard(answer)
        return Page((ROWS[code[:2]],), None)

    def hang_up(self) -> None:
        """Break the connection; the next one is there soon."""
        self._usable.clear()
        for answer in self._under_way:
            if not answer.done():
                answer.set_exception(HungUp("Disconnect"))
        asyncio.get_running_loop().call_later(self._rebuilt, self._usable.set)

    async def group(self, name: str) -> list[str]:
        """Return no code."""
        del name
        return []


@dataclass
class Scene:
    """A poller of symbols on two gateways of one account, in virtual time."""

    watched: Sequence[Code]
    breaks: Callable[[Code], bool]
    rebuilt: float = REBUILT
    links: list[Link] = field(default_factory=list)
    facts: list[tuple[float, Fact]] = field(default_factory=list)

    def play(self, seconds: float, *beside: Callable[["Scene"], None]) -> "Scene":
        """Poll for so long; `beside`: what is called at the beginning."""
        run_virtually(BEGAN, self._polls(seconds, beside))
        return self

    async def _polls(self, seconds: float, beside: Sequence[Callable[["Scene"], None]]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        store = MemoryStore(loop.time)
        self.links = [Link(name, self.breaks, self.rebuilt) for name in ("one", "two")]
        budget = Budget(store.ledger, "main", "test", requests=30, period=PERIOD, pace=NoPace())
        made = Poller(
            store,
            self.links,
            {"main": budget},
            Schedule(INTERVALS),
            history=5,
            observe=lambda fact: self.facts.append((loop.time(), fact)),
            now=loop.now,
        )
        made.watch(self.watched)
        for begin in beside:
            begin(self)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await made.run(ONE_OFF)

    def troubles(self) -> set[str]:
        """Return who or what was in trouble."""
        return {fact.subject for _, fact in self.facts if isinstance(fact, Trouble)}

    def outcomes(self, code: Code) -> list[str]:
        """Return how the polls of a symbol ended, in order."""
        polls = [fact for _, fact in self.facts if isinstance(fact, Polled)]
        return [poll.outcome for poll in polls if poll.code == code]

    def answered_at(self) -> dict[Code, float]:
        """Return when each symbol was answered for the first time."""
        found = dict[Code, float]()
        for at, fact in self.facts:
            if isinstance(fact, Polled) and fact.outcome == "answered":
                found.setdefault(fact.code, at)
        return found


@pytest.mark.parametrize("rebuilt", [0.05, 10])
@pytest.mark.parametrize("count", [2, 14, 60])
def test_it_is_found_however_fast_a_connection_comes_back(count: int, rebuilt: float) -> None:
    """And whichever gateway answers the others meanwhile."""
    guilty, *_ = watched = codes(count)
    scene = Scene(watched, lambda code: code == guilty, rebuilt).play(3600.0)
    assert scene.troubles() == {guilty}
    assert sum(code == guilty for link in scene.links for _, code, _ in link.asked) < 16


def test_a_gateway_that_breaks_with_everybody_is_nobodys_fault() -> None:
    """The other one of its account answers; nobody is blamed, and nobody waits long."""

    def break_one(scene: "Scene") -> None:
        scene.links[0].breaks = lambda _: True

    scene = Scene(codes(60), lambda _: False).play(3600.0, break_one)
    assert not scene.troubles()
    assert max(scene.answered_at().values()) < 60 + 3 * PERIOD


@pytest.mark.parametrize("place", [0, 7, 13])
@pytest.mark.parametrize("count", [14, 60])
def test_only_who_makes_opend_hang_up_waits(place: int, count: int) -> None:
    """It is told, asked alone and ever more rarely; the others are read as soon as the budget lets.

    Wherever it stands in the list, and however many are under way when it is asked first.
    """
    watched = codes(count)
    guilty = watched[place]
    scene = Scene(watched, lambda code: code == guilty).play(6 * 3600.0)
    assert scene.troubles() == {guilty}
    others = [code for code in watched if code != guilty]
    assert scene.answered_at().keys() == set(others)
    assert max(scene.answered_at().values()) < count + PERIOD
    looks = [
        (at, beside) for link in scene.links for at, code, beside in link.asked if code == guilty
    ]
    looks.sort()
    assert [beside for _, beside in looks[2:]] == [0] * len(looks[2:])
    assert looks[5][0] < 300
    assert len(looks) <= 16
    assert all("failed" not in scene.outcomes(code)[2:] for code in others)


def test_two_that_make_opend_hang_up_are_told_apart_from_all_others() -> None:
    """Though both break the connections of all who are asked with them."""
    watched = codes(40)
    guilty = {watched[3], watched[4]}
    scene = Scene(watched, lambda code: code in guilty).play(3600.0)
    assert scene.troubles() == guilty
    assert scene.answered_at().keys() == set(watched) - guilty


def test_who_is_answered_again_has_recovered() -> None:
    """It is told once, and polled as ever."""
    watched, broken = codes(14), [True]
    guilty = watched[0]
    scene = Scene(watched, lambda code: code == guilty and broken[0])
    scene.play(4 * 3600.0, lambda _: _after(3600.0, broken.clear, broken.append))
    ends = [fact for _, fact in scene.facts if fact == Recovered(guilty)]
    assert "answered" in scene.outcomes(guilty)
    assert scene.outcomes(guilty)[-1] == "answered"
    assert len(ends) == scene.outcomes(guilty).count("answered")


def _after(seconds: float, clear: Callable[[], None], put: Callable[[bool], None]) -> None:
    def mend() -> None:
        clear()
        put(False)  # noqa: FBT003

    asyncio.get_running_loop().call_later(seconds, mend)


def test_while_opend_breaks_with_everybody_nobody_is_blamed() -> None:
    """And as soon as it answers, all are asked, as fast as the budget allows."""
    watched, until_then = codes(25), 300.0
    scene = Scene(watched, lambda _: asyncio.get_running_loop().time() < until_then)
    scene.play(until_then + 600)
    assert not scene.troubles()
    assert scene.answered_at().keys() == set(watched)
    assert max(scene.answered_at().values()) < until_then + INTERVALS.due.total_seconds() + 30


@pytest.mark.parametrize("seed", range(5))
def test_a_flapping_link_is_nobodys_fault(seed: int) -> None:
    """Connections break every few seconds, whoever is asked: nobody waits, nobody is blamed."""
    chance = random.Random(seed)

    def flap(scene: Scene) -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            chance.choice(scene.links).hang_up()
            loop.call_later(chance.uniform(0.5, 5), again)

        loop.call_later(0, again)

    watched = codes(60)
    scene = Scene(watched, lambda _: False).play(1800.0, flap)
    assert not scene.troubles()
    assert scene.answered_at().keys() == set(watched)
    assert max(scene.answered_at().values()) < 90


@pytest.mark.parametrize("seed", range(5))
def test_a_link_that_breaks_with_every_tenth_request_is_nobodys_fault(seed: int) -> None:
    """Whoever was under way is asked again soon; all are answered in the end."""
    chance = random.Random(seed)
    scene = Scene(codes(60), lambda _: chance.random() < 0.1).play(1800.0)
    assert not scene.troubles()
    assert max(scene.answered_at().values()) < 300


def test_a_market_that_makes_opend_hang_up_rests() -> None:
    """The other one is polled as ever, and no connection is spent on each of its symbols."""
    home, abroad = codes(10), codes(200, "US")
    scene = Scene([*abroad, *home], lambda code: code.startswith("US.")).play(3600.0)
    assert scene.answered_at().keys() == set(home)
    assert max(scene.answered_at().values()) < 60
    assert any(isinstance(fact, MarketRight) and not fact.granted for _, fact in scene.facts)
    assert len({subject for subject in scene.troubles() if subject.startswith("US.")}) <= 3
    asked = Counter(code[:2] for link in scene.links for _, code, _ in link.asked)
    assert asked["US"] < 100


WORLD = World(
    made_up={"HK": 14},
    tencent=False,
    without_rows=0.0,
    history=3,
    since=now().date() - timedelta(days=400),
    shift=timedelta(days=200),
)


@asynccontextmanager
async def opends(faults: Faults) -> AsyncIterator[list[Simulator]]:
    """Run two gateways of one account."""
    window = SlidingWindow(30, 1.0)
    async with (
        Simulator(WORLD, faults=faults, window=window) as one,
        Simulator(WORLD, faults=faults, window=window) as two,
    ):
        yield [one, two]


async def is_ready(service: Service) -> bool:
    """Return what `/readyz` says."""
    (line,) = [line for line in service.log() if line["event"] == "page"]
    async with aiohttp.ClientSession(str(line["url"]), raise_for_status=whole) as http:
        return (await http.get("/readyz")).status == 200


async def test_opend_hangs_up_when_asked_for_one_symbol(tmp_path: Path) -> None:
    """It is one line, with what to do; the others' new day comes promptly over the same gateways.

    `/readyz` says ready soon, `explain` says why, no limit is exceeded, and it recovers by itself.
    """
    guilty, *good = WORLD.codes()
    faults = Faults(hangs_up={guilty})
    async with opends(faults) as gateways:
        ports = {f"POLLER_OPEND__{n}__PORT": str(one.port) for n, one in enumerate(gateways)}
        settings = {"POLLER_WATCHLIST__HISTORY": "1", **ports}
        service = Service(tmp_path, gateways[0].port, ",".join(WORLD.codes()), settings)
        await service.start()
        async with store_of(service) as store:
            await entries(store, len(good))
            await service.said(f"{guilty}: OpenD hangs up when asked for it")
            async with at_most(5, "a service that is ready"):
                while not await is_ready(service):
                    await asyncio.sleep(0.05)
            for code in good:
                rows = gateways[0].world.records(code, now())
                new = later(rows[0], days=1, aggregated_short=(rows[0].shares or 0) + 1)
                for gateway in gateways:
                    gateway.world = with_rows(gateway.world, code, (new, *rows))
            async with at_most(10, "the new day of all others"):
                await entries(store, 2 * len(good))
            _, out, _ = await poller(service, "explain", guilty)
            assert f"{guilty}: OpenD hangs up when asked for it" in out
            faults.hangs_up.clear()
            await service.said(f"{guilty}: recovered")
            await entries(store, 1, guilty)
        assert await service.stop() == 0
        assert max(gateway.most_in_window() for gateway in gateways) <= 30
    line, end = service.told_of(guilty)
    assert is_documented(line)
    assert f"poller watch remove {guilty}" in line
    assert end == f"{guilty}: recovered"
    warned = [each["event"] for each in service.log() if each["level"] == "warning"]
    assert all(text.startswith(("OpenD ", f"{guilty}: ")) for text in warned)
