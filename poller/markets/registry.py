"""The registry of markets: one in each module of this package, and those registered by others."""

from typing import Final

from poller.markets.market import Market
from poller.registry import Registry

MARKETS: Final = Registry(Market, "markets")
register, all_markets, market_named = MARKETS.register, MARKETS.all, MARKETS.named


def market_names(between: str, *, after: str = "") -> str:
    """Return the names of all markets as one text: `HK or US`."""
    return between.join(f"{market}{after}" for market in all_markets())


def no_market(name: str) -> str:
    """Return that this is no market's name, and which are."""
    return f"{name!r} is no market: write {market_names(' or ')}"
