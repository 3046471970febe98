"""The journal, which writes facts to the log, one line each.

A trouble is logged when it begins, once for each reason, and once when it ends. Nothing else
decides what an operator sees.
"""

from collections import Counter
from typing import Final

from poller.markets import is_below_threshold
from poller.model import Event, EventType
from poller.telemetry.headline import headline
from poller.telemetry.log import log_defect, write
from poller.telemetry.observe import (
    Active,
    Announced,
    Defect,
    Fact,
    Happened,
    Published,
    Quarantined,
    Ready,
    Recovered,
    Rejected,
    Reloaded,
    Standby,
    Trouble,
    decision_needed,
    quarantine_of,
    trouble_text,
)

_MOST_TRACES: Final = 100
"""Most tracebacks that one process logs: there may be any number of fingerprints."""
REASONS_KEPT: Final = 10
"""Reasons of one trouble that are remembered, so that none is logged twice before it ends."""


class Journal:
    """Writes facts to the log, and remembers current troubles."""

    def __init__(self) -> None:
        self._troubled: dict[str, dict[str, None]] = {}  # subject → its reasons since it began
        self._fingerprints: set[str] = set()

    def __call__(self, fact: Fact) -> None:
        """Write one line, or none if the fact is not new or not for the log."""
        match fact:
            case Trouble(subject, reason):
                self._warn(subject, reason)
            case Recovered(subject, how):
                if self._troubled.pop(subject, None) is not None:
                    write("info", f"{subject}: {how}")
            case Defect(component):
                self._log_defect(fact, component)
            case Reloaded(taken, kept):
                write("info", "configuration read again", changed=", ".join(taken) or "nothing")
                if kept:
                    write("warning", f"needs a restart: {', '.join(kept)}")
            case Rejected(problems):
                for problem in problems:
                    write("error", f"configuration not taken, the old one stays: {problem}")
            case _:
                self._note(fact)

    def _warn(self, subject: str, reason: str) -> None:
        """Write each reason of a trouble once until the trouble ends."""
        reasons = self._troubled.setdefault(subject, {})
        if reason not in reasons:
            if len(reasons) >= REASONS_KEPT:
                del reasons[next(iter(reasons))]
            reasons[reason] = None
            write("warning", trouble_text(subject, reason))

    def _log_defect(self, defect: Defect, component: str) -> None:
        """Write the traceback of each fingerprint once; then one line for each component."""
        if defect.fingerprint not in self._fingerprints and len(self._fingerprints) < _MOST_TRACES:
            self._fingerprints.add(defect.fingerprint)
            self._troubled[component] = {defect.reason: None}
            log_defect(defect.error, f"{component}: {defect.reason}")
        else:
            self(Trouble(component, defect.reason))

    def _note(self, fact: Fact) -> None:
        match fact:
            case Happened(what, details):
                write("info", what, **dict(details))
            case Quarantined(code, ()):
                if self._troubled.pop(quarantine_of(code), None) is not None:
                    write("info", f"{code}: nothing is held any more")
            case Quarantined(code, held):
                self(Trouble(quarantine_of(code), decision_needed(code, held)))
            case Published(code, events):
                write("info", "published", code=code, **_summary(events))
            case Announced(notice):
                line, fields = headline(notice)
                write("info", line, **fields)
            case Active(token):
                write("info", "polling", lease=token)
            case Standby(reason):
                write("info", f"standing by: {reason}")
            case Ready(details):
                write("info", "ready", **dict(details))


def _summary(events: tuple[Event, ...]) -> dict[str, object]:
    last = events[-1]
    details: dict[str, object] = {"trading_day": str(last.vintage.day)}
    details |= Counter(event.type.rpartition(".")[2] for event in events)
    if len(events) == 1 and last.type is not EventType.BACKFILLED:
        if is_below_threshold(last.vintage.record):  # 0 and its change are no figures
            return details | {"below_threshold": True}
        details["shares"] = last.vintage.record.shares
        details["change"] = last.change.shares if last.change else None
    return details
