"""Reads OpenD's list of a market's symbols, largest short position first. Parsed here, once.

`get_short_selling_rank` shows 35 symbols a request on a limit of its own. Its figures carry no day,
and how soon they follow a report is not known: a hint where news may be, and never news itself.
"""

from typing import Any, Final

from poller.codec import LARGEST_WHOLE
from poller.errors import Malformed, Outdated
from poller.gateway import vendor
from poller.markets import Market
from poller.model import RANK_PAGE, RankPage, parse_code

MOST_SYMBOLS: Final = 100_000
"""No market has so many symbols."""

_ORDER: Final = {"sort_field": "POSITION_VOLUME", "sort_dir": "DESCENDING"}
_COLUMNS: Final = ("security", "short_position_volume")


def read_rank(context: Any, market: Market, offset: int) -> RankPage:  # noqa: ANN401  the SDK has no types
    """Ask for the symbols from `offset` on, however long that takes; raises GatewayError."""
    call = getattr(context, "get_short_selling_rank", None)
    if call is None:
        raise Outdated("this futu-api has no rank of short positions: install 10.11 or later")
    status, answer = call(market=market.name, count=RANK_PAGE, offset=offset, **_ORDER)
    if status != 0:
        raise vendor.error_of(answer)
    return rank_page_of(market, answer)


def _parts(answer: object) -> tuple[int, Any]:
    match answer:
        case (int(total), frame) if hasattr(frame, "columns"):
            return total, frame
        case _:
            raise Malformed(f"the SDK returned {type(answer).__name__} where a list belongs")


def rank_page_of(market: Market, answer: object) -> RankPage:
    """Return the typed page, without what is no figure of this market; raises Malformed."""
    total, frame = _parts(answer)
    if not {*_COLUMNS} <= {*frame.columns} or not frame.columns.is_unique:
        raise Malformed(f"the SDK's list lacks {' or '.join(_COLUMNS)}")
    if not 0 <= total <= MOST_SYMBOLS:
        raise Malformed(f"OpenD says that its list has {total} symbols")
    positions = {}
    for name, shares in zip(*(frame[column].tolist() for column in _COLUMNS), strict=True):
        try:
            code, figure = parse_code(str(name)), vendor.whole(shares)
        except ValueError:
            continue  # a warrant, an index, a text: nothing this service asks for
        if code.startswith(f"{market}.") and figure is not None and 0 <= figure <= LARGEST_WHOLE:
            positions[code] = figure
    return RankPage(total, positions)
