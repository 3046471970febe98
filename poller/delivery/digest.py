"""Formats the events of one market and trading day, or notices of releases, as a message. Pure.

Reported figures come as a table, the biggest moves first; then revisions as old → new, then
backfilled days and restated histories. A single event is one sentence, and so is each notice. An
absent figure is shown as –.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import MAXYEAR, date
from itertools import takewhile
from typing import Final, Self

from poller.codec import read_day
from poller.delivery.chat_message import ChatMessage, Line, Part, Table, text_of
from poller.errors import Unreadable
from poller.events import Restated, StreamEvent, StreamNotice
from poller.markets import Market, Shares, is_below_threshold
from poller.model import Cause, Code, market_of, titled
from poller.schedule.calendar import reporting_days
from poller.schedule.notice import Detected, Mover

MOST_ROWS: Final = 20
"""Most rows of a table; `poller tail` shows the rest."""

MOST_BIGGEST: Final = 5
"""Most moves below the notice of a complete release, which has more of them."""

MOST_NAME: Final = 24
"""Characters of a name in a row: enough to know it by."""

_MARKUP: Final = str.maketrans(dict.fromkeys("`*_~<>[]|@#\\", " "))
"""What a chat service may take for formatting, a link, or a mention of everybody."""

_ABSENT: Final = "–"
_BELOW: Final = "below threshold"


@dataclass(frozen=True, slots=True)
class _Row:
    """One event. `ratio`: percent. `change`: in shares. `percent`: of the previous shares.

    `is_below`: the position need not be reported. Its 0 is no figure, so it has no ratio and no
    change either. `was_below`: that is so of the report before, and the change is at most that.
    """

    code: str
    name: str | None
    kind: str
    day: date
    shares: Shares | None
    ratio: float | None
    is_below: bool
    was_below: bool
    days_to_cover: float | None
    previous_day: str | None
    previous_shares: Shares | None
    previous_ratio: float | None
    change: Shares | None
    percent: float | None
    restated: Restated | None

    @classmethod
    def of(cls, event: StreamEvent) -> Self:
        record, previous, change = event.record, event.previous, event.change
        is_below = "below_threshold" in event.flags
        if is_below:
            change = None
        return cls(
            code=event.code,
            name=_unmarked(event.name or "") or None,
            kind=event.kind if event.kind in _LISTED else _REPORTED,
            day=event.trading_day,
            shares=record.shares,
            ratio=None if is_below else record.ratio,
            is_below=is_below,
            was_below=previous is not None and is_below_threshold(previous),
            days_to_cover=record.days_to_cover,
            previous_day=None if previous is None else previous.timestamp_str,
            previous_shares=None if previous is None else previous.shares,
            previous_ratio=None if previous is None else previous.ratio,
            change=None if change is None else change.shares,
            percent=None if change is None else change.percent,
            restated=event.restated,
        )

    @property
    def title(self) -> str:
        """The symbol as a sentence tells of it."""
        return titled(self.code, self.name)

    @property
    def short_title(self) -> str:
        """The symbol as a row tells of it."""
        return titled(self.code, self.name and _cut(self.name, MOST_NAME))

    @property
    def rank(self) -> tuple[bool, float, float, str]:
        """Sort key, biggest move first: by percent, then by shares; below the threshold last."""
        return self.is_below, -abs(self.percent or 0), -abs(self.change or 0), self.code


def _unmarked(name: str) -> str:
    """Return a name without what a chat service may take for formatting or a link."""
    return " ".join(name.replace("://", " ").translate(_MARKUP).split())


def in_characters(message: ChatMessage) -> int:
    """Return the size of a message that is posted as plain text."""
    return len(text_of(message))


def digest(
    events: Sequence[StreamEvent],
    *,
    limit: int,
    missing: int | None = None,
    size: Callable[[ChatMessage], int] = in_characters,
) -> ChatMessage:
    """Return the message for one event or more, all of one market and trading day.

    `limit`: the largest `size` of the message, at least 100. `missing`: how many symbols still lack
    this day; None: unknown.
    """
    rows = sorted(map(_Row.of, events), key=lambda row: row.rank)
    if len(rows) == 1:
        return _fitting("", _sentence(rows[0]), limit, size)
    kinds = {kind: [row for row in rows if row.kind == kind] for kind in (_REPORTED, *_LISTED)}
    market = events[0].market
    numbers = {kind: len(found) for kind, found in kinds.items()}
    numbers = {_REPORTED: numbers[_REPORTED], "missing": missing or 0, **numbers}
    counts = [f"{number:,} {what}" for what, number in numbers.items() if number]
    day = _date(rows[0].day)
    title = f"{market.labels.place} short interest, {day}: {', '.join(counts)}"
    title = _cut(title, limit // 2)
    for most in range(MOST_ROWS, -1, -1):
        message = ChatMessage(title, tuple(_parts(kinds, most)))
        if size(message) <= limit:
            return message
    return _fitting(title, _directions(rows), limit, size)


def _fitting(title: str, text: str, limit: int, size: Callable[[ChatMessage], int]) -> ChatMessage:
    """Return a message with as much of the text as fits."""
    room = limit
    while True:
        message = ChatMessage(title, (_cut(text, room),))
        if room <= 1 or size(message) <= limit:
            return message
        room = room * 3 // 4


def _parts(kinds: Mapping[str, Sequence[_Row]], most: int) -> Iterator[Part]:
    """Yield what stands below the title; each table has at most `most` rows."""
    if reported := kinds[_REPORTED]:
        has_cover = any(row.days_to_cover is not None for row in reported)
        lines = [_cells(row, has_cover=has_cover) for row in reported]
        order = "; largest change in % first" if len(reported) > 1 else ""
        yield _directions(reported) + order
        yield _table(lines, most, _HEADER[: len(lines[0])])
    for kind, cells in _LISTED.items():
        if found := kinds[kind]:
            yield f"{kind.capitalize()}:"
            yield _table([cells(row) for row in found], most)


def _table(lines: Sequence[Line], most: int, header: Line | None = None) -> Table:
    shown = tuple(lines[:most])
    return Table(shown, header, len(lines) - len(shown))


def _directions(rows: Iterable[_Row]) -> str:
    """Count the rows that went up, down or neither; those without a comparison are left out."""
    found = list(rows)
    moves = [row.change for row in found if row.change is not None]
    up, down = sum(move > 0 for move in moves), sum(move < 0 for move in moves)
    below = sum(row.is_below for row in found)
    told = f"{up:,} up, {down:,} down, {len(moves) - up - down:,} unchanged"
    return f"{told}, {below:,} {_BELOW}" if below else told


def announcement(
    notices: Sequence[StreamNotice],
    *,
    limit: int,
    size: Callable[[ChatMessage], int] = in_characters,
) -> ChatMessage:
    """Return the message for one notice or more; `limit`, `size`: see `digest`."""
    return _fitting("", "\n".join(map(_announcement, notices)), limit, size)


def _announcement(notice: StreamNotice) -> str:
    market, day = notice.market.labels.place, _date(notice.trading_day)
    if notice.type == Detected.type:
        first = _titled(notice.code, notice.name) if notice.code else None
        return f"{market}: the report of {day} is out, first seen at {first}."
    words = (
        f"{market}, {day}: the report is complete: {notice.found:,} of {notice.expected:,} symbols"
    )
    named = notice.missing_codes[:MOST_ROWS]
    more = notice.missing - len(named)
    if named:
        titles = (_titled(code, notice.missing_names.get(code)) for code in named)
        words += f"; missing {', '.join(titles)}" + (f" and {more:,} more" if more > 0 else "")
    moves = [f"\n{each.rank}. {_moved(each)}" for each in (notice.biggest or ())[:MOST_BIGGEST]]
    return f"{words}. Biggest moves in shares:{''.join(moves)}" if moves else f"{words}."


def _moved(mover: Mover) -> str:
    percent = "" if mover.percent is None else f" ({mover.percent:+,.2f} %)"
    return f"{_titled(mover.code, mover.name)} {mover.change:+,}{percent}"


def _titled(code: Code, name: str | None) -> str:
    return titled(code, _cut(_unmarked(name or ""), MOST_NAME))


def missing(
    watermarks: Mapping[Code, date], market: Market, day: date, *, selects: Callable[[Code], bool]
) -> int | None:
    """Count the symbols that have the reporting day before `day` and lack `day` itself.

    Symbols that fell behind earlier, being no longer watched or reported, do not count. Returns
    None for years without reports: anybody may append such an entry, and `date` would overflow.

    `selects`: whether the endpoint follows a code.
    """
    if not _OLDEST <= day.year < MAXYEAR:
        return None
    early = reporting_days(market, day - 2 * market.longest_gap)
    *_, before = takewhile(lambda each: each < day, early)
    return sum(
        before <= watermark < day
        for code, watermark in watermarks.items()
        if market_of(code) is market and selects(code)
    )


_OLDEST: Final = 1970
"""There are no reports of earlier years."""

_HEADER: Final = ("symbol", "change", "short", "ratio", "to cover")


def _cells(row: _Row, *, has_cover: bool) -> Line:
    cells = (row.short_title, _change(row), _short(row), _percent(row.ratio))
    if not has_cover:
        return cells
    return (*cells, _ABSENT if row.days_to_cover is None else f"{row.days_to_cover:,.2f} d")


def _revised_cells(row: _Row) -> Line:
    return row.short_title, _change(row), _shares(row.previous_shares), "→", _shares(row.shares)


def _backfilled_cells(row: _Row) -> Line:
    return row.short_title, _short(row), _percent(row.ratio)


def _restated_cells(row: _Row) -> Line:
    if row.restated is None:
        return row.short_title, _ABSENT, _ABSENT
    what, _ = _effect(row.restated)
    factor = "" if row.restated.factor is None else f" × {row.restated.factor:,g}"
    return row.short_title, _days(row.restated), f"{what}{factor}"


_REPORTED: Final = "reported"
_LISTED: Final[Mapping[str, Callable[[_Row], Line]]] = {
    "revised": _revised_cells,
    "backfilled": _backfilled_cells,
    "restated": _restated_cells,
}
"""The kinds of event that are listed below the reported ones → the cells of a row."""


def _effect(restated: Restated) -> tuple[str, str]:
    """Return which figures a restatement changed, and how."""
    match restated.cause:
        case None | Cause.RESCALED:
            by = "" if restated.factor is None else f" by {restated.factor:,g}"
            return "shares", f"were multiplied{by}, as after a split"
        case Cause.RECOMPUTED:
            return "ratios", "were computed anew"
        case Cause.REPLACED:
            return "figures", "were replaced, as when another company gets the code"
        case _:
            return "figures", "changed"


def _days(restated: Restated) -> str:
    return "1 day" if restated.days == 1 else f"{restated.days:,} days"


def _span(restated: Restated) -> str:
    """Return ` from … to …`; "" if the entry has no valid days."""
    try:
        first, last = read_day(restated.first), read_day(restated.last)
    except Unreadable:
        return ""
    return f" from {_date(first)} to {_date(last)}"


def _sentence(row: _Row) -> str:
    """Return one event as a sentence."""
    day, change = _date(row.day), _signed(row.change)
    percent = "" if row.percent is None else f" ({row.percent:+,.2f} %)"
    match row.kind:
        case "revised":
            return (
                f"{row.title} was revised for {day}: {_shares(row.previous_shares)} → "
                f"{_shares(row.shares)} shares short{percent}, ratio "
                f"{_percent(row.previous_ratio)} → {_percent(row.ratio)}."
            )
        case "backfilled":
            return (
                f"{row.title}: {day}, which was missing, was backfilled: {_shares(row.shares)} "
                f"shares short, ratio {_percent(row.ratio)}."
            )
        case "restated":
            return f"{row.title} was restated{_restatement(row.restated)}."
    if row.is_below:
        return f"{row.title} is below the reporting threshold on {day}."
    words = f"{row.title} reported {_shares(row.shares)} shares short on {day}"
    if row.was_below:
        words += f", below the threshold on {_day(row.previous_day)}"
    elif row.change == 0:
        words += f", unchanged since {_day(row.previous_day)}"
    elif row.change is not None:
        words += f", {change}{percent} since {_day(row.previous_day)}"
    words += f"; ratio {_percent(row.ratio)}"
    cover = row.days_to_cover
    return words + ("." if cover is None else f", {cover:,.2f} days to cover.")


def _restatement(restated: Restated | None) -> str:
    if restated is None:
        return ""
    what, how = _effect(restated)
    return f": the {what} of {_days(restated)}{_span(restated)} {how}"


def _change(row: _Row) -> str:
    if row.change == 0:
        return "unchanged"
    if row.percent is None:
        return _ABSENT if row.change is None else "from below" if row.was_below else "from 0"
    return f"{row.percent:+,.2f} %"


def _short(row: _Row) -> str:
    return _BELOW if row.is_below else _shares(row.shares)


def _shares(value: Shares | None) -> str:
    return _ABSENT if value is None else f"{value:,}"


def _signed(value: Shares | None) -> str:
    return _ABSENT if value is None else f"{value:+,}"


def _percent(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:,.2f} %"


def _date(day: date) -> str:
    """Return `13 Nov 2026`."""
    return f"{day.day} {day:%b %Y}"


def _day(text: str | None) -> str:
    """Format a record's day, which may be of any year, in the same way."""
    return _ABSENT if text is None else _date(date.fromisoformat(text))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"[:limit]
