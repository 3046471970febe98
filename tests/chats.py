"""Chat services as their documentation describes them: what they take, show and answer.

Each fake reads a request as strictly as the service does, so that a message which it would refuse
is refused here, too.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from poller.delivery.destinations.bot import Dialect
from tests.receiver import status

BOT_SECRET: Final = "SEChunter2of-the-bot"  # noqa: S105  of the tests
TOKEN: Final = "x5X7c1f0a9e5b3d4826"  # noqa: S105  of the tests
NOW: Final = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)


class Unreadable(Exception):
    """The service does not take such a request; its text is the service's own answer."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(answer.decode())
        self.answer = answer


Request = tuple[str, Mapping[str, list[str]], Any]
"""Path, query and JSON of a request."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One chat service.

    Attributes:
        urls: What it hands out.
        takes: Its answer to a message.
        read: Returns what people see of a message; raises Unreadable.
        refusals: Its documented refusals → what the operator is told, and the seconds to wait.
        secret: The bot's, where it has one.
    """

    urls: tuple[str, ...]
    takes: bytes
    read: Callable[[Request], str]
    refusals: Mapping[bytes, tuple[str, float | None]]
    secret: str | None = None

    def answer(self, head: bytes, body: bytes, shown: list[str]) -> bytes:
        """Return the answer to a request, and append what people see of it."""
        target = head.split(b" ", 2)[1].decode()
        parts = urlsplit(target)
        try:
            shown.append(self.read((parts.path, parse_qs(parts.query), json.loads(body))))
        except Unreadable as refused:
            return refused.answer
        return self.takes


def answered(code: int, members: object, *headers: str) -> bytes:
    """Return an answer in JSON."""
    return status(
        code, "content-type: application/json", *headers, body=json.dumps(members).encode()
    )


# Slack


def _slack(request: Request) -> str:
    _, _, told = request
    text = told.get("text")
    if not isinstance(text, str) or not text or told.keys() - {"text", "unfurl_links"}:
        raise Unreadable(status(400, body=b"invalid_payload"))
    assert len(text) <= 4_000
    assert not re.search(r"<|>|&(?!amp;|lt;|gt;)", text)
    return text


_SLACK = Service(
    urls=(
        f"https://hooks.slack.com/services/T02ABCDEF/B03ABCDEF/{TOKEN}",
        f"https://hooks.slack-gov.com/services/T02ABCDEF/B03ABCDEF/{TOKEN}",
    ),
    takes=status(200, body=b"ok"),
    read=_slack,
    refusals={
        status(400, body=b"invalid_payload"): ("Slack: 400 invalid_payload: it does not", None),
        status(403, body=b"action_prohibited"): ("403 action_prohibited: an administrator", None),
        status(404, body=b"no_service"): ("404 no_service: it knows no such webhook: copy", None),
        status(410, body=b"channel_is_archived"): ("410 channel_is_archived: the channel", None),
        status(429, "retry-after: 90", body=b"rate_limited"): ("429: it is asked too often", 90),
        status(500, body=b"rollup_error"): ("500 rollup_error", None),
        status(404, body=b"<html>"): ("404: it knows no such webhook; is the URL right?", None),
        status(200, body=b"no_text"): ("200 no_text: it does not understand", None),
        status(200, body=f"<html>{TOKEN}".encode()): ("200: its answer is not ok", None),
    },
)

# Discord


def _discord(request: Request) -> str:
    _, _, told = request
    content = told.get("content")
    if not isinstance(content, str) or not 0 < len(content) <= 2_000:
        raise Unreadable(answered(400, {"message": "Invalid Form Body", "code": 50035}))
    assert told["allowed_mentions"] == {"parse": []}
    return content


_LIMITED = {"message": "You are being rate limited.", "retry_after": 64.57, "global": False}
_DISCORD = Service(
    urls=(
        f"https://discord.com/api/webhooks/1234567890123456789/{TOKEN}",
        f"https://discord.com/api/webhooks/1234567890123456789/{TOKEN}?thread_id=123",
        f"https://ptb.discord.com/api/webhooks/1234567890123456789/{TOKEN}",
        f"https://canary.discord.com/api/v10/webhooks/1234567890123456789/{TOKEN}?wait=true",
        f"https://discordapp.com/api/webhooks/1234567890123456789/{TOKEN}",
    ),
    takes=status(204),
    read=_discord,
    refusals={
        answered(429, _LIMITED, "retry-after: 65"): ("Discord: 429: it is asked too often", 65),
        answered(429, _LIMITED): ("429: it is asked too often", 64.57),
        answered(404, {"message": "Unknown Webhook", "code": 10015}): (
            "404 10015: it knows no such webhook: copy the URL",
            None,
        ),
        answered(401, {"message": "Invalid Webhook Token", "code": 50027}): (
            "401 50027: it refuses the token",
            None,
        ),
        answered(400, {"message": "Cannot send an empty message", "code": 50006}): (
            "400 50006: it does not understand",
            None,
        ),
        answered(400, {"message": TOKEN, "code": 220001}): ("add ?thread_id=…", None),
        status(300): ("Discord: 300", None),
        status(502): ("Discord: 502", None),
    },
)

# Telegram


def _telegram(request: Request) -> str:
    path, query, told = request
    if not re.fullmatch(r"/bot[0-9]+:[\w-]+/sendMessage", path):
        raise Unreadable(_refused_by_telegram(404, "Not Found"))
    if not query.get("chat_id"):
        raise Unreadable(_refused_by_telegram(400, "Bad Request: chat_id is empty"))
    text = told["text"]
    assert told["parse_mode"] == "HTML"
    assert re.findall(r"</?(\w+)>", text) == re.findall(r"</?(b|pre)>", text)
    plain = re.sub(r"</?(b|pre)>", "", text)
    if not plain or len(plain) > 4_096 or re.search(r"<|>|&(?!amp;|lt;|gt;)", plain):
        raise Unreadable(_refused_by_telegram(400, "Bad Request: can't parse entities"))
    return plain


def _refused_by_telegram(code: int, text: str, **parameters: object) -> bytes:
    told: dict[str, object] = {"ok": False, "error_code": code, "description": text}
    return answered(code, told | ({"parameters": parameters} if parameters else {}))


_TELEGRAM = Service(
    urls=(
        f"https://api.telegram.org/bot123456789:{TOKEN}/sendMessage?chat_id=-1001234567890",
        f"https://api.telegram.org/bot1:{TOKEN}/sendMessage?protect_content=1&chat_id=%40reports",
    ),
    takes=answered(200, {"ok": True, "result": {"message_id": 7}}),
    read=_telegram,
    refusals={
        _refused_by_telegram(429, "Too Many Requests: retry after 35", retry_after=35): (
            "Telegram: 429: it is asked too often",
            35,
        ),
        _refused_by_telegram(400, "Bad Request: chat not found"): ("is chat_id right", None),
        _refused_by_telegram(401, "Unauthorized"): ("401: it refuses the token: ask", None),
        _refused_by_telegram(403, "Forbidden: bot was kicked"): ("403: it may not write", None),
        _refused_by_telegram(404, "Not Found"): ("404: it knows no such bot", None),
        _refused_by_telegram(400, "upgraded", migrate_to_chat_id=-1009876543210): (
            "write chat_id=-1009876543210",
            None,
        ),
        answered(200, {"ok": False, "error_code": 400, "description": TOKEN}): ("400: it", None),
        answered(200, [TOKEN]): ("200: its answer is not the Bot API's", None),
        status(502, body=TOKEN.encode()): ("Telegram: 502", None),
    },
)

# Feishu


def text_of_card(card: Any) -> str:  # noqa: ANN401  as it was posted
    """Return what a Feishu card shows, in its order, and check its form."""
    assert card.keys() == {"config", "header", "elements"}
    return "\n".join([card["header"]["title"]["content"], *_shown_by_card(card)])


def _shown_by_card(card: Any) -> Iterator[str]:  # noqa: ANN401
    for element in card["elements"]:
        if element["tag"] == "div":
            assert element["text"]["tag"] == "plain_text"
            yield element["text"]["content"]
            continue
        assert element["tag"] == "table"
        assert 1 <= element["page_size"] <= 10
        names = [column["name"] for column in element["columns"]]
        assert all(column["data_type"] == "text" for column in element["columns"])
        yield "  ".join(column["display_name"] for column in element["columns"])
        for row in element["rows"]:
            assert list(row) == names
            yield "  ".join(row.values())
    assert sum(each["tag"] == "table" for each in card["elements"]) <= 5


def _feishu(request: Request) -> str:
    _, _, told = request
    key = f"{told.get('timestamp')}\n{BOT_SECRET}".encode()
    sign = base64.b64encode(hmac.new(key, digestmod=hashlib.sha256).digest()).decode()
    late = abs(NOW.timestamp() - float(told.get("timestamp", 0))) > 3600
    if late or told.get("sign") != sign:
        raise Unreadable(_refused_by_feishu(19021, "sign match fail"))
    if told["msg_type"] != "interactive" or len(json.dumps(told, ensure_ascii=False)) > 20_000:
        raise Unreadable(_refused_by_feishu(9499, "Bad Request"))
    text = text_of_card(told["card"])
    if "short" not in text:
        raise Unreadable(_refused_by_feishu(19024, "Key Words Not Found"))
    return text


def _refused_by_feishu(code: int, text: str) -> bytes:
    return answered(200, {"code": code, "msg": text, "data": {}})


_FEISHU = Service(
    urls=(
        f"https://open.feishu.cn/open-apis/bot/v2/hook/{TOKEN}",
        f"https://open.larksuite.com/open-apis/bot/v2/hook/{TOKEN}",
        f"https://open.larkoffice.com/open-apis/bot/v2/hook/{TOKEN}",
    ),
    takes=answered(200, {"code": 0, "msg": "success", "data": {}}),
    read=_feishu,
    refusals={
        _refused_by_feishu(9499, "Bad Request"): ("Feishu: 9499: it does not understand", None),
        _refused_by_feishu(9499, "too many request"): ("9499: it is asked too often", 60),
        _refused_by_feishu(11232, "frequency limited"): ("11232: it is asked too often", 60),
        _refused_by_feishu(19001, "param invalid"): ("19001: it knows no such bot", None),
        _refused_by_feishu(19021, f"sign {BOT_SECRET}"): ("19021: it refuses the signa", None),
        _refused_by_feishu(19022, "Ip Not Allowed"): ("19022: it refuses this address", None),
        _refused_by_feishu(19024, "Key Words Not Found"): ("19024: it wants a keyword", None),
        _refused_by_feishu(7, f"{TOKEN} {BOT_SECRET}"): ("7: it did not take the", None),
        status(429, "retry-after: 90"): ("Feishu: 429", 90),
    },
    secret=BOT_SECRET,
)

# DingTalk


def _dingtalk(request: Request) -> str:
    _, query, told = request
    if not query.get("access_token"):
        raise Unreadable(_refused(40014, "invalid access_token"))
    timestamp = query.get("timestamp", [""])[0]
    signed = f"{timestamp}\n{BOT_SECRET}".encode()
    sign = base64.b64encode(hmac.new(BOT_SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    if timestamp != str(int(NOW.timestamp() * 1000)) or query.get("sign") != [sign]:
        raise Unreadable(_refused(310000, "sign not match"))
    if told["msgtype"] != "markdown" or not told["markdown"]["title"]:
        raise Unreadable(_refused(40035, "invalid parameter"))
    text: str = told["markdown"]["text"]
    if "short" not in text:
        raise Unreadable(_refused(310000, "keywords not in content"))
    assert len(json.dumps(told, ensure_ascii=False).encode()) <= 20_000
    return text


def _refused(code: int, text: str) -> bytes:
    return answered(200, {"errcode": code, "errmsg": text})


_DINGTALK = Service(
    urls=(f"https://oapi.dingtalk.com/robot/send?access_token={TOKEN}",),
    takes=_refused(0, "ok"),
    read=_dingtalk,
    refusals={
        _refused(310000, f"keywords not in content {TOKEN}"): ("DingTalk: 310000: it ref", None),
        _refused(130101, "send too fast, exceed 20 times per minute"): ("too often", 600),
        _refused(410100, "too fast"): ("410100: it is asked too often", 600),
        _refused(400101, "access_token not exist"): ("400101: it knows no such token", None),
        _refused(300001, "token is not exist"): ("300001: it knows no such bot", None),
        _refused(400013, "group dissolved"): ("400013: the group was dissolved", None),
        _refused(400102, "robot stopped"): ("400102: the bot was stopped: start it", None),
        _refused(-1, "system busy"): ("-1: it has trouble of its own", None),
        _refused(88, f"{BOT_SECRET}"): ("88: it did not take the message", None),
        answered(200, [TOKEN]): ("200: its answer holds no errcode", None),
        status(503): ("DingTalk: 503", None),
    },
    secret=BOT_SECRET,
)

# WeCom


def _wecom(request: Request) -> str:
    _, query, told = request
    if not query.get("key"):
        raise Unreadable(_refused(93000, "invalid webhook url"))
    if told["msgtype"] != "markdown_v2":
        raise Unreadable(_refused(40008, "invalid message type"))
    text: str = told["markdown_v2"]["content"]
    if not 0 < len(text.encode()) <= 4_096:
        raise Unreadable(_refused(40058, "markdown_v2.content exceed max length 4096"))
    return text


_WECOM = Service(
    urls=(f"https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={TOKEN}",),
    takes=_refused(0, "ok"),
    read=_wecom,
    refusals={
        _refused(93000, f"invalid webhook url {TOKEN}"): ("WeCom: 93000: it knows no such", None),
        _refused(45009, "api freq out of limit"): ("45009: it is asked too often", 60),
        _refused(45033, "api concurrent out of limit"): ("45033: it is asked too often", 60),
        _refused(40058, "content exceed max length"): ("40058: it does not understand", None),
        _refused(-1, "system error"): ("-1: it has trouble of its own", None),
        answered(200, {}): ("200: its answer holds no errcode", None),
        status(500): ("WeCom: 500", None),
    },
)

# Microsoft Teams


def _teams(request: Request) -> str:
    _, _, told = request
    bad = b"Bad payload received by generic incoming webhook."
    if told.get("type") != "message" or len(json.dumps(told, ensure_ascii=False)) > 28_000:
        raise Unreadable(status(400, body=bad))
    (attachment,) = told["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.5")
    return "\n".join(_shown_by_adaptive(card["body"]))


def _shown_by_adaptive(elements: Any) -> Iterator[str]:  # noqa: ANN401
    for element in elements:
        if element["type"] == "TextBlock":
            yield element["text"]
            continue
        assert element["type"] == "Table"
        for row in element["rows"]:
            assert row["type"] == "TableRow"
            assert len(row["cells"]) == len(element["columns"])
            yield "  ".join(
                each for cell in row["cells"] for each in _shown_by_adaptive(cell["items"])
            )


_FLOW = f"workflows/12ab/triggers/manual/paths/invoke?api-version=1&sp=%2Frun&sig={TOKEN}"
_CONNECTOR = (
    "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error "
)
_TEAMS = Service(
    urls=(
        f"https://firm.webhook.office.com/webhookb2/1-2@3-4/IncomingWebhook/{TOKEN}/5-6",
        f"https://prod-1.westeurope.logic.azure.com:443/{_FLOW}",
        f"https://a1.3c.environment.api.powerplatform.com:443/powerautomate/automations/{_FLOW}",
    ),
    takes=status(202),
    read=_teams,
    refusals={
        status(400, body=b"Bad payload received by generic incoming webhook."): (
            "Teams: 400: it does not understand the message",
            None,
        ),
        status(429, "retry-after: 120"): ("429: it is asked too often", 120),
        status(200, body=f"{_CONNECTOR}429 with ContextId {TOKEN}".encode()): (
            "429: it is asked too often",
            None,
        ),
        status(200, body=f"{_CONNECTOR}403 with ContextId x".encode()): ("403: it refuses", None),
        status(200, body=b"Webhook message delivery failed"): ("200: its answer says", None),
        answered(400, {"error": {"code": "WorkflowTriggerIsNotEnabled", "message": TOKEN}}): (
            "400: the workflow was switched off",
            None,
        ),
        answered(401, {"error": {"code": "DirectApiAuthorizationRequired"}}): ("401: it ref", None),
        answered(404, {"error": {"code": "WorkflowNotFound"}}): ("404: it knows no such", None),
        status(502): ("Teams: 502", None),
    },
)

SERVICES: Final = {
    "dingtalk": _DINGTALK,
    "discord": _DISCORD,
    "feishu": _FEISHU,
    "slack": _SLACK,
    "teams": _TEAMS,
    "telegram": _TELEGRAM,
    "wecom": _WECOM,
}
"""By the destination's name."""


def dialect_of(name: str) -> Dialect:
    """Return the dialect of a destination."""
    found = import_module(f"poller.delivery.destinations.{name}").DIALECT
    assert isinstance(found, Dialect)
    return found


DIALECTS: Final = tuple(map(dialect_of, SERVICES))
