"""Which users the gateways are logged in as: OpenD counts requests by user. Pure."""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Protocol


class LoggedIn(Protocol):
    """A gateway: its configured account, and the user it is logged in as ("": not known)."""

    @property
    def account(self) -> str:
        """The account's name in the configuration."""

    @property
    def login(self) -> str:
        """The user's number."""


def logins_of(gateways: Iterable[LoggedIn], account: str) -> Callable[[], set[str]]:
    """Return a function that returns the users the account's gateways are logged in as now."""
    mine = [gateway for gateway in gateways if gateway.account == account]
    return lambda: {gateway.login for gateway in mine if gateway.login}


def shared_logins(gateways: Sequence[LoggedIn]) -> str:
    """Return which tables of different accounts share a user, with the fix; "" if none do."""
    numbered = enumerate(gateways, start=1)
    pairs = [
        f"[[opend]] {m} (account {one.account}) and {n} (account {other.account})"
        for (m, one), (n, other) in combinations(numbered, 2)
        if one.login and one.login == other.login and one.account != other.account
    ]
    if not pairs:
        return ""
    return (
        f"{', '.join(pairs)} are logged in as the same user, and OpenD counts by user: their "
        "requests are counted together; give them the same account, or log one in as another user"
    )
