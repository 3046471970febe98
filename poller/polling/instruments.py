"""Reads names and numbers of shares of the watched symbols from OpenD, once a day, and caches them.

They decide nothing that is published. So whatever goes wrong here is told once and rests, ever
longer; it costs names and nothing else. Each of the two calls has a task, a budget and rests of its
own, because only one of them needs a right to quotes.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from poller.clock import wait_set
from poller.errors import (
    Disconnected,
    GatewayError,
    Refused,
    StoreDown,
    StoreMisfit,
    TooFrequent,
)
from poller.gateway.opend import Gateway, any_ready
from poller.gateway.securities import (
    NAME_PERIOD,
    NAME_REQUESTS,
    NAMES_TOGETHER,
    SHARE_PERIOD,
    SHARE_REQUESTS,
    SHARES_TOGETHER,
    ShareCounts,
)
from poller.markets import Market, all_markets
from poller.model import Code, Instrument, market_of
from poller.polling.budget import Budget
from poller.polling.request import spend
from poller.store.ports import Instruments
from poller.telemetry.observe import Observe, Recovered, Trouble

EVERY: Final = timedelta(days=1)
"""How long an answer counts, also one that had nothing to say of a symbol."""

FIRST_PAUSE: Final = timedelta(minutes=1)
"""Pause after a request of an account without a usable answer; doubled each time it happens."""

LONGEST_PAUSE: Final = timedelta(days=1)

MOST_REFUSED: Final = 16
"""Refusals in a row after which they are taken for the account's and not for a symbol's.

To find one unknown code among `SHARES_TOGETHER` takes ten.
"""

LOOK: Final = 60.0
"""Seconds between two looks at what is due; new symbols are looked at when they come."""

_PAUSE: Final = 10.0
"""Seconds to the next look when Redis is away, or the connection to OpenD was lost."""

_GROWTH: Final = 4
"""Factor by which requests grow again after a code was found that is refused."""

_NOTHING: Final = Instrument()


class SecuritiesGateway(Gateway, Protocol):
    """One OpenD, seen from here."""

    async def names(self, codes: Sequence[Code]) -> Mapping[Code, str]:
        """Return the names of symbols of one market that have one; raises GatewayError."""

    async def share_counts(self, codes: Sequence[Code]) -> Mapping[Code, ShareCounts]:
        """Return how many shares there are, in the same way; this needs a right to quotes."""


@dataclass(frozen=True, slots=True)
class Call:
    """One of the two calls.

    Attributes:
        what: What it brings, in words; also the name of its task.
        ledger: Follows the account's name in the name of its budget.
        requests: Its limit: so many in any `period` seconds.
        together: Most symbols of one request.
        needs_right: Whether it needs the right to a market's quotes.
        ask: Asks a gateway for symbols of one market.
        read_at: Returns when a symbol was asked for last.
        told: Returns what is known after an answer; None: it did not tell of the symbol.
    """

    what: str
    ledger: str
    requests: int
    period: float
    together: int
    needs_right: bool
    ask: Callable[[SecuritiesGateway, Sequence[Code]], Awaitable[Mapping[Code, Any]]]
    read_at: Callable[[Instrument], datetime | None]
    told: Callable[[Instrument, Any, datetime], Instrument]


def _named(known: Instrument, name: str | None, now: datetime) -> Instrument:
    return replace(known, name=name or known.name, named_at=now)  # a name once known stays


def _counted(known: Instrument, counts: ShareCounts | None, now: datetime) -> Instrument:
    issued, outstanding = counts or (None, None)
    return replace(known, issued_shares=issued, outstanding_shares=outstanding, counted_at=now)


NAME_CALL: Final = Call(
    "names",
    "names",
    NAME_REQUESTS,
    NAME_PERIOD,
    NAMES_TOGETHER,
    needs_right=False,
    ask=lambda gateway, codes: gateway.names(codes),
    read_at=lambda known: known.named_at,
    told=_named,
)
SHARE_CALL: Final = Call(
    "share counts",
    "snapshots",
    SHARE_REQUESTS,
    SHARE_PERIOD,
    SHARES_TOGETHER,
    needs_right=True,
    ask=lambda gateway, codes: gateway.share_counts(codes),
    read_at=lambda known: known.counted_at,
    told=_counted,
)
CALLS: Final = (NAME_CALL, SHARE_CALL)


class Directory:
    """What is known of the watched symbols besides their short interest.

    Attributes:
        changed: Set, and replaced by a new event, whenever other symbols are watched.
    """

    def __init__(self, cache: Instruments, now: Callable[[], datetime]) -> None:
        self.changed = asyncio.Event()
        self._cache = cache
        self._now = now
        self._codes: tuple[Code, ...] = ()
        self._known: dict[Code, Instrument] = {}
        self._unsaved: set[Code] = set()
        self._caching = asyncio.Lock()  # both readers share it, and each writes whole entries

    def watch(self, codes: Sequence[Code]) -> None:
        """Keep what is known of exactly these symbols up to date from now on."""
        self._codes = tuple(codes)
        for code in self._known.keys() - set(codes):
            del self._known[code]
        self.changed.set()
        self.changed = asyncio.Event()

    def known_of(self, code: Code) -> Instrument:
        """Return what is known of a symbol so far."""
        return self._known.get(code, _NOTHING)

    async def load(self) -> None:
        """Read the cache of symbols not read before.

        Raises StoreMisfit once if it cannot be read, and then goes on as if it held nothing.
        """
        async with self._caching:
            if not (new := [code for code in self._codes if code not in self._known]):
                return
            try:
                found = await self._cache.instruments(new)
            except StoreMisfit:
                self._known |= dict.fromkeys(new, _NOTHING)
                raise
            self._known |= {code: found.get(code, _NOTHING) for code in new}

    def due(self, call: Call, market: Market, most: int) -> list[Code]:
        """Return symbols of a market to ask for, at most so many: the newest on the list first."""
        now = self._now()
        never, old = list[Code](), list[Code]()
        for code in reversed(self._codes):
            if market_of(code) is market and (known := self._known.get(code)) is not None:
                read_at = call.read_at(known)
                if read_at is None:
                    never.append(code)
                elif not now - EVERY < read_at <= now:  # later: the clock was set back
                    old.append(code)
        return [*never, *old][:most]

    def note(self, call: Call, codes: Iterable[Code], answer: Mapping[Code, Any]) -> None:
        """Take an answer; it counts at once, also if it cannot be saved."""
        now = self._now()
        for code in codes:
            if (known := self._known.get(code)) is not None:  # else it is no longer watched
                self._known[code] = call.told(known, answer.get(code), now)
                self._unsaved.add(code)

    async def save(self) -> bool:
        """Save what has not been saved yet, and return whether there was any; raises StoreError."""
        async with self._caching:
            taken, self._unsaved = self._unsaved, set()
            found = {code: self._known[code] for code in taken if code in self._known}
            if not found:
                return False
            try:
                await self._cache.save_instruments(found)
            except BaseException:
                self._unsaved |= taken
                raise
        return True


@dataclass(slots=True)
class _Rest:
    """An account is not asked for a market until then, in seconds of the loop's clock."""

    until: float
    pause: timedelta


@dataclass(slots=True)
class _Market:
    """What a call has seen of a market.

    Attributes:
        most: Symbols of a request; few after a code was found that is refused, as there may be
            others, and then more and more again.
        suspects: So many of the next symbols hold a code that is refused; 0: not that is known.
        refused: Refusals in a row.
        rests: By account.
    """

    most: int
    suspects: int = 0
    refused: int = 0
    rests: dict[str, _Rest] = field(default_factory=dict)

    @property
    def together(self) -> int:
        """How many symbols the next request has: half of the suspects."""
        return max(self.suspects // 2, 1) if self.suspects else self.most

    def answered(self, count: int, most: int) -> None:
        """Take an answer about so many symbols; `most`: as many as a request may have."""
        self.refused, self.suspects = 0, max(self.suspects - count, 0)
        if not self.suspects:
            self.most = min(_GROWTH * self.most, most)

    def refuse(self, count: int) -> None:
        """Take a refusal of so many symbols."""
        self.refused += 1
        self.suspects = count
        if count == 1:  # it is found
            self.suspects, self.most = 0, _GROWTH


class Reader:
    """Keeps what one call brings up to date."""

    def __init__(
        self,
        call: Call,
        directory: Directory,
        gateways: Sequence[SecuritiesGateway],
        budgets: Mapping[str, Budget],
        withheld: Callable[[str, Code], bool],
        observe: Observe,
    ) -> None:
        """`budgets`: by account. `withheld`: whether an account has no right to a symbol's quotes.

        The account is not asked then, if the call needs that right.
        """
        self.call = call
        self._directory = directory
        self._gateways = gateways
        self._budgets = budgets
        self._withheld = withheld
        self._observe = observe
        self._markets = self._unseen()

    async def run(self) -> None:
        """Read what is due, for ever."""
        self._markets = self._unseen()
        budget = f"budget of {self.call.what}"
        while True:
            changed, pause = self._directory.changed, LOOK
            await any_ready(self._gateways)
            try:
                while await self._turn():
                    pass
            except (StoreDown, Disconnected):
                pause = _PAUSE  # the poller, or the gateway, reports it
            except StoreMisfit as problem:
                self._observe(Trouble(budget, str(problem)))
            else:
                self._observe(Recovered(budget))
            await wait_set(changed, pause)

    async def _turn(self) -> bool:
        """Send one request for each market, and save the answers; return whether to go on."""
        cache = f"cache of {self.call.what}"
        try:
            await self._directory.load()
            if await self._directory.save():
                self._observe(Recovered(cache))
        except StoreMisfit as problem:  # names are read and used all the same
            self._observe(Trouble(cache, str(problem)))
        return any([await self._read_some(market) for market in all_markets()])

    def rights_told(self, account: str) -> None:
        """Take the hint that the rights of an account have changed: ask it again at once."""
        for seen in self._markets.values():
            if account in seen.rests:
                seen.rests[account] = _Rest(float("-inf"), FIRST_PAUSE)

    def _unseen(self) -> defaultdict[Market, _Market]:
        return defaultdict(lambda: _Market(self.call.together))

    async def _read_some(self, market: Market) -> bool:
        """Send one request for symbols that are due; return whether to go on with this market."""
        seen = self._markets[market]
        codes = self._directory.due(self.call, market, seen.together)
        gateway = self._gateway_for(codes)
        if gateway is None:
            return False
        try:
            answer = await self._ask(gateway, codes)
        except Disconnected:
            raise
        except Refused as problem:
            seen.refuse(len(codes))
            if seen.refused >= MOST_REFUSED:
                self._rest(gateway.account, market, problem)
            elif len(codes) == 1:
                self._directory.note(self.call, codes, {})
            return True
        except GatewayError as problem:
            self._rest(gateway.account, market, problem)
            return True
        seen.answered(len(codes), self.call.together)
        seen.rests.pop(gateway.account, None)
        self._observe(Recovered(self._subject(gateway.account, market)))
        self._directory.note(self.call, codes, answer)
        return True

    def _gateway_for(self, codes: Sequence[Code]) -> SecuritiesGateway | None:
        """Return a gateway that may be asked for these symbols now; None: there is none."""
        if not codes:
            return None
        now, rests = asyncio.get_running_loop().time(), self._markets[market_of(codes[0])].rests
        for gateway in self._gateways:
            rest = rests.get(gateway.account)
            is_withheld = self.call.needs_right and self._withheld(gateway.account, codes[0])
            if gateway.ready and not is_withheld and (rest is None or rest.until <= now):
                return gateway
        return None

    async def _ask(self, gateway: SecuritiesGateway, codes: Sequence[Code]) -> Mapping[Code, Any]:
        budget = self._budgets[gateway.account]
        try:
            return await spend(
                budget, await budget.acquire(), lambda: self.call.ask(gateway, codes)
            )
        except TooFrequent:
            await budget.exhaust()
            raise

    def _rest(self, account: str, market: Market, problem: GatewayError) -> None:
        """Do not ask an account for a market for a while, longer each time; tell it once."""
        seen = self._markets[market]
        before = seen.rests.get(account)
        pause = FIRST_PAUSE if before is None else min(2 * before.pause, LONGEST_PAUSE)
        until = asyncio.get_running_loop().time() + pause.total_seconds()
        seen.rests[account] = _Rest(until, pause)
        seen.refused = seen.suspects = 0
        if before is None:
            text = f"{problem}; everything else goes on; asked again ever more rarely"
            self._observe(Trouble(self._subject(account, market), text))

    def _subject(self, account: str, market: Market) -> str:
        return f"{self.call.what} of {market}, account {account}"
