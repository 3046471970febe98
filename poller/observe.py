"""What happens, as facts, and the log that reads them: one line per fact, on stderr.

Trouble is told when it begins or changes its reason, and its end once. Nothing else decides what
an operator sees; no fact carries a secret.
"""

import logging
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import structlog

from poller.held import Held
from poller.model import Code, Event, EventType, Record

PollOutcome = Literal["answered", "failed", "refused", "postponed"]
AttemptOutcome = Literal["delivered", "failed"]


@dataclass(frozen=True, slots=True)
class Happened:
    """Something an operator may want to know once."""

    what: str
    details: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Trouble:
    """`subject` does not do its work; `reason` names the cause, and the cure if there is one."""

    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """`subject` does its work; silent unless it was in trouble."""

    subject: str


@dataclass(frozen=True, slots=True)
class Published:
    """A commit appended these entries, in this order."""

    code: Code
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Polled:
    """A look at a symbol ended."""

    code: Code
    outcome: PollOutcome


@dataclass(frozen=True, slots=True)
class Connection:
    """A gateway became usable or stopped being so; `rebuilds`: connections thrown away so far."""

    gateway: str
    ready: bool
    reason: str
    rebuilds: int


@dataclass(frozen=True, slots=True)
class Attempted:
    """One attempt to deliver ended. `lag`: of its oldest event behind the stream."""

    endpoint: str
    outcome: AttemptOutcome
    lag: timedelta


@dataclass(frozen=True, slots=True)
class Quarantined:
    """These figures of a symbol wait for the operator's ruling, oldest day first; perhaps none."""

    code: Code
    held: tuple[Held, ...]


Fact = Happened | Trouble | Recovered | Published | Quarantined | Polled | Connection | Attempted
Observe = Callable[[Fact], None]


def all_of(*readers: Observe) -> Observe:
    """Return what tells every fact to each of these."""

    def tell(fact: Fact) -> None:
        for reader in readers:
            reader(fact)

    return tell


class Journal:
    """Writes facts to the log; remembers what is in trouble."""

    def __init__(self) -> None:
        self._log: Any = structlog.get_logger()
        self._troubled: dict[str, str] = {}

    def __call__(self, fact: Fact) -> None:
        """Write one line, or none when the fact is no news, or for those who count."""
        match fact:
            case Quarantined(code, ()):
                if self._troubled.pop(f"{code} quarantine", None) is not None:
                    self._log.info(f"{code}: nothing is held any more")
            case Quarantined(code, held):
                self(Trouble(f"{code} quarantine", ruling_wanted(code, held)))
            case Happened(what, details):
                self._log.info(what, **dict(details))
            case Trouble(subject, reason):
                if self._troubled.get(subject) != reason:
                    self._troubled[subject] = reason
                    self._log.warning(f"{subject}: {reason}")
            case Recovered(subject):
                if self._troubled.pop(subject, None) is not None:
                    self._log.info(f"{subject}: recovered")
            case Published(code, events):
                self._log.info("published", code=code, **_summary(events))


def ruling_wanted(code: Code, held: tuple[Held, ...]) -> str:
    """Return what the operator is told of held figures: which, why, and what to type."""
    days = " ".join(str(each.day) for each in held)
    told = "; ".join(
        f"{each.day} is held as {each.reason}, {_shares(each.record)}"
        + (f" after {_shares(each.previous)}" if each.previous else "")
        for each in held
    )
    return (
        f"{told}. To publish what is true: poller quarantine release {code} {days}; to drop what "
        f"is not: poller quarantine discard {code} {days}"
    )


def _shares(record: Record) -> str:
    return "no figure" if record.shares is None else f"{record.shares:,} shares"


def _summary(events: tuple[Event, ...]) -> dict[str, object]:
    last = events[-1]
    told: dict[str, object] = {"trading_day": str(last.vintage.day)}
    told |= Counter(event.type.rpartition(".")[2] for event in events)
    if len(events) == 1 and last.type is not EventType.BACKFILLED:
        told["shares"] = last.vintage.record.shares
        told["change"] = last.change.shares if last.change else None
    return told


def configure(*, level: int = logging.INFO) -> None:
    """Send the log to stderr: coloured on a terminal, one JSON object a line elsewhere."""
    terminal = sys.stderr.isatty()
    render: Any
    if terminal:
        render = structlog.dev.ConsoleRenderer(pad_event_to=0, sort_keys=False)
    else:
        render = structlog.processors.JSONRenderer(ensure_ascii=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S" if terminal else "iso"),
            structlog.processors.format_exc_info,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
