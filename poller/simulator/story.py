"""The world of `run --simulate`: a release and a revision within the first minute."""

from datetime import datetime, timedelta
from typing import Final

from poller.model import Market
from poller.plan.calendar import released_by
from poller.simulator.world import Revision, World

RELEASE_AFTER: Final = timedelta(seconds=12)
REVISION_AFTER: Final = timedelta(seconds=22)


def story(start: datetime) -> World:
    """Return a world whose newest Hong Kong day appears shortly after `start` (aware).

    Some 40 symbols of both markets, with 52 weeks of history; a little later one is revised.
    """
    (newest,) = released_by(Market.HK, start, 1)
    world = World(
        seed=start.toordinal(),
        hk=30,
        us=10,
        releases={(Market.HK, newest): start + RELEASE_AFTER},
        shift=-timedelta(days=1),
    )
    after = start + REVISION_AFTER
    revised = next(
        code
        for code in world.codes()
        if (rows := world.records(code, after)) and rows[0].day == newest and rows[0].shares
    )
    return World(
        seed=world.seed,
        hk=world.hk,
        us=world.us,
        releases=world.releases,
        shift=world.shift,
        revisions=(Revision(revised, newest, after, 1.04),),
    )
