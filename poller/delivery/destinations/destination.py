"""What a destination is: everything in which one kind of endpoint differs, as one frozen value.

Every command imports the destinations, as the configuration is checked by them, and few send. So
what opens connections is imported where it is first used.
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
"""Stands for every scheme that no destination names."""

Watermarks = Callable[[], Awaitable[Mapping[Code, date]]]
"""Asks the store for the last published day of each symbol; raises StoreError."""


class Sender(Protocol):
    """Sends to one endpoint, as its destination does."""

    async def send(self, messages: Sequence[Message]) -> Outcome:
        """Send what stands first in one lane; never raises but for a defect, ends within 20 s."""

    async def close(self) -> None:
        """Close every connection."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service whose URLs are mistaken for those of another destination.

    Attributes:
        name: What people call it.
        hosts: Those of its URLs. One that begins with a dot stands for all below it.
        instead: What to write in the configuration.
        takes_json: Below this path it takes any JSON, and nothing is mistaken.
    """

    name: str
    hosts: tuple[str, ...]
    instead: str
    takes_json: str | None = None

    def is_at(self, host: str, path: str) -> bool:
        """Return whether it wants messages of its own form there; `host`: as `host_of` has it."""
        if self.takes_json is not None and path.startswith(self.takes_json):
            return False
        bare = host.removesuffix(".")
        return any(bare.endswith(h) if h[0] == "." else bare == h for h in self.hosts)


async def _connect(endpoint: Endpoint) -> tuple[str, str]:
    from poller.delivery.client import reach  # noqa: PLC0415

    await reach(endpoint)
    command = f"poller webhook test {endpoint.name}"
    return "ok", f"it accepts connections; to send an event: {command}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Destination:
    """One kind of endpoint. The checks raise ValueError with the fix, and without any secret.

    Attributes:
        name: How `Endpoint.destination` calls it.
        flag: The key of `[[webhooks]]` that chooses it when true; None: the URL chooses it.
        schemes: Schemes of the URLs that choose it.
        services: Whose URLs are refused for any other destination.
        takes_secrets: Whether `secret` may be given.
        check_url: Checks a URL further; one of https or http is checked for all alike.
        check_secrets: Checks what is to be signed with.
        check_usable: Checks whether all that it needs is installed.
        depth: Most events of a lane in one message. Where it is more than one, a lane gathers
            events for as long as `Endpoint.wait` says.
        lane: Returns the lane of an event: those of one lane arrive in order, or together.
        sender: Makes what sends to an endpoint; raises as `check_usable` does.
        test: Sends a message that is no event; raises as `sender` does.
        reach: Tries what can be tried without sending; returns a state and what to say of it, or
            raises OSError with the reason.
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
    reach: Callable[[Endpoint], Awaitable[tuple[str, str]]] = _connect
