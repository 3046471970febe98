"""`Destination`: everything in which one kind of endpoint differs, as one frozen value.

Every command imports the destinations, since they check the configuration, but few commands send.
So modules that open connections are imported on first use.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from operator import attrgetter
from typing import Final, Protocol

from poller.delivery.endpoint import Endpoint
from poller.delivery.retry import Outcome
from poller.delivery.target import host_of
from poller.events import Message, StreamEvent
from poller.model import Code

ANY: Final = "*"
"""Matches every scheme that no destination names."""

Watermarks = Callable[[], Awaitable[Mapping[Code, date]]]
"""Reads each symbol's last published day from the store; raises StoreError."""


class Sender(Protocol):
    """Sends to one endpoint, in the way of its destination."""

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Send the first messages of a lane; raises only on a defect, and ends within 20 s."""

    async def close(self) -> None:
        """Close every connection."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service whose URLs are easily configured for the wrong destination.

    Attributes:
        name: Its name for people.
        hosts: The hosts of its URLs. One that begins with a dot matches all its subdomains.
        instead: What to write in the configuration instead.
        takes_json: Below this path it accepts any JSON, so such URLs are allowed.
        chooses: Whether its URLs choose the destination, without a flag. Otherwise they are refused
            for all others.
    """

    name: str
    hosts: tuple[str, ...]
    instead: str
    takes_json: str | None = None
    chooses: bool = False

    def has(self, host: str) -> bool:
        """Return whether this is one of its hosts; `host`: from `host_of`."""
        bare = host.removesuffix(".")
        return any(bare.endswith(h) if h[0] == "." else bare == h for h in self.hosts)

    def is_at(self, host: str, path: str) -> bool:
        """Return whether it accepts only its own format there; `host`: from `host_of`."""
        if self.takes_json is not None and path.startswith(self.takes_json):
            return False
        return self.has(host)


async def _connect(endpoint: Endpoint) -> tuple[str, str]:
    from poller.delivery.client import reach  # noqa: PLC0415

    await reach(endpoint)
    command = f"poller webhook test {endpoint.name}"
    return "ok", f"it accepts connections; to send an event: {command}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Destination:
    """One kind of endpoint. The checks raise ValueError with the fix, and without any secret.

    Attributes:
        name: The value of `Endpoint.destination`.
        flag: The key of `[[webhooks]]` that chooses it when true; None: the URL chooses it.
        schemes: The URL schemes that choose it.
        services: Services whose URLs choose it, or are refused for any other destination.
        takes_secrets: Whether `secret` may be given.
        check_url: Checks a URL, in addition to the checks of all https and http URLs.
        check_secrets: Checks the signing secrets.
        check_usable: Checks whether everything it needs is installed.
        depth: Most events of a lane in one message. If more than one, a lane gathers events for
            `Endpoint.wait`.
        lane: Returns the lane of an event: events of a lane arrive in order, or together.
        sender: Makes the sender of an endpoint; raises like `check_usable`.
        test: Sends a test message, which is no event; raises like `sender`.
        shows: Where people read the messages: what they see of a test message; otherwise "".
        reach: Checks what it can without sending; returns a state and its description, or raises
            OSError with the reason.
    """

    name: str
    flag: str | None = None
    schemes: Collection[str] = ()
    services: Sequence[Service] = ()
    takes_secrets: bool = True
    check_url: Callable[[str], object] = host_of
    check_secrets: Callable[[Sequence[str]], None]
    check_usable: Callable[[Endpoint], object] = bool
    depth: int = 1
    lane: Callable[[StreamEvent], str] = attrgetter("code")
    sender: Callable[[Endpoint, Watermarks], Sender]
    test: Callable[[Endpoint], Awaitable[Outcome]]
    shows: str = ""
    reach: Callable[[Endpoint], Awaitable[tuple[str, str]]] = _connect
