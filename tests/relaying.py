"""A relay over a real server, whose endpoints note what they get."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis

from poller.delivery.endpoint import Endpoint
from poller.delivery.redisoutbox import RedisOutbox
from poller.delivery.relay import Relay
from poller.delivery.retry import Delivered, Outcome
from poller.delivery.selection import EVENTS, Selection
from poller.delivery.worker import Timing
from poller.events import Message
from poller.store.notifier import Notifier
from poller.store.redisstore import RedisStore
from poller.telemetry.observe import Fact, Happened, Trouble
from tests.service import PATIENCE

EVERYTHING = Selection(frozenset(EVENTS))
HASTY = Timing(look=timedelta(seconds=0.5), pause=timedelta(seconds=0.05))


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until a condition holds, at once or by asking somebody."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.02)


@dataclass
class Noted:
    """What one endpoint got, in order. `answer`: what it says to an event's id, or raises."""

    answer: Callable[[str], Outcome] = lambda _: Delivered(200)
    ids: list[str] = field(default_factory=list)

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Note what is sent and taken."""
        outcome = self.answer(messages[0].id)
        if isinstance(outcome, Delivered):
            self.ids += [message.id for message in messages]
        return outcome

    async def close(self) -> None:
        """Do nothing."""


@dataclass
class Place:
    """A server, and what is on it."""

    url: str
    store: RedisStore
    outbox: RedisOutbox
    raw: Any
    facts: list[Fact] = field(default_factory=list)

    @property
    def said(self) -> list[str]:
        """What was told, word for word."""
        return [
            fact.what if isinstance(fact, Happened) else fact.reason
            for fact in self.facts
            if isinstance(fact, Happened | Trouble)
        ]

    @contextlib.asynccontextmanager
    async def delivering(
        self,
        *endpoints: Endpoint,
        timing: Timing = HASTY,
        **lines: Any,  # noqa: ANN401
    ) -> AsyncIterator[None]:
        """Deliver while the block runs; `lines`: what sends to each endpoint."""
        block = min(timing.look.total_seconds() * 2, 15)
        notifier = Notifier(self.store.streams, self.facts.append, block=block, pause=0.05)
        relay = Relay(
            self.outbox,
            self.facts.append,
            news=notifier.news,
            sender=lambda endpoint: lines[endpoint.name],
            jitter=lambda: 0.0,
            timing=timing,
        )
        relay.configure(endpoints or [endpoint(name) for name in lines])
        running = [asyncio.create_task(work) for work in (notifier.run(), relay.run())]
        try:
            await until(lambda: self._begun(len(lines)))
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    async def _begun(self, number: int) -> bool:
        keys = [key async for key in self.raw.scan_iter("*:webhook:*:state")]
        fields = [await self.raw.hkeys(key) for key in keys]
        return sum({"position:events", "position:releases"} <= {*each} for each in fields) >= number


def endpoint(name: str, **how: Any) -> Endpoint:  # noqa: ANN401
    """Return an endpoint that wants everything."""
    return Endpoint(
        name, "https://example.org/", ("whsec_x",), **{"selection": EVERYTHING, "rate": 1e4, **how}
    )


@contextlib.asynccontextmanager
async def place_at(url: str) -> AsyncIterator[Place]:
    """Open store and outbox at a server."""
    store, outbox = RedisStore(url, "short-interest"), RedisOutbox(url, "short-interest")
    async with Redis.from_url(url, decode_responses=True) as raw:
        yield Place(url, store, outbox, raw)
    await store.close()
    await outbox.close()
