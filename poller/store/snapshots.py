"""What is read of a symbol, and what a commit writes of it: texts ↔ values. Pure.

Every text may have been edited by another client: an unreadable one is a StoreMisfit that names its
key and the command that fixes it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from hashlib import blake2b

from poller.codec import read_day
from poller.detect.compare import Comparison, Known
from poller.detect.held import Decision, QuarantinedFigure
from poller.errors import StoreMisfit, Unreadable
from poller.model import Code, Vintage, market_of
from poller.store.store import Keys, Snapshot, Write


def digest_of(texts: object) -> bytes:
    """Return a digest of these texts, to compare them without keeping them."""
    return blake2b(repr(texts).encode(errors="surrogatepass"), digest_size=16).digest()


def read_snapshot(
    code: Code,
    watermark: str,
    history: Mapping[str, str],
    vintages: Mapping[str, str],
    held: Mapping[str, str],
    *,
    keys: Keys,
    read: Callable[[Code, str, str, str], Vintage] | None = None,
) -> Snapshot:
    """Parse a symbol's raw texts. Vintages are the source of truth; history mirrors the newest.

    So a history entry that was edited or removed is restored, and no event id is ever used twice. A
    day without vintages counts by its history entry. `read`: `read_vintage`, or a cached one.
    """
    read = read or read_vintage
    truth = {each.day: each for each in read_vintages(code, vintages, keys=keys, read=read)}
    raw: dict[date, str] = {}
    alone: dict[date, Vintage] = {}
    for name, text in history.items():
        day = _read_day(name, keys.history(code))
        raw[day] = text
        if day not in truth:
            alone[day] = read(code, text, name, keys.history(code))
    wrong = [
        vintage
        for day, vintage in truth.items()
        # compare the texts first: encoding every vintage at each poll would be expensive
        if raw.get(day) != vintages.get(f"{day}:{vintage.revision}")
        and raw.get(day) != vintage.to_json()
    ]
    edited = [vintage.day for vintage in wrong if vintage.day in raw]
    missing = [vintage.day for vintage in wrong if vintage.day not in raw]
    notes = tuple(
        _restored(keys.history(code), days, how)
        for days, how in ((edited, "edited by hand"), (missing, "missing"))
        if days
    )
    kept = {_read_day(name, keys.held(code), any_year=True): text for name, text in held.items()}
    known = Known(
        _read_watermark(code, watermark, keys=keys),
        alone | truth,
        {day: _read_held(code, day, text, keys.held(code)) for day, text in kept.items()},
    )
    newest = max(known.vintages, default=None)
    if newest is not None and known.watermark is not None and known.watermark > newest:
        raise StoreMisfit(
            f"{keys.watermark}: the watermark of {code} is {watermark}, but history ends at "
            f"{newest}; put it back: HSET {keys.watermark} {code} {newest}"
        )
    return Snapshot(known, watermark, raw, kept, tuple(wrong), notes)


def _restored(key: str, days: Sequence[date], how: str) -> str:
    if len(days) == 1:
        return f"{key}: the entry of {days[0]} was {how}; restored from its vintage"
    return (
        f"{key}: {len(days)} entries from {min(days)} to {max(days)} were {how}; "
        "restored from their vintages"
    )


def _typed(name: str) -> str:
    """Return a field's name as it must be typed in redis-cli."""
    if re.fullmatch(r"[\w.:-]+", name, re.ASCII):
        return name
    shown = (
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\x{byte:02x}"  # noqa: PLR2004
        for byte in name.encode(errors="surrogateescape")
    )
    return f'"{"".join(shown)}"'


def _read_day(name: str, key: str, *, any_year: bool = False) -> date:
    try:
        return read_day(name, any_year=any_year)  # a figure may be held because of its year
    except Unreadable:
        raise StoreMisfit(
            f"{key}: the field {name!r} is not a day; remove it: HDEL {key} {_typed(name)}"
        ) from None


def read_vintage(code: Code, text: str, name: str, key: str) -> Vintage:
    """Parse the entry `name` of a hash; raises StoreMisfit with the fix."""
    try:
        vintage = Vintage.from_json(market_of(code), text)
        if str(vintage.day) != name.partition(":")[0]:
            raise Unreadable(f"it tells of {vintage.day}")
    except Unreadable as problem:
        raise StoreMisfit(
            f"{key}: the entry {name!r} is unusable ({problem}); remove it and the day is read "
            f"again: HDEL {key} {_typed(name)}"
        ) from None
    return vintage


def _read_held(code: Code, day: date, text: str, key: str) -> QuarantinedFigure:
    try:
        held = QuarantinedFigure.from_json(market_of(code), text)
        if held.day != day:
            raise Unreadable(f"it tells of {held.day}")
    except Unreadable as problem:
        raise StoreMisfit(
            f"{key}: the entry '{day}' is unusable ({problem}); remove it and the day is judged "
            f"again: HDEL {key} {day}"
        ) from None
    return held


def read_vintages(
    code: Code,
    texts: Mapping[str, str],
    *,
    keys: Keys,
    read: Callable[[Code, str, str, str], Vintage] = read_vintage,
) -> list[Vintage]:
    """Parse the vintages hash, oldest day and revision first."""
    found = [read(code, text, name, keys.vintages(code)) for name, text in texts.items()]
    return sorted(found, key=lambda vintage: (vintage.day, vintage.revision))


def _read_watermark(code: Code, text: str, *, keys: Keys) -> date | None:
    if not text:
        return None
    try:
        return read_day(text)
    except Unreadable:
        msg = (
            f"{keys.watermark}: the watermark of {code} is {text!r}, not a day; remove it and it "
            f"is found again from history: HDEL {keys.watermark} {code}"
        )
        raise StoreMisfit(msg) from None


def writes_of(comparison: Comparison, snapshot: Snapshot) -> list[Write]:
    """Return the days a commit writes: the events' vintages, the unpublished ones, the repairs."""
    fresh = [event.vintage for event in comparison.events] + list(comparison.unpublished)
    writes = [_write(vintage, snapshot, vintage.revision) for vintage in fresh]
    replaced = {vintage.day for vintage in fresh}
    writes += [_write(v, snapshot, None) for v in snapshot.repairs if v.day not in replaced]
    return writes


def _write(vintage: Vintage, snapshot: Snapshot, revision: int | None) -> Write:
    expected = snapshot.history.get(vintage.day, "")
    return Write(str(vintage.day), expected, vintage.to_json(), revision)


def held_writes_of(comparison: Comparison, snapshot: Snapshot) -> list[Write]:
    """Return the held days a commit writes or removes."""
    texts = dict.fromkeys(comparison.settled, "")
    texts |= {each.day: each.to_json() for each in comparison.held}
    return [Write(str(day), snapshot.held.get(day, ""), text) for day, text in texts.items()]


def quarantine_entries(code: Code, comparison: Comparison) -> list[dict[str, str]]:
    """Return the quarantine stream's entries of a commit: what is newly held, not the decisions."""
    return [each.fields(code) for each in comparison.held if each.decision is Decision.HELD]


def as_known_at(vintages: Sequence[Vintage], moment: datetime | None) -> list[Vintage]:
    """Return each day as it was known at `moment` (None: now), newest day first."""
    newest: dict[date, Vintage] = {}
    for vintage in vintages:
        if moment is None or vintage.observed_at <= moment:
            newest[vintage.day] = vintage
    return [newest[day] for day in sorted(newest, reverse=True)]
