"""Each chat service by the URL it hands out, against a fake that reads as strictly as it does.

The URL's host is the service's own; a resolver leads to the fake, and https is left out.
"""

import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from poller.delivery.chat_message import ChatMessage, Table, text_of
from poller.delivery.destinations import destination_of
from poller.delivery.destinations.bot import Bot
from poller.delivery.destinations.chat import Chat, send_test
from poller.delivery.digest import in_characters
from poller.delivery.endpoint import Endpoint
from poller.delivery.retry import LEAST_AFTER_429, Delivered, Disable, Failed, Later, decide
from poller.delivery.sample import sample_digest
from poller.events import StreamEvent, encode
from poller.markets.us import UsRecord
from poller.model import Change, Code, Event, EventType, Vintage
from poller.settings.config import load
from tests.chats import BOT_SECRET, NOW, SERVICES, TOKEN, Service, dialect_of
from tests.feed import event_of
from tests.receiver import RawReceiver

each_service = pytest.mark.parametrize("name", SERVICES)


class ToLoopback(AbstractResolver):
    """Finds every host on this machine."""

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:  # noqa: ANN401
        """Return the loopback address."""
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """There is nothing to close."""


@dataclass
class Room:
    """A chat behind a real port. `shown`: its messages as people see them."""

    name: str
    receiver: RawReceiver
    shown: list[str] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)

    @property
    def service(self) -> Service:
        """Whose chat it is."""
        return SERVICES[self.name]

    def bot_for(self, endpoint: Endpoint) -> Bot:
        """Return the channel of an endpoint whose URL has the service's host."""
        parts = urlsplit(endpoint.url)
        url = parts._replace(
            scheme="http", netloc=f"{parts.hostname}:{self.receiver.port}"
        ).geturl()
        here = replace(endpoint, url=url, allow_http=True, allow_private=True)
        return Bot(dialect_of(self.name), here, now=lambda: NOW, resolver=ToLoopback())


@contextlib.asynccontextmanager
async def room_of(name: str) -> AsyncIterator[Room]:
    """Run the fake of a service."""

    def answer(_: int, head: bytes) -> tuple[bytes, None]:
        if room.answers:
            return room.answers.pop(0), None
        return room.service.answer(head, room.receiver.bodies[-1], room.shown), None

    room = Room(name, RawReceiver(answer))
    async with room.receiver.running():
        yield room


def pasted(folder: Path, name: str, url: str, further: str = "") -> Endpoint:
    """Return the endpoint of a table that holds the URL and what else the service needs."""
    secret = SERVICES[name].secret
    lines = ["[[webhooks]]", "name = 'chat'", f"url = '{url}'", further]
    lines += [f"secret = '{secret}'"] if secret else []
    file = folder / "poller.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    (table,) = load(file, {}).webhooks
    return table.endpoint()


def flag_for(url: str) -> str:
    """Return the key a URL needs beside it: only a workflow may be anything else."""
    return "teams = true" if re.search(r"logic\.azure|powerplatform", url) else ""


def told(code: str, now: int, before: int, name: str | None = None) -> StreamEvent:
    """Return an event of the United States, whose table has all the columns there are."""
    record = UsRecord(None, "2026-11-13", now, now / 1e7, None, 2.5, None, None)
    change = Change(shares=now - before, percent=100 * (now - before) / before if before else None)
    vintage = Vintage(record, 0, datetime(2026, 11, 20, tzinfo=UTC))
    event = event_of(encode(Event(EventType.REPORTED, Code(code), vintage, None, change)))
    return replace(event, name=name)


EVENTS: Final = [
    told("US.AAPL", 110_000_000, 100_000_000, "APPLE & <SONS>"),
    told("US.BRK.B", 1_480_638, 1_888_755, "伯克希爾"),
    told("US.GME", 9_000, 3_000),
]


async def nobody() -> dict[Code, date]:
    """Know of no watermark."""
    return {}


@pytest.mark.parametrize(
    ("name", "url"), [(name, url) for name, each in SERVICES.items() for url in each.urls]
)
async def test_a_url_as_it_is_handed_out(name: str, url: str, tmp_path: Path) -> None:
    """It is understood, posted to byte for byte, and its chat shows the digest."""
    endpoint = pasted(tmp_path, name, url, flag_for(url))
    assert (endpoint.destination, endpoint.url) == (name, url)
    assert destination_of(endpoint).depth > 1
    async with room_of(name) as room:
        bot = room.bot_for(endpoint)
        chat = Chat(bot, endpoint, nobody)
        assert isinstance(await chat.send(EVENTS), Delivered), room.receiver.bodies
        assert isinstance(await chat.send(EVENTS[:1]), Delivered)
        await chat.close()
        (head, _), (table, sentence) = room.receiver.heads, room.shown
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    assert head.decode().split(" ")[1].startswith(target)
    assert "US short interest, 13 Nov 2026: 3 reported" in table
    assert "2 up, 1 down, 0 unchanged" in table
    places = [table.index(each) for each in ("US.GME", "伯克希爾 (US.BRK.B)", "SONS (US.AAPL)")]
    assert places == sorted(places)
    for figure in ("+200.00 %", "-21.61 %", "110,000,000", "1,480,638", "2.50 d"):
        assert figure in table
    assert "(US.AAPL) reported 110,000,000 shares short on 13 Nov 2026" in sentence


@pytest.mark.parametrize("name", [name for name, each in SERVICES.items() if each.secret])
async def test_a_bot_without_a_secret_signs_nothing(name: str, tmp_path: Path) -> None:
    """It may have none; a signature of nothing would be refused."""
    async with room_of(name) as room:
        endpoint = replace(pasted(tmp_path, name, room.service.urls[0]), secrets=())
        room.answers.append(room.service.takes)
        assert isinstance(await send_test(room.bot_for(endpoint)), Delivered)
        (head,), (body,) = room.receiver.heads, room.receiver.bodies
    assert b"sign=" not in head
    assert not {"sign", "timestamp"} & json.loads(body).keys()


@each_service
async def test_the_test_message_is_a_digest(name: str, tmp_path: Path) -> None:
    """It says that it is a test, and shows made-up symbols as a report would, biggest first."""
    async with room_of(name) as room:
        endpoint = pasted(tmp_path, name, room.service.urls[0])
        assert isinstance(await send_test(room.bot_for(endpoint)), Delivered)
        (text,) = room.shown
    assert "TEST: Hong Kong short interest, " in text
    assert "This is a test: the symbols and their figures are made up." in text
    names = ["EXAMPLE SHIPPING", "示例科技", "SAMPLE BANK", "MADE-UP ENERGY"]
    places = [text.index(each) for each in names]
    assert places == sorted(places)
    assert "7,404,500" in text
    assert "+137.32 %" in text


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        pytest.param(name, answer, id=f"{name}-{number}")
        for name, each in SERVICES.items()
        for number, answer in enumerate(each.refusals)
    ],
)
async def test_a_refusal(name: str, answer: bytes, tmp_path: Path) -> None:
    """Also one under 200 counts as such, names its fix, is waited out and shows no secret."""
    fix, wait = SERVICES[name].refusals[answer]
    async with room_of(name) as room:
        endpoint = pasted(tmp_path, name, room.service.urls[0])
        chat = Chat(room.bot_for(endpoint), endpoint, nobody)
        room.answers.append(answer)
        outcome = await chat.send(EVENTS)
        await chat.close()
    assert isinstance(outcome, Failed)
    assert fix in outcome.reason
    assert outcome.retry_after == (None if wait is None else timedelta(seconds=wait))
    assert TOKEN not in repr(outcome)
    assert BOT_SECRET not in repr(outcome)
    match decide(outcome, attempt=1, failing=timedelta(0), jitter=0):
        case Later(_, hold):
            assert hold >= timedelta(seconds=wait or 0)
            assert "429" not in outcome.reason or hold >= LEAST_AFTER_429
        case Disable(reason):
            assert "410" in reason
        case other:
            pytest.fail(f"{other} is no answer to a first failure")


REPORT: Final = ChatMessage(
    "Title",
    (
        Table((("HK.00700", "+1.00 %", "1,000"),), ("symbol", "change", "short"), 2),
        Table((("HK.00005", "+2.00 %", "1", "→", "2"),), None, 0),
    ),
)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "dingtalk",
            [
                "#### Title",
                "- HK.00700: **+1.00 %**, short 1,000",
                "… and 2 more",
                "- HK.00005: **+2.00 %** 1 → 2",
            ],
        ),
        (
            "wecom",
            [
                "### Title",
                (
                    "| symbol | change | short |\n"
                    "| :--- | ---: | ---: |\n"
                    "| HK.00700 | +1.00 % | 1,000 |"
                ),
                "… and 2 more",
                "- HK.00005: **+2.00 %** 1 → 2",
            ],
        ),
    ],
)
def test_markdown(name: str, lines: list[str]) -> None:
    """A list where the service has no tables, and for a table without header; else a table."""
    told = json.dumps(dialect_of(name).compose(REPORT), ensure_ascii=False)
    assert json.dumps("\n\n".join(lines), ensure_ascii=False) in told


@each_service
def test_a_table_without_rows_is_only_counted(name: str) -> None:
    """Where no row fits, there is nothing to frame."""
    message = ChatMessage("Title", ("Restated:", Table((), ("symbol", "change"), 1_234)))
    text = json.dumps(dialect_of(name).compose(message), ensure_ascii=False)
    assert "… and 1,234 more" in text
    for frame in ("```", "<pre>", "symbol", '"table"', '"Table"', "---"):
        assert frame not in text


@pytest.mark.parametrize(
    ("asked", "wait"),
    [
        ("0", 0), ("64.5", 64.5), ('"90"', 90), ("1e300", 86_400), ("999999999", 86_400),
        ("99999999999999999999", None), ("-1", None), ("NaN", None), ("1e999", None),
        ("true", None), ('"1e3"', None), ("[1]", None), ("null", None),
    ],
)  # fmt: skip
def test_how_long_a_body_asks_to_wait(asked: str, wait: float | None) -> None:
    """Seconds, at most a day; what cannot be read asks for nothing."""
    refused = dialect_of("discord").judge(429, f'{{"retry_after":{asked}}}'.encode())
    assert refused is not None
    assert refused.wait == (None if wait is None else timedelta(seconds=wait))


@each_service
async def test_nothing_is_too_long(name: str, tmp_path: Path) -> None:
    """However many symbols, and however long their names are in bytes, the service takes it."""
    rows = [
        replace(told(f"US.X{n}", 10**15 + n, 10**14), name="騰訊控股" * 9, type=kind)
        for kind in EventType
        for n in range(40)
    ]
    async with room_of(name) as room:
        endpoint = pasted(tmp_path, name, room.service.urls[0])
        chat = Chat(room.bot_for(endpoint), endpoint, nobody)
        assert isinstance(await chat.send(rows), Delivered)
        long = replace(EVENTS[0], name="騰" * 30_000)
        assert isinstance(await chat.send([long]), Delivered)
        await chat.close()
        table, sentence = room.shown
    assert re.search(r"… and \d+ more", table)
    assert "騰騰騰" in sentence


WRONG: Final = {
    f"https://hooks.slack.com/triggers/T0/1/{TOKEN}": "https://hooks.slack.com/services/T…/B…/…",
    f"https://hooks.slack.com/services/{TOKEN}": "https://hooks.slack.com/services/T…/B…/…",
    f"https://slack.com/api/chat.postMessage?token={TOKEN}": "hooks.slack.com/services/T…/B…/…",
    f"https://discord.com/api/webhooks/1/{TOKEN}/slack": "/api/webhooks/WEBHOOK_ID/TOKEN",
    "https://discord.com/channels/1/2": "https://discord.com/api/webhooks/WEBHOOK_ID/TOKEN",
    f"https://api.telegram.org/bot{TOKEN}": "/botTOKEN/sendMessage?chat_id=CHAT_ID",
    f"https://api.telegram.org/bot{TOKEN}/sendMessage": "/botTOKEN/sendMessage?chat_id=CHAT_ID",
    f"https://api.telegram.org/bot{TOKEN}/sendMessage?chat_id=": "sendMessage?chat_id=CHAT_ID",
    f"https://api.telegram.org/bot{TOKEN}/sendMessage?chat_id=1&text=a": "without text=",
    f"https://api.telegram.org/bot{TOKEN}/getMe?chat_id=1": "/botTOKEN/sendMessage?chat_id=",
    f"https://open.feishu.cn/open-apis/bot/hook/{TOKEN}": "open.feishu.cn/open-apis/bot/v2/hook/…",
    f"https://oapi.dingtalk.com/robot/send?token={TOKEN}": "/robot/send?access_token=TOKEN",
    f"https://api.dingtalk.com/v1.0/robot/{TOKEN}": "oapi.dingtalk.com/robot/send?access_token=",
    f"https://qyapi.weixin.qq.com/cgi-bin/message/send?key={TOKEN}": "/webhook/send?key=KEY",
    f"https://outlook.office.com/webhook/{TOKEN}": "such connectors are gone: make a workflow",
    f"https://firm.webhook.office.com/{TOKEN}": "make a workflow for the channel",
}


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize(("url", "line"), WRONG.items())
def test_another_url_of_a_service(url: str, line: str, flagged: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """It is refused with the line to write, without its token; a flag does not change that."""
    names = [name for name, each in SERVICES.items() if any(_alike(url, one) for one in each.urls)]
    further = f"{(names or ['teams'])[0]} = true" if flagged else ""
    with pytest.raises(Exception, match=r"webhooks\.0\.url: ") as caught:
        pasted(tmp_path, "slack", url, further)
    assert line in str(caught.value)
    assert TOKEN not in str(caught.value)


def _alike(url: str, other: str) -> bool:
    return _domain(url) == _domain(other)


def _domain(url: str) -> str:
    return ".".join(str(urlsplit(url).hostname).split(".")[-2:])


@pytest.mark.parametrize("url", SERVICES["teams"].urls[1:])
def test_a_workflow_may_post_to_teams(url: str, tmp_path: Path) -> None:
    """Unsigned it is asked what it is; signed it is a webhook like any other."""
    with pytest.raises(Exception, match="for a chat in Microsoft Teams, add teams = true; else, "):
        pasted(tmp_path, "teams", url)
    signed = "secret = 'whsec_" + "A" * 44 + "'"
    assert pasted(tmp_path, "teams", url, signed).destination == "webhook"


@each_service
async def test_a_server_of_ones_own(name: str, tmp_path: Path) -> None:
    """With the flag the URL may have any host, and no other service's."""
    own = SERVICES[name].urls[0]
    parts = urlsplit(own)
    flag = f"{name} = true"
    proxied = parts._replace(netloc="proxy.example.org").geturl()
    assert pasted(tmp_path, name, proxied, flag).destination == name
    assert pasted(tmp_path, name, own, flag).destination == name
    other = next(each for each in SERVICES if each != name)
    with pytest.raises(Exception, match=f"leave {name} out"):
        pasted(tmp_path, name, SERVICES[other].urls[0], flag)


def chats_in_the_docs() -> Iterator[Any]:
    """Yield the configurations that the page on webhooks shows for a chat."""
    page = Path("docs/webhooks.md").read_text(encoding="utf-8")
    for example in re.findall(r"```toml\n(.*?)```", page.partition("\n## Chat\n")[2], re.DOTALL):
        yield pytest.param(example, id=re.findall(r'name = "(.*?)"', example)[0])


@pytest.mark.parametrize("example", tuple(chats_in_the_docs()))
async def test_an_example_of_the_docs(example: str, tmp_path: Path) -> None:
    """As it stands there, it reaches the chat of the service it is about."""
    for name in re.findall(r'_file = "([^"]+)"', example):
        (tmp_path / name).write_text(BOT_SECRET, encoding="utf-8")
        (tmp_path / name).chmod(0o600)
    file = tmp_path / "poller.toml"
    file.write_text(example, encoding="utf-8")
    (endpoint,) = (table.endpoint() for table in load(file, {}).webhooks)
    if endpoint.destination == "apprise":
        return  # the library has its own hosts; test_chat uses those of it that go anywhere
    assert endpoint.destination == endpoint.name
    async with room_of(endpoint.destination) as room:
        assert isinstance(await send_test(room.bot_for(endpoint)), Delivered)
        assert len(room.shown) == 1


def test_the_test_message_shown_in_the_docs() -> None:
    """A reader sees what the command sends."""
    found = sample_digest(date(2026, 11, 20), limit=2_000, size=in_characters)
    shown = text_of(found, monospaced=True).replace("```\n", "").removesuffix("\n```")
    assert f"```text\n{shown}\n```" in Path("docs/webhooks.md").read_text(encoding="utf-8")


def test_every_service_has_an_example_in_the_docs() -> None:
    """Whoever looks for a chat finds the table to copy."""
    assert SERVICES.keys() <= {each.id for each in chats_in_the_docs()}
