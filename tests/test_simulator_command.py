"""`python -m poller.simulator` from the outside."""

import asyncio
import signal
import sys

import pytest

from poller.simulator import World
from poller.simulator.__main__ import main
from tests.machine import at_most, send
from tests.opend import Simulator
from tests.simulator_client import Client


async def test_the_command_serves_until_told_to_stop() -> None:
    """`python -m poller.simulator` says where it listens, serves, and leaves with 0 on SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "poller.simulator", "--port", "0", "--hk", "3", "--us", "2"),
        *("--code", "US.AAPL", "--user", "77", "--without", "US"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert line.startswith("OpenD simulator on 127.0.0.1:")
    assert line.endswith(", 7 symbols\n")
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(line.partition(",")[0].rpartition(":")[2])
    )
    client = Client(reader, writer)
    reply = await client.login()
    assert (reply.retType, reply.s2c.loginUserID) == (0, 77)
    client.page("US.AAPL", num=5)
    assert len((await client.receive())[1].s2c.usItemList) == 5
    send(process, signal.SIGTERM)
    assert await process.wait() == 0
    assert await client.gone()
    writer.close()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--hk", "20000"), "hk is 20000"),
        (("--code", "HK.5"), "write 'HK.00005'"),
        (("--key", "no such file"), "no such file"),
        (("--port", "1", "--host", "x"), "--host"),
    ],
)
def test_the_command_refuses_what_it_cannot_serve(
    wrong: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong option is a usage error with exit code 2 that names it, not a traceback."""
    with pytest.raises(SystemExit) as left:
        main(wrong)
    assert left.value.code == 2
    assert words in capsys.readouterr().err


async def test_the_command_refuses_a_port_in_use() -> None:
    """A second simulator on one port leaves with 2 and says why in a line, not its usage."""
    async with Simulator(World()) as simulator:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "poller.simulator", "--port", str(simulator.port)),
            stderr=asyncio.subprocess.PIPE,
        )
        async with at_most():
            _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"address already in use" in errors
    assert errors.count(b"\n") == 1


async def test_the_simulator_does_not_import_the_sdk() -> None:
    """Only the SDK's generated messages are loaded: no log, no signal handler, no pandas."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c"),
        "import sys, poller.simulator.wire as wire\n"
        "wire.request(wire.Proto.SHORT_INTEREST)\n"
        "print(sorted({'futu', 'pandas'} & set(sys.modules)))",
        stdout=asyncio.subprocess.PIPE,
    )
    async with at_most():
        output, _ = await process.communicate()
    assert output == b"[]\n"
