"""What is kept in Redis: the key layout, and the values that the ports read and write.

All keys of a namespace share one hash slot, so a poll commits atomically on a Cluster too.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Final

from poller.detect.compare import Known
from poller.model import Code, Vintage


class Stream(StrEnum):
    """What can be followed: the events of symbols, or the notices of whole releases."""

    EVENTS = "events"
    RELEASES = "releases"


LEDGER: Final = "short-interest"
"""The namespace that holds the budgets of the accounts, for the users of all namespaces."""

WATCHLIST: Final = "watchlist"
"""The subject of a signal that the live watchlist has changed."""

SYMBOLS: Final = "symbols"
"""The subject of a signal that the active poller watches other symbols."""

SIGNALS_KEPT: Final = 100
"""Signals kept in Redis, at the least. A reader that missed more takes it that all were given."""


def signal_of_webhook(name: str) -> str:
    """Return the subject of a signal that an endpoint has something to do."""
    return f"webhook:{name}"


@dataclass(frozen=True, slots=True)
class Key:
    """A key of each namespace: the type it is kept as, and its name behind the namespace."""

    kind: str
    name: str

    def __get__(self, keys: "Keys", owner: type["Keys"]) -> str:
        """Return it in full."""
        return f"{{{keys.namespace}}}:{self.name}"


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of everything kept in Redis."""

    namespace: str

    quarantine = Key("stream", "quarantine")
    """Figures that were held, one entry each."""

    releases = Key("stream", "releases")
    """Which reports are out, and which are complete."""

    releases_told = Key("hash", "releases:told")
    """Id of each notice ever told → when that was observed."""

    watermark = Key("hash", "watermark")
    """Code → last reported trading day."""

    simulated = Key("string", "simulated")
    """`OPEND` or `SIMULATED`, what may be published; absent before the first is."""

    lease = Key("string", "lease")
    """With a time to live: `fencing token:owner` of the active poller."""

    fence = Key("string", "fence")
    """Counter: the fencing tokens given out."""

    watch = Key("hash", "watch")
    """Code → `1` watched or `0` not watched, whatever the configuration says."""

    watch_version = Key("string", "watch:version")
    """Counter: the changes to the live watchlist."""

    signals = Key("stream", "signals")
    """What changed in Redis that a process may wait for, by its subject."""

    schedule = Key("hash", "schedule")
    """Market → JSON of what its plan remembers over a restart."""

    play = Key("hash", "simulated:play")
    """When a simulation began, was last played, and how many seconds it paused."""

    @property
    def stream(self) -> str:
        """Stream: the events."""
        return self.namespace

    def stream_of(self, stream: Stream) -> str:
        """Return the key of a stream that can be followed."""
        return self.stream if stream is Stream.EVENTS else self.releases

    @property
    def replicated(self) -> str:
        """String: written to see whether the replicas follow; only with `redis.replicas`."""
        return f"{{{self.namespace}}}:replicated"

    def reader(self, group: str) -> str:
        """String with a time to live: the active reader of a group of `subscribe`."""
        return f"{{{self.namespace}}}:reader:{group}"

    def subscriber(self, group: str) -> str:
        """Hash: the last id that a group of `subscribe` has acknowledged, and when that was."""
        return f"{{{self.namespace}}}:subscriber:{group}"

    def history(self, code: Code) -> str:
        """Hash: trading day → JSON of that day as last reported."""
        return f"{{{self.namespace}}}:history:{code}"

    def vintages(self, code: Code) -> str:
        """Hash: `trading day:revision` → JSON of that day as it was reported then."""
        return f"{{{self.namespace}}}:vintages:{code}"

    def held(self, code: Code) -> str:
        """Hash: trading day → JSON of the figure held for that day, and the operator's decision."""
        return f"{{{self.namespace}}}:held:{code}"

    def budget(self, account: str) -> str:
        """Sorted set: request → microseconds since 1970 on the server's clock.

        One for all namespaces: OpenD counts by account. It stands where the default one has it.
        """
        return f"{{{LEDGER}}}:budget:{account}"

    def own_budget(self, account: str) -> str:
        """Sorted set: the same, of a simulation; an earlier version kept every one of them here."""
        return f"{{{self.namespace}}}:budget:{account}"


TYPES: Final = {"stream": "stream"} | {
    name: key.kind for name, key in vars(Keys).items() if isinstance(key, Key)
}
"""Names of `Keys` that take no argument → the type each is kept as."""

OPEND: Final = "0"
SIMULATED: Final = "1"
"""Whose events a stream is for."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to poll. `value` is what stands in the lease key while it is ours."""

    value: str

    @property
    def token(self) -> int:
        """The fencing token: grows with every holder."""
        return int(self.value.partition(":")[0])


ONE_OFF: Final = Lease("")
"""For commands beside the service: they commit by comparison alone, without holding the lease."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read of a symbol, and the raw texts a commit must find unchanged.

    `repairs`: days whose history entry was edited by hand or gone, with the vintage that belongs
    there; `notes` says so in words.
    """

    known: Known
    watermark: str = ""
    history: Mapping[date, str] = field(default_factory=dict)
    held: Mapping[date, str] = field(default_factory=dict)
    repairs: tuple[Vintage, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Write:
    """One day to write into a hash of a symbol.

    Attributes:
        expected: The raw text it replaces, "" for none.
        text: What is written; "" removes a day that is held.
        revision: The vintage to write with it; None for a held day, and where it is on record.
    """

    day: str
    expected: str
    text: str
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry read from the stream: its Redis id (`1715152502123-0`) and its flat fields."""

    id: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LiveList:
    """What operators have said: code → watched or not, whatever the configuration says.

    `foreign`: what else stands there, in a sentence with the command that removes it; empty: none.
    """

    marks: Mapping[Code, bool] = field(default_factory=dict)
    foreign: str = ""


@dataclass(frozen=True, slots=True)
class News:
    """What has grown. `topics`: streams and subjects of signals; None when it may be any.

    `position`: stream's key → the newest id, from where to wait on.
    """

    position: Mapping[str, str]
    topics: AbstractSet[str] | None


def order(entry_id: str) -> tuple[int, int]:
    """Return what sorts an entry's id: milliseconds on the server's clock, and a number."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)
