"""Delivers the streams to all endpoints: a worker per endpoint, one reader per stream.

Each is a supervised component: a defect restarts only the component it is in.
"""

import asyncio
from collections.abc import Callable, Sequence

from poller.delivery.destinations import Sender
from poller.delivery.endpoint import Endpoint
from poller.delivery.enqueuer import STORE, Enqueuer
from poller.delivery.log_lines import intake_of, subject_of
from poller.delivery.outbox import Outbox
from poller.delivery.worker import EndpointWorker, Timing
from poller.errors import StoreDown, StoreMisfit
from poller.store.notifier import EventOf
from poller.store.store import Stream, signal_of_webhook
from poller.supervisor import supervise
from poller.telemetry.observe import LONGEST_TURN, Observe, Trouble, heartbeat

LABEL = "webhook"
"""The label of delivery's components in the metric."""


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
        """`news`: the `Notifier.news` of a running notifier.

        `sender`: makes the sender of an endpoint. `jitter`: returns chance from -1 to 1.
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
        """Deliver to exactly these endpoints from now on.

        A changed endpoint's queue goes to its new URL; a removed endpoint keeps its queue.
        """
        self._wanted = {endpoint.name: endpoint for endpoint in endpoints}
        self._changed.set()

    async def run(self) -> None:
        """Deliver until cancelled; may be run again after it has ended."""
        self._running.clear()  # tasks of an earlier run have ended with its group
        async with asyncio.TaskGroup() as group:
            for stream, enqueuer in self._enqueuers.items():
                name = intake_of(stream)
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
        name = subject_of(endpoint.name)
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
                await asyncio.wait([signals])  # awaiting it would raise its cancellation here

        return group.create_task(supervise(name, work, self._observe, label=LABEL), name=name)

    async def _signalled(self, name: str) -> None:
        """Wake an endpoint's worker at each signal of an operator's command, until cancelled."""
        while True:
            await self._news(signal_of_webhook(name)).wait()
            self._wake(name)

    def _wake(self, name: str) -> None:
        if (wake := self._wakes.get(name)) is not None:
            wake.set()

    async def _look(self) -> None:
        """Wake workers with something due, queued or left unfinished by other processes."""
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
