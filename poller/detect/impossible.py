"""What no report of a market can show, whatever was reported before it. Pure.

The bounds are far outside what is real: they tell a fault of the source, never an unlikely figure.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from math import isfinite
from typing import Any, Final

from poller.codec import LARGEST_FIGURE, LARGEST_WHOLE
from poller.detect.held import Held, Reason
from poller.model import Market, Record

FIRST_DAYS: Final[Mapping[Market, date]] = {
    Market.HK: date(2012, 6, 18),
    Market.US: date(1973, 1, 1),
}
"""No market has an older report.

Hong Kong: the Short Position Reporting Rules came into effect that day. US: exchanges reported long
before FINRA did, and the oldest series that vendors sell begin with this year.
"""

MOST_SHARES: Final = 10**13
"""Ten times the largest number of shares any company on these markets has issued."""

MOST_PERCENT: Final[Mapping[Market, float]] = {Market.HK: 100.0, Market.US: 10_000.0}
"""Of the issued shares in Hong Kong, where none is sold short that was not borrowed before.

The US allows more: some funds stand at several times their shares, and what `short_percent` is a
part of is documented nowhere.
"""

MOST_DAYS_TO_COVER: Final = 1_000.0
"""FINRA caps it at 999.99."""

MOST_PRICE: Final = 1e12
"""A thousand times what adjusting for a dozen reverse splits has made of any price."""

LEAST_PRICE: Final = 1e-6
"""A hundredth of the smallest step in which any share is quoted."""

_WHOLE: Final = "most known days changed, as those of another company; all of them wait with it"
_SLACK: Final = timedelta(hours=2)
"""A midnight counted without summer time still belongs to its day."""


def impossible(market: Market, record: Record) -> tuple[Reason, str] | None:
    """Return why no report of this market can be like that, and in words what shows it.

    None where nothing speaks against it; an absent figure never does.
    """
    if record.day < FIRST_DAYS[market]:
        told = f"{market} has no report before {FIRST_DAYS[market]}"
        return Reason.IMPOSSIBLE_DAY, told
    for name, value in record.columns().items():
        fits = _FITS.get(name)  # none of them fits what is infinite, or not a number
        if value is not None and fits is not None and not fits(market, value):
            return Reason.IMPOSSIBLE_FIGURE, f"{name} is {_short(value)}"
    if record.timestamp is not None and not _is_on(market, record.day, record.timestamp):
        return Reason.OTHER_TIMESTAMP, f"timestamp is {_short(record.timestamp)}, another day"
    return None


def explained(market: Market, held: Held) -> str:
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


def _shares(_: Market, value: float) -> bool:
    return 0 <= value <= MOST_SHARES


def _percent(market: Market, value: float) -> bool:
    return 0 <= value <= MOST_PERCENT[market]


def _price(_: Market, value: float) -> bool:
    return LEAST_PRICE <= value <= MOST_PRICE


_FITS: Final[Mapping[str, Callable[[Market, float], bool]]] = {
    "aggregated_short": _shares,
    "shares_short": _shares,
    "avg_daily_share_volume": _shares,
    "aggregated_short_ratio": _percent,
    "short_percent": _percent,
    "days_to_cover": lambda _, value: 0 <= value <= MOST_DAYS_TO_COVER,
    "close_price": _price,
    "last_close_price": _price,
}


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
