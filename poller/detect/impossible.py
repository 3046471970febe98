"""Figures that no report of a market can show, whatever was reported before. Pure.

The bounds are far outside what is real: they catch faults of the source, not unlikely figures.
"""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from poller.codec import LARGEST_FIGURE, LARGEST_WHOLE
from poller.detect.held import QuarantinedFigure, Reason
from poller.markets import Market, Record

_WHOLE: Final = "most known days changed, as those of another company; all of them wait with it"
_SLACK: Final = timedelta(hours=2)
"""Allows midnights computed without daylight saving time."""


def impossible(market: Market, record: Record) -> tuple[Reason, str] | None:
    """Return why no report of this market can contain this record, and the evidence in words.

    None if it is possible; an absent figure always is.
    """
    if record.day < market.first_day:
        return Reason.IMPOSSIBLE_DAY, f"{market} has no report before {market.first_day}"
    for name, (least, most) in market.bounds.items():
        value = getattr(record, name)
        # infinity and NaN fail this comparison, too
        if value is not None and not least <= value <= most:
            return Reason.IMPOSSIBLE_FIGURE, f"{name} is {_abbreviated(value)}"
    if record.timestamp is not None and not _is_on_day(market, record.day, record.timestamp):
        return Reason.OTHER_TIMESTAMP, f"timestamp is {_abbreviated(record.timestamp)}, another day"
    return None


def explained(market: Market, held: QuarantinedFigure) -> str:
    """Return the reason of a held figure, with the evidence if the reason alone is not enough."""
    if held.reason == Reason.WHOLE_HISTORY:
        return f"{held.reason} ({_WHOLE})"
    found = impossible(market, held.record)
    if found is None or found[0] != held.reason:
        return str(held.reason)
    return f"{held.reason} ({found[1]})"


def storable(record: Record) -> Record:
    """Return the record without the numbers that the codec refuses to read back."""
    odd = [name for name, value in record.columns().items() if not _is_readable(value)]
    absent: dict[str, Any] = dict.fromkeys(odd)
    return replace(record, **absent) if odd else record


def _is_readable(value: object) -> bool:
    match value:
        case float():
            return abs(value) <= LARGEST_FIGURE  # what is not finite is not
        case int():
            return abs(value) <= LARGEST_WHOLE
        case _:
            return True


def _abbreviated(value: object) -> str:
    """Return a number in a readable length, however large it is."""
    if isinstance(value, int):
        return str(value) if _is_readable(value) else "a number of more than 64 bits"
    return f"{value:g}"


def _is_on_day(market: Market, day: date, timestamp: int) -> bool:
    try:
        moments = [datetime.fromtimestamp(timestamp, UTC) + wait for wait in (timedelta(), _SLACK)]
        return day in {moment.astimezone(market.zone).date() for moment in moments}
    except (OverflowError, OSError, ValueError):
        return False
