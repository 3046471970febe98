"""The live list on a real server, with what other clients leave in it."""

import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from poller.errors import StoreMisfit
from poller.model import Code
from poller.store.embedded import Embedded
from poller.store.redisstore import RedisStore
from poller.store.rediswatchlist import MOST_FIELDS, read_live, version_of

HK = Code("HK.00700")
KEY = "{short-interest}:watch"
VERSION = "{short-interest}:watch:version"


@pytest.fixture
async def raw(tmp_path: Path) -> AsyncIterator[tuple[RedisStore, Any]]:
    """An embedded server's store, and a plain client to it."""
    async with Embedded(tmp_path).running() as url:
        real, client = RedisStore(url, "short-interest"), Redis.from_url(url)
        yield real, client
        await real.close()
        await client.aclose()


@pytest.mark.parametrize(
    "fields",
    [
        {"garbage": "1"},
        {"": ""},
        {b"\xff\xfe": b"\xff"},
        {"US.AAPL": "yes"},
        {"hk.00700 ": "1"},
        {"\x1b[2J": "0"},
        {"big": "x" * 1_000_000},
        {"x" * 1_000_000: "1"},
        {f"field {number}": "1" for number in range(200_000)},
    ],
    ids=["text", "empty", "bytes", "value", "case", "escape", "1 MB", "long", "200,000"],
)
async def test_foreign_fields_are_passed_over_and_named(
    raw: tuple[RedisStore, Any], fields: dict[str | bytes, str | bytes]
) -> None:
    """Marks of ours beside them count; the sentence is short, printable, and has the key."""
    store, client = raw
    await store.watchlist.watch([HK], wanted=True)
    items = list(fields.items())
    for at in range(0, len(items), 10_000):
        await client.hset(KEY, mapping=dict(items[at : at + 10_000]))
    found = await store.watchlist.watched()
    assert found.marks == {HK: True}
    assert KEY in found.foreign
    assert "redis-cli" in found.foreign
    assert found.foreign.isprintable()
    assert len(found.foreign) < 400


async def test_the_command_in_the_sentence_removes_them(raw: tuple[RedisStore, Any]) -> None:
    """It can be typed as it stands, whatever the names hold."""
    store, client = raw
    await store.watchlist.watch([HK], wanted=True)
    await client.hset(KEY, mapping={"a b": "1", "$(reboot)": "1", "it's": "0"})
    words = shlex.split((await store.watchlist.watched()).foreign.rpartition("; ")[2])
    assert words[:3] == ["redis-cli", "HDEL", KEY]
    assert await client.execute_command(*words[1:]) == 3
    assert (await store.watchlist.watched()).foreign == ""


@pytest.mark.parametrize("version", ["abc", "", "1e3", "9223372036854775807", "9" * 5000, None])
async def test_a_spoiled_version_is_replaced_with_the_next_change(
    raw: tuple[RedisStore, Any], version: str | None
) -> None:
    """Whatever stands there: a change of the list is one of the version, and both are taken."""
    store, client = raw
    if version is not None:
        await client.set(VERSION, version)
    before = await store.watchlist.version()
    await store.watchlist.watch([HK], wanted=False)
    assert (await store.watchlist.watched()).marks == {HK: False}
    assert await store.watchlist.version() != before
    assert int(await client.get(VERSION)) == await store.watchlist.version()


async def test_a_key_of_another_type_is_named(raw: tuple[RedisStore, Any]) -> None:
    """With the command; a version of another type is replaced with the next change."""
    store, client = raw
    await client.lpush(KEY, "1")
    await client.lpush(VERSION, "1")
    with pytest.raises(StoreMisfit, match=r"redis-cli DEL '\{short-interest\}:watch'"):
        await store.watchlist.watched()
    with pytest.raises(StoreMisfit, match=r"redis-cli DEL '\{short-interest\}:watch'"):
        await store.watchlist.watch([HK], wanted=True)
    await store.inspect()  # the service starts all the same
    await client.delete(KEY)
    with pytest.raises(StoreMisfit, match=r"redis-cli DEL '\{short-interest\}:watch:version'"):
        await store.watchlist.version()
    await store.watchlist.watch([HK], wanted=True)
    assert await store.watchlist.version() > 0


@given(st.dictionaries(st.text(), st.text(max_size=3)), st.booleans())
def test_any_fields_can_be_read(texts: dict[str, str], cut: bool) -> None:  # noqa: FBT001  of the table
    """Nothing is raised, and what is said can be shown."""
    found = read_live(KEY, texts, cut=cut)
    assert json.dumps(found.foreign).isascii()
    assert found.foreign.isprintable()
    assert bool(found.foreign) == (len(found.marks) < len(texts) or cut)
    assert (f"{MOST_FIELDS:,}" in found.foreign) == cut


@given(st.none() | st.text() | st.integers().map(str))
def test_any_version_is_a_number(text: str | None) -> None:
    """The counter's own numbers are themselves."""
    assert isinstance(version_of(text), int)
    if text is not None and text.isascii() and text.isdecimal() and len(text) < 19:
        assert version_of(text) == int(text)
