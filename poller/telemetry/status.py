"""What the service tells of itself through Redis, for pages on other machines. Pure.

Texts read back may be of another version or edited by hand: what cannot be read counts as absent.
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
"""Between two reports of a process that has nothing new to say."""

SOON: Final = timedelta(seconds=3)
"""Until the next report of what was polled, counted or failed; troubles are told at once."""

DEAD_AFTER: Final = timedelta(minutes=1)
"""A process that has not reported for so long counts as gone."""

AHEAD: Final = timedelta(minutes=10)
"""So far another machine's clock may be ahead; a report of later was left by a clock set back."""

TROUBLES_KEPT: Final = 20
"""Troubles one report names; the log has them all."""

POLLS_KEPT: Final = 5
"""Looks at a symbol that are remembered."""

_UNKNOWN: Final = datetime(1970, 1, 1, tzinfo=UTC)

Role = Literal["run", "poll", "deliver", "web"]
Phase = Literal["watching", "sweeping", "paused"]


@dataclass(frozen=True, slots=True)
class GatewayState:
    """One OpenD as its process sees it. `reason`: why it is, or is not, ready; `since`: aware."""

    name: str
    account: str
    ready: bool
    reason: str
    since: Moment


def _known(phase: object) -> object:
    return "watching" if isinstance(phase, str) and phase not in get_args(Phase) else phase


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """A market's release: `covered` of the `wanted` symbols show `day` already.

    A phase that another version knows is read as `watching`.
    """

    phase: Annotated[Phase, BeforeValidator(_known)] = "watching"
    day: Day | None = None
    wanted: Whole = 0
    covered: Whole = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What one process says of itself. `lease`: its fencing token, None when it does not poll.

    `role`: a `Role`, or one that another version knows. `troubles`: subject → reason, as the log
    has it. `held`: market → figures that await a decision. `counts`: since the process `started`.
    `at`, `started`: aware. `budget`: requests of an account, and the seconds of its period; None
    when it does not poll. `defects`: component that a defect stopped and that has not run steadily
    since → what it was.
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

    def to_json(self) -> str:
        """Return the JSON kept in the status hash."""
        return to_json(_plain(asdict(self)))

    @classmethod
    def from_json(cls, text: str) -> "Report | None":
        """Read what `to_json` wrote, in any version; None when it cannot be read."""
        try:
            return _REPORTS.read(text)
        except Unreadable:
            return None


@dataclass(frozen=True, slots=True)
class Poll:
    """One look at a symbol, and what came of it in words."""

    at: Moment
    answer: str


@dataclass(frozen=True, slots=True)
class Polls:
    """The last looks at a symbol, newest first, when the next one is planned, and why then."""

    polls: tuple[Poll, ...] = ()
    next_at: Moment | None = None
    reason: str = ""

    def to_json(self) -> str:
        """Return the JSON kept in the polls hash."""
        return to_json(_plain(asdict(self)))

    @classmethod
    def from_json(cls, text: str) -> "Polls | None":
        """Read what `to_json` wrote, in any version; None when it cannot be read."""
        try:
            return _POLLS.read(text)
        except Unreadable:
            return None


def living(reports: Mapping[str, Report], now: datetime) -> dict[str, Report]:
    """Return the reports of processes that still live."""
    return {
        name: report for name, report in reports.items() if -AHEAD <= now - report.at <= DEAD_AFTER
    }


_REPORTS: Final = Codec[Report](Report)
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
