"""The United States: FINRA Rule 4560, twice a month."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, time, timedelta
from typing import ClassVar, Final
from zoneinfo import ZoneInfo

from poller.codec import Figure, Whole
from poller.markets.exchange import Exchange
from poller.markets.market import PRICE, SHARES, Bounds, Figures, Labels, Market, SimulationProfile
from poller.markets.record import CoverBound, Record

_EXCHANGE: Final = Exchange.known("ny_stock_exchange", "XNYS")
_DAY: Final = timedelta(days=1)
_MID_MONTH: Final = 15
_BUSINESS_DAYS_TO_RELEASE: Final = 7

DAYS_TO_COVER_FLOOR: Final = 1.00
DAYS_TO_COVER_CAP: Final = 999.99
_COVER_BOUNDS: Final = {
    DAYS_TO_COVER_CAP: CoverBound(
        "days_to_cover_cap",
        "≥ ",
        "999.99 is the highest figure published, also where nothing was traded",
        is_computed=False,
    ),
    DAYS_TO_COVER_FLOOR: CoverBound(
        "days_to_cover_floor", "≤ ", "1.00 is the lowest figure published"
    ),
}


@dataclass(frozen=True, slots=True)
class UsRecord(Record):
    """One settlement day of a US symbol.

    `timestamp`: seconds, 00:00 New York time. `shares_short`, `avg_daily_share_volume`: shares.
    `short_percent`: percent. `days_to_cover`: days (1.00 is a floor, 999.99 a cap).
    """

    shares_short: Whole | None
    short_percent: Figure | None = None
    avg_daily_share_volume: Whole | None = None
    days_to_cover: Figure | None = None
    close_price: Figure | None = None
    last_close_price: Figure | None = None

    SHARES: ClassVar[str] = "shares_short"
    RATIO: ClassVar[str] = "short_percent"
    PRICE_UNIT: ClassVar[str] = "US$"

    @property
    def shares(self) -> int | None:
        """Shares sold short and not yet bought back."""
        return self.shares_short

    @property
    def ratio(self) -> float | None:
        """Short shares in percent; the vendor does not document of what."""
        return self.short_percent

    @property
    def average_volume(self) -> int | None:
        """Shares traded a day, on average over the period of the report."""
        return self.avg_daily_share_volume

    @property
    def cover_bound(self) -> CoverBound | None:
        """The floor or the cap, if days to cover are at it; None: at neither."""
        return None if self.days_to_cover is None else _COVER_BOUNDS.get(self.days_to_cover)

    @property
    def flags(self) -> tuple[str, ...]:
        """Caveats: days to cover at a bound are not the true figure."""
        bound = self.cover_bound
        return () if bound is None else (bound.flag,)


def _reporting_days(start: date) -> Iterator[date]:
    """Yield the 15th and the last day of each month, each moved back to a business day."""
    month = start.replace(day=1)
    while True:
        following = (month + timedelta(days=31)).replace(day=1)
        for nominal in (month.replace(day=_MID_MONTH), following - _DAY):
            day = _EXCHANGE.at_or_before(nominal)
            if day >= start:
                yield day
        month = following


def _due(day: date) -> date:
    return _EXCHANGE.after(day, _BUSINESS_DAYS_TO_RELEASE)


_LENGTHS: Final = ((0.003, 1), (0.04, 2), (0.40, 3), (0.92, 4), (1.0, 5))
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _symbols(chance: Callable[[], float]) -> Iterator[str]:
    """Yield tickers of one to five letters, without end."""
    while True:
        share = chance()
        length = next(length for below, length in _LENGTHS if share < below)
        yield "".join(_LETTERS[int(chance() * len(_LETTERS))] for _ in range(length))


def _record(timestamp: int | None, day: str, made: Figures) -> UsRecord:
    shares = None if made.shares is None else round(made.shares)
    cover = made.cover
    if shares is not None and made.volume is not None:
        cover = days_to_cover(shares, made.volume)
    prices = (made.close, made.last_close)
    return UsRecord(timestamp, day, shares, made.ratio, made.volume, cover, *prices)


def _figures(row: Record) -> Figures:
    volume, last = (
        (row.avg_daily_share_volume, row.last_close_price)
        if isinstance(row, UsRecord)
        else (None, None)
    )
    return Figures(row.shares, row.ratio, volume, row.days_to_cover, row.close_price, last)


def days_to_cover(shares: int, volume: int) -> float:
    """Return days, two decimals, between the floor 1.00 and the cap 999.99 (also: no volume)."""
    if not volume:
        return DAYS_TO_COVER_CAP
    return max(DAYS_TO_COVER_FLOOR, min(DAYS_TO_COVER_CAP, round(shares / volume, 2)))


UNITED_STATES: Final = Market(
    name="US",
    example="AAPL",
    symbol=re.compile(r"[A-Z0-9][A-Z0-9._-]{0,19}", re.ASCII),
    zone=ZoneInfo("America/New_York"),
    record=UsRecord,
    table="us",
    exchange=_EXCHANGE,
    reporting_days=_reporting_days,
    due=_due,
    opening=time(16),
    # exchanges reported long before FINRA; the oldest series that vendors sell begin here
    first_day=date(1973, 1, 1),
    bounds={
        "shares_short": SHARES,
        # undocumented of what; some funds are at several times their shares
        "short_percent": Bounds(0, 10_000),
        "avg_daily_share_volume": SHARES,
        "days_to_cover": Bounds(0, 1_000),
        "close_price": PRICE,
        "last_close_price": PRICE,
    },
    vanishes_from=1_000_000,
    has_cover=True,
    has_rank=True,
    labels=Labels(
        country="United States",
        place="US",
        ratio_source="short_percent, from FINRA; OpenD does not document of what",
        colour="#2461a8",
    ),
    simulation=SimulationProfile(
        symbols=_symbols,
        count=10,
        season=700,
        most=99_999,
        hide=0.0,
        show=1.0,
        repeat=0.01,
        trades=True,
        issued=7.6,
        usual=-0.3,
        record=_record,
        figures=_figures,
        is_index=lambda symbol: symbol.startswith("."),
    ),
)
