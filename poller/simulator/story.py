"""The world of `run --simulate`: a new report in less than a minute each. Pure.

It begins where the ten rows on Futu's page end, and releases the calendar's next report every
`RELEASE_EVERY`. None of its days is ever in the future: once it has caught up, reports come when
they are due.
"""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import takewhile
from typing import Final

from poller.errors import ConfigError
from poller.markets import Market, Record, all_markets
from poller.model import Code, market_of
from poller.schedule.calendar import release_of, reporting_days
from poller.simulator.series import TENCENT, draw
from poller.simulator.world import TENCENT_ROWS, Revision, Rows, ShortInterest, World, WorldAnswer

FIRST: Final = timedelta(seconds=12)
"""From the beginning to the first report: about as long as reading the history takes."""
RELEASE_EVERY: Final = timedelta(seconds=45)
PACE: Final = (
    f"within {RELEASE_EVERY.total_seconds():g} s: the simulation plays one each "
    f"{RELEASE_EVERY.total_seconds():g} s until it has caught up"
)
"""When a report is expected that is over by the calendar, in words."""

REVISED_AFTER: Final = timedelta(seconds=10)

PERIOD: Final = 3.0
"""Seconds in which the budget may be spent: OpenD's 30 would be long to watch."""
INTERVALS: Final = {"due": 0.2, "idle": 1.0, "late": 0.2}
"""Seconds between two polls of a market; a refused code is asked again after `idle`."""

_AHEAD: Final = timedelta(days=2 * 365)
_OUT: Final = timedelta(hours=4)  # a real report is out this long after its window opens
_REVISED_EVERY: Final = 3  # releases


@dataclass(frozen=True, slots=True)
class StoryRelease:
    """`day` of a market is released at `at` (aware, UTC)."""

    market: Market
    day: date
    at: datetime


def story_releases(began: datetime) -> tuple[StoryRelease, ...]:
    """Return the releases of a story that began then (aware), from the page's next day on."""
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
        StoryRelease(
            named[name],
            day,
            max(began.astimezone(UTC) + FIRST + number * RELEASE_EVERY, opens + _OUT),
        )
        for number, (opens, name, day) in enumerate(order)
    )


def story(began: datetime) -> World:
    """Return the world of a story that began then (aware): 41 symbols, a year of history.

    HK.00700 continues from the ten rows of Futu's page. Soon after every third release, one
    symbol's figures are revised. Raises ConfigError if there are no reports yet at that time.
    """
    played = story_releases(began)
    if not played:
        text = f"a simulation cannot begin at {began:%Y-%m-%d}, before its reports: set the clock"
        raise ConfigError([text])
    world = World(
        made_up={market.name: market.simulation.count for market in all_markets()},
        since=played[0].day,
        releases={(release.market, release.day): release.at for release in played},
        extra={TENCENT: _continued(played)},
    )
    revised = (
        _revised(world, release, number) for number, release in enumerate(played[::_REVISED_EVERY])
    )
    return replace(world, revisions=tuple(revised))


def _continued(played: tuple[StoryRelease, ...]) -> Rows:
    """Return the rows of Futu's page and the made-up later ones, newest first."""
    mine = [release for release in reversed(played) if release.market is market_of(TENCENT)]
    made_up = [(release.at, _row_like(TENCENT_ROWS[0], release.day)) for release in mine]

    def rows(_: Code, now: datetime) -> tuple[Record, ...]:
        return (*(row for at, row in made_up if at <= now), *TENCENT_ROWS)

    return rows


def _row_like(row: Record, day: date) -> Record:
    """Return a row of `day` whose figures differ from this one's by at most a tenth."""
    market, part = market_of(TENCENT), 0.9 + 0.2 * draw(TENCENT, day)
    made = market.simulation.figures(row)._replace(
        shares=round((row.shares or 0) * part), ratio=round((row.ratio or 0.0) * part, 2)
    )
    return market.simulation.record(int(market.midnight(day).timestamp()), day.isoformat(), made)


def _revised(world: World, release: StoryRelease, number: int) -> Revision:
    """Return the revision after a release: of the next symbol with more than 0 shares that day."""
    codes = [code for code in world.codes() if market_of(code) is release.market]
    at = release.at + REVISED_AFTER
    for place in range(len(codes)):
        code = codes[(number + place) % len(codes)]
        answer, _ = world.answer(ShortInterest(code, num=1), at)
        if isinstance(answer, WorldAnswer) and answer.records:
            newest = answer.records[0]
            if newest.day == release.day and newest.shares:
                return Revision(code, release.day, at, 1.04)
    raise ValueError(f"nobody reports {release.day} in {release.market}")
