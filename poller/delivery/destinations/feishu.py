"""A custom bot of Feishu or Lark: signed messages, and answers with the error in the body."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from poller.clock import wall_clock
from poller.delivery.destinations.chat import MOST_TOGETHER, Chat, market_and_day, send_test
from poller.delivery.destinations.destination import Destination, Service
from poller.delivery.digest import ChatMessage
from poller.delivery.endpoint import TIMEOUT, Endpoint
from poller.delivery.retry import Delivered, Failed, Outcome, retry_after

if TYPE_CHECKING:
    from poller.delivery.client import Answer

_KEPT: Final = 200
"""Bytes kept of an answer, before its secrets are masked."""

_OK: Final = 200


def _check_secrets(secrets: Sequence[str]) -> None:
    if len(secrets) > 1:
        raise ValueError("a bot has one secret")


FEISHU: Final = Destination(
    name="feishu",
    flag="feishu",  # a URL cannot choose it: some users have a proxy in front of their bot
    services=(
        Service(
            "Feishu or Lark",
            ("open.feishu.cn", "open.larksuite.com"),
            "add feishu = true",
            takes_json="/anycross/",  # workflows
        ),
    ),
    check_secrets=_check_secrets,
    depth=MOST_TOGETHER,
    lane=market_and_day,
    sender=lambda endpoint, watermarks: Chat(
        Feishu(endpoint, now=wall_clock), endpoint, watermarks
    ),
    test=lambda endpoint: send_test(Feishu(endpoint, now=wall_clock)),
)


class Feishu:
    """A custom bot of Feishu or Lark."""

    limit = 6_000
    """Characters of a message: a request may have 20 KB, and a character up to three bytes."""

    monospaced = False

    def __init__(
        self, endpoint: Endpoint, *, now: Callable[[], datetime], timeout: float = TIMEOUT
    ) -> None:
        """Sign with the endpoint's secret if it has one."""
        from poller.delivery.client import Client, redirect_hint  # noqa: PLC0415

        self._secret = next(iter(endpoint.secrets), None)
        self._client = Client(endpoint, timeout=timeout)
        self._mask = endpoint.mask()
        self._now = now
        self._redirect_hint = redirect_hint

    async def post(self, message: ChatMessage) -> Outcome:
        """See `Channel.post`."""
        body: dict[str, object] = {"msg_type": "text", "content": {"text": message.text}}
        if self._secret is not None:
            timestamp = str(int(self._now().timestamp()))
            body |= {"timestamp": timestamp, "sign": signature(timestamp, self._secret)}
        answer = await self._client.post(json.dumps(body).encode(), {})
        return Failed(f"Feishu: {answer}") if isinstance(answer, str) else self._outcome_of(answer)

    async def close(self) -> None:
        """See `Channel.close`."""
        await self._client.close()

    def _outcome_of(self, answer: "Answer") -> Outcome:
        """Return the outcome: by the status, and for 200 by the code in the body."""
        status, said = answer.status, self._mask(answer.body, _KEPT)
        if status != _OK:
            asked = retry_after(answer.headers.get("retry-after"), self._now())
            hint = self._redirect_hint(answer.headers.get("location"), self._mask)
            reason = f"Feishu: {status}, {hint}" if hint else f"Feishu: {status}"
            return Failed(reason, status, said, asked)
        code = code_of(answer.body)
        if code is None:
            return Failed(
                "Feishu: its answer holds no code; is the URL a custom bot's?", status, said
            )
        if code == 0:
            return Delivered(status)
        reason = f"Feishu: {code}: {_FIXES.get(code, 'it did not take the message')}"
        return Failed(reason, status, said, _PAUSE if code in _TOO_FREQUENT else None)


def code_of(answer: bytes) -> int | None:
    """Return the code in Feishu's answer; None if it has none."""
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):  # RecursionError: not a bot's answer either
        return None
    code = found.get("code") if isinstance(found, dict) else None
    if isinstance(code, str) and re.fullmatch(r"[0-9]{1,9}", code, re.ASCII):
        code = int(code)
    return code if type(code) is int and abs(code) < _MOST_CODE else None


_MOST_CODE: Final = 10**9
"""Feishu's codes have at most eight digits; a longer number would only fill the log."""

_FIXES: Final = {
    9499: "it is asked too often",
    11232: "it is asked too often",
    19001: "it knows no such bot: copy the URL from the group's settings again",
    19021: "it refuses the signature: check the bot's secret, and this machine's clock",
    19022: "it refuses this address: add it to the bot's list, or remove the list",
    19024: "it wants a keyword: add 'short' to the bot's keywords, or remove them",
}
"""Feishu's code → what an operator can do."""

_TOO_FREQUENT: Final = {9499, 11232}
_PAUSE: Final = timedelta(seconds=60)


def signature(timestamp: str, secret: str) -> str:
    """Return Feishu's signature: timestamp and secret are the key, the signed text is empty."""
    key = f"{timestamp}\n{secret}".encode()
    return base64.b64encode(hmac.digest(key, b"", hashlib.sha256)).decode()
