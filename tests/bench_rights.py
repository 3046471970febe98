"""The figures of rights and of many accounts: `python -m tests.bench_rights`, after `make bench`.

A market without right beside one with it, two accounts of which one sees less, and the largest
setup that is meant to work, 20 accounts on 50 gateways. All through the SDK, the last one in
virtual time, too.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Final

from poller.cli.simulate import compared, season, setting
from poller.cli.simulation import simulate
from poller.model import Code
from poller.settings.config import Config
from poller.simulator import Proto, SlidingWindow, World
from poller.simulator.replies import Login
from poller.store.redisstore import RedisStore
from tests import benchmarks
from tests.opend import Simulator
from tests.service import Service, later, now, store_of
from tests.test_rights_end_to_end import HK, TEXTS, US, WORLD, asked, page, running

QUICKER: Final = 10
"""How much shorter than in life all intervals are beside a market without right."""

PERIOD: Final = 30.0 / QUICKER
RELEASES: Final = 12
BUDGET: Final = {
    "POLLER_BUDGET__PERIOD": str(PERIOD),
    **{f"POLLER_SCHEDULE__{name}": str(20 / QUICKER) for name in ("DUE", "IDLE", "LATE")},
}
MUTE: Final = "no answer at all"

ACCOUNTS, GATEWAYS = 20, 50
SYMBOLS: Final = {"HK": 2600, "US": 13_600}
WEEKS: Final = 4
MINUTE: Final = 60.0


@dataclass
class Beside:
    """What became of Hong Kong's releases beside a market without right.

    Attributes:
        first: How late the first row of each release was, in seconds.
        share: The other market's share of all requests.
        rebuilds: Connections thrown away.
        unready: Looks at `/readyz` that were not answered 200.
    """

    first: list[float]
    share: float
    rebuilds: int
    unready: int


async def published(store: RedisStore, count: int) -> list[float]:
    """Wait until there are so many entries; returns their instants, in seconds since 1970."""
    while True:
        found = await store.streams.read("0", count=10**6, block=None)
        if len(found) >= count:
            return sorted(int(entry.id.partition("-")[0]) / 1000 for entry in found)
        await asyncio.sleep(0.05)


async def beside(text: str | None, folder: Path) -> Beside:
    """Play releases of 20 symbols, alone (None) or beside 100 that are refused in these words."""
    chance, first, unready = Random(1), list[float](), 0
    async with Simulator(WORLD, requests=30, period=PERIOD) as opend:
        if text == MUTE:
            opend.faults.mute_markets.add("US")
        elif text is not None:
            opend.faults.no_right["US"] = text
        watched = [*HK, *US] if text is not None else HK
        async with running(folder, [opend], watched, **BUDGET) as (service, store):
            await published(store, len(HK))
            for number in range(1, RELEASES + 1):
                await asyncio.sleep(PERIOD * chance.uniform(1, 2))
                at = time.time()
                opend.world = with_a_day_more(opend.world, HK)
                shown = await published(store, (number + 1) * len(HK))
                first.append(next(each for each in shown if each >= at) - at)
                unready += (await page(service, "/readyz"))[0] != 200
            share = asked(opend, "US") / (asked(opend, "US") + asked(opend, "HK"))
            return Beside(first, share, service.told(": connected") - 1, unready)


async def besides() -> str:
    """Return the table of all ways to refuse a market."""
    with tempfile.TemporaryDirectory() as folder:
        ways = [None, *TEXTS, MUTE]
        homes = [Path(folder, str(n)) for n in range(len(ways))]
        found = await asyncio.gather(*map(beside, ways, homes))
    alone = statistics.fmean(found[0].first)
    lines = [
        f"| {'alone' if way is None else f'`{way}`'} | {statistics.fmean(each.first):.2f} "
        f"({statistics.fmean(each.first) / alone:.2f}) | {max(each.first):.2f} | {each.rebuilds} | "
        f"{each.unready} of {RELEASES} | {100 * each.share:.1f} % |\n"
        for way, each in zip(ways, found, strict=True)
    ]
    return (
        f"20 HK codes beside 100 US codes without right, {RELEASES} releases, the first of them "
        f"right after the start, intervals {QUICKER} times shorter than in life. Before rights "
        "were learned the first row came after 38 s and 32 s instead of 3.5 s, ten connections "
        "were thrown away, `/readyz` was 503, and up to 26 of 30 requests went to the US codes. "
        "Goal: 1.2 times as late as alone, no rebuild, always ready, 5 % of the requests:\n\n"
        "| US codes answer | first row, mean s | latest s | rebuilds | not ready | US requests |\n"
        f"|---|---|---|---|---|---|\n{''.join(lines)}\n"
    )


async def two_accounts(text: str, folder: Path) -> str:
    """Return what becomes of twelve symbols that only one of two accounts sees, in real time."""
    async with Simulator(WORLD) as first, Simulator(WORLD) as second:
        first.faults.no_right["US"] = text
        watched = [*HK[:12], *US[:12]]
        real = {"POLLER_BUDGET__PERIOD": "30", "POLLER_SCHEDULE__DUE": "20"}
        async with running(folder, [first, second], watched, **real) as (service, store):
            await service.said("ready")
            began, served = time.monotonic(), set[str]()
            while time.monotonic() < began + MINUTE and len(served) < len(US[:12]):
                found = await store.streams.read("0", count=10**6, block=None)
                served = {e.fields["code"] for e in found if e.fields["code"].startswith("US.")}
                await asyncio.sleep(0.1)
            took = time.monotonic() - began
    return f"| `{text}` | {len(served)} of 12 | {took:.1f} | {asked(first, 'US')} |\n"


async def accounts() -> str:
    """Return the table of two accounts, one without right."""
    with tempfile.TemporaryDirectory() as folder:
        tried = (two_accounts(text, Path(folder, str(n))) for n, text in enumerate(TEXTS))
        lines = await asyncio.gather(*tried)
    return (
        "Two accounts, one without US, the real limit: US symbols served within a minute of the "
        "start (before: 6 of 12):\n\n"
        "| US codes answer | served | after s | requests of the one without |\n"
        f"|---|---|---|---|\n{''.join(lines)}\n"
    )


def bound(symbols: int) -> float:
    """Return the seconds of a sweep in which every account sends all that it may."""
    return 30.0 * ((symbols - 1) // (30 * ACCOUNTS))


def virtually() -> str:
    """Return the sweeps of the largest setup in virtual time."""
    weeks = season(SYMBOLS, WEEKS, 1)
    played = setting(Config(), weeks, GATEWAYS, ACCOUNTS, 0.0)
    began = time.process_time()
    run = simulate(played)
    took = time.process_time() - began
    ways = compared(played, run)
    oracle, ours = ways["bound (an oracle)"], ways["this policy"]
    lines = []
    for market in dict.fromkeys(market for market, _ in run.releases):
        releases = [late for (of, _), late in run.releases.items() if of is market]
        sweep = statistics.fmean(max(late) - min(late) for late in releases)
        size = len(releases[0])
        lines.append(
            f"| {market} | {size:,} | {len(releases)} | {sweep:.1f} | {bound(size):.0f} | "
            f"{sweep / bound(size):.3f} |\n"
        )
    return (
        f"{ACCOUNTS} accounts on {GATEWAYS} gateways, {WEEKS} weeks in virtual time ({took:.0f} s "
        f"of processor for {run.requests:,} requests, OpenD's part included; {run.missed} missed, "
        f"{run.doubled} published twice); mean latency {ours.mean:.1f} s, bound "
        f"{oracle.mean:.1f} s ({ours.mean / oracle.mean:.3f}); from the first row of a release to "
        "its last, goal 1.05 times the bound:\n\n"
        "| market | symbols | releases | sweep s | bound s | ratio |\n"
        f"|---|---|---|---|---|---|\n{''.join(lines)}\n"
    )


def processor(service: Service) -> float:
    """Return the seconds of processor the service's process has used."""
    assert service.process is not None
    fields = Path(f"/proc/{service.process.pid}/stat").read_text(encoding="utf-8").split()
    return sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")


async def for_real(folder: Path) -> str:
    """Return a sweep of Hong Kong by the real process at the real limit, all symbols watched.

    The first look at every symbol is taken under a much wider limit, and not measured.
    """
    world = World(
        made_up=SYMBOLS,
        tencent=False,
        without_rows=0.0,
        history=2,
        since=now().date() - timedelta(days=400),
        shift=timedelta(days=200),
    )
    names = [f"account-{n % ACCOUNTS}" for n in range(GATEWAYS)]
    logins = [Login(n % ACCOUNTS + 1) for n in range(GATEWAYS)]
    gateways = [Simulator(world, login=login, remember=1) for login in logins]
    limit(gateways, 1.0)
    for gateway in gateways:
        await gateway.start()
    hong_kong = [code for code in world.codes() if code.startswith("HK.")]
    service = Service(folder, gateways[0].port, ",".join(world.codes()))
    service.settings = {
        "POLLER_WATCHLIST__HISTORY": "1",
        "POLLER_BUDGET__PERIOD": "1",
        "POLLER_SCHEDULE__DUE": "20",
        "POLLER_SCHEDULE__IDLE": "2400",
        "POLLER_SCHEDULE__LATE": "20",  # the simulator's day is overdue
        **{f"POLLER_OPEND__{n}__PORT": str(gateway.port) for n, gateway in enumerate(gateways)},
        **{f"POLLER_OPEND__{n}__ACCOUNT": name for n, name in enumerate(names)},
    }
    async with store_of(service) as store:
        await service.start()
        while len(await store.records.watermarks()) < len(world.codes()):
            await asyncio.sleep(1)
        await service.stop()
        limit(gateways, 30.0)
        service.settings = {**service.settings, "POLLER_BUDGET__PERIOD": "30"}
        await service.start()
        await asyncio.sleep(45)
        idle, seen = processor(service), time.time()
        await asyncio.sleep(15)
        idle = (processor(service) - idle) / (time.time() - seen)
        before = await store.records.watermarks()
        reported = with_a_day_more(world, hong_kong)
        at, spent = time.time(), processor(service)
        for gateway in gateways:
            gateway.world = reported
        while any(
            day == before[code]
            for code, day in (await store.records.watermarks()).items()
            if code.startswith("HK.")
        ):
            await asyncio.sleep(1)
        core = (processor(service) - spent) / (time.time() - at)
        found = await store.streams.read("0", count=10**6, block=None)
        times = [int(entry.id.partition("-")[0]) / 1000 for entry in found]
        sweep = max(times) - min(each for each in times if each >= at)
        await service.stop()
    most = max(gateway.most_in_window() for gateway in gateways)
    for gateway in gateways:
        with suppress(ExceptionGroup):
            await gateway.close()
    least = bound(len(hong_kong))
    return (
        f"The same by the real process through the SDK, {len(hong_kong):,} HK symbols of "
        f"{len(world.codes()):,} watched, at the real limit: **{sweep:.1f} s**, bound "
        f"{least:.0f} s ({sweep / least:.3f}), with {100 * core:.0f} % of a core (goal 30 %), "
        f"{100 * idle:.1f} % before the release; at most {most} requests of an account in a "
        "period.\n"
    )


def limit(gateways: Sequence[Simulator], period: float) -> None:
    """Let the gateways of each account share a limit of 30 requests per period from now on."""
    windows = [SlidingWindow(30, period) for _ in range(ACCOUNTS)]
    for number, gateway in enumerate(gateways):
        gateway.windows[Proto.SHORT_INTEREST] = windows[number % ACCOUNTS]


def with_a_day_more(world: World, codes: Sequence[Code]) -> World:
    """Return a world in which these symbols of Hong Kong show one more day."""
    shown = {code: world.records(code, now()) for code in codes}
    extra = {code: (later(rows[0], days=1), *rows) for code, rows in shown.items()}
    return replace(world, extra=extra)


def measure() -> str:
    """Measure everything and return the section."""
    with tempfile.TemporaryDirectory() as folder:
        real = asyncio.run(for_real(Path(folder, "home")))
    return asyncio.run(besides()) + asyncio.run(accounts()) + virtually() + real


if __name__ == "__main__":
    section = measure()
    sys.stdout.write(section)
    benchmarks.write("## Rights and accounts", section)
