"""Watches short interest through Futu OpenD and publishes what is newly reported.

For subscribers: `subscribe`, which yields `Received`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poller.subscriber.message import Received
    from poller.subscriber.subscription import subscribe

__version__ = "0.1.0"
__all__ = ["Received", "subscribe"]


def __getattr__(name: str) -> object:
    """Import what subscribers need when they ask for it: the commands start faster without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from poller.subscriber import message, subscription  # noqa: PLC0415

    return {"Received": message.Received, "subscribe": subscription.subscribe}[name]
