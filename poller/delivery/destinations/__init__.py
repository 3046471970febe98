"""Everything in which kinds of endpoints differ: one file a destination, found by being here.

Nobody outside asks which destination an endpoint has: what differs is an attribute or a method of
`Destination`.
"""

from poller.delivery.destinations.destination import Destination, Sender, Service, Watermarks
from poller.delivery.destinations.registry import (
    all_destinations,
    check_url,
    check_usable,
    choose,
    destination_of,
    discover,
    flags,
    register,
)

__all__ = [
    "Destination",
    "Sender",
    "Service",
    "Watermarks",
    "all_destinations",
    "check_url",
    "check_usable",
    "choose",
    "destination_of",
    "flags",
    "register",
]

discover(__name__, __path__)
