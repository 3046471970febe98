"""Whatever others wrote into OpenD's answers, receivers' and Redis: no face lets it out raw."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from redis.asyncio import Redis

from poller import show
from poller.cli.runner import print_stderr
from poller.delivery.outbox import OutboxKeys
from poller.delivery.queued import sort_key
from poller.detect.held import QuarantinedFigure, Reason
from poller.events import encode
from poller.markets.hk import HkRecord
from poller.model import Code, Event, EventType, Vintage
from poller.printable import printable
from poller.store.embedded import Embedded
from poller.store.redis_status import RedisStatusStore
from poller.store.store import Keys
from poller.telemetry.status import GatewayState, Poll, Polls, ProcessReport
from poller.telemetry.vitals import status_line
from tests.receiver import SECRET, Receiver, status
from tests.service import Service, poller

CODE = Code("HK.00700")
NASTY: Final = (
    "\x1b]0;owned\x07\x9b31m\u202e\u2066\u200f\x85\x7f\u200b\u2028[red]x[/red]\r\nforged line"
)
"""A title, a colour, text from right to left, lines of its own; and markup, which is no control."""

NOW = datetime.now(UTC)
RECORD = HkRecord(1777478400, "2026-04-30", 7, 0.5, 10.0, 9.0)


def is_clean(text: str) -> bool:
    """Tell whether a terminal would show every line as it is written."""
    return all(printable(line, len(line) + 1) == line for line in text.split("\n"))


async def poison(url: str) -> None:
    """Write the nasty text into every place another client, OpenD or a receiver can reach."""
    redis: Any = Redis.from_url(url)
    keys, outbox = Keys("short-interest"), OutboxKeys("short-interest", "desk")
    event = encode(Event(EventType.REPORTED, CODE, Vintage(RECORD, 0, NOW), None, None))
    for name in event:
        if name not in {"data", "id"}:
            await redis.xadd(keys.stream, {**event, name: NASTY})
    await redis.xadd(keys.stream, {NASTY: NASTY})
    told = {"code": NASTY, "found": 1, "expected": 2, "missing": 1, "missing_codes": [NASTY]}
    release = {"type": NASTY, "market": NASTY, "observed_at": NASTY, "trading_day": NASTY}
    releases = f"{{{keys.namespace}}}:releases"
    await redis.xadd(releases, {**release, "data": json.dumps(told)})
    await redis.xadd(releases, {**release, "data": json.dumps({**told, "code": None})})
    await redis.hset(outbox.state, mapping={"disabled": NASTY, "last_error": NASTY})
    attempt = {"at": NOW.isoformat(), "status": 500, "reason": NASTY, "answer": NASTY}
    letter = json.dumps({"fields": event, "attempts": [attempt]})
    await redis.hset(outbox.dead, sort_key("1-0"), letter)
    await redis.aclose()
    status_store = RedisStatusStore(url, "short-interest")
    at = datetime.now(UTC)  # an older report is that of a process that is gone
    gateways = (GatewayState(NASTY, NASTY, ready=False, reason=NASTY, since=at),)
    await status_store.report(
        "here-1",
        ProcessReport(at, "run", NASTY, 1, gateways, 1, troubles={NASTY: NASTY, CODE: NASTY}),
    )
    await status_store.save_polls({CODE: Polls((Poll(NOW, NASTY),), NOW, NASTY)})
    await status_store.close()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """Return a poisoned service whose receiver answers with the nasty text, too."""
    receiver = Receiver(lambda _: status(400, body=NASTY.encode()))
    listed = tmp_path / "list\x9b\u202e.txt"
    listed.write_text("US.AAPL\n", encoding="utf-8")
    async with receiver.running(), Embedded(tmp_path).running() as url:
        config = tmp_path / "poller.toml"
        config.write_text(
            f'[[webhooks]]\nname = "desk"\nurl = "{receiver.url}"\nsecret = "{SECRET}"\n'
            "allow_http = true\nallow_private = true\n",
            encoding="utf-8",
        )
        await poison(url)
        settings = {"POLLER_CONFIG": str(config), "POLLER_WATCHLIST__FILES": str(listed)}
        yield Service(tmp_path, 1, CODE, settings)


@pytest.mark.parametrize(
    ("face", "told"),
    [
        ("tail --from 0 --count 7", r"\x1b]0;owned"),
        ("tail --releases --from 0 --count 2", r"\x1b]0;owned"),
        (f"explain {CODE}", r"\x1b]0;owned"),
        ("webhook list", r"\x1b]0;owned"),
        ("webhook dead desk", r"\x1b]0;owned"),
        ("webhook test desk", r"\x1b]0;owned"),
        ("watch list", r"list\x9b\u202e.txt"),
    ],
)
async def test_no_command_lets_it_out(service: Service, face: str, told: str) -> None:
    """Stdout and stderr tell it, and hold nothing that a terminal obeys."""
    _, out, err = await poller(service, *face.split())
    assert is_clean(out)
    assert is_clean(err)
    assert told in out + err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "face",
    [
        "tail --from 0 --count 7 --json",
        "tail --releases --from 0 --count 2 --json",
        "webhook list --json",
        "webhook dead desk --json",
    ],
)
async def test_json_is_exact_and_clean(service: Service, face: str) -> None:
    """A program reads every character; a person who looks at it sees escapes."""
    _, out, _ = await poller(service, *face.split())
    assert is_clean(out)
    assert any(NASTY in texts(json.loads(line)) for line in out.splitlines())


async def test_a_refused_list_is_quoted(service: Service) -> None:
    """A file's name and its lines are told so that they can be found, not obeyed."""
    (service.state_dir / "list\x9b\u202e.txt").write_text(NASTY, encoding="utf-8")
    code, out, err = await poller(service, "check")
    assert (code, out) == (2, "")
    assert is_clean(err)
    assert r"list\x9b\u202e.txt:1" in err


def texts(value: object) -> list[str]:
    """Return every text in a JSON value."""
    match value:
        case str():
            return [value]
        case dict():
            return [text for pair in value.items() for each in pair for text in texts(each)]
        case list():
            return [text for each in value for text in texts(each)]
        case _:
            return []


def test_a_table_shows_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever writes `[red]` into a cell colours nothing, and adds no row."""
    show.print_table(("code", "found"), [(CODE, NASTY), (CODE, "x" * 10_000)])
    out = capsys.readouterr().out
    assert is_clean(out)
    assert "[red]x[/red]" in out
    assert len(out.splitlines()) == 3
    assert len(out) < 2_000


def test_held_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """A figure is numbers and a day, whatever form it is shown in."""
    held = QuarantinedFigure(RECORD, None, Reason.UNIT_SLIP, NOW)
    for as_json in (False, True):
        show.print_held([(Code(f"HK.{NASTY}"), held)], as_json=as_json)
        assert is_clean(capsys.readouterr().out)


def test_the_status_line() -> None:
    """Another line would be another field to the service manager; it is UTF-8, and short."""
    line = status_line(NASTY, {}, {NASTY: NASTY + "\ud800" + "x" * 10_000})
    assert is_clean(line)
    assert "\n" not in line
    assert line.encode()
    assert len(line) < 1_000


def test_the_last_words(capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal keeps its lines, each with the program's name, and as many as it has."""
    print_stderr(
        "\n".join([NASTY.replace("\n", ""), *(f"problem {n}" for n in range(3_000))]) + "\n"
    )
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3_001
    assert all(line.startswith("poller: ") and is_clean(line) for line in lines)


async def test_the_page_lets_nothing_out(service: Service) -> None:
    """HTML, JSON and metrics hold escapes, where a browser or a terminal would turn text around."""
    service.role = "web"
    service.settings = {**service.settings, "POLLER_WEB__PORT": "0"}
    await service.start()
    try:
        await service.said("page")
        url = next(line["url"] for line in service.log() if line["event"] == "page")
        async with aiohttp.ClientSession() as http:
            for path in ("", f"symbols/{CODE}", "api/status", "api/events", "metrics"):
                async with http.get(url + path) as answer:
                    text = await answer.text()
                assert answer.status == 200, path
                assert is_clean(text.replace("\u00a0", " ")), path
                assert "owned" in text or path.startswith("symbols"), path
    finally:
        await service.stop()


@pytest.mark.parametrize("command", ["gaps", "quarantine list"])
async def test_a_spoiled_symbol_hides_no_other(service: Service, command: str) -> None:
    """What can be told is told; the spoiled key is named with what to type, on one line."""
    async with Embedded(service.state_dir).running() as url, Redis.from_url(url) as redis:
        for key in ("vintages", "held"):
            await redis.hset(f"{{short-interest}}:{key}:US.BAD", NASTY, "x")
        wanted = command.split() + (["US.BAD", CODE] if command == "gaps" else [])
        code, out, err = await poller(service, *wanted)
    assert code == 1
    assert (CODE if command == "gaps" else "none") in out
    assert is_clean(out + err)
    assert "remove it" in err
    assert len(err.splitlines()) == 1
