"""Decides which addresses are public. Pure.

Python's own `is_global` changes from release to release and lets several internal ranges through.
The lists here follow IANA's registries of special-purpose IPv4 and IPv6 addresses, plus one address
of a cloud's internal services.
"""

import ipaddress
from typing import Final

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_INTERNAL_4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; Linux treats 0.0.0.0 as the loopback
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared behind a carrier's NAT; one cloud's metadata, 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's platform services, on every machine there
        "169.254.0.0/16",  # link-local; most clouds' metadata, 169.254.169.254
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; one cloud's metadata, 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4, deprecated
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast
    )
)
_GLOBAL_6: Final = ipaddress.IPv6Network("2000::/3")
"""The only IPv6 unicast range in use. Outside it are the loopback, unique local fc00::/7
(fd00:ec2::254 is a cloud's metadata), link-local, site-local, multicast, discard, segment routing,
a site's own NAT64, and the forms that only wrap an IPv4 address."""

_INTERNAL_6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR: Final = ipaddress.IPv6Network("2002::/16")
_LOOPBACK_4: Final = ipaddress.IPv4Network("127.0.0.0/8")
_LOOPBACK_6: Final = ipaddress.IPv6Address("::1")
_ALL_4: Final = 0xFFFF_FFFF


def as_address(host: str) -> IpAddress | None:
    """Return a literal address, without its IPv6 zone; None for a host name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def names_loopback(host: str) -> bool:
    """Return whether a URL's host is `localhost` or a literal loopback address."""
    address = as_address(host)
    return host.lower() == "localhost" if address is None else is_loopback(address)


def is_loopback(address: IpAddress) -> bool:
    """Return whether an address is this machine's loopback, even wrapped in an IPv6 address."""
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = _unwrapped(address) if address in _MAPPED else None
        return address == _LOOPBACK_6 if wrapped is None else is_loopback(wrapped)
    return address in _LOOPBACK_4


def is_public(address: IpAddress) -> bool:
    """Return whether an address is public; of one that wraps an IPv4 address, whether that is."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _INTERNAL_4)
    wrapped = _unwrapped(address)
    if wrapped is not None:
        return is_public(wrapped)
    return address in _GLOBAL_6 and not any(address in network for network in _INTERNAL_6)


def _unwrapped(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that packets to this one reach; None: they stay IPv6."""
    if address in _MAPPED or address in _NAT64:
        return ipaddress.IPv4Address(int(address) & _ALL_4)
    if address in _SIX_TO_FOUR:
        return ipaddress.IPv4Address(int(address) >> 80 & _ALL_4)
    return None


def refusal(text: str, *, local: bool, allow_private: bool) -> str | None:
    """Return why no connection may be made to this address; None: it may.

    `local`: the URL itself names the loopback, so the loopback is allowed.
    """
    address = as_address(text)
    if allow_private or address is None:
        return None if allow_private else "it is not a public address"
    if is_public(address) or (local and is_loopback(address)):
        return None
    return f"{address} is not a public address; if it is meant: allow_private = true"
