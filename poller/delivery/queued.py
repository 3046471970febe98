"""What stands in an endpoint's queue, as it is written to Redis and read from it. Pure.

Anybody may write there, so reading raises nothing but Unreadable; who reads many records gets what
cannot be read as a value of its own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from pydantic import Field

from poller.codec import Codec, Moment, from_millis, read_json
from poller.delivery.retry import Failed
from poller.errors import Unreadable
from poller.events import Foreign, Message, decode
from poller.model import isoformat, to_json
from poller.store.store import Entry, Stream, order

ANSWER_KEPT: Final = 1024
"""Characters kept of what an endpoint answered to a failed attempt."""

RAW_KEPT: Final = 4096
"""Characters kept of a delivery that cannot be read: enough to see who wrote it."""

MARK: Final = f":{Stream.RELEASES}"
"""Stands behind the id of what was taken from the stream of releases."""

MOST_LETTER: Final = 1024 * 1024
"""Characters of a dead letter: a delivery of at most 256 Ki in JSON, and its attempts."""

_MOST_ATTEMPTS: Final = 100
_CACHED: Final = 2 * 1024 * 1024
"""Characters of the deliveries kept decoded: what one batch brings to every endpoint.

An event has 700 to 1,500, so a release of the whole of Hong Kong finds room: each is decoded once.
"""

_CACHED_LENGTH: Final = 16 * 1024
"""Characters of a delivery that is kept: what is longer is rare, or none of ours."""

_KEY: Final = re.compile(r"([0-9]{15,20})-([0-9]{8,20})(:.{1,64})?", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """One event or notice in a queue. `key`: its sort key. `text`: JSON of its fields."""

    key: str
    text: str
    message: Message

    @property
    def appended_at(self) -> datetime:
        """When its entry was appended, on the server's clock."""
        return from_millis(int(self.key.partition("-")[0]))


@dataclass(frozen=True, slots=True)
class Parked:
    """A delivery that cannot be read. `text`: its beginning; `reason` holds none of it."""

    key: str
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failed attempt, as a dead letter keeps it. `at`: aware, on the server's clock."""

    at: Moment
    status: int | None
    reason: Annotated[str, Field(max_length=4096)]
    answer: Annotated[str, Field(max_length=4096)] = ""

    @classmethod
    def of(cls, failed: Failed, at: datetime) -> "Attempt":
        """Keep what is worth keeping of a failure."""
        return cls(at, failed.status, failed.reason[:ANSWER_KEPT], failed.answer[:ANSWER_KEPT])


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event an endpoint never took, and every attempt.

    Attributes:
        key: Its sort key.
        text: JSON of its fields; of what cannot be read, the beginning.
        message: What it says; None when it cannot be read, which stays a dead letter.
        problem: Why it was put aside, where not because of its attempts; or "".
    """

    key: str
    text: str
    message: Message | None
    attempts: tuple[Attempt, ...] = ()
    problem: str = ""

    @property
    def delivery(self) -> Delivery | None:
        """What can be queued again; None when it cannot be read."""
        return None if self.message is None else Delivery(self.key, self.text, self.message)


def release_key(entry_id: str) -> str:
    """Return the id an entry of the releases has in a queue: no event has it."""
    return entry_id.removesuffix(MARK) + MARK


def sort_key(entry_id: str) -> str:
    """Return an id whose lexical order is its stream's order; a mark stays."""
    plain, colon, mark = entry_id.partition(":")
    milliseconds, number = order(plain)
    return f"{milliseconds:015}-{number:08}{colon}{mark}"


def from_sort_key(key: str) -> str:
    """Return the id that `sort_key` was given; raises Unreadable."""
    found = _KEY.fullmatch(key)
    if found is None:
        raise Unreadable("its place in the queue is none of ours")
    return f"{int(found[1])}-{int(found[2])}{found[3] or ''}"


def text_of(entry: Entry) -> str:
    """Return an entry's fields as a queue keeps them."""
    return to_json(dict(entry.fields))


def read_delivery(key: str, text: str) -> Delivery | Parked:
    """Read what stands in a queue; every endpoint of the process shares what was read."""
    kept = _KEPT.get(key)
    if kept is not None and kept.text == text:
        return kept
    found = _read(key, text)
    if isinstance(found, Delivery):
        _KEPT.keep(found)
    return found


def delivery_of(key: str, entry: Entry, message: Message) -> Delivery:
    """Return an entry as it will stand in queues, so that nobody has to decode it again."""
    delivery = Delivery(key, text_of(entry), message)
    _KEPT.keep(delivery)
    return delivery


class _Kept(dict[str, Delivery]):
    """The deliveries decoded last, by sort key. `length`: characters of all of them."""

    length = 0

    def keep(self, delivery: Delivery) -> None:
        """Keep one; those kept longest ago make room for it."""
        if len(delivery.text) > _CACHED_LENGTH:
            return
        self.length += len(delivery.text)
        if (before := self.pop(delivery.key, None)) is not None:
            self.length -= len(before.text)
        self[delivery.key] = delivery
        while self.length > _CACHED:
            self.length -= len(self.pop(next(iter(self))).text)


_KEPT: Final = _Kept()


def _read(key: str, text: str) -> Delivery | Parked:
    try:
        fields = read_json(text)
        if not isinstance(fields, dict) or not all(isinstance(v, str) for v in fields.values()):
            raise Unreadable("it is not a JSON object of texts")
        message = decode(from_sort_key(key), fields)
    except Unreadable as problem:
        return Parked(key, text[:RAW_KEPT], str(problem))
    if isinstance(message, Foreign):
        return Parked(key, text[:RAW_KEPT], message.reason)
    return Delivery(key, text, message)


def attempts_json(attempts: Sequence[Attempt]) -> str:
    """Return what is kept of failed attempts."""
    return to_json(
        [
            {"at": isoformat(a.at), "status": a.status, "reason": a.reason, "answer": a.answer}
            for a in attempts
        ]
    )


_ATTEMPTS: Final = Codec[tuple[Attempt, ...]](
    Annotated[tuple[Attempt, ...], Field(max_length=_MOST_ATTEMPTS)]
)


def read_attempts(text: str) -> tuple[Attempt, ...]:
    """Return the failed attempts; none when the text cannot be read: then they begin anew."""
    if not text:
        return ()
    try:
        return _ATTEMPTS.read(text)
    except Unreadable:
        return ()


def dead_json(delivery: Delivery, attempts: Sequence[Attempt]) -> str:
    """Return a dead letter as it is kept."""
    return f'{{"fields":{delivery.text},"attempts":{attempts_json(attempts)}}}'


def problem_json(text: str, problem: str) -> str:
    """Return a dead letter of what was put aside unsent; what is too long is cut."""
    return to_json({"raw": text[:RAW_KEPT], "problem": problem, "attempts": []})


def undecided_json(text: str, problem: str) -> str:
    """Return a dead letter of what can be read, but not whether the endpoint wants it."""
    return f'{{"fields":{text},"problem":{to_json(problem)},"attempts":[]}}'


@dataclass(frozen=True, slots=True)
class _Letter:
    """A dead letter's JSON: `raw` in place of `fields` where they cannot be read."""

    attempts: Annotated[tuple[Attempt, ...], Field(max_length=_MOST_ATTEMPTS)] = ()
    fields: dict[str, str] | None = None
    raw: str = ""
    problem: str = ""


_LETTERS: Final = Codec[_Letter](_Letter, most=MOST_LETTER)


def read_dead(letters: Mapping[str, str]) -> list[DeadLetter]:
    """Read dead letters by sort key, oldest event first; what cannot be read is among them."""
    return [_read_letter(key, letters[key]) for key in sorted(letters)]


def _read_letter(key: str, text: str) -> DeadLetter:
    try:
        letter = _LETTERS.read(text)
    except Unreadable as problem:
        return DeadLetter(key, text[:RAW_KEPT], None, (), f"unreadable: {problem}")
    if letter.fields is None:
        reason = letter.problem or "unreadable: it holds no event"
        return DeadLetter(key, letter.raw[:RAW_KEPT], None, letter.attempts, reason)
    found = read_delivery(key, to_json(letter.fields))
    if isinstance(found, Parked):
        reason = letter.problem or f"unreadable: {found.reason}"
        return DeadLetter(key, found.text[:RAW_KEPT], None, letter.attempts, reason)
    return DeadLetter(key, found.text, found.message, letter.attempts, letter.problem)
