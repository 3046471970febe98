"""What `poller check` finds by asking: each OpenD how it is, each account for each market."""

import asyncio
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from poller.cli.stores import store_of
from poller.errors import GatewayError, NoRight, PollerError, Refused, TooFrequent
from poller.gateway.logins import logins_of, shared_logins
from poller.gateway.opend import OpenD
from poller.gateway.state import trouble_of, version_of
from poller.gateway.user import User
from poller.markets import Market, all_markets
from poller.model import Code, market_of, unique
from poller.polling.budget import Budget
from poller.polling.request import fetch
from poller.settings.codefile import read_codes
from poller.settings.config import Config
from poller.store.ports import Ledger, LiveWatchlist

Finding = tuple[str, str, str]
"""What was tried, `ok`, `failed` or what else it is, and what was found."""

_LONGEST: Final = 40.0
"""Seconds for the requests: a period, should all be spent, and an answer."""

_LATE: Final = f"no request could be spent within {_LONGEST:g} s: try again in a quieter moment"


async def states_of(gateways: Sequence[OpenD]) -> dict[str, tuple[str, str]]:
    """Return what is wrong with each gateway by its own account, or "", and what else it says."""
    found = await asyncio.gather(*map(_state, gateways))
    return {gateway.name: state for gateway, state in zip(gateways, found, strict=True)}


async def _state(gateway: OpenD) -> tuple[str, str]:
    user = await _user(gateway)
    try:
        state = await gateway.state()
    except GatewayError as problem:
        return f"it does not say how it is: {problem}", ""
    version, rights = version_of(state), str(user)
    found = [f"version {version}"] if version else []
    found += [f"quote rights: {rights}"] if rights else []
    return trouble_of(state) or user.trouble, ", ".join(found)


async def _user(gateway: OpenD) -> User:
    try:
        return await gateway.user()
    except GatewayError:  # it need not tell; the requests for each market show what it may see
        return User()


def same_user(gateways: Sequence[OpenD]) -> list[Finding]:
    """Return a row if accounts are logged in as one user: the service counts them together."""
    told = shared_logins(gateways)
    return [("accounts", "warning", told)] if told else []


async def ask_for_markets(config: Config, gateways: Sequence[OpenD]) -> list[Finding]:
    """Spend one request for each watched market and account; returns a row for each.

    A market is in order when one account is answered for it.
    """
    if not gateways:
        return []
    try:
        async with store_of(config) as store, asyncio.timeout(_LONGEST):
            samples = _samples([*_configured(config), *await _live(store.watchlist)])
            accounts = {gateway.account: gateway for gateway in gateways}
            asked = [
                _ask(config, store.ledger, g, code) for g in accounts.values() for code in samples
            ]
            found = await asyncio.gather(*asked)
    except TimeoutError:
        return [("short interest", "failed", _LATE)]
    except PollerError as problem:  # which has a row of its own
        return [("short interest", "not tried", f"nothing may be spent: {problem}")]
    return list(_judged(found))


def _judged(found: Iterable[tuple[str, Market, str, str]]) -> Iterator[Finding]:
    """Yield a row for each; what one account cannot see is no failure where another one can."""
    rows = list(found)
    served = {market for _, market, state, _ in rows if state in {"ok", "refused"}}
    for account, market, state, text in rows:
        told = "no right" if state == "failed" and market in served else state
        yield f"{market} of account {account}", told, text


async def _ask(
    config: Config, ledger: Ledger, gateway: OpenD, code: Code
) -> tuple[str, Market, str, str]:
    table = config.budget
    owner = f"check-{secrets.token_hex(4)}"
    budget = Budget(
        ledger,
        gateway.account,
        owner,
        requests=table.requests,
        period=table.period,
        logins=logins_of([gateway], gateway.account),
    )
    market = market_of(code)
    try:
        page = await fetch(gateway, budget, await budget.acquire(), code, None)
    except TooFrequent as problem:
        state, text = "failed", f"another program spends requests of this account ({problem})"
    except NoRight as problem:
        state, text = "failed", f"{code}: {problem}; give the account the quote card for {market}"
    except Refused as problem:  # an answer all the same: the market can be asked for
        state, text = "refused", f"{code}: {problem}"
    except PollerError as problem:
        state, text = "failed", f"{code}: {problem}"
    else:
        newest = f"newest day {page.records[0].day}" if page.records else "no rows"
        state, text = "ok", f"{code}: {newest}"
    return gateway.account, market, state, text


def _configured(config: Config) -> Iterator[Code]:
    yield from config.watchlist.codes
    for path in config.watchlist.files:
        yield from read_codes(path)[0]


async def _live(watchlist: LiveWatchlist) -> Iterator[Code]:
    marks = (await watchlist.watched()).marks
    return (code for code, is_watched in marks.items() if is_watched)


def _samples(codes: Iterable[Code]) -> list[Code]:
    """Return the first code of each market that has one."""
    watched = unique(codes)
    first = (next((c for c in watched if market_of(c) is m), None) for m in all_markets())
    return [code for code in first if code is not None]
