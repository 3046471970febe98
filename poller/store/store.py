"""The key layout in Redis, and the values that the ports read and write.

All keys of a namespace share one hash slot, so that a poll commits atomically on a Cluster, too.
"""

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Final

from poller.detect.compare import Known
from poller.model import Code, Vintage


class Stream(StrEnum):
    """The streams to follow: the events of symbols, or the notices of whole releases."""

    EVENTS = "events"
    RELEASES = "releases"


LEDGER: Final = "short-interest"
"""The namespace that holds the budgets of the accounts, shared by all namespaces."""

WATCHLIST: Final = "watchlist"
"""The subject of a signal that the live watchlist has changed."""

SYMBOLS: Final = "symbols"
"""The subject of a signal that the symbols the active poller watches have changed."""

NAMES: Final = "names"
"""The subject of a signal that names of symbols have become known."""

SIGNALS_KEPT: Final = 100
"""Least number of signals kept in Redis. A reader that missed more assumes that all were sent."""


def signal_of_webhook(name: str) -> str:
    """Return the subject of a signal that an endpoint has something to do."""
    return f"webhook:{name}"


@dataclass(frozen=True, slots=True)
class Key:
    """A key of each namespace: its type in Redis, and its name after the namespace."""

    kind: str
    name: str

    def __get__(self, keys: "Keys", owner: type["Keys"]) -> str:
        """Return the full key."""
        return f"{{{keys.namespace}}}:{self.name}"


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of everything kept in Redis."""

    namespace: str

    quarantine = Key("stream", "quarantine")
    """Quarantined figures, one entry each."""

    releases = Key("stream", "releases")
    """Notices that a release was detected or is complete."""

    releases_told = Key("hash", "releases:told")
    """Id of each notice ever announced → when it was observed."""

    watermark = Key("hash", "watermark")
    """Code → last reported trading day."""

    simulated = Key("string", "simulated")
    """`OPEND` or `SIMULATED`: whose events may be published; absent before the first one."""

    lease = Key("string", "lease")
    """With a time to live: `fencing token:owner` of the active poller."""

    fence = Key("string", "fence")
    """Counter: the last fencing token issued."""

    watch = Key("hash", "watch")
    """Code → `1` watched or `0` not watched, whatever the configuration says."""

    watch_version = Key("string", "watch:version")
    """Counter: the changes to the live watchlist."""

    signals = Key("stream", "signals")
    """The subjects of changes that a process may wait for."""

    schedule = Key("hash", "schedule")
    """Market → JSON of its plan, restored after a restart."""

    instruments = Key("hash", "instruments")
    """Code → JSON of its name and its numbers of shares."""

    play = Key("hash", "simulated:play")
    """When a simulation began and was last played, and how many seconds it was paused."""

    @property
    def stream(self) -> str:
        """Stream: the events."""
        return self.namespace

    def stream_of(self, stream: Stream) -> str:
        """Return the key of a stream that can be followed."""
        return self.stream if stream is Stream.EVENTS else self.releases

    @property
    def replicated(self) -> str:
        """String: written to check that the replicas follow; only with `redis.replicas`."""
        return f"{{{self.namespace}}}:replicated"

    def reader(self, group: str) -> str:
        """String with a time to live: the active reader of a group of `subscribe`."""
        return f"{{{self.namespace}}}:reader:{group}"

    def subscriber(self, group: str) -> str:
        """Hash: the last id that a group of `subscribe` acknowledged, and when."""
        return f"{{{self.namespace}}}:subscriber:{group}"

    def sharers(self, group: str) -> str:
        """Sorted set: the readers that share a group of `subscribe`, by when they count as dead."""
        return f"{{{self.namespace}}}:sharers:{group}"

    def shared(self, group: str) -> str:
        """Hash: symbol → which of them has entries of it that it did not acknowledge."""
        return f"{{{self.namespace}}}:shared:{group}"

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

        Shared by all namespaces, because OpenD counts by account.
        """
        return f"{{{LEDGER}}}:budget:{account}"

    def own_budget(self, account: str) -> str:
        """Sorted set: the budget of a simulation; earlier versions kept every budget here."""
        return f"{{{self.namespace}}}:budget:{account}"

    def login(self, user: str) -> str:
        """Sorted set: like `budget`, of all accounts that are logged in as one user."""
        return f"{self.budget('login')}:{user}"

    def own_login(self, user: str) -> str:
        """Sorted set: the same of a simulation."""
        return f"{self.own_budget('login')}:{user}"


TYPES: Final = {"stream": "stream"} | {
    name: key.kind for name, key in vars(Keys).items() if isinstance(key, Key)
}
"""Names of `Keys` that take no argument → the type each is kept as."""

OPEND: Final = "0"
SIMULATED: Final = "1"
"""Values of the `simulated` key: whose events the stream holds."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to poll. `value`: the content of the lease key while we hold it."""

    value: str

    @property
    def token(self) -> int:
        """The fencing token, which grows with every new holder."""
        return int(self.value.partition(":")[0])


ONE_OFF: Final = Lease("")
"""For commands: they commit by comparison alone, without holding the lease."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read of a symbol, and the raw texts a commit must find unchanged.

    Attributes:
        known: The parsed texts.
        watermark: The raw watermark; "" for none.
        history: The raw history entries, by day.
        held: The raw quarantined figures, by day.
        repairs: The right vintage of each day whose history entry was edited or removed.
        notes: The repairs in words.
    """

    known: Known
    watermark: str = ""
    history: Mapping[date, str] = field(default_factory=dict)
    held: Mapping[date, str] = field(default_factory=dict)
    repairs: tuple[Vintage, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unparsed:
    """What was read of a symbol, not yet parsed.

    Attributes:
        digest: Of all raw texts: if it is equal, they are.
        parse: Returns the snapshot; raises StoreMisfit.
    """

    digest: bytes
    parse: Callable[[], Snapshot]


@dataclass(frozen=True, slots=True)
class Write:
    """One day to write into a hash of a symbol.

    Attributes:
        expected: The raw text it replaces; "" for none.
        text: What is written; "" removes a quarantined figure.
        revision: Also write a vintage of this revision; None for a repair and a quarantined figure.
    """

    day: str
    expected: str
    text: str
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One stream entry: its Redis id (`1715152502123-0`) and its flat fields."""

    id: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LiveList:
    """The operators' changes to the watchlist.

    Attributes:
        marks: Code → watched or not; overrides the configuration.
        foreign: A sentence on unusable fields, with the command that removes them; "" for none.
    """

    marks: Mapping[Code, bool] = field(default_factory=dict)
    foreign: str = ""


@dataclass(frozen=True, slots=True)
class News:
    """What has grown.

    Attributes:
        position: Key of a stream → its newest id, from which to go on waiting.
        topics: Streams and subjects of signals; None when it may be any of them.
    """

    position: Mapping[str, str]
    topics: AbstractSet[str] | None


def beginning_with(start: str) -> str:
    """Return Redis' pattern of the keys that begin with this text."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", start) + "*"


def order(entry_id: str) -> tuple[int, int]:
    """Return an entry id's sort key: milliseconds on the server's clock, and a number."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)
