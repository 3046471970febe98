"""What `gaps` and `quarantine list` found, for people or as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from typing import Any, Final

from poller.detect.held import QuarantinedFigure
from poller.detect.impossible import explained
from poller.model import Code, market_of, to_json
from poller.show.tables import number, print_table
from poller.show.terminal import say, say_json

_NAMED: Final = 10  # days
_INDENT: Final = 10  # columns before further lines: below the text


@dataclass(frozen=True, slots=True)
class Gaps:
    """A symbol's reporting days without a record, since its oldest known day.

    `held`: day → why it is in quarantine.
    """

    code: Code
    since: date | None
    days: tuple[date, ...]
    held: Mapping[date, str]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "code": self.code,
            "since": None if self.since is None else str(self.since),
            "missing": [str(day) for day in self.days],
            "held": {str(day): reason for day, reason in self.held.items()},
        }


def print_gaps(found: Sequence[Gaps], *, as_json: bool) -> None:
    """Print one line per symbol to stdout, or a JSON list."""
    if as_json:
        say_json(json.dumps([each.as_json() for each in found]))
        return
    for each in found:
        say(f"{each.code:<9} {_gaps_line(each)}", indent=_INDENT)


def _gaps_line(gaps: Gaps) -> str:
    if gaps.since is None:
        return "nothing is known"
    if not gaps.days:
        return f"nothing missing since {gaps.since}"
    named = [
        f"{day} (held: {gaps.held[day]})" if day in gaps.held else str(day)
        for day in gaps.days[:_NAMED]
    ]
    if more := len(gaps.days) - len(named):
        named.append(f"and {more} more (--json names all)")
    return f"{len(gaps.days)} missing since {gaps.since}: {', '.join(named)}"


def print_held(rows: Sequence[tuple[Code, QuarantinedFigure]], *, as_json: bool) -> None:
    """Print held figures to stdout, as a table or a JSON list."""
    if as_json:
        found = [{"code": code} | json.loads(held.to_json()) for code, held in rows]
        say_json(to_json(found))
        return
    cells = [
        (
            code,
            str(held.day),
            str(held.decision),
            explained(market_of(code), held),
            number(held.record.shares),
            number(held.previous.shares if held.previous else None),
            f"{held.observed_at.astimezone(UTC):%m-%d %H:%M}",
        )
        for code, held in rows
    ]
    print_table(("code", "day", "state", "reason", "shares", "after", "observed_at"), cells)
