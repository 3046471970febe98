"""Debounces a source of the watchlist. Pure: the time is an argument, in seconds.

Additions count at once. A code that is missing may be so because the source is being written or was
lost, so it counts as removed only after the source has stayed the same for a while.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from poller.model import Code

SETTLED: Final = 5.0
"""Seconds a source must stay the same before a few missing codes count as removed."""

CONFIRMED: Final = 60.0
"""The same in seconds for many missing codes: a stalled download leaves a list empty that long."""

FEW: Final = 2
"""Missing codes that are few for a list of any length, as when it is edited by hand."""

SHARE: Final = 10
"""More than one code in `SHARE` missing is many: no list shrinks so between two reports."""

BRIEF: Final = 2.0
"""Seconds before missing codes are reported: an editor empties a file before writing it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reading changed. `dropped`: how many codes were removed, if they were many."""

    changed: bool
    dropped: int = 0


class Settling:
    """One source. Each of its codes is marked as watched (True) or not to be watched (False)."""

    def __init__(self, *, brief: float = BRIEF) -> None:
        """`brief`: see `BRIEF`."""
        self._brief = brief
        self._marks: dict[Code, bool] = {}
        self._read: dict[Code, bool] | None = None
        self._since = 0.0  # since when it has read like this
        self._doubted: float | None = None  # since when codes are missing
        self._reported = ""

    @property
    def marks(self) -> Mapping[Code, bool]:
        """The codes and marks that count now."""
        return self._marks

    @property
    def codes(self) -> tuple[Code, ...]:
        """The codes that count now, in the order of the source."""
        return tuple(self._marks)

    @property
    def recheck(self) -> float | None:
        """Seconds after which another reading may decide; None: no code is missing."""
        return None if self._doubted is None else self._pause()

    @property
    def doubt(self) -> str:
        """What is missing and what follows, in words; empty while there is nothing to report."""
        return self._reported

    def offer(self, reading: Mapping[Code, bool], now: float) -> Outcome:
        """Take a reading of the source, made at `now` (seconds)."""
        first, before = self._read is None, self._marks
        if self._read != reading:
            self._since = now
        self._read = dict(reading)
        self._marks = {**before, **reading}
        missing = len(self._marks) - len(reading)
        if not missing:
            self._marks = self._read  # in the source's order
            self._doubted, self._reported = None, ""
            return Outcome(changed=first or self._marks != before)
        if self._doubted is None:
            self._doubted = now
        if now - self._since >= (pause := self._pause()):
            self._marks = self._read
            self._doubted, self._reported = None, ""
            return Outcome(changed=True, dropped=missing if pause == CONFIRMED else 0)
        if not self._reported and self._lacks_many() and now - self._doubted >= self._brief:
            self._reported = (
                f"it shrank from {len(before)} to {len(reading)} codes: the {missing} that are "
                f"missing stay watched until it has been the same for {CONFIRMED:g} s"
            )
        return Outcome(changed=self._marks != before)

    def _pause(self) -> float:
        # a list that lacked many codes and is still growing does not settle sooner
        return CONFIRMED if self._reported or self._lacks_many() else SETTLED

    def _lacks_many(self) -> bool:
        there = len(self._read or ())
        missing = len(self._marks) - there
        return not there or missing > max(FEW, len(self._marks) / SHARE)
