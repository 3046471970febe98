"""Made-up symbols: their codes, and the figures of each as a seeded random walk. Pure.

The probabilities were counted in 396 weekly files of the SFC (2018 to 2026): 38 % of the rows have
0 shares, 40 % repeat the week before, and the other changes have a median of 3.5 %, a 90th
percentile of 19 % and a 99th of 100 %.

Only `Random(text).random()` is used, whose sequence is the same in every Python version.
"""

import math
from array import array
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from random import Random
from threading import Lock
from typing import Final, NamedTuple

from poller.markets import Market, all_markets
from poller.model import Code, market_of

TENCENT: Final = Code("HK.00700")
_CHANGE_QUANTILES: Final = ((0.0, 0.001), (0.5, 0.035), (0.9, 0.19), (0.99, 1.0), (1.0, 2.5))
_THIN: Final = 0.06
"""Fraction of the symbols that sometimes do not trade at all."""
_LEAST, _MOST = 0.0002, 0.2
"""Bounds of a position as a fraction of the issued shares; the lower is the SFC's threshold."""


@lru_cache(maxsize=1 << 16)
def draw(*key: object) -> float:
    """Return a number in [0, 1), always the same for the same `key`."""
    return Random(":".join(map(str, key))).random()


@lru_cache(maxsize=64)
def codes_of(seed: int, market: Market, count: int) -> tuple[Code, ...]:
    """Return `count` different codes of a market; a smaller count returns a prefix.

    Raises ValueError if there are not so many.
    """
    chance = Random(f"{seed}:{market.name.lower()}").random
    codes: dict[str, None] = {}
    for symbol in market.simulation.symbols(chance):
        if len(codes) == count:
            break
        codes[f"{market}.{symbol}"] = None
    if len(codes) < count:
        most = f"there are only {len(codes)} plausible {market.labels.place} codes"
        msg = f"{market.name.lower()} is {count}: {most}"
        raise ValueError(msg)
    return tuple(map(Code, codes))


def made_up_codes(seed: int, counts: Mapping[str, int]) -> tuple[Code, ...]:
    """Return the codes of all markets. `counts`: how many, by the market's name."""
    return tuple(
        code
        for market in all_markets()
        for code in codes_of(seed, market, counts.get(market.name, 0))
    )


class Step(NamedTuple):
    """One reporting day: shares short, volume (0 where none is reported), close, close before."""

    shares: int
    volume: int
    close: float
    last_close: float


class Walk:
    """The figures of one symbol, day by day from its first, computed on demand.

    `issued`: its number of shares. A day's figures depend only on its index.
    """

    def __init__(self, seed: int, code: Code) -> None:
        self._temper = temper = market_of(code).simulation
        self._chance = Random(f"{seed}:{code}").random
        self._figures = array("d")
        self._growing = Lock()
        chance = self._chance
        self.issued = int(10 ** (temper.issued + 2.2 * chance()))
        usual_percent = 10 ** (temper.usual + 1.7 * chance())
        self._usual = self.issued * usual_percent / 100
        self._level = self._usual
        self._usual_volume = self._usual / 10 ** (-0.1 + 1.3 * chance())
        self._thin = chance() < _THIN
        self._close = _price(10 ** (-0.3 + 2.6 * chance()))
        self._shown = chance() < temper.show / (temper.hide + temper.show)

    def at(self, index: int) -> Step:
        """Return the figures of the symbol's reporting day number `index`, counted from 0."""
        width = len(Step._fields)
        with self._growing:  # two threads at once would interleave their random numbers
            while len(self._figures) <= index * width:
                self._figures.extend(self._next())
            shares, volume, close, last = self._figures[index * width : (index + 1) * width]
        return Step(int(shares), int(volume), close, last)

    def _next(self) -> Iterator[float]:
        """Take one step of the walk and yield its figures."""
        chance = self._chance
        was_shown, temper = self._shown, self._temper
        self._shown = chance() >= temper.hide if was_shown else chance() < temper.show
        if not (was_shown and self._shown and chance() < temper.repeat):
            self._level = self._moved()
        drift = 0.06 * (chance() + chance() + chance() - 1.5)
        self._close = _price(self._close * (1 + drift))
        yield int(self._level) if self._shown else 0
        yield self._volume() if temper.trades else 0
        yield self._close
        yield _price(self._close * (1 + 0.05 * (chance() - 0.5)))

    def _moved(self) -> float:
        """Return the next position: a step of realistic size, preferably towards the usual one."""
        size = 1 + _change(self._chance())
        up = self._chance() < 1 / (1 + math.sqrt(self._level / self._usual))
        level = self._level * size if up else self._level / size
        return min(max(level, _LEAST * self.issued), _MOST * self.issued)

    def _volume(self) -> int:
        """Return an average daily volume: sometimes 0, sometimes eightfold."""
        chance = self._chance
        if self._thin and chance() < 0.3:  # noqa: PLR2004  three reports in ten
            return 0
        burst = 8 if chance() < 0.02 else 1  # noqa: PLR2004  one report in fifty
        return int(self._usual_volume * burst * 2 ** (chance() + chance() - 1))


@lru_cache(maxsize=1 << 15)
def walk(seed: int, code: Code) -> Walk:
    """Return the walk of a symbol."""
    return Walk(seed, code)


def _price(amount: float) -> float:
    return max(0.01, round(amount, 2 if amount >= 1 else 3))


def _change(share: float) -> float:
    """Return the quantile of the relative changes at `share`, from 0 to 1."""
    (low, small), (high, large) = next(
        pair for pair in pairwise(_CHANGE_QUANTILES) if share <= pair[1][0]
    )
    return float(small * (large / small) ** ((share - low) / (high - low)))
