"""The outbox's contract: what each endpoint still has to get, kept where a kill cannot reach it.

An endpoint takes from the stream of events and from that of releases. How far it has come on each
is a record of its own; the consumer group `webhook:<name>` mirrors it for other tools. What it
takes is copied into a queue of its own, so that trimming a stream loses nothing. The two streams
count their entries alike, so what is copied from the releases has `MARK` behind its id.
The queue is made of lanes: a lane's deliveries go out one after the other, lanes do not wait for
each other. A lane that has something to send is in the due set, with the time of its next attempt
on the server's clock; who claims it moves that time ahead, so that the lane of a killed process
becomes due by itself. `redisoutbox` performs this; the tests have a twin of it in memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol

from poller.delivery.queued import Attempt, DeadLetter, Delivery, Parked
from poller.errors import StoreMisfit
from poller.store.position import Start
from poller.store.store import Entry, Stream

GROUP_PREFIX: Final = "webhook:"

MOST_WAITS: Final = 30
"""A lane that gathers is due so many waits after its first entry, even if more keeps coming.

With the usual minute that is half an hour: at OpenD's one symbol a second, a sweep of 1,800 symbols
ends before, and whoever reads a chat does not wait longer for the first figures of a larger one.
"""

NOTED: Final = timedelta(seconds=10)
"""How old the time of the last exchange may grow before it is kept again: it is a write.

By as much what is due may come later after the server's clock was set back.
"""

ABSENT: Final = timedelta(hours=1)
"""A longer time between two exchanges is none that an endpoint has failed: nobody tried it."""

FURTHEST: Final = timedelta(hours=48)
"""No attempt is put off further, nor an endpoint held longer: what says so was not written here.

The longest of ours is the last retry's day, and a fifth of it by jitter.
"""


class OutOfOrder(StoreMisfit):
    """A key of one endpoint holds another type. The others go on."""


@dataclass(frozen=True, slots=True)
class OutboxKeys:
    """The names of what is kept of one endpoint, all in the namespace's hash slot."""

    namespace: str
    name: str

    @property
    def group(self) -> str:
        """Consumer group on both streams: a mirror of the endpoint's positions."""
        return f"{GROUP_PREFIX}{self.name}"

    @property
    def state(self) -> str:
        """Hash: its positions, disabled and failing since when, the last success and error.

        Per stream `position:events`, the last id taken; `position:events:at`, when that was
        written; `position:events:read`, how many entries the stream ever had by then.
        """
        return self._key("state")

    @property
    def due(self) -> str:
        """Sorted set: lane → milliseconds on the server's clock."""
        return self._key("due")

    @property
    def queue(self) -> str:
        """Sorted set in lexical order: `lane|sort key`."""
        return self._key("queue")

    @property
    def deliveries(self) -> str:
        """Hash: sort key → JSON of the entry's fields."""
        return self._key("deliveries")

    @property
    def claims(self) -> str:
        """Hash: lane → token of the process that is sending it."""
        return self._key("claims")

    @property
    def attempts(self) -> str:
        """Hash: sort key → JSON of the failed attempts of what stands first in a lane."""
        return self._key("attempts")

    @property
    def dead(self) -> str:
        """Hash: sort key → JSON of a dead letter."""
        return self._key("dead")

    def all(self) -> tuple[str, ...]:
        """Return every key, in the order the scripts take them."""
        return (
            self.state,
            self.due,
            self.queue,
            self.deliveries,
            self.claims,
            self.attempts,
            self.dead,
        )

    def _key(self, part: str) -> str:
        return f"{{{self.namespace}}}:webhook:{self.name}:{part}"


TYPES: Final = ("hash", "zset", "zset", "hash", "hash", "hash", "hash")
"""What each of `OutboxKeys.all` holds."""


@dataclass(frozen=True, slots=True)
class QueueItem:
    """An entry the endpoint is to get.

    Attributes:
        key: Its sort key.
        text: JSON of its fields.
        lane: What it is sent in order with.
        wait: Debounce: its lane is due after `wait` without new entries, at most `MOST_WAITS` ×
            `wait` after its first entry was appended. A lane that is being sent or has something
            to retry keeps its time.
        problem: Why it becomes a dead letter instead, or "".
    """

    key: str
    text: str
    lane: str
    wait: timedelta = timedelta(0)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Take:
    """What one endpoint takes from a stream. `after`: its record; `upto`: its record from then."""

    name: str
    after: str
    upto: str
    items: Sequence[QueueItem] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of it.

    Attributes:
        superseded: Its record was another: nothing was done, another process has moved it.
        gone: Its consumer group was not there any more, and is again.
        problem: Why nothing was done: a key of another type. "" otherwise.
    """

    superseded: bool = False
    gone: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that follow an id, oldest first. `last`, `first`, `added`: see `StreamState`.

    `whole`: there are no more behind them.
    """

    entries: Sequence[Entry]
    last: str
    first: str | None
    added: int | None

    @property
    def whole(self) -> bool:
        """Whether the stream ends with them."""
        return not self.entries or self.entries[-1].id == self.last


@dataclass(frozen=True, slots=True)
class Claim:
    """A lane this process alone may send now: what stands first in it, oldest first.

    It must be settled before it runs out, or somebody else sends the same again.

    Attributes:
        deliveries: What can be read; perhaps none.
        attempts: The failed ones so far.
        parked: What cannot be read; it becomes a dead letter when the claim is settled.
    """

    lane: str
    token: str
    deliveries: tuple[Delivery, ...]
    attempts: tuple[Attempt, ...] = ()
    parked: tuple[Parked, ...] = ()


@dataclass(frozen=True, slots=True)
class Claimed:
    """What an endpoint has to send.

    Attributes:
        at: The server's clock.
        retrying: How many lanes have something to retry.
        wait: Until something is due; None: nothing is.
        disabled: Why nothing is sent at all, or "".
        failing_since: No success since then.
        missing: How many places in the queue had lost what was to be sent, and are removed.
        unplaced: How many deliveries have lost their place in a queue that is empty.
    """

    at: datetime
    claims: tuple[Claim, ...] = ()
    retrying: int = 0
    wait: timedelta | None = None
    disabled: str = ""
    failing_since: datetime | None = None
    missing: int = 0
    unplaced: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a claim ended.

    Attributes:
        how: `sent`: the lane goes on with what follows, after `delay`. `later`: again after
            `delay`. `dead`: into the dead letters, the lane goes on. `returned`: nothing was tried,
            due at once.
        attempts: All failed ones so far.
        hold: No lane is sent until then.
        disable: Why the endpoint is disabled, or "".
    """

    claim: Claim
    how: Literal["sent", "later", "dead", "returned"]
    attempts: tuple[Attempt, ...] = ()
    delay: timedelta = timedelta(0)
    hold: timedelta = timedelta(0)
    disable: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """What an endpoint's owner wants to know. Times are aware, on the server's clock.

    Attributes:
        disabled: Why nothing is sent at all, or "".
        lag: Entries of both streams not yet looked at.
        waiting: Deliveries in the queue.
        retrying: Lanes whose first delivery has failed before.
        next_attempt: None with an empty queue.
    """

    disabled: str = ""
    lag: int = 0
    waiting: int = 0
    retrying: int = 0
    dead: int = 0
    failing_since: datetime | None = None
    last_success: datetime | None = None
    last_error: str = ""
    last_error_at: datetime | None = None
    next_attempt: datetime | None = None


class Outbox(Protocol):
    """The queues of all endpoints. Every call may raise StoreDown or StoreMisfit.

    A call for one endpoint raises OutOfOrder when one of its keys holds another type.
    """

    async def begin(
        self,
        names: Sequence[str],
        stream: Stream = Stream.EVENTS,
        *,
        remembered: Mapping[str, str] | None = None,
    ) -> dict[str, Start | OutOfOrder]:
        """Return where each endpoint goes on, and write it down; see `position.start_of`.

        `remembered`: where this process saw each of them last, for when the server has forgotten.
        """

    async def follow(self, after: str, count: int, stream: Stream = Stream.EVENTS) -> Batch:
        """Return up to `count` entries of a stream that follow an id."""

    async def take(
        self, takes: Sequence[Take], stream: Stream = Stream.EVENTS, *, read: int | None = None
    ) -> dict[str, Taken]:
        """Queue items and move the endpoints' records, each endpoint in one write of its own.

        Whoever is killed, each entry is queued exactly once. `read`: how many entries were ever
        appended up to `upto`, where that is known.
        """

    async def add(self, name: str, items: Sequence[QueueItem]) -> int:
        """Queue entries again (a replay); returns how many were not waiting already.

        They stand in their lane by age, before younger ones; a dead letter of the same key goes.
        """

    async def exchange(
        self,
        name: str,
        settlements: Sequence[Settlement],
        token: str,
        *,
        limit: int,
        depth: int,
        ttl: timedelta,
    ) -> Claimed:
        """Write down how claims ended, then claim up to `limit` due lanes for `ttl`: one write.

        A claim that ran out and was claimed by another is passed over: that one decides. So the
        same settlements may be written twice. Longest due lanes first, `depth` deliveries of each;
        none while the endpoint is disabled or held. `token`: never used before. When the server's
        clock was set back, what is due and how long it is held come nearer by as much.
        """

    async def unplaced(self, name: str) -> list[tuple[str, str]]:
        """Return the deliveries that are kept, by sort key: those of an empty queue have no place.

        Oldest first, each with the JSON of its fields.
        """

    async def due(self, names: Sequence[str]) -> frozenset[str]:
        """Return those of the endpoints that have something due now."""

    async def status(self, name: str) -> Status:
        """Return the state of an endpoint; one that never began has nothing.

        Of one whose keys are out of order it says, as `disabled`, which.
        """

    async def statuses(self, names: Sequence[str] | None = None) -> dict[str, Status]:
        """Return the states of these endpoints, else of all that have a group on a stream.

        It costs the server little more for many than for one.
        """

    async def dead(self, name: str) -> list[DeadLetter]:
        """Return the dead letters, oldest event first."""

    async def enable(self, name: str) -> None:
        """Send again: not disabled, not held, everything waiting due now with all its attempts."""

    async def names(self, *, thorough: bool = False) -> list[str]:
        """Return the endpoints that have a group on a stream, configured or not.

        `thorough`: also those whose groups are gone; it looks at every key there is.
        """

    async def forget(self, name: str) -> None:
        """Remove the groups and everything kept of an endpoint."""


_MOST_QUEUED: Final = 200
"""Items of one write: a server does nothing else meanwhile."""


async def queue(outbox: Outbox, name: str, items: Sequence[QueueItem]) -> int:
    """Queue items, some at a time; returns how many were not waiting already."""
    queued = 0
    for start in range(0, len(items), _MOST_QUEUED):
        queued += await outbox.add(name, items[start : start + _MOST_QUEUED])
    return queued


def named_problem(key: str, found: str, wanted: str) -> str:
    """Say which key holds another type, and what to do."""
    return (
        f"the key {key} holds a {found}, where this service keeps a {wanted}: look at it and "
        f"delete it (DEL {key}); until then nothing is delivered to this endpoint"
    )


def kinds_of(keys: OutboxKeys) -> Mapping[str, str]:
    """Return every key of an endpoint with the type it is to have."""
    return dict(zip(keys.all(), TYPES, strict=True))
