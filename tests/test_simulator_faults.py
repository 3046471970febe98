"""Each fault does what it says, and nothing else."""

import math

import pytest

from poller.simulator import TENCENT, Proto, World
from poller.simulator.wire import Garbled, Message
from tests.opend import Faults, Simulator, Verdict
from tests.simulator_client import connected


async def test_delay_holds_replies_back() -> None:
    """With an endless delay nothing is answered, yet everything is recorded."""
    async with Simulator(World()) as simulator, connected(simulator) as client:
        simulator.faults.delay = math.inf
        simulator.faults.jitter = 1.0
        client.page("HK.00700")
        await simulator.until_seen(1)
        assert simulator.seen[-1].verdict is Verdict.ANSWERED
        simulator.faults.delay = simulator.faults.jitter = 0.0
        serial = client.send(Proto.KEEP_ALIVE, time=0)
        assert (await client.receive())[0] == serial


def test_jitter_adds_up_to_itself() -> None:
    """Every reply is held for the delay and a part of the jitter, another one each time."""
    faults = Faults(delay=1.0, jitter=0.5)
    held = [faults.hold() for _ in range(100)]
    assert all(1.0 <= one < 1.5 for one in held)
    assert len(set(held)) == 100


async def test_silence_next_mutes_queries_but_not_heartbeats() -> None:
    """The next n queries are never answered; they count against the limit all the same."""
    async with Simulator(World(), requests=3) as simulator, connected(simulator) as client:
        simulator.faults.silence_next = 2
        muted = [client.page("HK.00700") for _ in range(2)]
        alive = client.send(Proto.KEEP_ALIVE, time=0)
        assert (await client.receive())[0] == alive
        answered = [client.page("HK.00700") for _ in range(2)]
        replies = dict([await client.receive() for _ in range(2)])
        assert [replies[serial].retType for serial in answered] == [0, -1]
        assert not replies.keys() & muted


async def test_silence_mutes_everything_but_the_login() -> None:
    """While silent not even heartbeats are answered; afterwards all is well."""
    async with Simulator(World()) as simulator, connected(simulator) as client:
        simulator.faults.silence = True
        client.page("HK.00700")
        client.send(Proto.KEEP_ALIVE, time=0)
        await simulator.until_seen(1, Proto.KEEP_ALIVE)
        async with connected(simulator):
            pass
        assert [seen.verdict for seen in simulator.seen[1:3]] == [Verdict.SILENT] * 2
        simulator.faults.silence = False
        serial = client.send(Proto.KEEP_ALIVE, time=0)
        assert (await client.receive())[0] == serial


@pytest.mark.parametrize("size", [0, 10, 44, 50])
async def test_cut_sends_the_first_bytes_and_hangs_up(size: int) -> None:
    """Exactly so many bytes of the next reply arrive, then the stream ends; it happens once."""
    async with Simulator(World()) as simulator:
        async with connected(simulator) as client:
            simulator.faults.cut = size
            client.page("HK.00700")
            assert len(await client.reader.read()) == size
            assert simulator.seen[-1].verdict is Verdict.CUT
        async with connected(simulator) as client:
            client.page("HK.00700")
            assert (await client.receive())[1].retType == 0


async def test_garbage_keeps_the_header_and_scrambles_the_body() -> None:
    """The next n bodies do not fit their digest; the stream stays in step."""
    async with Simulator(World()) as simulator, connected(simulator) as client:
        simulator.faults.garbage_next = 1
        client.page("HK.00700")
        with pytest.raises(Garbled):
            await client.receive()
        client.page("HK.00700")
        assert (await client.receive())[1].retType == 0


async def test_kick_hangs_up_on_everyone_present() -> None:
    """All connections end at once; new ones are welcome."""
    async with Simulator(World()) as simulator:
        async with connected(simulator) as one, connected(simulator) as other:
            simulator.faults.kick()
            assert await one.gone()
            assert await other.gone()
        async with connected(simulator) as client:
            client.page("HK.00700")
            assert (await client.receive())[1].retType == 0
    simulator.faults.kick()


async def test_drop_accepts_hangs_up_before_a_word() -> None:
    """New connections end at once while the fault lasts; those present stay."""
    async with Simulator(World()) as simulator, connected(simulator) as client:
        simulator.faults.drop_accepts = True
        async with connected(simulator, login=False) as dropped:
            assert await dropped.gone()
        client.page("HK.00700")
        assert (await client.receive())[1].retType == 0


async def test_a_failing_mutate_is_not_hidden() -> None:
    """An error in a test's own hook ends the connection and comes out of `close`."""

    def broken(_: Message) -> None:
        raise ZeroDivisionError

    simulator = Simulator(World(), faults=Faults(mutate={TENCENT: broken}))
    await simulator.start()
    async with connected(simulator) as client:
        client.page("HK.00700")
        assert await client.gone()
    with pytest.raises(ExceptionGroup) as caught:
        await simulator.close()
    assert caught.value.subgroup(ZeroDivisionError) is not None
