"""Reads the ranks of the markets, and hands what they show to `schedule.hints`.

A hint may cost nothing that the reports need: it has budgets of its own, its silence replaces no
connection, and whatever goes wrong with it rests it, for ever longer, and nothing else.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol

from poller.clock import News, wall_clock
from poller.errors import (
    Disconnected,
    GatewayError,
    Malformed,
    StoreDown,
    StoreMisfit,
    TooFrequent,
    Unavailable,
)
from poller.markets import Market
from poller.model import Event, EventType, RankPage
from poller.polling.budget import Budget, Grant
from poller.schedule.belief import About, Told
from poller.schedule.hints import Hints
from poller.schedule.rank import RankRequest
from poller.telemetry.observe import (
    Fact,
    Happened,
    Observe,
    Published,
    Recovered,
    Trouble,
    budget_of,
)

RANK_REQUESTS: Final = 60
RANK_PERIOD: Final = 30.0
"""The limit on requests for the rank, from Futu's example of the call; not known to be apart from
that of short interest."""

IN_FLIGHT: Final = 8
"""Pages asked for at once at an account."""

_TURN: Final = 30.0  # seconds without news, after which the plan is looked at all the same
_OFF_TURN: Final = 3_600.0
_STORE_PAUSE: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Pauses:
    """How long a rank rests that could not be read; doubled each time."""

    first: timedelta
    longest: timedelta


_SILENT: Final = _Pauses(timedelta(seconds=30), timedelta(hours=1))
_REFUSED: Final = _Pauses(timedelta(hours=1), timedelta(days=1))
_SHARED: Final = _Pauses(timedelta(days=7), timedelta(days=28))
"""Where its requests seem to count with those for short interest, which must not suffer.

It is longer than a report lasts, and not forgotten: between two reports any page can be read.
"""


@dataclass(slots=True)
class _Rest:
    until: datetime
    pause: timedelta
    pauses: _Pauses
    told: bool = True


class RankSource(Protocol):
    """One OpenD, seen from here."""

    account: str

    @property
    def ready(self) -> bool:
        """Whether a call can be made now."""

    async def rank(self, market: Market, offset: int) -> RankPage:
        """Return a market's symbols from `offset` on, largest position first."""


class Planner(Protocol):
    """The poller, seen from here."""

    def replan(self) -> None:
        """Look again at what is due."""

    def rests(self, account: str, market: Market) -> bool:
        """Return whether an account is not asked for a market, for want of a right."""


class RankReader:
    """Reads the ranks through every account, each within a budget of its own."""

    def __init__(
        self,
        sources: Sequence[RankSource],
        budgets: Mapping[str, Budget],
        hints: Hints,
        observe: Observe,
        now: Callable[[], datetime] = wall_clock,
    ) -> None:
        """`budgets`: by account, for this call alone."""
        self._sources = sources
        self._budgets = budgets
        self._hints = hints
        self._observe = observe
        self._now = now
        self._rests: dict[tuple[str, Market], _Rest] = {}
        self._asked_at: dict[str, datetime] = {}
        self._news = News()
        self._is_on = True
        self._planner: Planner | None = None

    def configure(self, hints: Literal["auto", "off"]) -> None:
        """Read from now on, or do without."""
        self._is_on = hints == "auto"
        if not self._is_on:
            self._hints.rest(self._hints.markets)
            for market in self._hints.markets:
                for about in About:
                    self._observe(Recovered(_use(about, market)))
            for account, market in self._rests:
                self._observe(Recovered(_subject(market, account)))
            self._rests.clear()
        self._notify()

    def notice(self, fact: Fact) -> None:
        """Take note of a fact of the poller's."""
        match fact:
            case Published(_, events):
                self._compare(events)
                self._notify()
            case Trouble(subject, _):
                for account in self._budgets:
                    if subject == budget_of(account):
                        self._spare(account)

    def _compare(self, events: Sequence[Event]) -> None:
        """Compare what the rank told of a symbol with all that it reported since it was asked."""
        reported = [event for event in events if event.type is EventType.REPORTED]
        if not reported or (previous := reported[0].previous) is None:
            return
        before, after = previous.shares, reported[-1].vintage.record.shares
        if before is not None and after is not None:
            self._tell(self._hints.reported(reported[0].code, before, after))

    def _spare(self, account: str) -> None:
        """Rest, where a request for short interest was refused for the rate shortly after ours."""
        asked = self._asked_at.get(account)
        age = None if asked is None else self._now() - asked
        if age is not None and timedelta() <= age <= timedelta(seconds=RANK_PERIOD):
            problem = "OpenD seems to count its requests with those for short interest"
            for market in self._hints.markets:
                self._rest(account, market, _SHARED, problem)

    async def run(self, planner: Planner) -> None:
        """Read for ever."""
        self._planner = planner
        try:
            async with asyncio.TaskGroup() as group:
                for account in self._budgets:
                    group.create_task(self._work(account, planner, group), name=f"rank {account}")
        finally:
            self._hints.rest(self._hints.markets)

    async def _work(self, account: str, planner: Planner, group: asyncio.TaskGroup) -> None:
        places, budget = asyncio.Semaphore(IN_FLIGHT), self._budgets[account]
        while True:
            seen, now = self._news.count, self._now()
            if not self._is_on:
                await self._news.wait(seen, _OFF_TURN)
                continue
            self._tell(self._hints.tick(now))
            self._pass_on(planner)
            due_at = self._hints.due_at(self._allowed(account))
            wait = _TURN if due_at is None else (due_at - now).total_seconds()
            source = self._source(account)
            if source is None or wait > 0:
                await self._news.wait(seen, min(wait, _TURN) if source else 1.0)
                continue
            await places.acquire()
            try:
                grant = await budget.acquire()
            except (StoreDown, StoreMisfit):  # which polling tells
                places.release()
                await asyncio.sleep(_STORE_PAUSE)
                continue
            request = self._hints.next(self._now(), self._allowed(account))
            if request is None:
                places.release()
                await budget.settle(grant, answered=True)
                continue
            name = f"rank of {request.market} from {request.offset}"
            reading = group.create_task(self._read(source, budget, grant, request), name=name)

            def ended(_: object) -> None:
                places.release()
                self._pass_on(planner)
                self._notify()  # the next page can be waited for

            reading.add_done_callback(ended)

    def _pass_on(self, planner: Planner) -> None:
        """Let everybody look again, if there is something else to do."""
        if self._hints.has_changed():
            planner.replan()
            self._notify()

    async def _read(
        self, source: RankSource, budget: Budget, grant: Grant, request: RankRequest
    ) -> None:
        """Read one page, and settle it whatever comes."""
        account, market, answered = source.account, request.market, True
        self._asked_at[account] = self._now()
        try:
            page = await source.rank(market, request.offset)
            if not page.total:
                raise Malformed("OpenD's list is empty")
        except Disconnected:
            answered = False  # the gateway's trouble, which its supervisor tells
        except Unavailable as problem:
            answered = False
            self._rest(account, market, _SILENT, str(problem))
        except TooFrequent:
            await budget.exhaust()
            self._rest(account, market, _SHARED, "OpenD refuses it for the rate, within its limit")
        except GatewayError as problem:
            self._rest(account, market, _REFUSED, str(problem))
        else:
            if self._is_on:
                self._recovered(account, market)
                self._tell(self._hints.read(request, page, self._now()))
                return
        finally:
            await budget.settle(grant, answered=answered)
        self._hints.failed(request, self._now())

    def _rest(self, account: str, market: Market, pauses: _Pauses, problem: str) -> None:
        """Do not read a rank through an account for a while, and tell it."""
        now, rest = self._now(), self._rests.get((account, market))
        if self._is_resting(account, market, now) and rest and pauses.first <= rest.pauses.first:
            return  # it was under way as well
        pause = pauses.first if rest is None else min(2 * rest.pause, pauses.longest)
        pause = max(pause, pauses.first)
        self._rests[account, market] = _Rest(now + pause, pause, pauses)
        text = f"{problem}; reports are found without it; read again in {_spelled(pause)}"
        self._observe(Trouble(_subject(market, account), text))
        if not any(market in self._allowed(other) for other in self._budgets):
            self._hints.rest([market])

    def _recovered(self, account: str, market: Market) -> None:
        """Let a rest end; one for a shared limit is remembered, as it shows in a sweep only."""
        rest = self._rests.get((account, market))
        if rest is None or not rest.told:
            return
        self._observe(Recovered(_subject(market, account)))
        if rest.pauses is _SHARED:
            rest.told = False
        else:
            del self._rests[account, market]

    def _is_resting(self, account: str, market: Market, now: datetime) -> bool:
        rest = self._rests.get((account, market))
        return rest is not None and now < rest.until <= now + rest.pause

    def _allowed(self, account: str) -> Collection[Market]:
        """Return the markets whose rank this account may be asked for now."""
        planner = self._planner
        if not self._is_on or planner is None:
            return ()
        now = self._now()
        return [
            market
            for market in self._hints.markets
            if not (planner.rests(account, market) or self._is_resting(account, market, now))
        ]

    def _source(self, account: str) -> RankSource | None:
        ready = (one for one in self._sources if one.account == account and one.ready)
        return next(ready, None)

    def _tell(self, told: Iterable[Told]) -> None:
        for each in told:
            subject = _use(each.about, each.market)
            match each.begins:
                case None:
                    self._observe(Happened(f"rank of {each.market}: {each.text}"))
                case True:
                    self._observe(Trouble(subject, each.text))
                case False:
                    self._observe(Recovered(subject, each.text))

    def _notify(self) -> None:
        self._news.tell()


def _subject(market: Market, account: str) -> str:
    return f"rank of {market} at account {account}"


def _use(about: About, market: Market) -> str:
    return f"{about} of the rank of {market}"


def _spelled(pause: timedelta) -> str:
    """Return a duration in its largest unit."""
    units = (("days", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    seconds = int(pause.total_seconds())
    name, size = next(unit for unit in units if seconds >= unit[1])
    count = seconds // size
    return f"{count} {name.removesuffix('s') if count == 1 and name == 'days' else name}"
