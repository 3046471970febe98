"""The user an OpenD is logged in as: what it says of its quote rights, and what it waits for. Pure.

Fields and values are those of the SDK's `get_user_info` (1005, GetUserInfo.proto), which the vendor
calls reserved: it has no limit on record, and an OpenD may leave out any field, or not answer. So
all of it is a hint. Only the answer to a request for short interest counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from poller.gateway.state import trouble_of
from poller.markets import Market, all_markets
from poller.printable import printable

NONE: Final = "NO"
"""The SDK's word for a market that the user has no quote right to."""

_UNKNOWN: Final = "N/A"
_LONGEST: Final = 20
_FORCED: Final = "the vendor no longer accepts this version of OpenD: install the newest one"


@dataclass(frozen=True, slots=True)
class User:
    """What an OpenD says of the user it is logged in as.

    Attributes:
        login: The user's number, or "".
        rights: The quote right to each market that it names, as the SDK does: LV1, BMP, NO.
        trouble: What it waits for, with the fix, or "".
    """

    login: str = ""
    rights: Mapping[Market, str] = field(default_factory=dict)
    trouble: str = ""

    @property
    def without(self) -> frozenset[Market]:
        """The markets that it says it has no right to."""
        return frozenset(market for market, right in self.rights.items() if right == NONE)

    def __str__(self) -> str:
        """Return the rights in words: `HK LV2, US none`."""
        told = {m: "none" if right == NONE else right for m, right in self.rights.items()}
        return ", ".join(f"{market} {right}" for market, right in told.items())


def user_of(info: Mapping[str, object]) -> User:
    """Return the user of an answer to `get_user_info`."""
    rights = {}
    for market in all_markets():
        right = printable(str(info.get(f"{market.table}_qot_right") or _UNKNOWN), _LONGEST)
        if right != _UNKNOWN:
            rights[market] = right
    trouble = ""
    if info.get("update_type") == "FORCE":
        trouble = _FORCED
    elif info.get("is_need_agree_disclaimer") is True:
        trouble = trouble_of({"program_status_type": "UN_AGREE_DISCLAIMER"})
    user = info.get("user_id")
    return User(str(user) if isinstance(user, int) and user else "", rights, trouble)
