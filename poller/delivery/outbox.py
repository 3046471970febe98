"""The outbox's contract: what each endpoint still has to get, kept where a kill cannot reach it.

An endpoint is a consumer group, `webhook:<name>`, on the stream of events and on that of releases.
What it takes from there is copied into a queue of its own, so that trimming a stream loses nothing.
The two count their entries alike, so what is copied from the releases has `MARK` behind its id.
The queue is made of lanes: a lane's deliveries go out one after the other, lanes do not wait for
each other. A lane that has something to send is in the due set, with the time of its next attempt
on the server's clock; who claims it moves that time ahead, so that the lane of a killed process
becomes due by itself. `redisoutbox` performs this; the tests have a twin of it in memory.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Protocol

from poller.delivery.retry import Failed
from poller.model import isoformat, to_json
from poller.storage.store import Entry, Stream, order

GROUP_PREFIX: Final = "webhook:"
ANSWER_KEPT: Final = 1024
"""Characters kept of what an endpoint answered to a failed attempt."""

MARK: Final = f":{Stream.RELEASES}"
"""Stands behind the id of what was taken from the stream of releases."""

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


@dataclass(frozen=True, slots=True)
class OutboxKeys:
    """The names of what is kept of one endpoint, all in the namespace's hash slot."""

    namespace: str
    name: str

    @property
    def group(self) -> str:
        """Consumer group on both streams: what was taken into the queue."""
        return f"{GROUP_PREFIX}{self.name}"

    @property
    def state(self) -> str:
        """Hash: disabled and failing since when, the last success and error, held until, seen."""
        return self._key("state")

    @property
    def due(self) -> str:
        """Sorted set: lane → milliseconds on the server's clock."""
        return self._key("due")

    @property
    def queue(self) -> str:
        """Sorted set in lexical order: `lane|padded stream id`."""
        return self._key("queue")

    @property
    def deliveries(self) -> str:
        """Hash: padded stream id → JSON of the entry's fields."""
        return self._key("deliveries")

    @property
    def claims(self) -> str:
        """Hash: lane → token of the process that is sending it."""
        return self._key("claims")

    @property
    def attempts(self) -> str:
        """Hash: padded stream id → JSON of the failed attempts of what stands first in a lane."""
        return self._key("attempts")

    @property
    def dead(self) -> str:
        """Hash: padded stream id → JSON of a dead letter."""
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


@dataclass(frozen=True, slots=True)
class Chosen:
    """An entry the endpoint is to get.

    `wait`: its lane is due when nothing was queued in it for so long, at the latest `MOST_WAITS`
    times as long after its first entry was appended. A lane that is being sent or has something to
    retry keeps its time.
    """

    entry: Entry
    lane: str
    wait: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failed attempt, as a dead letter keeps it. `at`: aware, on the server's clock."""

    at: datetime
    status: int | None
    reason: str
    answer: str

    @classmethod
    def of(cls, failed: Failed, at: datetime) -> "Attempt":
        """Keep what is worth keeping of a failure."""
        return cls(at, failed.status, failed.reason, failed.answer[:ANSWER_KEPT])


@dataclass(frozen=True, slots=True)
class Claim:
    """A lane this process alone may send now: what stands first in it, oldest first.

    It must be settled before it runs out, or somebody else sends the same again.
    """

    lane: str
    token: str
    deliveries: tuple[Entry, ...]
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Claimed:
    """What an endpoint has to send. `at`: the server's clock. `wait`: until something is due.

    `disabled`: why nothing is sent at all, or "". `failing_since`: no success since then.
    `retrying`: how many lanes have something to retry.
    """

    at: datetime
    claims: tuple[Claim, ...] = ()
    retrying: int = 0
    wait: timedelta | None = None
    disabled: str = ""
    failing_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a claim ended.

    `sent`: the lane goes on with what follows, after `delay`. `later`: again after `delay`. `dead`:
    into the dead letters, the lane goes on. `returned`: nothing was tried, due at once. `attempts`:
    all failed ones so far. `hold`: no lane is sent until then. `disable`: why the endpoint is
    disabled, or "".
    """

    claim: Claim
    how: Literal["sent", "later", "dead", "returned"]
    attempts: tuple[Attempt, ...] = ()
    delay: timedelta = timedelta(0)
    hold: timedelta = timedelta(0)
    disable: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event an endpoint never took, and every attempt."""

    entry: Entry
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """What an endpoint's owner wants to know. Times are aware, on the server's clock.

    `lag`: entries of both streams not yet looked at. `waiting`: deliveries in the queue.
    `retrying`: lanes whose first delivery has failed before. `next_attempt`: None with an empty
    queue.
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
    """The queues of all endpoints. Every call may raise StoreDown or StoreMisfit."""

    async def begin(self, name: str, stream: Stream = Stream.EVENTS) -> str:
        """Return the id up to which `name` has taken a stream; a new endpoint starts at its end."""

    async def follow(self, after: str, count: int, stream: Stream = Stream.EVENTS) -> list[Entry]:
        """Return up to `count` entries of a stream that follow an id, oldest first."""

    async def take(
        self,
        name: str,
        after: str,
        entries: Sequence[Entry],
        chosen: Sequence[Chosen],
        stream: Stream = Stream.EVENTS,
    ) -> None:
        """Queue the chosen among the entries that follow `after`, and move the group behind them.

        One write: whoever is killed, each entry is queued exactly once. Raises Superseded when
        another process has taken them or the stream does not hold them: begin again.
        """

    async def add(self, name: str, chosen: Sequence[Chosen]) -> int:
        """Queue entries again (a replay); returns how many were not waiting already.

        They stand in their lane by age, before younger ones; a dead letter of the same id goes.
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

    async def status(self, name: str) -> Status:
        """Return the state of an endpoint; one that never began has nothing."""

    async def dead(self, name: str) -> list[DeadLetter]:
        """Return the dead letters, oldest event first."""

    async def enable(self, name: str) -> None:
        """Send again: not disabled, not held, everything waiting due now with all its attempts."""

    async def names(self) -> list[str]:
        """Return the endpoints that have a group on a stream, configured or not."""

    async def forget(self, name: str) -> None:
        """Remove the groups and everything kept of an endpoint."""


def marked(entry: Entry) -> Entry:
    """Return an entry of the releases as it is queued: no event has its id."""
    return Entry(entry.id.removesuffix(MARK) + MARK, entry.fields)


def padded(entry_id: str) -> str:
    """Return an id whose lexical order is its stream's order; a mark stays."""
    milliseconds, number = order(entry_id.removesuffix(MARK))
    return f"{milliseconds:015}-{number:08}{MARK if entry_id.endswith(MARK) else ''}"


def stripped(padded_id: str) -> str:
    """Return the id that `padded` was given."""
    milliseconds, number = order(padded_id.removesuffix(MARK))
    return f"{milliseconds}-{number}{MARK if padded_id.endswith(MARK) else ''}"


def attempts_json(attempts: Sequence[Attempt]) -> str:
    """Return what is kept of failed attempts."""
    return to_json(
        [
            {"at": isoformat(a.at), "status": a.status, "reason": a.reason, "answer": a.answer}
            for a in attempts
        ]
    )


def _attempts(raw: Iterable[Mapping[str, Any]]) -> tuple[Attempt, ...]:
    return tuple(
        Attempt(datetime.fromisoformat(a["at"]), a["status"], a["reason"], a["answer"]) for a in raw
    )


def dead_json(entry: Entry, attempts: Sequence[Attempt]) -> str:
    """Return a dead letter as it is kept."""
    return f'{{"fields":{to_json(dict(entry.fields))},"attempts":{attempts_json(attempts)}}}'


def read_dead(letters: Mapping[str, str]) -> list[DeadLetter]:
    """Read dead letters by padded id; returns them oldest event first."""
    found = []
    for padded_id in sorted(letters):
        raw = json.loads(letters[padded_id])
        entry = Entry(stripped(padded_id), raw["fields"])
        found.append(DeadLetter(entry, _attempts(raw["attempts"])))
    return found


def read_claim(
    lane: str, token: str, attempts: str, deliveries: Iterable[tuple[str, str]]
) -> Claim:
    """Read a claimed lane: JSON of its failed attempts ("": none), padded ids, JSON of fields."""
    return Claim(
        lane,
        token,
        tuple(Entry(stripped(padded_id), json.loads(text)) for padded_id, text in deliveries),
        _attempts(json.loads(attempts)) if attempts else (),
    )
