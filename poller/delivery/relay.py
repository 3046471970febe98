"""From the streams to every endpoint: a worker each, and one reader a stream for all of them.

Each of them is a component of its own: a defect in one ends that one, which is started again after
a pause, and the others do not notice.
"""

import asyncio
from collections.abc import Callable, Sequence

from poller.delivery.destinations import Sender
from poller.delivery.endpoint import Endpoint
from poller.delivery.enqueuer import STORE, Enqueuer
from poller.delivery.outbox import Outbox
from poller.delivery.worker import EndpointWorker, Timing
from poller.errors import StoreDown, StoreMisfit
from poller.store.notifier import EventOf
from poller.store.store import Stream, signal_of_webhook
from poller.supervisor import supervise
from poller.telemetry.observe import LONGEST_TURN, Observe, Trouble, heartbeat

LABEL = "webhook"
"""What the components of delivery are called in the metric."""


class Relay:
    """Delivers to the endpoints it is configured with, until cancelled."""

    def __init__(
        self,
        outbox: Outbox,
        observe: Observe,
        *,
        news: EventOf,
        sender: Callable[[Endpoint], Sender],
        jitter: Callable[[], float],
        timing: Timing | None = None,
    ) -> None:
        """`news`: `Notifier.news` of a notifier that runs.

        `sender`: makes what sends to an endpoint. `jitter`: from -1 to 1, new each time.
        """
        self._outbox = outbox
        self._observe = observe
        self._news = news
        self._sender = sender
        self._jitter = jitter
        self._timing = timing or Timing()
        self._wanted: dict[str, Endpoint] = {}
        self._running: dict[str, tuple[Endpoint, asyncio.Task[None]]] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Event()
        self._enqueuers = {
            stream: Enqueuer(
                outbox,
                observe,
                stream=stream,
                news=news,
                look=self._timing.look,
                pause=self._timing.pause,
                queued=self._wake,
            )
            for stream in Stream
        }

    def configure(self, endpoints: Sequence[Endpoint]) -> None:
        """Deliver to exactly these from now on; what waits for a changed one goes to its new URL.

        An endpoint that is left out keeps its queue.
        """
        self._wanted = {endpoint.name: endpoint for endpoint in endpoints}
        self._changed.set()

    async def run(self) -> None:
        """Deliver, for ever; may be run again once it has ended."""
        self._running.clear()  # whatever ran before ended with its group
        async with asyncio.TaskGroup() as group:
            for stream, enqueuer in self._enqueuers.items():
                name = f"webhook intake of the {stream}"
                group.create_task(
                    supervise(name, enqueuer.run, self._observe, label=LABEL), name=name
                )
            look = supervise("webhook look", self._look, self._observe, label=LABEL)
            group.create_task(look, name="webhook look")
            while True:
                self._changed.clear()
                for enqueuer in self._enqueuers.values():
                    enqueuer.configure(tuple(self._wanted.values()))
                await self._end_what_changed()
                for name, endpoint in self._wanted.items():
                    if name not in self._running:
                        self._running[name] = endpoint, self._begin(endpoint, group)
                await self._changed.wait()

    async def _end_what_changed(self) -> None:
        changed = {n: t for n, (e, t) in self._running.items() if self._wanted.get(n) != e}
        for name, task in changed.items():
            task.cancel()
            del self._running[name]
        if changed:
            await asyncio.wait(changed.values())
        self._wakes = {n: e for n, e in self._wakes.items() if n in self._running}

    def _begin(self, endpoint: Endpoint, group: asyncio.TaskGroup) -> "asyncio.Task[None]":
        name = f"webhook {endpoint.name}"
        wake = self._wakes[endpoint.name] = asyncio.Event()

        async def work() -> None:
            worker = EndpointWorker(
                endpoint,
                self._sender(endpoint),
                self._outbox,
                self._observe,
                jitter=self._jitter,
                timing=self._timing,
                wake=wake,
            )
            signals = asyncio.create_task(self._signalled(endpoint.name), name=f"{name} signals")
            try:
                await worker.run()
            finally:
                signals.cancel()
                await asyncio.wait([signals])  # its cancellation is not this one's

        return group.create_task(supervise(name, work, self._observe, label=LABEL), name=name)

    async def _signalled(self, name: str) -> None:
        """Wake an endpoint's worker at each signal of an operator's command, for ever."""
        while True:
            await self._news(signal_of_webhook(name)).wait()
            self._wake(name)

    def _wake(self, name: str) -> None:
        if (wake := self._wakes.get(name)) is not None:
            wake.set()

    async def _look(self) -> None:
        """Wake the workers of endpoints with something due, whoever queued it or was killed."""
        period = min(self._timing.look.total_seconds(), LONGEST_TURN / 2)
        with heartbeat(self._observe, "webhook look") as beat:
            while True:
                beat()
                await asyncio.sleep(period)
                try:
                    due = await self._outbox.due(sorted(self._running)) if self._running else ()
                except (StoreDown, StoreMisfit) as problem:
                    self._observe(Trouble(STORE, str(problem)))
                else:
                    for name in due:
                        self._wake(name)
