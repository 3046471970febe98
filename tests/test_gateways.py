"""Several OpenDs under one service: two accounts sweep twice as fast, one account is one budget."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from poller.simulator import Proto, SlidingWindow, World
from poller.simulator.replies import Login
from poller.store.redisstore import RedisStore
from poller.store.store import Entry
from tests.machine import scaled
from tests.opend import Simulator, Verdict
from tests.service import Service, entries, later, now, store_of

REQUESTS, PERIOD = 30, min(scaled(3.0), 6.0)  # so that the limit decides, not the processor
SYMBOLS = 105  # not whole periods of either rate: a probe in between costs nothing
ROOM = timedelta(days=200)  # since the last report of the world
WORLD = World(
    made_up={"HK": SYMBOLS},
    tencent=False,
    without_rows=0.0,
    history=3,
    since=now().date() - 2 * ROOM,
    shift=ROOM,
)


def opend(window: SlidingWindow | None = None) -> Simulator:
    """Return a gateway of the account that `window` counts, one of its own if absent."""
    return Simulator(WORLD, requests=REQUESTS, period=PERIOD, window=window)


@contextlib.asynccontextmanager
async def service(
    folder: Path, accounts: Sequence[tuple[Simulator, str]]
) -> AsyncIterator[tuple[Service, RedisStore]]:
    """Make a service on these gateways that looks at a market once a period; it ends well."""
    made = Service(folder, accounts[0][0].port, ",".join(WORLD.codes()))
    made.settings = {
        "POLLER_BUDGET__PERIOD": str(PERIOD),
        "POLLER_WATCHLIST__HISTORY": "1",
        **{f"POLLER_SCHEDULE__{name}": str(PERIOD) for name in ("DUE", "IDLE", "LATE")},
    }
    for number, (gateway, account) in enumerate(accounts):
        made.settings |= {
            f"POLLER_OPEND__{number}__PORT": str(gateway.port),
            f"POLLER_OPEND__{number}__ACCOUNT": account,
        }
    async with store_of(made) as store:  # which makes the folder
        try:
            yield made, store
        finally:
            assert await made.stop() == 0


def release(gateways: Sequence[Simulator]) -> None:
    """Let every gateway report one more day of every symbol."""
    world, moment = gateways[0].world, now()
    shown = {code: world.records(code, moment) for code in world.codes()}
    extra = {
        code: (later(rows[0], days=1, aggregated_short=(rows[0].shares or 0) + 1), *rows)
        for code, rows in shown.items()
    }
    for gateway in gateways:
        gateway.world = replace(world, extra=extra)


def span(found: Sequence[Entry]) -> float:
    """Return the seconds from the first of these entries to the last, on the server's clock."""
    at = [int(entry.id.partition("-")[0]) / 1000 for entry in found]
    return max(at) - min(at)


def nothing_lost(found: Sequence[Entry], days: int) -> None:
    """Check that every symbol has so many different days, in order."""
    told: dict[str, list[str]] = {code: [] for code in WORLD.codes()}
    for entry in found:
        told[entry.fields["code"]].append(entry.fields["trading_day"])
    for code, shown in told.items():
        assert len(shown) == days, code
        assert shown == sorted(set(shown)), code


async def swept(running: Service, store: RedisStore) -> float:
    """Start on symbols never seen before; returns how many a second are published.

    A budget's worth is there at once, so a period before the first one counts, too.
    """
    await running.start()
    found = await entries(store, SYMBOLS)
    nothing_lost(found, 1)
    return SYMBOLS / (span(found) + PERIOD)


async def test_two_accounts_sweep_twice_as_fast(tmp_path: Path) -> None:
    """Side by side with one: twice the rate. One of them gone amid a sweep: the other goes on.

    It then sweeps the rest at its own rate, and no symbol is lost or told twice.
    """
    async with opend() as alone, opend() as first, opend() as second:
        double = service(tmp_path / "double", [(first, "main"), (second, "other")])
        async with double as (two, shown):
            async with service(tmp_path / "single", [(alone, "main")]) as (one, store):
                rate, twofold = await asyncio.gather(swept(one, store), swept(two, shown))
            assert 1.3 < twofold / rate < 2.8, (rate, twofold)

            release([first, second])
            await entries(shown, SYMBOLS + SYMBOLS // 5)
            await second.close()
            gone, asked = time.monotonic(), len(first.seen)
            nothing_lost(await entries(shown, 2 * SYMBOLS), 2)
            own = (len(first.seen) - asked) / (time.monotonic() - gone)
            assert own > 0.5 * rate, (rate, own)
        for gateway in (alone, first, second):
            assert gateway.most_in_window() <= REQUESTS
            assert all(one.verdict is not Verdict.TOO_FREQUENT for one in gateway.seen)


async def test_gateways_of_one_account_are_one_budget(tmp_path: Path) -> None:
    """Both are asked, and together within the limit of the account."""
    window = SlidingWindow(REQUESTS, PERIOD)
    async with opend(window) as first, opend(window) as second:
        both = [(first, "main"), (second, "main")]
        async with service(tmp_path / "home", both) as (running, store):
            await running.start()
            nothing_lost(await entries(store, SYMBOLS), 1)
        asked = [[s.at for s in g.seen if s.proto == Proto.SHORT_INTEREST] for g in (first, second)]
        assert min(map(len, asked)) > SYMBOLS / 4
        assert window.most <= REQUESTS


async def test_two_accounts_of_one_user_are_one_budget(tmp_path: Path) -> None:
    """From the first request on, in one service and in two side by side; told once, with the cure.

    Three gateways, under three names, of a user whose requests one window counts.
    """
    window, user = SlidingWindow(REQUESTS, PERIOD), Login(user=7)
    async with opend(window) as first, opend(window) as second, opend(window) as third:
        for gateway in (first, second, third):
            gateway.login = user
        both = service(tmp_path / "home", [(first, "main"), (second, "other")])
        async with both as (running, store):
            url = str(store.url)
            alone = service(tmp_path / "desk", [(third, "desk")])
            async with alone as (beside, _):
                redis = {"POLLER_REDIS__URL": url, "POLLER_REDIS__NAMESPACE": "desk"}
                beside.settings = {**beside.settings, **redis}
                await asyncio.gather(running.start(), beside.start())
                # both share one limit: seven periods at the least, whoever is served first
                nothing_lost(await entries(store, SYMBOLS, seconds=90), 1)
                await third.until_seen(REQUESTS)
        told = (
            "accounts: [[opend]] 1 (account main) and 2 (account other) are logged in as the same"
        )
        assert running.told(told) == running.told("give them the same account") == 1
        assert not beside.told("accounts:")
        # the one ledger does not promise each of the two accounts a share of it
        assert window.most <= REQUESTS
        for gateway in (first, second, third):
            assert all(one.verdict is not Verdict.TOO_FREQUENT for one in gateway.seen)
