"""A delivering process in a hurry: `python -m tests.deliverer REDIS_URL NAME=URL …`.

The real relay over the real outbox and the real POST; only the times are shorter than an operator
would want, so that a test sees in seconds what else takes days.
"""

import asyncio
import random
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

from poller.clock import wall_clock
from poller.delivery.destinations.webhook import SignedPost
from poller.delivery.endpoint import Endpoint
from poller.delivery.redisoutbox import RedisOutbox
from poller.delivery.relay import Relay
from poller.delivery.retry import Later, NextStep, decide
from poller.delivery.selection import EVENTS, Selection
from poller.delivery.worker import Timing
from poller.store.notifier import Notifier
from poller.store.redisstore import RedisStore
from poller.telemetry.journal import Journal
from poller.telemetry.log import configure
from tests.receiver import SECRET

EVERYTHING = Selection(frozenset(EVENTS))
HASTE = 100


def hasty(outcome: Any, **how: Any) -> NextStep:  # noqa: ANN401  as `decide` takes them
    """Decide as for a first attempt, a hundred times faster."""
    next_step = decide(outcome, **how | {"attempt": 1})
    return (
        replace(next_step, delay=next_step.delay / HASTE)
        if isinstance(next_step, Later)
        else next_step
    )


TIMING = Timing(
    claim=timedelta(seconds=1.5),
    fresh=timedelta(seconds=0.3),
    look=timedelta(seconds=0.2),
    pause=timedelta(seconds=0.1),
    next_step=hasty,
)


async def deliver(redis: str, targets: list[str]) -> None:
    """Deliver until killed."""
    chance = random.Random()
    journal = Journal()
    notifier = Notifier(RedisStore(redis, "short-interest").streams, journal)
    relay = Relay(
        RedisOutbox(redis, "short-interest"),
        journal,
        news=notifier.news,
        sender=lambda endpoint: SignedPost(endpoint, now=wall_clock, timeout=1.0),
        jitter=lambda: chance.uniform(-1, 1),
        timing=TIMING,
    )
    named = [target.split("=", 1) for target in targets]
    relay.configure([Endpoint(n, url, (SECRET,), EVERYTHING, rate=1e4) for n, url in named])
    await asyncio.gather(notifier.run(), relay.run())


if __name__ == "__main__":
    configure()
    asyncio.run(deliver(sys.argv[1], sys.argv[2:]))
