"""The poller as a process, the unmodified SDK over TCP, the simulator, a real server."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from poller.markets import Record
from poller.markets.hk import HkRecord
from poller.model import Code
from poller.simulator import World
from poller.store.redis_status import RedisStatusStore
from tests.feed import publish
from tests.machine import at_most
from tests.opend import Simulator
from tests.service import (
    Service,
    entries,
    later,
    now,
    poller,
    simulator,
    store_of,
    until,
    with_rows,
)

TENCENT = Code("HK.00700")


@pytest.fixture
async def opend() -> AsyncIterator[Simulator]:
    """An OpenD that knows HK.00700 with the ten rows of the vendor's page."""
    async with simulator(World()) as running:
        yield running


@pytest.fixture
async def service(tmp_path: Path, opend: Simulator) -> AsyncIterator[Service]:
    """A service that watches HK.00700, not started; stopped at the end."""
    made = Service(tmp_path, opend.port, TENCENT)
    yield made
    if made.process is not None and made.process.returncode is None:
        await made.stop()


async def test_the_vendors_rows_reach_a_subscriber(service: Service) -> None:
    """At first sight the ten rows are on the stream, oldest first, and SIGTERM ends with 0."""
    await service.start()
    async with store_of(service) as store:
        found = await entries(store, 10)
        watermarks = await store.records.watermarks()
    days = [entry.fields["trading_day"] for entry in found]
    assert days == sorted(days)
    assert (days[0], days[-1], len(days)) == ("2026-02-27", "2026-04-30", 10)
    assert {entry.fields["type"] for entry in found} == {"short_interest.backfilled"}
    last = json.loads(found[-1].fields["data"])
    assert last["record"] == {
        "timestamp": 1777478400,
        "timestamp_str": "2026-04-30",
        "aggregated_short": 51480638,
        "aggregated_short_ratio": 0.56,
        "close_price": 467.8,
        "last_close_price": 479.2,
    }
    assert last["change"]["shares"] == 51480638 - 51888755
    assert str(watermarks[TENCENT]) == "2026-04-30"
    assert await service.stop() == 0


async def test_new_day_then_revision(service: Service, opend: Simulator) -> None:
    """A newer day is reported with its change; other figures of it are a revision, once."""
    await service.start()
    rows = opend.world.records(TENCENT, now())
    async with store_of(service) as store:
        await entries(store, 10)
        new = later(rows[0], days=8, aggregated_short=60_000_000)
        opend.world = with_rows(opend.world, TENCENT, (new, *rows))
        reported = (await entries(store, 11))[-1]
        revised_row = later(rows[0], days=8, aggregated_short=61_000_000)
        opend.world = with_rows(opend.world, TENCENT, (revised_row, *rows))
        found = await entries(store, 12)
        before = len(opend.seen)
        await opend.until_seen(before + 5)
        assert len(await entries(store, 12)) == 12
    assert reported.fields["id"] == "HK.00700:2026-05-08:0"
    assert reported.fields["type"] == "short_interest.reported"
    revised = found[-1].fields
    assert (revised["id"], revised["type"]) == (
        "HK.00700:2026-05-08:1",
        "short_interest.revised",
    )
    assert json.loads(revised["data"])["change"]["shares"] == 1_000_000
    assert json.loads(revised["data"])["previous"]["aggregated_short"] == 60_000_000


def rescaled(record: Record, factor: int) -> Record:
    """Return a record after a split."""
    assert isinstance(record, HkRecord)
    return replace(record, aggregated_short=(record.aggregated_short or 0) * factor)


async def test_a_split_is_one_event(service: Service, opend: Simulator) -> None:
    """Ten days that rescale by one factor are one entry; history holds them all rescaled."""
    await service.start()
    rows = opend.world.records(TENCENT, now())
    async with store_of(service) as store:
        await entries(store, 10)
        split = tuple(rescaled(record, 4) for record in rows)
        opend.world = with_rows(opend.world, TENCENT, split)
        last = (await entries(store, 11))[-1].fields
        await opend.until_seen(len(opend.seen) + 5)
        assert len(await entries(store, 11)) == 11
        known = (await store.records.snapshot(TENCENT)).known.vintages
    assert (last["id"], last["type"]) == ("HK.00700:2026-04-30:1", "short_interest.restated")
    assert json.loads(last["data"])["restated"] == {
        "factor": 4.0,
        "days": 10,
        "from": "2026-02-27",
        "to": "2026-04-30",
        "column": "aggregated_short",
        "cause": "rescaled",
    }
    assert {vintage.record for vintage in known.values()} == set(split)
    tail = await poller(service, "tail", "--from", "0", "--count", "11")
    assert "10 days from 2026-02-27 × 4" in tail[1].splitlines()[-1]


async def test_another_company_waits_for_the_operator(service: Service, opend: Simulator) -> None:
    """One figure stands for the whole answer; released without naming a day, it is one event."""
    await service.start()
    rows = opend.world.records(TENCENT, now())
    other = tuple(
        replace(row, aggregated_short=90_000 + 7_000 * (n * n % 5))
        for n, row in enumerate(rows)
        if isinstance(row, HkRecord)
    )
    async with store_of(service) as store:
        await entries(store, 10)
        opend.world = with_rows(opend.world, TENCENT, other)
        await service.said("poller quarantine release HK.00700 2026-04-30")
        (held,) = json.loads((await poller(service, "quarantine", "list", "--json"))[1])
        assert (held["reason"], held["state"]) == ("whole_history_changed", "held")
        assert len(await entries(store, 10)) == 10
        done = await poller(service, "quarantine", "release", TENCENT)
        assert (done[0], "all days with it released" in done[1]) == (0, True)
        last = (await entries(store, 11))[-1].fields
        known = (await store.records.snapshot(TENCENT)).known.vintages
        again = await poller(service, "quarantine", "release", TENCENT)
    assert (last["type"], json.loads(last["data"])["restated"]["cause"]) == (
        "short_interest.restated",
        "replaced",
    )
    assert {vintage.record for vintage in known.values()} == set(other)
    assert (again[0], "nothing waits for a decision" in again[2]) == (1, True)


async def test_a_slipped_unit_waits_for_the_operator(service: Service, opend: Simulator) -> None:
    """It is held and named in the log with the command to type; released, it is reported."""
    await service.start()
    rows = opend.world.records(TENCENT, now())
    slip = later(rows[0], days=8, aggregated_short=51_480_638_000)
    async with store_of(service) as store:
        await entries(store, 10)
        opend.world = with_rows(opend.world, TENCENT, (slip, *rows))
        await service.said("poller quarantine release HK.00700 2026-05-08")
        shown = await poller(service, "quarantine", "list", "--json")
        (held,) = json.loads(shown[1])
        assert (held["code"], held["reason"], held["state"]) == (TENCENT, "unit_slip", "held")
        gaps = await poller(service, "gaps", TENCENT)
        assert (gaps[0], "2026-05-08 (held: unit_slip)" in gaps[1]) == (0, True)
        assert (await poller(service, "quarantine", "discard", TENCENT, "2026-05-01"))[::2] == (
            1,
            "poller: HK.00700: 2026-05-01 is not held; see: poller quarantine list\n",
        )
        assert len(await entries(store, 10)) == 10
        assert (await poller(service, "quarantine", "release", TENCENT, "2026-05-08"))[0] == 0
        last = (await entries(store, 11))[-1].fields
    assert (last["id"], last["type"]) == ("HK.00700:2026-05-08:0", "short_interest.reported")
    await service.said("nothing is held any more")
    assert (await poller(service, "quarantine", "list", "--json"))[1] == "[]\n"


async def test_missed_days_over_several_pages(service: Service, opend: Simulator) -> None:
    """170 days missed while down come oldest first and whole; the budget holds."""
    rows = opend.world.records(TENCENT, now())
    await service.start()
    async with store_of(service) as store:
        await entries(store, 10)
        assert await service.stop() == 0
        missed = tuple(
            later(rows[0], days=n, aggregated_short=50_000_000 + n) for n in range(170, 0, -1)
        )
        opend.world = with_rows(opend.world, TENCENT, missed + rows)
        await service.start()
        found = await entries(store, 180)
    new = [entry.fields["trading_day"] for entry in found[10:]]
    assert new == [row.timestamp_str for row in reversed(missed)]
    assert {entry.fields["type"] for entry in found[10:]} == {"short_interest.reported"}
    assert opend.most_in_window() <= 30


async def test_a_refused_code_does_not_hold_up_the_others(tmp_path: Path, opend: Simulator) -> None:
    """A code OpenD does not know is named in the log once; the good one is published."""
    service = Service(tmp_path, opend.port, "HK.99999,HK.00700")
    await service.start()
    async with store_of(service) as store:
        await entries(store, 10, TENCENT)
    await service.said("HK.99999: OpenD refuses it: unknown code (未知股票); kept out")
    assert await service.stop() == 0


async def test_opend_may_come_later(tmp_path: Path) -> None:
    """Without OpenD the service waits and says so; once it is there, rows come by themselves."""
    opend = simulator(World())
    await opend.start()
    port = opend.port
    await opend.close()
    service = Service(tmp_path, port, TENCENT)
    await service.start()
    await service.said(
        f"OpenD 127.0.0.1:{port}: nobody listens (Connection refused): is OpenD started"
    )
    await opend.start(port=port)
    async with store_of(service) as store:
        await entries(store, 10)
    assert await service.stop() == 0
    await opend.close()


@pytest.mark.parametrize("way", ["kick", "cut", "refuse_login"])
async def test_a_broken_connection_is_replaced(
    service: Service, opend: Simulator, way: str
) -> None:
    """After a kick, a reply cut in the middle or a refused login, new rows come again."""
    await service.start()
    rows = opend.world.records(TENCENT, now())
    async with store_of(service) as store:
        await entries(store, 10)
        if way == "cut":
            opend.faults.cut = 50
            await service.said("the connection was lost")
        else:
            opend.faults.refuse_login = "未登录" if way == "refuse_login" else None
            gateway = f"OpenD 127.0.0.1:{opend.port}: "
            before = service.told(gateway)
            opend.faults.kick()
            await until(lambda: service.told(gateway) > before)
            if way == "refuse_login":
                await service.said(f"{gateway}it accepts connections")
        opend.faults.refuse_login = None
        new = later(rows[0], days=8, aggregated_short=60_000_000)
        opend.world = with_rows(opend.world, TENCENT, (new, *rows))
        async with at_most(60):
            await entries(store, 11)
    assert await service.stop() == 0
    told = [line["event"] for line in service.log() if line["level"] == "warning"]
    assert all(text.startswith("OpenD ") for text in told)


async def test_a_simulation_never_mixes_with_what_opend_reports(
    service: Service, tmp_path: Path
) -> None:
    """Where the one has published, the other refuses to start, names the stream and the cure."""
    await service.start()
    async with store_of(service) as store:
        await entries(store, 10)
    assert await service.stop() == 0
    code, _, err = await poller(service, "run", "--simulate")
    assert code == 1
    assert "the stream short-interest is for what OpenD reports" in err
    assert "Traceback" not in err
    (tmp_path / "simulation").mkdir()
    simulation = replace(service, state_dir=tmp_path / "simulation")
    async with store_of(simulation) as store:
        await store.mark.forbid_mixing(simulated=True)
    code, _, err = await poller(simulation, "run")
    assert code == 1
    assert "what a simulation makes up" in err
    code, _, err = await poller(simulation, "backfill", "HK.00700", "--since", "2026-01-01")
    assert code == 1
    assert "what a simulation makes up" in err
    assert "Traceback" not in err


async def test_commands_tell_what_a_simulation_watches(tmp_path: Path) -> None:
    """Not what is configured; days its story has not reached yet are no gaps, others are."""
    simulation, watched = Service(tmp_path, 1, TENCENT), (Code("HK.00005"), Code("HK.00011"))
    async with store_of(simulation) as store:
        await store.mark.forbid_mixing(simulated=True)
        status_store = RedisStatusStore(store.url, "short-interest")
        await status_store.save_symbols([*watched, Code("US.MSFT")])
        await status_store.close()
        await store.watchlist.watch([Code("US.MSFT")], wanted=True)
        await store.watchlist.watch([Code("HK.00011")], wanted=False)
        await publish(store, watched[0], [703, 717])  # 2021-12-03 and two weeks later
        _, listed, _ = await poller(simulation, "watch", "list", "--json")
        _, gaps, _ = await poller(simulation, "gaps", "--json")
    sources = {row["code"]: row["sources"] for row in json.loads(listed)}
    assert sources == {"HK.00005": "simulation", "US.MSFT": "watch add"}
    missing = {row["code"]: row["missing"] for row in json.loads(gaps)}
    assert missing == {"HK.00005": ["2021-12-10"], "US.MSFT": []}


async def test_wrong_configuration_is_refused_whole(service: Service) -> None:
    """Every problem is named with its key, exit code 2, no traceback, nothing was asked."""
    service.settings = {
        "POLLER_BUDGET__REQUESTS": "0",
        "POLLER_SCHEDUL__DUE": "3",
        "POLLER_WATCHLIST__CODES": "HK.700",
    }
    code, _, err = await poller(service, "run")
    assert code == 2
    assert "POLLER_BUDGET__REQUESTS" in err
    assert "did you mean POLLER_SCHEDULE__DUE" in err
    assert "HK.00700" in err
    assert "Traceback" not in err


async def test_the_live_watchlist_and_the_readers(tmp_path: Path) -> None:
    """`watch add` takes effect in the running service; history, tail and backfill agree."""
    world = World(made_up={"HK": 3}, without_rows=0.0)
    code = world.codes()[1]
    async with simulator(world) as opend:
        service = Service(tmp_path, opend.port, TENCENT)
        service.settings = {"POLLER_WATCHLIST__HISTORY": "3"}
        await service.start()
        async with store_of(service) as store:
            await entries(store, 3)
            added = await poller(service, "watch", "add", code)
            assert added == (0, f"{code} watched\n", "")
            found = await entries(store, 3, code)
            exit_code, out, _ = await poller(service, "history", code, "--format", "json")
            assert exit_code == 0
            shown = [row["timestamp_str"] for row in json.loads(out)]
            assert shown == [entry.fields["trading_day"] for entry in reversed(found)]
            tail = await poller(service, "tail", "--from", "0", "--count", "2", "--json")
            assert len(tail[1].splitlines()) == 2
            assert (await poller(service, "backfill", code))[0] == 0
            truth = world.records(code, now())
            assert len(await entries(store, len(truth), code)) == len(truth)
        assert (await poller(service, "check"))[0] == 0
        assert await service.stop() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["history", "HK.700"],
        ["watch", "add", "SH.600519"],
        ["tail", "--from", "rubbish"],
        ["history"],
        ["release", "SH"],
        ["export", "--format", "parquet"],
        ["export", "--format", "csv", "-o", "missing/history.csv"],
        ["history", "HK.00700", "--as-known-at", "soon"],
        ["backfill"],
        ["quarantine", "release"],
        ["quarantine", "discard", "HK.00700", "soon"],
        ["quarantine", "release", "HK.700", "2026-05-08"],
        ["gaps", "HK.700"],
        ["run", "--config", "missing.toml"],
        ["nonsense"],
        ["simulate", "--hk", "-1"],
        ["simulate", "--hk", "0", "--us", "0"],
        ["simulate", "--accounts", "2"],
        ["simulate", "--release", "daily"],
    ],
)
async def test_wrong_usage_is_told_in_a_line(service: Service, arguments: list[str]) -> None:
    """What a user types wrongly gets a line and exit code 2, never a traceback."""
    code, out, err = await poller(service, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("poller: ")
    assert "Traceback" not in err


async def test_why_nothing_was_heard(service: Service) -> None:
    """`explain` tells watermark, looks, the next one and why; also that nobody polls."""
    await service.start()
    async with store_of(service) as store:
        await entries(store, 10)
        out = ""
        async with at_most(30):
            # the last polls and the plan are two reports, one after the other
            while "newest day 2026-04-30" not in out or "is late" not in out:
                code, out, _ = await poller(service, "explain", TENCENT)
                assert code == 0
        assert "watermark" in out
        assert "is late" in out.partition("next poll")[2]
        other = Service(service.state_dir, 1, TENCENT, {"POLLER_BUDGET__REQUESTS": "20"})
        assert "spent of 30" in (await poller(other, "explain", TENCENT))[1]
        assert "no: poller watch add US.MSFT" in (await poller(service, "explain", "US.MSFT"))[1]
        standby = Service(service.state_dir, 1, "US.AAPL")
        told = (await poller(standby, "explain", "US.AAPL"))[1]
        assert "the active poller has another watchlist" in told
        assert await service.stop() == 0
        assert "nobody polls" in (await poller(service, "explain", TENCENT))[1]
