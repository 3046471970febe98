"""Puts names into the notices of a report, and the biggest moves into that it is complete.

They are an addition: whatever goes wrong with reading the moves, the notice is announced without.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Final

from poller.errors import PollerError
from poller.markets import Market
from poller.model import Code
from poller.polling.naming import KnownOf, NamedStore
from poller.schedule.notice import MOST_NAMED, Completed, Mover, Notice, biggest_moves
from poller.schedule.report import Standing
from poller.store.archive import Archive
from poller.store.ports import Plans, PollerStore
from poller.store.reports import read_report
from poller.store.store import Lease
from poller.telemetry.observe import Happened, Observe

Standings = Callable[[Market, date], Awaitable[Sequence[Standing]]]
"""Reads the standing of each symbol that shows a report; may raise PollerError."""

LIMIT: Final = 5.0
"""Seconds that a notice waits for the figures; ten thousand symbols take three, if it is busy."""


class MovingPlans(Plans):
    """Plans whose notices have names, and those of complete reports say who moved most."""

    def __init__(
        self, plans: Plans, standings: Standings, known_of: KnownOf, observe: Observe
    ) -> None:
        self.keys = plans.keys
        self._plans = plans
        self._standings = standings
        self._known_of = known_of
        self._observe = observe

    async def announce(self, notice: Notice, lease: Lease) -> Notice | None:
        """See `Plans.announce`."""
        lacking = ""
        if isinstance(notice, Completed):
            biggest, lacking = await self._biggest(notice)
            notice = replace(
                notice, biggest=biggest, names=self._names(notice.missing[:MOST_NAMED])
            )
        else:
            notice = replace(notice, name=self._known_of(notice.code).name)
        announced = await self._plans.announce(notice, lease)
        # only now: until it is announced, this is tried again and again
        if announced is not None and lacking:
            self._observe(Happened("a notice without biggest moves", (("reason", lacking),)))
        return announced

    def _names(self, codes: Sequence[Code]) -> dict[Code, str]:
        found = ((code, self._known_of(code).name) for code in codes)
        return {code: name for code, name in found if name is not None}

    async def schedule(self) -> dict[str, str]:
        """See `Plans.schedule`."""
        return await self._plans.schedule()

    async def save_schedule(self, texts: Mapping[str, str], lease: Lease) -> None:
        """See `Plans.save_schedule`."""
        await self._plans.save_schedule(texts, lease)

    async def _biggest(self, notice: Completed) -> tuple[tuple[Mover, ...] | None, str]:
        """Return the biggest moves and "", or None and why they are not known."""
        try:
            async with asyncio.timeout(LIMIT):
                standings = await self._standings(notice.market, notice.day)
            return biggest_moves(standings, lambda code: self._known_of(code).name), ""
        except TimeoutError:
            return None, f"the figures were not read within {LIMIT:g} s"
        except PollerError as problem:
            return None, str(problem)
        except Exception as problem:  # noqa: BLE001  a defect here must not keep the notice back
            return None, f"defect: {problem!r}"


def described_store(
    store: PollerStore, archive: Archive, known_of: KnownOf, observe: Observe
) -> NamedStore:
    """Return the poller's store with all that is added to events and notices on their way."""
    plans = MovingPlans(store.plans, standings_in(archive), known_of, observe)
    return NamedStore(store, known_of, plans)


def standings_in(archive: Archive) -> Standings:
    """Return a function that reads the standings of a report."""

    async def read(market: Market, day: date) -> Sequence[Standing]:
        report = await read_report(archive, market, day, watched=(), newest=None)
        return report.standings

    return read
