"""`poller mcp` with the reference client, on a real server."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters
from redis.asyncio import Redis

from poller.markets.hk import HONG_KONG
from poller.markets.us import UNITED_STATES
from poller.schedule.notice import Completed, fields_of
from tests.machine import at_most, scaled
from tests.service import Service
from tests.test_reading import FIRST_SEEN, HK, REVISED, SECOND, US, service, url

__all__ = ["service", "url"]  # fixtures

TOOLS = {"history", "releases", "biggest_moves", "gaps", "explain"}


@asynccontextmanager
async def client_of(service: Service) -> AsyncIterator[Client]:
    """Run the server as a program would, and connect to it."""
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "poller", "mcp"], env=service.environment()
    )
    async with at_most(what="the server"), Client(command) as client:
        yield client


async def ask(client: Client, tool: str, **arguments: object) -> dict[str, Any]:
    """Return the answer of a tool that succeeds."""
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    assert isinstance(answer.structured_content, dict)
    return answer.structured_content


async def refusal(client: Client, tool: str, **arguments: object) -> str:
    """Return why a tool fails."""
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    (text,) = answer.content
    return str(getattr(text, "text", ""))


async def test_what_nobody_else_tells(service: Service) -> None:
    """History as it was known, reports, the biggest moves, gaps and explanations; all read-only."""
    async with client_of(service) as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == TOOLS
        for tool in tools:
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint
            assert tool.description
        now = await ask(client, "history", code=HK)
        assert (now["days"], now["problems"]) == (2, [])
        shares = [row["aggregated_short"] for row in now["rows"]]
        assert shares == [50_000_000, 51_888_755]
        before = (REVISED - timedelta(minutes=1)).isoformat()
        then = await ask(client, "history", code=HK, as_known_at=before, limit=1)
        assert [row["aggregated_short"] for row in then["rows"]] == [51_480_638]
        assert (await ask(client, "history", code="HK.00001"))["problems"] == [
            "nothing is known of HK.00001; the tool explain says why"
        ]
        moves = await ask(client, "biggest_moves", market="US")
        assert [(row["rank"], row["code"], row["change"]) for row in moves["symbols"]] == [
            (1, US, 1_500_000_000)
        ]
        found = await ask(client, "gaps", codes=[HK, SECOND])
        assert [each["code"] for each in found["gaps"]] == [HK, SECOND]
        assert found["gaps"][0]["missing"][0] == "2026-05-08"
        told = await ask(client, "explain", code=HK)
        assert {"subject": "service", "text": "nobody polls: start poller run"} in told["lines"]
        assert (await ask(client, "releases")) == {"releases": []}


async def test_the_reports(service: Service, url: str) -> None:
    """Each with what is known of it, the newest first, of one market or of all."""
    client: Any = Redis.from_url(url)
    async with client as redis:
        for market, day in ((HONG_KONG, 24), (HONG_KONG, 30), (UNITED_STATES, 30)):
            notice = Completed(market, date(2026, 4, day), FIRST_SEEN, 3, (SECOND,))
            await redis.xadd("{short-interest}:releases", fields_of(notice))
    async with client_of(service) as client:
        every = (await ask(client, "releases"))["releases"]
        days = [(row["trading_day"], row["market"]) for row in every]
        assert days == [("2026-04-30", "US"), ("2026-04-30", "HK"), ("2026-04-24", "HK")]
        assert every[0]["completed_at"] == "2026-05-08T09:00:00.000Z"
        assert (every[0]["found"], every[0]["detected_at"]) == (3, None)
        some = (await ask(client, "releases", market="hk", limit=1))["releases"]
        assert [(row["trading_day"], row["market"]) for row in some] == days[1:2]


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "HK.00700": ("history", {"code": "700"}),
    "limit": ("history", {"code": HK, "limit": 0}),
    "'XX' is no market: write HK or US": ("biggest_moves", {"market": "XX"}),
    "reports no days to cover": ("biggest_moves", {"market": "HK", "sort": "days_to_cover"}),
    "the nearest reports": ("biggest_moves", {"market": "HK", "day": "2019-01-01"}),
    "nonsense": ("gaps", {"codes": ["nonsense"]}),
}


async def test_what_cannot_be_answered(service: Service) -> None:
    """The refusal says what to write instead; the server goes on."""
    async with client_of(service) as client:
        for words, (tool, arguments) in REFUSED.items():
            assert words in await refusal(client, tool, **arguments)
        assert (await ask(client, "history", code=HK))["days"] == 2


HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


def test_a_signal_ends_it_at_once(service: Service) -> None:
    """Also while stdin stays open; without a word, as there is nothing to release."""
    with subprocess.Popen(
        [sys.executable, "-m", "poller", "mcp"],
        env=service.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stderr is not None
        print(json.dumps(HELLO), file=server.stdin, flush=True)
        assert json.loads(server.stdout.readline())["id"] == 1
        server.terminate()
        assert (server.wait(scaled(30)), server.stdout.read(), server.stderr.read()) == (0, "", "")


def test_without_the_package(tmp_path: Path) -> None:
    """The line to type, and no traceback."""
    (tmp_path / "mcp.py").write_text("raise ImportError\n")
    service = Service(tmp_path, 1, HK)
    done = subprocess.run(
        [sys.executable, "-m", "poller", "mcp"],
        env=service.environment() | {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'short-interest-poller[mcp]', or with pipx: pipx inject" in done.stderr
    assert "Traceback" not in done.stderr
