"""Counts wrong tokens by address: after a few, the next try has to wait.

Connections are not held meanwhile: the answer is 429 with the seconds to wait.
"""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FREE_TRIES: Final = 10
"""Wrong tokens without a wait, for people who mistype and scripts that are restarted."""

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
"""Seconds; doubled from the first to the longest. The right token is delayed by a minute at most,
and guessing from one address is limited to 1,440 tries a day."""

FORGET_AFTER: Final = 3600.0
MOST_ADDRESSES: Final = 4096
"""Addresses remembered, some 200 bytes each; the oldest is dropped first."""

_IPV6_PREFIX: Final = 64
"""One subscriber has all addresses of such a network."""


@dataclass(slots=True)
class _Record:
    """`wrong`: tokens so far. `last`: when the last came. `until`: when the next one is checked."""

    wrong: int = 0
    last: float = 0.0
    until: float = 0.0


class WrongTokens:
    """Counts wrong tokens, and returns how long an address has to wait."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now`: returns seconds on a monotonic clock."""
        self._now = now
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of addresses remembered."""
        return len(self._records)

    def wait(self, address: str | None) -> int:
        """Return the whole seconds until a token from this address is checked again; 0: now.

        The right token waits, too; otherwise the wait would not prevent guessing.
        """
        record = self._records.get(network_of(address))
        return 0 if record is None else max(0, math.ceil(record.until - self._now()))

    def wrong(self, address: str | None) -> None:
        """Count a wrong token."""
        name, now = network_of(address), self._now()
        record = self._records.pop(name, None)
        if record is None or now - record.last > FORGET_AFTER:
            record = _Record()
        record.wrong += 1
        record.last = now
        if record.wrong >= FREE_TRIES:
            doubled = FIRST_WAIT * 2.0 ** min(record.wrong - FREE_TRIES, 32)
            record.until = now + min(doubled, LONGEST_WAIT)
        self._records[name] = record
        if len(self._records) > MOST_ADDRESSES:
            self._records.popitem(last=False)

    def right(self, address: str | None) -> None:
        """Forget the wrong tokens of this address."""
        self._records.pop(network_of(address), None)


def network_of(address: str | None) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
        found = found.ipv4_mapped
    return str(found)
