"""Which markets there are: one a module of this package, and those that are registered besides."""

import pkgutil
from collections.abc import Iterable
from functools import cache
from importlib import import_module

from poller.markets.market import Market

_registered: dict[str, Market] = {}


def register(market: Market) -> None:
    """Add a market; before anybody asks which there are, as patterns and schemas are made of them.

    Raises RuntimeError when somebody has, or when there is one of that name.
    """
    if all_markets.cache_info().currsize:
        raise RuntimeError(f"{market} comes too late: the markets are in use")
    if market.name in _registered:
        raise RuntimeError(f"there are two markets {market}")
    _registered[market.name] = market


@cache  # from the first call on they are what they are
def all_markets() -> tuple[Market, ...]:
    """Return every market, by name."""
    return tuple(_registered[name] for name in sorted(_registered))


def market_named(name: str) -> Market | None:
    """Return the market of this name, or None."""
    return _registered.get(name)


def market_names(between: str, *, after: str = "") -> str:
    """Return the names of all markets as one text: `HK or US`."""
    return between.join(f"{market}{after}" for market in all_markets())


def discover(package: str, folders: Iterable[str]) -> None:
    """Register each market that stands in a module of a package."""
    for module in sorted(found.name for found in pkgutil.iter_modules(folders)):
        contents = vars(import_module(f"{package}.{module}")).values()
        for market in contents:
            if isinstance(market, Market):
                register(market)
