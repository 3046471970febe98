"""Made-up symbols: their codes, and the figures of each as a seeded random walk. Pure.

The chances are those counted in 396 weekly files of the SFC (2018 to 2026): 38 % of the rows are
0 shares, 40 % repeat the week before, and the other changes have a median of 3.5 %, a 90th
percentile of 19 % and a 99th of 100 %.

Only `Random(text).random()` is used: that sequence is the same in every Python version.
"""

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from random import Random
from threading import Lock
from typing import Final, NamedTuple

from poller.model import Code, Market, market_of

TENCENT: Final = Code("HK.00700")
DAYS_TO_COVER_FLOOR: Final = 1.00
DAYS_TO_COVER_CAP: Final = 999.99

_HK_MAIN_BOARD: Final = 10_000
_US_LENGTHS: Final = ((0.003, 1), (0.04, 2), (0.40, 3), (0.92, 4), (1.0, 5))
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CHANGE_QUANTILES: Final = ((0.0, 0.001), (0.5, 0.035), (0.9, 0.19), (0.99, 1.0), (1.0, 2.5))
_THIN: Final = 0.06
"""Share of US symbols that now and then do not trade at all."""
_LEAST, _MOST = 0.0002, 0.2
"""Bounds of a position as a share of the issued shares; the lower one is the SFC's threshold."""


@lru_cache(maxsize=1 << 16)
def draw(*key: object) -> float:
    """Return the number in [0, 1) that belongs to `key`, always the same one."""
    return Random(":".join(map(str, key))).random()


@lru_cache(maxsize=64)
def hk_codes(seed: int, count: int) -> tuple[Code, ...]:
    """Return `count` different five-digit codes, never Tencent's; fewer is always a prefix."""
    chance = Random(f"{seed}:hk")
    order = sorted(range(1, _HK_MAIN_BOARD), key=lambda _: chance.random())
    codes = [code for number in order if (code := Code(f"HK.{number:05}")) != TENCENT]
    if count > len(codes):
        msg = f"hk is {count}: there are only {len(codes)} plausible Hong Kong codes"
        raise ValueError(msg)
    return tuple(codes[:count])


@lru_cache(maxsize=64)
def us_codes(seed: int, count: int) -> tuple[Code, ...]:
    """Return `count` different tickers of one to five letters; fewer is always a prefix."""
    chance = Random(f"{seed}:us")
    codes: dict[Code, None] = {}
    while len(codes) < count:
        share = chance.random()
        length = next(length for below, length in _US_LENGTHS if share < below)
        letters = (_LETTERS[int(chance.random() * len(_LETTERS))] for _ in range(length))
        codes[Code(f"US.{''.join(letters)}")] = None
    return tuple(codes)


class Figures(NamedTuple):
    """One reporting day: shares short, daily volume (0 in Hong Kong), close, the close before."""

    shares: int
    volume: int
    close: float
    last_close: float


@dataclass(frozen=True, slots=True)
class _Temper:
    """Chances per reporting day: to fall below the threshold, to come back, to repeat exactly."""

    hide: float
    show: float
    repeat: float


_TEMPERS: Final = {
    # in balance 38 % are hidden; hidden weeks repeat by themselves, the rest makes it 40 %
    Market.HK: _Temper(hide=0.0368, show=0.06, repeat=0.07),
    Market.US: _Temper(hide=0.0, show=1.0, repeat=0.01),
}


class Walk:
    """The figures of one symbol, day after day from its first, made when first asked for.

    `issued`: shares. A day's figures depend on its place alone: later days never alter it.
    """

    def __init__(self, seed: int, code: Code) -> None:
        self._temper = _TEMPERS[market_of(code)]
        self._trades = market_of(code) is Market.US
        self._chance = Random(f"{seed}:{code}").random
        self._figures = array("d")
        self._growing = Lock()
        chance, scale = self._chance, 7.6 if self._trades else 8.3
        self.issued = int(10 ** (scale + 2.2 * chance()))
        usual_percent = 10 ** ((-0.3 if self._trades else -1.3) + 1.7 * chance())
        self._usual = self.issued * usual_percent / 100
        self._level = self._usual
        self._usual_volume = self._usual / 10 ** (-0.1 + 1.3 * chance())
        self._thin = chance() < _THIN
        self._close = _price(10 ** (-0.3 + 2.6 * chance()))
        self._shown = chance() < self._temper.show / (self._temper.hide + self._temper.show)

    def at(self, index: int) -> Figures:
        """Return the figures of the symbol's reporting day number `index`, counted from 0."""
        width = len(Figures._fields)
        with self._growing:  # two threads growing at once would interleave their draws
            while len(self._figures) <= index * width:
                self._figures.extend(self._next())
            shares, volume, close, last = self._figures[index * width : (index + 1) * width]
        return Figures(int(shares), int(volume), close, last)

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
        yield self._volume() if self._trades else 0
        yield self._close
        yield _price(self._close * (1 + 0.05 * (chance() - 0.5)))

    def _moved(self) -> float:
        """Return the next position: a step of counted size, rather towards the usual one."""
        size = 1 + _change(self._chance())
        up = self._chance() < 1 / (1 + math.sqrt(self._level / self._usual))
        level = self._level * size if up else self._level / size
        return min(max(level, _LEAST * self.issued), _MOST * self.issued)

    def _volume(self) -> int:
        """Return an average daily volume: none now and then, eightfold now and then."""
        chance = self._chance
        if self._thin and chance() < 0.3:  # noqa: PLR2004  three reports in ten
            return 0
        burst = 8 if chance() < 0.02 else 1  # noqa: PLR2004  one report in fifty
        return int(self._usual_volume * burst * 2 ** (chance() + chance() - 1))


@lru_cache(maxsize=1 << 15)
def walk(seed: int, code: Code) -> Walk:
    """Return the walk of a symbol."""
    return Walk(seed, code)


def days_to_cover(shares: int, volume: int) -> float:
    """Return days, two decimals, between the floor 1.00 and the cap 999.99 (also: no volume)."""
    if not volume:
        return DAYS_TO_COVER_CAP
    return max(DAYS_TO_COVER_FLOOR, min(DAYS_TO_COVER_CAP, round(shares / volume, 2)))


def _price(amount: float) -> float:
    return max(0.01, round(amount, 2 if amount >= 1 else 3))


def _change(share: float) -> float:
    """Return the relative change that a share of all changes stays below."""
    (low, small), (high, large) = next(
        pair for pair in pairwise(_CHANGE_QUANTILES) if share <= pair[1][0]
    )
    return float(small * (large / small) ** ((share - low) / (high - low)))
