"""The world of `run --simulate`: years of reports, one after the other in less than a minute. Pure.

It begins some years ago and shows the calendar's next report at every turn, so that none of its
days ever lies in the future. When it has caught up, after hours, reports come when they are due.
"""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from typing import Final

from poller.model import Market, market_of
from poller.plan.calendar import release_of, reporting_days
from poller.simulator.series import TENCENT
from poller.simulator.world import Answer, Revision, ShortInterest, World

FIRST: Final = timedelta(seconds=12)
"""From the begin to the first report: about as long as the history takes."""
TURN: Final = timedelta(seconds=45)
REVISED_AFTER: Final = timedelta(seconds=10)

PERIOD: Final = 3.0
"""Seconds in which the budget may be spent: OpenD's 30 are long to look at."""
INTERVALS: Final = {"due": 0.2, "idle": 1.0, "late": 0.2}
"""Seconds between two looks at a market; a refused code is asked again after idle ones."""

_BEFORE: Final = timedelta(days=5 * 365)  # 76 turns a year: almost five hours of play
_TURNS: Final = 500  # those, and more than a year to come
_OUT: Final = timedelta(hours=4)  # after the window opens a real report would be out
_REVISED_EVERY: Final = 3  # turns
_SEED: Final = 579  # HK.00700, which examples name, is above the threshold for long


@dataclass(frozen=True, slots=True)
class Turn:
    """At `at` (aware, UTC) `day` of a market comes out."""

    market: Market
    day: date
    at: datetime


def turns(began: datetime) -> tuple[Turn, ...]:
    """Return the turns of a story that began then (aware): first Hong Kong, then the US."""
    start = (began - _BEFORE).date()
    by_market = [
        (release_of(market, day).opens.astimezone(UTC), market, day)
        for market in Market
        for day in islice(reporting_days(market, start), _TURNS)
    ]
    order = sorted(by_market)
    first = next(
        place
        for place, (one, other) in enumerate(pairwise(order))
        if (one[1], other[1]) == (Market.HK, Market.US)
    )
    return tuple(
        Turn(market, day, max(began.astimezone(UTC) + FIRST + number * TURN, opens + _OUT))
        for number, (opens, market, day) in enumerate(order[first : first + _TURNS])
    )


def story(began: datetime) -> World:
    """Return the world of a story that began then: 41 symbols, each with a year of history.

    Every third turn one symbol's figures are revised soon after.
    """
    played = turns(began)
    world = World(
        seed=_SEED,
        hk=30,
        us=10,
        named=(TENCENT,),
        tencent=False,  # the rows of Futu's own page would be newer than the story for long
        since=played[0].day,
        releases={(turn.market, turn.day): turn.at for turn in played},
    )
    revised = (
        _revised(world, turn, number) for number, turn in enumerate(played[::_REVISED_EVERY])
    )
    return replace(world, revisions=tuple(revised))


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
