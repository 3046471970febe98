"""One endpoint as delivery knows it. Pure."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from poller.delivery.addresses import names_loopback
from poller.delivery.masking import Mask, secrets_in_key, secrets_in_url
from poller.delivery.selection import Selection
from poller.delivery.target import host_of

TIMEOUT: Final = 20.0
"""Seconds for one attempt, from the DNS look-up to the last byte of the answer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events go, and which. Its `repr` shows no secret.

    Attributes:
        connections: Most deliveries at once, in each process.
        rate: Most deliveries a second, in each process.
        destination: The name of its kind, see `destinations`.
        wait: Debounce: events gather into a message until none has come for this long.
    """

    name: str
    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    selection: Selection
    allow_http: bool = False
    allow_private: bool = False
    connections: int = 8
    rate: float = 20.0
    destination: str = "webhook"
    wait: timedelta = timedelta(0)

    @property
    def local(self) -> bool:
        """Whether the URL itself names this machine's loopback."""
        return names_loopback(host_of(self.url))

    def mask(self) -> Mask:
        """Return a mask for its URL and secrets; it is costly, so make it once."""
        keys = (text for secret in self.secrets for text in secrets_in_key(secret))
        return Mask([*secrets_in_url(self.url), *keys])
