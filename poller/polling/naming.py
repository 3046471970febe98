"""Puts the names of symbols, and what share of the company is short, into committed events.

They decide nothing before that.
"""

from collections.abc import Callable
from datetime import date

from poller.detect.compare import Comparison
from poller.model import Code, Instrument
from poller.store.ports import Plans, PollerRecords, PollerStore, Records
from poller.store.store import Lease, Snapshot, Unparsed

KnownOf = Callable[[Code], Instrument]
"""Returns what is known of a symbol."""


class NamedRecords(Records):
    """Records whose events get what is known of their symbol on their way to the stream."""

    def __init__(self, records: Records, known_of: KnownOf) -> None:
        self.keys = records.keys
        self._records = records
        self._known_of = known_of

    async def snapshot(self, code: Code) -> Snapshot:
        """See `Records.snapshot`."""
        return await self._records.snapshot(code)

    async def commit(
        self, code: Code, comparison: Comparison, snapshot: Snapshot, lease: Lease
    ) -> None:
        """See `Records.commit`."""
        described = comparison.described(self._known_of(code))
        await self._records.commit(code, described, snapshot, lease)


class _NamedPollerRecords(NamedRecords, PollerRecords):
    def __init__(self, records: PollerRecords, known_of: KnownOf) -> None:
        super().__init__(records, known_of)
        self._all = records

    async def watermarks(self) -> dict[Code, date]:
        return await self._all.watermarks()

    async def unparsed(self, code: Code) -> Unparsed:
        return await self._all.unparsed(code)


class NamedStore:
    """The poller's store, with that in its events. `plans`: instead of the store's own."""

    def __init__(self, store: PollerStore, known_of: KnownOf, plans: Plans) -> None:
        self.records: PollerRecords = _NamedPollerRecords(store.records, known_of)
        self.plans = plans
