"""What OpenD says of symbols besides their short interest: names, and numbers of shares.

Both calls take many codes, and refuse all of them for one that they do not know. What cannot be
read in an answer is absent: it decides nothing, and is asked for again the next day.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from poller.gateway import vendor
from poller.model import Code, market_of, plain_name

NAME_REQUESTS: Final = 10
NAME_PERIOD: Final = 30.0
"""OpenD's own limit on get_stock_basicinfo."""

NAMES_TOGETHER: Final = 200
"""Codes in one request for names. OpenD documents no limit; an answer then has some 20 kB."""

SHARE_REQUESTS: Final = 60
SHARE_PERIOD: Final = 30.0
"""OpenD's own limit on get_market_snapshot."""

SHARES_TOGETHER: Final = 400
"""OpenD's own limit on the codes in one request for snapshots."""


class ShareCounts(NamedTuple):
    """How many shares of a company there are, and how many of them trade; None: not known."""

    issued: int | None
    outstanding: int | None


def read_names(context: Any, codes: Sequence[Code]) -> dict[Code, str]:  # noqa: ANN401  the SDK has no types
    """Ask for names and read the answer, however long that takes; raises GatewayError."""
    market = market_of(codes[0]).name  # the SDK wants one, and uses the codes' own
    status, answer = context.get_stock_basicinfo(market, code_list=list(codes))
    if status != 0:
        raise vendor.error_of(answer)
    return names_in(answer, codes)


def read_share_counts(context: Any, codes: Sequence[Code]) -> dict[Code, ShareCounts]:  # noqa: ANN401
    """Ask for snapshots and read the answer, however long that takes; raises GatewayError."""
    status, answer = context.get_market_snapshot(list(codes))
    if status != 0:
        raise vendor.error_of(answer)
    return share_counts_in(answer, codes)


def names_in(answer: object, codes: Sequence[Code]) -> dict[Code, str]:
    """Return the names that an answer has for these codes; raises Malformed for no table."""
    found = {}
    for code, name in _cells(answer, codes, "name"):
        if isinstance(name, str) and (plain := plain_name(name)) is not None:
            found[code] = plain
    return found


def share_counts_in(answer: object, codes: Sequence[Code]) -> dict[Code, ShareCounts]:
    """Return the numbers of shares that an answer has for these codes; raises Malformed."""
    return {
        code: ShareCounts(_count(issued), _count(outstanding))
        for code, issued, outstanding in _cells(
            answer, codes, "issued_shares", "outstanding_shares"
        )
    }


def _cells(answer: object, codes: Sequence[Code], *columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield code and cells of each row about one of `codes`, once for each of them."""
    frame, names = vendor.table_of(answer), ("code", *columns)
    vendor.check_columns(frame, names)
    asked = set(codes)
    for code, *cells in zip(*(frame[name].tolist() for name in names), strict=True):
        if isinstance(code, str) and code in asked:
            asked.remove(Code(code))
            yield code, *cells


def _count(cell: object) -> int | None:
    """Return a number of shares; 0 stands for one that is not known, as the field is required."""
    try:
        count = vendor.whole(cell)
    except ValueError:
        return None
    return count if count is not None and 0 < count <= _MOST_SHARES else None


_MOST_SHARES: Final = 2**63 - 1
"""The largest number the message has room for."""
