"""Watches short interest through Futu OpenD and publishes what is newly reported.

For subscribers: `subscribe`, which yields a `StreamEvent` for each event (`Received` is its name in
version 0.1). For analysts: `history` and `releases`, which return a DataFrame.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poller.events import StreamEvent
    from poller.events import StreamEvent as Received
    from poller.store.frame import history, releases
    from poller.subscriber.subscription import subscribe

__version__ = "0.1.0"
__all__ = ["Received", "StreamEvent", "history", "releases", "subscribe"]


def __getattr__(name: str) -> object:
    """Import what subscribers need only on request, so that commands start faster."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in {"history", "releases"}:
        from poller.store import frame  # noqa: PLC0415  pandas

        return getattr(frame, name)
    from poller import events  # noqa: PLC0415
    from poller.subscriber import subscription  # noqa: PLC0415

    return subscription.subscribe if name == "subscribe" else events.StreamEvent
