"""A destination is one file: nobody outside the room asks which one an endpoint has."""

import ast
import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

import poller
from poller.delivery import destinations
from poller.delivery.destinations import all_destinations, register
from poller.simulator import World
from tests.machine import at_most, scaled
from tests.partners import PARTNERS
from tests.receiver import SECRET, RawReceiver
from tests.service import PATIENCE, Service, simulator, until

ROOT: Final = Path(poller.__file__).parent
ROOM: Final = ROOT / "delivery" / "destinations"
SOURCES: Final = sorted(path for path in ROOT.rglob("*.py") if ROOM not in path.parents)
INSIDE: Final = f"{destinations.__name__}."

COMPARED: Final = {each.name for each in all_destinations()}
"""What one compares with to find out which destination an endpoint has."""

TOLD: Final = {
    text
    for each in all_destinations()
    for text in (each.flag, *(host for one in each.services for host in one.hosts))
    if text is not None
} | (COMPARED - {"webhook"})
"""What only one destination is called; webhook is a word for all of them, too."""

CONTRACT: Final = {
    *{"Destination", "Sender"},
    *(name for name, each in vars(destinations).items() if inspect.isfunction(each)),
}
"""What others may import from the room, beside the registry's own methods."""


def offences(source: str) -> list[str]:
    """Return what asks for a destination of its own in Python, by line."""
    tree = ast.parse(source)
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        f"line {getattr(node, 'lineno', 0)}: {name}"
        for node in ast.walk(tree)
        if id(node) not in prose
        for name in _asked(node)
    ]


def _asked(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Attribute(_, "destination"):
            yield "destination"
        case ast.Constant(str(text)) if text in TOLD:
            yield text
        case ast.ImportFrom(destinations.__name__, names):
            yield from {each.name for each in names} - CONTRACT
        case ast.Import(names):
            yield from (each.name for each in names if each.name.startswith(INSIDE))
        case ast.Compare(left, _, others):
            parts = [part for each in (left, *others) for part in ast.walk(each)]
            constants = [part.value for part in parts if isinstance(part, ast.Constant)]
            yield from (str(value) for value in constants if value in COMPARED)
        case ast.MatchValue(ast.Constant(str(text))) if text in COMPARED:
            yield text
        case ast.ImportFrom(str(module)) if module.startswith(INSIDE):
            yield module


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_outside_asks_for_a_destination(path: Path) -> None:
    """No comparison with one, no table of them, no import of one of them."""
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        'if endpoint.destination == "chat": pass',
        'if destination_of(endpoint).name == "webhook": pass',
        'if name in {"webhook", "x"}: pass',
        'match name:\n    case "webhook": pass',
        "feishu = table['feishu']",
        'SENDERS = {"apprise": 1}',
        "from poller.delivery.destinations.webhook import body_of",
        "from poller.delivery.destinations import feishu as bot",
        "from poller.delivery.destinations import DESTINATIONS",
        "import poller.delivery.destinations.apprise",
        'if host == "hooks.slack.com": pass',
    ],
)
def test_what_is_looked_for_is_found(source: str) -> None:
    """Each way of asking for a destination is noticed."""
    assert offences(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""A bot of feishu."""',
        'LABEL = "webhook"',
        "depth = destination_of(endpoint).depth",
        "from poller.delivery.destinations import Sender, destination_of, flags",
    ],
)
def test_what_is_neutral_is_not(source: str) -> None:
    """Prose, the word webhook, and the fields of every destination may stand anywhere."""
    assert offences(source) == []


def test_a_destination_that_comes_late_is_refused() -> None:
    """Keys are made of the destinations there are: one more would be half known."""
    known = all_destinations()
    with pytest.raises(RuntimeError, match="comes too late: the destinations are in use"):
        register(known[0])


def test_the_configuration_loads_nothing_that_sends() -> None:
    """Every command knows the destinations, and most send nothing."""
    look = "import sys, poller.settings.config; print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, check=True, text=True)
    assert done.stdout == "False\n"


def test_a_further_one_passes_the_same_suite() -> None:
    """Registered from outside, it does what every destination does."""
    played = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-v", "-p", "tests.batch_destination"),
            *("-p", "no:cacheprovider", "-k", "batch or chosen or partner"),
            "tests/test_destinations.py",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=scaled(100),
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert "test_depth_and_order[batch] PASSED" in played.stdout, played.stdout


async def run(service: Service, *arguments: str) -> tuple[int, str]:
    """Run one command with the further destination; returns its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", service.module, *arguments),
        env=service.environment() | {"COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with at_most(PATIENCE, f"poller {' '.join(arguments)}"):
        out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_from_the_configuration_to_the_receiver(tmp_path: Path) -> None:
    """A key of its own chooses it; queue, worker, filter and commands do the rest."""
    receiver = RawReceiver(lambda _, __: (PARTNERS["batch"].takes, None))
    async with receiver.running(), simulator(World()) as opend:
        table = {
            "NAME": "batches",
            "URL": PARTNERS["batch"].url.format(port=receiver.port),
            "BATCH": "true",
            "SECRET": SECRET,
            "WAIT": "0.5",
            "EVENTS": "reported,revised,backfilled",
            "FILTER": 'trading_day > "2026-02-28"',
        }
        settings = {f"POLLER_WEBHOOKS__0__{key}": value for key, value in table.items()}
        service = Service(
            tmp_path, opend.port, "HK.00700", settings, module="tests.batch_destination"
        )
        code, said = await run(service, "webhook", "test", "batches")
        assert (code, said) == (0, "batches took it: 200\n")
        assert json.loads(receiver.bodies.pop()) == ["a test"]
        mistaken = {"URL": "https://batches.example.org/", "BATCH": "false"}
        wrong = {f"POLLER_WEBHOOKS__0__{key}": value for key, value in mistaken.items()}
        code, said = await run(replace(service, settings=settings | wrong), "check")
        assert code != 0
        assert (
            "Batches takes messages in its own format there, not events: add batch = true" in said
        )
        await service.start()
        await until(lambda: sum(map(len, batches(receiver))) >= 9)
        code, said = await run(service, "check")
        assert "it accepts connections" in said
        assert await service.stop() == 0
    assert not [line for line in service.log() if line["level"] == "error"]
    assert max(map(len, batches(receiver))) == 3
    ids = [one for each in batches(receiver) for one in each]
    assert ids == sorted({*ids})
    assert ids[0] > "HK.00700:2026-02-28"


def batches(receiver: RawReceiver) -> list[Any]:
    """Return the ids of every message so far."""
    return [json.loads(body) for body in receiver.bodies]
