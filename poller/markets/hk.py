"""Hong Kong: the SFC's weekly "aggregated reportable short positions"."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, time, timedelta
from typing import ClassVar, Final
from zoneinfo import ZoneInfo

from poller.codec import Figure, Whole
from poller.markets.exchange import FRIDAY, Exchange
from poller.markets.market import PRICE, SHARES, Bounds, Figures, Labels, Market, SimulationProfile
from poller.markets.record import BELOW_THRESHOLD, Record

_EXCHANGE: Final = Exchange.known("hong_kong_stock_exchange", "XHKG")
_WEEK: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class HkRecord(Record):
    """One reporting day of a Hong Kong symbol.

    `timestamp`: seconds, 00:00 Hong Kong time. `aggregated_short`: shares.
    `aggregated_short_ratio`: percent. Prices in the symbol's currency.
    """

    aggregated_short: Whole | None
    aggregated_short_ratio: Figure | None = None
    close_price: Figure | None = None
    last_close_price: Figure | None = None

    SHARES: ClassVar[str] = "aggregated_short"
    RATIO: ClassVar[str] = "aggregated_short_ratio"
    PRICE_UNIT: ClassVar[str] = "in its trading currency"
    IS_ADJUSTED: ClassVar[bool] = False

    @property
    def shares(self) -> int | None:
        """Shares sold short and not yet bought back."""
        return self.aggregated_short

    @property
    def ratio(self) -> float | None:
        """Short shares in percent of the issued shares."""
        return self.aggregated_short_ratio

    @property
    def flags(self) -> tuple[str, ...]:
        """Caveats: 0 shares means below the reporting threshold, not none."""
        return (BELOW_THRESHOLD,) if self.aggregated_short == 0 else ()


def _reporting_days(start: date) -> Iterator[date]:
    """Yield the last scheduled trading day of each ISO week; a week without one has none."""
    friday = start - timedelta(days=start.weekday() - FRIDAY)
    while True:
        day = _EXCHANGE.at_or_before(friday)
        if day > friday - timedelta(days=5) and day >= start:
            yield day
        friday += _WEEK


def _due(day: date) -> date:
    """Return the Friday after the week of a reporting day."""
    return day + timedelta(days=7 + FRIDAY - day.weekday())


_NUMBERS: Final = "[0-9]{5}|[89][0-9]{5}"
"""Pattern of symbols of digits alone: those of six are indices and futures, which OpenD refuses."""


def _hint(symbol: str) -> str | None:
    if not re.fullmatch(r"[0-9]+", symbol, re.ASCII) or re.fullmatch(_NUMBERS, symbol, re.ASCII):
        return None
    number = symbol.lstrip("0").zfill(5)
    fix = f"; write 'HK.{number}'" if re.fullmatch(_NUMBERS, number, re.ASCII) else ""
    return f"Hong Kong symbols have five digits{fix}"


_MAIN_BOARD: Final = 10_000
_TENCENT: Final = 700  # excluded: the simulator has its rows from Futu's documentation page


def _symbols(chance: Callable[[], float]) -> Iterator[str]:
    order = sorted(range(1, _MAIN_BOARD), key=lambda _: chance())
    yield from (f"{number:05}" for number in order if number != _TENCENT)


def _record(timestamp: int | None, day: str, made: Figures) -> HkRecord:
    shares = None if made.shares is None else round(made.shares)
    return HkRecord(timestamp, day, shares, made.ratio, made.close, made.last_close)


def _figures(row: Record) -> Figures:
    last = row.last_close_price if isinstance(row, HkRecord) else None
    return Figures(row.shares, row.ratio, None, None, row.close_price, last)


HONG_KONG: Final = Market(
    name="HK",
    example="00700",
    symbol=re.compile(rf"(?:{_NUMBERS}|(?![0-9]+$)[A-Z0-9][A-Z0-9._-]{{0,19}})", re.ASCII),
    hint=_hint,
    zone=ZoneInfo("Asia/Hong_Kong"),
    record=HkRecord,
    table="hk",
    exchange=_EXCHANGE,
    reporting_days=_reporting_days,
    due=_due,
    opening=time(9),
    first_day=date(2012, 6, 18),  # the Short Position Reporting Rules came into effect
    bounds={
        "aggregated_short": SHARES,
        # of the issued shares: only borrowed ones can be sold short
        "aggregated_short_ratio": Bounds(0, 100),
        "close_price": PRICE,
        "last_close_price": PRICE,
    },
    labels=Labels(
        country="Hong Kong",
        place="Hong Kong",
        ratio_source="aggregated_short_ratio, from the SFC; it fits the issued shares",
        colour="#c0392b",
    ),
    has_rank=True,
    simulation=SimulationProfile(
        symbols=_symbols,
        count=30,
        season=300,
        most=9_000,
        # in equilibrium 38 % are hidden; those repeat themselves, and the others make it 40 %
        hide=0.0368,
        show=0.06,
        repeat=0.07,
        trades=False,
        issued=8.3,
        usual=-1.3,
        record=_record,
        figures=_figures,
        is_index=lambda symbol: symbol.startswith("80") and len(symbol) > len("00700"),
    ),
)
