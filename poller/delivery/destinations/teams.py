"""A channel of Microsoft Teams: a workflow of Power Automate, or one of the last connectors."""

import re
from typing import Final

from poller.delivery.chat_message import ChatMessage, Line, Part, lines_of
from poller.delivery.destinations.bot import (
    Dialect,
    Payload,
    Refused,
    destination_for,
    members_of,
)
from poller.delivery.destinations.destination import Service

_FIXES: Final = {
    400: "it does not understand the message; does the workflow post a card of its request?",
    401: "it refuses the signature: copy the workflow's URL again",
    403: "it refuses access: let anyone trigger the workflow, or copy its URL again",
    404: "it knows no such workflow: copy its URL again",
    413: "it accepts no message of that size",
    429: "it is asked too often",
}
"""Status → what an operator can do."""

_DISABLED: Final = "WorkflowTriggerIsNotEnabled"
"""The code of a workflow that was switched off."""

_INNER: Final = re.compile(rb"HTTP error ([1-5][0-9]{2})\b")
"""A connector answers 200 with this where Teams itself refused."""

_FAILED: Final = re.compile(rb"(?i)message delivery failed|^\s*<")
"""Further answers with 200 that are none of a success, the latter being a page for people."""


def _compose(message: ChatMessage) -> Payload:
    body = [_text(message.title, weight="Bolder", size="Medium")] if message.title else []
    for part in message.parts:
        body += _elements(part)
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.5",
        "msteams": {"width": "Full"},
        "body": body,
    }
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "content": card}]}


def _elements(part: Part) -> list[Payload]:
    if isinstance(part, str):
        return [_text(line) for line in part.splitlines()]
    found = list[Payload]()
    if part.rows:
        lines = lines_of(part)
        right = {"width": 2, "horizontalCellContentAlignment": "Right"}
        found.append(
            {
                "type": "Table",
                "firstRowAsHeaders": part.header is not None,
                "showGridLines": False,
                "columns": [{"width": 5}, *[right] * (len(lines[0]) - 1)],
                "rows": [_row(line) for line in lines],
            }
        )
    return [*found, _text(part.rest)] if part.rest else found


def _row(line: Line) -> Payload:
    cells = [{"type": "TableCell", "items": [_text(cell)]} for cell in line]
    return {"type": "TableRow", "cells": cells}


def _text(text: str, **style: str) -> Payload:
    return {"type": "TextBlock", "text": text, "wrap": True, **style}


def _judge(status: int, body: bytes) -> Refused | None:
    if 200 <= status < 300:  # noqa: PLR2004
        inner = _INNER.search(body)
        if inner is None:
            failed = _FAILED.search(body) is not None
            return Refused(f"{status}: its answer says that it failed") if failed else None
        status = int(inner[1])
    error = members_of(body).get("error")
    if isinstance(error, dict) and error.get("code") == _DISABLED:
        return Refused(f"{status}: the workflow was switched off: switch it on again")
    fix = _FIXES.get(status)
    return Refused(f"{status}: {fix}" if fix else str(status), status=status)


DIALECT: Final = Dialect(
    name="Teams",
    limit=24_000,  # bytes; a card may have 28 KB
    compose=_compose,
    judge=_judge,
)

TEAMS: Final = destination_for(
    DIALECT,
    (
        Service(
            "Microsoft Teams",
            (".webhook.office.com",),
            'make a workflow for the channel and write url = "…", its URL, and teams = true',
            chooses=True,
        ),
        Service(
            "Microsoft Teams",
            (".logic.azure.com", ".api.powerplatform.com"),
            "add teams = true",
            takes_json="/",  # a workflow may take events as well
        ),
        Service(
            "Microsoft Teams",
            ("outlook.office.com", "outlook.office365.com"),
            "such connectors are gone: make a workflow for the channel and write "
            'url = "…", its URL, and teams = true',
        ),
    ),
    r"/webhookb2/.+",
)
