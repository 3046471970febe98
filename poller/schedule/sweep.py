"""How long a release is swept: at the full rate while answers bring news, then in blocks. Pure.

When a release appears for all symbols at once, the only misses are symbols that stopped reporting,
so a run of misses ends the sweep. Misses among symbols that were up to date, mixed with hits, mean
a staggered release: then the sweep pauses only after a whole pass without news.
"""

from collections import deque
from datetime import datetime, timedelta
from typing import Final

from poller.schedule.release import Intervals

BLOCK: Final = 30
"""Answers without news after which a sweep pauses, and the size of the block after a pause."""

_LONGEST: Final = timedelta(hours=6)
_FIRST: Final = timedelta(minutes=1)
_EXHAUSTED: Final = 32  # times the first pause: five blocks in a row brought nothing
_STAGGERED: Final = 3  # so many hits and misses each make a release staggered


class Sweep:
    """The sweeps of one market, one after the other."""

    def __init__(self, intervals: Intervals) -> None:
        self.running = False
        self.resumes: datetime | None = None
        self.configure(intervals)
        self.pause = self._first
        self._answers: deque[bool] = deque(maxlen=BLOCK)
        self._hits = self._misses = self._kept_up_misses = 0
        self._again = False  # a block after a pause

    def configure(self, intervals: Intervals) -> None:
        """Use these intervals, starting with the next pause."""
        self._first = min(4 * intervals.due, _FIRST)
        self._longest = max(min(18 * intervals.idle, _LONGEST), _EXHAUSTED * self._first)

    @property
    def low_yield(self) -> bool:
        """Whether less than half of the last answers brought news."""
        return len(self._answers) == BLOCK and sum(self._answers) < BLOCK / 2

    @property
    def staggered(self) -> bool:
        """Whether this release has come symbol by symbol so far."""
        return min(self._hits, self._kept_up_misses) >= _STAGGERED

    @property
    def is_exhausted(self) -> bool:
        """Whether the pauses have grown so long that the release counts as complete."""
        return self.pause >= _EXHAUSTED * self._first

    def begin(self) -> None:
        """Poll at the full rate: a release was detected, or is under way after a restart."""
        self.end()
        self.running = True
        self._answers.clear()
        self._hits = self._misses = self._kept_up_misses = 0

    def end(self) -> None:
        """End the sweep: no symbol is outstanding."""
        self.running = self._again = False
        self.resumes, self.pause = None, self._first

    def restore(self, pause: timedelta, resumes: datetime | None) -> None:
        """Continue as before a restart."""
        self.pause = min(max(pause, self._first), self._longest)
        self.resumes = resumes

    def tick(self, now: datetime) -> None:
        """Cap the current pause at its planned length.

        A clock that was set back unnoticed, for example before a start, would prolong it.
        """
        if self.resumes is not None:
            self.resumes = min(self.resumes, now + self.pause)

    def resume(self) -> None:
        """Ask one block after a pause."""
        self.running = self._again = True
        self._misses = 0

    def tally(self, *, news: bool, kept_up: bool, outstanding: int, now: datetime) -> None:
        """Count an answer of an outstanding symbol; `kept_up`: it had shown the release before."""
        self._answers.append(news)
        if news:
            self.running, self._again, self._misses = True, False, 0
            self.resumes, self.pause = None, self._first
            self._hits += 1
            return
        self._misses += 1
        self._kept_up_misses += kept_up
        if self.running and self._misses >= self._limit(outstanding):
            self.rest(now)

    def _limit(self, outstanding: int) -> int:
        if self.staggered and not self._again:
            return max(2 * BLOCK, outstanding)
        return min(BLOCK, outstanding)

    def rest(self, now: datetime) -> None:
        """Pause, each time twice as long, before the next block."""
        self.running = self._again = False
        self.resumes = now + self.pause
        self.pause = min(2 * self.pause, self._longest)
