"""What the ranks of the markets tell the schedule; `rank` holds the rules of one. Pure."""

from collections.abc import Callable, Container, Iterable, Mapping
from datetime import datetime

from poller.markets import Market
from poller.model import Code, RankPage, market_of
from poller.schedule.belief import Told
from poller.schedule.market import MarketQueue
from poller.schedule.rank import MarketRank, RankRequest


class Hints:
    """The ranks of all markets that have one and are watched."""

    def __init__(self, queues: Callable[[], Mapping[Market, MarketQueue]]) -> None:
        """`queues`: returns the plans of the markets."""
        self._queues = queues
        self._ranks: dict[Market, MarketRank] = {}

    def tick(self, now: datetime) -> list[Told]:
        """Take note of the time, and of what the schedule has found."""
        return [told for rank in self._watched() for told in rank.tick(now)]

    def due_at(self, allowed: Container[Market]) -> datetime | None:
        """Return when there is something to read of a market that is `allowed`."""
        return min((r.due_at() for r in self._watched() if r.market in allowed), default=None)

    def next(self, now: datetime, allowed: Container[Market]) -> RankRequest | None:
        """Return the page to read now, of a market with a release before all others."""
        ranks = [rank for rank in self._watched() if rank.market in allowed]
        requests = (rank.next(now) for rank in sorted(ranks, key=lambda rank: not rank.is_urgent))
        return next((request for request in requests if request is not None), None)

    def read(self, request: RankRequest, page: RankPage, now: datetime) -> list[Told]:
        """Take a page that was read."""
        return list(self._ranks[request.market].read(request, page, now))

    def failed(self, request: RankRequest, now: datetime) -> None:
        """Take note that a page could not be read."""
        self._ranks[request.market].failed(request, now)

    def reported(self, code: Code, before: float, after: float) -> list[Told]:
        """Compare what was told of a symbol with its new report; both figures are shares."""
        rank = self._ranks.get(market_of(code))
        return [] if rank is None else list(rank.reported(code, before, after))

    def rest(self, markets: Iterable[Market]) -> None:
        """Do without the ranks of these markets from now on."""
        for market in markets:
            if (rank := self._ranks.get(market)) is not None:
                rank.rest()

    def has_changed(self) -> bool:
        """Return whether there is something else to do than when this was asked before."""
        changed = False
        for rank in self._ranks.values():
            changed, rank.changed = changed or rank.changed, False
        return changed

    @property
    def markets(self) -> list[Market]:
        """The markets whose rank is worth reading."""
        return [rank.market for rank in self._watched()]

    def _watched(self) -> list[MarketRank]:
        found = []
        for market, queue in self._queues().items():
            if not market.has_rank or not queue.symbols:
                continue
            rank = self._ranks.get(market)
            if rank is None or rank.queue is not queue:  # the plans were restored
                rank = self._ranks[market] = MarketRank(queue)
            found.append(rank)
        return found
