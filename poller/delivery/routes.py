"""Chooses sort key and lane of a delivery in an endpoint's queue."""

from datetime import timedelta

from poller.delivery.destinations import destination_of
from poller.delivery.endpoint import Endpoint
from poller.delivery.outbox import QueueItem
from poller.delivery.queued import Delivery, release_key, sort_key
from poller.events import Message, StreamNotice


def key_of(message: Message) -> str:
    """Return a message's sort key, the same in every queue."""
    notice = isinstance(message, StreamNotice)
    return sort_key(release_key(message.position) if notice else message.position)


def route(endpoint: Endpoint, delivery: Delivery) -> QueueItem:
    """Return a delivery as an item of the endpoint's queue.

    The destination chooses the lane of an event. Notices have a lane per market and do not gather.
    """
    key, text, message = delivery.key, delivery.text, delivery.message
    if isinstance(message, StreamNotice):
        return QueueItem(key, text, f"release:{message.market}")
    destination = destination_of(endpoint)
    wait = endpoint.wait if destination.depth > 1 else timedelta(0)
    return QueueItem(key, text, destination.lane(message), wait)
