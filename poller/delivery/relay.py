"""From the streams to every endpoint: a courier each, and a bell a stream for all of them."""

import asyncio
from collections.abc import Callable, Sequence

from poller.delivery.courier import Courier, Timing
from poller.delivery.endpoint import Endpoint
from poller.delivery.intake import STORE
from poller.delivery.outbox import Outbox
from poller.delivery.webhook import Sender
from poller.errors import StoreDown, StoreMisfit
from poller.facts.observe import Observe, Recovered, Trouble, turning
from poller.storage.store import Store, Stream


class Relay:
    """Delivers to the endpoints it is configured with, until cancelled."""

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        observe: Observe,
        *,
        sender: Callable[[Endpoint], Sender],
        jitter: Callable[[], float],
        timing: Timing | None = None,
    ) -> None:
        """`sender`: makes what sends to an endpoint. `jitter`: from -1 to 1, new each time."""
        self._store = store
        self._outbox = outbox
        self._observe = observe
        self._sender = sender
        self._jitter = jitter
        self._timing = timing or Timing()
        self._wanted: dict[str, Endpoint] = {}
        self._running: dict[str, tuple[Courier, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()

    def configure(self, endpoints: Sequence[Endpoint]) -> None:
        """Deliver to exactly these from now on; what waits for a changed one goes to its new URL.

        An endpoint that is left out keeps its queue.
        """
        self._wanted = {endpoint.name: endpoint for endpoint in endpoints}
        self._changed.set()

    async def run(self) -> None:
        """Deliver, for ever."""
        async with asyncio.TaskGroup() as group:
            for stream in Stream:
                group.create_task(self._toll(stream), name=f"bell of the {stream}")
            while True:
                self._changed.clear()
                await self._end_what_changed()
                for name, endpoint in self._wanted.items():
                    if name not in self._running:
                        self._running[name] = self._begin(endpoint, group)
                await self._changed.wait()

    async def _end_what_changed(self) -> None:
        for name, (courier, task) in list(self._running.items()):
            if self._wanted.get(name) != courier.endpoint:
                task.cancel()
                await asyncio.wait([task])
                del self._running[name]

    def _begin(
        self, endpoint: Endpoint, group: asyncio.TaskGroup
    ) -> tuple[Courier, asyncio.Task[None]]:
        courier = Courier(
            endpoint,
            self._sender(endpoint),
            self._outbox,
            self._observe,
            jitter=self._jitter,
            timing=self._timing,
        )
        return courier, group.create_task(courier.run(), name=f"webhook {endpoint.name}")

    async def _toll(self, stream: Stream) -> None:
        """Ring for every courier when the stream has grown."""
        after = ""
        with turning(self._observe, f"bell of the {stream}") as turned:
            while True:
                turned()
                try:
                    after = await self._rung(after, stream)
                except (StoreDown, StoreMisfit) as problem:
                    if self._running:
                        self._observe(Trouble(STORE, str(problem)))
                    await asyncio.sleep(self._timing.pause.total_seconds())
                    after = ""
                else:
                    self._observe(Recovered(STORE))

    async def _rung(self, after: str, stream: Stream) -> str:
        """Wait a while for an entry after this id, and ring; returns the newest id then."""
        block = self._timing.block.total_seconds()
        if after and not await self._store.read(after, count=1, block=block, stream=stream):
            return after
        newest = await self._store.last_entries(1, stream)
        for courier, _ in self._running.values():
            courier.ring()
        return newest[0].id if newest else "0-0"
