"""What happens, as facts, and the journal that writes them to the log, one line each.

A trouble is logged when it begins, once for each reason, and once when it ends. Nothing else
decides what an operator sees; no fact carries a secret.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, Literal

from poller.detect.held import QuarantinedFigure
from poller.detect.impossible import explained
from poller.markets import Market, Record, is_below_threshold
from poller.model import Code, Event, EventType, market_of
from poller.schedule.notice import Notice
from poller.telemetry.headline import headline
from poller.telemetry.log import fingerprint, log_defect, write

PollOutcome = Literal["answered", "failed", "refused", "postponed"]
AttemptOutcome = Literal["delivered", "failed"]


@dataclass(frozen=True, slots=True)
class Happened:
    """Something to log once."""

    what: str
    details: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Trouble:
    """`subject` does not work; `reason` names the cause, and the fix if there is one."""

    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """`subject` is no longer in trouble, and `how`; ignored unless it was."""

    subject: str
    how: str = "recovered"


@dataclass(frozen=True, slots=True)
class Defect:
    """A component ended with an error outside its contract, and is restarted.

    Attributes:
        component: Its name on the log and the page: `webhook desk`, `poll of HK.00700`.
        label: Its metric label, one of a fixed set: `poll`.
        error: The error; its traceback is logged once for each fingerprint.
        fingerprint: Eight hexadecimal digits, the same for the same error at the same place.
    """

    component: str
    label: str
    error: BaseException
    fingerprint: str

    @property
    def reason(self) -> str:
        """The reason as the log and the page show it."""
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
    """A notice was appended to the stream of releases."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class Polled:
    """A poll of a symbol ended; `answer`: its result in words."""

    code: Code
    outcome: PollOutcome
    answer: str = ""


@dataclass(frozen=True, slots=True)
class GatewayConnection:
    """A gateway became ready, or stopped being so; `rebuilds`: connections discarded so far."""

    gateway: str
    ready: bool
    reason: str
    rebuilds: int


@dataclass(frozen=True, slots=True)
class MarketRight:
    """Whether an account is asked for a market; `granted`: it is, and was not before.

    Attributes:
        reason: Why not, in words.
        since: When it was learned, aware.
        next_at: When one symbol is tried again, aware.
    """

    account: str
    market: Market
    granted: bool
    reason: str = ""
    since: datetime | None = None
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Attempted:
    """A delivery attempt ended. `lag`: the age of its oldest event in the stream."""

    endpoint: str
    outcome: AttemptOutcome
    lag: timedelta


@dataclass(frozen=True, slots=True)
class PassedOver:
    """The deliverer skipped stream entries that are not ours."""

    stream: str
    entries: int


@dataclass(frozen=True, slots=True)
class Quarantined:
    """The figures of a symbol that await the operator's decision, oldest day first; may be none."""

    code: Code
    held: tuple[QuarantinedFigure, ...]


@dataclass(frozen=True, slots=True)
class Active:
    """This process is the leader; `token` is the fencing token of its lease."""

    token: int


@dataclass(frozen=True, slots=True)
class Standby:
    """This process is on standby, and takes over when it can."""

    reason: str


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest stored day of a market, as found at the start."""

    market: Market
    day: date


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything is up."""

    details: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Reloading:
    """The configuration is being read again."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """A new configuration: the changed keys taken, and those whose change needs a restart."""

    taken: tuple[str, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A new configuration is invalid, so the old one stays; one line per problem."""

    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HeartbeatStarted:
    """A loop that does the service's work began; beats are expected from now on."""

    loop: str


@dataclass(frozen=True, slots=True)
class HeartbeatBeat:
    """The loop is alive, even if it found nothing to do."""

    loop: str


@dataclass(frozen=True, slots=True)
class HeartbeatStopped:
    """The loop ended; no more beats are expected."""

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
    | GatewayConnection
    | MarketRight
    | Attempted
    | PassedOver
)
Observe = Callable[[Fact], None]

LONGEST_TURN: Final = 60.0
"""Most seconds between two beats of a loop that is not stuck, however little there is to do."""

_MOST_TRACES: Final = 100
"""Most tracebacks that one process logs: there may be any number of fingerprints."""
REASONS_KEPT: Final = 10
"""Reasons of one trouble that are remembered, so that none is logged twice before it ends."""


def to_all(*readers: Observe) -> Observe:
    """Return an observer that forwards each fact to every reader, in this order.

    A defect of one reader is reported to the others, and not raised.
    """

    def forward(fact: Fact) -> None:
        for reader in readers:
            try:
                reader(fact)
            except Exception as error:  # noqa: BLE001  any error of a reader is a defect
                if not isinstance(fact, Defect):
                    name = f"reader of facts {type(reader).__name__}"
                    defect = Defect(name, "reader", error, fingerprint(error))
                    for other in readers:
                        if other is not reader:
                            with contextlib.suppress(Exception):  # it may be broken, too
                                other(defect)

    return forward


def dispatcher(account: str) -> str:
    """Return the name of the loop that spends the budget of an account."""
    return f"dispatcher of account {account}"


def polling_of(code: Code) -> str:
    """Return the name of the component that polls a symbol."""
    return f"poll of {code}"


def budget_of(account: str) -> str:
    """Return the subject of trouble with an account's budget."""
    return f"budget of account {account}"


def right_of(account: str, market: Market | str) -> str:
    """Return what is in trouble when an account may not see a market."""
    return f"account {account} has no right to {market} quotes"


def forgotten(code: Code, how: str = "recovered") -> tuple[Fact, ...]:
    """Return the facts that end all troubles of a symbol, its quarantine included."""
    subjects = (code, f"{code} answer", f"{code} quarantine", polling_of(code))
    return (*(Recovered(each, how) for each in subjects), Quarantined(code, ()))


@contextlib.contextmanager
def heartbeat(observe: Observe, loop: str) -> Iterator[Callable[[], None]]:
    """Expect beats of a loop while the block runs; yields the function that sends one."""
    beat = HeartbeatBeat(loop)
    observe(HeartbeatStarted(loop))
    try:
        yield lambda: observe(beat)
    finally:
        observe(HeartbeatStopped(loop))


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
                if self._troubled.pop(f"{code} quarantine", None) is not None:
                    write("info", f"{code}: nothing is held any more")
            case Quarantined(code, held):
                self(Trouble(f"{code} quarantine", decision_needed(code, held)))
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


def trouble_text(subject: str, reason: str) -> str:
    """Return a trouble as one line; the subject is not repeated if the reason begins with it."""
    return reason if reason.startswith(f"{subject}:") else f"{subject}: {reason}"


def decision_needed(code: Code, held: tuple[QuarantinedFigure, ...]) -> str:
    """Return the message about held figures: which, why, and what to type."""
    days = " ".join(str(each.day) for each in held)
    reasons = "; ".join(
        f"{each.day} is held as {explained(market_of(code), each)}, {_shares(each.record)}"
        + (f" after {_shares(each.previous)}" if each.previous else "")
        for each in held
    )
    return (
        f"{reasons}. To publish what is true: poller quarantine release {code} {days}; to drop "
        f"what is not: poller quarantine discard {code} {days}"
    )


def _shares(record: Record) -> str:
    return "no figure" if record.shares is None else f"{record.shares:,} shares"


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
