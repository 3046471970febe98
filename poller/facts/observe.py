"""What happens, as facts, and the log that reads them: one line per fact, on stderr.

Trouble is told when it begins or changes its reason, and its end once. Nothing else decides what
an operator sees; no fact carries a secret.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final, Literal

import structlog
from structlog.typing import EventDict

from poller.detect.held import Held
from poller.model import Code, Event, EventType, Market, Record
from poller.plan.notice import Completed, Notice

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
class Announced:
    """The stream of releases tells it from now on."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class Polled:
    """A look at a symbol ended; `answer`: what came of it, in words."""

    code: Code
    outcome: PollOutcome
    answer: str = ""


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


@dataclass(frozen=True, slots=True)
class Active:
    """This process polls; `token` is the fencing token of its lease."""

    token: int


@dataclass(frozen=True, slots=True)
class Standby:
    """This process does not poll, and takes over when it can."""

    reason: str


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest day on record of a market, as found at the start."""

    market: Market
    day: date


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything is up and the roles work."""

    details: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Reloading:
    """The configuration is being read again."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The keys that count from now on, and those whose change needs a restart."""

    taken: tuple[str, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """The configuration read again is wrong; the old one stays. One line per problem."""

    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entered:
    """A loop that does the service's work began, and is expected to turn."""

    loop: str


@dataclass(frozen=True, slots=True)
class Turned:
    """The loop came round, be it only to find nothing to do."""

    loop: str


@dataclass(frozen=True, slots=True)
class Left:
    """The loop ended, and is not expected to turn."""

    loop: str


Fact = (
    Happened
    | Trouble
    | Recovered
    | Published
    | Quarantined
    | Announced
    | Active
    | Standby
    | Newest
    | Ready
    | Reloading
    | Reloaded
    | Rejected
    | Entered
    | Turned
    | Left
    | Polled
    | Connection
    | Attempted
)
Observe = Callable[[Fact], None]

_SHORTEST_SECRET: Final = 4  # less would blot out words, and guards nothing

LONGEST_TURN: Final = 60.0
"""Seconds within which a loop that is not stuck comes round, however little there is to do."""


def to_all(*readers: Observe) -> Observe:
    """Return what tells every reader, in this order."""

    def tell(fact: Fact) -> None:
        for reader in readers:
            reader(fact)

    return tell


def dispatcher(account: str) -> str:
    """Return the name of the loop that spends the budget of an account."""
    return f"dispatcher of account {account}"


@contextlib.contextmanager
def turning(observe: Observe, loop: str) -> Iterator[Callable[[], None]]:
    """Expect a loop to turn while the block runs; yields what it calls each time it does."""
    turned = Turned(loop)
    observe(Entered(loop))
    try:
        yield lambda: observe(turned)
    finally:
        observe(Left(loop))


class Journal:
    """Writes facts to the log; remembers what is in trouble."""

    def __init__(self) -> None:
        self._log: Any = structlog.get_logger()
        self._troubled: dict[str, str] = {}

    def __call__(self, fact: Fact) -> None:
        """Write one line, or none when the fact is no news, or for those who count."""
        match fact:
            case Trouble(subject, reason):
                if self._troubled.get(subject) != reason:
                    self._troubled[subject] = reason
                    self._log.warning(f"{subject}: {reason}")
            case Recovered(subject):
                if self._troubled.pop(subject, None) is not None:
                    self._log.info(f"{subject}: recovered")
            case Reloaded(taken, kept):
                self._log.info("configuration read again", changed=", ".join(taken) or "nothing")
                if kept:
                    self._log.warning(f"needs a restart: {', '.join(kept)}")
            case Rejected(problems):
                for problem in problems:
                    self._log.error(f"configuration not taken, the old one stays: {problem}")
            case _:
                self._note(fact)

    def _note(self, fact: Fact) -> None:
        match fact:
            case Happened(what, details):
                self._log.info(what, **dict(details))
            case Quarantined(code, ()):
                if self._troubled.pop(f"{code} quarantine", None) is not None:
                    self._log.info(f"{code}: nothing is held any more")
            case Quarantined(code, held):
                self(Trouble(f"{code} quarantine", ruling_wanted(code, held)))
            case Published(code, events):
                self._log.info("published", code=code, **_summary(events))
            case Announced(notice):
                headline, told = _headline(notice)
                self._log.info(headline, **told)
            case Active(token):
                self._log.info("polling", lease=token)
            case Standby(reason):
                self._log.info(f"standing by: {reason}")
            case Ready(details):
                self._log.info("ready", **dict(details))


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


def _headline(notice: Notice) -> tuple[str, dict[str, object]]:
    report = f"{notice.market}: the report of {notice.day} is"
    if isinstance(notice, Completed):
        return f"{report} complete", {"found": notice.found, "missing": len(notice.missing)}
    return f"{report} out", {"code": notice.code}


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


def configure(*, level: str = "info", secrets: Sequence[str] = ()) -> None:
    """Send the log to stderr: coloured on a terminal, one JSON object a line elsewhere.

    `level`: the least that is written. No line holds one of the `secrets`, whoever wrote it.
    """
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
            _Redaction(secrets),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,  # a reload changes level and secrets
    )


def tell_defect(problem: BaseException) -> None:
    """Log an error nobody expected, with its trace."""
    structlog.get_logger().error(
        f"a defect of the poller, please report it: {type(problem).__name__}", exc_info=problem
    )


class _Redaction:
    """Replaces secrets in whatever is about to be written."""

    def __init__(self, secrets: Sequence[str]) -> None:
        long = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
        quoted = [repr(secret)[1:-1] for secret in long]
        self._secrets = sorted({*long, *quoted}, key=len, reverse=True)  # a URL before its password

    def __call__(self, _logger: object, _method: str, event: EventDict) -> EventDict:
        return {name: self._clean(value) for name, value in event.items()}

    def _clean(self, value: object) -> object:
        if isinstance(value, int | float | bool | None):
            return value
        text = str(value)
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text
