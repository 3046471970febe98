"""When the next report of a market is expected: the calendar, adjusted by past releases. Pure.

The calendar gives the day; the hour is learned from the last releases seen. Reports appear on
business days, in daytime, and after the reporting day has ended; at other times probes are rarer. A
wrong expectation costs latency, never correctness.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from math import sqrt
from typing import Annotated, Final

from pydantic import Field

from poller.codec import Codec, Day, Moment
from poller.markets import Market
from poller.schedule.calendar import expected_after, is_trading_day, knows, release_of, zone_word

REMEMBERED: Final = 8
"""Number of releases the hour is learned from."""
LATE_AFTER: Final = timedelta(hours=12)
ODD_HOURS: Final = 3
"""Idle intervals between two probes at hours when no report has come so far."""
REST: Final = 12
"""Idle intervals between two probes outside publishing hours."""

_ENOUGH: Final = 4  # releases before their hours count
_LEAST_MARGIN: Final = timedelta(minutes=15)
_DAYTIME: Final = (time(7), time(23))
_DAY: Final = timedelta(days=1)
_LONGEST_PAUSE: Final = 7 * 86400.0  # seconds; a sweep pauses for hours at the most
_MOST: Final = 1024 * 1024  # characters: 50,000 codes without rows
_USUAL: Final = timedelta(hours=6)  # as long as the hour is not learned


@dataclass(frozen=True, slots=True)
class Intervals:
    """Time between two probes of a market.

    Attributes:
        due: While a report is expected.
        idle: Before it is expected.
        late: Once it is more than `LATE_AFTER` late.
    """

    due: timedelta
    idle: timedelta
    late: timedelta


@dataclass(frozen=True, slots=True)
class Sighting:
    """A release that was seen.

    Attributes:
        day: The reporting day.
        at: When it was first seen (aware); None if it had appeared earlier.
        scattered: Whether it came symbol by symbol.
    """

    day: date
    at: datetime | None
    scattered: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """When the report of `day` is expected. Instants are aware, UTC.

    Attributes:
        possible: The earliest instant by the calendar.
        opens: From when on it is probed for eagerly.
        closes: By when it has always been there so far; None until enough was learned.
        caveat: Why the window may be wrong, or "".
    """

    day: date
    possible: datetime
    opens: datetime
    closes: datetime | None = None
    caveat: str = ""


@dataclass(frozen=True, slots=True)
class MarketState:
    """What a market's plan remembers over a restart, beside the watermarks in the store.

    Attributes:
        newest: The newest reporting day.
        sightings: Past releases, oldest first.
        pause: Seconds before the block after the next of a paused sweep.
        resumes: When the next block of a paused sweep begins; None while none is paused.
        quiet: Codes of dormant symbols, the one polled longest ago first.
        open: The day announced as detected and not yet as completed.
    """

    newest: date | None = None
    sightings: tuple[Sighting, ...] = ()
    pause: float = 0.0
    resumes: datetime | None = None
    quiet: tuple[str, ...] = ()
    open: date | None = None

    def until(self, day: date | None) -> "MarketState":
        """Return this without what is later than `day`, the newest watermark of the market.

        This service stores no such releases; if believed, every symbol would have missed them.
        """
        past = tuple(one for one in self.sightings if _is_reached(one.day, day))
        last = past[-1].day if past else None
        return replace(
            self,
            newest=self.newest if _is_reached(self.newest, day) else last,
            sightings=past,
            open=self.open if _is_reached(self.open, day) else None,
        )

    def to_json(self) -> str:
        """Return the JSON kept in the schedule hash."""
        return json.dumps(
            {
                "newest": _text(self.newest),
                "sightings": [
                    [_text(one.day), _text(one.at), one.scattered] for one in self.sightings
                ],
                "pause": self.pause,
                "resumes": _text(self.resumes),
                "quiet": self.quiet,
                "open": _text(self.open),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "MarketState":
        """Read what any version's `to_json` wrote, or `{}`; raises Unreadable."""
        stored = _STORED.read(text)
        return cls(
            newest=stored.newest,
            sightings=tuple(Sighting(*one) for one in stored.sightings[-REMEMBERED:]),
            pause=stored.pause,
            resumes=stored.resumes,
            quiet=stored.quiet,
            open=stored.open,
        )


@dataclass(frozen=True, slots=True)
class _Stored:
    """The JSON form of a market's state."""

    newest: Day | None = None
    sightings: tuple[tuple[Day, Moment | None, bool], ...] = ()
    pause: Annotated[float, Field(ge=0, le=_LONGEST_PAUSE, allow_inf_nan=False)] = 0.0
    resumes: Moment | None = None
    quiet: tuple[str, ...] = ()
    open: Day | None = None


_STORED: Final = Codec[_Stored](_Stored, most=_MOST)


def _is_reached(day: date | None, newest: date | None) -> bool:
    return day is not None and newest is not None and day <= newest


def _text(value: date | datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def expected(market: Market, newest: date, sightings: Sequence[Sighting]) -> Window:
    """Return when the first report after `newest` is expected. `sightings`: oldest first."""
    known = [one for one in sightings if one.at is not None]
    release = expected_after(market, newest)
    possible = release.opens.astimezone(UTC)
    caveat = "" if knows(market, possible.year) else "no holidays are known for that year"
    early_late = _learned(market, known)
    if early_late is None:
        return Window(release.day, possible, possible, None, caveat)
    early, late = early_late
    opens = possible + early
    return Window(release.day, min(possible, opens), opens, possible + late, caveat)


def _learned(market: Market, known: Sequence[Sighting]) -> tuple[timedelta, timedelta] | None:
    """Return how long after the calendar's window releases began and ended, with a margin.

    A single outlier (a day early, two days late) does not count.
    """
    offsets = [one.at - release_of(market, one.day).opens for one in known if one.at is not None]
    if len(offsets) < _ENOUGH:
        return None
    middle = sorted(offsets)[len(offsets) // 2]
    usual = [offset for offset in offsets if abs(offset - middle) <= LATE_AFTER]
    margin = max((max(usual) - min(usual)) / 4, _LEAST_MARGIN)
    return min(usual) - margin, max(usual) + margin


def next_probe(
    market: Market, window: Window, now: datetime, intervals: Intervals
) -> tuple[datetime, str]:
    """Return when to probe a market again that was probed `now`, and why."""
    at, why = _next_probe(market, window, now, intervals)
    return at, f"{why} ({window.caveat})" if window.caveat else why


def _next_probe(
    market: Market, window: Window, now: datetime, intervals: Intervals
) -> tuple[datetime, str]:
    report, opens = f"the report of {window.day}", window.opens
    if now >= max(opens, window.possible) + LATE_AFTER:
        return now + intervals.late, f"{report} is late"
    if now >= opens:
        return now + _eager(window, now, intervals), f"{report} is due"
    if now >= window.possible:
        why = f"{report} usually comes from {_local(market, opens)} on"
        soon = now + min(intervals.late, intervals.idle)
        return min(soon, max(opens, now + intervals.due)), why
    soonest = max(window.possible, now + intervals.due)
    why = f"{report} is expected from {_local(market, opens)} on"
    pauses, hour = _hour(market, window, now)
    return min(now + pauses * intervals.idle, soonest), f"{why}; {hour}"


def _local(market: Market, moment: datetime) -> str:
    """Return a moment as the market's clocks show it: 2026-11-20 09:14 HKT."""
    there = moment.astimezone(market.zone)
    return f"{there:%Y-%m-%d %H:%M} {zone_word(there)}"


def _eager(window: Window, now: datetime, intervals: Intervals) -> timedelta:
    """Return the pause while a report is due: the more likely it comes now, the shorter.

    For an instant spread evenly over a window, pauses in proportion to the root of the time left
    find it soonest for a given number of probes; scaled, so that on average it is seen half a due
    interval late.
    """
    if window.closes is None or now >= window.closes:
        return intervals.due
    left = (window.closes - now) / (window.closes - window.opens)
    return intervals.due * max(1.5 * sqrt(left), 0.5)


def _hour(market: Market, window: Window, now: datetime) -> tuple[int, str]:
    """Return how many idle intervals to pause before a window, and why."""
    local = now.astimezone(market.zone)
    at_work = _DAYTIME[0] <= local.time() < _DAYTIME[1] and is_trading_day(market, local.date())
    if local.date() <= window.day or not at_work:
        return REST, "outside publishing hours"
    since = (now - window.opens) % _DAY
    if since <= (window.closes or window.opens + _USUAL) - window.opens:
        return 1, "reports came at this hour of the day"
    return ODD_HOURS, "no report came at this hour so far"
