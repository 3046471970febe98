"""Where a delivery stands in an endpoint's queue."""

from datetime import timedelta

from poller.delivery.destinations import destination_of
from poller.delivery.endpoint import Endpoint
from poller.delivery.outbox import QueueItem
from poller.delivery.queued import Delivery, release_key, sort_key
from poller.events import Message, StreamNotice


def key_of(message: Message) -> str:
    """Return the sort key a message has in every queue."""
    notice = isinstance(message, StreamNotice)
    return sort_key(release_key(message.position) if notice else message.position)


def route(endpoint: Endpoint, delivery: Delivery) -> QueueItem:
    """Return the place of a delivery in the endpoint's queue.

    The lane of an event is its destination's to say. The notices of a market have one of their own,
    and do not wait for one another.
    """
    key, text, message = delivery.key, delivery.text, delivery.message
    if isinstance(message, StreamNotice):
        return QueueItem(key, text, f"release:{message.market}")
    destination = destination_of(endpoint)
    wait = endpoint.wait if destination.depth > 1 else timedelta(0)
    return QueueItem(key, text, destination.lane(message), wait)
