"""The roles of a process: the whole service, or a part of it. A further role is a further line."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Role = Literal["run", "poll", "deliver", "web"]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a process of a role does.

    Attributes:
        title: What its systemd unit is called.
        polls: Whether it asks OpenD.
        delivers: Whether it sends to the endpoints.
        shows: Whether it serves the page.
    """

    title: str
    polls: bool = False
    delivers: bool = False
    shows: bool = False


ROLES: Final[Mapping[Role, Parts]] = {
    "run": Parts("Short-interest poller", polls=True, delivers=True, shows=True),
    "poll": Parts("Short-interest poller: polling", polls=True),
    "deliver": Parts("Short-interest poller: webhooks", delivers=True),
    "web": Parts("Short-interest poller: status page", shows=True),
}


def parts_of(role: str) -> Parts:
    """Return what a process of this role does; nothing known if another version has the role."""
    return next((parts for name, parts in ROLES.items() if name == role), Parts(role))
