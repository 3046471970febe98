"""Incoming webhooks of Slack, and of servers that speak like it, such as Mattermost."""

from html import escape
from typing import Final

from poller.delivery.chat_message import ChatMessage, body_of
from poller.delivery.destinations.bot import Dialect, Payload, Refused, destination_for
from poller.delivery.destinations.destination import Service

_OK: Final = 200

_FIXES: Final = {
    "invalid_payload": "it does not understand the message",
    "no_text": "it does not understand the message",
    "no_service": "it knows no such webhook: copy the URL from the app's settings again",
    "no_service_id": "the URL is incomplete: copy it from the app's settings again",
    "no_team": "it knows no such workspace: copy the URL from the app's settings again",
    "no_active_hooks": "the webhook was disabled: make another one",
    "invalid_token": "it refuses the token: copy the URL from the app's settings again",
    "team_disabled": "the workspace was disabled",
    "user_not_found": "the user the webhook posts to is gone: make another one",
    "channel_not_found": "the channel is gone: make a webhook for another one",
    "channel_is_archived": "the channel was archived: make a webhook for another one",
    "action_prohibited": "an administrator forbids it: ask one to allow the app",
    "posting_to_general_channel_denied": "an administrator forbids to post to that channel",
    "rollup_error": "it has trouble of its own",
}
"""Slack's answer → what an operator can do."""

_STATUSES: Final = {
    _OK: "its answer is not ok; is the URL an incoming webhook's?",
    404: "it knows no such webhook; is the URL right?",
    429: "it is asked too often",
}
"""The status of any other answer → what an operator can do."""


def _compose(message: ChatMessage) -> Payload:
    title = f"*{message.title}*\n" if message.title else ""
    text = title + body_of(message, monospaced=True)
    return {"text": escape(text, quote=False), "unfurl_links": False}


def _judge(status: int, body: bytes) -> Refused | None:
    said = body[:100].decode("utf-8", "replace").strip()
    if status == _OK and said == "ok":
        return None
    if said in _FIXES:
        return Refused(f"{status} {said}: {_FIXES[said]}")
    fix = _STATUSES.get(status)
    return Refused(f"{status}: {fix}" if fix else str(status))


DIALECT: Final = Dialect(
    name="Slack",
    limit=4_000,  # characters; a longer text may be split or cut
    compose=_compose,
    size=lambda payload: len(str(payload["text"])),
    judge=_judge,
)

SLACK: Final = destination_for(
    DIALECT,
    (
        Service(
            "Slack",
            ("hooks.slack.com", "hooks.slack-gov.com", "slack.com"),
            'make an incoming webhook and write url = "https://hooks.slack.com/services/T…/B…/…"',
            chooses=True,
        ),
    ),
    r"/services/[^/?]+/[^/?]+/[^/?]+/?",
)
