"""A Telegram bot, by Telegram's Bot API or by a server of one's own that offers it."""

from html import escape
from typing import Final

from poller.delivery.chat_message import ChatMessage, Table, aligned
from poller.delivery.destinations.bot import (
    Dialect,
    Payload,
    Refused,
    destination_for,
    members_of,
    seconds,
    whole,
)
from poller.delivery.destinations.destination import Service

_OK: Final = 200

_FIXES: Final = {
    400: "it does not accept the message; is chat_id right, and the bot in that chat?",
    401: "it refuses the token: ask @BotFather for it again",
    403: "it may not write there: add the bot to the chat again, or start a chat with it",
    404: "it knows no such bot: write the URL as /botTOKEN/sendMessage?chat_id=…",
    429: "it is asked too often",
}
"""Telegram's error code → what an operator can do."""


def _compose(message: ChatMessage) -> Payload:
    parts = [f"<b>{escape(message.title, quote=False)}</b>"] if message.title else []
    for part in message.parts:
        if isinstance(part, Table):
            rows = escape("\n".join(aligned(part)), quote=False) if part.rows else ""
            parts += [f"<pre>{rows}</pre>"] if rows else []
            parts += [part.rest] if part.rest else []
        else:
            parts.append(escape(part, quote=False))
    return {
        "text": "\n".join(parts),
        "parse_mode": "HTML",
        "link_preview_options": {"is_disabled": True},
    }


def _judge(status: int, body: bytes) -> Refused | None:
    said = members_of(body)
    if status == _OK and said.get("ok") is True:
        return None
    code = whole(said.get("error_code"))
    if code is None:
        unlike = "its answer is not the Bot API's; is the URL right?"
        return Refused(f"{status}: {unlike}" if status == _OK else str(status))
    asked = said.get("parameters")
    asked = asked if isinstance(asked, dict) else {}
    moved = _id(asked.get("migrate_to_chat_id"))
    fix = _FIXES.get(code, "it did not take the message")
    if moved is not None:
        fix = f"the group has a new id: write chat_id={moved}"
    return Refused(f"{code}: {fix}", seconds(asked.get("retry_after")))


def _id(value: object) -> int | None:
    """Return the id of a group, such as -1001234567890; None if there is none."""
    return value if type(value) is int and abs(value) < 10**15 else None


DIALECT: Final = Dialect(
    name="Telegram",
    limit=4_000,  # units of UTF-16; 4,096 once the markup is read
    compose=_compose,
    size=lambda payload: len(str(payload["text"]).encode("utf-16-le", "replace")) // 2,
    judge=_judge,
)

TELEGRAM: Final = destination_for(
    DIALECT,
    (
        Service(
            "Telegram",
            ("api.telegram.org",),
            'write url = "https://api.telegram.org/botTOKEN/sendMessage?chat_id=CHAT_ID", '
            "without text=",
            chooses=True,
        ),
    ),
    r"/bot[^/?]+(/test)?/(?i:sendmessage)\?(?=(.*&)?chat_id=[^&])(?!(.*&)?text=).*",
    anywhere=True,
)
