"""The outbox's contract: what each endpoint still has to get, stored so that it survives crashes.

An endpoint reads the stream of events and the stream of releases. Its position on each is stored;
the consumer group `webhook:<name>` mirrors it for other tools. What it selects is copied into a
queue of its own, so that trimming a stream loses nothing. Both streams use the same form of ids, so
ids from the stream of releases get `RELEASE_SUFFIX`.

A queue consists of lanes. The deliveries of a lane are sent one after the other; lanes do not wait
for each other. A lane with something to send is in the due set, with the time of its next attempt
on the server's clock. A claim moves that time into the future, so that a crashed process's lanes
become due again by themselves.
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
"""A gathering lane is due at most this many waits after its first entry, even if more keep coming.

With the default wait of a minute that is half an hour. At OpenD's one symbol a second, a sweep of
1,800 symbols ends before that, and the first figures of a larger sweep do not come later.
"""

NOTED: Final = timedelta(seconds=10)
"""The time of the last exchange is stored this often, as storing it is a write.

After the server's clock was set back, due deliveries may be late by as much.
"""

ABSENT: Final = timedelta(hours=1)
"""A longer time between two exchanges does not count as failing: nobody tried the endpoint."""

FURTHEST: Final = timedelta(hours=48)
"""Later attempts and longer holds are ignored, as this service does not write them.

Its longest delay is that of the last retry: a day, plus a fifth of it as jitter.
"""


class WrongKeyType(StoreMisfit):
    """A key of one endpoint holds another type; other endpoints are not affected."""


@dataclass(frozen=True, slots=True)
class OutboxKeys:
    """The names of one endpoint's keys, all in the namespace's hash slot."""

    namespace: str
    name: str

    @property
    def group(self) -> str:
        """Consumer group on both streams: a mirror of the endpoint's positions."""
        return f"{GROUP_PREFIX}{self.name}"

    @property
    def state(self) -> str:
        """Hash: its positions, since when it is disabled or failing, the last success and error.

        For each stream `position:events`, the last id read; `position:events:at`, when that was
        written; `position:events:read`, how many entries had ever been appended up to it.
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
        """Hash: sort key of a lane's first delivery → JSON of its failed attempts."""
        return self._key("attempts")

    @property
    def dead(self) -> str:
        """Hash: sort key → JSON of a dead letter."""
        return self._key("dead")

    def all(self) -> tuple[str, ...]:
        """Return every key, in the order that the scripts expect."""
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


KEY_TYPES: Final = ("hash", "zset", "zset", "hash", "hash", "hash", "hash")
"""The type of each of `OutboxKeys.all`."""


@dataclass(frozen=True, slots=True)
class QueueItem:
    """An entry to queue for an endpoint.

    Attributes:
        key: Its sort key.
        text: JSON of its fields.
        lane: The lane it is sent in.
        wait: Debounce: its lane is due after `wait` without new entries, at most `MOST_WAITS` ×
            `wait` after its first entry was appended. The due time of a lane that is being sent or
            retried does not change.
        problem: Why it becomes a dead letter instead, or "".
    """

    key: str
    text: str
    lane: str
    wait: timedelta = timedelta(0)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Take:
    """What one endpoint takes from a stream, which moves its position from `after` to `upto`."""

    name: str
    after: str
    upto: str
    items: Sequence[QueueItem] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """The result of a `Take`.

    Attributes:
        superseded: Nothing was done: another process has moved the endpoint's position.
        gone: Its consumer group had been deleted, and was created again.
        problem: Why nothing was done: a key of another type; or "".
    """

    superseded: bool = False
    gone: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that follow an id, oldest first. `last`, `first`, `added`: see `StreamState`."""

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
    """The first deliveries of a lane, which only this process may send until the claim expires.

    If it is not settled before, another process may send the same again.

    Attributes:
        deliveries: Those that can be read, oldest first; may be empty.
        attempts: The failed attempts so far.
        parked: Those that cannot be read; settling the claim makes them dead letters.
    """

    lane: str
    token: str
    deliveries: tuple[Delivery, ...]
    attempts: tuple[Attempt, ...] = ()
    parked: tuple[Parked, ...] = ()


@dataclass(frozen=True, slots=True)
class Claimed:
    """The result of an exchange.

    Attributes:
        at: The server's clock.
        retrying: How many lanes have something to retry.
        wait: How long until the next lane is due; None: nothing waits.
        disabled: Why nothing is sent at all, or "".
        failing_since: Since when every attempt has failed; None: the last one succeeded.
        missing: How many queue entries had lost their delivery, and were removed.
        unplaced: How many deliveries are stored although the queue is empty.
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
        how: `sent`: the lane goes on after `delay`. `later`: retry after `delay`. `dead`: move to
            the dead letters, the lane goes on. `returned`: not tried, due at once.
        attempts: All failed attempts so far.
        hold: How long no lane of the endpoint is sent.
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
    """The state of an endpoint. Times are aware, on the server's clock.

    Attributes:
        disabled: Why nothing is sent at all, or "".
        lag: Entries of both streams that it has not read.
        waiting: Deliveries in its queue.
        retrying: Lanes whose first delivery has failed before.
        dead: Dead letters.
        next_attempt: None if the queue is empty, or nothing is sent at all.
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

    A call for one endpoint raises WrongKeyType if one of its keys holds another type.
    """

    async def begin(
        self,
        names: Sequence[str],
        stream: Stream = Stream.EVENTS,
        *,
        remembered: Mapping[str, str] | None = None,
    ) -> dict[str, Start | WrongKeyType]:
        """Determine where each endpoint goes on, store it and return it; see `position.start_of`.

        `remembered`: their last positions known to this process, in case the server lost them.
        """

    async def follow(self, after: str, count: int, stream: Stream = Stream.EVENTS) -> Batch:
        """Return up to `count` entries of a stream that follow an id."""

    async def take(
        self, takes: Sequence[Take], stream: Stream = Stream.EVENTS, *, read: int | None = None
    ) -> dict[str, Taken]:
        """Queue items and move the endpoints' positions, in one write per endpoint.

        Each entry is queued exactly once, even across crashes. `read`: how many entries were ever
        appended up to `upto`, if known.
        """

    async def add(self, name: str, items: Sequence[QueueItem]) -> int:
        """Queue entries again (a replay); return how many were not waiting already.

        In their lanes they are sorted by age. Dead letters with the same keys are removed.
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
        """Settle claims, then claim up to `limit` due lanes for `ttl`, in one write.

        A settlement is ignored if another process has claimed its lane since, so settlements may be
        repeated. The longest due lanes come first, each with up to `depth` deliveries; none while
        the endpoint is disabled or held. `token`: unique to this call. If the server's clock was
        set back, due times and holds are moved back by as much.
        """

    async def unplaced(self, name: str) -> list[tuple[str, str]]:
        """Return all stored deliveries, oldest first: sort key and JSON of the fields.

        For use when the queue was removed and they have to be queued again.
        """

    async def due(self, names: Sequence[str]) -> frozenset[str]:
        """Return which of the endpoints have something due now."""

    async def status(self, name: str) -> Status:
        """Return the state of an endpoint; all defaults if nothing is stored of it.

        If one of its keys holds another type, `disabled` says which.
        """

    async def statuses(self, names: Sequence[str] | None = None) -> dict[str, Status]:
        """Return the states of these endpoints, by default of all that have a group on a stream.

        Many endpoints cost the server little more than one.
        """

    async def dead(self, name: str) -> list[DeadLetter]:
        """Return the dead letters, oldest event first."""

    async def enable(self, name: str) -> None:
        """End a disablement or hold; everything waiting is due now, with its attempts reset."""

    async def names(self, *, thorough: bool = False) -> list[str]:
        """Return the endpoints that have a group on a stream, configured or not.

        `thorough`: also those whose groups are gone, which takes a scan of all keys.
        """

    async def forget(self, name: str) -> None:
        """Remove an endpoint's groups and keys."""


_MOST_QUEUED: Final = 200
"""Items in one write, which blocks the server."""


async def queue(outbox: Outbox, name: str, items: Sequence[QueueItem]) -> int:
    """Queue items in several writes; return how many were not waiting already."""
    queued = 0
    for start in range(0, len(items), _MOST_QUEUED):
        queued += await outbox.add(name, items[start : start + _MOST_QUEUED])
    return queued


def wrong_type_text(key: str, found: str, wanted: str) -> str:
    """Return the message about a key that holds another type, with what to do."""
    return (
        f"the key {key} holds a {found}, where this service keeps a {wanted}: look at it and "
        f"delete it (DEL {key}); until then nothing is delivered to this endpoint"
    )


def types_of(keys: OutboxKeys) -> Mapping[str, str]:
    """Return every key of an endpoint with the type it must have."""
    return dict(zip(keys.all(), KEY_TYPES, strict=True))
