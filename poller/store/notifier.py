"""One connection that waits for news of streams and signals, for a whole process.

Readers use short commands, and wait here until there is something to read.
"""

import asyncio
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from poller.errors import StoreDown, StoreMisfit
from poller.store.ports import Signals
from poller.store.store import Stream
from poller.telemetry.observe import Observe, Recovered, Trouble, heartbeat

SUBJECT: Final = "redis notifications"
"""Subject of the Trouble when waiting for news fails; readers still look now and then."""

BLOCK: Final = 15.0
"""Seconds a read blocks: as long as a frozen or replaced server may go unnoticed."""

_PAUSE: Final = 1.0

EventOf = Callable[..., asyncio.Event]
"""Returns an event for some topics: `Notifier.news` or `never`."""


def never(*topics: str) -> asyncio.Event:
    """Return an event that is never set, for readers without a notifier, which poll."""
    del topics
    return asyncio.Event()


class Notifier:
    """Sets events when there is something to read, while `run` runs."""

    def __init__(
        self, signals: Signals, observe: Observe, *, block: float = BLOCK, pause: float = _PAUSE
    ) -> None:
        """`block`: seconds of one read; `pause`: seconds after one that failed."""
        self._signals = signals
        self._observe = observe
        self._block = block
        self._pause = pause
        self._waiting: dict[tuple[str, ...], asyncio.Event] = {}

    def news(self, *topics: str) -> asyncio.Event:
        """Return an event that is set when there is news of one of these topics after this call.

        A topic is a `Stream`, or the subject of a signal. Get the event first, then read, then wait
        for it, so that nothing is missed. It is also set when news may have been missed.
        """
        return self._waiting.setdefault(topics, asyncio.Event())

    async def run(self) -> None:
        """Wait for news and notify, for ever; reports an absent or unfit Redis, and retries.

        One unfit key fails the read of all three: until it is fixed, the readers of streams are
        woken after each pause, so the other streams are late by no more than that.
        A single lost connection is not reported: the next one finds out what was missed.
        """
        position: Mapping[str, str] | None = None
        failures = 0
        with heartbeat(self._observe, SUBJECT) as beat:
            while True:
                beat()
                block = self._pause if failures else self._block
                try:
                    news = await self._signals.news(position, block=block)
                except (StoreDown, StoreMisfit) as problem:
                    position = None
                    failures += 1
                    if failures > 1 or isinstance(problem, StoreMisfit):
                        self._observe(Trouble(SUBJECT, str(problem)))
                        await asyncio.sleep(self._pause)
                    if isinstance(problem, StoreMisfit):
                        self._notify(frozenset(Stream))
                    continue
                if position is not None:
                    failures = 0
                    self._observe(Recovered(SUBJECT))
                position = news.position
                self._notify(news.topics)

    def _notify(self, topics: AbstractSet[str] | None) -> None:
        for wanted in [
            each for each in self._waiting if topics is None or not topics.isdisjoint(each)
        ]:
            self._waiting.pop(wanted).set()
