"""Reads and writes the JSON records that are kept in Redis. Pure.

Every text may have been written by another version, by another program, or by hand. So every record
is read through this module: size, depth and range are bounded, fields that an older version did not
write get defaults, and whatever the text holds, the only error is Unreadable.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from poller.errors import Unreadable

MOST: Final = 256 * 1024
"""Most characters of a record. The largest of ours, a release naming 1,000 symbols, has 20,000."""

FIRST_YEAR: Final = 1900
LAST_YEAR: Final = 2199
"""Days and instants outside these years are rejected: date arithmetic on them could overflow."""

LARGEST_WHOLE: Final = 2**64 - 1  # as many bits as OpenD sends
LARGEST_FIGURE: Final = 1e18  # sums, differences and squares of such figures stay finite
_REASON: Final = 200
LIKE_A_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)

T = TypeVar("T")


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("lacks its time zone")
    if _is_in_range(moment.year) and _is_in_range((in_utc := moment.astimezone(UTC)).year):
        return in_utc
    raise ValueError(f"is not between {FIRST_YEAR} and {LAST_YEAR}")


def _is_in_range(year: int) -> bool:
    return FIRST_YEAR <= year <= LAST_YEAR


def _day(day: date) -> date:
    if not _is_in_range(day.year):
        raise ValueError(f"is not between {FIRST_YEAR} and {LAST_YEAR}")
    return day


def _day_text(text: str) -> str:
    if LIKE_A_DAY.fullmatch(text) is None:
        raise ValueError("is not a day, YYYY-MM-DD")
    date.fromisoformat(text)
    return text


Whole = Annotated[int, Field(ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)]
"""A count of shares or seconds."""

Figure = Annotated[float, Field(ge=-LARGEST_FIGURE, le=LARGEST_FIGURE, allow_inf_nan=False)]
"""A ratio, a price, a number of days."""


def is_within(value: float) -> bool:
    """Return whether a computed number is within the bounds of `Whole` or `Figure`."""
    return abs(value) <= (LARGEST_WHOLE if isinstance(value, int) else LARGEST_FIGURE)


Moment = Annotated[datetime, AfterValidator(_aware)]
"""An instant written with any UTC offset; read as UTC."""

Day = Annotated[date, AfterValidator(_day)]
DayText = Annotated[str, AfterValidator(_day_text)]
"""A day as the SDK writes it, of any year: a quarantined figure may be of year 1."""


class Codec(Generic[T]):
    """Reads one kind of record, a dataclass whose annotations give its types and bounds.

    Unknown fields are ignored; absent ones get the dataclass's defaults.
    """

    def __init__(self, kind: Any, *, most: int = MOST) -> None:  # noqa: ANN401  mypy knows no TypeForm
        """`most`: the longest text that is read, in characters."""
        self._kind = kind
        self._most = most

    @cached_property
    def _adapter(self) -> TypeAdapter[T]:
        return TypeAdapter(self._kind)  # made on first use: it takes a millisecond

    def read(self, text: str) -> T:
        """Return the record in `text`; raises Unreadable, and nothing else."""
        if len(text) > self._most:
            raise Unreadable(f"has {len(text):,} characters; the most is {self._most:,}")
        return guarded(lambda: self._adapter.validate_json(_bytes(text), strict=True))

    def schema(self, references: str) -> dict[str, Any]:
        """Return the record's JSON Schema; `references`: the `$ref` to a part named `{model}`."""
        return self._adapter.json_schema(ref_template=references)


def read_json(text: str, *, most: int = MOST) -> Any:  # noqa: ANN401  it may hold anything
    """Return the value of a JSON text of at most `most` characters; raises Unreadable.

    The parser refuses more than 200 levels of nesting.
    """
    if len(text) > most:
        raise Unreadable(f"has {len(text):,} characters; the most is {most:,}")
    return guarded(lambda: from_json(_bytes(text), allow_inf_nan=False))


def read_moment(text: str) -> datetime:
    """Return an aware instant as `model.isoformat` writes it; raises Unreadable."""
    return guarded(lambda: _aware(datetime.fromisoformat(text)))


def read_day(text: str, *, any_year: bool = False) -> date:
    """Return a day, `YYYY-MM-DD`; raises Unreadable, by default also outside the years above."""
    day = guarded(lambda: date.fromisoformat(_day_text(text)))
    return day if any_year else guarded(lambda: _day(day))


def from_millis(millis: float) -> datetime:
    """Return an instant in UTC from milliseconds of a Redis clock, clamped to the years above."""
    first = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC)
    last = datetime(LAST_YEAR, 12, 31, tzinfo=UTC)
    seconds = min(max(millis / 1000, first.timestamp()), last.timestamp())
    return datetime.fromtimestamp(seconds, UTC)


def number(fields: Mapping[str, Any], name: str) -> float | None:
    """Return a hash's field as a number; None if it is absent, not a number or too large."""
    try:
        value = float(fields[name])
    except (KeyError, ValueError):
        return None
    return value if abs(value) < _MOST_NUMBER else None


_MOST_NUMBER: Final = 2.0**53
"""Larger floats no longer represent every whole number."""


def guarded(read: Callable[[], T]) -> T:
    """Return what `read` returns; raises Unreadable with a short reason that quotes no input."""
    try:
        return read()
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        what = str(first["msg"]).removeprefix("Value error, ")
        # the path is safe to show: unknown fields are ignored, so it has only our own names
        raise Unreadable(f"{path}: {what}"[:_REASON] if path else what[:_REASON]) from None
    except (ValueError, TypeError, OverflowError, RecursionError) as problem:
        raise Unreadable(str(problem)[:_REASON]) from None


def _bytes(text: str) -> bytes:
    return text.encode()  # a lone surrogate is a ValueError here


def matching(text: str, pattern: "re.Pattern[str]", name: str) -> str:
    """Return `text` if it matches `pattern` in full; raises Unreadable."""
    if pattern.fullmatch(text) is None:
        raise Unreadable(f"{name} has the wrong form")
    return text
