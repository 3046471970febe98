"""What a request asks for: a view, a symbol, a report. Each refusal says what to write."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from typing import Final

from aiohttp import web

from poller.codec import read_day
from poller.errors import BadCode, Unreadable
from poller.markets import Market, market_named, market_names
from poller.model import Code, isoformat, parse_code
from poller.schedule import report
from poller.web.watchlist_view import MOST_PER_PAGE, ONLY, PER_PAGE, PERCENT, SORTS, View

MOST_TOP: Final = 10**6

_REPORT_SORTS: Final = (*report.SORTS, *report.HISTORY_SORTS)
"""What a report can be ranked by."""

_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}t[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(z|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII | re.IGNORECASE,
)
_ENTERED: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?", re.ASCII)
"""What browsers send of a field for a time."""

_NUMBER: Final = re.compile(r"[0-9]{1,7}", re.ASCII)


def view_of(query: Mapping[str, str], usual: str = "code") -> View:
    """Return the view that the parameters ask for, or raise HTTPBadRequest with the fix.

    `usual`: the sort if none is asked for, with a minus if the largest comes first.
    """
    market, sort = query.get("market", ""), query.get("sort", usual)
    moved, only = query.get("moved", ""), query.get("only", "")
    chosen = market_named(market)
    if market and chosen is None:
        raise web.HTTPBadRequest(text=f"market: {market!r} is unknown; use {market_names(', ')}")
    if sort.removeprefix("-") not in SORTS:
        known = ", ".join(SORTS)
        raise web.HTTPBadRequest(text=f"sort: {sort!r} is unknown; use {known}, or -{known[:4]}")
    if moved and not re.fullmatch(PERCENT, moved, re.ASCII):
        raise web.HTTPBadRequest(text=f"moved: {moved!r} is no percentage, like 10 or 2.5")
    if only not in ONLY:
        known = ", ".join(filter(None, ONLY))
        raise web.HTTPBadRequest(text=f"only: {only!r} is unknown; use {known}")
    return View(
        query.get("q", ""),
        chosen,
        sort.removeprefix("-"),
        sort.startswith("-"),
        whole(query, "page", 1, 10**6),
        moved,
        only,
        usual,
        whole(query, "size", PER_PAGE, MOST_PER_PAGE),
    )


def code_of(request: web.Request) -> Code:
    """Return the code in the path, or raise HTTPBadRequest with the fix."""
    try:
        return parse_code(request.match_info["code"])
    except BadCode as problem:
        raise web.HTTPBadRequest(text=str(problem)) from None


def whole(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """Return a number from 1 to `most`, or raise HTTPBadRequest."""
    text = query.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= most:
        raise web.HTTPBadRequest(text=f"{name}: {text!r} is no number from 1 to {most}")
    return int(text)


@dataclass(frozen=True, slots=True)
class ReportAsked:
    """A report that is asked for. `day`: None for the newest. `sort`: one of `sorts_of`."""

    market: Market
    day: date | None
    sort: str
    top: int

    @property
    def needs_history(self) -> bool:
        """Whether the whole history of each symbol has to be read for its rank."""
        return self.sort in report.HISTORY_SORTS


def sorts_of(market: Market) -> list[str]:
    """Return what a report of this market can be ranked by."""
    return [sort for sort in _REPORT_SORTS if sort != "days_to_cover" or market.has_cover]


def report_asked(request: web.Request, top: int, most: int) -> ReportAsked:
    """Return the report in path and query, or raise HTTPBadRequest with the fix.

    `top`: how many symbols if the query names no number; `most`: how many at most.
    """
    name, text = request.match_info["market"], request.match_info.get("day")
    market = market_named(name.upper())
    if market is None:
        raise web.HTTPBadRequest(text=f"{name!r} is no market: use {market_names(' or ')}")
    try:
        day = None if text is None else read_day(text, any_year=True)
    except Unreadable:
        raise web.HTTPBadRequest(text=f"{text!r} is no day: write it like 2026-04-30") from None
    sort, known = request.query.get("sort", "change"), sorts_of(market)
    if sort not in known:
        raise web.HTTPBadRequest(
            text=f"sort: {sort!r} does not rank a report of {market}; use {', '.join(known)}"
        )
    return ReportAsked(market, day, sort, whole(request.query, "top", top, most))


def check_names(asked: Iterable[str], known: Collection[str]) -> None:
    """Raise HTTPBadRequest if a parameter that is `asked` for is not `known`."""
    for name in asked:
        if name not in known:
            reason = _REASONS.get(name, "")
            use = f"use {', '.join(known)}" if known else "there is none here"
            raise web.HTTPBadRequest(text=f"{name!r} is no parameter of this{reason}; {use}")


_REASONS: Final = {"as_known_at": ", as reports are shown as last revised, not as once known"}


def known_at(request: web.Request) -> datetime | None:
    """Return the instant (aware) as of which a history is asked for; None: now."""
    text = request.query.get("as_known_at")
    if text is None:
        return None
    refusal = web.HTTPBadRequest(
        text=f"as_known_at: {text!r} is no time with its zone: write it like 2026-05-08T10:00:00Z"
    )
    if not _MOMENT.fullmatch(text):
        raise refusal
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:
        raise refusal from None


def entered(request: web.Request, zone: tzinfo) -> str | None:
    """Return the time that a visitor entered, "" for none, as the address has it.

    None if the address has a time with its zone, or none at all. `zone`: of the field.
    """
    text = request.query.get("as_known_at")
    if text == "":
        return text
    if text is None or not _ENTERED.fullmatch(text):
        return None
    try:
        return isoformat(datetime.fromisoformat(text).replace(tzinfo=zone))
    except (ValueError, OverflowError):
        return None
