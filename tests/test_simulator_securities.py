"""What the simulated OpenD says of names and shares, by the bare protocol."""

import asyncio

import pytest

from poller.model import Code
from poller.simulator import Proto, World
from poller.simulator.securities import MOST_SNAPSHOTS, name_of, shares_of
from poller.simulator.wire import Message, request
from tests.opend import Simulator
from tests.service import now
from tests.simulator_client import Client, connected

WORLD = World(made_up={"HK": 60, "US": 40}, without_rows=0.0)
MARKETS = {"HK": 1, "US": 11, "SH": 21}


async def ask(client: Client, proto: Proto, *codes: str) -> Message:
    """Return the reply to a request for these codes."""
    message = request(proto)
    message.c2s.SetInParent()
    for code in codes:
        market, _, symbol = code.partition(".")
        message.c2s.securityList.add(market=MARKETS[market], code=symbol)
    client.send_message(proto, message)
    return (await client.receive())[1]


async def test_names_and_shares() -> None:
    """In the order of the request; Tencent's are the real ones, a fund has no shares."""
    codes = WORLD.codes()
    async with Simulator(WORLD) as simulator, connected(simulator) as client:
        names = (await ask(client, Proto.STATIC_INFO, *codes)).s2c.staticInfoList
        snapshots = (await ask(client, Proto.SNAPSHOT, *codes)).s2c.snapshotList
    assert [each.basic.name for each in names] == [name_of(WORLD.seed, code) for code in codes]
    assert names[0].basic.name == snapshots[0].basic.name == "TENCENT"
    for code, each in zip(codes, snapshots, strict=True):
        shares = shares_of(WORLD, code, now())
        assert each.HasField("equityExData") is (shares is not None)
        if shares is not None:
            counts = each.equityExData
            assert (counts.issuedShares, counts.outstandingShares) == shares
            assert 0 < counts.outstandingShares <= counts.issuedShares
    assert 0 < sum(not each.HasField("equityExData") for each in snapshots) < len(codes) / 2


def test_the_shares_are_those_of_the_ratios() -> None:
    """A position in percent of the issued shares is the ratio of its row."""
    code = next(c for c in WORLD.codes()[1:] if shares_of(WORLD, c, now()) is not None)
    issued, _ = shares_of(WORLD, code, now()) or (1, 1)
    row = next(each for each in WORLD.records(code, now()) if each.shares)
    assert row.ratio == pytest.approx(100 * (row.shares or 0) / issued, abs=0.006)


def test_some_names_need_care() -> None:
    """Chinese characters, quotation marks, ampersands and angle brackets are among them."""
    names = "".join(name_of(WORLD.seed, code) for code in WORLD.codes())
    assert not names.isascii()
    assert set("<>&\"'") <= set(names)


@pytest.mark.parametrize("proto", [Proto.STATIC_INFO, Proto.SNAPSHOT])
async def test_one_unknown_code_refuses_the_request(proto: Proto) -> None:
    """The text names it, as for short interest; so does a market that is not served."""
    async with Simulator(WORLD) as simulator, connected(simulator) as client:
        reply = await ask(client, proto, "HK.00700", "HK.09998")
        assert (reply.retType, reply.retMsg) == (-1, "未知股票 HK.09998")
        assert (await ask(client, proto, "SH.600519")).retType == -1
        assert (await ask(client, proto)).retType == -1


async def test_a_snapshot_takes_so_many_codes() -> None:
    """One more is refused."""
    world = World(made_up={"US": MOST_SNAPSHOTS}, without_rows=0.0)
    async with Simulator(world) as simulator, connected(simulator) as client:
        codes = world.codes()
        assert (await ask(client, Proto.SNAPSHOT, *codes[1:])).retType == 0
        assert (await ask(client, Proto.SNAPSHOT, *codes)).retType == -1


@pytest.mark.parametrize(
    ("proto", "requests"), [(Proto.STATIC_INFO, 10), (Proto.SNAPSHOT, 60)], ids=["names", "shares"]
)
async def test_each_call_has_a_limit_of_its_own(proto: Proto, requests: int) -> None:
    """One more within 30 s is refused, and other calls are not affected."""
    code = Code("HK.00700")
    async with Simulator(WORLD) as simulator, connected(simulator) as client:
        async with asyncio.timeout(20):
            replies = [await ask(client, proto, code) for _ in range(requests + 1)]
        assert [reply.retType for reply in replies] == [0] * requests + [-1]
        assert "频率太高" in replies[-1].retMsg
        other = Proto.SNAPSHOT if proto is Proto.STATIC_INFO else Proto.STATIC_INFO
        assert (await ask(client, other, code)).retType == 0
