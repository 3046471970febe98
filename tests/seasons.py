"""Seasons for tests and benchmarks, and what simpler ways of polling would cost in one. Pure."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import takewhile
from math import ceil

from poller.markets import Market, all_markets
from poller.schedule.calendar import is_trading_day, release_of
from poller.simulator.bounds import Latencies, Rate, releases
from poller.simulator.season import Season
from poller.simulator.series import draw

_DAY = timedelta(days=1)


def trading_days(market: Market, start: date) -> Iterator[date]:
    """Yield, without end, the days on which a market trades."""
    while True:
        if is_trading_day(market, start):
            yield start
        start += _DAY


def daily(season: Season) -> Season:
    """Let every trading day be reported, in the morning of the next one."""
    world = season.world
    first = season.began.date() - timedelta(days=60)
    instants = {}
    for market in all_markets():
        for day in takewhile(lambda day: day <= season.ends.date(), trading_days(market, first)):
            nine = datetime.combine(_working_day(market, day + _DAY), time(9), market.zone)
            hours = draw(world.seed, "release", market, day)
            instants[market, day] = (nine + timedelta(hours=hours)).astimezone(UTC)
    return replace(season, world=replace(world, reports=trading_days, releases=instants))


def after_holidays(season: Season) -> Season:
    """Let reports whose usual day is a holiday come on the trading day after it, not before."""
    moved = {}
    for market, days in season.days.items():
        for day in days:
            usual = season.world.begins(market, day)
            later = _working_day(market, market.due(day)) - release_of(market, day).opens.date()
            moved[market, day] = (usual.astimezone(market.zone) + later).astimezone(UTC)
    return replace(season, world=replace(season.world, releases=moved))


def _working_day(market: Market, day: date) -> date:
    return next(trading_days(market, day))


def round_robin(season: Season, rate: Rate) -> Latencies:
    """Poll the whole list again and again at the full rate."""
    places = {code: place for place, code in enumerate(season.world.codes())}
    found = []
    for appearing in releases(season):
        for code, appears in appearing.items():
            first = rate.requests * ceil(appears / rate.period)
            turn = first + (places[code] - first) % len(places)
            found.append(rate.slot(turn) - appears)
    return Latencies.of(found, int(season.length / rate.period) * rate.requests)


def daily_clocks(season: Season) -> Latencies:
    """Poll each symbol once a day at an hour of its own."""
    day = _DAY.total_seconds()
    found = [
        (day * draw(season.world.seed, "clock", code) - appears) % day
        for appearing in releases(season)
        for code, appears in appearing.items()
    ]
    return Latencies.of(found, len(season.world.codes()) * 7 * season.weeks)
