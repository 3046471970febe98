"""Everything in which markets differ: one file per market, discovered in this package.

No other package compares markets or names a vendor's column: every difference is a field of
`Market` or a property of its `Record`.
"""

from poller.markets.market import Figures, Market
from poller.markets.record import (
    SPLIT,
    CoverBound,
    Record,
    Shares,
    columns_of,
    difference,
    exact,
    is_below_threshold,
)
from poller.markets.registry import (
    MARKETS,
    all_markets,
    market_named,
    market_names,
    no_market,
    register,
)

__all__ = [
    "SPLIT",
    "CoverBound",
    "Figures",
    "Market",
    "Record",
    "Shares",
    "all_markets",
    "columns_of",
    "difference",
    "exact",
    "is_below_threshold",
    "market_named",
    "market_names",
    "no_market",
    "register",
]

MARKETS.discover(__name__, __path__)
