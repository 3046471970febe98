"""Mistakes that no test can notice, with the reason: `make mutants` does not make them."""

import itertools
from collections.abc import Mapping
from typing import Final

_ANY_START: Final = "only that it grows counts"
_SET: Final = "it is set before anybody reads it"
_UNREAD: Final = "nobody reads what the script returns"
_HK: Final = "poller/markets/hk.py"
_MARKET: Final = "poller/schedule/market.py"
_ENABLE: Final = "poller/delivery/lua/enable.lua"
_FRIDAY: Final = "if day > friday - timedelta(days=5) and day >= start:"
_VERSION: Final = "self.version = 0  # grows with whatever `state` tells"
_SCHEDULE: Final = "poller/schedule/schedule.py"
_FAILED: Final = "grown: timedelta = due * 2 ** min(max(symbol.failures - 1, 0), 16)"
_REFUSED: Final = (
    "pause = min(idle * 2 ** min(symbol.failures - 1, 16), once_a_day(self._intervals))"
)
_TYPED: Final = "whoever calls it knows that there is one: the other half is for the type checker"
_SPLIT: Final = "poller/detect/split.py"
_SPLIT_LINES: Final = (
    "was, shares = before.shares or 1, now.shares or 1",
    "moved, price = shares / was, (now.close_price or 1) / (before.close_price or 1)",
)
_LARGE: Final = "it only keeps the number from growing without end: the other bound is far below"
UNNOTICEABLE: Final[Mapping[tuple[str, str, str], str]] = {
    (_HK, _FRIDAY, "(day >= start)"): (
        "no week from 1990 to 2060 is without a trading day in Hong Kong"
    ),
    (_HK, _FRIDAY, "(6)"): "the day five days before a Friday is a Sunday",
    (_MARKET, _VERSION, "(-1)"): _ANY_START,
    (_MARKET, _VERSION, "(1)"): _ANY_START,
    (_MARKET, "self.version += 1", "(2)"): _ANY_START,
    (
        _MARKET,
        "if head(self._fresh) is not None or self._lags() is None:",
        "(head(self._fresh) is not None)",
    ): _TYPED,
    (
        _MARKET,
        "reference = lags[0][1].watermark or reference",
        "(lags[0][1].watermark)",
    ): "whoever is wanted has a watermark: the other half is for the type checker",
    **dict.fromkeys(
        itertools.product(
            ["poller/delivery/resolver.py"],
            ["self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET"],
            ["(1)", "(-1)"],
        ),
        "whoever looks a name up gives a port",
    ),
    ("poller/events.py", "if not fields.keys() >= _NAMES:", "(fields.keys() > _NAMES)"): (
        "a shortcut: what stands in the fields goes before the data in any case"
    ),
    **dict.fromkeys(
        itertools.product(
            ["poller/supervisor.py"], ["step = min(left, LONGEST_TURN / 2)"], ["(1)", "(3)"]
        ),
        "any part of a turn is soon enough to beat",
    ),
    (
        "poller/codec.py",
        "first = problem.errors(include_url=False, include_context=False, include_input=False)[0]",
        "(True)",
    ): "of each error the place and the words are read, and nothing else",
    ("poller/polling/watchlist.py", "changed_at: float = 0.0", "(1.0)"): _SET,
    ("poller/polling/watchlist.py", "changed_at: float = 0.0", "(-1.0)"): _SET,
    ("poller/events.py", "missing: int = 0", "(1)"): _SET,
    ("poller/events.py", "missing: int = 0", "(-1)"): _SET,
    **dict.fromkeys(itertools.product([_SCHEDULE], [_FAILED, _REFUSED], ["(15)", "(17)"]), _LARGE),
    **dict.fromkeys(itertools.product([_SPLIT], _SPLIT_LINES, ["(0)", "(2)"]), _TYPED),
    (
        "poller/detect/screening.py",
        "and now.previous.day <= earlier.day < now.day",
        "(now.previous.day <= earlier.day <= now.day)",
    ): "a day is screened once a round, so that none waits of the same day",
    ("poller/polling/watchlist.py", "self._signalled = news(WATCHLIST)", "pass"): _SET,
    **dict.fromkeys(
        itertools.product(
            ["poller/store/lua/spend.lua"],
            ["redis.call('PEXPIRE', key, math.ceil((ARGV[1] + ARGV[2]) / 500))"],
            ["499", "501"],
        ),
        "it has to outlast the period, no more",
    ),
    **dict.fromkeys(
        itertools.product(
            ["poller/store/lua/announce.lua"],
            ["redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])"],
            ["2", "4"],
        ),
        "the ids count: nobody reads what stands beside them",
    ),
    ("poller/delivery/lua/exchange.lua", "if hold > 0 then", "-1"): (
        "a hold that has passed holds nothing, whenever it was"
    ),
    (_ENABLE, "return 1", "2"): _UNREAD,
    (_ENABLE, "return 1", "0"): _UNREAD,
}
"""Mistakes that are none: file, the line, what part of it would be → why nothing shows it."""
