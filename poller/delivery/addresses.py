"""Which addresses are the internet's: the guard's own list. Pure.

The interpreter's `is_global` changes from release to release and lets several inner ranges through.
This list follows IANA's registries of special-purpose IPv4 and IPv6 addresses, and adds one
address by which a cloud's own services are reached.
"""

import ipaddress
from typing import Final

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_INNER_4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for the loopback
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared behind a carrier's NAT; one cloud's metadata, 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's platform, as every machine there sees it
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
"""The only IPv6 unicast that is given out. Outside are the loopback, the unique local fc00::/7
(fd00:ec2::254 is a cloud's metadata), link-local, site-local, multicast, discard, segment routing,
the NAT64 of a site's own, and the forms that only wrap an IPv4 address."""

_INNER_6: Final = tuple(
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
    """Return the address a host literally is, without a zone; None for a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def names_loopback(host: str) -> bool:
    """Return whether a URL's host is this machine's loopback by its very text."""
    address = as_address(host)
    return host.lower() == "localhost" if address is None else is_loopback(address)


def is_loopback(address: IpAddress) -> bool:
    """Return whether an address is this machine's loopback, also where IPv6 wraps it."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _unwrapped(address) if address in _MAPPED else None
        return address == _LOOPBACK_6 if inner is None else is_loopback(inner)
    return address in _LOOPBACK_4


def is_public(address: IpAddress) -> bool:
    """Return whether an address is one of the internet's, also where it wraps an older one."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in inner for inner in _INNER_4)
    wrapped = _unwrapped(address)
    if wrapped is not None:
        return is_public(wrapped)
    return address in _GLOBAL_6 and not any(address in inner for inner in _INNER_6)


def _unwrapped(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address a packet to this one ends at; None: it is sent as IPv6."""
    if address in _MAPPED or address in _NAT64:
        return ipaddress.IPv4Address(int(address) & _ALL_4)
    if address in _SIX_TO_FOUR:
        return ipaddress.IPv4Address(int(address) >> 80 & _ALL_4)
    return None


def refusal(text: str, *, local: bool, allow_private: bool) -> str | None:
    """Return why no connection may be made to this address; None: it may.

    `local`: the URL itself names the loopback, so nothing but the loopback is meant.
    """
    address = as_address(text)
    if allow_private or address is None:
        return None if allow_private else "it is no address of the internet's"
    if is_public(address) or (local and is_loopback(address)):
        return None
    return f"{address} is no public address; say allow_private = true if it is meant"
