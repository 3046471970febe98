"""The docs name what there is: commands, keys, fields, settings, metrics, alerts, rooms.

What they show runs: the consumers print events, and the configurations load. `test_site` builds the
pages and follows their links.
"""

import asyncio
import contextlib
import re
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields
from inspect import getdoc, signature
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclopts import App
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from redis.asyncio import Redis

from poller import __version__
from poller.cli.main import cli
from poller.delivery.outbox import OutboxKeys
from poller.detect.held import Reason
from poller.model import Change, Code, EventType
from poller.schedule.notice import TYPES
from poller.settings.config import Config, Opend, Webhook, load
from poller.store.embedded import Embedded
from poller.store.redisstore import RedisStore
from poller.store.store import Key, Keys, Stream
from poller.telemetry.counts import COUNTED, LAG
from poller.telemetry.status_store import StatusKeys
from poller.web.metrics import GAUGES
from tests.feed import publish
from tests.machine import at_most
from tests.receiver import SECRET

PAGES = {
    file.stem: file.read_text(encoding="utf-8")
    for file in (Path("README.md"), Path("CHANGELOG.md"), *Path("docs").glob("*.md"))
}
SHIPPED = Path("config/poller.toml").read_text(encoding="utf-8")
LISTS: dict[str, type[BaseModel]] = {"opend": Opend, "webhooks": Webhook}
PLACES = {"code": Code("<code>"), "account": "<account>", "user": "<user>", "group": "<group>"}


def table(page: str, header: str) -> list[list[str]]:
    """Return the cells of a table of a page, without its header."""
    _, found, rest = PAGES[page].partition(f"| {header} |\n")
    assert found, f"{page}: no table {header}"
    lines = rest.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def spans(text: str) -> list[str]:
    """Return what stands in backticks, but for whole blocks."""
    return re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


# commands


def commands(app: App, *above: str) -> Iterator[tuple[str, App]]:
    """Yield every command there is, by the words it is called with."""
    for name in app:
        if not name.startswith("-"):
            words = (*above, name)
            below = tuple(commands(app[name], *words))
            yield from below or [(" ".join(words), app[name])]


@pytest.mark.parametrize("words", [words for words, _ in commands(cli)])
def test_every_command_is_documented(words: str) -> None:
    """No command is left for the user to find; `add|remove` names two."""
    *above, last = words.split()
    told = [span.replace("\\|", " ").split() for span in spans(PAGES["commands"])]
    assert any(line[: len(above) + 1] == ["poller", *above] and last in line for line in told)


@pytest.mark.parametrize("verb", [name for name in cli if not name.startswith("-")])
def test_the_list_of_commands_says_what_each_says_itself(verb: str) -> None:
    """The help of a command before it is imported is its function's docstring."""
    app = cli[verb]
    if app.default_command is not None:
        told = getdoc(app.default_command)
        assert told is not None
        assert app.help.partition("\n\n")[0] == told.partition("\n\n")[0].replace("\n", " ")


def test_every_command_that_speaks_json_is_named() -> None:
    """The list of them in the docs is the one of the commands; no other is named."""
    found = re.search(r"commands that take `--json` are (.*?)\.\n", PAGES["commands"], re.DOTALL)
    assert found is not None
    assert set(spans(found[1])) == {
        words
        for words, app in commands(cli)
        if app.default_command is not None and "json" in signature(app.default_command).parameters
    }


# events and keys


def redis_keys(keys: object) -> Iterator[str]:
    """Yield every key that a class of names can give, with placeholders for its parameters."""
    for name, member in vars(type(keys)).items():
        if isinstance(member, property | Key):
            yield getattr(keys, name)
        elif callable(member) and not name.startswith("_"):
            parameters = signature(getattr(keys, name)).parameters
            yield getattr(keys, name)(*({**PLACES, "stream": Stream.EVENTS}[p] for p in parameters))


def test_every_redis_key_is_documented() -> None:
    """The table has every key that the store and the status report use."""
    told = {key for row in table("events", "key | type | content") for key in spans(row[0])}
    assert told >= set(redis_keys(Keys("short-interest")))
    assert told >= set(redis_keys(StatusKeys("short-interest")))


def test_every_key_of_an_endpoint_is_documented() -> None:
    """They share one row, which names each by its last part."""
    (row,) = [r for r in table("events", "key | type | content") if ":webhook:<name>:…" in r[0]]
    for key in OutboxKeys("short-interest", "<name>").all():
        assert key.rpartition(":")[2] in spans(row[2])


def test_every_fact_of_a_change_is_documented() -> None:
    """A subscriber finds each figure explained."""
    told = {name for row in table("events", "field | meaning") for name in spans(row[0])}
    assert told == {field.name for field in fields(Change)}


def test_every_type_of_event_is_documented() -> None:
    """A subscriber finds each type explained."""
    rows = table("events", "`type`, without `short_interest.` | published when")
    assert {row[0] for row in rows} == {f"`{kind.rpartition('.')[2]}`" for kind in EventType}


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_notice_is_documented(kind: str) -> None:
    """A subscriber finds each explained."""
    assert f"`{kind}`" in PAGES["events"]
    assert f"`{kind}`" in PAGES["webhooks"]


def test_every_reason_for_holding_a_figure_is_documented() -> None:
    """An operator finds what each means."""
    assert {row[0] for row in table("operating", "reason | the figure")} == {
        f"`{reason}`" for reason in Reason
    }


# configuration


def settings() -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key of the configuration, dotted, as the docs write it."""
    for name, info in Config.model_fields.items():
        section = LISTS.get(name, type(info.default))
        if issubclass(section, BaseModel):
            yield from ((f"{name}.{key}", inner) for key, inner in section.model_fields.items())
        else:
            yield name, info


def defaults() -> dict[str, str]:
    """Return the default of every key as documented, without its backticks."""
    found: dict[str, str] = {}
    for keys, told in re.findall(r"(?m)^\| (`[a-z_.`, ]+`) \| ([^|]+) \|", PAGES["configuration"]):
        texts = spans(told) or [told] * len(spans(keys))
        found |= dict(zip(spans(keys), texts, strict=True))
    return found


def test_every_setting_is_documented_with_its_default() -> None:
    """The tables have every key and no other, and the default that counts."""
    told = defaults()
    assert told.keys() == {key for key, _ in settings()}
    for key, info in settings():
        if info.is_required():
            assert told[key] == "required", key
        elif told[key] == "none":
            assert info.default in {None, ()}, key
        else:
            value = tomllib.loads(f"value = {told[key]}")["value"]
            mine = str(info.default) if isinstance(info.default, Path) else info.default
            assert value == (list(mine) if isinstance(mine, tuple) else mine), key


@pytest.mark.parametrize(
    "section", [name for name in Config.model_fields if name not in {"state_dir", "log_level"}]
)
def test_every_setting_is_in_the_shipped_file(section: str) -> None:
    """An operator finds each key in config/poller.toml, commented out where it has no default."""
    model: type[BaseModel] = LISTS.get(section) or type(getattr(Config(), section))
    told = set(re.findall(r"(\w+) = ", SHIPPED))
    told |= {key.removesuffix("_file") for key in told}
    assert set(model.model_fields) - told == set()


def examples() -> Iterator[Any]:
    """Yield every configuration that a page shows."""
    for page, text in PAGES.items():
        for number, found in enumerate(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)):
            yield pytest.param(found, id=f"{page}-{number}")


@pytest.mark.parametrize("example", tuple(examples()))
def test_every_configuration_shown_is_valid(example: str, tmp_path: Path) -> None:
    """What a reader copies from a page is accepted, once the files it names exist."""
    contents = {
        "feishu.secret": "bot",
        "dingtalk.secret": "bot",
    }
    for name in re.findall(r'_file = "([^"]+)"', example):
        file = tmp_path / Path(name).name  # also for one that is absolute
        file.write_text(contents.get(name, SECRET), encoding="utf-8")
        example = example.replace(f'"{name}"', f'"{file.name}"')
        file.chmod(0o600)
    file = tmp_path / "poller.toml"
    file.write_text(example, encoding="utf-8")
    assert load(file, {}).model_fields_set


# operating


def test_every_metric_is_documented() -> None:
    """The table has every metric with its labels, and no other."""
    told = {
        spans(name)[0]: tuple(spans(of))
        for name, of, _ in table("operating", "metric | labels | meaning")
    }
    known = {name: labels for name, (_, labels) in GAUGES.items()}
    known |= {f"{name}_total": labels for name, (_, labels) in COUNTED.items()}
    assert told == {**known, LAG: ("endpoint",), "poller_build_info": ("version", "python")}


def test_every_alert_is_documented() -> None:
    """Each alert has a row that says what to do, and there is no row of another."""
    (group,) = yaml.safe_load(Path("config/prometheus/alerts.yml").read_text())["groups"]
    told = [name for row in table("operating", "alert | do") for name in spans(row[0])]
    assert sorted(told) == sorted(rule["alert"] for rule in group["rules"])


# code and versions


def test_every_room_is_documented() -> None:
    """A newcomer finds each package and module of the top level in the table of rooms."""
    rooms = {each.stem for each in Path("poller").iterdir() if each.suffix in {"", ".py"}}
    assert {room for room in rooms if not room.startswith("__")} <= {*documented_rooms()}


def documented_rooms() -> list[str]:
    """Return the rooms in the order of the table."""
    rows = table("architecture", "room | what happens there")
    return [room for row in rows for room in spans(row[0])]


def test_the_rooms_are_documented_in_the_order_of_the_layers() -> None:
    """The table has the lowest layer first, as the imports are checked."""
    tools = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (layers,) = [each for each in tools["importlinter"]["contracts"] if each["type"] == "layers"]
    height = {
        room: -depth for depth, layer in enumerate(layers["layers"]) for room in layer.split(" | ")
    }
    heights = [height[room] for room in documented_rooms() if room in height]
    assert heights == sorted(heights)


def test_the_change_log_knows_the_version() -> None:
    """What is being written comes first, then the versions, the newest first."""
    heads = re.findall(r"(?m)^## \[([^]]+)\]", PAGES["CHANGELOG"])
    assert heads[:2] == ["Unreleased", __version__]


def test_the_readme_is_short_and_has_the_two_commands() -> None:
    """A stranger reads it in five minutes."""
    lines = PAGES["README"].splitlines()
    assert len(lines) <= 160
    assert [line.split("#")[0].strip() for line in lines if line.startswith("$ make ")] == [
        "$ make demo",
        "$ make test",
        "$ make setup && . .venv/bin/activate",
    ]


# consumers


def shown(page: str, beginning: str) -> str:
    """Return the Python lines of a page that begin so."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(beginning)]
    return found


@contextlib.asynccontextmanager
async def consuming(url: str, code: str) -> AsyncIterator[asyncio.StreamReader]:
    """Run a program until it waits for entries; yields what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-c", code), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with Redis.from_url(url) as admin:
            while not (await admin.info("clients"))["blocked_clients"]:
                await asyncio.sleep(0.02)
        yield process.stdout
    finally:
        process.kill()
        await process.wait()


async def test_the_consumer_shown_prints_a_new_event(tmp_path: Path) -> None:
    """The Python lines of the events page, pointed at a server, print what is appended then."""
    code = shown("events", "import json, redis")
    async with Embedded(tmp_path).running() as url, at_most(20):
        code = code.replace("redis.Redis(", f"redis.Redis.from_url({url!r}, ")
        async with consuming(url, code) as printed, Redis.from_url(url) as admin:
            data = '{"code":"HK.00700","trading_day":"2026-04-30","change":{"shares":7}}'
            await admin.xadd("short-interest", {"data": data})
            line = (await printed.readline()).decode()
    assert line == "HK.00700 2026-04-30 {'shares': 7}\n"


@pytest.mark.parametrize("page", ["README", "events"])
async def test_the_subscriber_shown_prints_a_new_event(page: str, tmp_path: Path) -> None:
    """The lines with `subscribe` of both pages, pointed at a server, print what is published."""
    code = shown(page, "import asyncio\nfrom poller import subscribe")
    async with (
        Embedded(tmp_path).running() as url,
        at_most(20),
        consuming(url, code.replace("redis://127.0.0.1:6379", url)) as printed,
    ):
        store = RedisStore(url, "short-interest")
        await publish(store, "HK.00700", [7])
        await store.close()
        line = (await printed.readline()).decode()
    assert "HK.00700" in line
