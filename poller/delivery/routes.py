"""Where a delivery stands in an endpoint's queue. Pure."""

from poller.delivery.endpoint import Endpoint, Kind
from poller.delivery.outbox import QueueItem
from poller.delivery.queued import Delivery, release_key, sort_key
from poller.events import Message, StreamNotice


def key_of(message: Message) -> str:
    """Return the sort key a message has in every queue."""
    notice = isinstance(message, StreamNotice)
    return sort_key(release_key(message.position) if notice else message.position)


def route(endpoint: Endpoint, delivery: Delivery) -> QueueItem:
    """Return the place of a delivery in the endpoint's queue.

    Its lane is its symbol, or its market and day where they go together. The notices of a market
    have a lane of their own, and do not wait for one another in a chat.
    """
    key, text, message = delivery.key, delivery.text, delivery.message
    if isinstance(message, StreamNotice):
        return QueueItem(key, text, f"release:{message.market}")
    if endpoint.kind is Kind.POST:
        return QueueItem(key, text, message.code)
    return QueueItem(key, text, f"{message.market}:{message.trading_day}", endpoint.wait)
