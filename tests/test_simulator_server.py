"""The simulator on a socket, seen by a client that speaks the bare protocol."""

import asyncio
import math
from datetime import UTC, datetime

import pytest
from Crypto.PublicKey import RSA
from hypothesis import given
from hypothesis import strategies as st

from poller.model import Code
from poller.simulator import Proto, SlidingWindow, World
from poller.simulator.wire import (
    HEADER_SIZE,
    LONGEST_BODY,
    Garbled,
    Header,
    Session,
    parse,
    request,
)
from tests.opend import Faults, Seen, Simulator, Verdict
from tests.simulator_client import Client, connected, plain_packet

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
TOO_FREQUENT = "获取空头持仓频率太高，请求失败，每30秒最多30次。"


@given(
    proto=st.integers(0, 2**32 - 1),
    serial=st.integers(0, 2**32 - 1),
    length=st.integers(1, LONGEST_BODY),
    digest=st.binary(min_size=20, max_size=20),
)
def test_a_header_survives_the_wire(proto: int, serial: int, length: int, digest: bytes) -> None:
    """Parsing undoes packing, in 44 bytes that begin with FT."""
    header = Header(proto, serial, length, digest)
    assert Header.parse(header.pack()) == header
    assert len(header.pack()) == 44
    assert header.pack().startswith(b"FT")


@given(head=st.binary(min_size=44, max_size=44))
def test_other_bytes_are_no_header(head: bytes) -> None:
    """Noise is told from a header by its first bytes, or by an absurd length."""
    if head[:2] != b"FT":
        with pytest.raises(Garbled):
            Header.parse(head)
    with pytest.raises(Garbled):
        Header.parse(Header(1, 1, LONGEST_BODY + 1, bytes(20)).pack())


@given(plain=st.binary(min_size=1, max_size=500))
def test_encryption_is_undone_by_the_same_keys(plain: bytes) -> None:
    """What one session seals, one with the same key and iv opens, as often as you like."""
    ours, theirs = Session(None), Session(None)
    theirs.key, theirs.iv = ours.key, ours.iv
    ours.encrypted = theirs.encrypted = True
    for _ in range(2):
        packet = ours.seal(Proto.KEEP_ALIVE, 1, plain)
        header = Header.parse(packet[:HEADER_SIZE])
        assert packet[HEADER_SIZE:] != plain
        assert theirs.open(header, packet[HEADER_SIZE:]) == plain
        with pytest.raises(Garbled):
            Session(None).open(header, packet[HEADER_SIZE:])


async def test_login_gives_what_the_sdk_needs() -> None:
    """The login's reply has a key of 16 characters, no iv without encryption, unlike numbers."""
    async with Simulator(World()) as simulator:
        async with connected(simulator, login=False) as one, connected(simulator) as other:
            first, second = (await one.login()).s2c, (await other.login()).s2c
        assert len(first.connAESKey) == 16
        assert not first.HasField("aesCBCiv")
        assert first.keepAliveInterval == 10
        assert first.connID != second.connID


async def test_heartbeats_are_answered_with_the_time() -> None:
    """KeepAlive is answered with the simulator's own time, in seconds."""
    async with Simulator(World(), now=lambda: NOW) as simulator, connected(simulator) as client:
        serial = client.send(Proto.KEEP_ALIVE, time=0)
        replied, message = await client.receive()
        assert (replied, message.s2c.time) == (serial, NOW.timestamp())


async def test_everything_is_recorded_at_its_arrival() -> None:
    """`seen` holds clock, connection, call, arguments and verdict, in order."""
    ticks = iter([10.0, 11.5, 12.0, 13.0])
    async with Simulator(World(), clock=lambda: next(ticks)) as simulator:
        async with connected(simulator) as client:
            client.page("HK.00700", num=3)
            client.page("SH.600519", next_key="a")
            client.send(Proto.GROUP, groupName="mine")
            await simulator.until_seen(1, Proto.GROUP)
        assert simulator.seen == [
            Seen(10.0, 1, 1001, "", "", None, Verdict.ANSWERED),
            Seen(11.5, 1, 3249, "HK.00700", "", 3, Verdict.ANSWERED),
            Seen(12.0, 1, 3249, "SH.600519", "a", None, Verdict.REFUSED),
            Seen(13.0, 1, 3213, "mine", "", None, Verdict.REFUSED),
        ]


async def test_the_record_can_be_bounded() -> None:
    """With `remember` only the newest are kept, and the counts still go on."""
    async with Simulator(World(), remember=2) as simulator, connected(simulator) as client:
        for _ in range(5):
            client.page("HK.00700")
        await simulator.until_seen(5)
        assert len(simulator.seen) == 2
        assert simulator.most_in_window() == 5


async def test_replies_may_overtake_each_other() -> None:
    """Requests of one connection are served at the same time; serials tell them apart."""
    faults = Faults()
    async with Simulator(World(), faults=faults) as simulator, connected(simulator) as client:
        faults.delay = 0.2
        slow = client.page("HK.00700")
        await simulator.until_seen(1)
        faults.delay = 0.0
        fast = client.page("HK.00700")
        assert [(await client.receive())[0] for _ in range(2)] == [fast, slow]


async def test_the_limit_slides_over_all_connections() -> None:
    """Over any connections, 31 requests in 30 s are one too many, and refused ones count."""
    at = 0.0
    async with (
        Simulator(World(), clock=lambda: at) as simulator,
        connected(simulator) as one,
        connected(simulator) as other,
    ):

        async def ask(client: Client) -> str:
            client.page("HK.00700")
            return str((await client.receive())[1].retMsg)

        assert [await ask(one) for _ in range(15)] == [""] * 15
        at = 10.0
        assert [await ask(other) for _ in range(15)] == [""] * 15
        assert await ask(one) == TOO_FREQUENT
        at = 30.0
        assert await ask(other) == TOO_FREQUENT
        at = 30.5
        assert [await ask(one) for _ in range(13)] == [""] * 13
        assert await ask(one) == TOO_FREQUENT
        assert simulator.most_in_window() == 32
        verdicts = [seen.verdict for seen in simulator.seen]
        assert verdicts.count(Verdict.TOO_FREQUENT) == 3


async def test_simulators_can_share_one_account() -> None:
    """A window given to two simulators counts the requests of both."""
    window = SlidingWindow(requests=1, period=30.0)
    async with (
        Simulator(World(), window=window) as left,
        Simulator(World(), window=window) as right,
        connected(left) as one,
        connected(right) as other,
    ):
        one.page("HK.00700")
        assert (await one.receive())[1].retType == 0
        other.page("HK.00700")
        assert "频率太高" in (await other.receive())[1].retMsg
        assert left.most_in_window() == right.most_in_window() == 2


async def test_watch_groups_have_a_limit_of_their_own() -> None:
    """The eleventh call in 30 s is refused; short interest is not affected."""
    async with Simulator(World()) as simulator, connected(simulator) as client:
        for _ in range(11):
            client.send(Proto.GROUPS, groupType=3)
        replies = [(await client.receive())[1] for _ in range(11)]
        assert [reply.retType for reply in replies] == [0] * 10 + [-1]
        assert "频率太高" in replies[-1].retMsg
        client.page("HK.00700")
        assert (await client.receive())[1].retType == 0


async def test_the_world_may_be_replaced_while_it_runs() -> None:
    """The next answer is from the new world."""
    async with Simulator(World()) as simulator, connected(simulator) as client:
        client.page("US.AAPL")
        assert (await client.receive())[1].retType == -1
        simulator.world = World(named=(Code("US.AAPL"),))
        client.page("US.AAPL")
        assert len((await client.receive())[1].s2c.usItemList) == 10


@pytest.mark.parametrize(
    "noise",
    [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + bytes(44), bytes(100), b"FT" + b"\xff" * 100],
)
async def test_noise_ends_its_connection_only(noise: bytes) -> None:
    """A client that talks nonsense is hung up on; the others do not notice."""
    async with Simulator(World()) as simulator, connected(simulator) as client:
        async with connected(simulator, login=False) as noisy:
            noisy.writer.write(noise)
            assert await noisy.gone()
        client.page("HK.00700")
        assert (await client.receive())[1].retType == 0


async def test_a_body_that_does_not_fit_its_digest_or_call_is_noise() -> None:
    """Damaged packets and bodies of another call end the connection, as does skipping the login."""
    wrong = [
        Header(Proto.INIT_CONNECT, 1, 3, bytes(20)).pack() + b"abc",
        Session(None).seal(Proto.INIT_CONNECT, 1, b"\xff\xff\xff"),
        Session(None).seal(Proto.KEEP_ALIVE, 1, b"\x0a\x02\x08\x00"),
    ]
    async with Simulator(World()) as simulator:
        for packet in wrong:
            async with connected(simulator, login=False) as client:
                client.writer.write(packet)
                assert await client.gone()


async def test_an_unencrypted_login_is_noise_to_an_encrypted_gateway() -> None:
    """With a key on one side only there is no connection."""
    key = RSA.generate(1024).export_key()  # noqa: S505  the only size the SDK can use
    async with (
        Simulator(World(), rsa_private_key=key) as simulator,
        connected(simulator, login=False) as client,
    ):
        client.send(Proto.INIT_CONNECT, clientVer=1011, clientID="test")
        assert await client.gone()


async def test_clients_may_vanish() -> None:
    """A client that leaves while a reply is due, in mid-packet or not, is forgotten."""
    half = Header(Proto.KEEP_ALIVE, 9, 100, bytes(20)).pack()
    async with Simulator(World()) as simulator:
        for seen, part in enumerate((b"", b"FT", half), start=1):
            async with connected(simulator) as client:
                simulator.faults.delay = math.inf
                client.page("HK.00700")
                client.writer.write(part)
                await simulator.until_seen(seen)
            simulator.faults.delay = 0.0
        async with connected(simulator) as client:
            client.page("HK.00700")
            assert (await client.receive())[1].retType == 0


async def test_unknown_calls_are_refused() -> None:
    """A call that is not simulated is answered with an error instead of silence."""
    async with Simulator(World()) as simulator, connected(simulator) as client:
        body = request(Proto.KEEP_ALIVE)
        body.c2s.time = 0
        raw = bytearray(plain_packet(Proto.KEEP_ALIVE, 77, body))
        raw[2:6] = (3203).to_bytes(4, "little")
        client.writer.write(bytes(raw))
        header = Header.parse(await client.reader.readexactly(HEADER_SIZE))
        plain = await client.reader.readexactly(header.length)
        reply = parse(Proto.KEEP_ALIVE, plain, reply=True)
        assert (header.proto, header.serial, reply.retType) == (3203, 77, -1)


async def test_a_closed_simulator_can_be_started_again_on_its_port() -> None:
    """An OpenD that restarts keeps its port and its count of the account's requests."""
    simulator = Simulator(World())
    await simulator.start()
    port = simulator.port
    async with connected(simulator) as client:
        client.page("HK.00700")
        assert (await client.receive())[1].retType == 0
        await simulator.close()
        assert await client.gone()
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", port)
    await simulator.start(port=port)
    async with connected(simulator) as client:
        client.page("HK.00700")
        await client.receive()
    assert simulator.most_in_window() == 2
    await simulator.close()
    await simulator.close()
