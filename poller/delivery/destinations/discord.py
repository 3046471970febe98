"""Webhooks of a Discord channel."""

from typing import Final

from poller.delivery.chat_message import ChatMessage, body_of
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

_FIXES: Final = {
    10015: "it knows no such webhook: copy the URL from the channel's settings again",
    50027: "it refuses the token: copy the URL from the channel's settings again",
    50006: "it does not understand the message",
    50035: "it does not understand the message",
    220001: "the channel is a forum: add ?thread_id=… to the URL",
}
"""Discord's code → what an operator can do."""

_STATUSES: Final = {
    401: "it refuses the token: copy the URL from the channel's settings again",
    404: "it knows no such webhook: copy the URL from the channel's settings again",
    429: "it is asked too often",
}


def _compose(message: ChatMessage) -> Payload:
    title = f"**{message.title}**\n" if message.title else ""
    return {
        "content": title + body_of(message, monospaced=True),
        "allowed_mentions": {"parse": []},
    }


def _judge(status: int, body: bytes) -> Refused | None:
    if 200 <= status < 300:  # noqa: PLR2004  204, or 200 with the message if the URL says ?wait=true
        return None
    said = members_of(body)
    code = whole(said.get("code"))
    fix = _FIXES.get(code or 0) or _STATUSES.get(status)
    number = f"{status} {code}" if code else str(status)
    return Refused(f"{number}: {fix}" if fix else number, seconds(said.get("retry_after")))


DIALECT: Final = Dialect(
    name="Discord",
    limit=2_000,  # characters
    compose=_compose,
    size=lambda payload: len(str(payload["content"])),
    judge=_judge,
)

DISCORD: Final = destination_for(
    DIALECT,
    (
        Service(
            "Discord",
            ("discord.com", "discordapp.com", ".discord.com", ".discordapp.com"),
            "make a webhook in the channel's settings and write url = \"https://discord.com"
            '/api/webhooks/WEBHOOK_ID/TOKEN"',
            chooses=True,
        ),
    ),
    r"/api/(v[0-9]+/)?webhooks/[0-9]+/[^/?]+(\?.*)?",
)
