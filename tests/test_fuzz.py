"""A few thousand of the inputs that `make fuzz` sends, the same at every run."""

import asyncio
import math
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from tests.fuzz import TARGETS, WITHOUT_DECODER, visitors
from tests.fuzz.engine import Noise, Target, inputs_of, run
from tests.fuzz.wire import Wire
from tests.machine import at_most
from tests.test_every_key import KEYS, PLACES

INPUTS = {
    **dict.fromkeys(("configuration", "value of a variable", "name of a variable"), 400),
    **dict.fromkeys(("table of the SDK", "answer of a receiver"), 300),
    **dict.fromkeys(("HTTP bytes", "HTTP requests", "symbol", "use of an entry"), 600),
}
SDK = {"packet of OpenD", "reply of OpenD"}
"""These load the SDK, which stays in the process that has loaded it."""


@pytest.mark.parametrize("target", [t for t in TARGETS if t.name not in SDK], ids=lambda t: t.name)
def test_nothing_but_the_named_errors_comes_out(target: Target, tmp_path: Path) -> None:
    """Whatever a visitor, a receiver, OpenD, a neighbour in Redis or a file sends or holds."""
    failures: list[tuple[bytes, str]] = []
    most = INPUTS.get(target.name, 2000)
    inputs = inputs_of(target, 1, most=most, seconds=math.inf)
    with target.open(tmp_path) as read:
        count = run(read, inputs, lambda data, text, _: failures.append((data, text)))
    assert failures == []
    assert count == most


async def test_what_the_sdk_reads() -> None:
    """Packets and fields of OpenD, through the unmodified SDK, in a process of its own."""
    chosen = {"FUZZ_ONLY": ",".join(sorted(SDK)), "FUZZ_INPUTS": "300"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fuzz"),
        env=dict(os.environ) | chosen,
        stdout=asyncio.subprocess.PIPE,
    )
    async with at_most(100, "the SDK's targets"):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    assert out.count(b"| 300 |") == len(SDK)


async def test_a_wire_in_memory_is_like_a_socket(tmp_path: Path) -> None:
    """What the page answers to each request over the one, it answers over the other."""
    with socket.socket() as sock:
        page = visitors.Page(Noise(), sock)
        await page.open(tmp_path)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: page.protocol_of(0), "127.0.0.1", 0)
        for sent in visitors.requests():
            if b"/metrics" in sent:  # they grow with each request
                continue
            wire = Wire(sock, ("127.0.0.1", 40000))
            wire.set_protocol(page.protocol_of(0))
            wire.protocol.connection_made(wire)
            wire.receive(sent)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(sent)
            head = await reader.readuntil(b"\r\n\r\n")
            expected = bytes(wire.sent)
            rest = await reader.readexactly(max(0, len(expected) - len(head)))
            assert undated(head + rest) == undated(expected), sent
            writer.close()
            wire.abort()
        server.close()
        await page.close()
    assert page.noise.take() == []


def undated(answer: bytes) -> bytes:
    """Return an answer without its date."""
    return re.sub(rb"Date: [^\r]*", b"", answer)


def test_every_key_is_read_by_a_target_or_says_why_not() -> None:
    """A new key of the README's table is fuzzed, or it is said why there is nothing to fuzz."""
    told = {filled(key) for key in (*WITHOUT_DECODER, *(k for t in TARGETS for k in t.keys))}
    assert told == set(KEYS)


def filled(key: str) -> str:
    """Return a key's whole name, as the table of `tests/test_every_key.py` has it."""
    for place, text in PLACES.items():
        key = key.replace(place, text)
    return f"{{short-interest}}:{key}" if key else "short-interest"
