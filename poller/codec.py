"""Reads and writes the JSON records that are kept in Redis. Pure.

Every text may have been written by another version, by another program, or by hand. So each kind of
record is read here or by a `Codec` of its own: bounded in size, depth and range, with defaults for
what an older version did not write, and with one error whatever the text holds.
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
"""Characters of one record. The largest of ours, a release that names 1,000 symbols, has 20,000."""

FIRST_YEAR: Final = 1900
LAST_YEAR: Final = 2199
"""Days and instants outside these years were not reported; arithmetic on them may overflow."""

LARGEST_WHOLE: Final = 2**64 - 1  # as many bits as OpenD sends
LARGEST_FIGURE: Final = 1e18  # sums, differences and squares of such figures stay finite
_REASON: Final = 200
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)

T = TypeVar("T")


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("lacks its time zone")
    if _is_counted(moment.year) and _is_counted((there := moment.astimezone(UTC)).year):
        return there
    raise ValueError(f"is not between {FIRST_YEAR} and {LAST_YEAR}")


def _is_counted(year: int) -> bool:
    return FIRST_YEAR <= year <= LAST_YEAR


def _day(day: date) -> date:
    if not _is_counted(day.year):
        raise ValueError(f"is not between {FIRST_YEAR} and {LAST_YEAR}")
    return day


def _day_text(text: str) -> str:
    if _DAY.fullmatch(text) is None:
        raise ValueError("is not a day, YYYY-MM-DD")
    date.fromisoformat(text)
    return text


Whole = Annotated[int, Field(ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)]
"""A count of shares or seconds."""

Figure = Annotated[float, Field(ge=-LARGEST_FIGURE, le=LARGEST_FIGURE, allow_inf_nan=False)]
"""A ratio, a price, a number of days."""


def is_within(value: float) -> bool:
    """Tell whether a number that was computed can be read again as `Whole` or `Figure`."""
    return abs(value) <= (LARGEST_WHOLE if isinstance(value, int) else LARGEST_FIGURE)


Moment = Annotated[datetime, AfterValidator(_aware)]
"""An instant with its offset, whichever; read as UTC."""

Day = Annotated[date, AfterValidator(_day)]
DayText = Annotated[str, AfterValidator(_day_text)]
"""A day as the SDK writes it, of any year: what is held may be of year 1."""


class Codec(Generic[T]):
    """Reads one kind of record, a dataclass whose annotations give its types and bounds.

    Fields the dataclass does not know are passed over, absent ones get its defaults.
    """

    def __init__(self, kind: Any, *, most: int = MOST) -> None:  # noqa: ANN401  mypy knows no TypeForm
        """`most`: characters a text may have."""
        self._kind = kind
        self._most = most

    @cached_property
    def _adapter(self) -> TypeAdapter[T]:
        return TypeAdapter(self._kind)  # made when first used: it takes a millisecond

    def read(self, text: str) -> T:
        """Return the record in `text`; raises Unreadable, and nothing else."""
        if len(text) > self._most:
            raise Unreadable(f"has {len(text):,} characters; the most is {self._most:,}")
        return guarded(lambda: self._adapter.validate_json(_bytes(text), strict=True))

    def schema(self, references: str) -> dict[str, Any]:
        """Return the JSON Schema of what it reads; `references`: where a `{model}` of it stands."""
        return self._adapter.json_schema(ref_template=references)


def read_json(text: str, *, most: int = MOST) -> Any:  # noqa: ANN401  it may hold anything
    """Return what a JSON text holds: bounded in size, at most 200 deep; raises Unreadable."""
    if len(text) > most:
        raise Unreadable(f"has {len(text):,} characters; the most is {most:,}")
    return guarded(lambda: from_json(_bytes(text), allow_inf_nan=False))


def read_moment(text: str) -> datetime:
    """Return an aware instant as `model.isoformat` writes it; raises Unreadable."""
    return guarded(lambda: _aware(datetime.fromisoformat(text)))


def read_day(text: str, *, any_year: bool = False) -> date:
    """Return a day, `YYYY-MM-DD`, of the years that count or of any; raises Unreadable."""
    day = guarded(lambda: date.fromisoformat(_day_text(text)))
    return day if any_year else guarded(lambda: _day(day))


def from_millis(millis: float) -> datetime:
    """Return an instant of a Redis clock in UTC; one beyond all bounds is moved to them."""
    first = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC)
    last = datetime(LAST_YEAR, 12, 31, tzinfo=UTC)
    seconds = min(max(millis / 1000, first.timestamp()), last.timestamp())
    return datetime.fromtimestamp(seconds, UTC)


def number(fields: Mapping[str, Any], name: str) -> float | None:
    """Return a number of a hash that anybody may have written to; None when it is none."""
    try:
        value = float(fields[name])
    except (KeyError, ValueError):
        return None
    return value if abs(value) < _MOST_NUMBER else None


_MOST_NUMBER: Final = 2.0**53
"""Milliseconds and counts are whole numbers below this."""


def guarded(read: Callable[[], T]) -> T:
    """Return what `read` returns, or raise Unreadable in few words that hold none of the text."""
    try:
        return read()
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        what = str(first["msg"]).removeprefix("Value error, ")
        # a place holds only names of ours: what is unknown is passed over
        raise Unreadable(f"{place}: {what}"[:_REASON] if place else what[:_REASON]) from None
    except (ValueError, TypeError, OverflowError, RecursionError) as problem:
        raise Unreadable(str(problem)[:_REASON]) from None


def _bytes(text: str) -> bytes:
    return text.encode()  # a lone surrogate is a ValueError here


def bounded(text: str, pattern: "re.Pattern[str]", name: str) -> str:
    """Return a text that is wholly as `pattern`; raises Unreadable."""
    if pattern.fullmatch(text) is None:
        raise Unreadable(f"{name} is not what it should be")
    return text
