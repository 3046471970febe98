"""Chat channels against real servers: a bot that checks signatures, and apprise's own JSON."""

import asyncio
import base64
import hashlib
import hmac
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from poller.cli import webhooks
from poller.delivery.chat_message import ChatMessage, Table, body_of
from poller.delivery.destinations import destination_of
from poller.delivery.destinations.apprise import Apprise
from poller.delivery.destinations.bot import Bot
from poller.delivery.destinations.chat import Channel, Chat
from poller.delivery.destinations.feishu import DIALECT, code_of
from poller.delivery.endpoint import Endpoint
from poller.delivery.retry import Delivered, Failed, Outcome
from poller.delivery.selection import Selection
from poller.errors import StoreMisfit
from poller.events import encode
from poller.markets.hk import HONG_KONG, HkRecord
from poller.model import Code, Event, EventType, Vintage
from poller.schedule.notice import Completed, Detected, Notice
from poller.settings.config import load
from tests.chats import text_of_card
from tests.feed import event_of, notice_of
from tests.machine import scaled

SECRET, TOKEN = "hunter2-of-the-bot", "5f2c-token-of-the-url"
MESSAGE = ChatMessage("Hong Kong short interest", ("HK.00700  -0.79 %",))
Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Group:
    """A custom bot: checks the signature as Feishu does, unless told to answer otherwise."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.clock = time.time()
        self.respond: Respond = self.check

    async def check(self, request: web.Request) -> web.StreamResponse:
        """Answer 0, or 19021 where the signature is wrong or over an hour old."""
        told = await request.json()
        key = f"{told.get('timestamp')}\n{SECRET}".encode()
        expected = base64.b64encode(hmac.new(key, digestmod=hashlib.sha256).digest()).decode()
        fresh = abs(self.clock - float(told.get("timestamp", 0))) <= 3600
        if not (fresh and told.get("sign") == expected):
            return said(19021, "sign match fail or timestamp is not within one hour")
        assert told["msg_type"] == "interactive"
        self.texts.append(text_of_card(told["card"]))
        return said(0, "success")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        return await self.respond(request)


def said(code: object, text: str = "") -> web.Response:
    """Return an answer as Feishu words it, under HTTP 200 whatever the code."""
    return web.json_response({"code": code, "msg": text, "data": {}})


@pytest.fixture
async def bot() -> AsyncIterator[tuple[Group, TestServer]]:
    """A bot behind a real port."""
    bot, app = Group(), web.Application()
    app.router.add_route("*", "/{path:.*}", bot.handle)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)  # some handlers never answer
    yield bot, server
    await server.close()


def bot_at(url: str, secret: str | None) -> Endpoint:
    """Return the endpoint of a bot behind this URL."""
    return Endpoint("chat", url, (secret,) if secret else (), Selection(), destination="feishu")


SILENCE = 1.0
"""Seconds until an answer that never comes is given up."""


def patient(respond: Respond, short: float = SILENCE) -> float:
    """Return how long to wait for an answer; short only where none comes."""
    return short if respond is silent else scaled(10)


def feishu(
    server: TestServer,
    secret: str | None = SECRET,
    late: float = 0,
    timeout: float = scaled(10),
) -> Bot:
    """Return the channel to the bot; its clock is `late` seconds behind."""
    endpoint = bot_at(str(server.make_url(f"/open-apis/bot/v2/hook/{TOKEN}")), secret)
    behind = timedelta(seconds=late)
    return Bot(DIALECT, endpoint, now=lambda: datetime.now(UTC) - behind, timeout=timeout)


async def posted(to: Channel) -> Outcome:
    """Post the message, and close the channel."""
    try:
        return await to.post(MESSAGE)
    finally:
        await to.close()


async def test_a_signed_message_is_taken(bot: tuple[Group, TestServer]) -> None:
    """The bot accepts the signature and shows title and body."""
    assert await posted(feishu(bot[1])) == Delivered(200)
    assert bot[0].texts == [MESSAGE.text]


async def test_the_events_of_a_lane_are_one_message(bot: tuple[Group, TestServer]) -> None:
    """What a relay sends arrives as one digest, which says how many symbols are missing."""
    late = {Code(f"HK.0{n:04}"): date(2026, 11, 6) for n in range(1000, 1012)}
    others = {Code("HK.00700"): date(2026, 11, 13), Code("US.AAPL"): date(2026, 10, 30)}

    async def watermarks() -> dict[Code, date]:
        return late | others

    record = HkRecord(None, "2026-11-13", 5_000_000, 0.56, None, None)
    vintage = Vintage(record, 0, datetime(2026, 11, 20, tzinfo=UTC))
    entries = [
        event_of(encode(Event(EventType.REPORTED, Code(code), vintage, None, None)))
        for code in ("HK.00700", "HK.00005")
    ]
    chat = Chat(feishu(bot[1]), bot_at(TOKEN, None), watermarks)
    assert await chat.send(entries) == Delivered(200)
    await chat.close()
    (text,) = bot[0].texts
    assert text.startswith("Hong Kong short interest, 13 Nov 2026: 2 reported, 12 missing\n")


class Unreadable:
    """Records that keep something else where watermarks belong."""

    async def watermarks(self) -> dict[Code, date]:
        """Refuse, as a server does that holds a string there."""
        raise StoreMisfit("the key holds a string")


async def test_a_store_that_misfits_stops_no_message(bot: tuple[Group, TestServer]) -> None:
    """Who is missing is then not told; the events are."""
    record = HkRecord(None, "2026-11-13", 5_000_000, 0.56, None, None)
    vintage = Vintage(record, 0, datetime(2026, 11, 20, tzinfo=UTC))
    event = Event(EventType.REPORTED, Code("HK.00700"), vintage, None, None)
    url = str(bot[1].make_url("/hook"))
    desk = Endpoint("desk", url, (SECRET,), Selection(), destination="feishu")
    sender = destination_of(desk).sender(desk, Unreadable().watermarks)
    assert await sender.send([event_of(encode(event))]) == Delivered(200)
    await sender.close()


async def test_notices_of_a_market_are_a_message_of_their_own(
    bot: tuple[Group, TestServer],
) -> None:
    """A sentence each, where several waited; nobody is counted for it."""

    async def watermarks() -> dict[Code, date]:
        raise AssertionError

    at, day = datetime(2026, 11, 20, tzinfo=UTC), date(2026, 11, 13)
    told: list[Notice] = [
        Detected(HONG_KONG, day, at, Code("HK.01613")),
        Completed(HONG_KONG, day, at, 299, (Code("HK.00700"),)),
    ]
    entries = [notice_of(notice) for notice in told]
    chat = Chat(feishu(bot[1]), bot_at(TOKEN, None), watermarks)
    assert await chat.send(entries) == Delivered(200)
    await chat.close()
    (text,) = bot[0].texts
    assert text.splitlines() == [
        "News of short interest",
        "Hong Kong: the report of 13 Nov 2026 is out, first seen at HK.01613.",
        "Hong Kong, 13 Nov 2026: the report is complete: 299 of 300 symbols; missing HK.00700.",
    ]


@pytest.mark.parametrize(("secret", "late"), [("another", 0), (None, 0), (SECRET, 3700)])
async def test_a_refused_signature_names_the_cure(
    bot: tuple[Group, TestServer], secret: str | None, late: float
) -> None:
    """HTTP 200 with 19021 is a failure that tells the operator where to look."""
    outcome = await posted(feishu(bot[1], secret, late))
    assert isinstance(outcome, Failed)
    assert "19021: it refuses the signature: check the bot's secret" in outcome.reason
    assert bot[0].texts == []


async def endless(request: web.Request) -> web.StreamResponse:
    """Write until nobody listens."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65_536)


async def cut(request: web.Request) -> web.StreamResponse:
    """Promise more than comes."""
    response = web.StreamResponse(headers={"content-length": "50"})
    await response.prepare(request)
    assert request.transport is not None
    request.transport.close()
    return response


async def silent(_request: web.Request) -> web.StreamResponse:
    """Say nothing until the client leaves."""
    await asyncio.Event().wait()
    raise AssertionError


def fixed(make: Callable[[], web.Response]) -> Respond:
    """Return a handler that always gives the same answer."""

    async def respond(_request: web.Request) -> web.StreamResponse:
        return make()

    return respond


@pytest.mark.parametrize(
    ("respond", "said", "wait"),
    [
        (fixed(lambda: said(11232, "frequency limited")), "11232: it is asked too often", 60),
        (fixed(lambda: said(9499, "too many request")), "9499: it is asked too often", 60),
        (fixed(lambda: said(19024, "Key Words Not Found")), "add 'short' to the bot's", None),
        (fixed(lambda: said(7, f"{SECRET} {TOKEN}")), "7: it did not take the message", None),
        (fixed(lambda: said("x")), "holds no code", None),
        (fixed(lambda: web.json_response([1])), "holds no code", None),
        (fixed(lambda: web.Response(text="<html>" * 99)), "holds no code", None),
        (fixed(lambda: web.Response(body=b"\xff\xfe{")), "holds no code", None),
        (fixed(lambda: web.Response(status=500)), "500", None),
        (fixed(lambda: web.Response(status=429, headers={"retry-after": "90"})), "429", 90),
        (fixed(lambda: web.Response(status=302, headers={"location": "/elsewhere"})), "302", None),
        (endless, "holds no code", None),
        (cut, "holds no code", None),
        (silent, "no answer within 1 s", None),
    ],
    ids=[
        "frequency", "too many", "keyword", "secrets", "code", "list", "html", "bytes",
        "500", "429", "redirect", "endless", "cut", "silent",
    ],
)  # fmt: skip
async def test_every_other_answer_is_a_failure(
    bot: tuple[Group, TestServer],
    respond: Respond,
    said: str,
    wait: int | None,
) -> None:
    """Nothing but code 0 counts as delivered; no answer shows a secret; a limit is waited for."""
    bot[0].respond = respond
    outcome = await posted(feishu(bot[1], timeout=patient(respond)))
    assert isinstance(outcome, Failed)
    assert said in outcome.reason
    assert outcome.retry_after == (None if wait is None else timedelta(seconds=wait))
    assert SECRET not in repr(outcome)
    assert TOKEN not in repr(outcome)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"code":0,"msg":"success"}', 0),
        (b'{"code":"19021"}', 19021),
        (b'{"code":-1}', -1),
        (b'{"code":999999999}', 999_999_999),
        (b'{"code":1000000000}', None),
        *[
            (body, None)
            for body in (
                b'{"code":1e999}', b'{"code":NaN}', b'{"code":-Infinity}', b'{"code":true}',
                b'{"code":0.0}', b'{"code":' + b"9" * 10 + b"}", b'{"code":' + b"9" * 9000 + b"}",
                b'{"code":"' + b"9" * 9000 + b'"}', '{"code":"٣"}'.encode(), b'{"code":null}',
                b'{"code":[0]}', b"[" * 65536, b'{"code":' * 9000, b"null", b"0", b"", b"\xff",
                b'{"code":0', "{'code':0}".encode("utf-16"),
            )
        ],
    ],
)  # fmt: skip
def test_what_is_read_of_an_answer(body: bytes, code: int | None) -> None:
    """A short whole number, or nothing: no body raises, however deep or large."""
    assert code_of(body) == code


async def test_nobody_listens() -> None:
    """The reason is in the system's words, without the URL."""
    channel = Bot(DIALECT, bot_at(f"http://127.0.0.1:9/{TOKEN}", None), now=datetime.now)
    outcome = await posted(channel)
    assert isinstance(outcome, Failed)
    assert outcome.reason.startswith("Feishu: no connection: ")
    assert TOKEN not in outcome.reason


def by_url(server: TestServer, wait: float = 4.0) -> str:
    """Return apprise's URL of the server, with things that must not be shown.

    `wait`: for how many seconds the library itself waits for an answer.
    """
    return f"json://desk:{SECRET}@127.0.0.1:{server.port}/{TOKEN}?rto={wait}"


async def test_apprise_posts_title_and_body(bot: tuple[Group, TestServer]) -> None:
    """The message arrives as the digest wrote it."""
    seen: list[dict[str, str]] = []

    async def note(request: web.Request) -> web.StreamResponse:
        seen.append(await request.json())
        return web.Response()

    bot[0].respond = note
    table = ChatMessage("Hong Kong", (Table((("HK.00700", "-0.79 %"),), None, 3),))
    channel = Apprise(by_url(bot[1]))
    assert await channel.post(table) == Delivered()
    assert await channel.post(ChatMessage("", ("US.BRK_B *one* sentence",))) == Delivered()
    assert [(one["title"], one["message"]) for one in seen] == [
        (table.title, body_of(table, monospaced=True)),
        ("", "US.BRK_B *one* sentence"),
    ]


async def test_a_test_message_that_was_taken(
    bot: tuple[Group, TestServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`apprise` tells no status, and so none is printed."""
    bot[0].respond = fixed(web.Response)
    file = tmp_path / "poller.toml"
    url = by_url(bot[1])
    file.write_text(f'[[webhooks]]\nname = "chat"\nurl = "{url}"\n', encoding="utf-8")
    await webhooks.test(load(file, {}), "chat")
    told = capsys.readouterr().out
    assert told == "chat took it; to be seen there: a digest of made-up figures, marked as a test\n"


@pytest.mark.parametrize(
    ("respond", "reason", "status"),
    [
        (fixed(lambda: web.Response(status=403)), "JSON: 403", 403),
        (fixed(lambda: web.Response(status=302, headers={"location": "/x"})), "JSON: 302", 302),
        (cut, "JSON: it did not take the message", None),
        (silent, "JSON: no answer within 0.5 s", None),
    ],
    ids=["403", "redirect", "cut", "silent"],
)
async def test_apprise_fails_in_words_without_secrets(
    bot: tuple[Group, TestServer],
    capfd: pytest.CaptureFixture[str],
    respond: Respond,
    reason: str,
    status: int | None,
) -> None:
    """The outcome tells the status, and the library's own log lines reach nobody."""
    bot[0].respond = respond
    outcome = await Apprise(by_url(bot[1]), timeout=patient(respond, 0.5)).post(MESSAGE)
    assert outcome == Failed(reason, status)
    assert capfd.readouterr() == ("", "")


async def test_a_slow_service_holds_nobody_up(bot: tuple[Group, TestServer]) -> None:
    """While apprise waits for one server, the loop serves others."""
    waiting = asyncio.Event()

    async def wait_or_check(request: web.Request) -> web.StreamResponse:
        if "hook" in request.path:
            return await bot[0].check(request)
        waiting.set()
        return await silent(request)

    bot[0].respond = wait_or_check
    slow = asyncio.create_task(Apprise(by_url(bot[1], 60), timeout=scaled(3)).post(MESSAGE))
    await waiting.wait()
    assert await posted(feishu(bot[1])) == Delivered(200)
    assert not slow.done()
    assert isinstance(await slow, Failed)


RELEASED = threading.Event()


class Hanging(Apprise):
    """A service whose library does not return."""

    def _notify(self, message: ChatMessage) -> Outcome:
        RELEASED.wait()
        return super()._notify(message)


async def test_messages_that_hang_are_bounded(bot: tuple[Group, TestServer]) -> None:
    """A service that never returns holds so many threads and no more; the next message fails."""
    channel = Hanging(by_url(bot[1]), timeout=0.01)
    said = [await channel.post(MESSAGE) for _ in range(101)]
    RELEASED.set()
    assert len({str(each) for each in said[:100]}) == 1
    assert "100 earlier messages hang" in str(said[-1])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"nonsense://{SECRET}", "this nonsense:// URL"),
        (f"tgram://{SECRET}", "this tgram:// URL"),
        (SECRET, "https://appriseit.com"),
    ],
)
def test_an_url_apprise_cannot_use(url: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It is refused with its scheme alone, and nothing else is printed."""
    with pytest.raises(ValueError, match="apprise cannot use") as caught:
        Apprise(url)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this project's Python."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=scaled(30), check=False)


def test_without_the_extra_the_message_names_it() -> None:
    """Where apprise is not installed everything else works, and a chat URL says what to install."""
    ended = run(
        "import sys; sys.modules['apprise'] = None\n"
        "from poller.delivery.destinations.apprise import Apprise\n"
        "try: Apprise('slack://x')\n"
        "except ValueError as problem: print(problem)"
    )
    assert "pip install 'short-interest-poller[chat]'" in ended.stdout
    assert "pipx inject short-interest-poller apprise" in ended.stdout


def test_apprise_is_imported_only_when_used() -> None:
    """Who has no chat does not pay for the library."""
    ended = run(
        "import sys, json, poller.delivery.destinations;print(json.dumps('apprise' in sys.modules))"
    )
    assert json.loads(ended.stdout) is False


async def test_a_stuck_service_does_not_keep_the_process_alive(
    bot: tuple[Group, TestServer],
) -> None:
    """The process ends while the library still waits for its answer."""
    bot[0].respond = silent
    program = (
        "import asyncio, sys, time\n"
        "from poller.delivery.destinations.apprise import Apprise\n"
        "from poller.delivery.chat_message import ChatMessage\n"
        "channel = Apprise(sys.argv[1], timeout=0.2)\n"
        "print(asyncio.run(channel.post(ChatMessage('', ('x',)))).reason, time.monotonic())"
    )
    ended = await asyncio.to_thread(run, program, by_url(bot[1], 60))
    words, _, moment = ended.stdout.strip().rpartition(" ")
    assert words == "JSON: no answer within 0.2 s"
    assert time.monotonic() - float(moment) < scaled(2)  # the library itself waits for 60 s
    assert ended.stderr == ""
