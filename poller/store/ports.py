"""What each user asks of the store: a port a user, with the methods that it calls.

`redisstore` puts them together for a Redis-compatible server; `memory` has those of the poller. One
suite runs against all of them. Every call may raise StoreDown or StoreMisfit.
"""

from collections.abc import Mapping
from datetime import date
from typing import Protocol

from poller.detect.compare import Comparison
from poller.model import Code, Vintage
from poller.schedule.notice import Notice
from poller.store.retention import Group
from poller.store.store import Entry, Keys, Lease, LiveList, News, Snapshot, Stream, Unparsed


class Records(Protocol):
    """What is known of each symbol, read and committed by whoever compares it with an answer."""

    keys: Keys

    async def snapshot(self, code: Code) -> Snapshot:
        """Read what is known of a symbol."""

    async def commit(
        self, code: Code, comparison: Comparison, snapshot: Snapshot, lease: Lease
    ) -> None:
        """Append the entries, write history and held days, move the watermark: all or nothing.

        Raises Superseded when watermark, a written day or a used event id is not what `snapshot`
        saw (ask the gateway again, compare again) and LeaseLost when `lease` is no longer held.
        Repeating a commit whose answer was lost is safe: it is refused as superseded.
        """


class Watermarks(Protocol):
    """How far each symbol is."""

    async def watermarks(self) -> dict[Code, date]:
        """Return the last reported trading day of every symbol that has one."""


class PollerRecords(Records, Watermarks, Protocol):
    """Both, for the poller, which reads the same again and again."""

    async def unparsed(self, code: Code) -> Unparsed:
        """Read what is known of a symbol, as `snapshot` does, and leave the parsing for later."""


class Vintages(Protocol):
    """The reports on record, for whoever rebuilds events from them."""

    async def history_codes(self) -> list[Code]:
        """Return the symbols of which any vintage is on record, in order."""

    async def vintages(self, code: Code) -> list[Vintage]:
        """Return every vintage on record of a symbol, oldest day and revision first."""


class Plans(Protocol):
    """What the plan of each market goes on from after a restart, and the notices it gives."""

    keys: Keys

    async def announce(self, notice: Notice, lease: Lease) -> bool:
        """Append a notice to the stream of releases, once.

        False when one with its id was appended before, by whomever; so repeating it is safe.
        Raises LeaseLost when `lease` is no longer held.
        """

    async def schedule(self) -> dict[str, str]:
        """Return what `save_schedule` was last given: name → text."""

    async def save_schedule(self, texts: Mapping[str, str], lease: Lease) -> None:
        """Keep these texts; names not given stay as they are.

        Raises LeaseLost when `lease` is no longer held.
        """


class PollerStore(Protocol):
    """What the poller works on."""

    @property
    def records(self) -> PollerRecords:
        """What is known of each symbol."""

    @property
    def plans(self) -> Plans:
        """What is known of each market."""


class Leases(Protocol):
    """The right to poll, which one process holds at a time."""

    async def acquire(self, owner: str, ttl: float) -> Lease | None:
        """Take the lease for `ttl` seconds, or None while another holds it.

        Whoever holds it keeps it for `ttl` more at the most, however the server's clock stepped.
        """

    async def renew(self, lease: Lease, ttl: float) -> bool:
        """Prolong the lease; False when it is no longer ours."""

    async def release(self, lease: Lease) -> None:
        """Give the lease back; nothing happens when it is no longer ours."""


class Ledger(Protocol):
    """The requests that each account has spent, on the server's clock."""

    async def grant(
        self, account: str, request: str, *, limit: int, period: float, margin: float
    ) -> float:
        """Spend one request of `account`; 0 when granted, else the seconds to wait before asking.

        Never more than `limit` in any `period` seconds on the server's clock, over all processes
        and namespaces of a server; only a simulation has a budget of its own.
        Until it is settled, a request counts as sent `margin` seconds after it was granted.
        Asking again with the same `request` name does not spend twice.
        """

    async def settle(self, account: str, request: str, *, period: float, margin: float) -> None:
        """Move a granted request to `margin` from now; 0 when its answer came."""

    async def exhaust(self, account: str, *, limit: int, period: float) -> None:
        """Leave nothing to spend for a full period: somebody else has spent it."""


class Spent(Protocol):
    """How much of the budgets is spent, for whoever shows it."""

    async def spent(self, account: str, *, period: float) -> int:
        """Return how many requests the last `period` seconds hold."""


class LiveWatchlist(Protocol):
    """What operators have put on the watchlist, or taken off it, while the service runs."""

    async def watched(self) -> LiveList:
        """Return the live watchlist, whatever somebody else put into it."""

    async def version(self) -> int:
        """Return a number that changes with every change of the live watchlist."""


class Streams(Protocol):
    """The entries of a stream, for whoever reads it."""

    async def read(
        self, after: str, *, count: int, block: float | None, stream: Stream = Stream.EVENTS
    ) -> list[Entry]:
        """Return up to `count` entries after an id; wait up to `block` seconds for the first."""

    async def last_entries(self, count: int, stream: Stream = Stream.EVENTS) -> list[Entry]:
        """Return the newest `count` entries, oldest first."""


class Signals(Protocol):
    """What wakes those who wait, in whichever process they do."""

    async def news(self, position: Mapping[str, str] | None, *, block: float) -> News:
        """Return what has grown since `position`; wait up to `block` seconds for the first.

        None: return at once where the streams stand; anything may have happened before.
        """


class Trimming(Protocol):
    """What decides how much of a stream may be forgotten, and forgets it."""

    async def groups(self, stream: Stream) -> list[Group]:
        """Return the consumer groups and what each has yet to read."""

    async def trim(self, before: str, stream: Stream) -> int:
        """Remove the entries with a smaller id; returns how many there were."""
