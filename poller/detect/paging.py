"""How far a symbol's history is read: pages × known → enough, more, or cut short. Pure."""

from collections.abc import Iterable, Sequence
from datetime import date
from enum import StrEnum
from typing import Final

from poller.detect.compare import Known
from poller.detect.replaced import Judgement, judgement
from poller.detect.restate import restatement
from poller.detect.screening import is_discarded
from poller.errors import Malformed
from poller.model import Code, Page, market_of

PAGE_LIMIT: Final = 400
"""Most pages of 50 rows in one go: over 300 years of weeks, reached only by a looping gateway."""


class Reading(StrEnum):
    """Whether the pages read so far are enough."""

    ENOUGH = "enough"
    MORE = "more"
    CUT = "cut"  # there are no further pages, although the watermark was not reached


def progress(
    code: Code, pages: Sequence[Page], known: Known, *, history: int, since: date | None = None
) -> Reading:
    """Return whether to read on after `pages`.

    Enough means: down to the watermark, or to the oldest known day if the history is restated; for
    a new symbol, `history` days; with `since`, down to that day.
    CUT is for the caller to resolve: moving the watermark now would leave a gap for ever, while
    asking again costs a request. Raises Malformed when the paging runs in circles.
    """
    last = pages[-1]
    days = _days(code, pages)
    reached = _reached(days, known, history, since)
    if reached and (since is not None or not _is_restated_below(code, pages, known)):
        return Reading.ENOUGH
    catching_up = not reached and since is None and known.newest is not None and bool(days)
    if last.next_key is None or not last.records:
        return Reading.CUT if catching_up else Reading.ENOUGH
    earlier, latest = _days(code, pages[:-1]), _days(code, [last])
    looping = bool(earlier) and bool(latest) and min(latest) >= min(earlier)
    repeated = any(page.next_key == last.next_key for page in pages[:-1])
    if not (looping or repeated or len(pages) >= PAGE_LIMIT):
        return Reading.MORE
    if catching_up:
        raise Malformed(
            f"{code}: OpenD's paging does not end ({len(pages)} pages, key {last.next_key!r}, "
            f"oldest day {min(days)}) before the watermark {known.newest}; nothing was published"
        )
    return Reading.ENOUGH


def _days(code: Code, pages: Iterable[Page]) -> set[date]:
    """Return the days on these pages, except impossible ones: they do not show how far it got."""
    first = market_of(code).first_day
    return {record.day for page in pages for record in page.records if record.day >= first}


def _reached(days: set[date], known: Known, history: int, since: date | None) -> bool:
    if since is not None:
        return bool(days) and min(days) <= since
    if known.newest is None:
        return len(days) >= max(history, 1)
    # a single older day may be out of order; reading one more page is cheaper than a gap
    below = sum(day < known.newest for day in days)
    return known.newest in days or below > 1 or (bool(days) and max(days) < known.newest)


def _is_restated_below(code: Code, pages: Sequence[Page], known: Known) -> bool:
    """Return whether a restatement on these pages may go on below them."""
    listed = {record.day: record for page in pages for record in page.records}
    if known.floor is None or not listed or min(listed) <= known.floor:
        return False
    found = restatement(known.vintages, listed)
    if found is None:
        return False
    whole = judgement(market_of(code), known.vintages, known.held, listed)
    if whole is not Judgement.NONE:
        return whole is Judgement.ACCEPTED
    return not is_discarded(known.held, listed[found.days[-1]])
