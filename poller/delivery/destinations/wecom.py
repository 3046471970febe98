"""A message bot of a WeCom (WeChat Work) group."""

from datetime import timedelta
from typing import Any, Final

from poller.delivery.chat_message import ChatMessage, Line, Table, itemized
from poller.delivery.destinations.bot import (
    Dialect,
    Payload,
    Refused,
    destination_for,
    members_of,
    whole,
)
from poller.delivery.destinations.destination import Service

_OK: Final = 200

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

_TOO_FREQUENT: Final = {45009, 45033}
_PAUSE: Final = timedelta(seconds=60)
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


def _judge(status: int, body: bytes) -> Refused | None:
    code = whole(members_of(body).get("errcode"))
    if status == _OK and code == 0:
        return None
    if not code:
        unlike = "its answer holds no errcode; is the URL a group bot's?"
        return Refused(f"{status}: {unlike}" if status == _OK else str(status))
    reason = f"{code}: {_FIXES.get(code, 'it did not take the message')}"
    return Refused(reason, _PAUSE if code in _TOO_FREQUENT else None)


DIALECT: Final = Dialect(
    name="WeCom",
    limit=4_096,  # bytes of the text
    compose=_compose,
    size=_size,
    judge=_judge,
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
