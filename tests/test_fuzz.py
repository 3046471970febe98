"""A few thousand of the inputs that `make fuzz` sends, the same at every run."""

import asyncio
import math
import os
import sys
from pathlib import Path

import pytest

from tests.fuzz import TARGETS, WITHOUT_DECODER
from tests.fuzz.engine import Target, inputs_of, run
from tests.test_every_key import KEYS, PLACES

INPUTS = {
    **dict.fromkeys(("configuration", "value of a variable", "name of a variable"), 400),
    **dict.fromkeys(("table of the SDK", "answer of a receiver"), 300),
    **dict.fromkeys(("HTTP bytes", "HTTP requests"), 600),
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
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    assert out.count(b"| 300 |") == len(SDK)


def test_every_key_is_read_by_a_target_or_says_why_not() -> None:
    """A new key of the README's table is fuzzed, or it is said why there is nothing to fuzz."""
    told = {filled(key) for key in (*WITHOUT_DECODER, *(k for t in TARGETS for k in t.keys))}
    assert told == set(KEYS)


def filled(key: str) -> str:
    """Return a key's whole name, as the table of `tests/test_every_key.py` has it."""
    for place, text in PLACES.items():
        key = key.replace(place, text)
    return f"{{short-interest}}:{key}" if key else "short-interest"
