"""The board's contract: what the service hangs out in Redis for its page, and what hangs there.

Beside the store: nothing here decides what is published, so a lost write costs a stale page.
`redisboard` performs it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from poller.model import Code
from poller.telemetry.status import Polls, Report


@dataclass(frozen=True, slots=True)
class BoardKeys:
    """The names of what the service tells of itself, in the namespace's hash slot."""

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
        """String: JSON list of the codes being watched, in the order of their sources."""
        return f"{{{self.namespace}}}:symbols"


class StatusStore(Protocol):
    """What a page needs beside the store. Every call may raise StoreDown or StoreMisfit."""

    async def reports(self) -> dict[str, Report]:
        """Return the last report of every process; unreadable ones are left out."""

    async def report(self, process: str, report: Report) -> None:
        """Replace the report of a process, and now and then remove those of the dead."""

    async def retire(self, process: str) -> None:
        """Remove the report of a process that ends."""

    async def symbols(self) -> tuple[Code, ...] | None:
        """Return what is watched, or None when no process has told."""

    async def tell_symbols(self, codes: Sequence[Code]) -> None:
        """Replace what is watched, and signal it."""

    async def polls(self, codes: Sequence[Code]) -> dict[Code, Polls]:
        """Return the last polls of these codes, where there are any."""

    async def tell_polls(self, polls: Mapping[Code, Polls]) -> None:
        """Replace the last polls of these codes."""

    async def histories(self, codes: Sequence[Code]) -> list[Mapping[str, str]]:
        """Return the history hash of each code, in order: day → JSON, as it stands there."""

    async def vintages(self, code: Code, names: Sequence[str]) -> list[str | None]:
        """Return the JSON of these vintages (`day:revision`) as it stands there, or None."""

    async def lease(self) -> str:
        """Return `token:owner` of the active poller, or "" when the key holds nothing like it."""

    async def simulated(self) -> bool:
        """Return whether a simulator made up what the stream holds."""

    async def stream_length(self) -> int:
        """Return how many entries the stream holds."""
