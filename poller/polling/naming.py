"""Puts the names of symbols into the events that are committed. They decide nothing before that."""

from collections.abc import Callable
from datetime import date

from poller.detect.compare import Comparison
from poller.model import Code
from poller.store.ports import PollerRecords, PollerStore, Records
from poller.store.store import Lease, Snapshot, Unparsed

NameOf = Callable[[Code], str | None]
"""Returns a symbol's name; None if it is not known."""


class NamedRecords(Records):
    """Records whose events get their symbol's name on their way to the stream."""

    def __init__(self, records: Records, name_of: NameOf) -> None:
        self.keys = records.keys
        self._records = records
        self._name_of = name_of

    async def snapshot(self, code: Code) -> Snapshot:
        """See `Records.snapshot`."""
        return await self._records.snapshot(code)

    async def commit(
        self, code: Code, comparison: Comparison, snapshot: Snapshot, lease: Lease
    ) -> None:
        """See `Records.commit`."""
        named = comparison.named(self._name_of(code))
        await self._records.commit(code, named, snapshot, lease)


class _NamedPollerRecords(NamedRecords, PollerRecords):
    def __init__(self, records: PollerRecords, name_of: NameOf) -> None:
        super().__init__(records, name_of)
        self._all = records

    async def watermarks(self) -> dict[Code, date]:
        return await self._all.watermarks()

    async def unparsed(self, code: Code) -> Unparsed:
        return await self._all.unparsed(code)


class NamedStore:
    """The poller's store, with names in its events."""

    def __init__(self, store: PollerStore, name_of: NameOf) -> None:
        self.records: PollerRecords = _NamedPollerRecords(store.records, name_of)
        self.plans = store.plans
