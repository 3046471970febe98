"""The examples in `config/examples` print an event that is published while they run."""

import asyncio
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest

from poller.detect.compare import compare
from poller.model import Code, HkRecord
from poller.storage.redisstore import RedisStore
from poller.storage.store import ONE_OFF
from tests import nodes
from tests.service import now, until

FOLDER = Path("config/examples")
RUN = {"follow.py": sys.executable, "follow.sh": "sh", "follow.mjs": "node"}
NEEDED = {"follow.sh": "redis-cli", "follow.mjs": "node"}
"""What an example of another language needs; it is tried where that is installed."""

TRIED = [name for name in RUN if name not in NEEDED or shutil.which(NEEDED[name])]


def test_there_is_a_way_to_run_every_example() -> None:
    """No example is left out of these tests."""
    assert {file.name for file in FOLDER.iterdir()} == set(RUN)


@pytest.mark.parametrize("name", TRIED)
async def test_an_example_prints_what_is_new(name: str, tmp_path: Path) -> None:
    """Two events, one after the other: both are printed, with their figures."""
    out = tmp_path / "out"
    with nodes.node(tmp_path / "server") as server, out.open("wb") as told:
        process = await asyncio.create_subprocess_exec(
            *(RUN[name], str(FOLDER / name), server.url), stdout=told
        )
        store = RedisStore(server.url, "short-interest")
        try:
            for figure in (123_456, 654_321):
                await until(lambda: server.ask("INFO", "clients")["blocked_clients"] == 1)
                await publish(store, figure)
                await until(partial(printed, out, str(figure)))
        finally:
            process.kill()
            await process.wait()
            await store.close()


def printed(out: Path, text: str) -> bool:
    """Tell whether an example has printed a text."""
    return text in out.read_text(encoding="utf-8")


async def publish(store: RedisStore, figure: int) -> None:
    """Let a symbol report one figure; each a day later than the other."""
    code = Code("HK.00700")
    snapshot = await store.snapshot(code)
    row = HkRecord(None, f"2026-04-0{1 + len(snapshot.history)}", figure, 0.5, 10.0, 9.0)
    found = compare(code, [row], snapshot.known, observed_at=now(), history=50)
    await store.commit(code, found, snapshot, ONE_OFF)
