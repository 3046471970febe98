"""What a process reports through Redis, for pages on other machines. Pure.

Reports may be from another version or edited by hand: unreadable ones count as absent.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator

from poller.codec import Codec, Day, Figure, Moment, Whole
from poller.errors import Unreadable
from poller.model import isoformat, to_json
from poller.telemetry.counts import Count

EVERY: Final = timedelta(seconds=15)
"""Between two reports of a process without news."""

SOON: Final = timedelta(seconds=3)
"""From a poll or a count to the next report; troubles are reported at once."""

DEAD_AFTER: Final = timedelta(minutes=1)
"""A process without a report for this long counts as gone."""

AHEAD: Final = timedelta(minutes=10)
"""How far another machine's clock may be ahead; later reports predate a clock that was set back."""

TROUBLES_KEPT: Final = 20
"""Troubles in one report; the log has all of them."""

POLLS_KEPT: Final = 5
"""Polls remembered of each symbol."""

_UNKNOWN: Final = datetime(1970, 1, 1, tzinfo=UTC)

Phase = Literal["watching", "sweeping", "paused"]


@dataclass(frozen=True, slots=True)
class GatewayState:
    """One OpenD as a process sees it. `reason`: why it is or is not ready; `since`: aware."""

    name: str
    account: str
    ready: bool
    reason: str
    since: Moment


def _known(phase: object) -> object:
    return "watching" if isinstance(phase, str) and phase not in get_args(Phase) else phase


@dataclass(frozen=True, slots=True)
class RestingMarket:
    """A market that an account is not asked for but to try it, at `next_at`, and why."""

    account: str
    market: str
    reason: str
    since: Moment
    next_at: Moment


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """A market's release: `covered` of the `wanted` symbols already show `day`.

    An unknown phase, of another version, is read as `watching`. `next_at`: when a symbol of the
    market is probed next, aware; None while a sweep is running, and for now.
    """

    phase: Annotated[Phase, BeforeValidator(_known)] = "watching"
    day: Day | None = None
    wanted: Whole = 0
    covered: Whole = 0
    next_at: Moment | None = None


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What one process reports of itself.

    Attributes:
        at: When it was written, aware.
        role: A `Role`, or one of another version.
        version: Of the program.
        lease: Its fencing token; None unless it is the leader.
        gateways: Its OpenDs.
        symbols: How many it watches.
        markets: Market → its release.
        troubles: Subject → reason, as in the log.
        held: Market → number of figures that await a decision.
        started: When the process started, aware.
        counts: What it has counted since then.
        budget: An account's requests, and its period in seconds; None unless it polls.
        defects: Component that a defect stopped and that has not run steadily since → the defect.
        resting: Markets that an account has no right to.
    """

    at: Moment
    role: str
    version: str
    lease: Whole | None = None
    gateways: tuple[GatewayState, ...] = ()
    symbols: Whole = 0
    markets: Mapping[str, ReleaseState] = field(default_factory=dict)
    troubles: Mapping[str, str] = field(default_factory=dict)
    held: Mapping[str, Whole] = field(default_factory=dict)
    started: Moment = _UNKNOWN
    counts: tuple[tuple[Count, Figure], ...] = ()
    budget: tuple[Whole, Figure] | None = None
    defects: Mapping[str, str] = field(default_factory=dict)
    resting: tuple[RestingMarket, ...] = ()

    def to_json(self) -> str:
        """Return the JSON for the status hash."""
        return to_json(_plain(asdict(self)))

    @classmethod
    def from_json(cls, text: str) -> "ProcessReport | None":
        """Read what `to_json` wrote, in any version; None if it cannot be read."""
        try:
            return _REPORTS.read(text)
        except Unreadable:
            return None


@dataclass(frozen=True, slots=True)
class Poll:
    """One poll of a symbol: when (aware), and its result in words."""

    at: Moment
    answer: str


@dataclass(frozen=True, slots=True)
class Polls:
    """The last polls of a symbol, newest first; when the next one is planned (aware), and why."""

    polls: tuple[Poll, ...] = ()
    next_at: Moment | None = None
    reason: str = ""

    def again_by(self, pause: timedelta) -> datetime | None:
        """Return the time so long after the last poll; None if there is none to tell."""
        try:
            return self.polls[0].at + pause if self.polls else None
        except OverflowError:  # at an end of the calendar
            return None

    def to_json(self) -> str:
        """Return the JSON for the polls hash."""
        return to_json(_plain(asdict(self)))

    @classmethod
    def from_json(cls, text: str) -> "Polls | None":
        """Read what `to_json` wrote, in any version; None if it cannot be read."""
        try:
            return _POLLS.read(text)
        except Unreadable:
            return None


def living(reports: Mapping[str, ProcessReport], now: datetime) -> dict[str, ProcessReport]:
    """Return the reports of living processes; `now` is aware."""
    return {
        name: report for name, report in reports.items() if -AHEAD <= now - report.at <= DEAD_AFTER
    }


_REPORTS: Final = Codec[ProcessReport](ProcessReport)
_POLLS: Final = Codec[Polls](Polls, most=16 * 1024)


def _plain(value: Any) -> Any:  # noqa: ANN401  JSON has no types
    match value:
        case datetime():
            return isoformat(value)
        case date():
            return str(value)
        case Mapping():
            return {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case _:
            return value
