"""Messages to people: what stands in a lane is one message in a chat.

A channel posts a message a person reads; its outcome is that of a webhook (`retry.Outcome`), so a
delivery is retried and given up by the same rules.
"""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from typing import Final, Protocol

from poller import events
from poller.delivery.destinations.destination import Destination, Sender, Watermarks
from poller.delivery.digest import Message, announcement, digest, missing
from poller.delivery.endpoint import Endpoint
from poller.delivery.retry import Outcome
from poller.errors import StoreError
from poller.markets import Market

_TEST: Final = Message("Short interest", "A test: reports will appear here.")


class Channel(Protocol):
    """Where a message goes. `limit`, `monospaced`: what `digest` wants to know of it."""

    limit: int
    monospaced: bool

    async def post(self, message: Message) -> Outcome:
        """Post it; never raises but for a defect, and ends in time."""

    async def close(self) -> None:
        """Close every connection."""


class ChatDestination(Destination):
    """A chat: one message a market and day, with all events that came while it gathered."""

    depth = 2000

    def lane(self, event: events.StreamEvent) -> str:
        """Return the event's market and day, whose digest is one message."""
        return f"{event.market}:{event.trading_day}"

    @abstractmethod
    def channel(self, endpoint: Endpoint) -> Channel:
        """Return where its messages go; raises ValueError as `check_usable` does."""

    def sender(self, endpoint: Endpoint, store: Watermarks) -> Sender:
        """See `Destination.sender`."""
        return Chat(self.channel(endpoint), missing=_missing(endpoint, store))

    async def test(self, endpoint: Endpoint) -> Outcome:
        """Post a message."""
        channel = self.channel(endpoint)
        try:
            return await channel.post(_TEST)
        finally:
            await channel.close()


class Chat:
    """A `Sender`: what stands in a lane is one message.

    They are all events of one market and day, or all notices of one market.
    """

    def __init__(
        self, channel: Channel, *, missing: Callable[[Market, date], Awaitable[int | None]]
    ) -> None:
        """`missing`: how many symbols are still without that day; None: not known."""
        self._channel = channel
        self._missing = missing

    async def send(self, messages: Sequence[events.Message]) -> Outcome:
        """Post the digest of at least one event, or what the notices say."""
        limit = self._channel.limit
        told = [each for each in messages if isinstance(each, events.StreamEvent)]
        if not told:
            notices = [each for each in messages if isinstance(each, events.StreamNotice)]
            return await self._channel.post(announcement(notices, limit=limit))
        message = digest(
            told,
            limit=limit,
            missing=await self._missing(told[0].market, told[0].trading_day),
            monospaced=self._channel.monospaced,
        )
        return await self._channel.post(message)

    async def close(self) -> None:
        """See `Channel.close`."""
        await self._channel.close()


def _missing(
    endpoint: Endpoint, store: Watermarks
) -> Callable[[Market, date], Awaitable[int | None]]:
    """Return how to count the endpoint's symbols that are still without a day."""

    async def count(market: Market, day: date) -> int | None:
        try:
            return missing(await store.watermarks(), market, day, covers=endpoint.selection.covers)
        except StoreError:  # only the message is the poorer; polling finds out what is wrong
            return None

    return count
