"""When one symbol of a market is probed next while no release is swept, and why. Pure."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from poller.markets import Market
from poller.schedule.release import Intervals, Window, next_probe

SCATTERED: Final = 4
"""How much oftener a market is watched whose reports came symbol by symbol: few of many show it."""

RELIED: Final = 4
"""How much more rarely a market is probed while a report is due and its rank tells of it first.

Not more rarely still: the one report that the rank fails to tell of is then seen this much later,
and requests that are not spent on probes have no other use.
"""

LONG_AGO: Final = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)


class Watch:
    """The probes of one market. `at`: when the next one is due (aware); `reason`: why."""

    def __init__(self, market: Market, intervals: Intervals) -> None:
        self.at = LONG_AGO
        self.reason = "nothing of this market was looked at since the start"
        self.pause = timedelta()  # until the next probe, when it was planned
        self.relies_on_rank = False
        self._market = market
        self.configure(intervals)

    def configure(self, intervals: Intervals) -> None:
        """Plan by these intervals from now on."""
        self._intervals = intervals

    def plan(self, window: Window, now: datetime, *, scattered: bool) -> None:
        """Plan the next probe. `scattered`: the last report came symbol by symbol."""
        due, why = self._intervals.due, ""
        if scattered:
            due /= SCATTERED
        elif self.relies_on_rank:
            due, why = min(RELIED * due, self._intervals.idle), "; the rank is read in between"
        steps = replace(self._intervals, due=due)
        self.at, self.reason = next_probe(self._market, window, now, steps)
        self.pause = self.at - now
        self.reason += why

    def hurry(self, reason: str) -> None:
        """Probe at once."""
        self.at, self.reason = LONG_AGO, reason

    def cap(self, latest: datetime) -> None:
        """Wait until `latest` at most."""
        self.at = min(self.at, latest)
