"""What one OpenD says of itself and of its user: asked for now and then, and heard unasked."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from poller.errors import GatewayError
from poller.gateway.sdk import Sdk, read_state, read_user
from poller.gateway.state import changes_rights, trouble_in, trouble_of
from poller.gateway.user import User, user_of
from poller.markets import Market

STATE_EVERY: Final = 60.0
"""Seconds between two looks at how OpenD says it is; the first is at once.

The user is asked about once a connection and whenever OpenD says that rights have changed, and this
often while something is asked of the user, because OpenD may not say that it was done.
"""

_NEVER: Final = float("inf")

RightsTold = Callable[[str, frozenset[Market] | None], None]
"""Called with an account and the markets it has no right to; None: they have changed somehow."""


class OwnState:
    """Follows one OpenD's own account of itself. An OpenD that does not answer changes nothing."""

    def __init__(self, sdk: Sdk, account: str, state_told: Callable[[str], None]) -> None:
        """`state_told` is called with what OpenD says is wrong with itself, or ""."""
        self.user = User()
        self.rights_told: RightsTold = lambda *_: None
        self._sdk = sdk
        self._account = account
        self._state_told = state_told
        self._trouble = ""
        self._state_at = self._user_at = 0.0  # when each is asked for next, in loop seconds

    def start_over(self) -> None:
        """Ask for everything again: the connection is new."""
        self.user = User()
        self._state_at = self._user_at = 0.0

    def take(self, notification: object) -> None:
        """Take what OpenD sent unasked."""
        if changes_rights(notification):
            self._user_at = 0.0
            self.rights_told(self._account, None)
        if (trouble := trouble_in(notification)) is not None:
            self._trouble = trouble
            self._state_at = asyncio.get_running_loop().time() + STATE_EVERY
            if self.user.trouble:  # which may have ended with it
                self._user_at = 0.0
            self._tell()

    async def look(self, context: Any) -> None:  # noqa: ANN401  the SDK has no types
        """Ask for what is due, and tell it; each silence costs as long as `Sdk.check` takes.

        One after the other: many gateways that connect at once take a thread each, and not two.
        """
        now = asyncio.get_running_loop().time()
        told = now >= self._state_at and await self._ask_state(context)
        told |= now >= self._user_at and await self._ask_user(context)
        if told:
            self._tell()

    def _tell(self) -> None:
        self._state_told(self._trouble or self.user.trouble)

    async def _ask_state(self, context: Any) -> bool:  # noqa: ANN401  as above
        """Return whether OpenD said how it is."""
        self._state_at = asyncio.get_running_loop().time() + STATE_EVERY
        try:
            self._trouble = trouble_of(await self._sdk.check(lambda: read_state(context)))
        except GatewayError:  # which the requests for short interest will show
            return False
        return True

    async def _ask_user(self, context: Any) -> bool:  # noqa: ANN401  as above
        """Return whether OpenD said what its user may see; tells the rights."""
        soon = asyncio.get_running_loop().time() + STATE_EVERY
        self._user_at = soon if self.user.trouble else _NEVER
        try:
            self.user = user_of(await self._sdk.check(lambda: read_user(context)))
        except GatewayError:
            return False
        if self.user.trouble:
            self._user_at = soon
        self.rights_told(self._account, self.user.without)
        return True
