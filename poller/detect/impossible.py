"""What no report of a market can show, whatever was reported before it. Pure.

The bounds are far outside what is real: they tell a fault of the source, never an unlikely figure.
"""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from math import isfinite
from typing import Any, Final

from poller.codec import LARGEST_FIGURE, LARGEST_WHOLE
from poller.detect.held import QuarantinedFigure, Reason
from poller.markets import Market, Record

_WHOLE: Final = "most known days changed, as those of another company; all of them wait with it"
_SLACK: Final = timedelta(hours=2)
"""A midnight counted without summer time still belongs to its day."""


def impossible(market: Market, record: Record) -> tuple[Reason, str] | None:
    """Return why no report of this market can be like that, and in words what shows it.

    None where nothing speaks against it; an absent figure never does.
    """
    if record.day < market.first_day:
        return Reason.IMPOSSIBLE_DAY, f"{market} has no report before {market.first_day}"
    for name, (least, most) in market.bounds.items():
        value = getattr(record, name)
        # no bounds hold what is infinite, or not a number
        if value is not None and not least <= value <= most:
            return Reason.IMPOSSIBLE_FIGURE, f"{name} is {_short(value)}"
    if record.timestamp is not None and not _is_on(market, record.day, record.timestamp):
        return Reason.OTHER_TIMESTAMP, f"timestamp is {_short(record.timestamp)}, another day"
    return None


def explained(market: Market, held: QuarantinedFigure) -> str:
    """Return the reason of a held figure, and what shows it where that is not plain."""
    if held.reason == Reason.WHOLE_HISTORY:
        return f"{held.reason} ({_WHOLE})"
    found = impossible(market, held.record)
    return (
        str(held.reason)
        if found is None or found[0] != held.reason
        else (f"{held.reason} ({found[1]})")
    )


def storable(record: Record) -> Record:
    """Return the record without numbers that the codec of our entries would refuse to read."""
    odd = [name for name, value in record.columns().items() if not _is_readable(value)]
    absent: dict[str, Any] = dict.fromkeys(odd)
    return replace(record, **absent) if odd else record


def _is_readable(value: object) -> bool:
    match value:
        case float():
            return isfinite(value) and abs(value) <= LARGEST_FIGURE
        case int():
            return abs(value) <= LARGEST_WHOLE
        case _:
            return True


def _short(value: object) -> str:
    """Return a number as a person can read it, however large."""
    if isinstance(value, int):
        return str(value) if _is_readable(value) else "a number of more than 64 bits"
    return f"{value:g}"


def _is_on(market: Market, day: date, timestamp: int) -> bool:
    try:
        moments = [datetime.fromtimestamp(timestamp, UTC) + wait for wait in (timedelta(), _SLACK)]
        return day in {moment.astimezone(market.zone).date() for moment in moments}
    except (OverflowError, OSError, ValueError):
        return False
