"""The port of the status store: what the service publishes in Redis for the status page.

It is apart from the store: nothing here decides what is published, so a lost write only costs a
stale page. `store.redis_status` implements it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from poller.model import Code
from poller.telemetry.status import Polls, ProcessReport


@dataclass(frozen=True, slots=True)
class StatusKeys:
    """The keys of the status store, in the namespace's hash slot."""

    namespace: str

    @property
    def status(self) -> str:
        """Hash: process (`host-pid`) → JSON of its report."""
        return f"{{{self.namespace}}}:status"

    @property
    def polls(self) -> str:
        """Hash: code → JSON of its last polls and the next one."""
        return f"{{{self.namespace}}}:polls"

    @property
    def symbols(self) -> str:
        """String: JSON list of the watched codes, in the order of their sources."""
        return f"{{{self.namespace}}}:symbols"


class StatusStore(Protocol):
    """What the page needs besides the store. Every call may raise StoreDown or StoreMisfit."""

    async def reports(self) -> dict[str, ProcessReport]:
        """Return the last report of every process; unreadable ones are left out."""

    async def report(self, process: str, report: ProcessReport) -> None:
        """Replace the report of a process, and now and then remove those of dead processes."""

    async def retire(self, process: str) -> None:
        """Remove the report of a process that is ending."""

    async def symbols(self) -> tuple[Code, ...] | None:
        """Return the watched codes, or None when no process has saved them."""

    async def save_symbols(self, codes: Sequence[Code]) -> None:
        """Replace the watched codes, and signal it."""

    async def polls(self, codes: Sequence[Code]) -> dict[Code, Polls]:
        """Return the last polls of these codes; codes without polls are left out."""

    async def save_polls(self, polls: Mapping[Code, Polls]) -> None:
        """Replace the last polls of these codes."""

    async def histories(self, codes: Sequence[Code]) -> list[Mapping[str, str]]:
        """Return the raw history hash of each code, in order: day → JSON."""

    async def vintages(self, code: Code, names: Sequence[str]) -> list[str | None]:
        """Return the raw JSON of these vintages (`day:revision`), each None if absent."""

    async def lease(self) -> str:
        """Return `token:owner` of the active poller, or "" if the key holds no such text."""

    async def simulated(self) -> bool:
        """Return whether the stream holds a simulation's events."""

    async def stream_length(self) -> int:
        """Return the number of entries in the stream."""
