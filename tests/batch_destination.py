"""A further destination, made up, as somebody would add it: a POST with up to three events.

It is registered as the real ones are, before anything else of the program is imported:
`python -m tests.batch_destination COMMAND` runs it, `pytest -p tests.batch_destination` tests it.
"""

import json
import runpy
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from poller.delivery.client import Client
from poller.delivery.destinations import register
from poller.delivery.destinations.destination import Destination, Service
from poller.delivery.endpoint import Endpoint
from poller.delivery.retry import Delivered, Failed, Outcome
from poller.events import Message


class Batch:
    """Posts the ids of events, with the secret as a header."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._client = Client(endpoint)
        self._mask = endpoint.mask()
        (self._secret,) = endpoint.secrets

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """See `Sender.send`."""
        return await self.post([message.id for message in messages])

    async def post(self, ids: list[str]) -> Outcome:
        """Post these ids."""
        answer = await self._client.post(json.dumps(ids).encode(), {"x-secret": self._secret})
        if isinstance(answer, str):
            return Failed(answer)
        if answer.status == 200 and answer.body == b"taken":
            return Delivered(200)
        said = self._mask(answer.body, 200)
        return Failed(f"{answer.status}, it did not say that it was taken", answer.status, said)

    async def close(self) -> None:
        """See `Sender.close`."""
        await self._client.close()


def _check_secrets(secrets: Sequence[str]) -> None:
    if len(secrets) != 1:
        raise ValueError("give the one secret of the batches")


async def _test(endpoint: Endpoint) -> Outcome:
    sender = Batch(endpoint)
    try:
        return await sender.post(["a test"])
    finally:
        await sender.close()


BATCH: Final = Destination(
    name="batch",
    flag="batch",
    services=(Service("Batches", ("batches.example.org",), "add batch = true"),),
    check_secrets=_check_secrets,
    depth=3,
    lane=lambda event: event.market.name,
    sender=lambda endpoint, _: Batch(endpoint),
    test=_test,
)

if __name__ == "__main__":
    import_module("tests.batch_destination")  # as a program this file is another module
    runpy.run_module("poller", run_name="__main__", alter_sys=True)
else:
    register(BATCH)
