"""When one symbol of a market is probed next while no release is swept, and why. Pure."""

from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from poller.markets import Market
from poller.schedule.release import Intervals, Window, next_probe

SCATTERED: Final = 4
"""How much oftener a market is watched whose reports came symbol by symbol: few of many show it."""

RELIED: Final = 6
"""How much more rarely a market is probed whose rank has told of its reports first.

Not more rarely still: the one report that the rank fails to tell of is seen that much later. One in
a year costs 0.9 % of the mean latency; a symbol and report take 1.2 requests in all.
"""

HOLD: Final = timedelta(seconds=2)
"""Longest wait of a sweep at a time for pages of the rank that are under way."""

LONG_AGO: Final = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)


class Watch:
    """The probes of one market.

    Attributes:
        at: When the next one is due (aware).
        reason: Why then.
        pause: From the last one to the next, without regard to the rank.
        hears_rank: Whether a move in the market's rank brings it forward.
        relies_on_rank: Whether the rank tells of reports first; see `RELIED`.
    """

    def __init__(self, market: Market, intervals: Intervals) -> None:
        self.at = LONG_AGO
        self.reason = "nothing of this market was looked at since the start"
        self.pause = timedelta()
        self._planned_at = LONG_AGO
        self.hears_rank = self.relies_on_rank = False
        self._market = market
        self.configure(intervals)

    def configure(self, intervals: Intervals) -> None:
        """Plan by these intervals from now on."""
        self._intervals = intervals

    def plan(self, window: Window, now: datetime, *, scattered: bool) -> None:
        """Plan the next probe. `scattered`: the last report came symbol by symbol."""
        intervals = self._intervals
        if scattered:
            intervals = replace(intervals, due=intervals.due / SCATTERED)
        self.at, self.reason = next_probe(self._market, window, now, intervals)
        self.pause, self._planned_at = self.at - now, now
        if self.relies_on_rank and not scattered:
            relying = Intervals(*(RELIED * each for each in astuple(intervals)))
            self.at, self.reason = next_probe(self._market, window, now, relying)

    def rely_on_rank(self, *, relied: bool) -> None:
        """Probe more rarely from now on, or as often as ever."""
        if self.relies_on_rank and not relied:
            self.cap(self._planned_at + self.pause)
        self.relies_on_rank = relied

    def hurry(self, reason: str) -> None:
        """Probe at once."""
        self.at, self.reason = LONG_AGO, reason

    def cap(self, latest: datetime) -> None:
        """Wait until `latest` at most."""
        self.at = min(self.at, latest)
