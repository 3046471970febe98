"""The deliveries and dead letters of an endpoint, and their JSON in Redis. Pure.

Anybody may write to Redis, so what cannot be read is either Unreadable or, where many records are
read at once, a value of its own: `Parked`, or a `DeadLetter` without a message.
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
"""Characters kept of the answer to a failed attempt."""

RAW_KEPT: Final = 4096
"""Characters kept of a delivery that cannot be read: enough to see who wrote it."""

RELEASE_SUFFIX: Final = f":{Stream.RELEASES}"
"""Follows the id of a delivery from the stream of releases."""

MOST_LETTER: Final = 1024 * 1024
"""Characters of a dead letter: a delivery of at most 256 Ki in JSON, and its attempts."""

_MOST_ATTEMPTS: Final = 100
_CACHE_SIZE: Final = 2 * 1024 * 1024
"""Characters of the deliveries kept decoded, so that all endpoints decode each of them once.

An event has 700 to 1,500, so a release of all Hong Kong symbols fits.
"""

_LONGEST_CACHED: Final = 16 * 1024
"""Characters of the longest delivery kept decoded: longer ones are rare, or foreign."""

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
    """A delivery that cannot be read. `text`: its beginning; `reason` quotes none of it."""

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
        """Return a failure as an attempt, with its texts cut."""
        return cls(at, failed.status, failed.reason[:ANSWER_KEPT], failed.answer[:ANSWER_KEPT])


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event or notice that an endpoint never accepted, with every attempt.

    Attributes:
        key: Its sort key.
        text: JSON of its fields; if it cannot be read, its beginning.
        message: Decoded from the fields; None if they cannot be read.
        problem: Why it was put aside, if not because its attempts failed; or "".
    """

    key: str
    text: str
    message: Message | None
    attempts: tuple[Attempt, ...] = ()
    problem: str = ""

    @property
    def delivery(self) -> Delivery | None:
        """The delivery to queue again; None if it cannot be read."""
        return None if self.message is None else Delivery(self.key, self.text, self.message)


def release_key(entry_id: str) -> str:
    """Return the id in a queue of an entry from the stream of releases; no event has it."""
    return entry_id.removesuffix(RELEASE_SUFFIX) + RELEASE_SUFFIX


def sort_key(entry_id: str) -> str:
    """Return an id, with its suffix, padded so that its lexical order is the stream's order."""
    plain, colon, suffix = entry_id.partition(":")
    milliseconds, number = order(plain)
    return f"{milliseconds:015}-{number:08}{colon}{suffix}"


def from_sort_key(key: str) -> str:
    """Return the id that `sort_key` padded; raises Unreadable."""
    found = _KEY.fullmatch(key)
    if found is None:
        raise Unreadable("its sort key has the wrong form")
    return f"{int(found[1])}-{int(found[2])}{found[3] or ''}"


def text_of(entry: Entry) -> str:
    """Return the JSON of an entry's fields, as stored in a queue."""
    return to_json(dict(entry.fields))


def read_delivery(key: str, text: str) -> Delivery | Parked:
    """Decode a delivery; what is decoded is cached for all endpoints of the process."""
    kept = _CACHE.get(key)
    if kept is not None and kept.text == text:
        return kept
    found = _read(key, text)
    if isinstance(found, Delivery):
        _CACHE.keep(found)
    return found


def delivery_of(key: str, entry: Entry, message: Message) -> Delivery:
    """Return an entry as a delivery, cached so that it is not decoded again."""
    delivery = Delivery(key, text_of(entry), message)
    _CACHE.keep(delivery)
    return delivery


class _Cache(dict[str, Delivery]):
    """The deliveries decoded last, by sort key. `length`: characters of all their texts."""

    length = 0

    def keep(self, delivery: Delivery) -> None:
        """Add a delivery; the oldest make room for it."""
        if len(delivery.text) > _LONGEST_CACHED:
            return
        self.length += len(delivery.text)
        if (before := self.pop(delivery.key, None)) is not None:
            self.length -= len(before.text)
        self[delivery.key] = delivery
        while self.length > _CACHE_SIZE:
            self.length -= len(self.pop(next(iter(self))).text)


_CACHE: Final = _Cache()


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
    """Return failed attempts as JSON."""
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
    """Return the failed attempts; none if the text cannot be read: counting then starts anew."""
    if not text:
        return ()
    try:
        return _ATTEMPTS.read(text)
    except Unreadable:
        return ()


def dead_json(delivery: Delivery, attempts: Sequence[Attempt]) -> str:
    """Return the JSON of a dead letter."""
    return f'{{"fields":{delivery.text},"attempts":{attempts_json(attempts)}}}'


def problem_json(text: str, problem: str) -> str:
    """Return the JSON of a dead letter that cannot be read; its text is cut to RAW_KEPT."""
    return to_json({"raw": text[:RAW_KEPT], "problem": problem, "attempts": []})


def undecided_json(text: str, problem: str) -> str:
    """Return the JSON of a dead letter for which the endpoint's filter failed."""
    return f'{{"fields":{text},"problem":{to_json(problem)},"attempts":[]}}'


@dataclass(frozen=True, slots=True)
class _Letter:
    """A dead letter's JSON. `raw`: the raw text, if `fields` cannot be parsed."""

    attempts: Annotated[tuple[Attempt, ...], Field(max_length=_MOST_ATTEMPTS)] = ()
    fields: dict[str, str] | None = None
    raw: str = ""
    problem: str = ""


_LETTERS: Final = Codec[_Letter](_Letter, most=MOST_LETTER)


def read_dead(letters: Mapping[str, str]) -> list[DeadLetter]:
    """Return the dead letters, oldest event first, including those that cannot be read."""
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
