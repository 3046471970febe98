"""What happens, as facts, and the log that reads them: one line per fact, on stderr.

Trouble is told when it begins, once for each reason, and its end once. Nothing else decides what
an operator sees; no fact carries a secret.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Literal

from poller.detect.held import QuarantinedFigure
from poller.detect.impossible import explained
from poller.markets import Market, Record
from poller.model import Code, Event, EventType, market_of
from poller.schedule.notice import Completed, Notice
from poller.telemetry.log import fingerprint, tell_defect, write

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
    """`subject` is in trouble no more, and `how`; silent unless it was."""

    subject: str
    how: str = "recovered"


@dataclass(frozen=True, slots=True)
class Defect:
    """A component ended in an error that is no part of its contract, and is started again.

    Attributes:
        component: Which, as the log and the page name it: `webhook desk`, `poll of HK.00700`.
        label: The same for the metric, bounded by the configuration: `poll`.
        error: The error; its traceback is logged once for each fingerprint.
        fingerprint: Eight hexadecimal digits: the same for the same error at the same place.
    """

    component: str
    label: str
    error: BaseException
    fingerprint: str

    @property
    def reason(self) -> str:
        """What an operator is told."""
        return (
            f"stopped by a defect, {type(self.error).__name__} [{self.fingerprint}]; it is started "
            "again by itself, please report it"
        )


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
class PassedOver:
    """The deliverer read so many entries of a stream that are no events of ours."""

    stream: str
    entries: int


@dataclass(frozen=True, slots=True)
class Quarantined:
    """The figures of a symbol that await the operator's decision, oldest day first; may be none."""

    code: Code
    held: tuple[QuarantinedFigure, ...]


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
class HeartbeatStarted:
    """A loop that does the service's work began, and is expected to turn."""

    loop: str


@dataclass(frozen=True, slots=True)
class HeartbeatBeat:
    """The loop came round, be it only to find nothing to do."""

    loop: str


@dataclass(frozen=True, slots=True)
class HeartbeatStopped:
    """The loop ended, and is not expected to turn."""

    loop: str


Fact = (
    Happened
    | Trouble
    | Recovered
    | Defect
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
    | HeartbeatStarted
    | HeartbeatBeat
    | HeartbeatStopped
    | Polled
    | Connection
    | Attempted
    | PassedOver
)
Observe = Callable[[Fact], None]

LONGEST_TURN: Final = 60.0
"""Seconds within which a loop that is not stuck comes round, however little there is to do."""


_MOST_TRACES: Final = 100
"""Traces that one process logs; what a defect says may vary without end."""
REASONS_KEPT: Final = 10
"""Reasons of one trouble that are remembered, so that none is told twice before it ends."""


def to_all(*readers: Observe) -> Observe:
    """Return what tells every reader, in this order.

    A defect of one reader is told to the others, and not to whoever tells the fact.
    """

    def tell(fact: Fact) -> None:
        for reader in readers:
            try:
                reader(fact)
            except Exception as error:  # noqa: BLE001  whatever a reader does wrong is its own
                if not isinstance(fact, Defect):
                    name = f"reader of facts {type(reader).__name__}"
                    defect = Defect(name, "reader", error, fingerprint(error))
                    for other in readers:
                        if other is not reader:
                            with contextlib.suppress(Exception):  # it has been told of already
                                other(defect)

    return tell


def dispatcher(account: str) -> str:
    """Return the name of the loop that spends the budget of an account."""
    return f"dispatcher of account {account}"


def polling_of(code: Code) -> str:
    """Return the name of the component that polls a symbol."""
    return f"poll of {code}"


def forgotten(code: Code, how: str = "recovered") -> tuple[Fact, ...]:
    """Return what ends all that was told of a symbol, whatever may be held of it, and `how`."""
    subjects = (code, f"{code} answer", f"{code} quarantine", polling_of(code))
    return (*(Recovered(each, how) for each in subjects), Quarantined(code, ()))


@contextlib.contextmanager
def heartbeat(observe: Observe, loop: str) -> Iterator[Callable[[], None]]:
    """Expect a loop to turn while the block runs; yields what it calls each time it does."""
    beat = HeartbeatBeat(loop)
    observe(HeartbeatStarted(loop))
    try:
        yield lambda: observe(beat)
    finally:
        observe(HeartbeatStopped(loop))


class Journal:
    """Writes facts to the log; remembers what is in trouble."""

    def __init__(self) -> None:
        self._troubled: dict[str, dict[str, None]] = {}  # subject → its reasons since it began
        self._fingerprints: set[str] = set()

    def __call__(self, fact: Fact) -> None:
        """Write one line, or none when the fact is no news, or for those who count."""
        match fact:
            case Trouble(subject, reason):
                self._warn(subject, reason)
            case Recovered(subject, how):
                if self._troubled.pop(subject, None) is not None:
                    write("info", f"{subject}: {how}")
            case Defect(component):
                self._tell_defect(fact, component)
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
        """Write each reason of a trouble once; where two take turns, an end comes between."""
        reasons = self._troubled.setdefault(subject, {})
        if reason not in reasons:
            if len(reasons) >= REASONS_KEPT:
                del reasons[next(iter(reasons))]
            reasons[reason] = None
            write("warning", told(subject, reason))

    def _tell_defect(self, defect: Defect, component: str) -> None:
        """Write the trace of each defect once; after that it is one line for each component."""
        if defect.fingerprint not in self._fingerprints and len(self._fingerprints) < _MOST_TRACES:
            self._fingerprints.add(defect.fingerprint)
            self._troubled[component] = {defect.reason: None}
            tell_defect(defect.error, f"{component}: {defect.reason}")
        else:
            self(Trouble(component, defect.reason))

    def _note(self, fact: Fact) -> None:
        match fact:
            case Happened(what, details):
                write("info", what, **dict(details))
            case Quarantined(code, ()):
                if self._troubled.pop(f"{code} quarantine", None) is not None:
                    write("info", f"{code}: nothing is held any more")
            case Quarantined(code, held):
                self(Trouble(f"{code} quarantine", decision_needed(code, held)))
            case Published(code, events):
                write("info", "published", code=code, **_summary(events))
            case Announced(notice):
                headline, told = _headline(notice)
                write("info", headline, **told)
            case Active(token):
                write("info", "polling", lease=token)
            case Standby(reason):
                write("info", f"standing by: {reason}")
            case Ready(details):
                write("info", "ready", **dict(details))


def told(subject: str, reason: str) -> str:
    """Return a trouble as one line; many a reason names the subject itself."""
    return reason if reason.startswith(f"{subject}:") else f"{subject}: {reason}"


def decision_needed(code: Code, held: tuple[QuarantinedFigure, ...]) -> str:
    """Return what the operator is told of held figures: which, why, and what to type."""
    days = " ".join(str(each.day) for each in held)
    told = "; ".join(
        f"{each.day} is held as {explained(market_of(code), each)}, {_shares(each.record)}"
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
        if "below_threshold" in last.vintage.record.flags:  # 0 and its change would be no figures
            return told | {"below_threshold": True}
        told["shares"] = last.vintage.record.shares
        told["change"] = last.change.shares if last.change else None
    return told
