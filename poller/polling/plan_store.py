"""Persists the plan and publishes its notices.

Order of effects: a notice is appended before the plan that counts it as announced is saved. After a
kill in between, the next poller derives the notice again from plan and watermarks, under the same
id, which the store accepts only once.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from datetime import date, datetime
from functools import partial
from typing import Final

from poller.clock import wall_clock
from poller.errors import LeaseLost, StoreDown, StoreError, StoreMisfit, Unreadable
from poller.markets import Market, all_markets
from poller.model import market_of, newest_days
from poller.schedule.notice import Notice
from poller.schedule.release import MarketState
from poller.schedule.schedule import Schedule
from poller.store.ports import Plans, Watermarks
from poller.store.store import Lease
from poller.supervisor import supervise
from poller.telemetry.observe import Announced, Observe, Recovered, Trouble, redis_trouble

_STORE_PAUSE: Final = 1.0
_SAVE_PAUSE: Final = 5.0  # what changes meanwhile is saved together
_LONGEST_PAUSE: Final = 60.0
_NEVER: Final = -1  # no version of a schedule
_PLAN: Final = "plan"
_WATERMARKS: Final = "watermarks"
_STREAM: Final = "stream of releases"


class PlanStore:
    """Restores a schedule, announces its notices and saves its state."""

    def __init__(
        self,
        watermarks: Watermarks,
        plans: Plans,
        schedule: Schedule,
        observe: Observe,
        now: Callable[[], datetime] = wall_clock,
    ) -> None:
        self._watermarks = watermarks
        self._plans = plans
        self._schedule = schedule
        self._observe = observe
        self._now = now
        self._pending: deque[Notice] = deque()
        self._news = asyncio.Event()
        self._replanned = asyncio.Event()
        self._saved = schedule.version

    def note(self, notices: Iterable[Notice]) -> None:
        """Queue notices to announce, and save the plan soon if it has changed."""
        self._pending.extend(notices)
        if self._pending:
            self._news.set()
        if self._schedule.version != self._saved:
            self._replanned.set()

    async def restore(self) -> None:
        """Load watermarks and plan, to continue where the last poller stopped."""
        self._pending.clear()  # the restored plan produces these notices again
        pause = _STORE_PAUSE
        while True:
            try:
                watermarks = await self._watermarks.watermarks()
                texts = await self._saved_texts()
            except StoreDown as problem:
                self._observe(redis_trouble(problem))
                await asyncio.sleep(_STORE_PAUSE)
            except StoreMisfit as problem:
                self._observe(Trouble(_WATERMARKS, str(problem)))
                await asyncio.sleep(pause := min(2 * pause, _LONGEST_PAUSE))
            else:
                break
        self._observe(Recovered(_WATERMARKS))
        now = self._now()
        # one in the future is reported, with its fix, when its symbol is polled
        past = {
            code: day
            for code, day in watermarks.items()
            if day <= now.astimezone(market_of(code).zone).date()
        }
        newest = newest_days(past)
        states, unusable = {}, False
        for market in all_markets():
            states[market], wrong = _believed(texts.get(market.name, "{}"), newest.get(market))
            if wrong:
                reason = f"the field {market} of {self._plans.keys.schedule} {wrong}"
                self._observe(Trouble(_plan_of(market), f"{reason}; it is replaced soon"))
                unusable = True
        self._schedule.restore(past, states)
        self._saved = _NEVER if unusable else self._schedule.version
        if unusable:
            self._replanned.set()

    async def _saved_texts(self) -> dict[str, str]:
        try:
            return await self._plans.schedule()
        except StoreMisfit as problem:
            self._observe(Trouble(_PLAN, f"{problem}; it is learned again"))
            return {}

    async def keep(self, lease: Lease) -> None:
        """Announce and save whatever is pending, for ever; raises LeaseLost (in a group)."""
        parts = (("release notices", self._announce_all), ("plan", self._keep_plan))
        async with asyncio.TaskGroup() as group:
            for name, work in parts:
                supervised = supervise(
                    name, partial(work, lease), self._observe, fatal=(LeaseLost,)
                )
                group.create_task(supervised, name=name)

    async def close(self, lease: Lease) -> None:
        """Announce and save what is left; without a store, the next poller derives it again."""
        with contextlib.suppress(StoreError):
            await self._announce_pending(lease)
            await self._save(lease)

    async def _announce_all(self, lease: Lease) -> None:
        while True:
            await self._news.wait()
            try:
                await self._announce_pending(lease)
            except StoreDown as problem:
                self._observe(redis_trouble(problem))
            except StoreMisfit as problem:
                self._observe(Trouble(_STREAM, str(problem)))  # polling does not depend on it
            else:
                continue
            await asyncio.sleep(_STORE_PAUSE)

    async def _announce_pending(self, lease: Lease) -> None:
        while self._pending:
            notice = self._pending[0]
            if (announced := await self._plans.announce(notice, lease)) is not None:
                self._observe(Announced(announced))
            self._observe(Recovered(_STREAM))
            self._pending.popleft()
        self._news.clear()

    async def _keep_plan(self, lease: Lease) -> None:
        pause = _SAVE_PAUSE
        while True:
            await self._replanned.wait()
            try:
                await self._save(lease)
            except StoreDown as problem:
                self._observe(redis_trouble(problem))
                self._replanned.set()
            except StoreMisfit as problem:
                self._observe(Trouble(_PLAN, f"{problem}; it is not kept"))
                self._replanned.set()
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._observe(Recovered(_PLAN))
                pause = _SAVE_PAUSE
            await asyncio.sleep(pause)

    async def _save(self, lease: Lease) -> None:
        if self._pending:
            return  # soon
        self._replanned.clear()
        version = self._schedule.version
        if version != self._saved:
            states = self._schedule.states()
            texts = {market.name: state.to_json() for market, state in states.items()}
            await self._plans.save_schedule(texts, lease)
            self._saved = version
            for market in states:
                self._observe(Recovered(_plan_of(market)))


def _plan_of(market: Market) -> str:
    return f"plan of {market}"


def _believed(text: str, newest: date | None) -> tuple[MarketState, str]:
    """Return a stored plan as far as it can be true, and what is wrong with it.

    `newest`: the newest watermark of its market.
    """
    try:
        stored = MarketState.from_json(text)
    except Unreadable as problem:
        return MarketState(), f"is unusable ({problem})"
    state = stored.until(newest)
    return state, "" if state == stored else "tells of releases after the newest watermark"
