"""The time zone in which the page shows times: each market's own, UTC, or the visitor's.

A visitor chooses with a link. Only the name of the browser's own zone needs the script, which puts
it into its link.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from poller.markets import Market
from poller.schedule.calendar import zone_word

PARAMETER: Final = "zone"
"""Of the query: chooses a zone, and then leaves the address."""

_MARKET: Final = "market"
_UTC: Final = "UTC"
_NAME: Final = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Zone:
    """Where times are shown.

    Attributes:
        name: `market`, `UTC`, or the IANA name of a zone.
        fixed: That zone; None: each market's own.
    """

    name: str
    fixed: tzinfo | None = None

    def of(self, market: Market | None) -> tzinfo:
        """Return the zone of times of a market; None: of none, like those of the service."""
        if self.fixed is not None:
            return self.fixed
        return UTC if market is None else market.zone

    def text(self, moment: datetime, form: str, market: Market | None) -> str:
        """Return a moment in this form of `strftime`, and its zone: `2026-11-24 12:00 HKT`."""
        return f"{moment.astimezone(self.of(market)):{form}} {self.word(moment, market)}"

    def word(self, moment: datetime, market: Market | None) -> str:
        """Return what the zone is called at this moment: `HKT`, `UTC+03`."""
        return zone_word(moment.astimezone(self.of(market)))


EACH_MARKET: Final = Zone(_MARKET)
"""Unless another is chosen: reports are expected and come in the hours of their market."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A link that chooses a zone. `link`: "" if only the script knows the zone."""

    id: str
    words: str
    link: str
    is_chosen: bool


def zone_named(name: str) -> Zone | None:
    """Return the zone of this name, or None."""
    if name == _MARKET:
        return EACH_MARKET
    if name == _UTC:
        return Zone(name, UTC)
    if not _NAME.fullmatch(name):
        return None
    try:
        return Zone(name, ZoneInfo(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones
        return None


def choices(query: Mapping[str, str], zone: Zone) -> tuple[Choice, ...]:
    """Return the links that choose a zone and keep the query."""

    def link(name: str) -> str:
        return f"?{urlencode({**query, PARAMETER: name})}"

    own = zone.name if zone.name not in {_MARKET, _UTC} else ""
    return (
        Choice("zone-market", "market’s", link(_MARKET), zone.name == _MARKET),
        Choice("zone-local", "local", link(own) if own else "", bool(own)),
        Choice("zone-utc", "UTC", link(_UTC), zone.name == _UTC),
    )
