"""What the service tells of itself through Redis, for pages on other machines. Pure.

Texts read back may be of another version or edited by hand: what cannot be read counts as absent.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal, Self, cast

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

_UNREADABLE: Final = (
    KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
"""What reading a text that anybody may have written can raise."""

_UNKNOWN: Final = datetime.min.replace(tzinfo=UTC)

Role = Literal["run", "poll", "deliver", "web"]
Phase = Literal["watching", "sweeping", "paused"]


@dataclass(frozen=True, slots=True)
class GatewayState:
    """One OpenD as its process sees it. `reason`: why it is, or is not, ready; `since`: aware."""

    name: str
    account: str
    ready: bool
    reason: str
    since: datetime


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
    account, and the seconds of its period; None when it does not poll.
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

    def to_json(self) -> str:
        """Return the JSON kept in the status hash."""
        plain = asdict(self) | {"counts": list(self.counts.items())}
        return to_json(_plain(plain))

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read what `to_json` wrote, of this version or a near one; None when it cannot be read."""
        try:
            raw = json.loads(text)
            return cls(
                at=_moment(raw["at"]),
                role=raw["role"],
                version=str(raw["version"]),
                lease=None if raw["lease"] is None else int(raw["lease"]),
                gateways=tuple(_gateway(each) for each in raw["gateways"]),
                symbols=int(raw["symbols"]),
                markets={str(name): _market(each) for name, each in raw["markets"].items()},
                troubles={str(k): str(v) for k, v in raw.get("troubles", {}).items()},
                held={str(k): int(v) for k, v in raw.get("held", {}).items()},
                started=_moment(raw["started"]) if "started" in raw else _UNKNOWN,
                counts=dict(_count(*each) for each in raw.get("counts", [])),
                budget=_budget(*raw["budget"]) if raw.get("budget") else None,
            )
        except _UNREADABLE:
            return None


@dataclass(frozen=True, slots=True)
class Poll:
    """One look at a symbol, and what came of it in words."""

    at: datetime
    answer: str


@dataclass(frozen=True, slots=True)
class Polls:
    """The last looks at a symbol, newest first, when the next one is planned, and why then."""

    polls: tuple[Poll, ...] = ()
    next_at: datetime | None = None
    reason: str = ""

    def to_json(self) -> str:
        """Return the JSON kept in the polls hash."""
        return to_json(_plain(asdict(self)))

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read what `to_json` wrote; None when it cannot be read."""
        try:
            raw = json.loads(text)
            return cls(
                polls=tuple(Poll(_moment(p["at"]), str(p["answer"])) for p in raw["polls"]),
                next_at=None if raw["next_at"] is None else _moment(raw["next_at"]),
                reason=str(raw["reason"]),
            )
        except _UNREADABLE:
            return None


def living(reports: Mapping[str, Report], now: datetime) -> dict[str, Report]:
    """Return the reports of processes that still live."""
    return {
        name: report for name, report in reports.items() if -AHEAD <= now - report.at <= DEAD_AFTER
    }


def _gateway(raw: Mapping[str, Any]) -> GatewayState:
    ready, since = bool(raw["ready"]), _moment(raw["since"])
    return GatewayState(str(raw["name"]), str(raw["account"]), ready, str(raw["reason"]), since)


def _market(raw: Mapping[str, Any]) -> ReleaseState:
    day = None if raw["day"] is None else date.fromisoformat(raw["day"])
    phase = raw["phase"] if raw["phase"] in {"sweeping", "paused"} else "watching"
    return ReleaseState(cast("Phase", phase), day, int(raw["wanted"]), int(raw["covered"]))


def _count(names: Sequence[str], value: float) -> tuple[Count, float]:
    if not math.isfinite(value):
        raise ValueError("a count that is none")
    return tuple(map(str, names)), value


def _budget(requests: float, period: float) -> tuple[int, float]:
    return int(requests), float(period)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment.astimezone(UTC)  # OverflowError where that is no time


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
