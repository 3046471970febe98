"""What the service tells of itself through Redis, for pages on other machines. Pure.

Texts read back may be of another version or edited by hand: what cannot be read counts as absent.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal, Self, cast

from poller.codec import Codec, Day, Figure, Moment, Whole
from poller.errors import Unreadable
from poller.facts.counts import Count
from poller.model import isoformat, to_json

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


@dataclass(frozen=True, slots=True)
class ReleaseState:
    """A market's release: `covered` of the `wanted` symbols show `day` already."""

    phase: Phase
    day: date | None
    wanted: int
    covered: int


@dataclass(frozen=True, slots=True)
class Report:
    """What one process says of itself. `lease`: its fencing token, None when it does not poll.

    `troubles`: subject → reason, as the log has it. `held`: market → figures that wait for a
    ruling. `counts`: since the process `started`. `at`, `started`: aware. `budget`: requests of an
    account, and the seconds of its period; None when it does not poll. `defects`: component that a
    defect stopped and that has not run steadily since → what it was.
    """

    at: datetime
    role: Role
    version: str
    lease: int | None = None
    gateways: tuple[GatewayState, ...] = ()
    symbols: int = 0
    markets: Mapping[str, ReleaseState] = field(default_factory=dict)
    troubles: Mapping[str, str] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    started: datetime = _UNKNOWN
    counts: Mapping[Count, float] = field(default_factory=dict)
    budget: tuple[int, float] | None = None
    defects: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the JSON kept in the status hash."""
        plain = asdict(self) | {"counts": list(self.counts.items())}
        return to_json(_plain(plain))

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read what `to_json` wrote, in any version; None when it cannot be read."""
        try:
            stored = _REPORTS.read(text)
        except Unreadable:
            return None
        return cls(
            at=stored.at,
            role=cast("Role", stored.role),
            version=stored.version,
            lease=stored.lease,
            gateways=stored.gateways,
            symbols=stored.symbols,
            markets={name: _release(each) for name, each in stored.markets.items()},
            troubles=stored.troubles,
            held=stored.held,
            started=stored.started or _UNKNOWN,
            counts=dict(stored.counts),
            budget=stored.budget,
            defects=stored.defects,
        )


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


@dataclass(frozen=True, slots=True)
class _StoredRelease:
    """A market's release as JSON has it; another version may know another phase."""

    phase: str = "watching"
    day: Day | None = None
    wanted: Whole = 0
    covered: Whole = 0


@dataclass(frozen=True, slots=True)
class _StoredReport:
    """A report as JSON has it."""

    at: Moment
    role: str
    version: str
    lease: Whole | None = None
    gateways: tuple[GatewayState, ...] = ()
    symbols: Whole = 0
    markets: dict[str, _StoredRelease] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    held: dict[str, Whole] = field(default_factory=dict)
    started: Moment | None = None
    counts: tuple[tuple[tuple[str, ...], Figure], ...] = ()
    budget: tuple[Whole, Figure] | None = None
    defects: dict[str, str] = field(default_factory=dict)


_REPORTS: Final = Codec[_StoredReport](_StoredReport)
_POLLS: Final = Codec[Polls](Polls, most=16 * 1024)


def _release(stored: _StoredRelease) -> ReleaseState:
    phase = stored.phase if stored.phase in {"sweeping", "paused"} else "watching"
    return ReleaseState(cast("Phase", phase), stored.day, stored.wanted, stored.covered)


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
