"""A custom bot of Feishu or Lark: signed cards, and answers with the error in the body."""

import base64
import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Final

from poller.delivery.chat_message import UNTITLED, ChatMessage, Part
from poller.delivery.destinations.bot import (
    Dialect,
    Payload,
    Refused,
    Signature,
    destination_for,
    members_of,
    whole,
)
from poller.delivery.destinations.destination import Service

_OK: Final = 200

_FIXES: Final = {
    9499: "it does not understand the message",
    11232: "it is asked too often",
    19001: "it knows no such bot: copy the URL from the group's settings again",
    19002: "it does not understand the message",
    19021: "it refuses the signature: check the bot's secret, and this machine's clock",
    19022: "it refuses this address: add it to the bot's list, or remove the list",
    19024: "it wants a keyword: add 'short' to the bot's keywords, or remove them",
}
"""Feishu's code → what an operator can do."""

_BAD_OR_TOO_MANY: Final = 9499
"""The code of a bad request, and of too many requests; only the words tell them apart."""

_TOO_FREQUENT: Final = 11232
_PAUSE: Final = timedelta(seconds=60)

_PAGE: Final = 10
"""Rows of a table that are shown at once; the reader turns the page for the others."""


def _compose(message: ChatMessage) -> Payload:
    title = {"tag": "plain_text", "content": message.title or UNTITLED}
    elements = [element for part in message.parts for element in _elements(part)]
    card = {
        "config": {"wide_screen_mode": True},
        "header": {"template": "blue", "title": title},
        "elements": elements,
    }
    return {"msg_type": "interactive", "card": card}


def _elements(part: Part) -> list[Payload]:
    if isinstance(part, str):
        return [_text(part)]
    found = list[Payload]()
    if part.rows:
        names = part.header or ("",) * len(part.rows[0])  # the service shows no empty name
        found.append(
            {
                "tag": "table",
                "page_size": _PAGE,
                "row_height": "low",
                "columns": [_column(number, name) for number, name in enumerate(names)],
                "rows": [
                    {f"c{number}": cell for number, cell in enumerate(row)} for row in part.rows
                ],
            }
        )
    return [*found, _text(part.rest)] if part.rest else found


def _column(number: int, name: str) -> Payload:
    return {
        "name": f"c{number}",
        "display_name": name,
        "data_type": "text",
        "horizontal_align": "right" if number else "left",
    }


def _text(text: str) -> Payload:
    return {"tag": "div", "text": {"tag": "plain_text", "content": text}}


def _judge(status: int, body: bytes) -> Refused | None:
    """Judge by the status, and for 200 by the code in the body."""
    if status != _OK:
        return Refused(str(status))
    code = code_of(body)
    if code == 0:
        return None
    if code is None:
        return Refused("its answer holds no code; is the URL a custom bot's?")
    often = code == _TOO_FREQUENT
    if code == _BAD_OR_TOO_MANY:
        often = "too many" in str(members_of(body).get("msg")).lower()
    fix = _FIXES[_TOO_FREQUENT] if often else _FIXES.get(code, "it did not take the message")
    return Refused(f"{code}: {fix}", _PAUSE if often else None)


def code_of(answer: bytes) -> int | None:
    """Return the code in Feishu's answer; None if it has none."""
    return whole(members_of(answer).get("code"))


def signature(timestamp: str, secret: str) -> str:
    """Return Feishu's signature: timestamp and secret are the key, the signed text is empty."""
    key = f"{timestamp}\n{secret}".encode()
    return base64.b64encode(hmac.digest(key, b"", hashlib.sha256)).decode()


def _sign(secret: str, now: datetime) -> Signature:
    timestamp = str(int(now.timestamp()))
    return Signature({"timestamp": timestamp, "sign": signature(timestamp, secret)})


DIALECT: Final = Dialect(
    name="Feishu",
    limit=18_000,  # bytes; a request may have 20 KB
    compose=_compose,
    judge=_judge,
    sign=_sign,
)

FEISHU: Final = destination_for(
    DIALECT,
    (
        Service(
            "Feishu or Lark",
            ("open.feishu.cn", "open.larksuite.com", "open.larkoffice.com"),
            'add a custom bot to the group and write url = "https://open.feishu.cn/open-apis/bot'
            '/v2/hook/…"',
            takes_json="/anycross/",  # workflows
            chooses=True,
        ),
    ),
    r"/open-apis/bot/v2/hook/[^/?]+.*",
)
