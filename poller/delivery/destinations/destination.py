"""What a destination is: everything in which one kind of endpoint differs from another.

Every command imports the destinations, as the configuration is checked by them, and few send. So
what opens connections is imported where it is first used.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import ClassVar, Final, Protocol

from poller.delivery.endpoint import Endpoint
from poller.delivery.retry import Outcome
from poller.delivery.target import check_url
from poller.events import Message, StreamEvent
from poller.model import Code

ANY: Final = "*"
"""Stands for every scheme that no destination names."""


class Sender(Protocol):
    """Sends to one endpoint, as its destination does."""

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Send what stands first in one lane; never raises but for a defect, ends within 20 s."""

    async def close(self) -> None:
        """Close every connection."""


class Watermarks(Protocol):
    """What a destination may ask of the store."""

    async def watermarks(self) -> Mapping[Code, date]:
        """Return the last published trading day of each symbol; raises StoreError."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service whose own URLs are mistaken for those of another destination.

    Attributes:
        name: What people call it.
        hosts: Those of the URLs it gives out. One that begins with a dot stands for all below it.
        instead: What to write in the configuration.
        takes_json: Below this path it takes any JSON, so that nothing is mistaken there.
    """

    name: str
    hosts: tuple[str, ...]
    instead: str
    takes_json: str | None = None

    def wants(self, host: str, path: str) -> bool:
        """Return whether it wants messages of its own form there; `host`: as `host_of` has it."""
        if self.takes_json is not None and path.startswith(self.takes_json):
            return False
        bare = host.removesuffix(".")
        return any(bare.endswith(h) if h[0] == "." else bare == h for h in self.hosts)


class Destination(ABC):
    """One kind of endpoint. It keeps no state and serves all endpoints of its kind.

    Attributes:
        name: How `Endpoint.destination` calls it.
        flag: The key of `[[webhooks]]` that chooses it when true; None: the URL chooses it.
        schemes: Schemes of the URLs that choose it.
        takes_secrets: Whether `secret` may be given.
        depth: Most events of a lane in one message. Where it is more than one, a lane gathers
            events for as long as `Endpoint.wait` says.
        services: Whose URLs belong to this destination and are refused for any other.
    """

    name: ClassVar[str]
    flag: ClassVar[str | None] = None
    schemes: ClassVar[frozenset[str]] = frozenset()
    takes_secrets: ClassVar[bool] = True
    depth: ClassVar[int] = 1
    services: ClassVar[tuple[Service, ...]] = ()

    def check_url(self, url: str, *, allow_http: bool, allow_private: bool) -> None:
        """Raise ValueError with the fix, and without the URL, unless it can be sent to."""
        check_url(url, allow_http=allow_http, allow_private=allow_private)

    @abstractmethod
    def check_secrets(self, secrets: Sequence[str]) -> None:
        """Raise ValueError with the fix, and without a value, unless it can use these."""

    def check_usable(self, endpoint: Endpoint) -> None:  # noqa: B027  most need nothing
        """Raise ValueError with the fix, and without the URL, when something is not installed."""

    def lane(self, event: StreamEvent) -> str:
        """Return the lane of an event: events of one lane arrive in order, or together."""
        return event.code

    @abstractmethod
    def sender(self, endpoint: Endpoint, store: Watermarks) -> Sender:
        """Return what sends to an endpoint; raises ValueError as `check_usable` does."""

    @abstractmethod
    async def test(self, endpoint: Endpoint) -> Outcome:
        """Send a message that is no event; raises as `sender` does, and as `Sender.send`."""

    async def reach(self, endpoint: Endpoint) -> tuple[str, str]:
        """Try what can be tried without sending; returns a state and what to say about it.

        Raises OSError with the reason.
        """
        from poller.delivery.client import reach  # noqa: PLC0415

        await reach(endpoint)
        return "ok", f"it accepts connections; to send an event: {command_of_test(endpoint)}"


def command_of_test(endpoint: Endpoint) -> str:
    """Return the command that sends a test message to an endpoint."""
    return f"poller webhook test {endpoint.name}"
