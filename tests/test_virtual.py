"""Virtual time: order and instants as in real time, at no cost; a deadlock is reported."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from poller.clock import News
from poller.simulator.virtual import Deadlock, VirtualLoop, run_virtually

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_year_of_sleeping_keeps_order_and_instants() -> None:
    """Sleepers wake in the order and at the instants they asked for."""

    async def year() -> list[tuple[str, datetime]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        woken: list[tuple[str, datetime]] = []

        async def sleeper(name: str, days: float, times: int) -> None:
            for _ in range(times):
                await asyncio.sleep(days * 86400)
                woken.append((name, loop.now()))

        async with asyncio.TaskGroup() as group:
            group.create_task(sleeper("weekly", 7, 52))
            group.create_task(sleeper("monthly", 30.5, 12))
        return woken

    woken = run_virtually(BEGAN, year())
    instants = [instant for _, instant in woken]
    assert instants == sorted(instants)
    weeks = [instant for name, instant in woken if name == "weekly"]
    assert len(weeks) == 52
    assert abs(weeks[-1] - (BEGAN + timedelta(days=364))) < timedelta(seconds=1e-3)


def test_timeouts_count_virtual_seconds() -> None:
    """A timeout of an hour ends what would take two."""

    async def work() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.sleep(7200)
        return asyncio.get_running_loop().time()

    assert run_virtually(BEGAN, work()) == pytest.approx(3600, abs=1e-3)


def test_a_deadlock_is_reported_at_once() -> None:
    """Waiting for what nobody will ever do is an error, not a hang."""

    async def work() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run_virtually(BEGAN, work())


def test_news_wakes_everybody_once_and_is_never_missed() -> None:
    """What was told before somebody waits counts; without news, the time ends the wait."""

    async def work() -> list[float]:
        news, woken, loop = News(), list[float](), asyncio.get_running_loop()

        async def reader(seconds: float) -> None:
            await news.wait(0, seconds)
            woken.append(loop.time())

        async with asyncio.TaskGroup() as group:
            for seconds in (3600, 3600, 10):
                group.create_task(reader(seconds))
            await asyncio.sleep(60)
            news.tell()
            await asyncio.sleep(60)
            await reader(3600)  # told already
            cancelled = asyncio.create_task(news.wait(news.count, 3600))
            await asyncio.sleep(0)
            cancelled.cancel()
            news.tell()  # nobody is left who could be woken
        return woken

    assert run_virtually(BEGAN, work()) == pytest.approx([10, 60, 60, 120], abs=1e-3)


def test_the_end_waits_for_no_thread() -> None:
    """One that the loop has started may outlive it: waiting for it would be a deadlock."""
    free = threading.Event()

    async def work() -> None:
        asyncio.get_running_loop().run_in_executor(None, free.wait)
        await asyncio.sleep(1)

    try:
        run_virtually(BEGAN, work())
    finally:
        free.set()
