"""Decides what follows an attempt: retry, give up, or disable the endpoint. Pure.

The numbers follow the guidance of Standard Webhooks; time and jitter are arguments.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

DELAYS: Final = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
"""From the n-th attempt to the next: ten attempts in about 75 hours, before jitter."""

JITTER: Final = 0.2
"""A delay is lengthened or shortened by up to this fraction of it."""

LEAST_AFTER_429: Final = timedelta(seconds=60)
SLOW_DOWN: Final = timedelta(seconds=5)
"""How long nothing is sent to an endpoint whose gateway is overloaded (502, 504)."""

LONGEST_HOLD: Final = timedelta(hours=24)
"""A longer Retry-After is cut to this."""

GIVE_UP: Final = timedelta(days=5)
"""An endpoint whose attempts have all failed for this long is disabled."""

GONE: Final = 410
_TOO_MANY: Final = 429
_OVERLOADED: Final = frozenset({502, 504})


@dataclass(frozen=True, slots=True)
class Delivered:
    """The endpoint accepted it."""

    status: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The endpoint did not accept it.

    Attributes:
        reason: A few words without any secret, for logs and lists.
        status: The HTTP status, if there is one.
        answer: The beginning of its answer.
        retry_after: How long it asked to be sent nothing; None: it did not ask.
    """

    reason: str
    status: int | None = None
    answer: str = ""
    retry_after: timedelta | None = None


Outcome = Delivered | Failed


@dataclass(frozen=True, slots=True)
class Done:
    """Delivered: the lane goes on."""


@dataclass(frozen=True, slots=True)
class Later:
    """Retry after `delay`; `hold`: for how long nothing at all is sent to the endpoint."""

    delay: timedelta
    hold: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Dead:
    """Every attempt failed: it becomes a dead letter, and the lane goes on."""

    hold: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Disable:
    """Send nothing to the endpoint until an operator enables it; `reason` says why."""

    reason: str


NextStep = Done | Later | Dead | Disable


def decide(outcome: Outcome, *, attempt: int, failing: timedelta, jitter: float) -> NextStep:
    """Return what follows the `attempt`-th attempt (from 1) of a delivery.

    `failing`: for how long every attempt at the endpoint has failed. `jitter`: from -1 to 1.
    """
    match outcome:
        case Delivered():
            return Done()
        case Failed(status=status) if status == GONE:
            return Disable("it answered 410: the receiver is gone for good")
        case Failed(reason) if failing >= GIVE_UP:
            return Disable(f"it has failed for {failing.days} days, last with: {reason}")
        case Failed():
            hold = _hold(outcome)
            if attempt > len(DELAYS):
                return Dead(hold)
            delay = DELAYS[attempt - 1] * (1 + JITTER * jitter)
            return Later(max(delay, hold), hold)


def _hold(failed: Failed) -> timedelta:
    """Return for how long nothing at all is sent to the endpoint."""
    asked = failed.retry_after or timedelta(0)
    if failed.status == _TOO_MANY:
        asked = max(asked, LEAST_AFTER_429)
    elif failed.status in _OVERLOADED:
        asked = max(asked, SLOW_DOWN)
    return min(asked, LONGEST_HOLD)


def retry_after(text: str | None, now: datetime) -> timedelta | None:
    """Return how long a Retry-After header asks to wait, 0 to `LONGEST_HOLD`; never raises.

    It is a number of seconds or a date, which is in UTC unless it has a zone; None if it is neither
    or absent.
    """
    if text is None or len(text) > _LONGEST_HEADER or not text.isascii():
        return None
    asked = text.strip(" \t")
    if _SECONDS.fullmatch(asked):
        seconds = min(float(asked), LONGEST_HOLD.total_seconds())  # float: 1e999 is infinite
        return timedelta(seconds=seconds)
    try:
        moment = parsedate_to_datetime(asked)
    except (ValueError, OverflowError, TypeError, IndexError):  # depends on the library's version
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(moment - now, timedelta(0)), LONGEST_HOLD)


_LONGEST_HEADER: Final = 64
"""Characters of a Retry-After that is read: twice the longest form of a date."""

_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE]\+?[0-9]+)?")
