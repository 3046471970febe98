"""What the simulated OpenD knows: a pure function of (request, now). No I/O, no clock.

A world is a frozen value; to change it while it runs, give the simulator another one
(`dataclasses.replace`). Its symbols are generated from the seed, or given in `extra`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache, cached_property, lru_cache
from itertools import islice, takewhile
from math import prod
from typing import Final

from poller.markets import Figures, Market, Record, market_named
from poller.model import Code, market_of, unique
from poller.schedule.calendar import release_of, reporting_days
from poller.simulator.series import TENCENT, Walk, draw, made_up_codes, walk

END: Final = "-1"
"""The next key of the last page."""
MOST_ROWS: Final = 50

Rows = Callable[[Code, datetime], Sequence[Record]]
"""Returns the rows of a code at an instant (aware), newest first."""


@dataclass(frozen=True, slots=True)
class ShortInterest:
    """A request for one page of `num` rows; `next_key` "" asks for the newest."""

    code: str
    next_key: str = ""
    num: int = 10


@dataclass(frozen=True, slots=True)
class WorldAnswer:
    """One page, newest first. `next_key` is END on the last one."""

    market: Market
    records: tuple[Record, ...]
    next_key: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """OpenD's error text."""

    text: str


@dataclass(frozen=True, slots=True)
class Revision:
    """From `at` (aware) on, the short figures of `day` of `code` are multiplied by `factor`."""

    code: Code
    day: date
    at: datetime
    factor: float


@dataclass(frozen=True, slots=True)
class Split:
    """From `at` (aware) on, all shares of `code` are multiplied by `factor`, prices divided."""

    code: Code
    at: datetime
    factor: float


@dataclass(frozen=True)
class World:
    """Every symbol, its rows, and when each row appears. A day never appears before it begins.

    Attributes:
        seed: Determines everything that is made up.
        made_up: Market's name → how many of its symbols to make up.
        named: Further symbols, made up in the same way but always with rows.
        tencent: Whether HK.00700 exists, with the rows of Futu's page.
        without_rows: The fraction of made-up symbols that never get a row.
        since: From here on the history grows; the newest row before may be released a little later.
        history: How many reporting days a symbol has before `since`. It determines the figures, as
            does `depth`, because the random walk begins with the first day.
        depth: The same for single codes.
        reports: Yields the reporting days of a market from a day on, without end.
        stagger: Spreads each release over the symbols for so long.
        shift: Moves every release that follows the rule.
        releases: Releases a day of a market at this instant (aware) instead.
        revisions: See `Revision`.
        splits: See `Split`.
        refused: Code → the error text to answer with.
        groups: The user's watch groups: name → codes of any market.
        extra: Code → its rows, or a function that returns them.
        latency: The median delay of an answer, which varies from half to one and a half of it.
    """

    seed: int = 1
    made_up: Mapping[str, int] = field(default_factory=dict)
    named: tuple[Code, ...] = ()
    tencent: bool = True
    without_rows: float = 0.1
    since: date = date(2026, 1, 1)
    history: int = 60
    depth: Mapping[Code, int] = field(default_factory=dict)
    reports: Callable[[Market, date], Iterator[date]] = reporting_days
    stagger: timedelta = timedelta()
    shift: timedelta = timedelta()
    releases: Mapping[tuple[Market, date], datetime] = field(default_factory=dict)
    revisions: tuple[Revision, ...] = ()
    splits: tuple[Split, ...] = ()
    refused: Mapping[Code, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extra: Mapping[Code, tuple[Record, ...] | Rows] = field(default_factory=dict)
    latency: timedelta = timedelta()

    def codes(self) -> tuple[Code, ...]:
        """Return every known code, Tencent's first."""
        return self._codes

    def knows(self, code: str) -> bool:
        """Return whether a code exists."""
        return code in self._known

    def scale(self, code: Code, now: datetime) -> float:
        """Return the factor of all splits of a code up to `now`."""
        return prod(one.factor for one in self.splits if one.code == code and one.at <= now)

    def days(self, market: Market, until: date) -> tuple[date, ...]:
        """Return a market's reporting days, oldest first, to the end of the year of `until`."""
        return _timeline(self.reports, market, self.since, self.history, until.year)

    def begins(self, market: Market, day: date) -> datetime:
        """Return the instant (aware) at which the first symbols may show `day`."""
        instant = self.releases.get((market, day))
        return _rule(self.seed, market, day) + self.shift if instant is None else instant

    def release(self, code: Code, day: date) -> datetime:
        """Return the instant (aware, UTC) at which `day` of `code` appears."""
        instant = self.begins(market_of(code), day)
        if self.stagger:
            instant += self.stagger * draw(self.seed, "stagger", code, day)
        return instant.astimezone(UTC)

    def has_rows(self, code: Code) -> bool:
        """Return whether a made-up symbol ever gets a row."""
        if code in self.named:
            return True
        return code in self._known and draw(self.seed, "covered", code) >= self.without_rows

    def records(self, code: Code, now: datetime) -> tuple[Record, ...]:
        """Return all rows of a code at `now`, newest first."""
        return tuple(self._newest_first(code, now))

    def newest(self, code: Code, now: datetime) -> Record | None:
        """Return the newest row of a code at `now`."""
        return next(self._newest_first(code, now), None)

    def next_change(self, market: Market, now: datetime) -> datetime | None:
        """Return until when no figure of a market changes: `now` while a release is under way.

        Rows that are given as functions are left out.
        """
        year_ahead = now.astimezone(market.zone).date() + timedelta(days=366)
        begins = [self.begins(market, day) for day in self.days(market, year_ahead)]
        if any(at <= now < at + self.stagger for at in begins):
            return now
        begins += [revision.at for revision in self.revisions]
        begins += [split.at for split in self.splits]
        return min((at for at in begins if at > now), default=None)

    def answer(
        self, request: ShortInterest, now: datetime
    ) -> tuple[WorldAnswer | Refusal, timedelta]:
        """Return the answer to a request that arrives at `now`, and how long it takes."""
        share = draw(self.seed, "latency", request, now) if self.latency else 0.0
        return self._outcome(request, now), self.latency * (0.5 + share)

    def _outcome(self, request: ShortInterest, now: datetime) -> WorldAnswer | Refusal:
        code, num = Code(request.code), request.num
        if not 1 <= num <= MOST_ROWS:
            return Refusal(f"num 参数超出范围（1~{MOST_ROWS}）")
        if (text := self.refused.get(code)) is not None:
            return Refusal(text)
        if code not in self._known:
            return Refusal(why_unknown(code))
        try:
            before = date.fromordinal(int(request.next_key, 16)) if request.next_key else None
        except ValueError:
            return Refusal("next_key 参数无效")
        page = list(islice(self._newest_first(code, now, before), num + 1))
        more = len(page) > num
        # the key is the last day served, so that a release between two pages shifts nothing
        key = f"{page[num - 1].day.toordinal():x}" if more else END
        return WorldAnswer(market_of(code), tuple(page[:num]), key)

    @cached_property
    def _codes(self) -> tuple[Code, ...]:
        """Every known code, in the order of the fields that define them."""
        first = (TENCENT,) if self.tencent else ()
        return unique((*first, *self.named, *self.extra, *made_up_codes(self.seed, self.made_up)))

    @cached_property
    def _known(self) -> frozenset[Code]:
        return frozenset(self._codes)

    def _newest_first(
        self, code: Code, now: datetime, before: date | None = None
    ) -> Iterator[Record]:
        """Yield the rows before `before`, with the revisions and splits up to `now` applied."""
        revisions = [one for one in self.revisions if one.code == code and one.at <= now]
        scale = self.scale(code, now)
        for row in self._rows(code, now, before):
            text = row.timestamp_str
            revised = prod(one.factor for one in revisions if one.day.isoformat() == text)
            yield row if scale == revised == 1 else _shown(market_of(code), row, scale, revised)

    def _rows(self, code: Code, now: datetime, before: date | None) -> Iterable[Record]:
        given = self.extra.get(code)
        if given is None and self.tencent and code == TENCENT:
            given = TENCENT_ROWS
        if given is None:
            return self._walked(code, now, before) if self.has_rows(code) else ()
        rows = given(code, now) if callable(given) else given
        return [row for row in rows if before is None or row.day < before]

    def _walked(self, code: Code, now: datetime, before: date | None) -> Iterator[Record]:
        market = market_of(code)
        today = now.astimezone(market.zone).date()
        depth = self.depth.get(code, self.history)
        year = max(today.year, self.since.year)
        days = _timeline(self.reports, market, self.since, depth, year)
        symbol = walk(self.seed, code)
        until = bisect_right(days, today) if before is None else bisect_left(days, before)
        for index in range(until - 1, -1, -1):
            # check each day: an early or late one does not affect its neighbours
            if self.release(code, days[index]) <= now:
                yield _record(market, symbol, days[index], index)


@cache
def _rule(seed: int, market: Market, day: date) -> datetime:
    """Return a time from half an hour to four hours after the window opens, for all symbols."""
    opens = release_of(market, day).opens.astimezone(UTC)
    return opens + timedelta(hours=0.5 + 3.5 * draw(seed, "release", market, day))


@cache
def _timeline(
    reports: Callable[[Market, date], Iterator[date]],
    market: Market,
    since: date,
    depth: int,
    year: int,
) -> tuple[date, ...]:
    """Return `depth` reporting days before `since`, and all from there to the end of `year`."""
    early = reports(market, since - market.longest_gap * (depth + 2))
    past = tuple(takewhile(lambda day: day < since, early))
    later = takewhile(lambda day: day.year <= year, reports(market, since))
    return past[len(past) - depth :] + tuple(later)


@cache
def _midnight(market: Market, day: date) -> int:
    return int(market.midnight(day).timestamp())


@lru_cache(maxsize=1 << 16)
def _record(market: Market, symbol: Walk, day: date, index: int) -> Record:
    shares, volume, close, last = symbol.at(index)
    percent = round(100 * shares / symbol.issued, 2)
    made = Figures(shares, percent, volume, None, close, last)
    return market.simulation.record(_midnight(market, day), day.isoformat(), made)


def _shown(market: Market, row: Record, scale: float, revised: float) -> Record:
    """Rescale a row by a split (shares up, prices down) and revise its short figures."""
    made = market.simulation.figures(row)
    figures = Figures(
        shares=None if made.shares is None else round(made.shares * scale * revised),
        ratio=None if made.ratio is None else round(made.ratio * revised, 2),
        volume=None if made.volume is None else round(made.volume * scale),
        cover=made.cover,
        close=None if made.close is None else round(made.close / scale, 3),
        last_close=None if made.last_close is None else round(made.last_close / scale, 3),
    )
    return market.simulation.record(row.timestamp, row.timestamp_str, figures)


def why_unknown(code: str) -> str:
    """Return OpenD's error text for a code that the world does not know."""
    name, _, symbol = code.partition(".")
    market = market_named(name)
    if market is None:
        return f"不支持的市场 {code}，仅支持港股和美股"
    if market.simulation.is_index(symbol):
        return f"不支持的证券类型 {code}，仅支持正股和基金"
    return f"未知股票 {code}"


_TENCENT_MARKET: Final = market_of(TENCENT)

TENCENT_ROWS: Final = tuple(
    _TENCENT_MARKET.simulation.record(
        _midnight(_TENCENT_MARKET, date.fromisoformat(day)),
        day,
        Figures(shares, percent, None, None, close, last),
    )
    for day, shares, percent, close, last in (
        ("2026-04-30", 51480638, 0.56, 467.8, 479.2),
        ("2026-04-24", 51888755, 0.56, 493.4, 495.2),
        ("2026-04-17", 47974208, 0.52, 510.5, 517.0),
        ("2026-04-10", 48424833, 0.53, 504.5, 508.5),
        ("2026-04-02", 49982828, 0.54, 489.2, 496.6),
        ("2026-03-27", 52744147, 0.57, 493.4, 495.6),
        ("2026-03-20", 51710854, 0.56, 508.0, 513.0),
        ("2026-03-13", 48105325, 0.52, 547.5, 546.5),
        ("2026-03-06", 42404275, 0.46, 519.0, 502.0),
        ("2026-02-27", 36037870, 0.39, 518.0, 512.0),
    )
)
"""The rows of HK.00700 on Futu's documentation page; they never change."""
