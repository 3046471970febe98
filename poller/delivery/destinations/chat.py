"""Messages to people: what stands in a lane is one message in a chat.

A channel posts a message a person reads; its outcome is that of a webhook (`retry.Outcome`), so a
delivery is retried and given up by the same rules.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final, Protocol

from poller import events
from poller.delivery.destinations.destination import Watermarks
from poller.delivery.digest import Message, announcement, digest, missing
from poller.delivery.endpoint import Endpoint
from poller.delivery.retry import Outcome
from poller.errors import StoreError
from poller.markets import Market

MOST_TOGETHER: Final = 2000
"""Events in one message; what is more goes into the next."""


class Channel(Protocol):
    """Where a message goes. `limit`, `monospaced`: what `digest` wants to know of it."""

    limit: int
    monospaced: bool

    async def post(self, message: Message) -> Outcome:
        """Post it; never raises but for a defect, and ends in time."""

    async def close(self) -> None:
        """Close every connection."""


def market_and_day(event: events.StreamEvent) -> str:
    """Return the lane of an event in a chat: what is known of a market and day goes together."""
    return f"{event.market}:{event.trading_day}"


async def send_test(channel: Channel) -> Outcome:
    """Post a message that shows that they arrive, and close the channel."""
    try:
        return await channel.post(Message("Short interest", "A test: reports will appear here."))
    finally:
        await channel.close()


class Chat:
    """A `Sender`: what stands in a lane is one message.

    They are all events of one market and day, or all notices of one market.
    """

    def __init__(self, channel: Channel, endpoint: Endpoint, watermarks: Watermarks) -> None:
        """`watermarks`: to count who is missing."""
        self._channel = channel
        self._covers = endpoint.selection.covers
        self._watermarks = watermarks

    async def send(self, messages: Sequence[events.Message]) -> Outcome:
        """Post the digest of at least one event, or what the notices say."""
        limit = self._channel.limit
        found = [each for each in messages if isinstance(each, events.StreamEvent)]
        if not found:
            notices = [each for each in messages if isinstance(each, events.StreamNotice)]
            return await self._channel.post(announcement(notices, limit=limit))
        message = digest(
            found,
            limit=limit,
            missing=await self._missing(found[0].market, found[0].trading_day),
            monospaced=self._channel.monospaced,
        )
        return await self._channel.post(message)

    async def close(self) -> None:
        """See `Channel.close`."""
        await self._channel.close()

    async def _missing(self, market: Market, day: date) -> int | None:
        """Count the endpoint's symbols that are still without a day; None: not known."""
        try:
            watermarks = await self._watermarks()
        except StoreError:  # only the message is the poorer; polling finds out what is wrong
            return None
        return missing(watermarks, market, day, covers=self._covers)
