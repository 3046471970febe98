"""What happens, as facts, and how they reach their readers: the log, the report, systemd.

No fact carries a secret.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final, Literal

from poller.detect.held import QuarantinedFigure
from poller.detect.impossible import explained
from poller.errors import StoreDown
from poller.markets import Market, Record
from poller.model import Code, Event, market_of
from poller.schedule.notice import Notice
from poller.telemetry.log import fingerprint

PollOutcome = Literal["answered", "failed", "refused", "postponed"]
AttemptOutcome = Literal["delivered", "failed"]


@dataclass(frozen=True, slots=True)
class Happened:
    """Something to log once."""

    what: str
    details: tuple[tuple[str, object], ...] = ()


REDIS: Final = "redis"
"""The subject of trouble with Redis as a whole."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """`subject` does not work; `reason` names the cause, and the fix if there is one.

    `asked_at`: when the attempt that found it began, in seconds of `time.monotonic`; None: now.
    """

    subject: str
    reason: str
    asked_at: float | None = field(default=None, compare=False)


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


_AGAIN: Final = 600.0
"""Seconds from a failure to the next attempt of the same part, at the most."""


class UpToDate:
    """Passes facts on, but for a trouble with Redis that is older than its last answer.

    Many parts use Redis at once: a late failure of one must not undo what another saw since, or
    one outage would be told twice. What fails late again, in a new attempt, is an outage of its
    own: of writes, of one network path.
    """

    def __init__(self, observe: Observe, clock: Callable[[], float]) -> None:
        """`clock`: `time.monotonic`, or a test's."""
        self._observe = observe
        self._clock = clock
        self._answered_at = -math.inf
        self._late_at = -math.inf  # when a trouble was last older than the answer

    def __call__(self, fact: Fact) -> None:
        """Pass a fact on, or drop it."""
        match fact:
            case Recovered(subject) if subject == REDIS:
                self._answered_at = self._clock()
            case Trouble(subject, _, asked_at) if subject == REDIS and asked_at is not None:
                if asked_at < self._answered_at and not self._is_late_again(asked_at):
                    return
        self._observe(fact)

    def _is_late_again(self, asked_at: float) -> bool:
        since, self._late_at = asked_at - self._late_at, self._clock()
        return 0 <= since <= _AGAIN


def redis_trouble(problem: StoreDown) -> Trouble:
    """Return the fact that Redis does not answer, or takes no writes."""
    return Trouble(REDIS, str(problem), problem.asked_at)


def dispatcher(account: str) -> str:
    """Return the name of the loop that spends the budget of an account."""
    return f"dispatcher of account {account}"


def polling_of(code: Code) -> str:
    """Return the name of the component that polls a symbol."""
    return f"poll of {code}"


def quarantine_of(code: Code) -> str:
    """Return the subject of what is held of a symbol."""
    return f"{code} quarantine"


def budget_of(account: str) -> str:
    """Return the subject of trouble with an account's budget."""
    return f"budget of account {account}"


def right_of(account: str, market: Market | str) -> str:
    """Return what is in trouble when an account may not see a market."""
    return f"account {account} has no right to {market} quotes"


def forgotten(code: Code, how: str = "recovered") -> tuple[Fact, ...]:
    """Return the facts that end all troubles of a symbol, its quarantine included."""
    subjects = (code, f"{code} answer", quarantine_of(code), polling_of(code))
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
