"""The ports of the store: one for each user, with only the methods that it calls.

`redisstore` implements all of them on a Redis-compatible server, `memory` those of the poller. One
suite runs against both. Every call may raise StoreDown or StoreMisfit.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Protocol

from poller.detect.compare import Comparison
from poller.model import Code, Instrument, Vintage
from poller.schedule.notice import Notice
from poller.store.retention import Group
from poller.store.store import Entry, Keys, Lease, LiveList, News, Snapshot, Stream, Unparsed


class Records(Protocol):
    """What is known of each symbol: read, compared with an answer, committed."""

    keys: Keys

    async def snapshot(self, code: Code) -> Snapshot:
        """Read what is known of a symbol."""

    async def commit(
        self, code: Code, comparison: Comparison, snapshot: Snapshot, lease: Lease
    ) -> None:
        """Append the entries, write history and held days, move the watermark: all or nothing.

        Raises Superseded when the watermark or a day to write differs from `snapshot`, or an event
        id is already used (ask the gateway again, compare again), and LeaseLost when `lease` is no
        longer held. Repeating a commit whose answer was lost is safe: it is superseded.
        """


class Watermarks(Protocol):
    """The watermark of each symbol."""

    async def watermarks(self) -> dict[Code, date]:
        """Return the last reported trading day of every symbol that has one."""


class PollerRecords(Records, Watermarks, Protocol):
    """Records and watermarks, for the poller."""

    async def unparsed(self, code: Code) -> Unparsed:
        """Read what is known of a symbol, as `snapshot` does, but do not parse it yet."""


class Vintages(Protocol):
    """The stored vintages, to rebuild events from."""

    async def history_codes(self) -> list[Code]:
        """Return the symbols with a stored vintage, sorted."""

    async def vintages(self, code: Code) -> list[Vintage]:
        """Return every stored vintage of a symbol, oldest day and revision first."""


class Plans(Protocol):
    """The plan of each market, restored after a restart, and the notices it announces."""

    keys: Keys

    async def announce(self, notice: Notice, lease: Lease) -> Notice | None:
        """Append a notice to the stream of releases, once.

        Returns it as it was appended, or None when one with its id was appended before, by any
        process; so repeating it is safe. Raises LeaseLost when `lease` is no longer held.
        """

    async def schedule(self) -> dict[str, str]:
        """Return what `save_schedule` saved last: name → text."""

    async def save_schedule(self, texts: Mapping[str, str], lease: Lease) -> None:
        """Save these texts; other names keep theirs.

        Raises LeaseLost when `lease` is no longer held.
        """


class PollerStore(Protocol):
    """What the poller needs of the store."""

    @property
    def records(self) -> PollerRecords:
        """What is known of each symbol."""

    @property
    def plans(self) -> Plans:
        """What is known of each market."""


class Leases(Protocol):
    """The right to poll, which one process holds at a time."""

    async def acquire(self, owner: str, ttl: float) -> Lease | None:
        """Take the lease for `ttl` seconds; None while another process holds it.

        That process holds it for at most `ttl` seconds more, however the server's clock stepped.
        """

    async def renew(self, lease: Lease, ttl: float) -> bool:
        """Extend the lease to `ttl` seconds from now; False when it is no longer ours."""

    async def release(self, lease: Lease) -> None:
        """Release the lease; nothing happens when it is no longer ours."""


class Ledger(Protocol):
    """The requests that each account has spent, on the server's clock."""

    async def grant(
        self,
        account: str,
        request: str,
        *,
        limit: int,
        period: float,
        margin: float,
        logins: Sequence[str] = (),
    ) -> float:
        """Spend one request of `account`; returns 0 when granted, else how many seconds to wait.

        It is counted against each of `logins` too, the users whom the account's gateways are
        logged in as: OpenD counts by user, and two accounts may have the same.

        At most `limit` are granted in any `period` seconds on the server's clock, over all
        processes and namespaces of a server; only a simulation has a budget of its own.
        Until it is settled, a request counts as sent `margin` seconds after it was granted.
        Asking again with the same `request` name does not spend twice.
        """

    async def settle(
        self,
        account: str,
        request: str,
        *,
        period: float,
        margin: float,
        logins: Sequence[str] = (),
    ) -> None:
        """Record a granted request as sent `margin` seconds from now; 0 once it is answered."""

    async def exhaust(
        self, account: str, *, limit: int, period: float, logins: Sequence[str] = ()
    ) -> None:
        """Mark the whole budget as spent now: another client has used it up."""


class Spent(Protocol):
    """How much of each budget is spent, for display."""

    async def spent(self, account: str, *, period: float) -> int:
        """Return the number of requests in the last `period` seconds."""


class LiveWatchlist(Protocol):
    """What operators have added to the watchlist, or removed from it, while the service runs."""

    async def watched(self) -> LiveList:
        """Return the live watchlist; fields that are not ours are reported, not raised."""

    async def version(self) -> int:
        """Return a number that changes with every change of the live watchlist."""


class Instruments(Protocol):
    """What OpenD said of symbols besides their short interest: a cache, read by every process."""

    async def instruments(self, codes: Sequence[Code]) -> dict[Code, Instrument]:
        """Return what is known of these symbols; an entry that cannot be read is left out."""

    async def save_instruments(self, found: Mapping[Code, Instrument]) -> None:
        """Replace what is known of these symbols, and signal NAMES."""


class Streams(Protocol):
    """The entries of a stream."""

    async def read(
        self, after: str, *, count: int, block: float | None, stream: Stream = Stream.EVENTS
    ) -> list[Entry]:
        """Return up to `count` entries after an id; wait up to `block` seconds for the first one.

        With `block=None` it does not wait.
        """

    async def last_entries(self, count: int, stream: Stream = Stream.EVENTS) -> list[Entry]:
        """Return the newest `count` entries, oldest first."""


class Signals(Protocol):
    """Wakes waiting tasks, in every process."""

    async def news(self, position: Mapping[str, str] | None, *, block: float) -> News:
        """Return what has grown since `position`; wait up to `block` seconds for the first growth.

        With None it returns the current position at once; anything may have happened before.
        """


class Trimming(Protocol):
    """Trims a stream, and shows what its consumer groups still need."""

    async def groups(self, stream: Stream) -> list[Group]:
        """Return the consumer groups, each with its oldest unread entry."""

    async def trim(self, before: str, stream: Stream) -> int:
        """Remove the entries with a smaller id; returns their number."""
