"""The README names what there is: verbs, keys in Redis, fields of an event, settings."""

import asyncio
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from inspect import getdoc, signature
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cyclopts import App
from redis.asyncio import Redis

from poller.cli import cli
from poller.model import Change, Code, EventType
from poller.plan.notice import TYPES
from poller.settings.config import Config, Opend, Webhook
from poller.storage.embedded import Embedded
from poller.storage.store import Keys
from tests.machine import at_most

if TYPE_CHECKING:
    from pydantic import BaseModel

README = Path("README.md").read_text(encoding="utf-8")
SHIPPED = Path("config/poller.toml").read_text(encoding="utf-8")


def redis_keys() -> Iterator[str]:
    """Yield every kind of key, as the README writes it."""
    keys = Keys("short-interest")
    yield from (keys.stream, keys.watermark, keys.lease, keys.fence, keys.watch)
    yield keys.watch_version.removeprefix("{short-interest}:")
    yield keys.signals
    yield from (keys.releases, keys.releases_told.removeprefix("{short-interest}:"))
    yield keys.history(Code("<code>"))
    yield keys.vintages(Code("<code>"))
    yield keys.budget("<account>")
    yield from (keys.reader("<group>"), keys.subscriber("<group>"))


@pytest.mark.parametrize("verb", [name for name in cli if not name.startswith("-")])
def test_every_verb_is_told(verb: str) -> None:
    """No command is left for the user to find."""
    assert f"`poller {verb}" in README


def commands(app: App, *above: str) -> Iterator[tuple[str, App]]:
    """Yield every command there is, by the words it is called with."""
    for name in app:
        if not name.startswith("-"):
            words = (*above, name)
            below = tuple(commands(app[name], *words))
            yield from below or [(" ".join(words), app[name])]


@pytest.mark.parametrize("verb", [name for name in cli if not name.startswith("-")])
def test_the_list_of_commands_says_what_each_says_itself(verb: str) -> None:
    """What is told of a command before it is imported is what its function says of itself."""
    app = cli[verb]
    if app.default_command is not None:
        told = getdoc(app.default_command)
        assert told is not None
        assert app.help.partition("\n\n")[0] == told.partition("\n\n")[0].replace("\n", " ")


def test_every_command_that_speaks_json_is_named() -> None:
    """The README's list of them is the one of the commands; no other is named."""
    found = re.search(r"`--json` is known to (.*?)\.\n", README, re.DOTALL)
    assert found is not None
    assert set(re.findall(r"`([^`]+)`", found[1])) == {
        words
        for words, app in commands(cli)
        if app.default_command is not None and "json" in signature(app.default_command).parameters
    }


@pytest.mark.parametrize("key", tuple(redis_keys()))
def test_every_redis_key_is_told(key: str) -> None:
    """No key is left for the user to wonder about."""
    assert f"{key}`" in README


@pytest.mark.parametrize("field", [f.name for f in fields(Change)])
def test_every_fact_of_a_change_is_told(field: str) -> None:
    """A subscriber finds each fact explained."""
    assert f"`{field}`" in README


@pytest.mark.parametrize("kind", tuple(EventType))
def test_every_type_of_event_is_told(kind: EventType) -> None:
    """A subscriber finds each type explained."""
    assert f"`{kind.rpartition('.')[2]}`" in README


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_notice_is_told(kind: str) -> None:
    """A subscriber finds each explained."""
    assert f"`{kind}`" in README


@pytest.mark.parametrize(
    "section", [name for name in Config.model_fields if name not in {"state_dir", "log_level"}]
)
def test_every_setting_is_in_the_shipped_file(section: str) -> None:
    """An operator finds each key in config/poller.toml, commented out where it has no default."""
    lists: dict[str, type[BaseModel]] = {"opend": Opend, "webhooks": Webhook}
    model: type[BaseModel] = lists.get(section) or type(getattr(Config(), section))
    told = set(re.findall(r"(\w+) = ", SHIPPED))
    told |= {key.removesuffix("_file") for key in told}
    assert set(model.model_fields) - told == set()


async def test_the_readmes_consumer_prints_a_new_event(tmp_path: Path) -> None:
    """The Python lines of the README, pointed at a server, print what is appended after them."""
    block = re.search(r"```python\n(import json, redis.*?)```", README, re.DOTALL)
    assert block is not None
    async with Embedded(tmp_path).running() as url:
        code = block[1].replace("redis.Redis(", f"redis.Redis.from_url({url!r}, ")
        admin = Redis.from_url(url)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-c", code), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        async with at_most(20):
            while not (await admin.info("clients"))["blocked_clients"]:
                await asyncio.sleep(0.02)
            event = {"id": "HK.00700:2026-04-30:0", "data": '{"change":{"shares":7}}'}
            await admin.xadd("short-interest", event)  # type: ignore[arg-type]
            line = (await process.stdout.readline()).decode()
        process.kill()
        await process.wait()
        await admin.aclose()
    assert line == "HK.00700:2026-04-30:0 {'shares': 7}\n"
