"""A message bot of a WeCom (WeChat Work) group."""

from datetime import timedelta
from typing import Any, Final

from poller.delivery.chat_message import ChatMessage, Line, Table, itemized
from poller.delivery.destinations.bot import (
    Dialect,
    Payload,
    destination_for,
    errcode_judge,
)
from poller.delivery.destinations.destination import Service

_FIXES: Final = {
    -1: "it has trouble of its own",
    40008: "it does not understand the message",
    40058: "it does not understand the message",
    45009: "it is asked too often",
    45033: "it is asked too often",
    93000: "it knows no such bot: copy the URL from the group's settings again",
    93008: "the bot is not in the group any more: add it again",
    93017: "the bot was removed: add another one",
}
"""WeCom's code → what an operator can do."""

_PAUSES: Final = dict.fromkeys((45009, 45033), timedelta(seconds=60))
"""It takes twenty messages a minute."""


def _compose(message: ChatMessage) -> Payload:
    parts = [f"### {message.title}"] if message.title else []
    for part in message.parts:
        if isinstance(part, Table):
            parts += ["\n".join(_table(part))] if part.rows else []
            parts += [part.rest] if part.rest else []
        else:
            parts.append(part)
    return {"msgtype": "markdown_v2", "markdown_v2": {"content": "\n\n".join(parts)}}


def _table(table: Table) -> list[str]:
    if table.header is None:
        return list(itemized(table))
    rule = (":---", *["---:"] * (len(table.header) - 1))
    return [_row(line) for line in (table.header, rule, *table.rows)]


def _row(cells: Line) -> str:
    return f"| {' | '.join(cells)} |"


def _size(payload: Payload) -> int:
    told: Any = payload["markdown_v2"]
    return len(str(told["content"]).encode())


DIALECT: Final = Dialect(
    name="WeCom",
    limit=4_096,  # bytes of the text
    compose=_compose,
    size=_size,
    judge=errcode_judge("group", _FIXES, _PAUSES),
)

WECOM: Final = destination_for(
    DIALECT,
    (
        Service(
            "WeCom",
            ("qyapi.weixin.qq.com",),
            'add a message bot to the group and write url = "https://qyapi.weixin.qq.com/cgi-bin'
            '/webhook/send?key=KEY"',
            chooses=True,
        ),
    ),
    r"/cgi-bin/webhook/send\?(.*&)?key=[^&]+.*",
)
