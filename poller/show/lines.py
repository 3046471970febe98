"""`tail`: a line for each event or release notice, wrapped between values on a narrow terminal."""

from collections.abc import Iterable, Iterator
from datetime import UTC
from typing import Final

from rich.text import Text

from poller.events import Foreign, StreamEvent, StreamNotice, decode
from poller.markets import Shares
from poller.model import Cause, Change, titled
from poller.printable import printable
from poller.show.tables import number
from poller.show.terminal import LINE_LIMIT, fitted, parts_of
from poller.store.store import Entry

_COLOURS: Final = {
    "reported": "green",
    "revised": "yellow",
    "backfilled": "dim",
    "restated": "magenta",
    "detected": "yellow",
    "completed": "green",
}

_NAMED: Final = 10  # missing symbols in a line of a release
_BIGGEST: Final = 3  # moves in one

_INDENT: Final = 16
"""Columns before each further line of an event: below its symbol."""


_NOTHING: Final = Text()


def entry_line(entry: Entry, before: Text = _NOTHING) -> Text:
    """Return one line of `tail`: time (UTC), symbol, day, kind, shares, ratio, change, name.

    The name is last, because wide characters in it would shift the columns after it. `before`: what
    stands before all that.
    """
    event = decode(entry.id, entry.fields)
    if not isinstance(event, StreamEvent):
        return _foreign(entry, event, before)
    parts = [*_figures(event)]
    if event.name:
        parts.append(Text(f"  {event.name}", "dim"))
    return _after(before, parts)


def _figures(event: StreamEvent) -> Iterator[Text]:
    yield _start(event, event.code, event.kind)
    if "below_threshold" in event.flags:  # an unreported figure has no ratio and no change
        yield Text(f" {'below threshold':>21}")
        return
    yield Text(f" {number(event.record.shares):>15} short")
    ratio = event.record.ratio
    yield Text(f"  {'-' if ratio is None else f'{ratio:.2f}'} %", "dim")
    if (restated := event.restated) is not None:
        yield Text(f"  {restated.days} days from {restated.first}")
        if restated.factor is not None:
            yield Text(f" × {restated.factor:g}")
        if restated.cause == Cause.RECOMPUTED:
            yield Text(f" {restated.column}")
    elif event.change is not None:
        yield Text("  ").append(*_change(event.change))
        if event.change.split_factor is not None:
            yield Text(f"  split × {event.change.split_factor:g}")


def release_line(entry: Entry, before: Text = _NOTHING) -> Text:
    """Return one line of `tail --releases`: time (UTC), market, day, kind, who lacks it, who moved.

    Only the three biggest moves are shown; the notice has more. `before`: as in `entry_line`.
    """
    notice = decode(entry.id, entry.fields)
    if not isinstance(notice, StreamNotice):
        return _foreign(entry, notice, before)
    return _after(before, _release(notice))


def _release(notice: StreamNotice) -> Iterator[Text]:
    yield _start(notice, notice.market.name, notice.type.rpartition(".")[2])
    if notice.code is not None:
        yield Text(" first shown by")
        yield Text(f" {titled(notice.code, notice.name)}")
        return
    missing, named = notice.missing, notice.missing_titles(_NAMED)
    biggest = (notice.biggest or ())[:_BIGGEST]
    ends = ";" if missing or biggest else ""
    yield Text(f" {notice.found or 0:,} of {notice.expected or 0:,} symbols{ends}")
    more = f"and {missing - len(named):,} more" if missing > len(named) else ""
    for place, title in enumerate(named, 1):
        end = "," if place < len(named) else "" if more else ";" if biggest else ""
        yield Text(f" {'' if place > 1 else 'missing: '}{title}{end}", "dim")
    if more:
        yield Text(f" {more}{';' if biggest else ''}", "dim")
    for place, each in enumerate(biggest, 1):
        yield Text(f" {'' if place > 1 else 'biggest: '}{titled(each.code, each.name)}")
        yield (
            Text(" ")
            .append(*_moved(each.change, each.percent))
            .append("," * (place < len(biggest)))
        )


def _start(message: StreamEvent | StreamNotice, subject: str, kind: str) -> Text:
    line = Text()
    line.append(f"{message.observed_at.astimezone(UTC):%m-%d %H:%M:%S}  ", "dim")
    line.append(f"{subject:<9}", "bold")
    line.append(f" {message.trading_day}  ")
    return line.append(f"{kind:<10}", _COLOURS.get(kind, ""))


def _after(before: Text, parts: Iterable[Text]) -> Text:
    first, *others = parts
    return fitted([before + first, *others], indent=len(before) + _INDENT)


def _foreign(entry: Entry, found: StreamEvent | StreamNotice | Foreign, before: Text) -> Text:
    why = f" ({found.reason})" if isinstance(found, Foreign) else ""
    line = f"{entry.id} is not an event of this service{why}: {dict(entry.fields)}"
    return _after(before, parts_of(printable(line, LINE_LIMIT), "red"))


def _change(change: Change) -> tuple[str, str]:
    if change.shares is None:
        return "change unknown", "dim"
    if not change.shares:
        return "unchanged", "dim"
    return _moved(change.shares, change.percent)


def _moved(shares: Shares, percent: float | None) -> tuple[str, str]:
    part = "" if percent is None else f" ({percent:+.2f} %)"
    return f"{shares:+,}{part}", "red" if shares > 0 else "cyan"
