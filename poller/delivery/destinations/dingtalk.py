"""A custom bot of a DingTalk group."""

import base64
import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote

from poller.delivery.chat_message import UNTITLED, ChatMessage, Table, itemized
from poller.delivery.destinations.bot import (
    Dialect,
    Payload,
    Signature,
    destination_for,
    errcode_judge,
)
from poller.delivery.destinations.destination import Service

_FIXES: Final = {
    -1: "it has trouble of its own",
    130101: "it is asked too often",
    300001: "it knows no such bot: copy the URL from the group's settings again",
    310000: "it refuses the keyword, the signature or this address: add 'short' to the bot's "
    "keywords, check its secret and this machine's clock, or add the address to its list",
    400013: "the group was dissolved",
    400101: "it knows no such token: copy the URL from the group's settings again",
    400102: "the bot was stopped: start it in the group's settings",
    400106: "it knows no such bot: copy the URL from the group's settings again",
    410100: "it is asked too often",
}
"""DingTalk's code → what an operator can do."""

_PAUSES: Final = dict.fromkeys((130101, 410100), timedelta(minutes=10))
"""For so long it takes nothing from a bot that sent more than twenty messages in a minute."""


def _compose(message: ChatMessage) -> Payload:
    title = message.title or UNTITLED
    parts = [f"#### {title}"]
    for part in message.parts:
        if isinstance(part, Table):
            parts += ["\n".join(itemized(part))] if part.rows else []
            parts += [part.rest] if part.rest else []
        else:
            parts.append(part.replace("\n", "\n\n"))
    return {"msgtype": "markdown", "markdown": {"title": title, "text": "\n\n".join(parts)}}


def _sign(secret: str, now: datetime) -> Signature:
    """Sign the time in milliseconds with the bot's secret, as parameters of the URL."""
    timestamp = str(int(now.timestamp() * 1000))
    digest = hmac.digest(secret.encode(), f"{timestamp}\n{secret}".encode(), hashlib.sha256)
    sign = quote(base64.b64encode(digest).decode(), safe="")
    return Signature(query=f"timestamp={timestamp}&sign={sign}")


DIALECT: Final = Dialect(
    name="DingTalk",
    limit=18_000,  # bytes; a request may have 20,000
    compose=_compose,
    judge=errcode_judge("custom", _FIXES, _PAUSES),
    sign=_sign,
)

DINGTALK: Final = destination_for(
    DIALECT,
    (
        Service(
            "DingTalk",
            ("oapi.dingtalk.com", "api.dingtalk.com"),
            'add a custom bot to the group and write url = "https://oapi.dingtalk.com/robot/send'
            '?access_token=TOKEN"',
            chooses=True,
        ),
    ),
    r"/robot/send\?(.*&)?access_token=[^&]+.*",
)
