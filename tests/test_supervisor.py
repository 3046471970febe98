"""Bulkheads: a component that fails is started again, and nobody else notices."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from poller.errors import LeaseLost, StoreMisfit, Unavailable
from poller.simulator.virtual import run_virtually
from poller.supervisor import LONGEST_PAUSE, STEADY, supervise
from poller.telemetry.log import fingerprint
from poller.telemetry.observe import (
    LONGEST_TURN,
    Defect,
    Fact,
    Happened,
    HeartbeatBeat,
    Recovered,
    Trouble,
    to_all,
)


def virtually(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run in virtual time."""
    run_virtually(datetime(2026, 5, 8, tzinfo=UTC), work())


class Component:
    """Fails as it is told to, each time after a while; then works for ever."""

    def __init__(self, *endings: BaseException, after: float = 0.0) -> None:
        self.endings = list(endings)
        self.after = after
        self.starts: list[float] = []

    async def __call__(self) -> None:
        """Work."""
        self.starts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.after)
        if self.endings:
            raise self.endings.pop(0)
        await asyncio.Event().wait()


def test_a_defect_is_told_and_the_component_starts_again() -> None:
    """At its start, in mid-work, again and again: with pauses of 1, 2, 4, … up to 300 s."""

    async def story() -> None:
        facts: list[Fact] = []
        failing = Component(*(ValueError(str(n)) for n in range(12)), after=0.5)
        task = asyncio.create_task(supervise("webhook desk", failing, facts.append))
        await asyncio.sleep(10_000)
        gaps = [b - a - 0.5 for a, b in zip(failing.starts, failing.starts[1:], strict=False)]
        expected = [min(2.0**n, LONGEST_PAUSE) for n in range(12)]
        assert gaps == pytest.approx(expected)
        defects = [fact for fact in facts if isinstance(fact, Defect)]
        assert len(defects) == 12
        assert len({defect.fingerprint for defect in defects}) == 1
        assert {(defect.component, defect.label) for defect in defects} == {("webhook desk",) * 2}
        assert facts[-1] == Recovered("webhook desk")
        task.cancel()

    virtually(story)


def test_others_do_not_notice() -> None:
    """While one fails for ever, its neighbour ticks without a gap."""

    async def story() -> None:
        ticks: list[float] = []

        async def ticking() -> None:
            while True:
                ticks.append(asyncio.get_running_loop().time())
                await asyncio.sleep(1)

        failing = Component(*(RecursionError() for _ in range(500)))
        async with asyncio.timeout(1000), asyncio.TaskGroup() as group:
            group.create_task(supervise("failing", failing, lambda _: None))
            group.create_task(supervise("ticking", ticking, lambda _: None))
            await asyncio.sleep(500)
            assert ticks == pytest.approx([float(n) for n in range(len(ticks))])
            assert len(ticks) == 500
            raise StopIteration

    with pytest.raises(ExceptionGroup):
        virtually(story)


def test_steady_work_forgets_the_pause() -> None:
    """Who ran for a minute pauses as at first; who did not has not recovered."""

    async def story() -> None:
        facts: list[Fact] = []
        failing = Component(ValueError(), ValueError(), ValueError(), after=STEADY + 1)
        task = asyncio.create_task(supervise("page", failing, facts.append))
        await asyncio.sleep(1000)
        gaps = [b - a for a, b in zip(failing.starts, failing.starts[1:], strict=False)]
        assert gaps == pytest.approx([STEADY + 2] * 3)
        assert facts.count(Recovered("page")) == 3
        task.cancel()

    virtually(story)


def test_what_the_project_knows_is_trouble_and_no_defect() -> None:
    """An error of ours is told in its own words, without a traceback."""

    async def story() -> None:
        facts: list[Fact] = []
        work = Component(StoreMisfit("the key x holds a list"))
        task = asyncio.create_task(supervise("plan", work, facts.append))
        await asyncio.sleep(5)
        assert Trouble("plan", "the key x holds a list") in facts
        assert not any(isinstance(fact, Defect) for fact in facts)
        assert len(work.starts) == 2
        task.cancel()

    virtually(story)


def test_a_pause_is_no_hang() -> None:
    """Whoever pauses for minutes beats at least once a turn, so that the watchdog waits for it."""

    async def story() -> None:
        beats: list[float] = []

        def observe(fact: Fact) -> None:
            if isinstance(fact, HeartbeatBeat):
                beats.append(asyncio.get_running_loop().time())

        failing = Component(*(ValueError() for _ in range(8)))
        task = asyncio.create_task(supervise("page", failing, observe))
        await asyncio.sleep(200)
        assert len(failing.starts) == 8
        assert max(b - a for a, b in pairwise(beats)) <= LONGEST_TURN
        task.cancel()

    virtually(story)


def test_an_error_without_words_is_told_by_its_name() -> None:
    """A line that ends with a colon would tell nobody anything."""

    async def story() -> None:
        facts: list[Fact] = []
        task = asyncio.create_task(supervise("plan", Component(StoreMisfit()), facts.append))
        await asyncio.sleep(5)
        assert Trouble("plan", "StoreMisfit") in facts
        task.cancel()

    virtually(story)


@pytest.mark.parametrize(
    "ending", [LeaseLost("x"), ExceptionGroup("two", [ValueError(), LeaseLost("x")])]
)
def test_what_is_fatal_is_raised(ending: Exception) -> None:
    """Also out of a group, beside a defect."""

    async def story() -> None:
        with pytest.raises((LeaseLost, ExceptionGroup)):
            await supervise("poll", Component(ending), lambda _: None, fatal=(LeaseLost,))

    virtually(story)


def test_a_cancellation_ends_it_at_once() -> None:
    """While it works and while it rests; one that leaked from elsewhere is a defect."""

    async def story() -> None:
        facts: list[Fact] = []
        work = Component(asyncio.CancelledError(), Unavailable("x"))
        task = asyncio.create_task(supervise("gateway", work, facts.append))
        await asyncio.sleep(2)
        assert any(isinstance(fact, Defect) for fact in facts)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
        assert task.cancelled()

    virtually(story)


def test_a_defect_while_stopping_stops_nobody() -> None:
    """A component that fails while it closes is told of, and ends like the others."""

    async def story() -> None:
        facts: list[Fact] = []

        async def clumsy() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise OSError("it would not close")

        task = asyncio.create_task(supervise("page", clumsy, facts.append))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
        assert task.cancelled()
        assert [fact.component for fact in facts if isinstance(fact, Defect)] == ["page"]

    virtually(story)


def test_who_returns_has_ended() -> None:
    """A component that is done is not started again."""

    async def story() -> None:
        async def nothing() -> None:
            return

        await supervise("once", nothing, lambda _: None)

    virtually(story)


def test_a_reader_of_facts_that_fails_is_alone() -> None:
    """The observer does not raise, the other readers get the fact, and the defect is reported."""
    heard: list[Fact] = []

    def broken(fact: Fact) -> None:
        raise ValueError(repr(fact))

    observe = to_all(broken, heard.append)
    observe(Happened("x"))
    assert Happened("x") in heard
    assert [fact.label for fact in heard if isinstance(fact, Defect)] == ["reader"]


def test_readers_that_fail_at_everything_are_alone() -> None:
    """Two readers that cannot be told of each other's defect either disturb nobody else."""
    heard: list[Fact] = []

    def broken(fact: Fact) -> None:
        raise ValueError(repr(fact))

    def deaf(fact: Fact) -> None:
        raise KeyError(type(fact))

    to_all(broken, deaf, heard.append)(Happened("x"))
    assert Happened("x") in heard
    assert any(isinstance(fact, Defect) for fact in heard)


def test_the_fingerprint_names_the_place_and_not_the_text() -> None:
    """The same line with another text has the same fingerprint; another type has not."""

    def caught(error: Exception) -> Exception:
        try:
            raise error
        except Exception as found:  # noqa: BLE001
            return found

    one, other = caught(ValueError("a")), caught(ValueError("b"))
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one) != fingerprint(caught(TypeError("a")))
