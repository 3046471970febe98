"""What follows an attempt: again later, given up, or the endpoint disabled. Pure.

Numbers as in Standard Webhooks' guidance; time, and the chance in the jitter, are arguments.
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
"""From the n-th attempt to the next one: ten attempts within 75 hours, before jitter."""

JITTER: Final = 0.2
"""A delay is lengthened or shortened by up to this part of it."""

LEAST_AFTER_429: Final = timedelta(seconds=60)
SLOW_DOWN: Final = timedelta(seconds=5)
"""How long an endpoint whose gateway is overloaded (502, 504) is left alone altogether."""

LONGEST_HOLD: Final = timedelta(hours=24)
"""The most a Retry-After is believed."""

GIVE_UP: Final = timedelta(days=5)
"""An endpoint that has failed this long is disabled."""

GONE: Final = 410
_TOO_MANY: Final = 429
_OVERLOADED: Final = frozenset({502, 504})


@dataclass(frozen=True, slots=True)
class Delivered:
    """The endpoint took it."""

    status: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The endpoint did not take it. `reason`: a few words without any secret, for log and list.

    `answer`: the beginning of what it said. `retry_after`: how long it asked to be left alone.
    """

    reason: str
    status: int | None = None
    answer: str = ""
    retry_after: timedelta | None = None


Outcome = Delivered | Failed


@dataclass(frozen=True, slots=True)
class Done:
    """Delivered: the lane goes on with the next."""


@dataclass(frozen=True, slots=True)
class Later:
    """Try again after `delay`; `hold`: until then, send nothing to the endpoint at all."""

    delay: timedelta
    hold: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Dead:
    """Every attempt failed: a dead letter; the lane goes on with the next."""

    hold: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Disable:
    """Send nothing more to the endpoint until an operator enables it; `reason` says why."""

    reason: str


Verdict = Done | Later | Dead | Disable


def decide(outcome: Outcome, *, attempt: int, failing: timedelta, jitter: float) -> Verdict:
    """Return what follows the `attempt`-th try (from 1) of a delivery.

    `failing`: since when the endpoint has done nothing but fail. `jitter`: from -1 to 1.
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
    """Return how long the endpoint, not only this lane, is left alone."""
    asked = failed.retry_after or timedelta(0)
    if failed.status == _TOO_MANY:
        asked = max(asked, LEAST_AFTER_429)
    elif failed.status in _OVERLOADED:
        asked = max(asked, SLOW_DOWN)
    return min(asked, LONGEST_HOLD)


def retry_after(text: str | None, now: datetime) -> timedelta | None:
    """Return how long a Retry-After header asks to wait: 0 to `LONGEST_HOLD`; never raises.

    It is a number of seconds or a date; None when it is absent or cannot be read as either. A date
    without a zone is UTC.
    """
    if text is None or len(text) > _LONGEST_HEADER or not text.isascii():
        return None
    asked = text.strip(" \t")
    if _SECONDS.fullmatch(asked):
        seconds = min(float(asked), LONGEST_HOLD.total_seconds())  # float: 1e999 is infinite
        return timedelta(seconds=seconds)
    try:
        moment = parsedate_to_datetime(asked)
    except (ValueError, OverflowError, TypeError, IndexError):  # as the library's versions have it
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(moment - now, timedelta(0)), LONGEST_HOLD)


_LONGEST_HEADER: Final = 64
"""Characters of a Retry-After that is read: the longest form of a date has half as many."""

_SECONDS: Final = re.compile(r"[0-9]+(\.[0-9]+)?([eE]\+?[0-9]+)?")
