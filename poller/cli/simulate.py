"""`poller simulate`: how late reports would be published, and for how many requests.

The service's own schedule and dispatcher run in virtual time; an oracle gives the lower bound.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter, validators

from poller import show
from poller.cli.options import ConfigFile, SymbolCounts, load_config, whole
from poller.cli.runner import FAILED, WRONG, CommandFailed
from poller.cli.simulation import Measured, Setting
from poller.cli.simulation import simulate as measure
from poller.markets import Market
from poller.settings.config import Config
from poller.simulator.bounds import Latencies, Rate, oracle
from poller.simulator.season import Season
from poller.simulator.world import World

_BARS: Final = "▁▂▃▄▅▆▇█"
BIGGEST: Final = 10
"""Moves of a release whose latencies are told apart."""

BEGAN: Final = datetime(2027, 1, 4, tzinfo=UTC)
"""When every season begins: a fixed Monday, so that a seed always gives the same run."""


_KNOWN: Final = 4
"""Reports of each symbol that precede the season."""

Release = Literal["simultaneous", "staggered", "early", "late"]

_RELEASES: Final[Mapping[Release, dict[str, Any]]] = {
    "simultaneous": {},
    "staggered": {"stagger": timedelta(hours=2)},
    "early": {"shift": timedelta(days=-1)},
    "late": {"shift": timedelta(days=2)},
}

Share = Annotated[float, Parameter(validator=validators.Number(gte=0, lte=0.9))]
Few = Annotated[int, Parameter(converter=whole, validator=validators.Number(gte=1, lte=99))]
_USUAL: Final = SymbolCounts()


def simulate(  # noqa: PLR0913  an option each
    *,
    made_up: Annotated[SymbolCounts, Parameter(name="*")] = _USUAL,  # type: ignore[valid-type]
    weeks: Few = 12,
    seed: Annotated[int, Parameter(converter=whole)] = 1,
    release: Release = "simultaneous",
    without_rows: Share = 0.0,
    gateways: Few = 1,
    accounts: Few = 1,
    faults: Share = 0.0,
    json: bool = False,
    config: ConfigFile = None,
) -> None:
    """Simulate weeks of polling in seconds, and print how late reports would be published.

    Args:
        made_up: symbols of each market
        weeks: how long
        seed: another one gives other instants; the same one the same run
        release: how reports come: all symbols at once, over two hours, a day early or two days late
        without_rows: share of the symbols that never have rows
        gateways: how many OpenD share the work
        accounts: how many accounts they are logged in to; each has a budget of its own
        faults: share of the requests that get no answer
        json: one JSON object
        config: TOML file; its intervals, budget and weights count
    """
    problems = []
    if accounts > gateways:
        problems.append(f"--accounts {accounts}: each needs a gateway; raise --gateways {gateways}")
    counts: dict[str, int] = {name.upper(): count for name, count in asdict(made_up).items()}
    if not any(counts.values()):
        asked = " ".join(f"--{name.lower()} 0" for name in counts)
        problems.append(f"{asked}: there is nothing to poll")
    if problems:
        raise CommandFailed(WRONG, problems)
    played = season(counts, weeks, seed, release, without_rows)
    polled = setting(load_config(config, reading=True), played, gateways, accounts, faults)
    if not plan(polled, as_json=json):
        raise CommandFailed(
            FAILED, ["a report was missed or published twice: a defect, worth reporting"]
        )


def season(
    made_up: Mapping[str, int],
    weeks: int,
    seed: int,
    release: Release = "simultaneous",
    without_rows: float = 0.0,
) -> Season:
    """Return the season of these options. `made_up`: market name → number of symbols."""
    world = World(
        seed=seed,
        made_up=made_up,
        tencent=False,
        without_rows=without_rows,
        since=BEGAN.date(),
        history=_KNOWN,
    )
    return Season(replace(world, **_RELEASES[release]), BEGAN, weeks)


def setting(config: Config, played: Season, gateways: int, accounts: int, faults: float) -> Setting:
    """Return how a configuration polls a season; accounts are assigned to the gateways in turn."""
    return Setting(
        played,
        config.schedule.intervals,
        accounts=tuple(f"account-{n % accounts}" for n in range(gateways)),
        requests=config.budget.requests,
        period=config.budget.period,
        faults=faults,
        weights=config.watchlist.weights,
        hints=config.schedule.hints,
    )


def plan(setting: Setting, *, as_json: bool) -> bool:
    """Simulate the season and print the results; False if a day was missed or published twice."""
    bar = show.progress_bar()
    with bar:
        task = bar.add_task(f"{setting.season.weeks} weeks", total=1.0)
        measured = measure(setting, progress=lambda share: bar.update(task, completed=share))
    ways = compared(setting, measured)
    if as_json:
        sys.stdout.write(json.dumps(facts(ways, measured)) + "\n")
    else:
        _print(ways, measured)
    return not (measured.missed or measured.doubled)


def compared(setting: Setting, measured: Measured) -> dict[str, Latencies]:
    """Return the latencies of the oracle, then those of the service's schedule, by name."""
    rate = Rate(setting.requests * len(set(setting.accounts)), setting.period)
    return {"bound (an oracle)": oracle(setting.season, rate), "this policy": measured.latencies}


def facts(ways: dict[str, Latencies], measured: Measured) -> dict[str, Any]:
    """Return all results, as printed in JSON."""
    bound = next(iter(ways.values()))
    return {
        "ways": [
            {"way": way, **asdict(found), "ratios": _ratios(found, bound)}
            for way, found in ways.items()
        ],
        "biggest": {str(market): asdict(found) for market, found in biggest(measured).items()},
        "mean_weighted_by_move": measured.weighted(),
        "missed": measured.missed,
        "doubled": measured.doubled,
        "most_in_window": measured.most_in_window,
        "trace": measured.trace,
    }


def _ratios(found: Latencies, bound: Latencies) -> dict[str, float | None]:
    pairs = {name: (getattr(found, name), getattr(bound, name)) for name in asdict(found)}
    return {
        name: round(ours / least, 3) if least else None for name, (ours, least) in pairs.items()
    }


def _print(ways: dict[str, Latencies], measured: Measured) -> None:
    bound = next(iter(ways.values()))
    rows = []
    for way, found in ways.items():
        ratios = _ratios(found, bound)
        cells = [_with_ratio(getattr(found, name), ratios[name]) for name in asdict(found)]
        rows.append((way, *cells))
    show.print_table(("", "mean s (x bound)", "p50 s", "p99 s", "requests (x least)"), rows)
    lines = [
        f"{market}: mean latency per release, up to {max(means):,.0f} s  {bars(means)}"
        for market, means in by_market(measured).items()
    ]
    lines += [
        f"{market}: the {BIGGEST} biggest moves of each release: p50 {found.p50:,.1f} s, "
        f"p99 {found.p99:,.1f} s"
        for market, found in biggest(measured).items()
    ]
    lines.append(
        f"{measured.missed} missed, {measured.doubled} published twice, at most "
        f"{measured.most_in_window} requests in a period; trace {measured.trace[:16]}"
    )
    for line in lines:
        show.say(line)


def _with_ratio(value: float, ratio: float | None) -> str:
    return f"{value:,.0f}" + ("" if ratio is None else f" ({ratio:.3g})")


def biggest(measured: Measured) -> dict[Market, Latencies]:
    """Return per market the latencies of the biggest moves of each release."""
    markets = dict.fromkeys(market for market, _ in measured.releases)
    return {
        market: Latencies.of(measured.biggest(market, BIGGEST), measured.requests)
        for market in sorted(markets, key=str)
    }


def by_market(measured: Measured) -> dict[Market, list[float]]:
    """Return per market the mean latency of each release, in seconds and in order."""
    found: dict[Market, list[float]] = {}
    for market, index in sorted(measured.releases, key=lambda each: (each[0].name, each[1])):
        seconds = measured.releases[market, index]
        found.setdefault(market, []).append(sum(seconds) / len(seconds))
    return found


def bars(values: Sequence[float]) -> str:
    """Return a bar per value, scaled to the largest."""
    top = max(values) or 1.0
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] for value in values)
