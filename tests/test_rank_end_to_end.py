"""The rank of a market, read through the unmodified SDK: it orders a sweep, and costs nothing."""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from poller.errors import Malformed
from poller.gateway.rank import rank_page_of
from poller.markets.hk import HONG_KONG
from poller.model import Code
from poller.simulator import Proto, World, replies
from poller.simulator.ranking import Ranking
from tests.opend import Simulator
from tests.service import Service, entries, later, now, poller, simulator, until
from tests.test_rights_end_to_end import running

WORLD = World(
    made_up={"HK": 70},
    tencent=False,
    without_rows=0.0,
    history=3,
    since=now().date() - timedelta(days=400),
    shift=timedelta(days=200),
)
HK = WORLD.codes()
HINTED = {"POLLER_SCHEDULE__DUE": "1", "POLLER_SCHEDULE__LATE": "1"}


def ranked(opend: Simulator, offset: int = 0) -> int:
    """Return how often a page of the rank was asked for."""
    return sum(seen.proto == Proto.RANK and seen.code == str(offset) for seen in opend.seen)


def asked(opend: Simulator, since: float) -> list[str]:
    """Return the symbols asked for from then on, in order."""
    return [s.code for s in opend.seen if s.proto == Proto.SHORT_INTEREST and s.at >= since]


def release(opend: Simulator, moves: Mapping[Code, float]) -> float:
    """Report one more day of every symbol, moved by these factors; return when."""
    extra = {}
    for code in HK:
        rows = opend.world.records(code, now())
        shares = round((rows[0].shares or 0) * moves.get(code, 1.0))
        extra[code] = (later(rows[0], days=1, aggregated_short=shares), *rows)
    opend.world = replace(opend.world, extra=extra)
    return time.monotonic()


def with_position(opend: Simulator) -> list[Code]:
    """Return the symbols with a position, largest first."""
    return [code for code, _ in Ranking(opend.world).at(HONG_KONG, now())]


async def test_the_biggest_moves_are_asked_first(tmp_path: Path) -> None:
    """However small the position; all others follow, and nothing is told twice."""
    async with (
        simulator(WORLD) as opend,
        running(tmp_path, [opend], HK, **HINTED) as (service, store),
    ):
        await entries(store, len(HK))
        await until(lambda: ranked(opend, 35) > 0)  # what it is compared with
        read = ranked(opend)
        await until(lambda: ranked(opend) > read + 2)
        largest = with_position(opend)
        movers = {largest[-1]: 1.7, largest[-2]: 1.6, largest[20]: 1.5}
        at = release(opend, {largest[0]: 1.01, **movers})
        found = await entries(store, 2 * len(HK))
        # one symbol shows the report, whether probed or moved in the first page of the rank
        begins = next(n for n, code in enumerate(asked(opend, at)) if code in movers)
        assert begins <= 4  # what was under way then comes first
        assert set(asked(opend, at)[begins : begins + 4]) >= {*movers}
        codes = [entry.fields["code"] for entry in found[len(HK) :]]
        assert sorted(codes) == sorted(HK)
        assert service.told("positions moved in the rank") <= 1
        assert "A move in the rank of HK brings" in (await poller(service, "explain", HK[0]))[1]


@pytest.mark.parametrize("fault", ["refused", "mute", "empty"])
async def test_a_rank_that_is_not_to_be_had_is_told_once(tmp_path: Path, fault: str) -> None:
    """Reports are found without it; the connection stays, and the market is asked as before."""
    async with simulator(WORLD) as opend:
        match fault:
            case "refused":
                opend.faults.alter[Proto.RANK] = lambda *_: replies.refusal(Proto.RANK, "无权限")
            case "mute":
                opend.faults.mute_calls.add(Proto.RANK)
            case _:
                opend.faults.alter[Proto.RANK] = lambda *_: replies.rank(HONG_KONG, 0, [])
        async with running(tmp_path, [opend], HK, **HINTED) as (service, store):
            await entries(store, len(HK))
            await service.said("rank of HK at account main")
            release(opend, {})
            await entries(store, 2 * len(HK))
            # a rest that ends unsuccessfully is followed by a longer one, which is told as well
            assert 1 <= len(service.told_of("rank of HK at account main")) <= ranked(opend) <= 2
            assert service.told(": connected") == 1


@pytest.mark.parametrize("refused", ["the rank", "short interest"])
async def test_one_limit_for_both_calls_is_noticed(tmp_path: Path, refused: str) -> None:
    """A refusal for the rate within the own limits: the rank is not read for a day, told once."""
    async with (
        simulator(WORLD) as opend,
        running(tmp_path, [opend], HK, **HINTED) as (service, store),
    ):
        await entries(store, len(HK))
        await until(lambda: ranked(opend) > 2)
        if refused == "the rank":
            text = "获取卖空异动榜频率太高，请求失败，每30秒最多60次。"
            opend.faults.alter[Proto.RANK] = lambda *_: replies.refusal(Proto.RANK, text)
        else:
            opend.faults.too_frequent_next = 1
        await service.said("rank of HK at account main")
        looks = ranked(opend)
        release(opend, {})
        await entries(store, 2 * len(HK))
        assert "read again in 7 days" in str(service.log())
        assert service.told("rank of HK at account main") == 1
        assert ranked(opend) <= looks + 1


async def test_hints_can_be_switched_off(tmp_path: Path) -> None:
    """Then the rank is never asked for."""
    off = {**HINTED, "POLLER_SCHEDULE__HINTS": "off"}
    async with (
        simulator(WORLD) as opend,
        running(tmp_path, [opend], HK[:5], **off) as (_, store),
    ):
        await entries(store, 5)
        release(opend, {})
        await entries(store, 10)
        assert ranked(opend) == 0


async def test_another_word_than_auto_or_off_is_refused(tmp_path: Path) -> None:
    """By its key, with what to write instead."""
    service = Service(tmp_path, 1, HK[0])
    service.settings = {"POLLER_SCHEDULE__HINTS": "yes"}
    code, _, err = await poller(service, "config", "show")
    assert code == 2
    assert "hints" in err.casefold()
    assert "auto" in err


FRAME = pd.DataFrame({"security": ["HK.00700"], "short_position_volume": [5]})


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "text",
        (1, None),
        ("1", FRAME),
        (-1, FRAME),
        (10**9, FRAME),
        (1, FRAME.rename(columns={"security": "code"})),
    ],
)
def test_what_is_no_list_is_malformed(answer: object) -> None:
    """Whatever the SDK hands over, the only error is the gateway's own."""
    with pytest.raises(Malformed):
        rank_page_of(HONG_KONG, answer)


def test_what_is_no_figure_of_the_market_is_left_out() -> None:
    """Other markets, absent and impossible figures, names that are no codes."""
    rows = {
        "HK.00700": 5,
        "US.AAPL": 5,
        "HK.00005": "N/A",
        "HK.00006": -1,
        "HK.00007": 1.5,
        "HK.00008": float("nan"),
        "HK.00009": 2**70,
        "恒指": 4,
        "HK.00010": 0,
    }
    frame = pd.DataFrame(
        {
            "security": list(rows),
            "short_position_volume": pd.Series(list(rows.values()), dtype=object),
        }
    )
    page = rank_page_of(HONG_KONG, (9, frame))
    assert page.total == 9
    assert page.positions == {"HK.00700": 5, "HK.00010": 0}


async def test_a_rank_outlives_a_lost_connection(tmp_path: Path) -> None:
    """After a hang-up it is read over the next connection, and nothing is said of it."""
    async with (
        simulator(WORLD) as opend,
        running(tmp_path, [opend], HK[:5], **HINTED) as (service, store),
    ):
        await entries(store, 5)
        await until(lambda: ranked(opend) > 2)
        opend.kick()
        read = ranked(opend)
        await until(lambda: ranked(opend) > read + 2)
        assert service.told("rank of HK at account") == 0
