"""One request of a poll: whom to ask, what was spent for it, and how it is settled."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from poller.errors import GatewayError, Unavailable
from poller.gateway.opend import Gateway
from poller.model import Code, Page
from poller.polling.budget import Budget, Grant
from poller.polling.entitlements import Entitlements
from poller.store.store import Lease

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class PollJob:
    """One symbol's poll: whom to ask, the budget spent for it, the lease it commits under."""

    code: Code
    gateway: Gateway
    budget: Budget
    grant: Grant
    lease: Lease
    began: datetime
    entitlements: Entitlements


async def fetch(
    gateway: Gateway, budget: Budget, grant: Grant, code: Code, key: str | None
) -> Page:
    """Ask for one page of short interest; see `spend`."""
    return await spend(budget, grant, lambda: gateway.page(code, key))


async def spend(budget: Budget, grant: Grant, ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Send one request that `grant` was spent for, and settle it whatever comes.

    A grant that has become too old, because Redis stalled meanwhile, is given up for a new one.
    """
    while not budget.is_valid(grant):
        await budget.settle(grant, answered=True)  # nothing was sent
        grant = await budget.acquire()
    answered, replaced = False, None
    try:
        answer = await ask()
        answered = True
    except Unavailable as problem:
        replaced = problem.replaced
        raise
    except GatewayError:
        answered = True
        raise
    finally:
        await budget.settle(grant, answered=answered, replaced=replaced)
    return answer
