"""One report of a market as a whole: who shows it, who is missing, and who moved most. Pure."""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

from poller.detect.change import Timeline, computed_cover, move
from poller.detect.split import split_factor
from poller.markets import Record, Shares, is_below_threshold
from poller.model import Code, Vintage

MISSED: Final = 3
"""Reports before one, any of which a symbol must show to be expected to show that one. One that
missed as many is looked at once a day."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A symbol's figures of one report, beside those of the report before.

    Attributes:
        zscore: The unusualness of the move, as in an event's `change`; None also if not read.
        rank: From 1, the same for equal figures; None where the figure that ranks is not known.
        percentile: 0-100: how many of the ranked symbols do not exceed that figure.
        change: In shares; None where either figure is below the reporting threshold or not known.
            As if adjusted for a split between the two reports, as in an event's `change`.
        percent: The same in percent of the figure before; None also where that was 0.
    """

    code: Code
    vintage: Vintage
    previous: Record | None
    zscore: float | None = None
    rank: int | None = None
    percentile: float | None = None

    @property
    def record(self) -> Record:
        """The figures of the day."""
        return self.vintage.record

    @property
    def change(self) -> Shares | None:
        """See the class."""
        return _move(self.record, self.previous)[0]

    @property
    def percent(self) -> float | None:
        """See the class."""
        return _move(self.record, self.previous)[1]

    @property
    def days_to_cover(self) -> float | None:
        """Days; None where the market has no such figure."""
        return self.record.days_to_cover


def _move(record: Record, previous: Record | None) -> tuple[Shares | None, float | None]:
    if previous is None or is_below_threshold(record) or is_below_threshold(previous):
        return None, None
    return move(previous, record, split_factor(previous, record))


def zscore_of(days: Mapping[date, Record], day: date) -> float | None:
    """Return how unusual a day's move is in the symbol's own history up to it, as in an event."""
    timeline = Timeline({each: record for each, record in days.items() if each <= day})
    trend = timeline.trends([day]).get(day)
    return None if trend is None else trend.zscore


SORTS: Final[Mapping[str, Callable[[Standing], float | None]]] = {
    "change": lambda one: None if one.change is None else abs(one.change),
    "percent": lambda one: None if one.percent is None else abs(one.percent),
    "ratio": lambda one: one.record.ratio,
    "days_to_cover": lambda one: computed_cover(one.record),
}
"""What a report can be ranked by, the largest first."""

HISTORY_SORTS: Final[Mapping[str, Callable[[Standing], float | None]]] = {
    "zscore": lambda one: None if one.zscore is None else abs(one.zscore),
}
"""The same, where the whole history of each symbol has to be read."""


def ranked(standings: Iterable[Standing], sort: str) -> list[Standing]:
    """Return them by rank, and by code among equals, which share the first of their ranks.

    Those whose figure is not known come last, by code, without a rank.
    """
    figure = {**SORTS, **HISTORY_SORTS}[sort]
    known = [(figure(one), one) for one in standings]
    known.sort(key=lambda pair: (pair[0] is None, -(pair[0] or 0), pair[1].code))
    figures = sorted(value for value, _ in known if value is not None)
    return [one if value is None else _placed(one, value, figures) for value, one in known]


def _placed(one: Standing, value: float, figures: Sequence[float]) -> Standing:
    """Return a standing with its rank and percentile among these figures, the smallest first."""
    not_above = bisect_right(figures, value)
    percentile = round(100 * not_above / len(figures), 1)
    return replace(one, rank=1 + len(figures) - not_above, percentile=percentile)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Who shows a report.

    Attributes:
        shown: Those that show it, each with its last known day before, watched or not.
        missing: Watched symbols that lack it, each with its last known day before.
        others: Watched symbols that were not expected to show it, as their last known day before is
            none of the three reports before; each with that day, None without any.
    """

    shown: Mapping[Code, date | None]
    missing: Mapping[Code, date]
    others: Mapping[Code, date | None]

    @property
    def expected(self) -> int:
        """How many show it or lack it."""
        return len(self.shown) + len(self.missing)


def coverage(
    day: date, known: Mapping[Code, Sequence[date]], watched: Collection[Code]
) -> Coverage:
    """Return who shows the report of `day`: the one definition for commands, page and API.

    `known`: the days of each symbol of one market, oldest first; for the newest report, the last
    four of each are enough.
    """
    before = {code: [each for each in days if each < day] for code, days in known.items()}
    reports = sorted({each for days in before.values() for each in days})[-MISSED:]
    shown = {code: max(before[code], default=None) for code, days in known.items() if day in days}
    lacking = [code for code in watched if code not in shown]
    missing = {
        code: before[code][-1]
        for code in lacking
        if before.get(code) and before[code][-1] in reports
    }
    others = {code: max(before.get(code, ()), default=None) for code in lacking}
    others = {code: last for code, last in others.items() if code not in missing}
    return Coverage(shown, missing, others)
