"""A third market, made up, as somebody would add it: Tokyo, once a month, in columns of its own.

It is registered as the real ones are, before anything else of the program is imported:
`python -m tests.third_market COMMAND` runs it, `pytest -p tests.third_market` runs tests with it.
Its shares have decimals, and its rows come in a table of the SDK under names of another market.
"""

import re
import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, time, timedelta
from fractions import Fraction
from importlib import import_module
from typing import ClassVar, Final
from zoneinfo import ZoneInfo

from poller.codec import Figure
from poller.markets import Figures, Market, Record, register
from poller.markets.exchange import Exchange
from poller.markets.market import PRICE, SHARES, Bounds, Labels, SimulationProfile

_EXCHANGE: Final = Exchange.known("japan_exchange", "XJPX")
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TokyoRecord(Record):
    """One month of a Tokyo symbol.

    `margin_balance`: shares, two decimals. `margin_share`: percent. `settled_at`: yen.
    """

    margin_balance: Figure | None
    margin_share: Figure | None = None
    settled_at: Figure | None = None

    SHARES: ClassVar[str] = "margin_balance"
    RATIO: ClassVar[str] = "margin_share"
    STEP: ClassVar[Fraction] = Fraction(1, 100)
    PRICE_UNIT: ClassVar[str] = "yen"

    @property
    def shares(self) -> float | None:
        """Shares sold short and not yet bought back."""
        return self.margin_balance

    @property
    def ratio(self) -> float | None:
        """Short shares in percent of those in circulation."""
        return self.margin_share

    @property
    def close_price(self) -> float | None:
        """The price at which the month was settled."""
        return self.settled_at


def _reporting_days(start: date) -> Iterator[date]:
    """Yield the last trading day of each month."""
    month = start.replace(day=1)
    while True:
        month = (month + timedelta(days=31)).replace(day=1)
        day = _EXCHANGE.at_or_before(month - _DAY)
        if day >= start:
            yield day


def _symbols(chance: Callable[[], float]) -> Iterator[str]:
    while True:
        yield f"{int(1000 + 9000 * chance())}"


def _record(timestamp: int | None, day: str, made: Figures) -> TokyoRecord:
    whole = made.shares is None or isinstance(made.shares, float)
    shares = made.shares if whole else made.shares + 0.25  # type: ignore[operator]
    return TokyoRecord(timestamp, day, shares, made.ratio, made.close)


TOKYO: Final = Market(
    name="JP",
    example="7203",
    symbol=re.compile(r"[1-9][0-9A-Z]{3}", re.ASCII),
    hint=lambda symbol: "write 'JP.7203'" if symbol == "TOYOTA" else None,
    zone=ZoneInfo("Asia/Tokyo"),
    record=TokyoRecord,
    table="us",
    vendor_names={
        "margin_balance": "days_to_cover",
        "margin_share": "short_percent",
        "settled_at": "close_price",
    },
    exchange=_EXCHANGE,
    reporting_days=_reporting_days,
    due=lambda day: _EXCHANGE.after(day, 10),
    opening=time(16, 30),
    longest_gap=timedelta(days=40),
    first_day=date(2013, 1, 1),
    bounds={"margin_balance": SHARES, "margin_share": Bounds(0, 100), "settled_at": PRICE},
    vanishes_from=5_000_000,
    labels=Labels(
        country="Japan",
        place="Tokyo",
        ratio_source="margin_share, made up for the tests",
        colour="#2e7d32",
    ),
    simulation=SimulationProfile(
        symbols=_symbols,
        count=2,
        season=20,
        most=900,
        hide=0.0,
        show=1.0,
        repeat=0.1,
        trades=False,
        issued=8.0,
        usual=-1.0,
        record=_record,
        figures=lambda row: Figures(row.shares, row.ratio, None, None, row.close_price, None),
        is_index=lambda symbol: not symbol,
    ),
)

if __name__ == "__main__":
    import_module("tests.third_market")  # as a program this file is another module
    runpy.run_module("poller", run_name="__main__", alter_sys=True)
else:
    register(TOKYO)
