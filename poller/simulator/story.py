"""The world of `run --simulate`: one report after the other, in less than a minute each. Pure.

It begins where the ten rows on Futu's page end and shows the calendar's next report at every turn,
so that none of its days ever lies in the future. When it has caught up, reports come when they are
due.
"""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from typing import Final

from poller.errors import ConfigError
from poller.markets import Market, Record, all_markets
from poller.model import Code, market_of
from poller.schedule.calendar import release_of, reporting_days
from poller.simulator.series import TENCENT, draw
from poller.simulator.world import TENCENT_ROWS, Answer, Revision, Rows, ShortInterest, World

FIRST: Final = timedelta(seconds=12)
"""From the begin to the first report: about as long as the history takes."""
TURN: Final = timedelta(seconds=45)
REVISED_AFTER: Final = timedelta(seconds=10)

PERIOD: Final = 3.0
"""Seconds in which the budget may be spent: OpenD's 30 are long to look at."""
INTERVALS: Final = {"due": 0.2, "idle": 1.0, "late": 0.2}
"""Seconds between two looks at a market; a refused code is asked again after idle ones."""

_AHEAD: Final = timedelta(days=2 * 365)
_OUT: Final = timedelta(hours=4)  # after the window opens a real report would be out
_REVISED_EVERY: Final = 3  # turns


@dataclass(frozen=True, slots=True)
class Turn:
    """At `at` (aware, UTC) `day` of a market comes out."""

    market: Market
    day: date
    at: datetime


def turns(began: datetime) -> tuple[Turn, ...]:
    """Return the turns of a story that began then (aware), from the page's next day on."""
    last = TENCENT_ROWS[0].day
    mine = market_of(TENCENT)
    first = next(day for day in reporting_days(mine, last) if day > last)
    opens = release_of(mine, first).opens
    order = sorted(
        (release_of(market, day).opens.astimezone(UTC), market.name, day)
        for market in all_markets()
        for day in takewhile(
            lambda day: day < (began + _AHEAD).date(), reporting_days(market, last)
        )
        if release_of(market, day).opens >= opens
    )
    named = {market.name: market for market in all_markets()}
    return tuple(
        Turn(named[name], day, max(began.astimezone(UTC) + FIRST + number * TURN, opens + _OUT))
        for number, (opens, name, day) in enumerate(order)
    )


def story(began: datetime) -> World:
    """Return the world of a story that began then: 41 symbols, and a year of history.

    HK.00700 has the ten rows of Futu's page, and goes on from there. Every third turn one symbol's
    figures are revised soon after. Raises ConfigError where no report was out by then.
    """
    played = turns(began)
    if not played:
        told = f"a simulation cannot begin at {began:%Y-%m-%d}, before its reports: set the clock"
        raise ConfigError([told])
    world = World(
        made_up={market.name: market.made_up.count for market in all_markets()},
        since=played[0].day,
        releases={(turn.market, turn.day): turn.at for turn in played},
        extra={TENCENT: _continued(played)},
    )
    revised = (
        _revised(world, turn, number) for number, turn in enumerate(played[::_REVISED_EVERY])
    )
    return replace(world, revisions=tuple(revised))


def _continued(played: tuple[Turn, ...]) -> Rows:
    """Return the rows of Futu's page with made-up ones after them, newest first."""
    mine = [turn for turn in reversed(played) if turn.market is market_of(TENCENT)]
    made_up = [(turn.at, _row_like(TENCENT_ROWS[0], turn.day)) for turn in mine]

    def rows(_: Code, now: datetime) -> tuple[Record, ...]:
        return (*(row for at, row in made_up if at <= now), *TENCENT_ROWS)

    return rows


def _row_like(row: Record, day: date) -> Record:
    """Return a row of `day` that is up to a tenth more or less than this one."""
    market, part = market_of(TENCENT), 0.9 + 0.2 * draw(TENCENT, day)
    midnight = datetime.combine(day, time(), market.zone)
    made = market.made_up.figures(row)._replace(
        shares=round((row.shares or 0) * part), ratio=round((row.ratio or 0.0) * part, 2)
    )
    return market.made_up.record(int(midnight.timestamp()), day.isoformat(), made)


def _revised(world: World, turn: Turn, number: int) -> Revision:
    """Return the revision after a turn: of the next symbol that shows the day, and more than 0."""
    codes = [code for code in world.codes() if market_of(code) is turn.market]
    at = turn.at + REVISED_AFTER
    for place in range(len(codes)):
        code = codes[(number + place) % len(codes)]
        answer, _ = world.answer(ShortInterest(code, num=1), at)
        if isinstance(answer, Answer) and answer.records:
            newest = answer.records[0]
            if newest.day == turn.day and newest.shares:
                return Revision(code, turn.day, at, 1.04)
    raise ValueError(f"nobody reports {turn.day} in {turn.market}")
