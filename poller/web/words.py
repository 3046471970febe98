"""Figures and times as the page writes them. Pure; an absent figure is an en dash."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Any, Final

from poller.model import Market
from poller.storage.store import Entry

ABSENT: Final = "–"
_STEPS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def number(value: float | None) -> str:
    """Return 1,234,567."""
    return ABSENT if value is None else f"{value:,}"


def signed(value: int | None) -> str:
    """Return +1,234, −1,234 or ±0."""
    return ABSENT if value is None else "±0" if not value else f"{value:+,}".replace("-", "−")


def percent(value: float | None) -> str:
    """Return +1.23 % or −1.23 %."""
    return ABSENT if value is None else f"{value:+.2f} %".replace("-", "−")


def ratio(value: float | None) -> str:
    """Return 0.56 %."""
    return ABSENT if value is None else f"{value:.2f} %"


def direction(value: float | None) -> str:
    """Return the class that colours a change."""
    return "" if not value else "up" if value > 0 else "down"


def span(length: timedelta) -> str:
    """Return the largest unit of a length: 3 min."""
    seconds = abs(length.total_seconds())
    size, unit = next((step for step in _STEPS if seconds >= step[0]), _STEPS[-1])
    return f"{int(seconds // size)} {unit}"


def ago(moment: datetime | None, now: datetime) -> str:
    """Return `3 min ago`, `in 3 min`, or never."""
    if moment is None:
        return ABSENT
    length = now - moment
    if abs(length) < timedelta(seconds=1):
        return "now"
    return f"{span(length)} ago" if length > timedelta() else f"in {span(length)}"


def days_old(day: date | None, market: Market, now: datetime) -> str:
    """Return how many days ago a trading day was, in its market."""
    if day is None:
        return ABSENT
    return f"{(now.astimezone(market.zone).date() - day).days} d"


@dataclass(frozen=True, slots=True)
class Line:
    """Entries of the stream as one line of the page: one, or a run of `count` backfilled days."""

    id: str
    at: str
    code: str
    kind: str
    day: str
    shares: int | None
    change: int | None
    percent: float | None
    count: int = 1


def lines(entries: Iterable[Entry]) -> list[Line]:
    """Return a line an event, newest first; backfilled days of a symbol are taken together."""
    told = [line for entry in entries if (line := _line(entry)) is not None]
    found = []
    for _, run in groupby(reversed(told), key=_together):
        newest, *others = run
        found.append(
            Line(
                newest.id,
                newest.at,
                newest.code,
                newest.kind,
                newest.day,
                newest.shares,
                newest.change,
                newest.percent,
                1 + len(others),
            )
        )
    return found


def _together(line: Line) -> tuple[str, str]:
    return (line.code, "") if line.kind == "backfilled" else (line.code, line.id)


def _line(entry: Entry) -> Line | None:
    """Read one entry; None when it is none of this service's."""
    fields = entry.fields
    try:
        told = json.loads(fields["data"])
        record, change = told["record"], told["change"] or {}
        shares = record.get("aggregated_short", record.get("shares_short"))
        return Line(
            entry.id,
            fields["observed_at"],
            fields["code"],
            fields["type"].rpartition(".")[2],
            fields["trading_day"],
            _whole(shares),
            _whole(change.get("shares")),
            _real(change.get("percent")),
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def _whole(value: Any) -> int | None:  # noqa: ANN401  JSON has no types
    return value if isinstance(value, int) else None


def _real(value: Any) -> float | None:  # noqa: ANN401
    return float(value) if isinstance(value, int | float) else None


def plural(count: int, words: Sequence[str]) -> str:
    """Return `1 symbol`, `2 symbols`."""
    return f"{count:,} {words[0] if count == 1 else words[1]}"
