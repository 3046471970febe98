"""What a source of the watchlist is believed to hold. Pure: seconds are an argument.

What a source adds counts at once. What it lacks may be missing because it is being written, or was
lost: it counts only after the source has read the same for a while.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from poller.model import Code

SETTLED: Final = 5.0
"""Seconds a source must read the same before the few codes it lacks are believed to be gone."""

CONFIRMED: Final = 60.0
"""The same when it lacks many. A download that waits for its server leaves a list empty so long."""

FEW: Final = 2
"""Codes that may be missing from a list of any length, as when it is edited by hand."""

SHARE: Final = 10
"""More than one in so many missing is much: no list shrinks so from one report to the next."""

BRIEF: Final = 2.0
"""Seconds a doubt lasts before it is told: an editor empties a file before it writes it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reading changed. `dropped`: how many codes are believed to be gone, if it was much."""

    changed: bool
    dropped: int = 0


class Settling:
    """One source. Its codes are marked as watched, or as not to be watched."""

    def __init__(self, *, brief: float = BRIEF) -> None:
        """`brief`: seconds a doubt lasts before it is told."""
        self._brief = brief
        self._marks: dict[Code, bool] = {}
        self._read: dict[Code, bool] | None = None
        self._since = 0.0  # when it began to read like this
        self._doubted: float | None = None  # since when codes are missing
        self._told = ""

    @property
    def marks(self) -> Mapping[Code, bool]:
        """What is believed."""
        return self._marks

    @property
    def codes(self) -> tuple[Code, ...]:
        """The codes that are believed to be there, in their order."""
        return tuple(self._marks)

    @property
    def recheck(self) -> float | None:
        """Seconds after which a reading may decide; None: nothing is in doubt."""
        return None if self._doubted is None else self._pause()

    @property
    def doubt(self) -> str:
        """What is missing and what will happen, while that is worth telling; else empty."""
        return self._told

    def offer(self, reading: Mapping[Code, bool], now: float) -> Outcome:
        """Take note of how the source reads at the second `now`."""
        first, before = self._read is None, self._marks
        if self._read != reading:
            self._since = now
        self._read = dict(reading)
        self._marks = {**before, **reading}
        missing = len(self._marks) - len(reading)
        if not missing:
            self._marks = self._read  # in the source's order
            self._doubted, self._told = None, ""
            return Outcome(changed=first or self._marks != before)
        if self._doubted is None:
            self._doubted = now
        if now - self._since >= (pause := self._pause()):
            self._marks = self._read
            self._doubted, self._told = None, ""
            return Outcome(changed=True, dropped=missing if pause == CONFIRMED else 0)
        if not self._told and self._is_much() and now - self._doubted >= self._brief:
            self._told = (
                f"it shrank from {len(before)} to {len(reading)} codes: the {missing} that are "
                f"missing stay watched until it has been the same for {CONFIRMED:g} s"
            )
        return Outcome(changed=self._marks != before)

    def _pause(self) -> float:
        # a list that lacked much and grows still does not settle sooner when it lacks little
        return CONFIRMED if self._told or self._is_much() else SETTLED

    def _is_much(self) -> bool:
        there = len(self._read or ())
        missing = len(self._marks) - there
        return not there or missing > max(FEW, len(self._marks) / SHARE)
