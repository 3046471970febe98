"""Watchdog and status line for systemd, derived from facts.

The loops that do the work keep the watchdog quiet: it is notified once each of them has beaten
since the last time. So a hanging loop triggers it, and a hanging page does not.
"""

import time
from collections.abc import Callable, Mapping
from datetime import date
from typing import Final

from poller.markets import Market
from poller.model import market_of
from poller.printable import printable
from poller.telemetry import log
from poller.telemetry.notify import Notify
from poller.telemetry.observe import (
    LONGEST_TURN,
    Active,
    Defect,
    Fact,
    HeartbeatBeat,
    HeartbeatStarted,
    HeartbeatStopped,
    Newest,
    Published,
    Ready,
    Recovered,
    Rejected,
    Reloaded,
    Reloading,
    Standby,
    Trouble,
    trouble_text,
)

_STATUS_PAUSE: Final = 5.0
"""Seconds between two status lines, except for changes."""

_PART_LIMIT: Final = 300
"""Characters of each part of the status line."""

_START_ALLOWANCE: Final = int(3 * LONGEST_TURN * 1e6)
"""Microseconds by which each beat extends the start: waiting for Redis is not being stuck."""


class Vitals:
    """Notifies systemd of readiness, reloads, beats and the status line."""

    def __init__(
        self,
        notify: Notify,
        summary: Callable[[], str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`summary`: returns the beginning of the status line."""
        self._notify = notify
        self._summary = summary
        self._clock = clock
        self._beat: dict[str, bool] = {}
        self._troubles: dict[str, str] = {}
        self._newest: dict[Market, date] = {}
        self._ready = False
        self._standby = ""
        self._status = ""
        self._status_at = float("-inf")

    def __call__(self, fact: Fact) -> None:
        """Take note of a fact, and notify systemd if it matters."""
        match fact:
            case HeartbeatStarted(loop):
                self._beat[loop] = False
            case HeartbeatBeat(loop) if loop in self._beat:
                self._beat[loop] = True
                self._pet()
            case HeartbeatStopped(loop):
                self._beat.pop(loop, None)
            case Reloading():
                self._notify.reloading()
            case Reloaded() | Rejected():
                self._notify(READY=1)
            case Newest(market, day):
                self._reported(market, day)
            case Published(code, events):
                self._reported(market_of(code), events[-1].vintage.day)
            case _:
                self._note(fact)

    def _note(self, fact: Fact) -> None:
        """Take note of a fact that changes the status line at once."""
        match fact:
            case Ready():
                self._ready = True
                self._notify(READY=1)
            case Active():
                self._standby = ""
            case Standby(reason):
                self._standby = f"standing by: {reason}"
            case Trouble(subject, reason):
                self._troubles[subject] = reason
            case Defect(component):
                self._troubles[component] = fact.reason
            case Recovered(subject) if subject in self._troubles:
                del self._troubles[subject]
            case _:
                return
        self._send_status(now=True)

    def _reported(self, market: Market, day: date) -> None:
        self._newest[market] = max(day, self._newest.get(market, day))

    def _pet(self) -> None:
        if not all(self._beat.values()):
            return
        self._beat = dict.fromkeys(self._beat, False)
        if self._ready:
            self._notify(WATCHDOG=1)
        else:
            self._notify(EXTEND_TIMEOUT_USEC=_START_ALLOWANCE)
        self._send_status()

    def _send_status(self, *, now: bool = False) -> None:
        if not now and self._clock() < self._status_at + _STATUS_PAUSE:
            return
        work = self._standby or self._summary() if self._ready else "starting"
        text = status_line(work, self._newest, self._troubles)
        self._status_at = self._clock()
        if text != self._status:
            self._status = text
            self._notify(STATUS=text)


def status_line(summary: str, newest: Mapping[Market, date], troubles: Mapping[str, str]) -> str:
    """Return the status line: the work, the last reports, the troubles."""
    parts = [summary]
    if newest:
        days = ", ".join(f"{market} {newest[market]}" for market in sorted(newest, key=str))
        parts.append(f"last report {days}")
    if troubles:
        subject, reason = next(iter(troubles.items()))
        more = f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else ""
        parts.append(f"{trouble_text(subject, reason)}{more}")
    return "; ".join(printable(log.shown(" ".join(part.split())), _PART_LIMIT) for part in parts)
