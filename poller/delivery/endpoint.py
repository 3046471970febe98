"""One endpoint as delivery knows it, and what a URL and a secret must be. Pure."""

import base64
import binascii
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from poller.delivery.selection import Selection

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

PREFIX: Final = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bytes of a signing secret, as Standard Webhooks wants them."""

_MAKE_ONE: Final = (
    'make one: python3 -c "import base64, secrets; '
    "print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_MASK: Final = "***"


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
        return names_loopback(urlsplit(self.url).hostname or "")

    def masked(self, text: str) -> str:
        """Return `text` without what must not be shown: URL, what it carries, and secrets."""
        parts = urlsplit(self.url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        hidden = [self.url, target, parts.path, parts.query, parts.password or "", *self.secrets]
        hidden += [secret.removeprefix(PREFIX) for secret in self.secrets]
        for each in sorted({text for text in hidden if len(text) > 1}, key=len, reverse=True):
            text = text.replace(each, _MASK)
        return text


def kind_of(url: str, *, feishu: bool) -> Kind:
    """Return how the endpoint behind a URL is told."""
    if feishu:
        return Kind.FEISHU
    scheme, found, _ = url.partition("://")
    return Kind.APPRISE if found and scheme.lower() not in {"http", "https"} else Kind.POST


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


def check_url(url: str, *, allow_http: bool, allow_private: bool) -> None:
    """Raise ValueError with the cure unless events may be posted there. No value is shown."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:  # its text could show the URL
        host = ""
    if not host or parts.scheme not in {"http", "https"}:
        raise ValueError("write it in full, as https:// and so on")
    local = names_loopback(host)
    if parts.scheme == "http" and not (local or allow_http):
        raise ValueError(
            "http shows the events to whoever listens: use https, or say allow_http = true"
        )
    address = as_address(host)
    if address is not None and not (local or allow_private) and not is_public(address):
        raise ValueError(
            "it names a private address: use a public one, or say allow_private = true"
        )


def names_loopback(host: str) -> bool:
    """Return whether a URL's host is this machine's loopback by its very text."""
    address = as_address(host)
    return host == "localhost" if address is None else address.is_loopback


def as_address(host: str) -> IpAddress | None:
    """Return the address a host literally is; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_public(address: IpAddress) -> bool:
    """Return whether an address is one of the internet's, also where it wraps an older one."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def refusal(text: str, *, local: bool, allow_private: bool) -> str | None:
    """Return why no connection may be made to this address; None: it may.

    `local`: the URL itself names the loopback, so nothing but the loopback is meant.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if allow_private or (local and address.is_loopback) or is_public(address):
        return None
    return f"{address} is no public address; say allow_private = true if it is meant"
