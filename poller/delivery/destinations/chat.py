"""Messages to people: the events of a lane become one message in a chat.

The outcome of a message is the same `retry.Outcome` as a webhook's, so it is retried and given up
by the same rules.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final, Protocol

from poller.clock import wall_clock
from poller.delivery.chat_message import ChatMessage
from poller.delivery.destinations.destination import Watermarks
from poller.delivery.digest import announcement, digest, missing
from poller.delivery.endpoint import Endpoint
from poller.delivery.retry import Outcome
from poller.delivery.sample import sample_digest
from poller.errors import StoreError
from poller.events import Message, StreamEvent, StreamNotice
from poller.markets import Market

MOST_TOGETHER: Final = 2000
"""Events in one message; further ones go into the next."""


LEAVE_OUT: Final = "leave it out: all that such a service needs is in its URL"
"""Why a service takes no secrets."""


class Channel(Protocol):
    """Posts messages to one chat. `limit`: the largest `size` of a message."""

    limit: int

    def size(self, message: ChatMessage) -> int:
        """Return the size of a message as it is posted, in what the service counts."""

    async def post(self, message: ChatMessage) -> Outcome:
        """Post it; raises only on a defect, and ends within its timeout."""

    async def close(self) -> None:
        """Close every connection."""


def market_and_day(event: StreamEvent) -> str:
    """Return the lane of an event in a chat: one per market and trading day."""
    return f"{event.market}:{event.trading_day}"


TEST_SHOWS: Final = "a digest of made-up figures, marked as a test"


async def send_test(channel: Channel) -> Outcome:
    """Post a digest of made-up symbols that says it is a test, and close the channel."""
    today = wall_clock().date()
    try:
        return await channel.post(sample_digest(today, limit=channel.limit, size=channel.size))
    finally:
        await channel.close()


class Chat:
    """A `Sender` that posts the messages of one lane as one chat message.

    They are either events of one market and trading day, or notices of one market.
    """

    def __init__(self, channel: Channel, endpoint: Endpoint, watermarks: Watermarks) -> None:
        """`watermarks`: for counting the symbols that still lack a day."""
        self._channel = channel
        self._selects = endpoint.selection.selects
        self._watermarks = watermarks

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Post the digest of the events, or the announcement of the notices."""
        limit, size = self._channel.limit, self._channel.size
        found = [each for each in messages if isinstance(each, StreamEvent)]
        if not found:
            notices = [each for each in messages if isinstance(each, StreamNotice)]
            return await self._channel.post(announcement(notices, limit=limit, size=size))
        message = digest(
            found,
            limit=limit,
            missing=await self._missing(found[0].market, found[0].trading_day),
            size=size,
        )
        return await self._channel.post(message)

    async def close(self) -> None:
        """See `Channel.close`."""
        await self._channel.close()

    async def _missing(self, market: Market, day: date) -> int | None:
        """Count the endpoint's symbols that still lack a day; None: unknown."""
        try:
            watermarks = await self._watermarks()
        except StoreError:  # only this count is lost; polling reports the problem
            return None
        return missing(watermarks, market, day, selects=self._selects)
