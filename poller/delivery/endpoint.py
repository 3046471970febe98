"""One endpoint as delivery knows it. Pure."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from poller.delivery.addresses import names_loopback
from poller.delivery.masking import Mask, secrets_in_key, secrets_in_url
from poller.delivery.selection import Selection
from poller.delivery.target import host_of

TIMEOUT: Final = 20.0
"""Seconds for one attempt, from the name's look-up to the last byte of the answer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events go, and which. Its `repr` shows no secret.

    `connections`: deliveries at once, `rate`: deliveries a second, both in each process.
    `destination`: the name of its kind, see `destinations`. `wait`: how long nothing more must have
    come before the events of a message are sent.
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
        """Return what keeps its URL and its secrets out of a text; to be made once."""
        keys = (text for secret in self.secrets for text in secrets_in_key(secret))
        return Mask([*secrets_in_url(self.url), *keys])
