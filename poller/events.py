"""The entries of the two streams: the only module that encodes and decodes them. Pure.

Anybody may append to a stream, and it holds entries of older and newer versions. So `decode` never
raises: it returns an event, a notice, or a `Foreign` with the reason why the entry is neither.
Absent fields get defaults; members of `data` that this version does not know are kept in `data`,
so that they are passed on.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cache
from typing import Annotated, Any, Final, Generic, TypeVar

from pydantic import Field

from poller.codec import Codec, Figure, Whole, matching, read_day, read_json, read_moment
from poller.errors import BadCode, Unreadable
from poller.markets import Market, Record, all_markets, market_named
from poller.model import (
    Change,
    Code,
    Event,
    isoformat,
    market_of,
    parse_code,
    plain_name,
    titled,
    to_json,
)
from poller.schedule.notice import (
    MOST_NAMED,
    TYPES,
    Completed,
    Detected,
    Mover,
    Notice,
    fields_of,
)

_TYPE: Final = re.compile(r"[a-z_]{1,40}(\.[a-z_]{1,40}){1,2}", re.ASCII)
_ID: Final = re.compile(r"[!-~]{1,128}", re.ASCII)  # printable ASCII without a space
_REVISION: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_FLAT: Final = ("id", "type", "code", "market", "trading_day", "revision", "observed_at")
_NAMES: Final = frozenset(_FLAT)
_MOST_FLAGS: Final = 50


@dataclass(frozen=True, slots=True)
class Restated:
    """The days that one cause changed, as an event reports them.

    Attributes:
        days: How many days changed.
        first: The oldest of them, `YYYY-MM-DD`.
        last: The newest of them.
        factor: What `column` was multiplied by on each day; None if no single factor fits.
        column: The vendor's name of the column that changed; None if all of them did. None also in
            entries of older versions without `cause`: there the shares were rescaled.
        cause: `rescaled`, `recomputed` or `replaced`; others may be added.
    """

    days: Whole
    first: Annotated[str, Field(alias="from", max_length=10)]
    last: Annotated[str, Field(alias="to", max_length=10)]
    factor: Figure | None = None
    column: Annotated[str, Field(max_length=64)] | None = None
    cause: Annotated[str, Field(max_length=64)] | None = None


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of a symbol, decoded from its entry on the stream.

    Attributes:
        position: The entry's id on the stream (`1715152502123-0`); resume after it.
        id: Code, trading day, revision: the same over all deliveries, never used twice.
        type: `short_interest.reported`, `.revised`, `.backfilled` or `.restated`; others may be
            added.
        trading_day: In the market's time zone.
        revision: The number of the day's vintage, from 0.
        observed_at: When OpenD's answer was read; aware, UTC.
        record: The figures of the trading day.
        previous: The record of the day before in history; for `revised`, the replaced vintage.
        flags: Caveats, such as `below_threshold`; `split`: a split lies between `previous` and
            `record`.
        name: The company's name, if known.
        outstanding_percent: The record's shares in percent of the outstanding shares, if known.
        data_json: The entry's whole `data`, minified; complete in itself.
    """

    position: str
    id: str
    type: str
    code: Code
    market: Market
    trading_day: date
    revision: int
    observed_at: datetime
    record: Record
    previous: Record | None = None
    change: Change | None = None
    flags: tuple[str, ...] = ()
    restated: Restated | None = None
    name: str | None = None
    outstanding_percent: float | None = None
    data_json: str = field(default="{}", repr=False)

    @property
    def kind(self) -> str:
        """The type without its common prefix: `reported`."""
        return self.type.removeprefix("short_interest.")

    @property
    def data(self) -> dict[str, Any]:
        """The entry's whole `data`, including members this version does not know."""
        found: dict[str, Any] = read_json(self.data_json)
        return found

    @property
    def extra(self) -> dict[str, Any]:
        """The members of `data` that this version does not know."""
        return {name: value for name, value in self.data.items() if name not in _USUAL}


@dataclass(frozen=True, slots=True)
class StreamNotice:
    """One notice about a whole release. `position`, `id`, `data_json`: see `StreamEvent`.

    Attributes:
        type: `release.detected` or `release.completed`.
        code: Which symbol showed the day first; None for a completion.
        name: That company's name, if it is known.
        found: How many symbols show the day; None for a detection.
        expected: How many take part in the release; None for a detection.
        missing: How many of those lack the day.
        missing_codes: Which, at most the first 1,000.
        missing_names: Code → name of those whose name is known.
        biggest: Who moved most in a complete report, the biggest first; None if it is not known.
    """

    position: str
    id: str
    type: str
    market: Market
    trading_day: date
    observed_at: datetime
    code: Code | None = None
    found: int | None = None
    expected: int | None = None
    missing: int = 0
    missing_codes: tuple[Code, ...] = ()
    biggest: tuple[Mover, ...] | None = None
    name: str | None = None
    missing_names: Mapping[Code, str] = field(default_factory=dict, hash=False)
    data_json: str = field(default="{}", repr=False)

    @property
    def data(self) -> dict[str, Any]:
        """The entry's whole `data`."""
        found: dict[str, Any] = read_json(self.data_json)
        return found

    def missing_titles(self, most: int) -> tuple[str, ...]:
        """Return the first missing symbols as people are told of them."""
        return tuple(
            titled(each, self.missing_names.get(each)) for each in self.missing_codes[:most]
        )


@dataclass(frozen=True, slots=True)
class Foreign:
    """An entry that this service did not write or cannot read; `reason` quotes none of it."""

    position: str
    reason: str


Message = StreamEvent | StreamNotice


def encode(message: Event | Notice) -> dict[str, str]:
    """Return the flat, textual fields of an entry; its `data` is complete in itself."""
    if not isinstance(message, Event):
        return fields_of(message)
    record = message.vintage.record
    flat: dict[str, Any] = {
        "id": message.id,
        "type": str(message.type),
        "code": message.code,
        "market": market_of(message.code).name,
        "trading_day": record.timestamp_str,
        "revision": message.vintage.revision,
        "observed_at": isoformat(message.vintage.observed_at),
    }
    data = flat | {
        "record": record.columns(),
        "previous": message.previous.columns() if message.previous else None,
        "change": message.change.columns() if message.change else None,
        "flags": message.flags,
        "restated": message.restated.columns() if message.restated else None,
    }
    for name in ("name", "outstanding_percent"):  # absent where it is not known
        if (value := getattr(message, name)) is not None:
            data[name] = value
    return {**flat, "revision": str(message.vintage.revision), "data": to_json(data)}


def decode(position: str, fields: Mapping[str, str]) -> StreamEvent | StreamNotice | Foreign:
    """Decode an entry of either stream; never raises. `position`: its id on the stream."""
    try:
        if "data" not in fields:
            raise Unreadable("has no field data")
        data = read_json(fields["data"])
        if not isinstance(data, dict):
            raise Unreadable("data is not a JSON object")
        minified = to_json(data)  # 1e400 is read as an infinity: a ValueError here
        flat = fields  # another writer may have put these only into `data`
        if not fields.keys() >= _NAMES:
            flat = {name: str(data[name]) for name in _FLAT if name in data} | dict(fields)
        if flat.get("type") in TYPES:
            return _notice(position, flat, minified)
        return _event(position, flat, minified)
    except (Unreadable, BadCode) as problem:
        return Foreign(position, str(problem))
    except KeyError as problem:
        return Foreign(position, f"has no field {problem.args[0]}")
    except ValueError:
        return Foreign(position, "data holds a number that is not finite")


def _event(position: str, flat: Mapping[str, str], data: str) -> StreamEvent:
    code = _code(flat["code"])
    market = market_of(code)
    if flat.get("market", market.name) != market.name:
        raise Unreadable(f"market is not that of {code}")
    read = _codec(market).read(data)
    day = read_day(flat.get("trading_day", read.record.timestamp_str))
    revision = int(matching(flat.get("revision", "0"), _REVISION, "revision"))
    return StreamEvent(
        position=position,
        id=matching(flat.get("id", f"{code}:{day}:{revision}"), _ID, "id"),
        type=matching(flat["type"], _TYPE, "type"),
        code=code,
        market=market,
        trading_day=day,
        revision=revision,
        observed_at=read_moment(flat["observed_at"]),
        record=read.record,
        previous=read.previous,
        change=read.change,
        flags=read.flags,
        restated=read.restated,
        name=None if read.name is None else plain_name(read.name),
        outstanding_percent=read.outstanding_percent,
        data_json=data,
    )


def _notice(position: str, flat: Mapping[str, str], data: str) -> StreamNotice:
    market = market_named(flat["market"])
    if market is None:
        raise Unreadable("market is not one this version knows")
    read = _NOTICES.read(data)
    required = read.code if flat["type"] == Detected.type else read.found
    if required is None or (flat["type"] == Completed.type and read.expected is None):
        raise Unreadable("data lacks a field of such a notice")
    return StreamNotice(
        position=position,
        id=matching(flat["id"], _ID, "id"),
        type=flat["type"],
        market=market,
        trading_day=read_day(flat["trading_day"]),
        observed_at=read_moment(flat["observed_at"]),
        code=None if read.code is None else _code(read.code),
        found=read.found,
        expected=read.expected,
        missing=read.missing,
        missing_codes=tuple(map(_code, read.missing_codes)),
        biggest=None if read.biggest is None else tuple(map(_mover, read.biggest)),
        name=None if read.name is None else plain_name(read.name),
        missing_names=dict(_names(read.missing_names)),
        data_json=data,
    )


def _names(read: Mapping[str, str]) -> Iterator[tuple[Code, str]]:
    for code, text in read.items():
        if (name := plain_name(text)) is not None:
            yield _code(code), name


def _mover(read: Mover) -> Mover:
    name = None if read.name is None else plain_name(read.name)
    return replace(read, code=_code(read.code), name=name)


def _code(text: str) -> Code:
    try:
        return parse_code(text)
    except BadCode:
        raise Unreadable("code is not one of a market this version knows") from None


_R = TypeVar("_R")


_NameText = Annotated[str, Field(max_length=200)]


@dataclass(frozen=True, slots=True)
class _Data(Generic[_R]):
    """The members of an event's `data` that this version knows."""

    record: _R
    previous: _R | None = None
    change: Change | None = None
    flags: Annotated[
        tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=_MOST_FLAGS)
    ] = ()
    restated: Restated | None = None
    name: _NameText | None = None
    outstanding_percent: Figure | None = None


_Count = Annotated[int, Field(ge=0, le=10**9)]


@dataclass(frozen=True, slots=True)
class _Notice:
    """The members of a notice's `data` that this version knows."""

    code: str | None = None
    found: _Count | None = None
    expected: _Count | None = None
    missing: _Count = 0
    missing_codes: Annotated[tuple[str, ...], Field(max_length=MOST_NAMED)] = ()
    biggest: Annotated[tuple[Mover, ...], Field(max_length=MOST_NAMED)] | None = None
    name: _NameText | None = None
    missing_names: Annotated[dict[str, _NameText], Field(max_length=MOST_NAMED)] = field(
        default_factory=dict
    )


@cache
def _codec(market: Market) -> Codec[Any]:
    return Codec(_Data[market.record])  # type: ignore[name-defined]


_NOTICES: Final = Codec[_Notice](_Notice)
_USUAL: Final = {*_FLAT, *_Data.__dataclass_fields__}


def data_schemas(references: str) -> dict[str, Any]:
    """Return JSON Schemas by name: `HKData`, `USData` for `data` of an event, and their parts.

    `references`: the `$ref` by which they refer to one another, with `{model}` for the name.
    """
    found: dict[str, Any] = {}
    for market in all_markets():
        schema = _codec(market).schema(references)
        found |= schema.pop("$defs")
        found[f"{market}Data"] = schema
    return found
