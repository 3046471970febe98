"""One endpoint as delivery knows it, and what a URL and a secret must be. Pure."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

from poller.delivery.addresses import names_loopback
from poller.delivery.masking import PREFIX, Mask, secrets_in_key, secrets_in_url
from poller.delivery.selection import Selection
from poller.delivery.target import host_of

SHORTEST, LONGEST = 24, 64
"""Bytes of a signing secret, as Standard Webhooks wants them."""

_MAKE_ONE: Final = (
    'make one: python3 -c "import base64, secrets; '
    "print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""
)


class Kind(StrEnum):
    """How an endpoint is told: a signed POST an event, or one message a market and day."""

    POST = "post"
    FEISHU = "feishu"
    APPRISE = "apprise"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events go, and which. Its `repr` shows no secret.

    `connections`: deliveries at once, `rate`: deliveries a second, both in each process. `wait`:
    how long nothing more must have come before the events of a message are sent.
    """

    name: str
    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    selection: Selection
    allow_http: bool = False
    allow_private: bool = False
    connections: int = 8
    rate: float = 20.0
    kind: Kind = Kind.POST
    wait: timedelta = timedelta(0)

    @property
    def local(self) -> bool:
        """Whether the URL itself names this machine's loopback."""
        return names_loopback(host_of(self.url))

    def mask(self) -> Mask:
        """Return what keeps its URL and its secrets out of a text; to be made once."""
        keys = (text for secret in self.secrets for text in secrets_in_key(secret))
        return Mask([*secrets_in_url(self.url), *keys])


def kind_of(url: str, *, feishu: bool) -> Kind:
    """Return how the endpoint behind a URL is told."""
    if feishu:
        return Kind.FEISHU
    scheme, found, _ = url.partition("://")
    return Kind.APPRISE if found and scheme.strip().lower() not in {"http", "https"} else Kind.POST


def check_secrets(kind: Kind, texts: Sequence[str]) -> None:
    """Raise ValueError with the cure, and without a value, unless these sign for the endpoint."""
    match kind:
        case Kind.POST if not texts:
            raise ValueError(f"nothing to sign with; {_MAKE_ONE}")
        case Kind.POST:
            for text in texts:
                _check_secret(text)
        case Kind.FEISHU if len(texts) > 1:
            raise ValueError("a bot has one secret")
        case Kind.APPRISE if texts:
            raise ValueError("leave it out: all that such a service wants stands in its URL")


def _check_secret(text: str) -> None:
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(PREFIX) or not SHORTEST <= len(key) <= LONGEST:
        raise ValueError(
            f"a signing secret is {PREFIX} and the base64 of {SHORTEST} to {LONGEST} bytes; "
            + _MAKE_ONE
        )


def check_token(text: str) -> None:
    """Raise ValueError with the cure, without the value, unless nobody guesses the token."""
    if not re.fullmatch(r"[!-~]{16,}", text):
        raise ValueError(
            "give at least 16 printable characters without spaces; make one: "
            "python3 -c 'import secrets; print(secrets.token_urlsafe())'"
        )
