"""What sends to an endpoint: a signed POST an event, or a chat channel with a message a lane."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import date

from poller.clock import wall_clock
from poller.delivery.chat import Apprise, Channel, Chat, Feishu
from poller.delivery.digest import missing
from poller.delivery.endpoint import Endpoint, Kind
from poller.delivery.webhook import Sender, SignedPost
from poller.errors import ConfigError, StoreError
from poller.markets import Market
from poller.storage.ports import Watermarks


def sender_of(endpoint: Endpoint, store: Watermarks) -> Sender:
    """Return what sends to an endpoint."""
    if endpoint.kind is Kind.POST:
        return SignedPost(endpoint, now=wall_clock)
    return Chat(channel_of(endpoint), missing=_missing(endpoint, store))


def channel_of(endpoint: Endpoint) -> Channel:
    """Return the channel of a chat endpoint; raises ValueError when its URL is not understood."""
    if endpoint.kind is Kind.FEISHU:
        return Feishu(endpoint, now=wall_clock)
    return Apprise(endpoint.url)


def check_channels(endpoints: Iterable[Endpoint]) -> None:
    """Raise ConfigError with a line for each chat service that cannot be used."""
    problems = []
    for endpoint in endpoints:
        if endpoint.kind is Kind.APPRISE:
            try:
                Apprise(endpoint.url)
            except ValueError as problem:
                problems.append(f"webhook {endpoint.name}: url: {problem}")
    if problems:
        raise ConfigError(problems)


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
